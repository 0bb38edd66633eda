"""How the platform API reads its parameters (fal-protocol §11): lists, times, numbers, words. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from falbatch.sandbox.endpoints import parse_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_VALUES: Final = 50
"""Of one parameter that takes several."""


class Refused(ValueError):
    """Raised when a call to the platform API cannot be answered; the text becomes the error's message."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def all_values(query: Mapping[str, str], name: str) -> list[str]:
    """Every value of `name`, comma-separated and repeated alike, each once, in the order given."""
    texts = [text for key, text in query.items() if key == name]
    return list(dict.fromkeys(part.strip() for text in texts for part in text.split(",") if part.strip()))


def endpoint_ids(query: Mapping[str, str]) -> list[str]:
    """The 1 to 50 ids in `endpoint_id`, as given. Raises Refused."""
    found = all_values(query, "endpoint_id")
    if not found:
        raise Refused("endpoint_id is required")
    return at_most(found, "endpoint_id")


def at_most(values: list[str], name: str) -> list[str]:
    """`values`, unless there are too many. Raises Refused."""
    if len(values) > MAX_VALUES:
        raise Refused(f"{name}: at most {MAX_VALUES} values, not {len(values)}")
    return values


def known_endpoint(text: str) -> str:
    """The full endpoint id that `text` names. Raises Refused (404) when there is no such endpoint."""
    endpoint = parse_endpoint(text)
    if endpoint is None or not endpoint.exists:
        raise Refused(f"Endpoint not found: {text}", 404)
    return endpoint.full


def word(query: Mapping[str, str], name: str, known: Iterable[str]) -> str | None:
    """The value of `name`, one of `known`, or None when it is not given. Raises Refused."""
    text = query.get(name)
    words = [str(entry) for entry in known]
    if text is not None and text not in words:
        raise Refused(f"{name}: expected one of {', '.join(words)}, not {text!r}")
    return text


def whole(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A whole number from 1 to `most`. Raises Refused."""
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= most):
        raise Refused(f"{name}: expected a whole number from 1 to {most}, not {text!r}")
    return int(text)


def moment(query: Mapping[str, str], name: str, default: datetime) -> datetime:
    """An ISO date or datetime, UTC unless it names its zone. Raises Refused."""
    text = query.get(name)
    if text is None:
        return default
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(f"{name}: expected a date or a datetime of ISO 8601, not {text!r}") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def utc(at: float) -> datetime:
    """Unix seconds, rounded to the microseconds that the API speaks of: it compares what it shows."""
    return datetime.fromtimestamp(at, UTC)


def iso_time(at: float) -> str:
    """Unix seconds as ISO 8601 UTC: `2026-01-31T12:00:00.000000Z`."""
    return utc(at).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
