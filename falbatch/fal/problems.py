"""What a reply that is no success says: the families of fal-protocol §8.1 become one HttpError.

Messages are for people: made of what fal says, without echoed inputs (private, and perhaps megabytes), without
control characters (they reach terminals), cut to a length. Machines read the error's fields.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from falbatch.errors import HttpError
from falbatch.exactjson import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_MESSAGE: Final = 500
"""Characters of fal's own words in a message."""

MAX_PARSED: Final = 4 * 1024 * 1024
"""Bytes; an error body beyond is not looked into (an echoed data URI can make one huge)."""

MAX_ENTRIES: Final = 5
"""Entries of a `detail` list that are told."""

UNITS_MOST: Final = 1e9
"""Billable units of one call; more is garbage, and would end in amounts that no state file can hold."""

_WORD: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_TITLE: Final = re.compile(rb"<title>(.*?)</title>", re.IGNORECASE | re.DOTALL)


def parse_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    call: str,
    redact: Callable[[str], str] = str,
) -> HttpError:
    """The error that a reply with `status` means; `headers` in lower case, `call` as in `POST https://…`.

    `redact` takes secrets out of what the server may have echoed. Never raises.
    """
    document = _document(body)
    detail = document.get("detail") if document else None
    request_id = headers.get("x-fal-request-id", "")
    header_type = _type_word(headers.get("x-fal-error-type"))
    # Redacted before it is cut: half a key must not slip through.
    said = one_line(redact(_said(document, body)), MAX_MESSAGE)
    return HttpError(
        f"{call}: HTTP {status}" + (f": {said}" if said else ""),
        status=status,
        error_type=_body_type(document) or header_type,
        from_fal=bool(request_id or header_type or detail is not None),
        retryable=_retryable(headers),
        retry_after_s=_retry_after_s(headers, document),
        timeout_type=one_line(headers.get("x-fal-request-timeout-type", ""), 100),
        request_id=one_line(request_id, 100),
        billable_units=billable_units(headers),
    )


def billable_units(headers: Mapping[str, str]) -> float | None:
    """X-Fal-Billable-Units: what the call cost, in the endpoint's unit (fal-protocol §8.5); None when unsaid."""
    units = _amount(headers.get("x-fal-billable-units"))
    return None if units is None or units > UNITS_MOST else units


def _document(body: bytes) -> dict[str, Any] | None:
    if not body or len(body) > MAX_PARSED:
        return None
    try:
        value = parse_json(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _said(document: dict[str, Any] | None, body: bytes) -> str:
    """The server's words, whole and raw."""
    if document is None:
        title = _TITLE.search(body[:MAX_PARSED])
        text = title[1] if title else (b"" if b"<html" in body[:1000].lower() else body[: 4 * MAX_MESSAGE])
        return text.decode("utf-8", "replace")
    detail = document.get("detail")
    if isinstance(detail, list):
        entries = [_entry(entry) for entry in detail[:MAX_ENTRIES]]
        more = len(detail) - len(entries)
        return "; ".join(entries) + (f"; and {more} more" if more else "")
    if isinstance(detail, dict):
        return _entry(detail)
    error = document.get("error")  # the platform API's shape, or a status object's words
    if isinstance(error, dict):
        error = error.get("message")
    for words in (detail, error, document.get("message"), document.get("status")):
        if isinstance(words, str) and words:
            return words
    return ""


def _entry(entry: Any) -> str:
    """`body.num_images: Input should be … (less_than_equal)`, from `loc`, `msg` and `type` alone."""
    if not isinstance(entry, dict):
        return entry if isinstance(entry, str) else ""
    loc = entry.get("loc")
    place = ".".join(str(part) for part in loc if isinstance(part, str | int)) if isinstance(loc, list) else ""
    words = entry.get("msg") or entry.get("message")
    text = words if isinstance(words, str) else ""
    kind = _type_word(entry.get("type"))
    return (f"{place}: " if place else "") + text + (f" ({kind})" if kind else "")


def _body_type(document: dict[str, Any] | None) -> str:
    """The type word of a body: `error_type`, the first `detail` entry's `type`, or the platform's."""
    if document is None:
        return ""
    detail = document.get("detail")
    first = detail[0] if isinstance(detail, list) and detail else detail
    error = document.get("error")
    return (
        _type_word(document.get("error_type"))
        or _type_word(first.get("type") if isinstance(first, dict) else None)
        or _type_word(error.get("type") if isinstance(error, dict) else None)
    )


def _type_word(value: Any) -> str:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""


def _retryable(headers: Mapping[str, str]) -> bool | None:
    """The newest name wins, should both be there (fal-protocol §8.1)."""
    for name in ("x-fal-needs-retry", "x-fal-retryable"):
        match headers.get(name, "").strip().lower():
            case "1" | "true" | "yes":
                return True
            case "0" | "false" | "no":
                return False
            case _:
                continue
    return None


def _retry_after_s(headers: Mapping[str, str], document: dict[str, Any] | None) -> float | None:
    """Seconds asked for by Retry-After (a number or a date), else by the body; neither is documented (§9.2)."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return _amount(document.get("retry_after")) if document else None
    seconds = _amount(text)
    return _until(text, headers.get("date", "")) if seconds is None else seconds


def _until(text: str, date: str) -> float | None:
    """Seconds from the reply's own `date` (our clock may be wrong; used when there is none) to `text`."""
    try:
        then = parsedate_to_datetime(text)
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        return max(0.0, (then - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _amount(value: Any) -> float | None:
    """A finite number ≥ 0, or None."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        amount = float(value)
    except (ValueError, OverflowError):
        return None
    return amount if math.isfinite(amount) and amount >= 0 else None


def one_line(text: str, limit: int) -> str:
    """One printable line of at most `limit` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 8 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
