"""Puts a picture together: chooses motif and colours by the seed, adds vignette and caption, encodes the file."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from random import Random
from typing import TYPE_CHECKING, Any, Final

from PIL import Image, ImageDraw, ImageFont

from falbatch.sandbox.ids import digest
from falbatch.sandbox.painting import abstracts, landscapes
from falbatch.sandbox.painting.canvas import vignette
from falbatch.sandbox.painting.palettes import PALETTES, Palette

if TYPE_CHECKING:
    from falbatch.sandbox.media import Picture

Motif = Callable[[Random, int, int, Palette], Image.Image]

MOTIFS: Final[tuple[Motif, ...]] = (
    landscapes.hills,
    landscapes.water,
    landscapes.moonlight,
    abstracts.bokeh,
    abstracts.facets,
    abstracts.currents,
    abstracts.paper,
)

_SMOOTH_PIXELS: Final = 1_700_000
"""Up to here a picture is drawn at double size and halved, which smooths its edges."""

_DRAWN_PIXELS: Final = 6_000_000
"""Beyond, a smaller one is drawn and enlarged: 14142 × 14142 must not take a minute."""

_CAPTION_FROM_PX: Final = 96
"""Smaller pictures carry no text: it could not be read."""

_ENCODINGS: Final[dict[str, dict[str, Any]]] = {
    "jpeg": {"format": "JPEG", "quality": 86},
    "png": {"format": "PNG", "compress_level": 1},
    "webp": {"format": "WEBP", "quality": 82, "method": 0},
}


def draw_file(picture: Picture) -> bytes:
    """The image file of `picture`: the same bytes for the same value, with one version of Pillow."""
    buffer = BytesIO()
    draw_image(picture).save(buffer, **_ENCODINGS[picture.format])
    return buffer.getvalue()


def draw_image(picture: Picture) -> Image.Image:
    """The picture itself, RGB, in exactly the asked size."""
    if picture.is_black:
        return Image.new("RGB", (picture.width, picture.height))
    image, palette = paint_scene(picture.prompt, picture.seed, picture.index, picture.width, picture.height)
    if min(image.size) >= _CAPTION_FROM_PX:
        add_caption(image, picture.prompt, f"seed {picture.seed}", palette)
    return image


def paint_scene(prompt: str, seed: str, index: int, width: int, height: int) -> tuple[Image.Image, Palette]:
    """The scene without a caption, and its colours."""
    random = Random(digest(prompt, seed, index))
    motif, palette = random.choice(MOTIFS), random.choice(PALETTES)
    image = _drawn(motif, random, width, height, palette)
    vignette(image, 0.55)
    return image, palette


def add_caption(image: Image.Image, prompt: str, note: str, palette: Palette) -> int:
    """Write the prompt, two lines at most, and under it `note` on a dark strip along the bottom.

    Returns the row at which the strip begins.
    """
    unit = max(9, round(min(image.size) / 34))
    font, small = ImageFont.load_default(unit), ImageFont.load_default(max(8, round(unit * 0.72)))
    pad = round(unit * 0.9)
    room = image.width - 2 * pad
    lines = wrap(prompt, lambda text: font.getlength(text) <= room, 2)
    note = fit(note, lambda text: small.getlength(text) <= room)
    height = round(pad * 1.5 + len(lines) * unit * 1.3 + unit)
    top = image.height - height
    strip = image.crop((0, top, image.width, image.height))
    image.paste(Image.blend(strip, Image.new("RGB", strip.size, palette.ink), 0.62), (0, top))
    draw = ImageDraw.Draw(image)
    draw.line((0, top, image.width, top), fill=palette.accent, width=max(1, round(unit / 14)))
    for number, line in enumerate(lines):
        draw.text((pad, top + pad * 0.7 + number * unit * 1.3), line, font=font, fill=(250, 248, 242))
    draw.text((pad, image.height - pad * 0.75), note, font=small, fill=palette.accent, anchor="ls")
    return top


def wrap(text: str, fits: Callable[[str], bool], most: int) -> list[str]:
    """Break `text` at spaces into at most `most` lines that fit; what is left over ends in an ellipsis."""
    words = text[:600].encode("utf-8", "replace").decode().split()
    lines: list[str] = []
    while words and len(lines) < most:
        count = 1
        while count < len(words) and fits(" ".join(words[: count + 1])):
            count += 1
        lines.append(" ".join(words[:count]))
        words = words[count:]
    if words:
        lines[-1] += " …"
    return [fit(line, fits) for line in lines]


def fit(text: str, fits: Callable[[str], bool]) -> str:
    """`text`, shortened with an ellipsis until it fits."""
    if fits(text):
        return text
    short = text.removesuffix(" …")
    while short and not fits(short + " …"):
        short = short[:-1]
    return short + " …"


def _drawn(motif: Motif, random: Random, width: int, height: int, palette: Palette) -> Image.Image:
    pixels = width * height
    if pixels <= _SMOOTH_PIXELS:
        return motif(random, 2 * width, 2 * height, palette).reduce(2)
    if pixels <= _DRAWN_PIXELS:
        return motif(random, width, height, palette)
    scale = (_DRAWN_PIXELS / pixels) ** 0.5
    small = motif(random, max(1, round(width * scale)), max(1, round(height * scale)), palette)
    return small.resize((width, height), Image.Resampling.BILINEAR)
