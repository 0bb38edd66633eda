"""Motifs without a horizon: lights out of focus, facets, currents, cut paper."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFilter

from falbatch.sandbox.painting.canvas import disc, enlarged, glow, soft_gradient, vertical_gradient
from falbatch.sandbox.painting.palettes import Colour, Palette, along, mix

if TYPE_CHECKING:
    from random import Random


def bokeh(random: Random, width: int, height: int, palette: Palette) -> Image.Image:
    """Lights out of focus, large and soft behind, small and crisp in front."""
    dark = mix(palette.ink, palette.sky[0], 0.5)
    corners = (palette.ink, palette.sky[0], mix(palette.sky[1], dark, 0.3), mix(palette.sky[2], dark, 0.35))
    side = min(width, height)
    # The farthest are drawn tiny and enlarged, which blurs them for nothing; the nearest keep their edges.
    far = soft_gradient(max(1, width // 8), max(1, height // 8), corners)
    _lights(random, far, 16, (side * 0.08 / 8, side * 0.2 / 8), palette, 85)
    far = far.filter(ImageFilter.BoxBlur(side / 300))
    middle = far.resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.BICUBIC)
    _lights(random, middle, 22, (side * 0.015, side * 0.05), palette, 80)
    image = enlarged(middle, width, height)
    _lights(random, image, 24, (side * 0.005, side * 0.02), palette, 190)
    return image


def facets(random: Random, width: int, height: int, palette: Palette) -> Image.Image:
    """A crumpled sheet of triangles, lit from one side."""
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    cell = math.sqrt(width * height / random.uniform(90, 150))
    columns, rows = max(1, round(width / cell)), max(1, round(height / cell))
    points = [
        [_jittered(random, column, row, columns, rows, width, height) for column in range(columns + 1)]
        for row in range(rows + 1)
    ]
    turn, light = random.uniform(-0.9, 0.9), (random.uniform(0, width), random.uniform(0, height * 0.6))
    for row in range(rows):
        for column in range(columns):
            a, b = points[row][column], points[row][column + 1]
            c, d = points[row + 1][column], points[row + 1][column + 1]
            pair = ((a, b, c), (b, d, c)) if random.random() < 0.5 else ((a, b, d), (a, d, c))
            for triangle in pair:
                tone = _facet_tone(random, triangle, (width, height), turn, light, palette)
                draw.polygon(triangle, fill=tone, outline=tone)
    return image


def currents(random: Random, width: int, height: int, palette: Palette) -> Image.Image:
    """Threads that follow an invisible stream."""
    deep = (palette.ink, mix(palette.ink, palette.sky[0], 0.8), palette.sky[0])
    image = vertical_gradient(max(1, width // 2), max(1, height // 2), deep)
    side = min(width, height)
    glow(image, (width * random.uniform(0.15, 0.35), height * 0.22), side * 0.37, palette.sky[2], 0.45)
    image = enlarged(image, width, height)
    draw = ImageDraw.Draw(image)
    waves = [(random.uniform(1.3, 4.4), random.uniform(-3.4, 3.4), random.uniform(0, math.tau)) for _ in range(3)]
    heading, step, threads = random.uniform(-0.35, 0.35), max(width, height) / 34, min(130, 50 + side // 16)
    for thread in range(threads):
        x, y = -0.05 * width, height * (1.5 * (thread + random.random()) / threads - 0.25)
        path = [(x, y)]
        for _ in range(48):
            u, v = x / side, y / side
            angle = heading + sum([0.5 * math.sin(a * u + b * v + phase) for a, b, phase in waves])
            x, y = x + step * math.cos(angle), y + step * math.sin(angle)
            path.append((x, y))
            if x > width * 1.05:
                break
        tone = along(palette.sky[1:], random.betavariate(1.6, 1.4))
        tone = palette.accent if random.random() < 0.05 else mix(tone, palette.glow, random.random() ** 4)
        draw.line(path, fill=tone, width=max(1, round(side * random.choice((0.0016, 0.0024, 0.0036, 0.006)))))
    return image


def paper(random: Random, width: int, height: int, palette: Palette) -> Image.Image:
    """Sheets of cut paper, hole in hole, each throwing its shadow on the next."""
    tones = (*palette.sky, palette.glow)
    image = Image.new("RGB", (width, height), tones[0])
    draw = ImageDraw.Draw(image)
    side, layers = min(width, height), 6
    wide = 1 + 0.35 * (max(width, height) / side - 1)
    x, y = width * random.uniform(0.4, 0.6), height * random.uniform(0.36, 0.48)
    waves = [(n, random.uniform(0, math.tau), random.uniform(0.03, 0.13) / n**0.4) for n in (2, 3, 5)]
    for layer in range(layers):
        share = 1 - layer / layers
        radius = side * (0.1 + 0.62 * share * (1 + (wide - 1) * share))
        outline = _outline([(n, phase - 0.22 * layer, size) for n, phase, size in waves])
        _hole(draw, (x, y), radius, outline, along(tones, (layer + 1) / layers), side * 0.011)
    disc(draw, x, y, side * 0.06, palette.accent)
    return image


def _lights(
    random: Random, image: Image.Image, number: int, sizes: tuple[float, float], palette: Palette, alpha: int
) -> None:
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(number):
        tone = palette.accent if random.random() < 0.15 else along((*palette.sky[2:], palette.glow), random.random())
        x, y = random.uniform(0, image.width), random.gauss(0.5, 0.24) * image.height
        radius, strength = random.uniform(*sizes), round(alpha * random.uniform(0.35, 1))
        box = (x - radius, y - radius, x + radius, y + radius)
        rim = (*mix(tone, palette.glow, 0.4), min(255, strength + 40))
        draw.ellipse(box, fill=(*tone, strength), outline=rim, width=max(1, round(radius * 0.05)))


def _jittered(
    random: Random, column: int, row: int, columns: int, rows: int, width: int, height: int
) -> tuple[float, float]:
    """A grid point, moved a little; those on the border stay outside of it."""
    x, y = width * column / columns, height * row / rows
    if 0 < column < columns:
        x += random.uniform(-0.36, 0.36) * width / columns
    if 0 < row < rows:
        y += random.uniform(-0.36, 0.36) * height / rows
    return x, y


def _facet_tone(
    random: Random,
    triangle: tuple[tuple[float, float], ...],
    size: tuple[int, int],
    turn: float,
    light: tuple[float, float],
    palette: Palette,
) -> Colour:
    x, y = sum(point[0] for point in triangle) / 3, sum(point[1] for point in triangle) / 3
    share = 0.5 + (x / size[0] - 0.5) * turn + (y / size[1] - 0.5) * 0.9
    tone = along(palette.sky, share + random.uniform(-0.09, 0.09))
    near = max(0.0, 1 - math.dist((x, y), light) / (0.6 * max(size)))
    return mix(mix(tone, palette.ink, random.uniform(0, 0.12)), palette.glow, 0.5 * near**2)


def _outline(waves: list[tuple[int, float, float]]) -> list[tuple[float, float]]:
    """A closed curve around the origin at a distance of about 1."""
    points = []
    for step in range(120):
        angle = math.tau * step / 120
        reach = 1 + sum([size * math.sin(n * angle + phase) for n, phase, size in waves])
        points.append((reach * math.cos(angle), reach * math.sin(angle)))
    return points


def _hole(
    draw: ImageDraw.ImageDraw,
    centre: tuple[float, float],
    radius: float,
    outline: list[tuple[float, float]],
    tone: Colour,
    shade: float,
) -> None:
    """Cut a hole through which a sheet of colour `tone` shows, with the shadow of the rim on it.

    The shadow is a row of ever brighter shapes, each a little smaller and farther from the light.
    """
    steps = 6
    for step in range(steps):
        away = shade * step / (steps - 1) * 2.2
        x, y, reach = centre[0] + away * 0.6, centre[1] + away * 0.8, radius - away
        edge = [(x + reach * u, y + reach * v) for u, v in outline]
        draw.polygon(edge, fill=mix(tone, (0, 0, 0), 0.38 * (1 - step / (steps - 1)) ** 1.4))
