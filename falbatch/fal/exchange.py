"""What crosses the transport's border: settings, replies, a reply cut short, and words for its failures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from falbatch.errors import TransportError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Mapping


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """Decided once for the life of a transport."""

    gate: int = 32
    """Requests under way at once. Jobs in flight are not requests in flight: a few dozen serve hundreds."""
    connections: int = 64
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


class CutReply(TransportError):
    """Raised when the head of a reply came and its body did not: the head may have told the request id."""

    def __init__(self, message: str, *, kind: str, status: int, request_id: str) -> None:
        super().__init__(message, sent=True, kind=kind)
        self.status = status
        self.request_id = request_id


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


def label_of(method: str, url: str) -> str:
    """A call, for messages, without the query: it may hold a signature or a webhook's secret."""
    return f"{method} {url.partition('?')[0]}"
