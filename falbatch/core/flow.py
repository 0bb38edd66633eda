"""What is learned of one endpoint's requests at fal: how long they wait, how long they work, how many run at once.

A request that is seen at work soon after its submit waited for nobody: fal would have run more. One that waited tells
by how long what is too many: by Little's law, of all that are at fal the share w / T waits, where a request that stays
there for T seconds waits w of them. Mostly its end tells all: T is known, and fal says how long it worked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

MEMORY: Final = 32
"""Ends after which an older one counts for little: enough for a steady mean, few enough to follow a cap that moves."""

PRIMED: Final = 8
"""What was seen before the first end counts like so many ends."""

LATE_MOST: Final = 0.15
"""How late an end is taken to be noticed at most, as a share of the age: what the poll schedule promises."""

WAIT_MOST: Final = 8.0
"""Longest wait that is learned, in times of work: runners that start slowly must not be remembered for long."""

WAIT_LITTLE: Final = 0.1
"""A wait up to this share of the work is none: it tells that fal ran at least so many, not how many at most."""

EARLY_SHARE: Final = 0.25
"""Seen at work within this share of the time of work, a request counts as begun at once."""

EARLY_LEAST_S: Final = 0.25
EARLY_MOST_S: Final = 15.0
EARLY_UNKNOWN_S: Final = 3.0
"""The same while the time of work is not known: fal needs a moment to hand a request to a runner."""

HELD_ROUNDS: Final = 2
"""What was seen at work at once stands for so many rounds of ends: those that were submitted ahead of it all together
wait much longer than the same number would later, when ends and submits alternate."""

CONTRADICTED: Final = 0.3
"""What is left of the memory when a request is seen at work early although the ones before had waited."""

LESS_WAIT: Final = 0.8
"""The same for an end after less than half of the usual wait: fal runs more than before, and stands idle for us until
that is believed. A longer wait is believed more slowly: too large a window costs nothing that is urgent."""

STEADY: Final = 1.25
"""Without any word on times of work, a stay up to so many times the shortest usual one has known no wait."""

STEADY_CALLED: Final = 1.5
"""The same where fal calls at the end: the shortest mean of many is a little shorter than the mean of all."""

STEADY_ENDS: Final = 64
"""Stays whose mean is near that of all; the shortest of many means of fewer would be too short."""


@dataclass(slots=True)
class Stay:
    """One request at fal."""

    endpoint: str
    level: int
    """Requests of its endpoint that were at fal when it was accepted, itself included; 0: its times teach nothing."""
    not_yet_s: float = 0.0
    """Age at which it had not ended."""
    queued_s: float = 0.0
    """Greatest age at which it was seen waiting."""
    running_s: float | None = None
    """First age at which it was seen at work."""
    is_at_work: bool = False
    """Does it count in `Flow.at_work`?"""

    def saw(self, phase: str, age_s: float) -> bool:
        """It had not ended at this age. True when it is at work for the first time."""
        self.not_yet_s = age_s
        if phase == "IN_PROGRESS" and self.running_s is None:
            self.running_s = age_s
            return True
        if phase == "IN_QUEUE":
            if self.running_s is not None:
                self.level = 0  # begun anew by fal: what it waited and what it worked cannot be told apart
            self.queued_s = age_s
        return False


@dataclass(slots=True)
class _Sums:
    """Over the ends in memory, each counting less than the next."""

    weight: float = 0.0
    level: float = 0.0
    waited_s: float = 0.0
    worked_s: float = 0.0
    stayed_s: float = 0.0

    def add(self, level: float, wait_s: float, work_s: float, stay_s: float) -> None:
        self.forget(1.0 - 1.0 / MEMORY)
        self.weight += 1.0
        self.level += level
        self.waited_s += wait_s
        self.worked_s += work_s
        self.stayed_s += stay_s

    def forget(self, left: float) -> None:
        self.weight *= left
        self.level *= left
        self.waited_s *= left
        self.worked_s *= left
        self.stayed_s *= left


@dataclass(slots=True)
class Flow:
    """The requests of one endpoint."""

    at_fal: int = 0
    at_work: int = 0
    """How many of those of earlier runs were at work when something was heard of them last."""
    seen: int = 0
    """Most of them at fal when one was accepted that was at work at once."""
    held: int = 0
    """So many at once were at work without doubt, which is held against the means for `held_ends` more ends."""
    held_ends: int = 0
    early_wait_s: float = 0.0
    """Mean wait of those that were at work at once."""
    beyond_s: float | None = None
    """Mean time at work beyond what fal calls the inference time; where fal tells none, all of it."""
    tells_inference: bool = False
    sums: _Sums = field(default_factory=_Sums)
    base_s: float = float("inf")
    """The shortest mean stay of a round, for where nothing else is told."""
    stays_s: list[float] = field(default_factory=list)

    @property
    def is_seen(self) -> bool:
        """Has anything of it been seen at work?"""
        return bool(self.seen or self.sums.weight or self.at_work)

    @property
    def level(self) -> float:
        """How many of them are at fal when another one comes."""
        return self.sums.level / self.sums.weight if self.sums.weight else float(self.seen)

    @property
    def wait_s(self) -> float:
        """How long they wait."""
        return self.sums.waited_s / self.sums.weight if self.sums.weight else self.early_wait_s

    @property
    def work_s(self) -> float | None:
        """How long they work; None before the first end."""
        return self.sums.worked_s / self.sums.weight if self.sums.weight else None

    @property
    def is_waiting(self) -> bool:
        """Do they wait before they are at work?"""
        return self.sums.waited_s > EARLY_SHARE * self.sums.worked_s

    @property
    def early_s(self) -> float:
        """Age up to which one that is seen at work counts as begun at once."""
        if self.work_s is None:
            return EARLY_UNKNOWN_S
        return min(EARLY_MOST_S, max(EARLY_LEAST_S, EARLY_SHARE * self.work_s))

    @property
    def running(self) -> float:
        """How many are at work at a time."""
        if not self.sums.weight:
            return float(max(self.seen, self.at_work))
        return max(self.held, self.level * self.sums.worked_s / max(1e-9, self.sums.stayed_s))

    @property
    def ends_per_s(self) -> float:
        """How many end in a second."""
        return self.sums.level / max(1e-9, self.sums.stayed_s)

    def unqueued(self, wait_s: float) -> float:
        """How many do not wait, or wait for other things than their turn, if turns take `wait_s`."""
        if not self.sums.weight:
            return float(max(self.seen, self.at_work))
        # What waits for runners of its own does not follow the line; its number follows the window at once.
        level = self.at_fal if self.is_waiting and self.wait_s > 2 * wait_s else self.level
        stay_s = max(1e-9, self.sums.stayed_s / self.sums.weight)
        return max(self.held, level * (1.0 - max(0.0, min(self.wait_s, wait_s)) / stay_s))

    def note_phase(self, stay: Stay, phase: str) -> None:
        """Keep count of those at work whose times teach nothing: fal runs so many at least. The others tell more."""
        is_at_work = phase == "IN_PROGRESS" and not stay.level
        self.at_work += is_at_work - stay.is_at_work
        stay.is_at_work = is_at_work

    def saw_work(self, stay: Stay) -> None:
        """One is seen at work for the first time."""
        age_s = stay.running_s
        if age_s is None or not stay.level or age_s > self.early_s:
            return
        wait_s = (stay.queued_s + age_s) / 2
        is_sure = self.work_s is None or age_s <= EARLY_SHARE * self.work_s
        if is_sure and stay.level > self.unqueued(self.wait_s):
            self.held, self.held_ends = stay.level, HELD_ROUNDS * stay.level
        self.early_wait_s += (wait_s - self.early_wait_s) / (MEMORY if self.seen else 1)
        self.seen = max(self.seen, stay.level)
        if self.work_s is None or stay.level < self.level - 1:
            return
        if self.is_waiting:
            self.sums.forget(CONTRADICTED)
        moving_s = (self.sums.stayed_s - self.sums.waited_s) / self.sums.weight
        self.sums.add(stay.level, wait_s, self.work_s, moving_s + wait_s)
        self._raise_level(stay.level)

    def ended(self, stay: Stay, done_s: float, inference_s: float | None) -> None:
        """One was found done at the age `done_s`, a success; fal says that it worked for `inference_s`."""
        if not stay.level:
            return
        if inference_s is not None and not self.tells_inference:
            self.tells_inference = True
            self.beyond_s = None
        elif self.tells_inference and inference_s is None:
            self._take_called(stay, done_s)
            return
        told_s = inference_s or 0.0
        if stay.running_s is not None and stay.running_s <= self.early_s:
            wait_s = (stay.queued_s + stay.running_s) / 2
            work_s = max(told_s, _ended_s(stay, done_s) - wait_s)
            self._calibrate(work_s - told_s)
        elif self.tells_inference or self.beyond_s is not None:
            work_s = told_s + (self.beyond_s or 0.0)
            wait_s = self._waited_s(stay, done_s, work_s)
        else:
            self._take_unknown(stay.level, done_s)
            return
        if self.tells_inference and self.base_s < float("inf"):
            self.base_s += (work_s - self.base_s) / MEMORY  # better than what the ends say that fal called about
        self._take(stay.level, wait_s, max(1e-6, work_s), done_s)

    def _calibrate(self, beyond_s: float) -> None:
        if self.beyond_s is None:
            self.beyond_s = beyond_s
        self.beyond_s += (beyond_s - self.beyond_s) / MEMORY

    def _waited_s(self, stay: Stay, done_s: float, work_s: float) -> float:
        """How long one waited that worked for `work_s`: as long as the others, within what is known of this one."""
        if not self.tells_inference:
            # Only the usual time of work is known: what is too much here must be too little elsewhere.
            ended_s = _ended_s(stay, done_s)
            return max(stay.queued_s, min(ended_s - work_s, stay.running_s or ended_s))
        most_s = done_s - work_s
        if stay.running_s is not None:
            most_s = min(most_s, stay.running_s)
        least_s = max(0.0, stay.queued_s, stay.not_yet_s - work_s)
        usual_s = self.wait_s
        if stay.not_yet_s < done_s / 2:
            # The first question of any weight found it done, perhaps long after. All might be like that: so not quite
            # "as the others", or a long wait would never be learned.
            most_s = max(least_s, min(most_s, (1.0 - LATE_MOST) * done_s - work_s))
            usual_s = (usual_s + most_s) / 2
        return max(least_s, min(most_s, usual_s))

    def _take(self, level: int, wait_s: float, work_s: float, stay_s: float) -> None:
        self.held_ends -= 1
        if self.held_ends <= 0:
            self.held = 0
        if wait_s > WAIT_MOST * work_s:
            wait_s, stay_s = WAIT_MOST * work_s, 0.0
        stay_s = max(stay_s, wait_s + work_s)
        if self.is_waiting and wait_s < self.wait_s / 2:
            self.sums.forget(LESS_WAIT)
        if not self.sums.weight and self.seen:
            for _ in range(PRIMED):
                self.sums.add(self.seen, self.early_wait_s, work_s, self.early_wait_s + work_s)
        if wait_s > WAIT_LITTLE * work_s or not self.sums.weight:
            self.sums.add(level, wait_s, work_s, stay_s)
        elif level >= self.level - 1:  # below, it is from when there were fewer: fal ran those, and may run more
            self.sums.add(level, wait_s, work_s, stay_s)
            self._raise_level(level)

    def _raise_level(self, level: int) -> None:
        """So many were at fal at least when one came that found no line."""
        self.sums.level = max(self.sums.level, level * self.sums.weight)

    def _take_called(self, stay: Stay, stay_s: float) -> None:
        """fal called at its end: its stay is known exactly, and its work is not. What few others tell of theirs may be
        far from this one's: what is longer than the usual stay without a line is a wait."""
        # The first of a round to end are the shortest of it: so a whole round, or what makes a steady mean.
        self._take_stay(stay_s, max(PRIMED, min(STEADY_ENDS, self.at_fal)))
        if self.base_s == float("inf"):
            return
        most_s = stay_s if stay.running_s is None else min(stay_s, stay.running_s)
        wait_s = max(0.0, stay.queued_s, min(most_s, stay_s - STEADY_CALLED * self.base_s))
        self._take(stay.level, wait_s, max(1e-6, stay_s - wait_s), stay_s)

    def _take_stay(self, stay_s: float, round_of: int) -> None:
        self.stays_s.append(stay_s)
        if len(self.stays_s) >= round_of:
            self.base_s = min(self.base_s, sum(self.stays_s) / len(self.stays_s))
            self.stays_s.clear()

    def _take_unknown(self, level: int, stay_s: float) -> None:
        """One of which nothing is known but its stay: it can show that fal runs more, never that it runs less."""
        self._take_stay(stay_s, PRIMED)
        if stay_s <= STEADY * self.base_s < float("inf"):
            self.seen = max(self.seen, level)


def _ended_s(stay: Stay, done_s: float) -> float:
    """The age at which a request ended, for all we know: between two questions, in the middle. An early look makes that
    middle mean nothing, so not much before it was found."""
    return max((stay.not_yet_s + done_s) / 2, (1.0 - LATE_MOST) * done_s)
