"""Money: what a job may cost, what is committed, and what is left. Whole nano-dollars (1e-9 US dollars), so that a
million additions stay exact. Pure.

A job's cost is known only after it ran (X-Fal-Billable-Units × unit price, fal-protocol §9.3), so each submit reserves
what it is expected to cost, and settles when fal has said what it did cost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any, Final

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


COUNT_FIELDS: Final = ("num_images", "num_videos", "num_outputs", "num_samples", "batch_size")
COUNT_MOST: Final = 1_000
"""A larger "count" is some other number."""

COUNTED_UNITS: Final = frozenset({"image", "video", "request", "generation", "call"})
"""Units of which an input says how many it will be billed."""

_PRESET_PIXELS: Final[Mapping[str, int]] = {
    "square_hd": 1024 * 1024,
    "square": 512 * 512,
    "portrait_4_3": 768 * 1024,
    "portrait_16_9": 576 * 1024,
    "landscape_4_3": 1024 * 768,
    "landscape_16_9": 1024 * 576,
}
"""fal-protocol §12, "Image presets"."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of its endpoint's unit a job asks for."""

    units: float
    exact: bool
    """False: only in proportion to other jobs of the endpoint (a unit that the input does not tell)."""


def size_of(given: Mapping[str, Any], unit: str) -> Size:
    """The size of an input. For a unit that the input does not tell, images × megapixels × seconds, each where it is
    there: jobs of an endpoint are billed in proportion to it, by a factor that the first of them shows."""
    word = unit.strip().lower().removesuffix("s")
    count = _count(given)
    if word in COUNTED_UNITS:
        return Size(1.0 if word in {"request", "call"} else count, exact=True)
    return Size(count * _megapixels(given) * _seconds(given), exact=False)


def _count(given: Mapping[str, Any]) -> float:
    for field in COUNT_FIELDS:
        value = given.get(field)
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= COUNT_MOST:
            return float(value)
    return 1.0


def _megapixels(given: Mapping[str, Any]) -> float:
    """Rounded up, as fal bills them; 1 where no size is given: then all jobs have the endpoint's own."""
    size = given.get("image_size", given)
    if isinstance(size, str):
        return float(ceil(_PRESET_PIXELS.get(size, 1) / 1_000_000))
    if not isinstance(size, dict):
        return 1.0
    width, height = _number(size.get("width")), _number(size.get("height"))
    return float(max(1, ceil(width * height / 1_000_000))) if width and height else 1.0


def _seconds(given: Mapping[str, Any]) -> float:
    """`duration` is a number, "5" or "8s" (fal-protocol §12)."""
    value = given.get("duration")
    text = value.removesuffix("s").strip() if isinstance(value, str) else value
    return max(1.0, _number(text) or 1.0)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if isfinite(number) and 0 < number <= 1e6 else None


@dataclass(frozen=True, slots=True)
class Tariff:
    """What jobs of one endpoint cost, as far as it is known."""

    price: Price
    factor: float | None = None
    """The most units that a job was billed per unit of its size; None before the first was."""
    seen: int = 0
    """Jobs that it is known from."""

    def expected(self, size: Size) -> int:
        """What to reserve for a job, in nano-dollars."""
        factor = self.factor or 1.0
        # A job that was billed less than its input says is no promise that the next one will be.
        return self.price.of(size.units * (max(1.0, factor) if size.exact else factor))

    def at_once(self, size: Size) -> float:
        """How many such jobs may be under way at a time while there is a limit. Where only running jobs can tell what
        they cost: one at first, then twice as many as were seen, so that a dear one is noticed before many follow."""
        return float("inf") if size.exact else max(1, 2 * self.seen)

    def after(self, size: Size, units: float) -> Tariff:
        """After a job of `size` was billed `units`."""
        if units <= 0 or size.units <= 0:
            return self
        return replace(self, factor=max(self.factor or 0.0, units / size.units), seen=self.seen + 1)


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
