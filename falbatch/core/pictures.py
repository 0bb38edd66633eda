"""How large a picture is and how many bytes it was packed into, from the bytes of its file. Pure.

Black packs to next to nothing, so this tells nearly every other picture from a black one without decoding it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture's file, as far as its headers tell."""

    width: int
    height: int
    packed_bytes: int
    """Of its pixels alone, without metadata; no less than that where the format does not say."""

    @property
    def pixels(self) -> int:
        """Width × height."""
        return self.width * self.height


BYTES_PER_PIXEL_MOST: Final = 0.06
"""Above it no picture is all black: a black JPEG has 0.016 (4:2:0) or 0.028 (4:4:4), a PNG 0.003 to 0.013, a WebP less
(Pillow 13, measured); photographs and paintings have 0.1 and more."""

ALLOWANCE_BYTES: Final = 512
"""Tables and heads of the packed part."""

PIXELS_LEAST: Final = 32 * 32
"""Smaller ones are icons, of which any may be packed like black."""

PIXELS_MOST: Final = 25_000_000
"""A larger picture is not looked at: decoded it takes 75 MB and more, and a bomb takes as much as it likes."""

FILE_BYTES_MOST: Final = 2 * 1024 * 1024
"""No file above it is that of a black picture of `PIXELS_MOST`, unless most of it is metadata."""


def may_be_all_black(frame: Frame) -> bool:
    """False for a picture that has too much in it, is too large to be decoded, or too small to be anybody's result."""
    most = frame.pixels * BYTES_PER_PIXEL_MOST + ALLOWANCE_BYTES
    return PIXELS_LEAST <= frame.pixels <= PIXELS_MOST and frame.packed_bytes <= most


def frame_of(body: bytes) -> Frame | None:
    """The frame of a PNG, JPEG or WebP; None for other files, broken ones, and animations, which may begin black."""
    try:
        if body.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(body)
        if body.startswith(b"\xff\xd8\xff"):
            return _jpeg(body)
        if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
            return _webp(body)
    except (IndexError, ValueError):
        pass
    return None


def _png(body: bytes) -> Frame | None:
    """Chunks: length, name, content, checksum (PNG 3rd edition, §5.3)."""
    width, height = int.from_bytes(body[16:20]), int.from_bytes(body[20:24])
    most = width * height * BYTES_PER_PIXEL_MOST + ALLOWANCE_BYTES
    packed, place = 0, 8
    while place + 8 <= len(body) and packed <= most:  # a real picture is through after its first parts
        length, name = int.from_bytes(body[place : place + 4]), body[place + 4 : place + 8]
        if name == b"acTL":
            return None
        if name == b"IDAT":
            packed += length
        place += length + 12
    return Frame(width, height, packed)


_NO_FRAME: Final = frozenset({0xC4, 0xC8, 0xCC})
"""Marks between SOF0 and SOF15 that are none (ITU T.81, table B.1)."""


def _jpeg(body: bytes) -> Frame | None:
    """Segments: mark, length, content; the pixels follow the first SOS."""
    place, size = 2, (0, 0)
    while body[place] == 0xFF:
        mark = body[place + 1]
        if mark == 0xFF:  # filling
            place += 1
            continue
        length = int.from_bytes(body[place + 2 : place + 4])
        if 0xC0 <= mark <= 0xCF and mark not in _NO_FRAME:
            size = int.from_bytes(body[place + 7 : place + 9]), int.from_bytes(body[place + 5 : place + 7])
        if mark == 0xDA:
            return Frame(*size, len(body) - place)
        place += 2 + max(2, length)
    return None


def _webp(body: bytes) -> Frame | None:
    """Chunks: name, length, content, filled up to an even length (RFC 9649, §2.3)."""
    place = 12
    while place + 8 <= len(body):
        name, length = body[place : place + 4], int.from_bytes(body[place + 4 : place + 8], "little")
        head = body[place + 8 : place + 18]
        if name in {b"ANIM", b"ANMF"}:
            return None
        if name == b"VP8 ":
            sides = int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF
            return Frame(*sides, length)
        if name == b"VP8L":
            bits = int.from_bytes(head[1:5], "little")
            return Frame((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, length)
        place += 8 + length + length % 2
    return None
