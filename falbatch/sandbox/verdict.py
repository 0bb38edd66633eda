"""How a request ends: decided in full at submit, from its endpoint, its input and the fault that met it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox.catalogue.checking import schema_problems
from falbatch.sandbox.catalogue.models import model_of
from falbatch.sandbox.catalogue.reading import arguments
from falbatch.sandbox.endpoints import Kind, Profile, Unit
from falbatch.sandbox.failures import CANCELLED, FAILURES, START_DEADLINE, Failure
from falbatch.sandbox.faults import ODDITIES, Do
from falbatch.sandbox.ids import chance
from falbatch.sandbox.validation import PRESETS, as_integer, image_problems, text_problems

if TYPE_CHECKING:
    from collections.abc import Mapping

_PIXELS_PER_MEGAPIXEL: Final = 1024 * 1024
"""Such that a square_hd image is one, not two after rounding up."""

_TRAINING_STEPS: Final = 1000
"""Of a training that is told no number."""


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
    oddity: Do | None = None
    """What is odd about a success, one of ODDITIES; None for a plain one."""
    is_invalid: bool = False
    """True when the schema refuses the input: the result is its list of problems."""

    @property
    def ending(self) -> str | None:
        """What `decide` made it of, beside the input."""
        return self.failure if self.oddity is None else self.oddity.value

    @property
    def kind(self) -> Failure | None:
        """The row of the failure table, or None."""
        return FAILURES[self.failure] if self.failure else None


CANCELLED_VERDICT: Final = Verdict(499, failure=CANCELLED)
"""Free, queued or running: whether fal charges a cancelled run is unknown (§15), and it made nothing."""

EXPIRED_VERDICT: Final = Verdict(504, failure=START_DEADLINE)


def decide(profile: Profile, payload: Mapping[str, Any], ending: str | None) -> Verdict:
    """The verdict over an input of an endpoint, with the failure or the oddity that a fault rule chose for it, or None.

    A refused input is free and comes first, as no runner saw it (fal-protocol §9.3).
    """
    if problems(profile, payload):
        return Verdict(422, is_invalid=True)
    if ending is None or ending in ODDITIES:
        return replace(_billed(200, profile, payload, None), oddity=None if ending is None else Do(ending))
    kind = FAILURES[ending]
    if kind.billed:
        return _billed(kind.status, profile, payload, ending)
    return Verdict(kind.status, failure=ending)


def problems(profile: Profile, payload: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the endpoint's schema says to an input, as fal's `detail` entries."""
    model = model_of(profile.pattern)
    if model is not None:
        return schema_problems(model, payload)
    return image_problems(payload) if profile.kind is Kind.IMAGE else text_problems(payload)


def arguments_of(profile: Profile, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the endpoint works with: of a model with a schema, as that reads the input; else the input itself."""
    model = model_of(profile.pattern)
    return payload if model is None else arguments(model, payload)


def image_count(given: Mapping[str, Any]) -> int:
    """How many images are asked for."""
    return as_integer(given.get("num_images", 1)) or 1


def image_size(profile: Profile, given: Mapping[str, Any]) -> tuple[int, int]:
    """(width, height) in pixels that are asked for; a side left out is 512 (fal-protocol §12)."""
    size = given.get("image_size") or profile.size
    if isinstance(size, str):
        return PRESETS[size]
    return as_integer(size.get("width", 512)) or 512, as_integer(size.get("height", 512)) or 512


def video_seconds(given: Mapping[str, Any]) -> float:
    """Length that is asked for; fal writes `5` and `8s`."""
    return float(str(given.get("duration", "5")).removesuffix("s"))


def audio_seconds(given: Mapping[str, Any]) -> float:
    """How long a sound file is taken to be: by its URL alone, since a bill must not depend on what is behind it."""
    return round(5 + 55 * chance("length", given["audio_url"]), 2)


def units(profile: Profile, given: Mapping[str, Any]) -> float:
    """Billable units of a valid input, read with `arguments_of`."""
    match profile.unit:
        case Unit.REQUESTS:
            return 1.0
        case Unit.IMAGES:
            return float(image_count(given))
        case Unit.MEGAPIXELS:
            width, height = image_size(profile, given)
            return float(image_count(given) * ceil(width * height / _PIXELS_PER_MEGAPIXEL))
        case Unit.SECONDS:
            # Of sound and 4k each adds half; a model that has no choice of sound is at full price.
            halves = 1 + bool(given.get("generate_audio", True)) + (given.get("resolution") == "4k")
            return halves / 2 * video_seconds(given)
        case Unit.CHARACTERS:
            return len(given["prompt"]) / 1000
        case Unit.COMPUTE_SECONDS:
            return round(audio_seconds(given) / 10, 2)
        case Unit.MINUTES:
            return float(ceil(audio_seconds(given) / 60))
        case Unit.STEPS:
            return float(given.get("steps") or _TRAINING_STEPS)


def _billed(status: int, profile: Profile, payload: Mapping[str, Any], failure: str | None) -> Verdict:
    amount = units(profile, arguments_of(profile, payload))
    return Verdict(status, amount, round(amount * profile.unit_price, 6), failure)
