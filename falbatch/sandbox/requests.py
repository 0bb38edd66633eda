"""What the sandbox knows of one accepted request, and how its payload is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from falbatch.sandbox.endpoints import parse_endpoint
from falbatch.sandbox.states import Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falbatch.sandbox.verdict import Verdict


class Via(StrEnum):
    """How a request came in."""

    QUEUE = "queue"
    RUN = "run"
    """A direct call, answered on its own connection."""
    STREAM = "stream"
    """A direct call, answered as server-sent events."""
    REALTIME = "realtime"
    """One message of a WebSocket."""


@dataclass(slots=True, eq=False)
class Request:
    """One request of fal's. Mutable: `engine` alone changes the fields under "life"; the rest never changes.

    Times are Unix seconds.
    """

    id: str
    ordinal: int
    """0-based place among all requests ever accepted by this sandbox."""
    account: str
    endpoint: str
    """Full id, as submitted to."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """As received at submit, names in lower case, without Authorization."""
    raw: bytes
    """The JSON object exactly as sent, so that integers of any size stay exact."""
    submitted_at: float
    low: bool
    """X-Fal-Queue-Priority: low."""
    deadline: float | None
    """When it must have started; None without a start timeout."""
    verdict: Verdict
    """How it ends when nothing else ends it first; then how it ended."""
    via: Via = Via.QUEUE

    # life
    status: Status = Status.IN_QUEUE
    attempt: int = 0
    """Times a runner took it."""
    started_at: float | None = None
    """Start of the last attempt; None before the first and between two."""
    finishes_at: float | None = None
    """When the running attempt will answer."""
    ended_at: float | None = None
    place: int | None = None
    """Place in the account's line; None when not in it."""
    is_kept: bool = False
    """True once the store holds its row."""

    @property
    def payload(self) -> dict[str, Any]:
        """The input, parsed anew: requests are kept as bytes, a million of them must fit."""
        value: dict[str, Any] = json.loads(self.raw)
        return value

    @property
    def app(self) -> str:
        """`[namespace/]owner/alias`, which status, result and cancel URLs name."""
        endpoint = parse_endpoint(self.endpoint)
        return endpoint.app if endpoint else self.endpoint

    @property
    def is_direct(self) -> bool:
        """True for a call that bypassed the queue: it never waits, is never tried again, has no status or result."""
        return self.via is not Via.QUEUE

    @property
    def keeps_io(self) -> bool:
        """False for a request sent with X-Fal-Store-IO: 0."""
        return self.headers.get("x-fal-store-io", "1") != "0"


def parse_payload(raw: bytes) -> dict[str, Any] | None:
    """The JSON object in `raw`; an empty body counts as {} (fal-protocol §3.1). None for anything else."""
    if not raw.strip():
        return {}
    try:
        value = json.loads(raw, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def start_timeout_s(headers: Mapping[str, str]) -> float | None:
    """Seconds until a request must have started, from its headers (lower case); None without or when unusable.

    The newer name wins; the server wants more than 0.1 s (fal-protocol §3.1).
    """
    text = headers.get("x-fal-request-start-timeout", headers.get("x-fal-request-timeout", ""))
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0.1 < seconds < float("inf") else None


def _refuse(word: str) -> Any:
    """NaN and Infinity are no JSON, though Python's parser takes them."""
    raise ValueError(word)
