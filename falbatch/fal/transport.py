"""HTTP as falbatch needs it: one exchange in, one reply or one honest failure out; streams; sockets.

    caller ─▶ gate ─▶ deadline ─▶ carrier ─▶ connections

What carries is chosen here: aiohttp, or what the caller puts in its place with httpx's words. Nothing is retried and no
redirect is followed. The carriers, `connections`, `failures` and `socket` are the only files that know an HTTP library.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Self

from falbatch.errors import TransportError, UsageError
from falbatch.fal.addresses import is_address, is_allowed
from falbatch.fal.aiohttp_carrier import AiohttpCarrier, exact, socket_session
from falbatch.fal.carrier import Call, Told
from falbatch.fal.exchange import CutReply, Reply, StreamReply, TransportSettings, label_of, read_whole
from falbatch.fal.failures import failure
from falbatch.fal.gate import Gate
from falbatch.fal.packing import BadPacking, unpacked
from falbatch.fal.patience import deadline
from falbatch.fal.proxies import DIRECT, Routes, environment_proxies
from falbatch.fal.socket import Socket, open_socket

if TYPE_CHECKING:
    import httpx
    import yarl

    from falbatch.fal.carrier import Carrier, Head

__all__ = ["ClientFactory", "CutReply", "Reply", "Socket", "StreamReply", "Transport", "TransportSettings"]

IDLE_S: Final = 60.0
"""A download that is silent for this long has died."""

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""Of one message of a socket; realtime pictures have some hundred KB."""

VARIABLE: Final = "FALBATCH_TRANSPORT"
"""Environment variable that chooses the carrier: one of `CARRIERS`; empty or unset for the fastest."""

CARRIERS: Final = ("aiohttp", "httpx")

ClientFactory = Callable[["httpx.AsyncBaseTransport"], "httpx.AsyncClient"]
"""Makes the client that stands at the door from the transport that it must use."""

_PLAIN: Final = re.compile(r"(?:(?!/\.)[!#-;=?-_a-z|~])+")
"""A URL that travels as it is: nothing in it that httpx would quote (`"<>{}` and the backtick), no dot segments."""


class Transport:
    """Sends requests; use as an async context manager, one per process and purpose, under asyncio.

    `client_factory` puts an httpx.AsyncClient of the caller's in front (hooks, mounts); `transport` replaces
    aiohttp underneath (proxies of another kind, mocks): `settings` about connections then bind sockets only,
    for which httpx has no words: they pass both by.
    TransportError's `kind` is one of errors.py's words, or `refused_address` (`public_only` forbade it).
    """

    def __init__(
        self,
        *,
        settings: TransportSettings | None = None,
        client_factory: ClientFactory | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings or TransportSettings()
        self._client_factory = client_factory
        self._inner = transport
        self._carrier: Carrier | None = None
        self._gate = Gate(self._settings.gate)
        self._routes: Routes | None = None
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._carrier = await self._resources.enter_async_context(self._choose())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._carrier = None  # a call that comes now would open connections that nobody closes
        await self._resources.aclose()

    def _choose(self) -> Carrier:
        """The carrier for this transport. Raises `UsageError` for a word in the environment that is none."""
        asked = os.environ.get(VARIABLE, "")
        if asked and asked not in CARRIERS:
            raise UsageError(f"{VARIABLE}={asked}: there is no such transport", advice=f"Use {' or '.join(CARRIERS)}.")
        if self._client_factory is None and self._inner is None and asked != "httpx":
            return AiohttpCarrier(self._settings, self._routing())
        from falbatch.fal.httpx_carrier import ExactTransport, HttpxCarrier

        return HttpxCarrier(self._inner or ExactTransport(self._settings, self._routing()), self._client_factory)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
        max_bytes: int,
        once: bool = False,
    ) -> Reply:
        """One exchange, body read whole, at most `max_bytes` of it (decompressed).

        `timeout_s` bounds the wait at the gate (then nothing was sent) and, apart from it, the exchange. `once`
        keeps aiohttp from sending a GET, PUT or DELETE again whose connection broke: for calls that cost.
        Raises TransportError; CutReply when only the head came; ReplyError for a body beyond `max_bytes`.
        """
        label = label_of(method, url)
        carrier = self._open_carrier()
        wanted = _unpacked(headers)
        call = Call(method, self._checked(url, label), wanted, body, self._connect_s(timeout_s), None, once)
        head: Head | None = None
        await self._gate.enter(timeout_s, label)
        try:
            async with deadline(timeout_s):
                head = await carrier.open(call)
                try:
                    return await read_whole(_body(head), head.status, head.headers, max_bytes, label)
                finally:
                    await head.aclose()
        except BadPacking as error:
            failed = _failure(carrier, error, label, head)
        except carrier.errors as error:
            failed = _failure(carrier, error, label, head)
        finally:
            self._gate.leave()
        raise failed

    @asynccontextmanager
    async def stream(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout_s: float | None,
        method: str = "GET",
        body: bytes | None = None,
        idle_s: float = IDLE_S,
    ) -> AsyncIterator[StreamReply]:
        """One exchange whose reply is read as it comes, as it lies on the server (`Accept-Encoding: identity`).

        `timeout_s` bounds the wait at the gate and then the whole exchange; `idle_s` each silence in it. None
        for `timeout_s` leaves the whole without a bound: then the wait at the gate and the one for the head
        end after `idle_s`. The gate is held until the block ends; leaving early closes the connection.
        """
        label = label_of(method, url)
        carrier = self._open_carrier()
        first_s = idle_s if timeout_s is None else timeout_s
        wanted = {"accept": "*/*", **headers, "accept-encoding": "identity"}
        call = Call(method, self._checked(url, label), wanted, body, self._connect_s(first_s), idle_s, False)
        await self._gate.enter(first_s, label)
        try:
            ends_at = math.inf if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
            head = await _opened(carrier, call, label, first_s)
            try:
                yield StreamReply(head.status, head.headers, lambda: _chunks(carrier, head, ends_at, idle_s, label))
            finally:
                await head.aclose()
        finally:
            self._gate.leave()

    @asynccontextmanager
    async def socket(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout_s: float,
        max_bytes: int = MAX_MESSAGE_BYTES,
        redact: Callable[[str], str] = str,
    ) -> AsyncIterator[Socket]:
        """A WebSocket at `url` (http or https: the handshake is a GET), closed when the block ends.

        `timeout_s` bounds the wait at the gate and then the handshake, which alone holds a place there;
        `max_bytes` each message that comes. Raises TransportError, and HttpError for a handshake that was
        answered with a status of its own, redirects included; `redact` takes secrets out of its words.
        """
        label = label_of("GET", url)
        target, routes = exact(self._checked(url, label)), self._routing()
        proxy = routes.proxy_for(target.scheme, target.host or "")
        session = socket_session(self._settings, routes, self._connect_s(timeout_s))
        opening = open_socket(
            session, target, headers, proxy, label, timeout_s=timeout_s, max_bytes=max_bytes, redact=redact
        )
        async with AsyncExitStack() as stack:
            await self._gate.enter(timeout_s, label)
            try:
                socket = await stack.enter_async_context(opening)
            finally:
                self._gate.leave()
            yield socket

    def _routing(self) -> Routes:
        """The environment's proxies, read once; not before they are needed, since a SOCKS proxy is an error."""
        if self._routes is None:
            self._routes = Routes(environment_proxies() if self._settings.trust_env else DIRECT)
        return self._routes

    def _open_carrier(self) -> Carrier:
        if self._carrier is None:
            raise RuntimeError("a Transport is used outside its context")
        return self._carrier

    def _connect_s(self, timeout_s: float) -> float:
        """Under the deadline of the whole, so that a connect that hangs is told apart from a reply that does."""
        return min(self._settings.connect_timeout_s, timeout_s / 2)

    def _checked(self, url: str, label: str) -> str:
        """`url` as it shall travel; TransportError when it is none, or is an address that no resolver would check."""
        parsed = _parsed(url)
        if parsed is None:
            raise TransportError(f"{label}: this is not an http URL", sent=False, kind="protocol")
        host, loopback = parsed.host or "", self._settings.allow_loopback
        if self._settings.public_only and is_address(host) and not is_allowed(host, allow_loopback=loopback):
            raise TransportError(f"{label}: not a public address", sent=False, kind="refused_address")
        return str(parsed)


@lru_cache(maxsize=4096)
def _parsed(url: str) -> yarl.URL | None:
    """A URL of the web, quoted where it must be (that is httpx's to do, and rare); None for anything else."""
    try:
        if not _PLAIN.fullmatch(url):
            from falbatch.fal.httpx_carrier import quoted

            url = quoted(url)
        parsed = exact(url)
        is_web = parsed.scheme in {"http", "https"} and bool(parsed.host) and parsed.port is not None
    except Exception:  # noqa: BLE001  (httpx.InvalidURL, ValueError and what else a hostile URL provokes)
        return None
    return parsed if is_web else None


@lru_cache(maxsize=64)
def _with_defaults(items: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return {"accept": "*/*", "accept-encoding": "gzip, deflate", **dict(items)}


def _unpacked(headers: Mapping[str, str]) -> Mapping[str, str]:
    """A client sends the same headers thousands of times."""
    return _with_defaults(tuple(headers.items()))


async def _opened(carrier: Carrier, call: Call, label: str, timeout_s: float) -> Head:
    try:
        async with deadline(timeout_s):
            return await carrier.open(call)
    except carrier.errors as error:
        failed = failure(carrier.told(error), label)
    raise failed


async def _chunks(carrier: Carrier, head: Head, ends_at: float, idle_s: float, label: str) -> AsyncIterator[bytes]:
    """The raw body, until `ends_at` (the loop's clock), which also ends a silence that the idle limit would allow."""
    now = asyncio.get_running_loop().time
    body = aiter(head.chunks())
    try:
        while (chunk := await _next(body, ends_at - now(), idle_s)) is not None:
            if now() > ends_at:
                raise TimeoutError
            yield chunk
        return
    except carrier.errors as error:
        failed = _failure(carrier, error, label, head)
    raise failed


async def _next(body: AsyncIterator[bytes], left_s: float, idle_s: float) -> bytes | None:
    """The next chunk, None at the end; TimeoutError after `left_s`. A silence ends after `idle_s` by itself, so no
    deadline is armed for what is further away: it costs as much as a chunk."""
    if left_s > idle_s:
        return await anext(body, None)
    async with deadline(left_s):
        return await anext(body, None)


def _body(head: Head) -> AsyncIterable[bytes]:
    encoding = head.headers.get("content-encoding")
    return unpacked(head.chunks(), encoding) if encoding else head.chunks()


def _failure(carrier: Carrier, error: Exception, label: str, head: Head | None) -> TransportError:
    said = Told("protocol", True, error) if isinstance(error, BadPacking) else carrier.told(error)
    if head is None:
        return failure(said, label)
    return failure(said, label, status=head.status, headers=head.headers)
