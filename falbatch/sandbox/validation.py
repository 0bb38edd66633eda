"""What an endpoint without a known schema says to an input: fal's `detail` list, or nothing. Pure.

The endpoints with one are checked by it, in `catalogue.checking`. fal does not validate at submit: what is found
comes back as a COMPLETED request whose result is 422 (fal-protocol §3.1, §8.3). Unknown properties are ignored, as
models do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox.failures import detail_item
from falbatch.sandbox.media import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PRESETS: Final[Mapping[str, tuple[int, int]]] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
"""Width × height in pixels (fal-protocol §12)."""

MAX_SIDE: Final = 14_142
"""Pixels; fal's bound on a custom side (fal-protocol §12)."""

MAX_IMAGES: Final = 4

_REFERENCES: Final = ("image_url", "image_urls", "images_data_url")
"""Inputs that let an image endpoint do without a prompt (upscalers, background removers)."""

Detail = dict[str, Any]
Loc = tuple[str | int, ...]


def image_problems(payload: Mapping[str, Any]) -> list[Detail]:
    """Every problem of the input of an image endpoint, as entries of fal's `detail`; empty when it is good."""
    found = [*_prompt(payload)]
    if "num_images" in payload:
        found += _integer(payload["num_images"], ("num_images",), 1, MAX_IMAGES)
    if payload.get("seed") is not None:
        found += _integer(payload["seed"], ("seed",))
    if payload.get("image_size") is not None:
        found += _size(payload["image_size"])
    if "output_format" in payload:
        found += _one_of(payload["output_format"], ("output_format",), [*FORMATS])
    if not isinstance(payload.get("sync_mode", False), bool):
        found.append(detail_item("bool_type", "Input should be a valid boolean", ("sync_mode",), {}))
    return found


def text_problems(payload: Mapping[str, Any]) -> list[Detail]:
    """Every problem of a text endpoint's input; only the prompt is looked at."""
    return [*_prompt(payload)]


def as_integer(value: object) -> int | None:
    """`value` as pydantic's lax mode reads an integer: 3, 3.0 and "3" are 3; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, float) and not value.is_integer():
        return None
    try:
        return int(value)
    except ValueError:
        return None


def _prompt(payload: Mapping[str, Any]) -> Iterator[Detail]:
    if "prompt" in payload:
        if not isinstance(payload["prompt"], str):
            message = "Input should be a valid string"
            yield detail_item("string_type", message, ("prompt",), {}, input=payload["prompt"])
    elif not any(name in payload for name in _REFERENCES):
        yield detail_item("missing", "Field required", ("prompt",), {}, input=dict(payload))


def _integer(value: object, loc: Loc, low: int | None = None, high: int | None = None) -> Iterator[Detail]:
    number = as_integer(value)
    if number is None:
        type_, more = ("int_parsing", ", unable to parse string as an integer")
        if not isinstance(value, str):
            type_, more = ("int_type", "")
        yield detail_item(type_, f"Input should be a valid integer{more}", loc, {}, input=value)
    elif low is not None and number < low:
        message = f"Input should be greater than or equal to {low}"
        yield detail_item("greater_than_equal", message, loc, {"ge": low}, input=value)
    elif high is not None and number > high:
        message = f"Input should be less than or equal to {high}"
        yield detail_item("less_than_equal", message, loc, {"le": high}, input=value)


def _size(value: object) -> Iterator[Detail]:
    if not isinstance(value, dict):
        yield from _one_of(value, ("image_size",), [*PRESETS])
        return
    for side in ("width", "height"):
        yield from _integer(value.get(side, 512), ("image_size", side), 1, MAX_SIDE)


def _one_of(value: object, loc: Loc, expected: list[str]) -> Iterator[Detail]:
    if not isinstance(value, str) or value not in expected:
        message = "Input should be " + ", ".join(f"'{word}'" for word in expected)
        yield detail_item("one_of", message, loc, {"expected": expected}, input=value)
