"""Money: what a job may cost, what is committed, and what is left. Whole nano-dollars (1e-9 US dollars), so that a
million additions stay exact. Pure.

A job's cost is known only after it ran (X-Fal-Billable-Units × unit price, fal-protocol §9.3), so each submit reserves
what it is expected to cost, and settles when fal has said what it did cost.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from math import sqrt
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.units import Size, Sure, size_of

if TYPE_CHECKING:
    from collections.abc import Mapping

NANO: Final = 1_000_000_000
"""Nano-dollars in a US dollar."""

COST_MOST: Final = 100_000_000 * NANO
"""Of one job: a hundred million dollars is a server's mistake, and dozens of such amounts still add up in 64 bits."""


def to_nano(dollars: Decimal | float) -> int:
    """US dollars in nano-dollars, rounded up."""
    return int((Decimal(str(dollars)) * NANO).to_integral_value(ROUND_CEILING))


def in_dollars(nano: int) -> str:
    """An amount for people: `$12.50`, and as many decimals as a small one needs: `$0.003`."""
    amount = Decimal(nano) / NANO
    cents = amount.quantize(Decimal("0.01"))
    if cents == amount or abs(amount) >= 10:
        return f"${cents:,}"
    return f"${amount.quantize(Decimal('0.000001')).normalize():f}"


ROUND_FROM: Final = Decimal("0.1")
"""US dollars from which on an estimate is told in whole cents; below, three digits of it."""


def in_round(nano: int, rounding: str = ROUND_HALF_EVEN) -> str:
    """An estimate for people, with no more digits than it is worth: `$5.23`, `$0.67`, `$0.0125`."""
    amount = (Decimal(nano) / NANO).quantize(Decimal("0.000001"))  # what in_dollars shows at most
    places = 2 if abs(amount) >= ROUND_FROM or not amount else 2 - amount.adjusted()
    return in_dollars(int(amount.quantize(Decimal(1).scaleb(-places), rounding) * NANO))


def in_range(low: int, high: int) -> str:
    """Two estimates for people: `$0.67 to $5.23`; "" where they read alike."""
    least, most = in_round(low), in_round(high)
    return f"{least} to {most}" if least != most else ""


@dataclass(frozen=True, slots=True)
class Price:
    """What one billable unit of an endpoint costs."""

    nano_per_unit: int
    unit: str = ""
    """In fal's words (`image`, `megapixel`, `second` …); "" where the user gave a price and no unit."""
    at: float | None = None
    """Unix seconds at which fal said so; None for the user's own."""

    def of(self, units: float) -> int:
        """The cost of `units`, in nano-dollars, rounded up; `COST_MOST` at most."""
        return min(COST_MOST, int((Decimal(str(units)) * self.nano_per_unit).to_integral_value(ROUND_CEILING)))


FIXED_AFTER: Final = 2
"""Equal bills that show that all are equal: of rates that differ, hardly two are the same."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What jobs of one variant were billed, per unit of their size."""

    seen: int = 0
    """Jobs that it is known from."""
    most: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    """Sums over the jobs, of the rates and of their squares."""

    @property
    def mean(self) -> float:
        """Units billed per unit of size; 1 before any was."""
        return self.total / self.seen if self.seen else 1.0

    @property
    def deviation(self) -> float | None:
        """The rates' standard deviation; None where less than two are known."""
        if self.seen < 2:
            return None
        return sqrt(max(0.0, self.squares - self.total * self.mean) / (self.seen - 1))

    @property
    def bound(self) -> float:
        """What the next job is unlikely to be billed more than: the dearest so far, and the more the rates differ, the
        more above it."""
        return self.most + 2 * (self.deviation or 0.0) / sqrt(max(1, self.seen))

    @property
    def wary_bound(self) -> float:
        """The same where nothing but bills tells a rate: of any rates, one in n + 1 is above the n before it. Rates
        that are all alike are a fixed one; a single one is, if it is just what was asked for."""
        is_fixed = not self.deviation and (self.seen >= FIXED_AFTER or self.most == 1.0)
        return self.most if is_fixed else max(self.bound, self.most * (1 + 1 / max(1, self.seen)))

    def after(self, rate: float) -> Learned:
        """After one more job."""
        return Learned(self.seen + 1, max(self.most, rate), self.total + rate, self.squares + rate * rate)

    def beside(self, other: Learned) -> Learned:
        """What two looks at the same jobs tell together: the sums of the one that saw more, and the dearest of both."""
        return replace(max(self, other, key=lambda one: one.seen), most=max(self.most, other.most))


@dataclass(frozen=True, slots=True)
class Bill:
    """What one job was billed, as it is learned from."""

    endpoint: str
    measure: str
    """What its size is counted in: `Tariff.measure`."""
    variant: str
    rate: float
    """Units billed per unit of its size."""


VARIANTS_MOST: Final = 64
"""Of one endpoint that are told apart by their bills."""

OTHERS: Final = "others"
"""All variants beyond them, as one."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """What jobs of one endpoint cost, as far as it is known."""

    price: Price
    defaults: Mapping[str, Any] | None = None
    """Of the endpoint's schema, for `size_of`."""
    learned: Mapping[str, Learned] = field(default_factory=dict)
    """By variant of size."""

    @property
    def measure(self) -> str:
        """What sizes are counted in: rates that were learned in another measure say nothing here."""
        return self.price.unit if self.defaults is not None else f"{self.price.unit} without a schema"

    def size(self, given: Mapping[str, Any]) -> Size:
        """How much of the endpoint's unit an input asks for."""
        return size_of(given, self.price.unit, self.defaults)

    def variant(self, size: Size) -> str:
        """Under which name jobs of `size` are learned about."""
        is_one_more = len(self.learned) >= VARIANTS_MOST and size.variant not in self.learned
        return OTHERS if is_one_more else size.variant

    def known(self, size: Size) -> Learned | None:
        """What was learned of jobs like one of `size`; None before any was billed."""
        return self.learned.get(self.variant(size))

    def expected(self, size: Size) -> int:
        """What to reserve for a job, in nano-dollars."""
        known = self.known(size) or max(self.learned.values(), key=lambda one: one.most, default=Learned(most=1.0))
        if size.sure is Sure.PROPORTIONAL:
            return self.price.of(size.units * (known.wary_bound if known.seen else known.most))
        # A job that was billed less than its input says is no promise that the next one will be.
        return self.price.of(size.units * (known.bound if known.most > 1.0 else 1.0))

    def at_once(self, size: Size) -> float:
        """How many such jobs may be under way at a time while there is a limit. Where only running jobs can tell what
        they cost: one at first, then twice as many as were seen, so that a dear one is noticed before many follow."""
        if size.sure is Sure.COUNTED:
            return float("inf")
        known = self.known(size)
        return max(1, 2 * known.seen) if known else 1

    def after(self, size: Size, units: float) -> Tariff:
        """After a job of `size` was billed `units`."""
        if (rate := rate_of(size, units)) is None:
            return self
        known = self.known(size) or Learned()
        return replace(self, learned={**self.learned, self.variant(size): known.after(rate)})

    def beside(self, kept: Mapping[str, Learned]) -> Tariff:
        """With what is on record, by variant."""
        both = {one: known.beside(self.learned.get(one, known)) for one, known in kept.items()}
        return replace(self, learned={**self.learned, **both})


def rate_of(size: Size, units: float | None) -> float | None:
    """Units billed per unit of size; None where nothing is to be learned."""
    return units / size.units if units is not None and units > 0 and size.units > 0 else None


@dataclass(frozen=True, slots=True)
class Purse:
    """The batch's money, over all its runs. All amounts in nano-dollars."""

    limit: int | None = None
    spent: int = 0
    """What ended requests cost."""
    at_fal: int = 0
    """Reserved by submits and requests under way."""
    lost: int = 0
    """Reserved by submits without an answer: they may have been charged, so this stays until they are found."""

    @property
    def committed(self) -> int:
        """All that is or may be gone."""
        return self.spent + self.at_fal + self.lost

    def has_room(self, amount: int) -> bool:
        """May a job of this cost be submitted?"""
        return self.limit is None or self.committed + amount <= self.limit

    def reserve(self, amount: int) -> Purse:
        """Before a submit leaves."""
        return replace(self, at_fal=self.at_fal + amount)

    def release(self, amount: int) -> Purse:
        """After a submit that was provably not accepted."""
        return replace(self, at_fal=self.at_fal - amount)

    def lose(self, amount: int) -> Purse:
        """After a submit without an answer."""
        return replace(self, at_fal=self.at_fal - amount, lost=self.lost + amount)

    def find(self, amount: int) -> Purse:
        """After a lost submit's request was found."""
        return replace(self, at_fal=self.at_fal + amount, lost=self.lost - amount)

    def settle(self, reserved: int, cost: int) -> Purse:
        """After a request that had `reserved` ended and cost `cost`."""
        return replace(self, at_fal=self.at_fal - reserved, spent=self.spent + cost)


def cost_of(price: Price | None, units: float | None, *, reserved: int, failed_status: int | None) -> int | None:
    """What an ended request cost, in nano-dollars; None where neither a price nor a reservation is known.

    fal's word on the units decides. Without it: failures of fal's own servers are free (fal-protocol §9.3); anything
    else counts as what was reserved for it, since it may have been billed.
    """
    if price is None and not reserved:
        return None
    if price is not None and units is not None:
        return price.of(units)
    if units is None and failed_status is not None and failed_status >= 500:
        return 0
    return reserved
