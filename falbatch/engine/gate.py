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
from falbatch.core.plateau import SLOW_START_SIZE, Observation, Plateau
from falbatch.engine.bell import Bell, Places

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from falbatch.core.record import OpenJob
    from falbatch.engine.ports import Clock
    from falbatch.errors import FalbatchError


class GateClosed(Exception):
    """Raised to a job that wanted to submit after the gate closed for good: it stays as it is."""


class SubmitGate:
    """Slots are taken by the feeder and given back when a job has its result or ended; turns are taken per submit."""

    def __init__(
        self,
        clock: Clock,
        *,
        window: Window,
        rate: Rate,
        backoff: BackoffPolicy,
        budget: RetryBudget,
        plateau: Plateau | None = None,
    ) -> None:
        """`plateau`: what finds the window's size below what refusals leave of it; None where only they bound it."""
        self._clock = clock
        self._backoff = backoff
        self.window = window
        self.plateau = plateau
        self.rate = rate
        self.budget = budget
        self.cool_down = CoolDown()
        self.in_flight = 0
        self._slots: dict[str, int] = {}
        """The same by endpoint."""
        self._ended: set[str] = set()
        """Requests that ended at fal and whose jobs still have their slots: their results are being read."""
        self._calls = Places()
        """Direct calls under way."""
        self.closed_by: FalbatchError | None = None
        """Why nothing is submitted any more; polling and downloads go on."""
        self.is_shut = False
        """True in a run that is not to submit anything, which is no reason to complain."""
        self._changed = Bell()
        self._again = 0
        """Jobs that go on after their results and wait for room."""
        self._going_on = anyio.Lock()
        """They stand in line here: one of them looks at each change."""
        self._crowd = anyio.Lock()
        """Who has a slot beyond what a cut left stands in line here."""

    @property
    def is_closed(self) -> bool:
        """True when nothing is submitted any more in this run."""
        return self.is_shut or self.closed_by is not None

    @property
    def room(self) -> int:
        """How many requests may be at fal or on their way there."""
        if self.plateau is None:
            return self.window.room
        return max(1, min(self.window.room, int(self.plateau.size)))

    @property
    def has_room(self) -> bool:
        """May one more job set out? Those on their way home count apart: fal need not stand idle while they are read,
        and they must not pile up when they cannot be."""
        room = self.room
        home = 0 if self.window.fixed else min(len(self._ended), room)
        return self.in_flight - home < room

    def slots_of(self, endpoint: str) -> int:
        """Slots that jobs of `endpoint` have."""
        return self._slots.get(endpoint, 0)

    def may_have_more(self, endpoint: str) -> bool:
        """False for an endpoint whose runners start: its jobs would fill the window and wait."""
        if self.plateau is None or not self.plateau.is_starting(endpoint):
            return True
        return self.slots_of(endpoint) < SLOW_START_SIZE

    async def slot(self, choose: Callable[[], str | None]) -> str | None:
        """Wait until the window has room and `choose` names the endpoint that gets it; take it. None when the gate is
        closed for good. `choose` is asked again at each change; it may wait for one with None."""
        while not self.is_closed:
            if self.has_room and not self._again and (endpoint := choose()) is not None:
                self.take_slot(endpoint)
                return endpoint
            await self._changed.wait()
        return None

    async def another(self, endpoint: str) -> None:
        """Wait for room for a job that goes on after its result; take a slot. It comes before all that are new: its
        attempts are few, and it holds a coroutine. Raises `GateClosed`."""
        self._again += 1
        try:
            async with self._going_on:
                while not (self.has_room or self.is_closed):
                    await self._changed.wait()
                if self.is_closed:
                    raise GateClosed
                self.take_slot(endpoint)
        finally:
            self._again -= 1
            self._changed.ring()

    def take_slot(self, endpoint: str) -> None:
        """Take a slot for a request that is at fal already, room or not."""
        self.in_flight += 1
        self._slots[endpoint] = self.slots_of(endpoint) + 1

    def give_back(self, endpoint: str) -> None:
        """A job left the window."""
        self.in_flight -= 1
        self._slots[endpoint] -= 1
        self._changed.ring()

    def observe(self, seen: Observation) -> float | None:
        """What fal said of a request. Returns in how many seconds to ask again at the latest; None: as it may be."""
        if seen.phase == "COMPLETED":
            self._ended.add(seen.request_id)
        elif not seen.phase:
            self._ended.discard(seen.request_id)  # its result was "not yet" there
            if not seen.is_ours and self.window.slow_start:
                self.window = self.window.accepted()  # fal took it, from an earlier run: it is in the window
        look_s = None if self.plateau is None else self.plateau.seen(seen)
        if self._changed.is_awaited and self.has_room:
            self._changed.ring()
        return look_s

    def left(self, request_id: str) -> None:
        """Nobody waits for a request or its result any more."""
        self._ended.discard(request_id)
        if self.plateau is not None:
            self.plateau.left(request_id)
        self._changed.ring()

    def over(self, endpoint: str) -> None:
        """The feeder has nothing more for `endpoint`."""
        if self.plateau is not None:
            self.plateau.over(endpoint)

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Wait for room for one direct call, and keep it until the call has ended. A window that was cut counts at
        once, also for jobs that have their slots already: they would all be refused again together."""
        if self.is_closed:
            raise GateClosed
        await self._calls.take(self.room)
        try:
            if self.is_closed:
                raise GateClosed
            yield
        finally:
            self._calls.taken -= 1
            self._notify()

    @property
    def _is_crowded(self) -> bool:
        """Is more at fal than the last cut left? Those there have to end first: what is sent now would be refused."""
        if self.plateau is None or self.window.slow_start or self.window.fixed:
            return False
        return self.plateau.at_fal >= self.window.room

    async def turn(self) -> None:
        """Wait until one submit may leave. Raises `GateClosed`."""
        await self._pass()
        if not self._is_crowded:
            return
        async with self._crowd:  # one by one, or all who wait would take a turn at each end, and leave it unused
            while self._is_crowded:
                await self._room_at_fal()
                await self._pass()

    async def _room_at_fal(self) -> None:
        while self._is_crowded and not self.is_closed:
            await self._changed.wait()

    async def _pass(self) -> None:
        """Wait for the end of a pause, and for a turn by the rate."""
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
        if self.plateau is not None:
            self.plateau.answered(self._clock.now_s() - sent_at_s)
        self.cool_down = self.cool_down.accepted(sent_at_s=sent_at_s)
        self.budget = self.budget.after_submit()
        self._notify()

    def refused(self, sent_at_s: float, retry_after_s: float | None) -> float:
        """fal said "not now" to a submit that left at `sent_at_s`. Returns the pause for everybody, in seconds."""
        used = self._calls.taken or None
        now_s = self._clock.now_s()
        cause_s = sent_at_s
        if used is None and self.plateau is not None:
            # Before anything is there, what was on its way together.
            used = 1 + self.plateau.at_fal if self.plateau.at_fal else int(self.plateau.size)
            if self._is_crowded:
                cause_s = self.window.last_cut_at_s  # that cut is not felt at fal yet: no reason for another one
        self.window = self.window.refused(sent_at_s=cause_s, now_s=now_s, used=used)
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
        self._changed.ring()
        if self.is_closed:
            self._calls.dismiss()
        else:
            self._calls.admit(self.room)
