"""What the JSON of fal's queue means: bodies become frozen values, here and nowhere else (fal-protocol §3).

Lenient where sources differ, strict where leniency could lose or mix up a paid request: ids and phases.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from falbatch.errors import ReplyError
from falbatch.exactjson import parse_json
from falbatch.fal.problems import billable_units, parse_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "Accepted",
    "CancelAnswer",
    "Phase",
    "Progress",
    "Result",
    "header_request_id",
    "is_request_id",
    "media_type",
    "parse_accepted",
    "parse_cancel",
    "parse_error",
    "parse_progress",
    "parse_result",
    "read_output",
]

_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)


POSITION_MOST: Final = 1_000_000_000
"""Requests ahead; more is garbage, and must not reach what has 64 bits for it."""


class Phase(StrEnum):
    """Where a request is. Failure and cancellation have no word: both are COMPLETED (fal-protocol §3.2)."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    """Running; a request may go back from here to IN_QUEUE."""
    COMPLETED = "COMPLETED"
    """Over, well or badly: the result tells."""
    UNKNOWN_WORD = "UNKNOWN_WORD"
    """fal said something that this version does not know; asking again is safe."""


class CancelAnswer(StrEnum):
    """What fal says to a cancel (fal-protocol §3.5)."""

    ACCEPTED = "ACCEPTED"
    """A wish only: the request may still run and finish."""
    ALREADY_COMPLETED = "ALREADY_COMPLETED"
    NOT_FOUND = "NOT_FOUND"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request that fal has taken: from here on it costs."""

    request_id: str
    """A UUID, in lower case."""
    status_url: str
    response_url: str
    cancel_url: str
    queue_position: int | None
    """Requests ahead, of all callers; 0 is next. None when unsaid."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One answer to "how far is it?"."""

    phase: Phase
    queue_position: int | None = None
    """Requests ahead, of all callers; only IN_QUEUE has it."""
    error: str = ""
    """fal's words about a failed request; "" is no proof of success (fal-protocol §13 no. 3)."""
    error_type: str = ""
    inference_time_s: float | None = None
    """Seconds that the model worked; None until done, and from old apps."""
    logs: tuple[Mapping[str, Any], ...] | None = field(default=None, repr=False)
    """What the app wrote, as fal gave it: `message`, and perhaps `level`, `source`, `timestamp`, `labels`. A
    status call gives all lines so far, the status stream the new ones. None when fal gave none."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """fal's measurements, as it gave them; empty until done."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the model answered, with a success status."""

    status: int
    """The app's own status, 2xx."""
    body: bytes = field(repr=False)
    """As fal gave it, decompressed."""
    output: Any = field(repr=False)
    """The body's JSON value with exact integers; None for bodies that are not JSON (audio, text)."""
    content_type: str
    """In lower case, without parameters; "" when unsaid."""
    billable_units: float | None
    """In the endpoint's unit; None when unsaid."""
    served_from: str
    """The runner (X-Fal-Served-From); "" when unsaid."""


def is_request_id(text: object) -> bool:
    """True for a UUID: only these may stand in URLs and file names (fal-protocol §13 no. 29)."""
    return isinstance(text, str) and _UUID.fullmatch(text) is not None


def header_request_id(headers: Mapping[str, str]) -> str:
    """The x-fal-request-id header when it is a UUID, else ""."""
    value = headers.get("x-fal-request-id", "")
    return value.lower() if is_request_id(value) else ""


def parse_accepted(
    headers: Mapping[str, str], body: bytes, *, call: str, url_for: Callable[[str, str, str], str]
) -> Accepted:
    """The 2xx reply to a submit.

    `url_for(request_id, what, url)` answers `url` when it may be used for `what` (`status`, `response`,
    `cancel`), or the rebuilt one ("" stands for a missing URL). Raises ReplyError without a valid id.
    """
    document = _object(headers, body, call)
    request_id = document.get("request_id")
    if not isinstance(request_id, str) or not is_request_id(request_id):
        raise ReplyError(f"{call}: the reply names no valid request id", request_id=header_request_id(headers))
    status_url, response_url, cancel_url = (
        url_for(request_id.lower(), what, _text(document, f"{what}_url")) for what in ("status", "response", "cancel")
    )
    return Accepted(request_id.lower(), status_url, response_url, cancel_url, _position(document))


def parse_progress(headers: Mapping[str, str], body: bytes, *, call: str) -> Progress:
    """The 2xx reply to a status call. ReplyError without a status word; the HTTP code decides nothing (§15)."""
    document = _object(headers, body, call)
    word = document.get("status")
    if not isinstance(word, str) or not word:
        raise ReplyError(f"{call}: the reply has no status", request_id=header_request_id(headers))
    known = word in {Phase.IN_QUEUE, Phase.IN_PROGRESS, Phase.COMPLETED}
    given, logs = document.get("metrics"), document.get("logs")
    metrics = given if isinstance(given, dict) else {}
    return Progress(
        phase=Phase(word) if known else Phase.UNKNOWN_WORD,
        queue_position=_position(document),
        error=_text(document, "error"),
        error_type=_text(document, "error_type"),
        inference_time_s=_seconds(metrics.get("inference_time")),
        logs=tuple(line for line in logs if _is_log_line(line)) if isinstance(logs, list) else None,
        metrics=metrics,
    )


def parse_result(status: int, headers: Mapping[str, str], body: bytes, *, call: str) -> Result:
    """A 2xx reply to a result call. ReplyError for a body that claims to be JSON and is not."""
    content_type, output = read_output(headers, body, call=call)
    return Result(
        status=status,
        body=body,
        output=output,
        content_type=content_type,
        billable_units=billable_units(headers),
        served_from=headers.get("x-fal-served-from", ""),
    )


def read_output(headers: Mapping[str, str], body: bytes, *, call: str) -> tuple[str, Any]:
    """Content type (`media_type`) and JSON value of what a model answered; None for a body that is not JSON.

    Raises ReplyError for a body that claims to be JSON and is not.
    """
    content_type = media_type(headers)
    is_json = content_type == "application/json" or content_type.endswith("+json")
    if not is_json and content_type:
        return content_type, None
    try:
        return content_type, parse_json(body)
    except ValueError:
        if is_json:
            raise _not_json(headers, call) from None
        return content_type, None


def media_type(headers: Mapping[str, str]) -> str:
    """The content type in lower case, without parameters; "" when unsaid."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def parse_cancel(status: int, body: bytes) -> CancelAnswer | None:
    """What a reply to a cancel means, or None when it is neither an acceptance nor fal's "too late".

    Every 2xx accepts, whatever its body (§15). 400 and 404 count with fal's JSON, or with no body at all: a
    gateway's page says nothing about the request.
    """
    if 200 <= status < 300:
        return CancelAnswer.ACCEPTED
    if status not in {400, 404}:
        return None
    try:
        document = parse_json(body) if body else {}
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    return CancelAnswer.ALREADY_COMPLETED if status == 400 else CancelAnswer.NOT_FOUND


def _object(headers: Mapping[str, str], body: bytes, call: str) -> dict[str, Any]:
    try:
        value = parse_json(body)
    except ValueError:
        # Without the cause: a JSONDecodeError holds the whole document.
        raise _not_json(headers, call) from None
    if not isinstance(value, dict):
        raise _not_json(headers, call)
    return value


def _not_json(headers: Mapping[str, str], call: str) -> ReplyError:
    return ReplyError(f"{call}: the reply is not the JSON it should be", request_id=header_request_id(headers))


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def _is_log_line(line: Any) -> bool:
    return isinstance(line, dict) and isinstance(line.get("message"), str)


def _position(document: dict[str, Any]) -> int | None:
    value = document.get("queue_position")
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= POSITION_MOST else None


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None
