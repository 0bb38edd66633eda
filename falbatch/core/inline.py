"""Files that came inside an answer as bytes (realtime), made into what a result looks like elsewhere. Pure."""

from __future__ import annotations

import base64
from typing import Any, Final

from falbatch.core.artifacts import MAX_DEPTH
from falbatch.core.media import HEAD_BYTES, sniff

UNKNOWN_TYPE: Final = "application/octet-stream"


def with_file_objects(value: Any) -> Any:
    """`value` with each run of bytes in it as a file object whose URL is a data URI (fal-protocol §7.1).

    The type is the one that stands beside the bytes as `content_type`, else what they look like. Raises `ValueError`
    for what is nested deeper than any result is read.
    """
    return _replaced(value, None, 0)


def _replaced(value: Any, claimed: str | None, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, bytes | bytearray | memoryview):
        return _file_object(bytes(value), claimed)
    if isinstance(value, list | tuple):
        return [_replaced(part, claimed, depth + 1) for part in value]
    if isinstance(value, dict):
        beside = value.get("content_type")
        claimed = beside if isinstance(beside, str) else None
        return {str(name): _replaced(part, claimed, depth + 1) for name, part in value.items()}
    return value


def _file_object(body: bytes, claimed: str | None) -> dict[str, Any]:
    kind = sniff(body[:HEAD_BYTES])
    content_type = claimed or (kind.content_type if kind else UNKNOWN_TYPE)
    uri = f"data:{content_type};base64,{base64.b64encode(body).decode()}"
    return {"url": uri, "content_type": content_type, "file_size": len(body)}
