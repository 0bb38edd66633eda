"""What a batch will cost, by endpoint, and how sure that is. Pure.

Each job to be submitted is added; at the end stands what they will cost together, beside what is spent already. Where
the input tells the units, the cost is units × price. Else it is what this batch's own finished jobs were billed, else
fal's historical estimate (fal-protocol §11.3), else unknown. Amounts are nano-dollars.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, ROUND_FLOOR
from enum import StrEnum
from itertools import islice
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.money import NANO, OTHERS, VARIANTS_MOST, Purse, in_dollars, in_round
from falbatch.core.units import Size, Sure

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from falbatch.core.money import Learned, Tariff

TOLERANCE: Final = 0.001
"""Bills that differ by less from what the input says confirm it."""

SENTENCES_SHOWN: Final = 3
"""Reasons why a cost is not exact: each variant has one."""


class Certainty(StrEnum):
    """Where a cost comes from, best first."""

    EXACT = "exact"
    """The input tells the units."""
    LEARNED = "learned"
    """From the bills of this batch's finished jobs."""
    ASSUMED = "assumed"
    """The input tells the units, but something in it may change them."""
    HISTORICAL = "historical"
    """fal's own average call."""
    UNKNOWN = "unknown"


_WORST_LAST: Final = tuple(Certainty)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call of an endpoint costs on average, as fal says (fal-protocol §11.3)."""

    nano_per_call: int | None
    """None where fal has no amount."""
    at: float | None = None
    """Unix seconds at which fal said so."""


@dataclass(frozen=True, slots=True)
class EndpointCost:
    """What the jobs of one endpoint will cost."""

    endpoint: str
    jobs: int
    units: float | None
    """Billable units, expected; None where nobody can tell."""
    unit: str
    """fal's word; "" where there is none."""
    unit_price: int | None
    """Nano-dollars; None where no price is known."""
    priced_at: float | None
    """Unix seconds at which fal said the price (or the estimate, for `historical`); None for the user's own."""
    total: int | None
    """Nano-dollars, expected; None for `unknown`."""
    low: int | None
    high: int | None
    """Between these it will be, as far as can be said; None where nothing can."""
    certainty: Certainty
    """Of the least certain jobs."""
    words: str
    """Why it is not exact; "" where it is."""
    dearest: int | None = None
    """What the dearest single job will cost, at its upper end, in nano-dollars; None for `unknown`."""

    def as_json(self) -> dict[str, Any]:
        """With stable field names; amounts in US dollars."""
        return {
            "endpoint": self.endpoint,
            "jobs": self.jobs,
            "units": self.units,
            "unit": self.unit,
            "unit_price": _dollars(self.unit_price),
            "priced_at": self.priced_at,
            "cost": _dollars(self.total),
            "low": _dollars(self.low),
            "high": _dollars(self.high),
            "dearest_job": _dollars(self.dearest),
            "certainty": self.certainty.value,
            "words": self.words,
        }


@dataclass(frozen=True, slots=True)
class Part:
    """What a few jobs of a batch will cost."""

    most: int | None
    """Nano-dollars; None where nobody can tell."""
    words: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What a batch will have cost. Nano-dollars."""

    endpoints: tuple[EndpointCost, ...] = ()
    """Of the jobs to be submitted, by endpoint."""
    spent: int = 0
    """What ended requests cost, over all runs."""
    reserved: int = 0
    """For requests at fal, and for submits without an answer."""
    trouble: str = ""
    """Why prices are missing or old; "" where none is."""

    @property
    def is_known(self) -> bool:
        """False where the cost of some jobs is not known."""
        return all(one.total is not None for one in self.endpoints)

    @property
    def is_exact(self) -> bool:
        """True where every job's units are told by its input."""
        return all(one.certainty is Certainty.EXACT for one in self.endpoints)

    @property
    def left(self) -> int:
        """What the jobs to be submitted will cost, those of unknown cost left out."""
        return sum(one.total or 0 for one in self.endpoints)

    @property
    def most(self) -> int | None:
        """The same with what is not sure at its upper end; None where nobody can tell."""
        return sum(one.high or one.total or 0 for one in self.endpoints) if self.is_known else None

    @property
    def whole(self) -> int | None:
        """What the batch will have cost at its end; None where nobody can tell."""
        return self.spent + self.reserved + self.left if self.is_known else None

    def part(self, jobs: int) -> Part:
        """What so many of the jobs to be submitted will cost: at most the dearest ones, whichever they are."""
        if not self.is_known or not self.endpoints:
            return Part(None, "a cost that is not known")
        most, left = 0, jobs
        for one in sorted(self.endpoints, key=lambda one: -(one.dearest or 0)):
            count = min(left, one.jobs)
            most, left = most + count * (one.dearest or 0), left - count
        most = min(most, self.most or 0)
        mean = min(most, ceil(self.mean * jobs))
        if mean == most:
            return Part(most, in_dollars(most) if self.is_exact else f"about {in_round(most)}")
        about = "" if self.is_exact else "about "
        return Part(most, f"about {in_round(mean)}, at most {about}{in_round(most, ROUND_CEILING)}")

    @property
    def mean(self) -> float:
        """What one of the jobs to be submitted will cost on average, in nano-dollars."""
        return self.left / max(1, sum(one.jobs for one in self.endpoints))

    def affords(self, limit: int, jobs: int) -> int | None:
        """After about how many of so many jobs a limit of so many nano-dollars will be reached; None where it will not,
        or where nobody can tell."""
        room = limit - self.spent - self.reserved
        if not self.is_known or not self.endpoints or self.mean * jobs <= room:
            return None
        return int(room / self.mean) if room > 0 else 0

    @property
    def words(self) -> str:
        """What the jobs to be submitted will cost, in words: `about $12.30`, `at least $3.00`."""
        if not self.is_known:
            return f"at least {in_round(self.left, ROUND_FLOOR)}" if self.left else "a cost that is not known"
        return self.worded(self.left)

    def worded(self, amount: int) -> str:
        """An amount that jobs to be submitted are part of, with `about` where it is not sure."""
        return in_dollars(amount) if self.is_exact else f"about {in_round(amount)}"

    def as_json(self) -> dict[str, Any]:
        """With stable field names; amounts in US dollars."""
        return {
            "endpoints": [one.as_json() for one in self.endpoints],
            "left": _dollars(self.left),
            "is_known": self.is_known,
            "spent": _dollars(self.spent),
            "reserved": _dollars(self.reserved),
            "whole": _dollars(self.whole),
            "trouble": self.trouble,
        }


@dataclass(slots=True)
class _Heap:
    """Jobs of one endpoint that are billed alike."""

    size: Size
    """Of one of them."""
    jobs: int = 0
    units: float = 0.0
    squares: float = 0.0
    """Sums of their sizes, and of the squares of these."""
    largest: float = 0.0
    """The largest size."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What a heap will cost, in units; None without a price per unit that can be told."""

    units: float | None
    variance: float | None
    """Of `units`, in units squared; None where it cannot be told."""
    certainty: Certainty
    words: str = ""


@dataclass(slots=True)
class Quote:
    """Adds up what jobs will cost. A million times `add`, then `cost`."""

    tariffs: Mapping[str, Tariff]
    """By endpoint, where a price is known; with the endpoint's defaults and what was learned from bills."""
    purse: Purse = field(default_factory=Purse)
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    """fal's, by endpoint."""
    trouble: str = ""
    """Why prices are missing or old."""
    _heaps: dict[str, dict[tuple[str, Sure], _Heap]] = field(default_factory=dict)
    _unpriced: Counter[str] = field(default_factory=Counter)

    def add(self, endpoint: str, given: Mapping[str, Any]) -> None:
        """One job that is to be submitted."""
        tariff = self.tariffs.get(endpoint)
        if tariff is None:
            self._unpriced[endpoint] += 1
            return
        size = tariff.size(given)
        heaps = self._heaps.setdefault(endpoint, {})
        heap = heaps.get((size.variant, size.sure))
        if heap is None:
            if len(heaps) >= VARIANTS_MOST and tariff.known(size) is None:
                size = replace(size, variant=OTHERS)
            heap = heaps.setdefault((size.variant, size.sure), _Heap(size))
        heap.jobs += 1
        heap.units += size.units
        heap.squares += size.units * size.units
        heap.largest = max(heap.largest, size.units)

    def cost(self) -> Cost:
        """What all of them will cost."""
        lines = [self._priced(endpoint) for endpoint in self._heaps]
        lines += [_unpriced(endpoint, jobs, self.estimates.get(endpoint)) for endpoint, jobs in self._unpriced.items()]
        lines.sort(key=lambda line: line.endpoint)
        return Cost(tuple(lines), self.purse.spent, self.purse.at_fal + self.purse.lost, self.trouble)

    def _priced(self, endpoint: str) -> EndpointCost:
        tariff, estimate = self.tariffs[endpoint], self.estimates.get(endpoint)
        heaps = [*self._heaps[endpoint].values()]
        parts = [_part(tariff, heap) for heap in heaps]
        jobs = sum(heap.jobs for heap in heaps)
        price = tariff.price
        total, dearest, at = 0, 0, price.at
        for index, (heap, part) in enumerate(zip(heaps, parts, strict=True)):
            if part.units is not None:
                total += price.of(part.units)
                dearest = max(dearest, tariff.expected(replace(heap.size, units=heap.largest)))
            elif price.at is not None and estimate is not None and estimate.nano_per_call is not None:
                total += heap.jobs * estimate.nano_per_call
                dearest = max(dearest, estimate.nano_per_call)
                at = estimate.at
                parts[index] = _Part(None, None, Certainty.HISTORICAL, _HISTORICAL)
        certainty = _worst([part.certainty for part in parts])
        is_known = certainty is not Certainty.UNKNOWN
        low, high = _bounds(total, price.nano_per_unit, parts) if is_known else (None, None)
        units = [part.units for part in parts]
        return EndpointCost(
            endpoint=endpoint,
            jobs=jobs,
            units=None if None in units else sum(one or 0.0 for one in units),
            unit=price.unit,
            unit_price=price.nano_per_unit,
            priced_at=at,
            total=total if is_known else None,
            low=low,
            high=high,
            certainty=certainty,
            words=_some(dict.fromkeys(part.words for part in parts if part.words)),
            dearest=dearest if is_known else None,
        )


def _some(sentences: Collection[str]) -> str:
    more = len(sentences) - SENTENCES_SHOWN
    return "; ".join(islice(sentences, SENTENCES_SHOWN)) + (f"; and {more:,} more" if more > 0 else "")


_HISTORICAL: Final = "by fal's average call, which may have been larger or smaller than these"


_NO_SCHEMA: Final = "its schema is not known: its own number of images, and their size, may be other than the usual"


def _unpriced(endpoint: str, jobs: int, estimate: Estimate | None) -> EndpointCost:
    if estimate is None or estimate.nano_per_call is None:
        return EndpointCost(
            endpoint, jobs, None, "", None, None, None, None, None, Certainty.UNKNOWN, "no price is known"
        )
    one = estimate.nano_per_call
    return EndpointCost(
        endpoint, jobs, None, "", None, estimate.at, jobs * one, None, None, Certainty.HISTORICAL, _HISTORICAL, one
    )


def _part(tariff: Tariff, heap: _Heap) -> _Part:
    size, known = heap.size, tariff.known(heap.size)
    is_told = size.sure is not Sure.PROPORTIONAL
    if known is not None:
        if is_told and abs(known.mean - 1) <= TOLERANCE and (known.deviation or 0.0) <= TOLERANCE:
            return _Part(heap.units, 0.0, Certainty.EXACT)
        return _learned(heap, known, is_told=is_told)
    if size.sure >= Sure.MEASURED:
        return _Part(heap.units, 0.0, Certainty.EXACT)
    if is_told:
        what = f"{size.variant} may be billed otherwise" if size.variant else _NO_SCHEMA
        return _Part(heap.units, None, Certainty.ASSUMED, f"{what}, as the first such job will show")
    if tariff.learned:  # of other variants: better than a mean over strangers' calls
        dearest = max(tariff.learned.values(), key=lambda one: one.seen)
        return _Part(
            heap.units * dearest.mean, None, Certainty.ASSUMED, f"by the bills of jobs without {size.variant or 'that'}"
        )
    if tariff.price.at is None:
        words = "your price, once for each image, megapixel and second that is asked for"
        return _Part(heap.units, None, Certainty.ASSUMED, words)
    return _Part(None, None, Certainty.UNKNOWN, f"billed by the {tariff.price.unit}, which an input does not tell")


def _learned(heap: _Heap, known: Learned, *, is_told: bool) -> _Part:
    jobs = f"{known.seen:,} finished jobs" if known.seen > 1 else "one finished job"
    rate = f", each {known.mean:.3g} times what its input says" if is_told else ""
    variance = None
    if known.deviation is not None:
        # What each job differs by, and what the mean itself may be wrong by.
        variance = known.deviation**2 * (heap.squares + heap.units**2 / known.seen)
    return _Part(heap.units * known.mean, variance, Certainty.LEARNED, f"from the bills of {jobs}{rate}")


def _worst(found: list[Certainty]) -> Certainty:
    return max(found, key=_WORST_LAST.index)


def _bounds(total: int, nano_per_unit: int, parts: list[_Part]) -> tuple[int | None, int | None]:
    """Two standard deviations around it; None where some part's is not known."""
    variances = [part.variance for part in parts]
    if None in variances:
        return None, None
    off = round(2 * sqrt(sum(one or 0.0 for one in variances)) * nano_per_unit)
    return max(0, total - off), total + off


def _dollars(nano: int | None) -> float | None:
    return None if nano is None else nano / NANO
