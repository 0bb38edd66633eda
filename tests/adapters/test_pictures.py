"""Black pictures are noticed whatever their format; everything else, however dark, is left alone."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from falbatch.adapters.pictures import BLACK_MOST, is_black
from falbatch.core.pictures import PIXELS_MOST, frame_of, may_be_all_black

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("PNG", {"compress_level": 1}),
    ("JPEG", {"quality": 60}),
    ("JPEG", {"quality": 86}),
    ("JPEG", {"quality": 95, "subsampling": 0}),
    ("JPEG", {"quality": 90, "progressive": True}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
]
SIDES = [(32, 32), (64, 48), (1024, 1024), (1536, 640)]


def packed(picture: Picture, kind: str = "PNG", **more: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **more)
    return file.getvalue()


def with_dot(side: int, dot: int, brightness: int) -> Picture:
    picture = Image.new("RGB", (side, side))
    ImageDraw.Draw(picture).rectangle((9, 9, 8 + dot, 8 + dot), fill=(brightness,) * 3)
    return picture


@pytest.mark.parametrize(("kind", "more"), FORMATS)
@pytest.mark.parametrize("sides", SIDES)
def test_a_black_picture_is_black_in_every_format_and_size(
    kind: str, more: dict[str, Any], sides: tuple[int, int]
) -> None:
    body = packed(Image.new("RGB", sides), kind, **more)
    assert is_black(body)
    frame = frame_of(body)
    assert frame is not None
    assert (frame.width, frame.height) == sides


@pytest.mark.parametrize(("kind", "more"), FORMATS)
def test_what_is_nearly_black_counts_and_what_can_be_seen_does_not(kind: str, more: dict[str, Any]) -> None:
    assert is_black(packed(Image.new("RGB", (256, 256), (4, 4, 4)), kind, **more))
    for colour in ((40, 40, 40), (0, 0, 90), (255, 255, 255)):
        assert not is_black(packed(Image.new("RGB", (256, 256), colour), kind, **more))


@pytest.mark.parametrize(("kind", "more"), FORMATS)
def test_one_bright_spot_is_enough(kind: str, more: dict[str, Any]) -> None:
    """Three pixels of a block have a mean that passes for black: that of a JPEG looked at in eighths."""
    assert not is_black(packed(with_dot(512, 3, 255), kind, **more))


def test_metadata_does_not_hide_a_black_picture() -> None:
    black = Image.new("RGB", (512, 512))
    assert is_black(packed(black, "JPEG", exif=b"Exif\0\0" + Random(1).randbytes(60_000)))
    assert is_black(packed(black, "PNG", icc_profile=Random(1).randbytes(300_000)))
    assert is_black(packed(black, "WEBP", icc_profile=Random(1).randbytes(300_000)))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("1", True), ("L", True), ("P", True), ("RGB", True), ("LA", False), ("RGBA", False), ("I;16", True)],
)
def test_every_kind_of_pixel_is_understood(mode: str, expected: bool) -> None:
    """Black behind transparency may be a cut-out: that a picture is empty there is what it shows."""
    assert is_black(packed(Image.new(mode, (64, 64)))) is expected


def test_opaque_black_with_an_alpha_channel_is_black_and_a_white_palette_is_not() -> None:
    assert is_black(packed(Image.new("RGBA", (64, 64), (0, 0, 0, 255))))
    white = Image.new("P", (64, 64))
    white.putpalette([255, 255, 255] * 256)
    assert not is_black(packed(white))
    assert is_black(packed(Image.new("CMYK", (64, 64), (0, 0, 0, 255)), "JPEG"))


def test_animations_are_not_judged() -> None:
    frames = [Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64), (255, 0, 0))]
    for kind in ("PNG", "WEBP", "GIF"):
        assert not is_black(packed(frames[0], kind, save_all=True, append_images=frames[1:]))


def test_a_real_picture_is_excluded_without_being_decoded() -> None:
    noise = Image.frombytes("RGB", (256, 256), Random(2).randbytes(3 * 256 * 256))
    smooth = noise.resize((1024, 1024), Image.Resampling.BICUBIC)
    for picture in (noise, smooth):
        for kind, more in FORMATS:
            frame = frame_of(packed(picture, kind, **more))
            assert frame is not None
            assert not may_be_all_black(frame), (kind, more)


def test_pillow_is_not_loaded_for_a_real_picture() -> None:
    program = (
        "import sys; from falbatch.adapters.pictures import is_black\n"
        "assert not is_black(sys.stdin.buffer.read()); assert 'PIL' not in sys.modules"
    )
    body = packed(Image.frombytes("RGB", (64, 64), Random(3).randbytes(3 * 64 * 64)))
    subprocess.run([sys.executable, "-c", program], input=body, check=True)


def bomb(side: int) -> bytes:
    """A PNG that says it has side × side pixels, in a few bytes."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(1_000_000))), (b"IEND", b""))
    file = b"\x89PNG\r\n\x1a\n"
    for name, text in chunks:
        file += struct.pack(">I", len(text)) + name + text + struct.pack(">I", zlib.crc32(name + text))
    return file


def test_a_bomb_is_not_unpacked() -> None:
    frame = frame_of(bomb(50_000))
    assert frame is not None
    assert frame.pixels > PIXELS_MOST
    assert not may_be_all_black(frame)
    assert not is_black(bomb(50_000))


def test_what_cannot_be_decoded_is_not_black() -> None:
    whole = packed(Image.new("RGB", (256, 256)))
    broken = (whole[:60], whole[:40] + bytes(60) + whole[100:])
    for body in (b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", *broken):
        assert not is_black(body)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FORMATS), st.integers(0, 2000), st.binary(min_size=1, max_size=40))
def test_garbled_files_never_raise(form: tuple[str, dict[str, Any]], place: int, garbage: bytes) -> None:
    kind, more = form
    body = packed(Image.new("RGB", (64, 48)), kind, **more)
    place %= len(body)
    assert is_black(body[:place] + garbage + body[place + len(garbage) :]) in {True, False}


def test_the_bound_is_where_it_is_said_to_be() -> None:
    assert is_black(packed(Image.new("L", (32, 32), BLACK_MOST)))
    assert not is_black(packed(Image.new("L", (32, 32), BLACK_MOST + 1)))
