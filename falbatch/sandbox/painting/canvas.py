"""Brushes: gradients, glows, ridges. They draw on an image in place or make one; all lengths are in its pixels."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageDraw

from falbatch.sandbox.painting.palettes import Colour, along

if TYPE_CHECKING:
    from random import Random

_GLOW_SIDE: Final = 128


def enlarged(image: Image.Image, width: int, height: int) -> Image.Image:
    """Soft things are drawn at half size, a quarter of the work, and enlarged without smoothing."""
    return image.resize((width, height), Image.Resampling.NEAREST)


def vertical_gradient(width: int, height: int, stops: tuple[Colour, ...]) -> Image.Image:
    """From the first stop at the top to the last at the bottom."""
    image = Image.new("RGB", (width, height), stops[-1])
    draw = ImageDraw.Draw(image)
    for y in range(height):
        draw.line((0, y, width, y), fill=along(stops, y / height))
    return image


def soft_gradient(width: int, height: int, corners: tuple[Colour, Colour, Colour, Colour]) -> Image.Image:
    """Between four corners: top left, top right, bottom left, bottom right."""
    tiny = Image.new("RGB", (2, 2))
    tiny.putdata(corners)
    # The outer half of each tiny pixel would be flat: look at its middle only.
    return tiny.resize((width, height), Image.Resampling.BILINEAR, box=(0.5, 0.5, 1.5, 1.5))


def glow(image: Image.Image, centre: tuple[float, float], radius: float, colour: Colour, strength: float) -> None:
    """Light around `centre` that fades to nothing at `radius`; `strength` is 0…1 in the middle."""
    side = max(2, int(2 * radius))
    mask = _falloff().resize((side, side), Image.Resampling.BILINEAR)
    if strength < 1:
        mask = mask.point([int(value * strength) for value in range(256)])
    image.paste(colour, (int(centre[0] - radius), int(centre[1] - radius)), mask)


def vignette(image: Image.Image, strength: float) -> None:
    """Darken the corners a little, in place."""
    image.paste((0, 0, 0), (0, 0), _corner_mask(image.size, strength))


def ridge(random: Random, width: float, base: float, height: float, detail: int) -> list[tuple[float, float]]:
    """A mountain line from left to right around `base`: octaves of sines, `detail` of them."""
    waves = [
        (random.uniform(0.8, 1.6) * 2**octave, random.uniform(0, math.tau), height / 1.9**octave)
        for octave in range(detail)
    ]
    steps = 48 * max(1, detail - 1)
    return [
        (
            width * step / steps,
            base - sum(size * math.sin(pace * math.tau * step / steps + phase) for pace, phase, size in waves),
        )
        for step in range(steps + 1)
    ]


def fill_below(draw: ImageDraw.ImageDraw, line: list[tuple[float, float]], bottom: float, colour: Colour) -> None:
    """Fill from a line down to `bottom`."""
    draw.polygon([*line, (line[-1][0], bottom), (line[0][0], bottom)], fill=colour)


def disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: Colour | tuple[int, ...]) -> None:
    """A filled circle."""
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


@lru_cache(maxsize=1)
def _falloff() -> Image.Image:
    """255 in the middle, falling smoothly to 0 at the edge."""
    side = Image.radial_gradient("L").resize((_GLOW_SIDE, _GLOW_SIDE), Image.Resampling.BILINEAR)
    # The built-in gradient reaches 255 in the corners; at the edges' middle it is 180.
    return side.point([round(255 * max(0.0, 1 - value / 179) ** 2) for value in range(256)])


@lru_cache(maxsize=4)
def _corner_mask(size: tuple[int, int], strength: float) -> Image.Image:
    """0 in the middle, rising towards the corners. Kept, as the pictures of a batch are of few sizes."""
    side = Image.radial_gradient("L").resize((_GLOW_SIDE, _GLOW_SIDE), Image.Resampling.BILINEAR)
    shade = [round(255 * strength * max(0.0, value / 255 - 0.35) ** 1.6) for value in range(256)]
    return side.point(shade).resize(size, Image.Resampling.BILINEAR)
