"""Motifs with a horizon: hills at dusk, a sun over water, a moonlit range."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from falbatch.sandbox.painting.canvas import disc, enlarged, fill_below, glow, ridge, vertical_gradient
from falbatch.sandbox.painting.palettes import Colour, Palette, along, mix

if TYPE_CHECKING:
    from random import Random


def hills(random: Random, width: int, height: int, palette: Palette) -> Image.Image:
    """Ridge behind ridge, paler with distance, under a low sun."""
    side = min(width, height)
    x, y = width * random.uniform(0.2, 0.8), height * random.uniform(0.3, 0.46)
    image = _lit_sky((width, height), palette.sky, (x, y), side * 0.55, palette.glow, 0.75)
    draw = ImageDraw.Draw(image)
    disc(draw, x, y, side * random.uniform(0.05, 0.085), palette.glow)
    layers = random.randint(5, 7)
    haze = palette.sky[-1]
    for layer in range(layers):
        near = (layer + 1) / layers
        base = height * (0.5 + 0.42 * near**1.15)
        line = ridge(random, width, base, height * (0.035 + 0.03 * near), 3 + layer % 2)
        fill_below(draw, line, height, mix(haze, palette.ink, 0.18 + 0.82 * near**0.85))
        if layer == layers - 1:
            _trees(random, draw, line, height, palette.ink)
    _birds(random, draw, width, height, mix(palette.ink, haze, 0.25))
    return image


def water(random: Random, width: int, height: int, palette: Palette) -> Image.Image:
    """A sun close to the horizon and its path on the water."""
    side, horizon = min(width, height), min(height - 1, round(height * random.uniform(0.52, 0.6)))
    x, radius = width * random.uniform(0.3, 0.7), side * random.uniform(0.1, 0.14)
    y = horizon - radius * random.uniform(0.1, 1.1)
    image = _lit_sky((width, height), palette.sky, (x, y), side * 0.7, palette.glow, 0.7)
    draw = ImageDraw.Draw(image)
    disc(draw, x, y, radius, palette.glow)
    far = ridge(random, width, horizon - side * 0.012, side * 0.02, 3)
    fill_below(draw, far, horizon, mix(palette.sky[-2], palette.ink, 0.45))
    sea = (mix(palette.sky[-1], palette.sky[1], 0.35), palette.sky[1], palette.ink)
    deep = vertical_gradient(1, max(1, (height - horizon) // 2), sea)
    image.paste(enlarged(deep, width, height - horizon), (0, horizon))
    _ripples(random, draw, (width, height, horizon), x, radius, palette)
    _boat(draw, width * random.choice((0.18, 0.82)), horizon + side * 0.05, side * 0.055, palette.ink)
    return image


def moonlight(random: Random, width: int, height: int, palette: Palette) -> Image.Image:
    """Stars and a moon over sharp peaks, mirrored in a lake."""
    night = tuple(mix(colour, palette.ink, 0.35 + 0.1 * n) for n, colour in enumerate(palette.sky[:3]))
    side, shore = min(width, height), min(height - 1, round(height * 0.7))
    x, y = width * random.uniform(0.2, 0.8), height * random.uniform(0.16, 0.3)
    stops = (palette.ink, *night, mix(palette.sky[-2], palette.ink, 0.25))
    image = _lit_sky((width, height), stops, (x, y), side * 0.42, palette.glow, 0.55)
    draw = ImageDraw.Draw(image)
    for _ in range(140):
        light = random.random() ** 2
        star = side * (0.0009 + 0.0017 * light)
        tone = mix(night[0], palette.glow, 0.35 + 0.65 * light)
        disc(draw, random.uniform(0, width), random.uniform(0, shore * 0.75), star, tone)
    disc(draw, x, y, side * 0.055, palette.glow)
    for layer in range(3):
        tone = mix(palette.sky[-2], palette.ink, 0.45 + 0.22 * layer)
        line = _peaks(random, width, shore - height * (0.1 - 0.03 * layer), height * (0.17 - 0.045 * layer))
        fill_below(draw, line, shore, tone)
    _mirror(image, shore)
    _shimmer(random, draw, (width, height, shore), x, palette)
    return image


def _lit_sky(
    size: tuple[int, int],
    stops: tuple[Colour, ...],
    centre: tuple[float, float],
    radius: float,
    light: Colour,
    strength: float,
) -> Image.Image:
    image = vertical_gradient(max(1, size[0] // 2), max(1, size[1] // 2), stops)
    glow(image, (centre[0] / 2, centre[1] / 2), radius / 2, light, strength)
    return enlarged(image, *size)


def _trees(
    random: Random, draw: ImageDraw.ImageDraw, line: list[tuple[float, float]], height: int, ink: Colour
) -> None:
    for x, y in line[:: random.randint(2, 3)]:
        if random.random() < 0.6:
            tall = height * random.uniform(0.02, 0.055)
            for part in range(3):
                top, wide = y - tall * (1 - 0.24 * part), tall * (0.12 + 0.07 * part)
                draw.polygon([(x, top), (x - wide, top + tall * 0.42), (x + wide, top + tall * 0.42)], fill=ink)
            draw.rectangle((x - tall * 0.03, y - tall * 0.2, x + tall * 0.03, y + tall * 0.4), fill=ink)


def _birds(random: Random, draw: ImageDraw.ImageDraw, width: int, height: int, ink: Colour) -> None:
    x, y, span = width * random.uniform(0.15, 0.75), height * random.uniform(0.14, 0.3), min(width, height) * 0.016
    for _ in range(random.randint(3, 6)):
        left, top, size = x + random.gauss(0, 4) * span, y + random.gauss(0, 2) * span, span * random.uniform(0.6, 1)
        wing = [(left - size, top - size * 0.35), (left, top), (left + size, top - size * 0.45)]
        draw.line(wing, fill=ink, width=max(1, round(size / 6)), joint="curve")


def _ripples(
    random: Random,
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int],
    x: float,
    radius: float,
    palette: Palette,
) -> None:
    """The sun's path: strokes that grow and scatter towards us, brightest in the middle."""
    width, height, horizon = box
    rows = 70
    for row in range(rows):
        depth = (row / rows) ** 1.5
        y = horizon + (height - horizon) * depth + 1
        thick = max(1, round(height * (0.001 + 0.0045 * depth)))
        for _ in range(3):
            middle = x + random.gauss(0, radius * (0.35 + 1.5 * depth))
            length = radius * random.uniform(0.12, 0.55) * (0.5 + depth)
            away = min(1.0, abs(middle - x) / (radius * (0.8 + 2.2 * depth)))
            tone = mix(palette.glow, along(palette.sky, 0.6), 0.15 + 0.75 * away)
            draw.line((middle - length, y, middle + length, y), fill=tone, width=thick)
        far = random.uniform(0, width)
        tone = mix(palette.sky[1], palette.sky[-2], 0.35)
        draw.line((far, y, far + width * 0.05 * (0.4 + depth), y), fill=tone, width=max(1, thick // 2))


def _boat(draw: ImageDraw.ImageDraw, x: float, y: float, size: float, ink: Colour) -> None:
    hull = [(x - size, y), (x + size, y), (x + size * 0.6, y + size * 0.32), (x - size * 0.65, y + size * 0.32)]
    draw.polygon(hull, fill=ink)
    draw.polygon([(x, y - size * 2.2), (x, y - size * 0.12), (x + size * 0.95, y - size * 0.12)], fill=ink)
    draw.polygon(
        [(x - size * 0.12, y - size * 1.8), (x - size * 0.12, y - size * 0.12), (x - size * 0.8, y - size * 0.12)],
        fill=ink,
    )


def _peaks(random: Random, width: int, base: float, size: float) -> list[tuple[float, float]]:
    """A jagged line: midpoints moved up and down by ever smaller amounts."""
    heights = [random.uniform(0, 1) for _ in range(6)]
    roughness = 0.5
    while len(heights) < 90:
        halves = [(a + b) / 2 + random.uniform(-roughness, roughness) * 0.5 for a, b in itertools.pairwise(heights)]
        heights = [value for pair in zip(heights, halves, strict=False) for value in pair] + [heights[-1]]
        roughness *= 0.52
    last = len(heights) - 1
    return [(width * n / last, base - size * value) for n, value in enumerate(heights)]


def _mirror(image: Image.Image, shore: int) -> None:
    """Fill what is below the shore with what is above, darker and softer."""
    width, depth = image.width, image.height - shore
    above = image.crop((0, shore - depth, width, shore)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    soft = above.reduce((8, 4)).point([int(value * 0.72) for value in range(256)] * 3)
    image.paste(soft.resize((width, depth), Image.Resampling.BILINEAR), (0, shore))


def _shimmer(random: Random, draw: ImageDraw.ImageDraw, box: tuple[int, int, int], x: float, palette: Palette) -> None:
    width, height, shore = box
    for row in range(26):
        y = shore + (height - shore) * ((row + 0.5) / 26) ** 1.3
        length = width * random.uniform(0.008, 0.04)
        middle = x + random.gauss(0, width * 0.022)
        tone = mix(palette.sky[-2], palette.glow, random.uniform(0.2, 0.75))
        draw.line((middle - length, y, middle + length, y), fill=tone, width=max(1, round(height * 0.0018)))
