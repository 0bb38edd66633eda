"""What crosses the transport's border: settings, replies, a reply cut short, and words for its failures."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Final, Protocol

from falbatch.errors import ReplyError, TransportError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """Decided once for the life of a transport."""

    gate: int = 128
    """Requests under way at once. Jobs in flight are not requests in flight: at 0.2 s a request these are 640 a second,
    and they cost no more than 32 do (measured)."""
    connections: int = 128
    """Connections kept at most; never fewer than `gate`, so that nobody waits inside the library."""
    connect_timeout_s: float = 10.0
    """For DNS, TCP and TLS together."""
    keepalive_s: float = 15.0
    """Idle connections live this long: well under any front end's own limit (60 s and more), since a POST
    into a connection that the server is just closing has an unknown fate."""
    public_only: bool = False
    """For downloads: connect to public addresses only, checked after DNS. Behind a proxy, which does its own
    DNS, only literal addresses can be checked."""
    allow_loopback: bool = False
    """With `public_only`: this machine's own addresses too (the sandbox)."""
    trust_env: bool = True
    """Use proxies and SSL_CERT_FILE / SSL_CERT_DIR of the environment."""
    ssl_context: ssl.SSLContext | None = None
    """In place of the process's own context, for a private CA."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP reply, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; of a repeated header, the last."""
    body: bytes
    """Decompressed."""


@dataclass(frozen=True, slots=True)
class StreamReply:
    """The head of a reply whose body is still to be read."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; of a repeated header, the last."""
    _chunks: Callable[[], AsyncIterator[bytes]]

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, undecoded, once. TransportError (timeout, reset) when it breaks off."""
        return self._chunks()


class Exchange(Protocol):
    """What the clients need of a transport; `falbatch.fal.transport.Transport` is one."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
        max_bytes: int,
    ) -> Reply: ...


class StreamExchange(Exchange, Protocol):
    """An `Exchange` that can hand over a reply as it comes."""

    def stream(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout_s: float | None,
        method: str = ...,
        body: bytes | None = ...,
        idle_s: float = ...,
    ) -> AbstractAsyncContextManager[StreamReply]: ...


class CutReply(TransportError):
    """Raised when the head of a reply came and its body did not: the head may have told the request id."""

    def __init__(self, message: str, *, kind: str, status: int, request_id: str) -> None:
        super().__init__(message, sent=True, kind=kind)
        self.status = status
        self.request_id = request_id


class SocketClosed(TransportError):
    """Raised when the other side has ended a WebSocket."""

    def __init__(self, label: str, *, code: int | None, reason: str = "") -> None:
        words = "the connection broke" if code is None else f"the other side closed the connection ({code})"
        super().__init__(f"{label}: {words}" + (f": {reason}" if reason else ""), sent=True, kind="reset")
        self.code = code
        """Of its goodbye (RFC 6455, 7.4.1); None when the connection broke without one."""
        self.reason = reason
        """Its words, made fit for people; may be empty."""

    @property
    def is_clean(self) -> bool:
        """True when the other side was done, or went away in peace."""
        return self.code in {1000, 1001}


class OversizeReply(ReplyError):
    """Raised when a body is larger than the caller reads: the status, not the size, tells what it meant."""

    def __init__(self, message: str, *, head: Reply) -> None:
        super().__init__(message, request_id=head.headers.get("x-fal-request-id", ""))
        self.head = head
        """The reply, its body left out."""


WORDS: Final[Mapping[str, str]] = {
    "connect": "could not connect",
    "dns": "the host name was not found",
    "tls": "the TLS handshake failed",
    "pool": "waited too long for a connection",
    "timeout": "no answer in time",
    "reset": "the connection broke before the reply was complete",
    "protocol": "what came back is not HTTP",
}
"""TransportError's kinds, for people. `refused_address` has words of its own."""


def words_for(kind: str, cause: BaseException | None = None) -> str:
    """Words for `kind`, with the system's own where `cause` has any; never all of `str(cause)`: it holds the URL."""
    detail = cause.strerror if isinstance(cause, OSError) else None
    return f"{WORDS[kind]} ({detail})" if detail else WORDS[kind]


def label_of(method: str, url: str) -> str:
    """A call, for messages, without the query: it may hold a signature or a webhook's secret."""
    return f"{method} {url.partition('?')[0]}"


def payload_of(body: bytes) -> bytes | BytesIO | None:
    """`body` as the HTTP library takes it best: above 1 MiB, where it warns of bytes, as a file sent in chunks."""
    return (body if len(body) <= 2**20 else BytesIO(body)) or None


def header_map(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers as they came, as `Reply.headers`."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}


async def read_whole(
    chunks: AsyncIterable[bytes], status: int, headers: Mapping[str, str], max_bytes: int, label: str
) -> Reply:
    """The reply whose decoded body comes in `chunks`; OversizeReply about the call `label` beyond `max_bytes`."""
    parts: list[bytes] = []
    size = 0
    async for part in chunks:
        size += len(part)
        if size > max_bytes:
            message = f"{label}: the reply is larger than {max_bytes:,} bytes"
            raise OversizeReply(message, head=Reply(status, headers, b""))
        parts.append(part)
    return Reply(status, headers, parts[0] if len(parts) == 1 else b"".join(parts))
