"""Real pictures of an exact size: painted once, then filled up with comments, which every JPEG decoder skips."""

from __future__ import annotations

import io
from functools import cache
from random import Random
from typing import Final

from PIL import Image

SIDE: Final = 128
"""Pixels; a noisy picture of this size has some KB."""

_COMMENT_MOST: Final = 65_533
"""Bytes in one comment: its length is a 16-bit number that counts itself (ITU T.81, B.2.4.5)."""

_LEAST: Final = 4
"""Bytes that an empty comment takes: mark and length."""


@cache
def jpeg(size_bytes: int) -> bytes:
    """A JPEG of exactly `size_bytes`. Raises ValueError when the bare picture is larger already."""
    bare = _painted(SIDE if size_bytes >= 16_000 else 16)
    missing = size_bytes - len(bare)
    if missing < 0 or 0 < missing < _LEAST:
        raise ValueError(f"no JPEG of {size_bytes} bytes: the bare picture has {len(bare)}")
    return b"".join((bare[:2], *_comments(missing), bare[2:]))


def side_of(size_bytes: int) -> int:
    """Width and height in pixels of `jpeg(size_bytes)`."""
    return SIDE if size_bytes >= 16_000 else 16


def _painted(side: int) -> bytes:
    noise = Random(1).randbytes(side * side * 3)
    held = io.BytesIO()
    Image.frombytes("RGB", (side, side), noise).save(held, "JPEG", quality=50)
    return held.getvalue()


def _comments(size_bytes: int) -> list[bytes]:
    """Comment segments of `size_bytes` in all, filled with what no file system could compress."""
    filling = Random(2).randbytes(_COMMENT_MOST)
    segments = []
    while size_bytes:
        # What is left must be nothing, or have room for a mark and a length of its own.
        length = min(size_bytes, _COMMENT_MOST + _LEAST)
        if 0 < size_bytes - length < _LEAST:
            length -= _LEAST
        segments.append(b"\xff\xfe" + (length - 2).to_bytes(2, "big") + filling[: length - _LEAST])
        size_bytes -= length
    return segments
