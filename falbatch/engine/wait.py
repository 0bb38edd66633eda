"""Waiting for requests to complete: one scheduler for all of them, not a loop per request.

    completion() ──▶ heap of (due time, request) ──▶ one status call each, `polls_per_s` at most
                          ▲                                   │
                          └──────── not done: due later ◀─────┘── done: the waiting job goes on
    called_back() ─────────────────────────────────────────────────────────▶

When to ask is decided in `core/schedule.py` from the durations seen so far. Where fal calls back, asking is a safety
net, as long as its calls arrive. Touched on the event loop only.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final

import anyio

from falbatch.core.classify import is_account_trouble, is_worth_reading_again
from falbatch.core.events import JobMoved, Listener, Notice, Polled
from falbatch.core.schedule import GRACE_S, Durations, Trust, first_poll_s, net_poll_s, next_poll_s
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

SAID_MOST: Final = 10_000
"""Calls remembered for jobs that do not wait yet; a call that is forgotten is one more question."""


@dataclass(frozen=True, slots=True)
class CalledBack:
    """What is believed of a call of fal's: that the request has ended, and how by its word."""

    error: str | None
    phase: str = "COMPLETED"
    queue_position: int | None = None
    inference_time_s: float | None = None


@dataclass(slots=True)
class _Watch:
    """One request that a job waits for."""

    name: str
    request: RequestOnRecord
    accepted_at_s: float
    """Monotonic; negative ages cannot come out of a clock that was set back."""
    is_ours: bool
    """False for a request of an earlier run: its age is known by the wall clock only, so nothing is learned."""
    is_called: bool = False
    """fal was told where to call about it."""
    turn: int = 0
    """Which of its entries among the due ones counts; the others are old."""
    is_asked: bool = False
    """A status call is under way."""
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
        is_called_back: bool = False,
    ) -> None:
        """`is_called_back`: fal is told where to call with each submit of this run."""
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
        self._watches: dict[str, _Watch] = {}
        """By request id."""
        self._is_called_back = is_called_back
        self._trust = Trust()
        self._scout: _Watch | None = None
        """The request that is asked about although fal will call, while nobody knows whether its calls arrive."""
        self._missing: set[str] = set()
        """Requests found ended a moment ago, whose calls may still come."""
        self._said: OrderedDict[str, str | None] = OrderedDict()
        """Calls about requests that nobody waits for yet: the error by fal's word, by request id."""
        self._group: TaskGroup | None = None

    async def completion(
        self, name: str, request: RequestOnRecord, *, is_ours: bool, not_before_s: float = 0.0
    ) -> Progress | None:
        """Return when fal says COMPLETED, or calls; None when fal no longer knows the request.

        Raises the last `WireError` after `MOST_MISSES`, `CredentialsError` when the key is refused, `FalUnreachable`.
        """
        if request.request_id in self._said:
            return CalledBack(self._said.pop(request.request_id))
        now_s = self._clock.now_s()
        age_s = 0.0 if is_ours else max(0.0, self._clock.unix_s() - request.accepted_at)
        watch = _Watch(name, request, now_s - age_s, is_ours, is_called=is_ours and self._is_called_back)
        self._watches[request.request_id] = watch
        if watch.is_called:
            self._choose_scout(watch)
        self._schedule(watch, max(self._first_s(watch), not_before_s))
        try:
            await watch.completed.wait()
        finally:
            self._listen(JobMoved(name, request.request_id, watch.phase, ""))
            self._leave(watch)
        if watch.error is not None:
            raise watch.error
        return watch.progress

    def called_back(self, request_id: str, error: str | None, *, is_open: bool) -> None:
        """fal called about `request_id`: nobody need ask any more. `error` is its word, None for a success; `is_open`:
        a job waits for it, or will."""
        self._missing.discard(request_id)
        self._learn_trust(self._trust.came())
        watch = self._watches.get(request_id)
        if watch is not None:
            if watch.is_ours and not watch.completed.is_set():
                self._durations[watch.request.endpoint].add(max(0.0, self._clock.now_s() - watch.accepted_at_s))
            self._finish(watch, CalledBack(error))
        elif is_open:
            self._said[request_id] = error
            if len(self._said) > SAID_MOST:
                self._said.popitem(last=False)

    def _first_s(self, watch: _Watch) -> float:
        edges = self._durations[watch.request.endpoint].edges()
        if not watch.is_ours:
            return 0.0
        if self._is_awaited(watch):
            self._moved(watch, "AWAITED")
            return net_poll_s(0, edges)
        return first_poll_s(edges)

    def _is_awaited(self, watch: _Watch) -> bool:
        """True when a call is expected to make asking needless."""
        return watch.is_called and not self._trust.is_lost and watch is not self._scout

    def _choose_scout(self, watch: _Watch) -> None:
        if self._trust.is_open and self._scout is None and not self._missing:
            self._scout = watch

    def _leave(self, watch: _Watch) -> None:
        """Nobody waits for `watch` any more. A scout that learned nothing has a successor."""
        watch.turn = -1
        if self._watches.get(watch.request.request_id) is watch:
            del self._watches[watch.request.request_id]
        if watch is self._scout:
            self._scout = None
            heir = next((one for one in self._watches.values() if one.is_called and not one.is_asked), None)
            if heir is not None:
                self._choose_scout(heir)
            if heir is not None and heir is self._scout:
                self._schedule(heir, 0.0)

    def _learn_trust(self, trust: Trust) -> None:
        before, self._trust = self._trust, trust
        if before.is_lost and not trust.is_lost:
            self._listen(Notice("fal's webhooks arrive: requests are asked about only where none comes"))
        if before.is_lost or not trust.is_lost:
            return
        self._listen(Notice(NO_CALLS))
        for watch in self._watches.values():
            if watch.is_called and not watch.is_asked and not watch.completed.is_set():
                self._schedule(watch, 0.0)

    def _expect_call(self, watch: _Watch) -> None:
        """`watch` was found ended by asking: was its call lost, or is it on its way?"""
        if not watch.is_called or self._trust.is_lost or self._group is None:
            return
        self._missing.add(watch.request.request_id)
        self._group.start_soon(self._wait_for_call, watch.request.request_id)

    async def _wait_for_call(self, request_id: str) -> None:
        await self._clock.sleep(GRACE_S)
        if request_id in self._missing:
            self._missing.discard(request_id)
            self._learn_trust(self._trust.missed())

    def _schedule(self, watch: _Watch, in_s: float) -> None:
        due_s = self._clock.now_s() + in_s
        is_first = not self._due or due_s < self._due[0][0]
        watch.turn = next(self._order)
        heapq.heappush(self._due, (due_s, watch.turn, watch))
        if is_first:
            self._wake.set()

    def usual_s(self, endpoint: str) -> float | None:
        """How long requests to `endpoint` take at most, of nine in ten; None before enough were seen."""
        edges = self._durations[endpoint].edges()
        return None if edges is None else edges[1]

    def took(self, endpoint: str, seconds: float) -> None:
        """A call that nobody polled for (a direct one) took so long."""
        self._durations[endpoint].add(seconds)

    async def run(self, group: TaskGroup) -> None:
        """Ask whoever is due, for ever; the caller cancels it."""
        self._group = group
        while True:
            wait_s = self._due[0][0] - self._clock.now_s() if self._due else None
            if wait_s is None or wait_s > 0:
                self._wake = anyio.Event()
                with anyio.move_on_after(wait_s):
                    await self._wake.wait()
                continue
            _, turn, watch = heapq.heappop(self._due)
            if turn != watch.turn or watch.completed.is_set():
                continue
            watch.is_asked = True
            self._rate, turn_s = self._rate.take(self._clock.now_s())
            if turn_s > 0:
                await self._clock.sleep(turn_s)
            if not watch.completed.is_set():  # fal may have called meanwhile
                group.start_soon(self._ask, watch)

    async def _ask(self, watch: _Watch) -> None:
        sent_at_s = self._clock.now_s()
        watch.polls += 1
        self._listen(Polled())
        try:
            progress = await self._queue.status(watch.request)
        except WireError as error:
            watch.is_asked = False
            if not watch.completed.is_set():
                self._missed(watch, error)
            return
        watch.is_asked = False
        self._reach.heard()
        if watch.completed.is_set():
            return  # fal called while it was asked
        watch.misses = 0
        age_s = sent_at_s - watch.accepted_at_s
        if progress.phase == "COMPLETED":
            if watch.is_ours:
                self._learn_duration(watch, age_s)
            self._expect_call(watch)
            self._finish(watch, progress)
            return
        watch.not_yet_s = age_s
        self._moved(watch, progress.phase)
        edges = self._durations[watch.request.endpoint].edges()
        if self._is_awaited(watch):
            self._schedule(watch, net_poll_s(watch.polls, edges))
        else:
            self._schedule(watch, next_poll_s(self._clock.now_s() - watch.accepted_at_s, watch.polls, edges))

    def _learn_duration(self, watch: _Watch, done_s: float) -> None:
        if watch.phase == "AWAITED" or self._is_awaited(watch):
            return  # a safety net's questions come long after the end: they tell nothing
        self._durations[watch.request.endpoint].learn(not_yet_s=watch.not_yet_s, done_s=done_s)

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
        if watch.completed.is_set():
            return
        watch.progress = progress
        watch.error = error
        watch.completed.set()


def _is_worth_asking_again(error: WireError) -> bool:
    """By the table of reads; a 404 too, since a request that was just accepted may not be known everywhere yet."""
    return is_worth_reading_again(error) or (isinstance(error, HttpError) and error.status == 404)


NO_CALLS: Final = (
    "requests have ended at fal and no webhook about them came here: all are asked about, as without webhooks, until"
    " one comes. Does --webhook-url lead to this listener, from the internet?"
)

KEY_ADVICE: Final = (
    "Requests that are at fal go on there; set a key of the same account and run the same command to collect them."
)
