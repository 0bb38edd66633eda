"""How many at once, how fast, and when not at all. Values in, values out; the engine keeps the current value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from falbatch.core.plateau import SLOW_START_SIZE

AUTO_CEILING: Final = 2000
"""The largest window in `auto`. An account may have a contract for a thousand at once (§9.1): that many, a share ahead
of them, and room to see that more would not help."""

DIRECT_AT_ONCE: Final = 256
"""Direct calls at a time, at most: each holds a connection of its own until its answer, and a process commonly may hold
1024; fal's own caps are far below (§9.1)."""

CONNECTIONS: Final = 4
"""Realtime connections where nobody names a number: each may hold a runner of its own at fal."""

CUT: Final = 0.5
"""What an episode of 429s leaves of the window, as in TCP."""

NEAR: Final = 0.9
"""A refusal that comes this near the size of the last one tells nothing new: then only so little is given up, or the
window would be three quarters of what fal takes, on average."""

SLOWLY: Final = 8.0
"""At the size of the last refusal the window grows so many times slower: one try in eight rounds to see whether fal
takes more, each at the price of a pause."""

REGAIN: Final = 0.125
"""Below that size, the share of what is missing that a round brings back."""

DISPROVED: Final = 0.25
"""So far above that size it holds no more, two slow rounds after it was reached: what refused then is over."""


@dataclass(frozen=True, slots=True)
class Window:
    """How many jobs may be between their submit and their result, for all that refusals say: slow start, one cut per
    episode. What fal runs at once bounds it further (`core/plateau.py`)."""

    size: float
    ceiling: int
    fixed: bool = False
    slow_start: bool = True
    last_cut_at_s: float = float("-inf")
    """Monotonic time of the last cut."""
    refused_at: float = float("inf")
    """How many fal did not take together then."""

    @classmethod
    def fixed_at(cls, size: int) -> Window:
        """A window that the user set: it never moves."""
        return cls(size=size, ceiling=size, fixed=True, slow_start=False)

    @classmethod
    def auto(cls, ceiling: int = AUTO_CEILING) -> Window:
        """A window that finds its size, up to `ceiling`."""
        return cls(size=min(SLOW_START_SIZE, ceiling), ceiling=ceiling)

    @property
    def room(self) -> int:
        """The size in whole jobs, at least 1."""
        return max(1, int(self.size))

    def accepted(self) -> Window:
        """After a submit that fal took: doubles per round in slow start, else grows by one per round at least."""
        if self.fixed or self.size >= self.ceiling:
            return self
        step = 1.0 if self.slow_start else self._per_round() / self.size
        return replace(self, size=min(float(self.ceiling), self.size + step))

    def _per_round(self) -> float:
        """Growth after a cut: fast far from the size that was refused last, slow at it, and beyond it faster and
        faster, up to doubling: one bad minute must not slow down hours."""
        beyond = self.size - self.refused_at
        if beyond == float("-inf"):
            return 1.0
        if -1.0 < beyond <= DISPROVED:
            return 1.0 / SLOWLY
        return max(1.0, beyond if beyond > 0 else -beyond * REGAIN)

    def refused(self, *, sent_at_s: float, now_s: float, used: int | None = None) -> Window:
        """After a 429. A submit sent before the last cut belongs to the episode that was already answered.

        `used`: how many were under way together, where that is known: half of a size that nothing came near would be
        no cut."""
        if self.fixed:
            return self
        if sent_at_s <= self.last_cut_at_s:
            # Not cut again, but those refused are under way no more: the last one tells best how many fal takes.
            return self if used is None else replace(self, refused_at=max(self.size, min(self.refused_at, used)))
        size = self.size if used is None else min(self.size, used)
        left = NEAR if NEAR <= size / self.refused_at <= 1.0 / NEAR else CUT
        return replace(
            self, size=max(1.0, size * left), slow_start=False, last_cut_at_s=now_s, refused_at=max(1.0, size)
        )


@dataclass(frozen=True, slots=True)
class CoolDown:
    """The pause that one refusal imposes on all submits."""

    opens_at_s: float = float("-inf")
    """Monotonic time before which nothing is submitted."""
    refusals: int = 0
    """Refusals in a row, counted once per episode: the exponent of the back-off."""
    episode_at_s: float = float("-inf")
    """When the current episode was first noticed."""

    def refused(self, *, sent_at_s: float, now_s: float) -> CoolDown:
        """Count a refusal; those already on the way when the episode began do not count again."""
        if sent_at_s <= self.episode_at_s:
            return self
        return replace(self, refusals=self.refusals + 1, episode_at_s=now_s)

    def until(self, opens_at_s: float) -> CoolDown:
        """Closed until `opens_at_s` at least; a longer pause that is already running stays."""
        return replace(self, opens_at_s=max(self.opens_at_s, opens_at_s))

    def accepted(self, *, sent_at_s: float) -> CoolDown:
        """A submit sent after the episode was accepted: the next refusal starts from the first delay."""
        if self.refusals == 0 or sent_at_s <= self.episode_at_s:
            return self
        return replace(self, refusals=0)

    def wait_s(self, now_s: float) -> float:
        """Seconds until submits may go on."""
        return max(0.0, self.opens_at_s - now_s)


@dataclass(frozen=True, slots=True)
class Rate:
    """Evenly spaced slots, `per_s` of them a second."""

    per_s: float
    next_at_s: float = float("-inf")
    """Monotonic time of the next free slot."""

    def take(self, now_s: float) -> tuple[Rate, float]:
        """The rate after one slot is taken, and how many seconds its taker has to wait for it."""
        at_s = max(now_s, self.next_at_s)
        return Rate(self.per_s, at_s + 1.0 / self.per_s), at_s - now_s


RETRY_FLOOR: Final = 10
"""Further attempts that are always allowed: a share of a small batch would be none."""


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """A bound on further attempts over the whole run, so that a broken endpoint is not paid for four times."""

    ratio: float
    """Further attempts allowed per job that was submitted, e.g. 0.2."""
    submitted: int = 0
    retried: int = 0

    def after_submit(self) -> RetryBudget:
        """After a job's submit was accepted, whatever the attempt's number."""
        return replace(self, submitted=self.submitted + 1)

    def after_retry(self) -> RetryBudget:
        """After a further attempt was granted."""
        return replace(self, retried=self.retried + 1)

    @property
    def has_room(self) -> bool:
        """May one more further attempt be made? With a ratio of 0 none ever."""
        return self.ratio > 0 and self.retried < RETRY_FLOOR + self.ratio * self.submitted
