"""What travels inside the input itself, and what kind of file something is (fal-protocol §6.4)."""

from __future__ import annotations

import base64
import mimetypes
import os
from typing import Final

UNKNOWN_TYPE: Final = "application/octet-stream"

_PACKED: Final = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
"""`mimetypes` answers for `x.json.gz` what is in it; fal is given the file as it is."""


def data_uri(data: bytes, content_type: str) -> str:
    """`data:<content type>;base64,…`: for small files, since all of it lies in the request and in its history."""
    return f"data:{content_type};base64,{base64.b64encode(data).decode('ascii')}"


def guess_content_type(path: str | os.PathLike[str]) -> str:
    """The content type that the name of a file tells, `application/octet-stream` when it tells none."""
    found, packed = mimetypes.guess_type(os.fspath(path))
    if packed:
        return _PACKED.get(packed, UNKNOWN_TYPE)
    return found or UNKNOWN_TYPE
