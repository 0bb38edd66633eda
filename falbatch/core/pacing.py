"""How many at once, how fast, and when not at all. Values in, values out; the engine keeps the current value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

SLOW_START_SIZE: Final = 16
"""The first window in `auto`: fills a new account's cap of 2 (fal-protocol §9.1) several times over."""

AUTO_CEILING: Final = 1000
"""The largest window in `auto`. fal's queue holds what is above its cap for free (§9.1), so a larger window
gains nothing but makes cancelling dearer."""

DIRECT_AT_ONCE: Final = 256
"""Direct calls at a time, at most: each holds a connection of its own until its answer, and a process commonly may hold
1024; fal's own caps are far below (§9.1)."""

CONNECTIONS: Final = 4
"""Realtime connections where nobody names a number: each may hold a runner of its own at fal."""

CUT: Final = 0.5
"""What an episode of 429s leaves of the window, as in TCP."""


@dataclass(frozen=True, slots=True)
class Window:
    """How many jobs may be between their submit and their result. Slow start, one cut per episode of refusals."""

    size: float
    ceiling: int
    fixed: bool = False
    slow_start: bool = True
    last_cut_at_s: float = float("-inf")
    """Monotonic time of the last cut."""

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
        """After a submit that fal took: doubles per round in slow start, then grows by one per round."""
        if self.fixed or self.size >= self.ceiling:
            return self
        step = 1.0 if self.slow_start else 1.0 / self.size
        return replace(self, size=min(float(self.ceiling), self.size + step))

    def refused(self, *, sent_at_s: float, now_s: float) -> Window:
        """After a 429. A submit sent before the last cut belongs to the episode that was already answered."""
        if self.fixed or sent_at_s <= self.last_cut_at_s:
            return self
        return replace(self, size=max(1.0, self.size * CUT), slow_start=False, last_cut_at_s=now_s)


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
        return replace(self, next_at_s=at_s + 1.0 / self.per_s), at_s - now_s


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
        """May one more further attempt be made?"""
        return self.retried < RETRY_FLOOR + self.ratio * self.submitted
