"""How a request ends: decided in full at submit, from its endpoint, its input and the fault that met it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox.endpoints import Kind, Profile
from falbatch.sandbox.failures import CANCELLED, FAILURES, START_DEADLINE, Failure
from falbatch.sandbox.validation import PRESETS, as_integer, image_problems, text_problems

if TYPE_CHECKING:
    from collections.abc import Mapping

_PIXELS_PER_MEGAPIXEL: Final = 1024 * 1024
"""Such that a square_hd image is one, not two after rounding up."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of a request."""

    status: int = 200
    """HTTP status of the result call."""
    units: float = 0.0
    """Billable units, by the endpoint's unit."""
    cost: float = 0.0
    """US dollars: units × unit price."""
    failure: str | None = None
    """A key of FAILURES; None for success and for an input that the schema refuses."""
    is_invalid: bool = False
    """True when the schema refuses the input: the result is its list of problems."""

    @property
    def kind(self) -> Failure | None:
        """The row of the failure table, or None."""
        return FAILURES[self.failure] if self.failure else None


CANCELLED_VERDICT: Final = Verdict(499, failure=CANCELLED)
"""Free, queued or running: whether fal charges a cancelled run is unknown (§15), and it made nothing."""

EXPIRED_VERDICT: Final = Verdict(504, failure=START_DEADLINE)


def decide(profile: Profile, payload: Mapping[str, Any], failure: str | None) -> Verdict:
    """The verdict over an input of an endpoint, with the failure that a fault rule chose for it, or None.

    A refused input is free and comes first, as no runner saw it (fal-protocol §9.3).
    """
    if problems(profile, payload):
        return Verdict(422, is_invalid=True)
    if failure is None:
        return _billed(200, profile, payload, None)
    kind = FAILURES[failure]
    if kind.billed:
        return _billed(kind.status, profile, payload, failure)
    return Verdict(kind.status, failure=failure)


def problems(profile: Profile, payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the endpoint's schema says to an input, as fal's `detail` entries."""
    return image_problems(payload) if profile.kind is Kind.IMAGE else text_problems(payload)


def image_count(payload: Mapping[str, Any]) -> int:
    """How many images a valid input asks for."""
    return as_integer(payload.get("num_images", 1)) or 1


def image_size(profile: Profile, payload: Mapping[str, Any]) -> tuple[int, int]:
    """(width, height) in pixels that a valid input asks for; a side left out is 512 (fal-protocol §12)."""
    size = payload.get("image_size") or profile.size
    if isinstance(size, str):
        return PRESETS[size]
    return as_integer(size.get("width", 512)) or 512, as_integer(size.get("height", 512)) or 512


def units(profile: Profile, payload: Mapping[str, Any]) -> float:
    """Billable units of a valid input."""
    if profile.unit == "requests":
        return 1.0
    count = image_count(payload)
    if profile.unit == "images":
        return float(count)
    width, height = image_size(profile, payload)
    return float(count * ceil(width * height / _PIXELS_PER_MEGAPIXEL))


def _billed(status: int, profile: Profile, payload: Mapping[str, Any], failure: str | None) -> Verdict:
    amount = units(profile, payload)
    return Verdict(status, amount, round(amount * profile.unit_price, 6), failure)
