"""The submit gate: how many jobs are between submit and result, how fast submits leave, and when none may.

The decisions are values of `core/pacing.py`; this class keeps the current ones, lets callers wait for them to
change, and is touched on the event loop only.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from falbatch.core.backoff import BackoffPolicy, delay_s
from falbatch.core.pacing import CoolDown, Rate, RetryBudget, Window

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from falbatch.core.record import OpenJob
    from falbatch.engine.ports import Clock
    from falbatch.errors import FalbatchError


class GateClosed(Exception):
    """Raised to a job that wanted to submit after the gate closed for good: it stays as it is."""


class SubmitGate:
    """Slots are taken by the feeder and given back when a job has its result or ended; turns are taken per submit."""

    def __init__(
        self, clock: Clock, *, window: Window, rate: Rate, backoff: BackoffPolicy, budget: RetryBudget
    ) -> None:
        self._clock = clock
        self._backoff = backoff
        self.window = window
        self.rate = rate
        self.budget = budget
        self.cool_down = CoolDown()
        self.in_flight = 0
        self._calls = 0
        """Direct calls under way."""
        self.closed_by: FalbatchError | None = None
        """Why nothing is submitted any more; polling and downloads go on."""
        self.is_shut = False
        """True in a run that is not to submit anything, which is no reason to complain."""
        self._changed = anyio.Event()

    @property
    def is_closed(self) -> bool:
        """True when nothing is submitted any more in this run."""
        return self.is_shut or self.closed_by is not None

    async def slot(self) -> bool:
        """Wait for room in the window and take it. False when the gate is closed for good."""
        while not self.is_closed and self.in_flight >= self.window.room:
            await self._changed.wait()
        if self.is_closed:
            return False
        self.in_flight += 1
        return True

    def take_slot(self) -> None:
        """Take a slot for a request that is at fal already, room or not."""
        self.in_flight += 1

    def give_back(self) -> None:
        """A job left the window."""
        self.in_flight -= 1
        self._notify()

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Wait for room for one direct call, and keep it until the call has ended. A window that was cut counts at
        once, also for jobs that have their slots already: they would all be refused again together."""
        while not self.is_closed and self._calls >= self.window.room:
            await self._changed.wait()
        if self.is_closed:
            raise GateClosed
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            self._notify()

    async def turn(self) -> None:
        """Wait until one submit may leave. Raises `GateClosed`."""
        has_slot = False
        while True:
            if self.is_closed:
                raise GateClosed
            pause_s = self.cool_down.wait_s(self._clock.now_s())
            if pause_s > 0:
                await self._clock.sleep(pause_s)
                # The slot passed by during the pause: without a new one, all who wait would leave at once after it.
                has_slot = False
            elif has_slot:
                return
            else:
                has_slot = True
                self.rate, wait_s = self.rate.take(self._clock.now_s())
                if wait_s > 0:
                    await self._clock.sleep(wait_s)

    def accepted(self, sent_at_s: float) -> None:
        """fal took a submit that left at `sent_at_s`."""
        self.window = self.window.accepted()
        self.cool_down = self.cool_down.accepted(sent_at_s=sent_at_s)
        self.budget = self.budget.after_submit()
        self._notify()

    def refused(self, sent_at_s: float, retry_after_s: float | None) -> float:
        """fal said "not now" to a submit that left at `sent_at_s`. Returns the pause for everybody, in seconds."""
        self.window = self.window.refused(sent_at_s=sent_at_s, now_s=self._clock.now_s())
        return self._cool(sent_at_s, retry_after_s)

    def unreached(self, sent_at_s: float) -> float:
        """A submit did not get through to fal: pause like after a refusal, but the window is not to blame."""
        return self._cool(sent_at_s, None)

    def grant_another(self, job: OpenJob, failures: int, most: int) -> bool:
        """May `job` have another attempt after `failures` that failed? Counts it. A job that left the manifest gets
        none: what it cost is brought home, nothing more is spent on it."""
        if job.seq is None or failures >= most or not self.budget.has_room:
            return False
        self.budget = self.budget.after_retry()
        return True

    def _cool(self, sent_at_s: float, retry_after_s: float | None) -> float:
        now_s = self._clock.now_s()
        before = self.cool_down
        cool_down = before.refused(sent_at_s=sent_at_s, now_s=now_s)
        if cool_down is not before or retry_after_s is not None:
            pause_s = delay_s(
                max(1, cool_down.refusals), self._backoff, self._clock.jitter(), retry_after_s=retry_after_s
            )
            cool_down = cool_down.until(now_s + pause_s)
        self.cool_down = cool_down
        return cool_down.wait_s(now_s)

    def close(self, reason: FalbatchError) -> None:
        """Submit nothing more in this run. The first reason stays."""
        if self.closed_by is None:
            self.closed_by = reason
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
