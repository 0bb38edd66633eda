"""How many billable units a job asks for, as far as its input and its endpoint's own defaults say. Pure.

fal prices an endpoint by a unit (fal-protocol §11.3) and says what it billed only afterwards (X-Fal-Billable-Units,
§9.3). This is the one answer to "how many will that be?": a plan's cost and a run's reservations both come from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.counts import COUNT_FIELDS, asked_of, count_of, number_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PIXELS_PER_MEGAPIXEL: Final = 1024 * 1024
"""Such that `square_hd` is one. fal-protocol does not say; where a million would give another number, jobs are a
`variant` of their own, so that a limit on cost holds either way."""

PRESET_PIXELS: Final[Mapping[str, int]] = {
    "square_hd": 1024 * 1024,
    "square": 512 * 512,
    "portrait_4_3": 768 * 1024,
    "portrait_16_9": 576 * 1024,
    "landscape_4_3": 1024 * 768,
    "landscape_16_9": 1024 * 576,
}
"""fal-protocol §12, "Image presets"."""

SIZE_DEFAULT: Final = "landscape_4_3"
SIDE_DEFAULT: Final = 512.0
"""Of an endpoint whose schema is not known, and of a side that is left out (fal-protocol §12)."""

SIZE_FIELDS: Final = ("image_size", "width", "height")

SECONDS_USUAL: Final = 5.0
"""Of a video whose schema names no default (fal-protocol §12: "5" and more)."""

TEXT_FIELDS: Final = ("text", "prompt", "input")
"""Where the text is that a unit of characters counts; the first that holds one."""

VARIANT_FIELDS: Final = ("generate_audio", "resolution", "quality")
"""What may change how many units a second or an image is billed as, in a measure that only a bill tells."""

_NUMBERED: Final = re.compile(r"([0-9]{1,9}) +(.+)")
_VARIANT_LONGEST: Final = 24


class Sure(IntEnum):
    """How well the units of a job are known before it ran, weakest first."""

    PROPORTIONAL = 0
    """Only in proportion to other jobs of the endpoint: the input does not tell the unit (compute seconds)."""
    ASSUMED = 1
    """Told, but for something that may change the number: a resolution that is not the default, a size or a number of
    images that is left to an unknown schema."""
    MEASURED = 2
    """Told by the input and the endpoint's defaults: megapixels, seconds, characters, steps."""
    COUNTED = 3
    """As many as the input asks for: images, videos, requests."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of its endpoint's unit a job asks for."""

    units: float
    sure: Sure
    variant: str = ""
    """Jobs of one variant are billed alike, per unit of their size: `resolution=4k`; "" for the endpoint's own way."""


def size_of(given: Mapping[str, Any], unit: str, defaults: Mapping[str, Any] | None = None) -> Size:
    """The size of an input, by fal's word for the unit. `defaults` are those of the endpoint's schema, with None for a
    field that has none (`fields.input_defaults`); None where the schema is not known."""
    word, per = _read(unit)
    read = _Reading(given, defaults)
    variant = read.variant(VARIANT_FIELDS)
    match word:
        case "request" | "call" | "image" | "video" | "generation":
            is_alone = word in {"request", "call"}
            units = 1.0 if is_alone else read.count(COUNT_FIELDS)
            if word != "image":
                times, longer = read.length()
                units *= times
                variant = f"{variant} {longer}".strip()
            is_counted = not variant and (is_alone or read.is_count_known)
            return Size(units / per, Sure.COUNTED if is_counted else Sure.ASSUMED, variant)
        case "megapixel" if (pixels := read.pixels()) is not None:
            return _by_megapixels(read, pixels, per, variant)
        case "second" if (seconds := read.seconds()) is not None:
            units = read.count(COUNT_FIELDS[1:]) * seconds / per
        case "character" if (length := read.characters()) is not None:
            units = length / per
        case "step" if (steps := number_of(read["steps"])) is not None:
            units = steps / per
        case _:
            # Jobs are billed in proportion to this, by a factor that the first of them shows.
            units = read.count(COUNT_FIELDS[:-1]) * read.megapixels() * (read.seconds() or 1.0)
            return Size(units, Sure.PROPORTIONAL, variant)
    return Size(units, Sure.ASSUMED if variant else Sure.MEASURED, variant)


def _by_megapixels(read: _Reading, pixels: float, per: int, variant: str) -> Size:
    """Of each image, rounded up, as fal bills them."""
    each = ceil(pixels / PIXELS_PER_MEGAPIXEL)
    sure = Sure.MEASURED if not variant and read.is_size_known and read.is_count_known else Sure.ASSUMED
    if not variant and each != ceil(pixels / 1_000_000):
        variant = "rounding"
    return Size(read.count(COUNT_FIELDS) * each / per, sure, variant)


@lru_cache(maxsize=256)
def _read(unit: str) -> tuple[str, int]:
    """fal's word in the singular, and how many make one unit: ("character", 1000) for `1000 characters`."""
    text = unit.strip().lower()
    numbered = _NUMBERED.fullmatch(text)
    if numbered and int(numbered[1]) > 0:
        return numbered[2].removesuffix("s"), int(numbered[1])
    return text.removesuffix("s"), 1


class _Reading:
    """An input with its endpoint's defaults in the places that it leaves open."""

    __slots__ = ("_defaults", "_given")

    def __init__(self, given: Mapping[str, Any], defaults: Mapping[str, Any] | None) -> None:
        self._given = given
        self._defaults = defaults

    def __getitem__(self, name: str) -> Any:
        value = self._given.get(name)
        return self._defaults.get(name) if value is None and self._defaults is not None else value

    def _places(self) -> Iterator[Mapping[str, Any]]:
        """Where a thing that several fields may tell is looked for: no default of one hides what another was given."""
        yield self._given
        yield self._defaults or {}

    def count(self, fields: tuple[str, ...]) -> float:
        """How many results are asked for."""
        found = (count_of(place.get(name)) for place in self._places() for name in fields)
        return float(next((number for number in found if number is not None), 1))

    @property
    def is_count_known(self) -> bool:
        """False where nothing tells how many results an endpoint makes by itself."""
        return self._defaults is not None or asked_of(self._given) is not None

    def pixels(self) -> float | None:
        """Of one image; None where nothing tells it."""
        place = next(
            (place for place in self._places() if any(place.get(name) is not None for name in SIZE_FIELDS)), None
        )
        if place is None:
            return PRESET_PIXELS[SIZE_DEFAULT] if self._defaults is None else None
        size = place.get("image_size")
        if isinstance(size, str):
            return PRESET_PIXELS.get(size)
        if isinstance(size, dict):
            sides = [_side(size.get(name)) for name in ("width", "height")]
        elif place.get("width") is not None or place.get("height") is not None:
            sides = [_side(self["width"]), _side(self["height"])]
        else:
            return None
        return None if None in sides else (sides[0] or 0.0) * (sides[1] or 0.0)

    @property
    def is_size_known(self) -> bool:
        """False where the size of an image is taken from fal's habits alone."""
        return self._defaults is not None or any(self._given.get(name) is not None for name in SIZE_FIELDS)

    def megapixels(self) -> float:
        """1 where no size is told: then all jobs have the endpoint's own."""
        return float(max(1, ceil((self.pixels() or 1) / PIXELS_PER_MEGAPIXEL)))

    def seconds(self) -> float | None:
        """`duration` is a number, "5" or "8s" (fal-protocol §12); None where nothing tells it."""
        return _seconds(self["duration"])

    def length(self) -> tuple[float, str]:
        """How many times as much a job may be for its own `duration`, and the word for it; (1, "") where that is the
        default. Lengths in seconds are one variant: each of a thousand would be tried alone."""
        own = _seconds(self._given.get("duration"))
        if own is None:
            return 1.0, self.variant(("duration",))
        usual = None if self._defaults is None else _seconds(self._defaults.get("duration"))
        if own == usual:
            return 1.0, ""
        return max(1.0, own / (usual or SECONDS_USUAL)), "duration"

    def characters(self) -> int | None:
        """Of the text that is to be worked on."""
        found = (place.get(name) for place in self._places() for name in TEXT_FIELDS)
        return next((len(value) for value in found if isinstance(value, str)), None)

    def variant(self, fields: tuple[str, ...]) -> str:
        """Those of `fields` that are given and not the default."""
        words = ""
        for name in fields:
            value = self._given.get(name)
            if value is not None and (self._defaults is None or value != self._defaults.get(name)):
                words += f" {name}={str(value)[:_VARIANT_LONGEST]}"
        return words.lstrip()


def _seconds(value: Any) -> float | None:
    number = number_of(value.strip().removesuffix("s") if isinstance(value, str) else value)
    return None if number is None else max(1.0, number)


def _side(value: Any) -> float | None:
    return SIDE_DEFAULT if value is None else number_of(value)
