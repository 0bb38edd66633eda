"""A model of fal's queue and of a run over it, in virtual time: what the window's size is judged by.

planned jobs ─▶ window ─▶ submit (rate, latency) ─▶ fal's line, one for all endpoints ─▶ at work, `cap` at most
                  ▲                                                                           │
                  └──────────── result read ◀── asked about now and then ◀────────────────────┘
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass
from functools import partial
from itertools import count
from random import Random
from typing import TYPE_CHECKING

from falbatch.core.plateau import SLOW_START_SIZE, Observation, Plateau

if TYPE_CHECKING:
    from collections.abc import Callable

SUBMIT_S = 0.15
ANSWER_S = 0.05
READ_S = 0.1
CALL_S = 0.3
HISTORY = 64
ENOUGH = 8


@dataclass
class Endpoint:
    """A kind of job: how many, how long they work, and from when on fal has runners for it."""

    jobs: int
    work_s: float
    spread: float = 0.0
    """Sigma of the log-normal distribution of the time of work."""
    ready_at_s: float = 0.0
    own_cap: int = 10**9
    """fal's limit for this endpoint alone."""


@dataclass
class Request:
    number: int
    endpoint: str
    work_s: float
    accepted_s: float = 0.0
    started_s: float = math.inf
    ended_s: float = math.inf
    is_asked: bool = True


@dataclass(frozen=True)
class Seen:
    """How it stands at a moment."""

    at_s: float
    size: float
    at_fal: int
    slots: dict[str, int]


@dataclass
class FalModel:
    """One run. `size` is the window's, None for the plateau's own. With a size, fal's side alone is played: nobody
    asks, and what has ended sets the next one off at once."""

    endpoints: dict[str, Endpoint]
    cap: Callable[[float], int]
    size: int | None = None
    submits_per_s: float = 200.0
    tells_inference: bool = True
    overhead_s: float = 0.0
    """At work beyond what fal calls the inference time."""
    is_warm: bool = False
    """Durations are known from an earlier run: nothing is asked about early by itself."""
    calls: bool = False
    """fal calls at each end, which tells no inference time; only the first request and few others are asked about."""
    asked_every: int = 10**9
    """One request of so many is asked about although fal calls."""
    seed: int = 1

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.now_s = 0.0
        self.plateau = Plateau()
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = count()
        self.left = {name: one.jobs for name, one in self.endpoints.items()}
        self.slots = dict.fromkeys(self.endpoints, 0)
        self.line: deque[Request] = deque()
        self.working: dict[str, int] = dict.fromkeys(self.endpoints, 0)
        self.durations: dict[str, deque[float]] = {name: deque(maxlen=HISTORY) for name in self.endpoints}
        if self.is_warm:
            for name, one in self.endpoints.items():
                self.durations[name].extend(self.work_of(one) for _ in range(HISTORY))
        self.busy_s = 0.0
        """Seconds that fal has worked for us, over all that it runs at once."""
        self.next_submit_s = 0.0
        self.reading = 0
        self.at_fal = 0
        self.accepted = 0
        self.polls = 0
        self.ends_s: dict[str, list[float]] = {name: [] for name in self.endpoints}
        self.seen: list[Seen] = []
        """After each answer."""

    def between(self, from_s: float, to_s: float) -> list[Seen]:
        """How it stood in a stretch of time."""
        return [one for one in self.seen if from_s < one.at_s <= to_s]

    def ended_by(self, at_s: float) -> int:
        """How many jobs had ended at fal."""
        return sum(end_s <= at_s for ends_s in self.ends_s.values() for end_s in ends_s)

    def work_of(self, one: Endpoint) -> float:
        return one.work_s * math.exp(self.random.gauss(0.0, one.spread) - one.spread**2 / 2)

    def at(self, time_s: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (time_s, next(self.order), what))

    def run(self, until_s: float = math.inf) -> float:
        """Run to the end, or until then; the time at which it came to rest."""
        self.feed()
        for one in self.endpoints.values():
            self.at(one.ready_at_s, self.begin_work)
        while self.events and self.events[0][0] <= until_s:
            at_s, _, what = heapq.heappop(self.events)
            self.busy_s += (at_s - self.now_s) * sum(self.working.values())
            self.now_s = at_s
            what()
        return self.now_s

    @property
    def room(self) -> float:
        return self.size if self.size is not None else self.plateau.size

    def feed(self) -> None:
        while True:
            in_window = sum(self.slots.values()) - min(self.reading, int(self.room))
            if in_window >= int(self.room):
                return
            ready = [name for name, left in self.left.items() if left and self.may_take(name)]
            if not ready:
                return
            name = min(ready, key=lambda name: self.slots[name])
            self.left[name] -= 1
            self.slots[name] += 1
            turn_s = max(self.now_s, self.next_submit_s)
            self.next_submit_s = turn_s + 1 / self.submits_per_s
            request = Request(next(self.order), name, self.work_of(self.endpoints[name]))
            self.at(turn_s + SUBMIT_S, partial(self.accept, request))

    def may_take(self, name: str) -> bool:
        return self.size is not None or not self.plateau.is_starting(name) or self.slots[name] < SLOW_START_SIZE

    def accept(self, request: Request) -> None:
        request.accepted_s = self.now_s
        self.at_fal += 1
        self.line.append(request)
        self.begin_work()
        if self.size is not None:
            return
        self.plateau.answered(SUBMIT_S)
        wanted_s = self.plateau.seen(Observation(str(request.number), request.endpoint, ""))
        request.is_asked = not self.calls or self.accepted % self.asked_every == 0
        self.accepted += 1
        if not request.is_asked:
            return
        first_s = self.first_look_s(request)
        self.at(self.now_s + min(first_s, wanted_s or math.inf), lambda: self.ask(request))

    def begin_work(self) -> None:
        cap = self.cap(self.now_s)
        kept: list[Request] = []
        while self.line and sum(self.working.values()) < cap:
            request = self.line.popleft()
            one = self.endpoints[request.endpoint]
            if one.ready_at_s > self.now_s or self.working[request.endpoint] >= one.own_cap:
                kept.append(request)
                continue
            self.working[request.endpoint] += 1
            request.started_s = self.now_s
            request.ended_s = self.now_s + request.work_s + self.overhead_s
            self.at(request.ended_s, partial(self.end_work, request))
        self.line.extendleft(reversed(kept))

    def end_work(self, request: Request) -> None:
        self.working[request.endpoint] -= 1
        self.at_fal -= 1
        self.ends_s[request.endpoint].append(self.now_s)
        self.begin_work()
        if self.size is not None:
            self.slots[request.endpoint] -= 1
            self.feed()
        elif not request.is_asked:
            self.at(self.now_s + CALL_S, partial(self.called, request))

    def called(self, request: Request) -> None:
        age_s = self.now_s - request.accepted_s
        self.answered(request, "COMPLETED", age_s, tells_inference=False)

    def ask(self, request: Request) -> None:
        self.polls += 1
        age_s = self.now_s - request.accepted_s
        phase = "IN_PROGRESS" if self.now_s >= request.started_s else "IN_QUEUE"
        if self.now_s >= request.ended_s:
            phase = "COMPLETED"
        told = self.tells_inference
        self.at(self.now_s + ANSWER_S, lambda: self.answered(request, phase, age_s, tells_inference=told))

    def answered(self, request: Request, phase: str, age_s: float, *, tells_inference: bool) -> None:
        told_s = request.work_s if phase == "COMPLETED" and tells_inference else None
        wanted_s = self.plateau.seen(Observation(str(request.number), request.endpoint, phase, age_s, told_s))
        if phase == "COMPLETED":
            self.durations[request.endpoint].append(request.work_s + self.overhead_s)
            self.reading += 1
            self.at(self.now_s + READ_S, lambda: self.read(request))
        else:
            again_s = self.next_look_s(request, age_s)
            self.at(self.now_s + min(again_s, wanted_s or math.inf), lambda: self.ask(request))
        self.feed()
        self.seen.append(Seen(self.now_s, self.room, self.at_fal, dict(self.slots)))

    def read(self, request: Request) -> None:
        self.reading -= 1
        self.slots[request.endpoint] -= 1
        if not self.left[request.endpoint]:
            self.plateau.over(request.endpoint)
        self.plateau.left(str(request.number))
        self.feed()

    def edges(self, name: str) -> tuple[float, float] | None:
        """How long the work usually takes, early and late."""
        seen = self.durations[name]
        if len(seen) < ENOUGH:
            return None
        ordered = sorted(seen)
        return ordered[len(ordered) // 10], ordered[len(ordered) * 9 // 10]

    def first_look_s(self, request: Request) -> float:
        edges = self.edges(request.endpoint)
        return 0.25 if edges is None else max(0.02, edges[0] * 1.02 + (edges[1] - edges[0]) / 16)

    def next_look_s(self, request: Request, age_s: float) -> float:
        edges = self.edges(request.endpoint)
        if edges is None:
            return min(30.0, max(0.02, 0.3 * age_s))
        if age_s < edges[0]:
            return max(0.02, self.first_look_s(request) - age_s)
        return min(30.0, max(0.02, (edges[1] - edges[0]) / 8, 0.04 * edges[0], (age_s - edges[1]) * 0.15))
