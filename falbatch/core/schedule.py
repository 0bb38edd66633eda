"""When to ask fal whether a request is done. Pure: ages and past durations in, seconds out.

A poll is useful just after a request completes; before that it is wasted, long after it is late. Past durations
of the same endpoint say when that is likely. The shape of the steps follows the measurements: start at the early
edge of what was seen, step by a share of the spread, then grow slowly.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final

HISTORY: Final = 128
"""Durations kept per endpoint: enough for stable quantiles, few enough to follow a drift."""

ENOUGH: Final = 8
"""Durations needed before they are believed."""

COLD_FIRST_S: Final = 0.25
"""First question about a request of an unknown endpoint: fast models answer in about this time."""

COLD_GROWTH: Final = 0.3
"""Without history, the next question comes after this share of the request's age: late by 30 % at most."""

STEP_SHARE: Final = 0.125
"""With history, the step between questions as a share of the spread (an eighth to a quarter does well; an eighth
keeps the median lateness of wide distributions near 15 % at four questions a job, simulated in the tests)."""

STEP_FLOOR_SHARE: Final = 0.04
"""Even a model without any spread is not asked more often than each 4 % of its duration."""

PULL_SHARE: Final = 0.06
"""How far below its age a request that was done when first asked about is learned, at least: 6 % follows a model that
became five times faster within a thousand jobs; more would cost a steady model questions."""

STEP_GROWTH: Final = 1.2
"""Each further question waits this many times longer than the one before."""

STEP_MIN_S: Final = 0.02
"""Shortest pause between two questions: below it the answers' own travel time decides."""

STEP_MAX_S: Final = 30.0
"""Longest pause between two questions: a finished result must be fetched long before its window of 6 minutes
closes (fal-protocol §3.6)."""

NET_LEAST_S: Final = 60.0
"""First question about a request that fal will call back about, at the earliest: a call comes within a second of the
end, or (when our listener was not there) with fal's next try."""

NET_DURATIONS: Final = 4.0
"""The same in usual durations: what takes longer is slow, or its call was lost."""

NET_UNKNOWN_S: Final = 120.0
"""The same while nothing is known of the endpoint."""

NET_PAUSE_S: Final = 240.0
"""Most seconds between the end of a request whose call was lost and the question that finds it: a result of more than
10 KB may be kept for six minutes only (fal-protocol §3.6)."""

GRACE_S: Final = 3.0
"""How long after a question found a request ended its call may still come before it counts as missed."""

MISSES_MOST: Final = 3
"""Calls missed in a row, after others had come, from which on none is waited for."""


@dataclass(slots=True)
class Durations:
    """Seconds from submit to completion of the latest requests of one endpoint. Touched by the poll task only."""

    seen_s: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    _edges: tuple[float, float] | None = None
    _since_sorted: int = 0

    def learn(self, *, not_yet_s: float, done_s: float) -> None:
        """Learn from a request that was not done at the age `not_yet_s` (0: never asked before) and done at `done_s`.

        Both count to when the poll was *sent*: to when its answer was handled, our own queueing would feed back
        into the estimate.
        """
        duration_s = learned_s(not_yet_s, done_s, self.edges())
        if duration_s is not None:
            self.add(duration_s)

    def add(self, duration_s: float) -> None:
        """Learn one duration."""
        self.seen_s.append(duration_s)
        self._since_sorted += 1
        if self._edges is None or self._since_sorted >= max(1, len(self.seen_s) // ENOUGH):
            self._edges = None
            self._since_sorted = 0

    def edges(self) -> tuple[float, float] | None:
        """The early and the late edge (10th and 90th percentile) in seconds, None before enough was seen."""
        if len(self.seen_s) < ENOUGH:
            return None
        if self._edges is None:
            ordered = sorted(self.seen_s)
            last = len(ordered) - 1
            self._edges = (ordered[round(last * 0.1)], ordered[round(last * 0.9)])
        return self._edges


def learned_s(not_yet_s: float, done_s: float, edges: tuple[float, float] | None) -> float | None:
    """The duration to learn from a request that completed between two ages; None when it tells nothing.

    Between two questions, the middle. Done at the first question, the request may have been done long before: taking
    its age for its duration would push the early edge up by each question's lateness, without end. A step less than
    the age pulls the edge down until about one request in ten is done when first asked about. A first question that
    was asked late (`polls_per_s`) tells nothing.
    """
    if edges is None or not_yet_s > 0:
        return (not_yet_s + done_s) / 2
    first_s, step_s = first_poll_s(edges), _step_s(edges)
    if done_s > first_s + max(step_s, first_s / 4):
        return None
    return max(0.0, min(done_s, first_s) - max(step_s, PULL_SHARE * first_s))


def _step_s(edges: tuple[float, float]) -> float:
    """The pause between the first question and the second."""
    early, late = edges
    return max(STEP_SHARE * (late - early), STEP_FLOOR_SHARE * early)


def first_poll_s(edges: tuple[float, float] | None) -> float:
    """Seconds after the submit at which to ask for the first time."""
    if edges is None:
        return COLD_FIRST_S
    early, late = edges
    # A hair after the early edge: asking exactly on it would be early half of the time for a steady model.
    return max(STEP_MIN_S, early + STEP_SHARE / 2 * (late - early) + STEP_FLOOR_SHARE / 2 * early)


def next_poll_s(age_s: float, polls: int, edges: tuple[float, float] | None) -> float:
    """Seconds from now to the next question about a request that is `age_s` old and was asked about `polls` times."""
    if edges is None:
        wait_s = age_s * COLD_GROWTH
    else:
        if age_s < edges[0]:
            return min(STEP_MAX_S, max(STEP_MIN_S, first_poll_s(edges) - age_s))
        grown_s = _step_s(edges) * STEP_GROWTH ** min(max(polls - 1, 0), 40)
        # Long past the late edge, the request is of another kind than those seen: as without history from there.
        wait_s = max(grown_s, (age_s - edges[1]) * COLD_GROWTH)
    return min(STEP_MAX_S, max(STEP_MIN_S, wait_s))


def net_poll_s(polls: int, edges: tuple[float, float] | None) -> float:
    """Seconds to the next question about a request that fal will call back about: from its submit before the first
    (`polls` is 0), from the latest question after that. The call makes it needless; this is for calls that are lost."""
    if polls:
        return NET_PAUSE_S
    if edges is None:
        return NET_UNKNOWN_S
    return max(NET_LEAST_S, min(NET_DURATIONS * edges[1], edges[1] + NET_PAUSE_S))


@dataclass(frozen=True, slots=True)
class Trust:
    """Do fal's calls arrive? An address that fal cannot reach must cost seconds, not the safety net's minutes for each
    request: until the first call came, one request is asked about as without calls, and the first miss tells."""

    is_proven: bool = False
    """A call came in this run."""
    misses: int = 0
    """Requests that were found ended, and no call came, since the latest call."""

    @property
    def is_open(self) -> bool:
        """Nothing is known yet."""
        return not self.is_proven and not self.misses

    @property
    def is_lost(self) -> bool:
        """Calls are not waited for: all requests are asked about as without them, until one comes."""
        return self.misses >= (MISSES_MOST if self.is_proven else 1)

    def came(self) -> Trust:
        """A call arrived."""
        return Trust(is_proven=True)

    def missed(self) -> Trust:
        """A request had ended, and no call came."""
        return replace(self, misses=self.misses + 1)
