"""From a few jobs to all: what the rest of a batch will cost and how long it will take, and how sure that is. Pure.

Cost. Each job left counts as the mean of the tried jobs of its stratum, or of its endpoint where none of the stratum
was tried. The range is Student's 95 % interval for the sum over the m jobs left of an endpoint of which n were tried,
with standard deviation s: ± t(n - 1) · s · √(m² / n + m), over endpoints as the root of the sum of squares. It holds as
far as the rest is like what was tried; where one job alone was, there is none.

Time. Of requests whose time of work fal tells, those that began before the last one did show how many fal runs at once:
while some still wait, it runs as many as it will. Where none waited, it may run more, and the time is an upper bound.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from falbatch.core.money import NANO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T_95: Final = (12.71, 4.31, 3.19, 2.78, 2.58, 2.45, 2.37, 2.31, 2.27)
"""Student's t for 95 %, two-sided, with 1, 2, … degrees of freedom."""

T_FAR: Final = 1.96
T_SLOPE: Final = 2.7
"""For more of them: 1.96 + 2.7 / degrees, a hair above the true value from 10 on."""

WAITED_SHARE: Final = 0.5
"""Requests begin one after the other, and not all at once, when their beginnings are this share of their usual work
apart: less is fal's own unevenness."""

METHOD: Final = (
    "spent and reserved, plus each job left at the mean of the tried jobs of its kind; the range holds in 19 of 20"
    " cases (Student's t, from the spread and the number of tried jobs) if the rest is like these"
)


class Stratum(NamedTuple):
    """Jobs that are alike but for their row: endpoint, and number of their matrix × zip combination."""

    endpoint: str
    variant: int


@dataclass(frozen=True, slots=True)
class Span:
    """One request at fal, in Unix seconds."""

    began_at: float
    """Its submit left."""
    ended_at: float
    """It was seen to have ended."""
    work_s: float | None
    """How long it was at work; None where fal did not tell."""

    @property
    def seconds(self) -> float:
        """From submit to end."""
        return max(0.0, self.ended_at - self.began_at)


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of some jobs."""

    jobs: int
    median: float
    p90: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times | None:
        """None of nothing."""
        if not seconds:
            return None
        ordered = sorted(seconds)
        return cls(len(ordered), _quantile(ordered, 0.5), _quantile(ordered, 0.9))


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The least value that `share` of all are not above."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class CostProjection:
    """What the whole batch will have cost, in nano-dollars."""

    total: int | None
    """None where nothing can be said; `why` says it."""
    low: int | None
    high: int | None
    """The range; None where the tried jobs give none."""
    spent: int
    left_mean: int | None
    """Of one job left, over all of them."""
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """Amounts in US dollars."""
        amounts = {
            "total": self.total,
            "low": self.low,
            "high": self.high,
            "spent": self.spent,
            "mean_of_left": self.left_mean,
        }
        told = {name: None if nano is None else nano / NANO for name, nano in amounts.items()}
        return {**told, "method": METHOD, "why": self.why}


@dataclass(frozen=True, slots=True)
class DurationProjection:
    """How long fal will work on the rest."""

    seconds: float | None
    """None where nothing can be said; `assumption` says why."""
    is_bound: bool
    """True: no longer than this, if fal keeps running as many at once."""
    at_once: float | None
    """How many fal ran at once; None where that is not known."""
    assumption: str


def project_cost(
    tried: Sequence[tuple[Stratum, int]], left: Mapping[Stratum, int], *, spent: int, reserved: int
) -> CostProjection:
    """What the batch will have cost when the `left` jobs of each stratum cost like the `tried` ones did."""
    gone = spent + reserved
    expected, left_of, unknown = _expected(tried, left)
    if unknown:
        return CostProjection(None, None, None, spent, None, f"no cost of {unknown} is known")
    many = sum(left_of.values())
    if not many:
        return CostProjection(gone, gone, gone, spent, None)
    total, mean = gone + round(expected), round(expected / many)
    halves = [
        _half([cost for stratum, cost in tried if stratum.endpoint == endpoint], count)
        for endpoint, count in left_of.items()
    ]
    half = math.sqrt(sum(one * one for one in halves if one is not None))
    if None in halves:
        return CostProjection(total, None, None, spent, mean, "one job tells no spread")
    low = gone + max(0, math.floor(expected - half))
    return CostProjection(total, low, gone + math.ceil(expected + half), spent, mean)


def _expected(tried: Sequence[tuple[Stratum, float]], left: Mapping[Stratum, int]) -> tuple[float, dict[str, int], str]:
    """The sum of something over the `left` jobs, if each is the mean of the tried ones of its kind; how many are left
    of each endpoint; and an endpoint of which none was tried, "" for no such."""
    by_stratum: dict[Stratum, list[float]] = defaultdict(list)
    by_endpoint: dict[str, list[float]] = defaultdict(list)
    for stratum, value in tried:
        by_stratum[stratum].append(value)
        by_endpoint[stratum.endpoint].append(value)
    left_of: dict[str, int] = defaultdict(int)
    expected = 0.0
    for stratum, count in left.items():
        if not count:
            continue
        values = by_stratum.get(stratum) or by_endpoint.get(stratum.endpoint)
        if not values:
            return 0.0, {}, stratum.endpoint
        left_of[stratum.endpoint] += count
        expected += count * sum(values) / len(values)
    return expected, left_of, ""


def _half(costs: Sequence[int], left: int) -> float | None:
    """Half the width of the range for `left` more jobs; None where one alone was tried."""
    count = len(costs)
    if count < 2:
        return None
    mean = sum(costs) / count
    spread = math.sqrt(sum((cost - mean) ** 2 for cost in costs) / (count - 1))
    return t_95(count - 1) * spread * math.sqrt(left * left / count + left)


def t_95(degrees: int) -> float:
    """Student's t for a two-sided interval of 95 %, rounded up."""
    return T_95[degrees - 1] if degrees <= len(T_95) else T_FAR + T_SLOPE / degrees


def project_duration(tried: Sequence[tuple[Stratum, Span]], left: Mapping[Stratum, int]) -> DurationProjection:
    """How long fal will take for the `left` jobs, if they work as long as the `tried` ones did that were at fal in one
    run."""
    many, spans = sum(left.values()), [span for _, span in tried]
    if not many:
        return DurationProjection(0.0, is_bound=False, at_once=None, assumption="nothing is left")
    if not spans:
        return _unsaid("no tried job was seen from its submit to its end")
    works = [(stratum, span.work_s) for stratum, span in tried if span.work_s is not None]
    if len(works) < len(spans):
        return _at_pace(spans, many)
    work_s, _, unknown = _expected(works, left)
    if unknown:
        return _unsaid(f"no time of {unknown} is known")
    mean_s = sum(seconds for _, seconds in works) / len(works)
    first, last = min(map(begin_of, spans)), max(map(begin_of, spans))
    if len(spans) < 2 or last - first < WAITED_SHARE * mean_s:
        count = len(spans)
        why = "the tried jobs ran all at once" if count > 1 else "one job alone was tried"
        words = f"at {count:,} at a time; {why}, so fal may run more"
        return DurationProjection(work_s / count, is_bound=True, at_once=float(count), assumption=words)
    busy_s = sum(max(0.0, min(last, span.ended_at) - max(first, begin_of(span))) for span in spans)
    at_once = busy_s / (last - first)
    if at_once < 1:
        return _at_pace(spans, many)
    words = f"at {at_once:.2g} at a time, as seen so far"
    return DurationProjection(work_s / at_once, is_bound=False, at_once=at_once, assumption=words)


def _unsaid(why: str) -> DurationProjection:
    return DurationProjection(None, is_bound=False, at_once=None, assumption=why)


def begin_of(span: Span) -> float:
    """When a request began to work: its time of work before its end."""
    return max(span.began_at, span.ended_at - (span.work_s or 0.0))


def _at_pace(spans: Sequence[Span], left: int) -> DurationProjection:
    """Where times of work say nothing: as fast as the tried jobs ended, start and end of the canary included."""
    seconds = max(span.ended_at for span in spans) - min(span.began_at for span in spans)
    pace_s = seconds / len(spans)
    words = f"at the pace of the tried jobs, {len(spans):,} in {seconds:.3g} s; a longer run may be faster"
    return DurationProjection(left * pace_s, is_bound=True, at_once=None, assumption=words)
