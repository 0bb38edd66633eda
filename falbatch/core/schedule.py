"""When to ask fal whether a request is done. Pure: ages and past durations in, ages and seconds out.

A question is useful just after a request completes; before that it is wasted, long after it is late. The general rule:
the next question comes at the age at which a stated share of those still open now will have ended, by the durations
seen so far. So a model with fast and slow answers is asked about at both times and not in between.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from falbatch.core.sketch import Profile

FIRST_SHARE: Final = 0.3
"""The first question comes when this share of all requests has ended."""

NEXT_SHARE: Final = 0.25
"""Each further question comes when this share of those that were open at the one before has ended. Simulated for
log-normal durations (sigma 0.5): 3.6 questions a job find its end 9 % late; with 0.3, 3.2 for 11 %; with 0.2, 4.3
for 7 %."""

LIKELY_SHARE: Final = 0.8
"""A request is likely to have ended at the age at which this share of those open at the last question has: where the
rate allows less than what is due, these ages decide who goes first."""

HAIR_SHARE: Final = 0.02
"""The first question comes this share later than the rule says: exactly on it, a steady model would be asked too early
half of the time."""

STEP_FLOOR_SHARE: Final = 0.04
"""Even a model without any spread is not asked more often than each 4 % of its duration."""

STEP_MIN_S: Final = 0.02
"""Shortest pause between two questions: below it the answers' own travel time decides."""

STEP_MAX_S: Final = 30.0
"""Longest pause between two questions about a request that takes longer than those seen: a finished result must be
fetched long before its window of 6 minutes closes (fal-protocol §3.6)."""

PLANNED_MAX_S: Final = 120.0
"""Longest pause where past durations say that a longer one would do: for the same window."""

PAST_SHARE: Final = 0.3
"""Past the late edge the request is of another kind than those seen: the next question comes after this share of the
time since then, late by 30 % at most."""

COLD_FIRST_S: Final = 0.25
"""First question about a request of an unknown endpoint: fast models answer in about this time."""

COLD_GROWTH: Final = 0.3
"""Without history, the next question comes after this share of the request's age: late by 30 % at most."""

COLD_SCOUTS: Final = 16
"""So many requests of an unknown endpoint are asked about; the others wait for what these teach."""

COLD_REST_S: Final = 30.0
"""But not longer than this."""

STUCK_SHARE: Final = 0.02
"""When no more than this share of the requests takes longer, the past has nothing to say on how much longer."""

HUNCH_SHARE: Final = 0.5
"""While a few durations are known, the first question comes at this share of the shortest usual one."""

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


def cold_age_s(age_s: float, *, hunch: Profile | None = None) -> float:
    """The age of the next question about a request of an endpoint that little is known of, after one at `age_s` (0:
    none yet). `hunch`: the few durations that were seen."""
    if age_s <= 0:
        return max(COLD_FIRST_S if hunch is None else HUNCH_SHARE * hunch.early, STEP_MIN_S)
    return age_s + min(STEP_MAX_S, max(STEP_MIN_S, COLD_GROWTH * age_s))


def next_age_s(age_s: float, profile: Profile) -> float:
    """The age of the next question about a request that was still open at `age_s` (0: never asked)."""
    if age_s <= 0:
        return max(STEP_MIN_S, profile.age(FIRST_SHARE) * (1 + HAIR_SHARE))
    ended = profile.ended(age_s)
    least_s = max(STEP_MIN_S, STEP_FLOOR_SHARE * age_s)
    if ended >= 1.0 - STUCK_SHARE:
        return age_s + min(STEP_MAX_S, max(least_s, PAST_SHARE * (age_s - profile.late)))
    aimed_s = profile.age(ended + NEXT_SHARE * (1.0 - ended)) - age_s
    return age_s + min(PLANNED_MAX_S, max(least_s, aimed_s))


def likely_age_s(age_s: float, profile: Profile) -> float:
    """The age at which a request that was still open at `age_s` will most likely have ended."""
    ended = profile.ended(age_s) if age_s > 0 else 0.0
    return max(age_s, profile.age(ended + LIKELY_SHARE * (1.0 - ended)))


def net_poll_s(polls: int, edges: tuple[float, float] | None) -> float:
    """Seconds to the next question about a request that fal will call back about: from its submit before the first
    (`polls` is 0), from the latest question after that. The call makes it needless; this is for calls that are lost."""
    if polls:
        return NET_PAUSE_S
    if edges is None:
        return NET_UNKNOWN_S
    return max(NET_LEAST_S, min(NET_DURATIONS * edges[1], NET_PAUSE_S))


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
