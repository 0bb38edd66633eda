"""How many requests should be at fal, told from what fal's answers say of them. Phases and ages in, a size out.

    size = what does not wait at fal (the plateau) + a share ahead, so that fal finds the next one when one ends

Nothing here knows fal's cap, and nothing asks for it: it shows in the wait (`core/flow.py`). While nothing waits, the
size grows by half with each look; two questions a job suffice, and an early look at few.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from falbatch.core.flow import MEMORY, Flow, Stay

SLOW_START_SIZE: Final = 16
"""The first size: fills a new account's cap of 2 (fal-protocol §9.1) several times over. An endpoint of which nothing
was seen at work yet (its runners start) has no more requests at fal than this."""

AHEAD_SHARE: Final = 0.5
"""What waits at fal, as a share of what runs there: an end is noticed up to a sixth of a job's time late, and the
plateau is known to about a tenth. More would only make cancelling dearer."""

AHEAD_LEAST: Final = 16
"""The same at the least: what ends within a second at 16 jobs a second."""

ROUND_TRIPS: Final = 2.0
"""From an end at fal to the next submit's arrival: the answer that tells of it, and the submit."""

LOOK_S: Final = 0.25
"""First look at a request that is asked about early, to see whether it runs."""

LOOK_EVERY: Final = 8
"""One request of so many is asked about early when the time of work is known: an eighth of a call a job."""

LOOK_FROM_S: Final = 2.0
"""Work shorter than this tells by its ends, as soon as an early look would."""

LOOK_GROWTH: Final = 1.25
"""While nothing waits, the next early look is at the request that makes so many times more of them at fal."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known of one request at one moment. `phase` is fal's word, "" when the wait for it begins."""

    request_id: str
    endpoint: str
    phase: str
    age_s: float = 0.0
    """Since its submit was accepted, to when the question was sent."""
    inference_s: float | None = None
    """How long fal says that it worked, where it is COMPLETED and fal says so."""
    is_ours: bool = True
    """False for a request whose age or place among the others is not known exactly: it counts, and teaches nothing but
    that it is at work."""
    is_failed: bool = False


@dataclass(slots=True)
class _Looks:
    """Which request of an endpoint is asked about early."""

    at: str = ""
    """Its id, "" for none."""
    level: int = 0
    """How many of the endpoint's were at fal when it came."""
    since: int = 0
    """Requests that came since."""


@dataclass(slots=True)
class Plateau:
    """The requests of one run at fal, and the size that follows from them. Touched on the event loop only."""

    _stays: dict[str, Stay] = field(default_factory=dict)
    """By request id."""
    _flows: dict[str, Flow] = field(default_factory=dict)
    """By endpoint."""
    _looks: dict[str, _Looks] = field(default_factory=dict)
    _over: set[str] = field(default_factory=set)
    """Endpoints that nothing more goes to."""
    _answer_s: float = 0.0
    """Mean time to the answer of a submit."""

    @property
    def at_fal(self) -> int:
        """Requests that were accepted and not seen to end."""
        return len(self._stays)

    @property
    def running(self) -> float:
        """How many fal runs at once, as far as is known."""
        return sum(flow.running for flow in self._flows.values())

    @property
    def size(self) -> float:
        """How many should be at fal, or on their way there."""
        seen = [flow for flow in self._flows.values() if flow.is_seen]
        if not seen:
            return float(SLOW_START_SIZE)
        # The line is common to all endpoints. Who waits longer than the others waits for runners of its own, and that
        # must not keep the others' jobs from coming.
        wait_s = min(flow.wait_s for flow in seen)
        plateau = sum(flow.unqueued(wait_s) for flow in seen)
        starting = sum(min(flow.at_fal, SLOW_START_SIZE) for flow in self._flows.values() if not flow.is_seen)
        # On their way to fal and back are as many as end in that time.
        under_way = min(plateau, ROUND_TRIPS * self._answer_s * sum(flow.ends_per_s for flow in seen))
        return plateau + starting + under_way + max(AHEAD_LEAST, AHEAD_SHARE * self.running)

    def answered(self, seconds: float) -> None:
        """A submit was answered after so long."""
        self._answer_s += (seconds - self._answer_s) / (MEMORY if self._answer_s else 1)

    def is_starting(self, endpoint: str) -> bool:
        """True while nothing of `endpoint` was seen at work."""
        flow = self._flows.get(endpoint)
        return flow is None or not flow.is_seen

    def seen(self, now: Observation) -> float | None:
        """Take in what is known of a request. Returns in how many seconds it should be asked about at the latest, None
        where that does not matter."""
        stay = self._stays.get(now.request_id)
        if stay is None:
            return self._begin(now) if not now.phase else None
        flow = self._flows[stay.endpoint]
        flow.note_phase(stay, now.phase)
        if now.phase == "COMPLETED":
            if not now.is_failed:
                flow.ended(stay, now.age_s, now.inference_s)
            self.left(now.request_id)
            return None
        if stay.saw(now.phase, now.age_s):
            flow.saw_work(stay)
        looks = self._looks[stay.endpoint]
        if looks.at != now.request_id:
            return None
        if stay.running_s is not None or now.age_s > flow.early_s:
            looks.at = ""
            return None
        return max(LOOK_S, now.age_s)

    def left(self, request_id: str) -> None:
        """Nobody waits for a request any more, whatever became of it."""
        stay = self._stays.pop(request_id, None)
        if stay is None:
            return
        flow = self._flows[stay.endpoint]
        flow.at_fal -= 1
        flow.note_phase(stay, "")
        looks = self._looks[stay.endpoint]
        if looks.at == request_id:
            looks.at = ""
        self._drop_if_over(stay.endpoint)

    def over(self, endpoint: str) -> None:
        """Nothing more goes to `endpoint`: when its last request has ended, it leaves its room to the others."""
        self._over.add(endpoint)
        self._drop_if_over(endpoint)

    def _drop_if_over(self, endpoint: str) -> None:
        flow = self._flows.get(endpoint)
        if flow is not None and not flow.at_fal and endpoint in self._over and len(self._flows) > 1:
            del self._flows[endpoint], self._looks[endpoint]

    def _begin(self, now: Observation) -> float | None:
        flow = self._flows.setdefault(now.endpoint, Flow())
        looks = self._looks.setdefault(now.endpoint, _Looks())
        flow.at_fal += 1
        self._stays[now.request_id] = Stay(now.endpoint, flow.at_fal if now.is_ours else 0)
        if not now.is_ours or not _is_look_due(flow, looks):
            return None
        looks.at, looks.level, looks.since = now.request_id, flow.at_fal, 0
        return LOOK_S if flow.work_s is None else max(LOOK_S, flow.early_s / 2)


def _is_look_due(flow: Flow, looks: _Looks) -> bool:
    """Should the one that just came be asked about early? Whether it runs then says more than its end, and sooner."""
    looks.since += 1
    if flow.work_s is not None and flow.work_s < LOOK_FROM_S and flow.tells_inference:
        return False
    if not flow.is_waiting and flow.at_fal >= looks.level * LOOK_GROWTH:
        return True
    return not looks.at and (flow.work_s is None or looks.since >= LOOK_EVERY)
