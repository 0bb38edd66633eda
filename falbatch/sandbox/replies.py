"""An HTTP reply as a value, and a call as a value: what routes and faults work on. No effects."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from falbatch.sandbox.deposits import Spool
    from falbatch.sandbox.faults import Target

JSON_TYPE: Final = "application/json"
EVENTS_TYPE: Final = "text/event-stream"


class Ending(StrEnum):
    """How a call ends without a reply."""

    RESET = "reset"
    """The connection is reset (TCP RST)."""
    HANG = "hang"
    """Nothing is sent until the client goes away."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = JSON_TYPE
    announced: int | None = None
    """Content-Length to claim when it is not the body's; the connection then ends after the body."""
    resets: bool = False
    """With `announced`: the connection is reset after the body instead of closed."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A reply, of events or anything else, that is written bit by bit.

    `next_chunk` gives the next bytes, None at the end.
    """

    next_chunk: Callable[[], Awaitable[bytes | None]]
    headers: Mapping[str, str]
    status: int = 200
    content_type: str = EVENTS_TYPE
    ragged: bool = False
    """Chunks are written in pieces whose borders fall inside characters."""
    closed: Callable[[], None] | None = None
    """Called when the reply is over, sent in full or not."""


class Wire(Protocol):
    """An open WebSocket, seen from the sandbox's end."""

    async def receive(self) -> bytes | str | None:
        """The next message, None once the client is gone."""

    async def send(self, message: bytes | str) -> None:
        """Send a binary or a text message; to a client that is gone, nothing."""

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it in order."""

    def reset(self) -> None:
        """End it with a TCP RST."""

    def has_left(self) -> bool:
        """Whether the client is gone."""


@dataclass(frozen=True, slots=True)
class Socket:
    """A WebSocket: the handshake succeeds, then `talk` has the connection; it is closed when that returns."""

    talk: Callable[[Wire], Awaitable[None]]
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the handshake's reply."""
    status: int = 101


Outcome = Reply | Stream | Socket | Ending


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, read in full."""

    method: str
    path: str
    """Decoded path with its host prefix: `/queue/fal-ai/flux/dev`."""
    tail: str
    """`path` without the host prefix: `fal-ai/flux/dev`."""
    query: Mapping[str, str]
    """The first value of each name; `items()` gives all of a name that is repeated."""
    headers: Mapping[str, str]
    """Case-insensitive."""
    body: bytes
    origin: str
    """`http://127.0.0.1:8787`, as the client named us: what URLs in replies begin with."""
    spool: Spool | None = None
    """The body of an upload, in a file; `body` is empty then."""
    has_left: Callable[[], bool] = field(default=lambda: False)
    """Whether the client is gone by now."""

    @property
    def is_handshake(self) -> bool:
        """Whether it wants to become a WebSocket."""
        return self.headers.get("Upgrade", "").lower() == "websocket"


@dataclass(frozen=True, slots=True)
class Operation:
    """A call understood: what faults may match it by, and what carries it out."""

    target: Target
    run: Callable[[], Awaitable[Reply | Stream | Socket]]
    request_id: str = ""
    """Of the request called about; empty when there is none yet."""
    account: str = ""


def dumps(value: object) -> bytes:
    """Compact JSON. The standard library's, because seeds may have any number of digits."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "backslashreplace")


def json_reply(status: int, value: object, headers: Mapping[str, str] | None = None) -> Reply:
    """A JSON reply."""
    return Reply(status, dumps(value), headers or {})


def detail_reply(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Reply:
    """`{"detail": text}`, the oldest of fal's error shapes."""
    return json_reply(status, {"detail": detail}, headers)


def error_reply(status: int, error_type: str, detail: str, headers: Mapping[str, str] | None = None) -> Reply:
    """The request family's error, with its header (fal-protocol §8.1)."""
    body: dict[str, Any] = {"detail": detail, "error_type": error_type}
    return json_reply(status, body, {"X-Fal-Error-Type": error_type, **(headers or {})})


def platform_error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    """The platform API's error shape (fal-protocol §8.1 and §11)."""
    other = "server_error" if status >= 500 else "validation_error"
    error = {"type": _PLATFORM_TYPES.get(status, other), "message": message}
    return json_reply(status, {"error": error}, headers)


_PLATFORM_TYPES: Final[Mapping[int, str]] = {
    401: "authorization_error",
    403: "authorization_error",
    404: "not_found",
    429: "rate_limited",
}

NOT_FOUND: Final = detail_reply(404, "Not Found")
METHOD_NOT_ALLOWED: Final = detail_reply(405, "Method Not Allowed")
