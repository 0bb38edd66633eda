"""Which few jobs of a batch are tried first: fair shares of its strata, and places spread over each. Pure.

    open jobs by stratum ─▶ shares ─▶ one job from each equal part of its stratum ─▶ the canary

A stratum is an endpoint and a matrix × zip combination. The same batch and the same number give the same choice.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from falbatch.core.plan import Action, CanaryPlan, Record, decide
from falbatch.core.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from falbatch.core.plan import Plan

JOBS_MOST: Final = 10_000
"""Jobs of one canary: a page of more pictures is looked at by nobody."""

STRATA_MOST: Final = 10_000
"""Combinations that are told apart: where there are more, neighbours count as one. No canary could try more."""

_WORD: Final = 1 << 64
_GOLDEN: Final = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: its multiples, cut to 64 bits, are as even as a sequence can be wherever it is cut off
(Knuth, The Art of Computer Programming, vol. 3, §6.4)."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for, and how the manifest's jobs fall into strata."""

    jobs: int
    """How many are to be tried."""
    seed: str
    """The batch's name: chance that is the same each time."""
    variants: int = 1
    """Matrix × zip combinations of a row."""
    repeat: int = 1
    """Replicas of each combination."""

    @property
    def groups(self) -> int:
        """Strata of one endpoint."""
        return min(self.variants, STRATA_MOST)


@dataclass(frozen=True, slots=True)
class Tried:
    """What is on record of a batch's canary before a run."""

    done: int = 0
    paid: int = 0
    """At fal, or with a result whose files are missing."""
    ended: int = 0
    """Failed, cancelled or unknown."""
    lost: int = 0
    """Those of them that are unknown."""
    open: int = 0
    """Chosen, and not submitted yet."""

    @property
    def begun(self) -> int:
        """Those that cannot be left out any more."""
        return self.done + self.paid + self.ended


LATER: Final = "not in the canary"
"""Why a job is left alone in such a run."""


def narrowed(plan: Plan, jobs: int, tried: Tried) -> Plan:
    """The plan of a run that submits nothing but a canary of `jobs`, from the plan of all that is left."""
    open_jobs = plan.actions[Action.SUBMIT]
    chosen = max(0, min(jobs - tried.begun, open_jobs))
    later = open_jobs - chosen
    actions = {**plan.actions, Action.SUBMIT: chosen, Action.SKIP: plan.actions[Action.SKIP] + later}
    fresh = {decide(None).reason, decide(Record(State.PLANNED)).reason}
    reasons = {reason: count for reason, count in plan.reasons.items() if reason not in fresh}
    reasons |= {why: count for why, count in (("in the canary", chosen), (LATER, later)) if count}
    about = CanaryPlan(jobs=tried.begun + chosen, done=tried.done, begun=tried.begun, later=later)
    return replace(plan, actions=actions, reasons=reasons, files=None, canary=about)


class Draws:
    """Whole numbers below a bound, evenly spread over it however many are drawn."""

    def __init__(self, seed: str) -> None:
        self._at = int.from_bytes(hashlib.sha256(seed.encode(errors="surrogatepass")).digest()[:8])

    def below(self, bound: int) -> int:
        """The next one, from 0 to `bound - 1`."""
        self._at = (self._at + _GOLDEN) % _WORD
        return self._at * bound // _WORD


def spread(total: int, count: int, draws: Draws) -> list[int]:
    """`count` different places of `total`, ascending: one from each of `count` equal parts. All of them when there are
    no more."""
    count = min(total, count)
    borders = [number * total // count for number in range(count + 1)] if count else [0]
    return [low + draws.below(high - low) for low, high in pairwise(borders)]


def shares(open_jobs: Sequence[int], taken: Sequence[int], count: int, draws: Draws) -> list[int]:
    """How many of `count` jobs each stratum gets that has so many open ones, of which `taken` were tried before.

    All strata are filled to one level as far as their jobs go, those with fewer tried first; what is left over for the
    next level goes to strata that lie apart. The sum is min(count, all that are open).
    """

    def filled(level: int) -> list[int]:
        return [min(there, max(0, level - had)) for there, had in zip(open_jobs, taken, strict=True)]

    low, high = 0, max((there + had for there, had in zip(open_jobs, taken, strict=True)), default=0)
    while low < high:  # the highest level that `count` jobs reach everywhere
        level = (low + high + 1) // 2
        low, high = (level, high) if sum(filled(level)) <= count else (low, level - 1)
    given = filled(low)
    next_ones = [place for place, more in enumerate(filled(low + 1)) if more > given[place]]
    for place in spread(len(next_ones), count - sum(given), draws):
        given[next_ones[place]] += 1
    return given


def choose(strata: Sequence[Sequence[int]], taken: Sequence[int], count: int, draws: Draws) -> list[int]:
    """The jobs to try: min(`count`, all) of `strata`, each of which lists its open jobs in the manifest's order;
    `taken` of each were tried before."""
    given = shares([len(jobs) for jobs in strata], taken, count, draws)
    return [jobs[place] for jobs, share in zip(strata, given, strict=True) for place in spread(len(jobs), share, draws)]
