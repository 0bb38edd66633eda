"""Is a picture all black? Decoded only where its size leaves that open, in the worker thread that writes the file.

Pillow is loaded with the first picture that may be.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.pictures import frame_of, may_be_all_black

if TYPE_CHECKING:
    from PIL import Image

BLACK_MOST: Final = 10
"""No channel of a black picture is brighter, of 255: what packing does to black stays below 4, what anybody could see
begins above."""

OPAQUE_LEAST: Final = 245
"""Of 255. Black behind transparency is how cut-outs and silhouettes are kept."""

DRAFT: Final = 8
"""A JPEG is first unpacked to an eighth of its sides, which takes no transform at all."""


def is_black(body: bytes) -> bool:
    """True for the file of a picture without any pixel that is brighter than black. False for what cannot be decoded,
    for animations, for pictures too large to be decoded safely, and for other files."""
    frame = frame_of(body)
    if frame is None or not may_be_all_black(frame):
        return False
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own bound for bombs is far above ours
            if body.startswith(b"\xff\xd8"):
                with Image.open(io.BytesIO(body), formats=["JPEG"]) as draft:
                    draft.draft("RGB", (max(1, draft.width // DRAFT), max(1, draft.height // DRAFT)))
                    if not _is_dark(draft):
                        return False
            with Image.open(io.BytesIO(body), formats=["PNG", "JPEG", "WEBP"]) as picture:
                # What its headers said is what it says itself, or it is none of ours to unpack.
                return picture.size == (frame.width, frame.height) and _is_dark(picture)
    except Exception:  # noqa: BLE001  (decoders raise anything over a broken file; that is not black)
        return False


def _is_dark(picture: Image.Image) -> bool:
    """Decodes it. An eighth of a JPEG has the means of its blocks: a small bright thing may be lost in them, so "dark"
    is looked at again in full."""
    if picture.mode in {"P", "PA"} or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    elif picture.mode in {"CMYK", "YCbCr", "LAB", "HSV"}:
        picture = picture.convert("RGB")
    channels: Any = picture.getextrema()
    lows_and_highs = channels if isinstance(channels[0], tuple) else (channels,)
    if picture.mode[-1] == "A":
        *lows_and_highs, (thinnest, _) = lows_and_highs
        if thinnest < OPAQUE_LEAST:
            return False
    return all(high <= BLACK_MOST for _, high in lows_and_highs)
