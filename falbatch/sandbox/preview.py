"""Small pictures of what is being made: a few colours at first, more at each step."""

from __future__ import annotations

import base64
from io import BytesIO

from falbatch.sandbox.ids import digest


def preview_uri(width: int, height: int, step: int, *key: object) -> str:
    """A JPEG as a data URI: a field of (step + 1)² colours that `key` decides, in pixels as asked."""
    from PIL import Image

    side = step + 1
    colours = b"".join(digest("preview", *key, row, size=3 * side) for row in range(side))
    field = Image.frombytes("RGB", (side, side), colours).resize((width, height), Image.Resampling.BICUBIC)
    file = BytesIO()
    field.save(file, "JPEG", quality=60)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
