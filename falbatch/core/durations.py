"""How long the requests of one endpoint work, learned from questions that were answered "not yet" and "done"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from falbatch.core.sketch import Profile, Sketch

MEMORY: Final = 256.0
"""About how many of the latest durations count: enough for stable quantiles, few enough to follow a drift."""

ENOUGH: Final = 8
"""Durations needed before they are believed."""

REMEMBERED: Final = 32.0
"""Weight of what earlier runs learned: believed at once, and outvoted by some dozens of this run's durations."""

RENEWED: Final = 0.06
"""The profile is made anew when this share of what it rests on has changed: making it costs some 50 µs."""

PULL_SHARE: Final = 0.06
"""How far below its age a request that was done when first asked about is learned, at least: 6 % follows a model that
became five times faster within a thousand jobs; more would cost a steady model questions."""


def _new_sketch() -> Sketch:
    return Sketch(MEMORY)


@dataclass(slots=True)
class Durations:
    """Seconds that the latest requests of one endpoint worked. Touched by one task only."""

    sketch: Sketch = field(default_factory=_new_sketch)
    _profile: Profile | None = None
    _news: float = 0.0
    """Durations added since the profile was made."""

    @classmethod
    def remembered(cls, data: bytes) -> Durations:
        """What an earlier run kept. Raises `ValueError` for what is no sketch."""
        return cls(Sketch.from_bytes(data).faded(REMEMBERED))

    @property
    def is_believed(self) -> bool:
        """Enough was seen."""
        return self.sketch.weight > ENOUGH - 0.5  # the first of them has faded a little already

    def add(self, duration_s: float, *, at_once: int = 0) -> None:
        """Learn one duration, `at_once` of which are under way: what began together ends in order, so the latest ends
        alone would be all alike."""
        self.sketch.memory = max(MEMORY, float(at_once))
        self.sketch.add(max(0.0, duration_s))
        self._news += 1.0
        if self._news > RENEWED * self.sketch.weight:
            self._profile = None

    def fade(self) -> None:
        """What was learned is of another time: what comes next counts for more."""
        self.sketch = self.sketch.faded(REMEMBERED)

    def profile(self) -> Profile | None:
        """How long requests take, as far as anything was seen."""
        if self._profile is None and self.sketch.weight:
            self._profile = Profile(self.sketch)
            self._news = 0.0
        return self._profile

    def believed(self) -> Profile | None:
        """The same; None before enough was seen."""
        return self.profile() if self.is_believed else None

    def edges(self) -> tuple[float, float] | None:
        """The early and the late edge (10th and 90th percentile) in seconds, None before enough was seen."""
        profile = self.believed()
        return None if profile is None else (profile.early, profile.late)


def learned_s(
    not_yet_s: float, done_s: float, *, due_s: float | None, step_s: float, worked_s: float | None = None
) -> float | None:
    """The duration to learn from a request that completed between two ages; None when it tells nothing.

    `due_s`: the age at which the first question was planned, None while nothing was known; `step_s`: from there to the
    second; `worked_s`: how long the model worked by fal's word: less than the request took, and often nearly all.

    Between two questions, the middle. Done at the first question, the request may have been done long before: taking
    its age for its duration would push the early edge up by each question's lateness, without end. A step less than
    the age pulls the edge down until the share of requests that are done when first asked about is the one that was
    aimed at. A first question that was asked late (`polls_per_s`) tells nothing but what fal says itself.
    """
    floor_s = min(worked_s or 0.0, done_s)
    if due_s is None or not_yet_s > 0:
        return floor_s if floor_s > not_yet_s else (not_yet_s + done_s) / 2
    if done_s > due_s + max(step_s, due_s / 4):
        return floor_s or None
    return max(floor_s, min(done_s, due_s) - max(step_s, PULL_SHARE * due_s), 0.0)
