"""fal and a run that polls it, in virtual time: which questions does the schedule ask, and how late does it notice?

    submit ─▶ fal's queue ─▶ works (so many at a time) ─▶ ended ─▶ noticed: the next one is submitted
                                 ▲ questions, `polls_per_s` at most

`python -m tests.core.polling` prints the table of all cases.
"""

from __future__ import annotations

import heapq
import random
import statistics
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Final

from falbatch.core.agenda import Agenda
from falbatch.core.line import Course, Line, Look

Service = Callable[[int, random.Random], float]
"""Seconds of work of a request, by its number and a source of chance."""


def steady(seconds: float) -> Service:
    return lambda _number, _chance: seconds


def log_normal(median_s: float, sigma: float = 0.5) -> Service:
    return lambda _number, chance: median_s * chance.lognormvariate(0.0, sigma)


def bimodal(fast_s: float, slow_s: float, *, fast: float = 0.5) -> Service:
    """A cache that knows the answer for a share of `fast` requests."""
    return lambda _number, chance: (fast_s if chance.random() < fast else slow_s) * chance.uniform(0.95, 1.05)


def drifting(before: Service, after: Service, at: int) -> Service:
    """`after` from request number `at` on."""
    return lambda number, chance: (before if number < at else after)(number, chance)


def stuck(usual: Service, seconds: float, *, each: int) -> Service:
    """One of `each` requests takes `seconds`."""
    return lambda number, chance: seconds if number % each == 7 else usual(number, chance)


@dataclass(eq=False)
class Request:
    number: int
    service_s: float
    course: Course = field(init=False)
    look: Look = field(init=False)
    submitted_s: float = 0.0
    began_s: float | None = None
    ended_s: float | None = None
    noticed_s: float | None = None
    polls: int = 0
    is_asked: bool = False

    @property
    def lateness(self) -> float:
        """Seconds between end and notice, as a share of the service time."""
        assert self.ended_s is not None
        assert self.noticed_s is not None
        return (self.noticed_s - self.ended_s) / self.service_s


@dataclass
class Night:
    """What a simulated run came to, from request number `warm_up` on."""

    requests: list[Request]
    asked_s: list[float]
    """When each question left."""
    looks: int
    """Looks that asked nothing."""
    most_entries: int
    line: Line
    seconds: float

    @property
    def polls(self) -> float:
        return statistics.median(one.polls for one in self.requests)

    @property
    def polls_mean(self) -> float:
        return statistics.fmean(one.polls for one in self.requests)

    @property
    def lateness(self) -> float:
        return statistics.median(one.lateness for one in self.requests)

    @property
    def lateness_mean(self) -> float:
        return statistics.fmean(one.lateness for one in self.requests)

    def row(self) -> str:
        return (
            f"{self.polls:4.0f} {self.polls_mean:6.2f} | {self.lateness:7.1%} {self.lateness_mean:7.1%}"
            f" | {self.looks / len(self.requests):5.1f}"
        )


@dataclass
class Polling:
    """One case. Everything has an even distribution of luck: the same seed gives the same night."""

    service: Service
    jobs: int = 1500
    in_flight: int = 64
    cap: int | None = None
    """How many fal runs at a time; None: all."""
    polls_per_s: float = 50.0
    latency_s: float = 0.02
    submits_per_s: float = 50.0
    brief_s: float = 0.0
    """Each request shows IN_QUEUE for so long at least."""
    has_positions: bool = True
    tells_work: bool = True
    """fal says how long a model worked."""
    overhead_s: float = 0.0
    """Of which fal does not tell."""
    warm_up: int = 300
    line: Line = field(default_factory=Line)
    seed: int = 20_261_121

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = count()
        self._queue: deque[Request] = deque()
        self._working = 0
        self._at_fal = 0
        self._submitted = 0
        self._agenda: Agenda[Request] = Agenda()
        self._requests: list[Request] = []
        self._asked_s: list[float] = []
        self._slot_s = self._submit_s = 0.0
        self._looks = self._most_entries = 0
        self._was_believed = self.line.durations.is_believed

    def run(self) -> Night:
        self._fill(0.0)
        now_s = 0.0
        while self._events or len(self._agenda):
            due_s = self._agenda.next_s()
            asks_s = None if due_s is None else max(now_s, due_s, self._slot_s)
            if asks_s is not None and (not self._events or asks_s < self._events[0][0]):
                now_s = asks_s
                self._ask(now_s)
            else:
                now_s, _, happens = heapq.heappop(self._events)
                happens(now_s)
            self._most_entries = max(self._most_entries, self._agenda.entries)
        counted = self._requests[self.warm_up :]
        return Night(counted, self._asked_s, self._looks, self._most_entries, self.line, now_s)

    def _later(self, at_s: float, happens: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), happens))

    def _fill(self, now_s: float) -> None:
        while self._at_fal < self.in_flight and self._submitted < self.jobs:
            self._at_fal += 1
            request = Request(self._submitted, self.service(self._submitted, self._chance))
            self._submitted += 1
            self._submit_s = max(now_s, self._submit_s) + 1 / self.submits_per_s
            self._later(self._submit_s, partial(self._accept, request))

    def _accept(self, request: Request, now_s: float) -> None:
        request.submitted_s = now_s
        self._queue.append(request)
        position = self._position(request)
        self._start(now_s)
        self._later(now_s + self.latency_s / 2, lambda at_s: self._enter(request, at_s, position))

    def _enter(self, request: Request, now_s: float, position: int | None) -> None:
        self._requests.append(request)
        request.course = self.line.enter(now_s, is_ours=True, position=position)
        self._plan(request, now_s)

    def _position(self, request: Request) -> int | None:
        return self._queue.index(request) if self.has_positions else None

    def _start(self, now_s: float) -> None:
        while self._queue and (self.cap is None or self._working < self.cap):
            request = self._queue.popleft()
            self._working += 1
            request.began_s = now_s + self.brief_s
            ends_s = request.began_s + self.overhead_s + request.service_s
            self._later(ends_s, partial(self._end, request))

    def _end(self, request: Request, now_s: float) -> None:
        request.ended_s = now_s
        self._working -= 1
        self._start(now_s)

    def _plan(self, request: Request, now_s: float) -> None:
        request.look = self.line.look(request.course, now_s)
        self._agenda.put(request, request.look.due_s, request.look.likely_s)

    def _ask(self, now_s: float) -> None:
        """As the engine does: one that is due is looked at anew, since much may have been learned meanwhile."""
        request = self._agenda.next_ready(now_s)
        if request is None:
            return
        look = self.line.look(request.course, now_s)
        if not look.is_question or look.due_s > now_s:
            self._looks += 1
            self._agenda.put(request, look.due_s, look.likely_s)
            return
        self._slot_s = max(now_s, self._slot_s) + 1 / self.polls_per_s
        self._asked_s.append(now_s)
        request.polls += 1
        request.is_asked = True
        self._later(now_s + self.latency_s / 2, lambda at_s: self._answer(request, now_s, at_s))

    def _answer(self, request: Request, sent_s: float, now_s: float) -> None:
        if request.ended_s is not None:
            told = request.service_s if self.tells_work else None
            self._later(now_s + self.latency_s / 2, lambda at_s: self._notice(request, sent_s, told, at_s))
            return
        is_queued = request.began_s is None or now_s < request.began_s
        position = (0 if request.began_s is not None else self._position(request)) if is_queued else None

        def heard(at_s: float) -> None:
            request.is_asked = False
            self.line.not_yet(request.course, sent_s, is_queued=is_queued, position=position)
            self._plan(request, at_s)

        self._later(now_s + self.latency_s / 2, heard)

    def _notice(self, request: Request, sent_s: float, told: float | None, now_s: float) -> None:
        request.noticed_s = now_s
        self.line.found(request.course, sent_s, worked_s=told)
        if self.line.durations.is_believed and not self._was_believed:
            self._was_believed = True
            for one in self._requests:
                if one.noticed_s is None and not one.is_asked:
                    self._plan(one, now_s)
        self._at_fal -= 1
        self._fill(now_s)


def _plain(make: Callable[[float], Service], seconds: float) -> Callable[[], Polling]:
    return lambda: Polling(make(seconds), in_flight=min(64, max(8, int(8 * seconds))))


def _capped(service: Service, **more: Any) -> Callable[[], Polling]:
    return lambda: Polling(service, 3000, 1000, cap=40, **more)


SILENT: Final = {"has_positions": False, "tells_work": False}
SLOW, QUICK = log_normal(10.0, 0.2), log_normal(2.0, 0.2)

CASES: Final[dict[str, Callable[[], Polling]]] = {
    **{f"steady {seconds:g} s": _plain(steady, seconds) for seconds in (0.5, 5.0, 60.0)},
    **{f"log-normal {seconds:g} s": _plain(log_normal, seconds) for seconds in (0.5, 5.0, 60.0)},
    "steady 5 s, no word of work": lambda: Polling(steady(5.0), in_flight=40, tells_work=False),
    "log-normal 5 s, no word of work": lambda: Polling(log_normal(5.0), in_flight=40, tells_work=False),
    "log-normal 5 s, overhead 0.5 s": lambda: Polling(log_normal(5.0), in_flight=40, overhead_s=0.5),
    "log-normal 5 s, brief queue": lambda: Polling(log_normal(5.0), in_flight=40, brief_s=0.3),
    "bimodal 0.3 s and 10 s": lambda: Polling(bimodal(0.3, 10.0)),
    "bimodal 0.3 s and 60 s": lambda: Polling(bimodal(0.3, 60.0, fast=0.8)),
    "cold, 200 of 60 s at once": lambda: Polling(log_normal(60.0), 200, 200, warm_up=0),
    "cold, 20 of 5 s": lambda: Polling(log_normal(5.0), 20, 20, warm_up=0),
    "5 times slower": lambda: Polling(drifting(QUICK, SLOW, 1000), 2200, 40, warm_up=1200),
    "5 times faster": lambda: Polling(drifting(SLOW, QUICK, 1000), 2200, 40, warm_up=1200),
    "5 times faster, no word of work": lambda: Polling(
        drifting(SLOW, QUICK, 1000), 2200, 40, warm_up=1200, tells_work=False
    ),
    "stuck, one in 100": lambda: Polling(stuck(QUICK, 3600.0, each=100), 1000, warm_up=0),
    "10,000 in flight, 500 polls/s": lambda: Polling(
        log_normal(60.0), 20_000, 10_000, polls_per_s=500, submits_per_s=1000, warm_up=10_000
    ),
    "10,000 in flight, 50 polls/s": lambda: Polling(log_normal(60.0), 12_000, 10_000, submits_per_s=1000, warm_up=0),
    "capped, steady": _capped(steady(5.0)),
    "capped, steady, no positions": _capped(steady(5.0), has_positions=False),
    "capped, log-normal": _capped(log_normal(5.0)),
    "capped, log-normal, no positions": _capped(log_normal(5.0), has_positions=False),
    "capped, log-normal, no words at all": _capped(log_normal(5.0), **SILENT),
    "capped at 2 of 100": lambda: Polling(log_normal(5.0), 300, 100, cap=2, warm_up=0),
    "capped at 2 of 100, no positions": lambda: Polling(
        log_normal(5.0), 300, 100, cap=2, warm_up=0, has_positions=False
    ),
    "more to ask than may be": lambda: Polling(steady(0.5), 3000, 512, submits_per_s=1000),
}
"""Capped: 1,000 in flight, of which fal runs 40 at a time."""


def main() -> None:
    sys.stdout.write(f"{'':37} calls: median, mean | late: median, mean | looks\n")
    for name, case in CASES.items():
        if all(word in name for word in sys.argv[1:]):
            sys.stdout.write(f"{name:40} {case().run().row()}\n")


if __name__ == "__main__":
    main()
