"""How many outputs an input asks for: one answer for what a job may cost and for what its result must hold. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

COUNT_FIELDS: Final = ("num_images", "num_videos", "num_outputs", "num_samples", "batch_size")
COUNT_MOST: Final = 1_000
"""A larger "count" is some other number."""


def asked_of(given: Mapping[str, Any]) -> tuple[str, int] | None:
    """The field of an input that says how many outputs are wanted, and how many; None where none says it."""
    for field in COUNT_FIELDS:
        if (count := count_of(given.get(field))) is not None:
            return field, count
    return None


def count_of(value: Any) -> int | None:
    """A number of outputs, also as text: models read both (fal-protocol §12). None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return int(number) if 1 <= number <= COUNT_MOST and number.is_integer() else None
