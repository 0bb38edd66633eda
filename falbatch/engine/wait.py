"""Waiting for requests to complete: one scheduler for all of them, not a loop per request.

    completion() ──▶ agenda of requests ──▶ one status call each, `polls_per_s` at most
                          ▲                            │
                          └──── not done: due later ◀──┘── done: the waiting job goes on
    called_back() ──────────────────────────────────────────▶

When to ask is decided in `core/line.py`, by what was learned so far; whose turn it is, in `core/agenda.py`. Where fal
calls back, asking is a safety net, as long as its calls arrive. Touched on the event loop only.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

import anyio

from falbatch.core.agenda import Agenda
from falbatch.core.classify import is_account_trouble, is_worth_reading_again
from falbatch.core.events import JobMoved, Listener, Notice, Polled
from falbatch.core.plateau import Observation
from falbatch.core.schedule import GRACE_S, Trust, net_poll_s
from falbatch.engine.lines import Lines
from falbatch.engine.repeat import pause_s
from falbatch.engine.watch import Watch
from falbatch.errors import CredentialsError, HttpError, WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from falbatch.core.backoff import BackoffPolicy
    from falbatch.core.line import Line
    from falbatch.core.pacing import Rate
    from falbatch.core.record import RequestOnRecord
    from falbatch.engine.ports import Clock, Progress, Queue, Store
    from falbatch.engine.reach import Reach

MOST_MISSES: Final = 40
"""Failed status calls in a row about one request (while others may succeed) before it is left for another run."""

NOT_FOUND_LOOKS: Final = 4
"""404s in a row after which a request is taken to be unknown to fal."""

NOT_YET_S: Final = 1.0
"""Pause when status said COMPLETED but the result says "not yet"."""

SLOT_HAIR_S: Final = 0.001
"""A question may leave so much before its turn by `polls_per_s`: their number over time stays the same."""

NAP_LEAST_S: Final = 0.002
"""The scheduler looks at the agenda no more often than this: what falls due meanwhile is asked together."""

SAID_MOST: Final = 10_000
"""Calls remembered for jobs that do not wait yet; a call that is forgotten is one more question."""


@dataclass(frozen=True, slots=True)
class CalledBack:
    """What is believed of a call of fal's: that the request has ended, and how by its word."""

    error: str | None
    phase: str = "COMPLETED"
    queue_position: int | None = None
    inference_time_s: float | None = None


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
        observe: Callable[[Observation], float | None] | None = None,
        store: Store | None = None,
    ) -> None:
        """`is_called_back`: fal is told where to call with each submit of this run. `observe` hears what is seen of
        each request, and answers in how many seconds to ask about it at the latest. `store` keeps what is learned."""
        self._queue = queue
        self._clock = clock
        self._reach = reach
        self._rate = rate
        self._backoff = backoff
        self._listen = listen
        self._agenda: Agenda[Watch] = Agenda()
        self._wake = anyio.Event()
        self._naps_until_s = inf
        """When `run` looks at the agenda next."""
        self._lines = Lines(store, clock)
        self._watches: dict[str, Watch] = {}
        """By request id."""
        self._is_called_back = is_called_back
        self._observe = observe
        self._trust = Trust()
        self._scout: Watch | None = None
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
        # A clock that was set back must not make a request younger than new.
        age_s = 0.0 if is_ours else max(0.0, self._clock.unix_s() - request.accepted_at)
        line = self._lines.of(request.endpoint)
        position = request.queue_position if is_ours else None
        course = line.enter(self._clock.now_s() - age_s, is_ours=is_ours, position=position)
        watch = Watch(name, request, line, course, is_called=is_ours and self._is_called_back)
        self._watches[request.request_id] = watch
        if watch.is_called:
            self._choose_scout(watch)
        self._schedule_first(watch, not_before_s)
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
            if not watch.completed.is_set():
                watch.line.called(watch.course, self._clock.now_s())
            self._finish(watch, CalledBack(error))
        elif is_open:
            self._said[request_id] = error
            if len(self._said) > SAID_MOST:
                self._said.popitem(last=False)

    def _schedule_first(self, watch: Watch, not_before_s: float) -> None:
        look_s = self._seen(watch, "", 0.0)
        self._moved(watch, "AWAITED" if self._is_awaited(watch) else "ACCEPTED")
        if not watch.course.is_ours:
            self._schedule(watch, not_before_s)
        elif self._is_awaited(watch):
            self._schedule(watch, max(not_before_s, net_poll_s(0, watch.line.stays.edges())))
        elif not_before_s > 0:
            self._schedule(watch, not_before_s)
        else:
            self._plan(watch, look_s)

    def _seen(self, watch: Watch, phase: str, age_s: float, ended: Progress | None = None) -> float:
        """Tell who observes; how many seconds to wait with the next question at most."""
        if self._observe is None:
            return inf
        told_s = None if ended is None else ended.inference_time_s
        failed = ended is not None and ended.error is not None
        request = watch.request
        look_s = self._observe(
            Observation(request.request_id, request.endpoint, phase, age_s, told_s, watch.course.is_ours, failed)
        )
        return inf if look_s is None or self._is_awaited(watch) else look_s

    def _is_awaited(self, watch: Watch) -> bool:
        """True when a call is expected to make asking needless."""
        return watch.is_called and not self._trust.is_lost and watch is not self._scout

    def _choose_scout(self, watch: Watch) -> None:
        if self._trust.is_open and self._scout is None and not self._missing:
            self._scout = watch

    def _leave(self, watch: Watch) -> None:
        """Nobody waits for `watch` any more. A scout that learned nothing has a successor."""
        self._agenda.drop(watch)
        watch.line.leave(watch.course, self._clock.now_s())
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

    def _expect_call(self, watch: Watch) -> None:
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

    def _schedule(self, watch: Watch, in_s: float) -> None:
        """Ask about it then, whatever is learned until then."""
        due_s = self._clock.now_s() + in_s
        watch.is_planned = False
        self._put(watch, due_s, due_s)

    def _plan(self, watch: Watch, at_most_s: float = inf) -> None:
        """Ask about it when its line says so, and in `at_most_s` seconds at the latest."""
        now_s = self._clock.now_s()
        look = watch.line.look(watch.course, now_s)
        watch.is_planned = look.due_s <= now_s + at_most_s
        self._put(watch, min(look.due_s, now_s + at_most_s), look.likely_s)

    def _put(self, watch: Watch, due_s: float, likely_s: float) -> None:
        self._agenda.put(watch, due_s, likely_s)
        if due_s < self._naps_until_s:
            self._wake.set()

    def usual_s(self, endpoint: str) -> float | None:
        """How long requests to `endpoint` take at most, of nine in ten; None before enough were seen."""
        edges = self._lines.of(endpoint).stays.edges()
        return None if edges is None else edges[1]

    def took(self, endpoint: str, seconds: float) -> None:
        """A call that nobody polled for (a direct one) took so long."""
        self._lines.of(endpoint).took(seconds)

    async def run(self, group: TaskGroup) -> None:
        """Ask whoever is due, for ever; the caller cancels it. What was learned is kept then."""
        self._group = group
        try:
            while True:
                while (watch := self._next()) is not None:
                    group.start_soon(self._ask_in_turn, watch)
                if self._lines.is_due:
                    group.start_soon(self._lines.keep)
                await self._nap()
        finally:
            with anyio.CancelScope(shield=True):
                await self._lines.keep()

    async def _nap(self) -> None:
        """Until somebody may be asked about, or a date comes that is earlier than all others."""
        now_s = self._clock.now_s()
        due_s = self._agenda.next_s()
        wait_s = None if due_s is None else max(NAP_LEAST_S, max(due_s, self._rate.next_at_s - SLOT_HAIR_S) - now_s)
        self._naps_until_s = inf if wait_s is None else now_s + wait_s
        self._wake = anyio.Event()
        with anyio.move_on_after(wait_s):
            await self._wake.wait()
        self._naps_until_s = -inf

    def _next(self) -> Watch | None:
        """The request to ask about now, its slot taken; None when none is due, or `polls_per_s` does not allow it."""
        now_s = self._clock.now_s()
        if self._rate.next_at_s - now_s > SLOT_HAIR_S:
            return None
        while (watch := self._agenda.next_ready(now_s)) is not None:
            if watch.completed.is_set():
                continue
            if watch.is_planned:  # much may have been learned since
                look = watch.line.look(watch.course, now_s)
                if not look.is_question or look.due_s > now_s:
                    self._agenda.put(watch, look.due_s, look.likely_s)
                    continue
            watch.is_asked = True
            self._rate, _ = self._rate.take(now_s)
            return watch
        return None

    async def _ask_in_turn(self, watch: Watch | None) -> None:
        """Ask about `watch`, and then about others as long as some are due: tasks cost more than questions."""
        while watch is not None:
            await self._ask(watch)
            watch = self._next()

    async def _ask(self, watch: Watch) -> None:
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
        if watch.completed.is_set() or watch.course.is_over:
            return  # fal called while it was asked, or nobody waits any more
        watch.misses = 0
        if progress.phase == "COMPLETED":
            self._found(watch, progress, sent_at_s)
            return
        is_queued = progress.phase == "IN_QUEUE"
        watch.line.not_yet(watch.course, sent_at_s, is_queued=is_queued, position=progress.queue_position)
        self._moved(watch, progress.phase)
        look_s = self._seen(watch, progress.phase, sent_at_s - watch.course.accepted_s)
        if self._is_awaited(watch):
            self._schedule(watch, net_poll_s(watch.polls, watch.line.stays.edges()))
        else:
            self._plan(watch, look_s)

    def _found(self, watch: Watch, progress: Progress, sent_at_s: float) -> None:
        # A safety net's questions come long after the end: they tell nothing.
        is_taught = watch.phase != "AWAITED" and not self._is_awaited(watch)
        knew = watch.line.durations.is_believed
        watch.line.found(watch.course, sent_at_s, worked_s=progress.inference_time_s, is_taught=is_taught)
        if not knew and watch.line.durations.is_believed:
            self._plan_anew(watch.line)
        self._expect_call(watch)
        self._finish(watch, progress)

    def _plan_anew(self, line: Line) -> None:
        """Enough is known of an endpoint, for the first time: all its requests have waited for that."""
        for watch in self._watches.values():
            if watch.line is line and watch.is_planned and not watch.is_asked and not watch.completed.is_set():
                self._plan(watch)

    def _moved(self, watch: Watch, phase: str) -> None:
        if phase != watch.phase:
            self._listen(JobMoved(watch.name, watch.request.request_id, watch.phase, phase))
            watch.phase = phase

    def _missed(self, watch: Watch, error: WireError) -> None:
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

    def _finish(self, watch: Watch, progress: Progress | None, error: Exception | None = None) -> None:
        if watch.completed.is_set():
            return
        if progress is not None:
            self._seen(watch, progress.phase, max(0.0, self._clock.now_s() - watch.course.accepted_s), progress)
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
