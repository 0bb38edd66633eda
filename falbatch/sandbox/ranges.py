"""Which part of a file a call asks for (RFC 9110 §14): one range, or the whole. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from falbatch.sandbox.replies import Call

_RANGE: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


@dataclass(frozen=True, slots=True)
class Span:
    """What to send of a file."""

    status: int
    """200 for the whole, 206 for a part, 416 for a part that lies outside."""
    first: int
    end: int
    """Not included; equal to `first` where nothing is sent."""
    content_range: str = ""
    """Content-Range header; empty for the whole."""


def span_of(call: Call, etag: str, size: int) -> Span:
    """What `call` wants of a file of `size` bytes. Range counts on GET alone, and If-Range must name `etag`."""
    wanted = call.headers.get("Range", "") if call.method == "GET" else ""
    span = parse_range(wanted, size) if call.headers.get("If-Range", etag) == etag else None
    if span is None:
        return Span(200, 0, size)
    first, end = span
    if first >= end:
        return Span(416, 0, 0, f"bytes */{size}")
    return Span(206, first, end, f"bytes {first}-{end - 1}/{size}")


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """A Range header as (first byte, end), the end not included and cut at `size`; empty when it lies outside.

    None for what a server may ignore: none at all, several ranges, other units, nonsense.
    """
    found = _RANGE.fullmatch(text.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return max(0, size - int(found[2])), size
    if not found[2]:
        return int(found[1]), size
    first, last = int(found[1]), int(found[2])
    return None if last < first else (first, min(last + 1, size))
