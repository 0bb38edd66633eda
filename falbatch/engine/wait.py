"""Waiting for requests to complete: one scheduler for all of them, not a loop per request.

    completion() ──▶ heap of (due time, request) ──▶ one status call each, `polls_per_s` at most
                          ▲                                   │
                          └──────── not done: due later ◀─────┘── done: the waiting job goes on

When to ask is decided in `core/schedule.py` from the durations seen so far. Touched on the event loop only.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final

import anyio

from falbatch.core.classify import is_account_trouble, is_worth_reading_again
from falbatch.core.events import JobMoved, Listener, Polled
from falbatch.core.schedule import Durations, first_poll_s, next_poll_s
from falbatch.engine.repeat import pause_s
from falbatch.errors import CredentialsError, HttpError, WireError

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from falbatch.core.backoff import BackoffPolicy
    from falbatch.core.pacing import Rate
    from falbatch.core.record import RequestOnRecord
    from falbatch.engine.ports import Clock, Progress, Queue
    from falbatch.engine.reach import Reach

MOST_MISSES: Final = 40
"""Failed status calls in a row about one request (while others may succeed) before it is left for another run."""

NOT_FOUND_LOOKS: Final = 4
"""404s in a row after which a request is taken to be unknown to fal."""

NOT_YET_S: Final = 1.0
"""Pause when status said COMPLETED but the result says "not yet"."""


@dataclass(slots=True)
class _Watch:
    """One request that a job waits for."""

    name: str
    request: RequestOnRecord
    accepted_at_s: float
    """Monotonic; negative ages cannot come out of a clock that was set back."""
    is_ours: bool
    """False for a request of an earlier run: its age is known by the wall clock only, so nothing is learned."""
    polls: int = 0
    not_yet_s: float = 0.0
    """Age at the latest question that was answered "not done"."""
    misses: int = 0
    phase: str = ""
    completed: anyio.Event = field(default_factory=anyio.Event)
    progress: Progress | None = None
    error: Exception | None = None


class PollScheduler:
    """Asks fal about every watched request. `run` must be running for `completion` to return."""

    def __init__(
        self,
        *,
        queue: Queue,
        clock: Clock,
        reach: Reach,
        rate: Rate,
        backoff: BackoffPolicy,
        listen: Listener,
    ) -> None:
        self._queue = queue
        self._clock = clock
        self._reach = reach
        self._rate = rate
        self._backoff = backoff
        self._listen = listen
        self._due: list[tuple[float, int, _Watch]] = []
        self._order = count()
        self._wake = anyio.Event()
        self._durations: defaultdict[str, Durations] = defaultdict(Durations)

    async def completion(
        self, name: str, request: RequestOnRecord, *, is_ours: bool, not_before_s: float = 0.0
    ) -> Progress | None:
        """Return when fal says COMPLETED; None when fal no longer knows the request.

        Raises the last `WireError` after `MOST_MISSES`, `CredentialsError` when the key is refused, `FalUnreachable`.
        """
        now_s = self._clock.now_s()
        age_s = 0.0 if is_ours else max(0.0, self._clock.unix_s() - request.accepted_at)
        watch = _Watch(name, request, now_s - age_s, is_ours)
        first_s = first_poll_s(self._durations[request.endpoint].edges()) if is_ours else 0.0
        self._schedule(watch, max(first_s, not_before_s))
        try:
            await watch.completed.wait()
        finally:
            self._listen(JobMoved(name, request.request_id, watch.phase, ""))
        if watch.error is not None:
            raise watch.error
        return watch.progress

    def _schedule(self, watch: _Watch, in_s: float) -> None:
        due_s = self._clock.now_s() + in_s
        is_first = not self._due or due_s < self._due[0][0]
        heapq.heappush(self._due, (due_s, next(self._order), watch))
        if is_first:
            self._wake.set()

    def usual_s(self, endpoint: str) -> float | None:
        """How long requests to `endpoint` take at most, of nine in ten; None before enough were seen."""
        edges = self._durations[endpoint].edges()
        return None if edges is None else edges[1]

    async def run(self, group: TaskGroup) -> None:
        """Ask whoever is due, for ever; the caller cancels it."""
        while True:
            wait_s = self._due[0][0] - self._clock.now_s() if self._due else None
            if wait_s is None or wait_s > 0:
                self._wake = anyio.Event()
                with anyio.move_on_after(wait_s):
                    await self._wake.wait()
                continue
            _, _, watch = heapq.heappop(self._due)
            self._rate, turn_s = self._rate.take(self._clock.now_s())
            if turn_s > 0:
                await self._clock.sleep(turn_s)
            group.start_soon(self._ask, watch)

    async def _ask(self, watch: _Watch) -> None:
        sent_at_s = self._clock.now_s()
        watch.polls += 1
        self._listen(Polled())
        try:
            progress = await self._queue.status(watch.request)
        except WireError as error:
            self._missed(watch, error)
            return
        self._reach.heard()
        watch.misses = 0
        age_s = sent_at_s - watch.accepted_at_s
        if progress.phase == "COMPLETED":
            if watch.is_ours:
                self._durations[watch.request.endpoint].learn(not_yet_s=watch.not_yet_s, done_s=age_s)
            self._finish(watch, progress)
            return
        watch.not_yet_s = age_s
        self._moved(watch, progress.phase)
        edges = self._durations[watch.request.endpoint].edges()
        self._schedule(watch, next_poll_s(self._clock.now_s() - watch.accepted_at_s, watch.polls, edges))

    def _moved(self, watch: _Watch, phase: str) -> None:
        if phase != watch.phase:
            self._listen(JobMoved(watch.name, watch.request.request_id, watch.phase, phase))
            watch.phase = phase

    def _missed(self, watch: _Watch, error: WireError) -> None:
        """A status call failed: ask again later, or tell the job why not."""
        watch.misses += 1
        if isinstance(error, HttpError):
            self._reach.heard()
        try:
            if not isinstance(error, HttpError):
                self._reach.missed(error)
        except Exception as unreachable:  # noqa: BLE001  (handed to the job, whose task may fail)
            self._finish(watch, None, unreachable)
            return
        if is_account_trouble(error):
            self._finish(watch, None, CredentialsError(f"fal refuses the key: {error}", advice=KEY_ADVICE))
        elif isinstance(error, HttpError) and error.status == 404 and watch.misses >= NOT_FOUND_LOOKS:
            self._finish(watch, None)
        elif _is_worth_asking_again(error) and watch.misses < MOST_MISSES:
            self._schedule(watch, pause_s(watch.misses, error, self._backoff, self._clock))
        else:
            self._finish(watch, None, error)

    def _finish(self, watch: _Watch, progress: Progress | None, error: Exception | None = None) -> None:
        watch.progress = progress
        watch.error = error
        watch.completed.set()


def _is_worth_asking_again(error: WireError) -> bool:
    """By the table of reads; a 404 too, since a request that was just accepted may not be known everywhere yet."""
    return is_worth_reading_again(error) or (isinstance(error, HttpError) and error.status == 404)


KEY_ADVICE: Final = (
    "Requests that are at fal go on there; set a key of the same account and run the same command to collect them."
)
