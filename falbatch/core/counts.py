"""How many outputs an input asks for: one answer for what a job may cost and for what its result must hold. Pure."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

COUNT_FIELDS: Final = ("num_images", "num_videos", "num_outputs", "num_samples", "batch_size")
COUNT_MOST: Final = 1_000
"""A larger "count" is some other number."""
NUMBER_MOST: Final = 1_000_000
"""Of pixels of a side, seconds, steps: a larger one is a mistake."""


def asked_of(given: Mapping[str, Any]) -> tuple[str, int] | None:
    """The field of an input that says how many outputs are wanted, and how many; None where none says it."""
    for field in COUNT_FIELDS:
        if (count := count_of(given.get(field))) is not None:
            return field, count
    return None


def count_of(value: Any) -> int | None:
    """A number of outputs, also as text; None for anything else."""
    number = number_of(value)
    return int(number) if number is not None and 1 <= number <= COUNT_MOST and number.is_integer() else None


def number_of(value: Any) -> float | None:
    """A number above 0, also as text: models read both (fal-protocol §12). None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if isfinite(number) and 0 < number <= NUMBER_MOST else None
