"""HTTP as falbatch needs it: one exchange in, one reply or one honest failure out; streams; sockets.

    caller ─▶ gate ─▶ [httpx.AsyncClient, if the caller gave one] ─▶ aiohttp's connections

httpx's API is the door (event hooks, custom transports, mounts); without anybody at the door AsyncClient is
passed by, which halves the cost of a request. Nothing is retried and no redirect is followed here. Together with
`connections`, `failures` and `socket` the only files that know an HTTP library, so that another can take its place.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
import httpx
import yarl
from httpx_aiohttp import AiohttpTransport
from httpx_aiohttp.transport import AiohttpResponseStream, map_aiohttp_exceptions

from falbatch.errors import TransportError
from falbatch.fal.addresses import is_address, is_allowed
from falbatch.fal.connections import Connector
from falbatch.fal.exchange import (
    CutReply,
    Reply,
    StreamReply,
    TransportSettings,
    header_map,
    label_of,
    payload_of,
    read_whole,
)
from falbatch.fal.failures import LIBRARY_ERRORS, failure, never_again
from falbatch.fal.gate import Gate
from falbatch.fal.patience import deadline
from falbatch.fal.proxies import DIRECT, Routes, environment_proxies
from falbatch.fal.slumber import Sessions
from falbatch.fal.socket import Socket, open_socket

if TYPE_CHECKING:
    import ssl

__all__ = ["ClientFactory", "CutReply", "Reply", "Socket", "StreamReply", "Transport", "TransportSettings"]

MAX_HEADER_BYTES: Final = 32 * 1024
"""Of one header line. All of fal's stay under 16 KB (fal-protocol §8.5), aiohttp's default is 8 KB."""

IDLE_S: Final = 60.0
"""A download that is silent for this long has died."""

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""Of one message of a socket; realtime pictures have some hundred KB."""

ClientFactory = Callable[[httpx.AsyncBaseTransport], httpx.AsyncClient]
"""Makes the client that stands at the door from the transport that it must use."""


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
        self._inner: httpx.AsyncBaseTransport | None = transport
        self._client: httpx.AsyncClient | None = None
        self._gate = Gate(self._settings.gate)
        self._routes: Routes | None = None
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        inner = self._inner or _ExactTransport(self._settings, self._routing())
        if self._client_factory is None:
            self._inner = await self._resources.enter_async_context(inner)
            return self
        logger = logging.getLogger("httpx")
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)  # its INFO line per request costs 18 µs and shows whole URLs
        self._inner = inner
        self._client = await self._resources.enter_async_context(self._client_factory(inner))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._inner = self._client = None  # a call that comes now would open connections that nobody closes
        await self._resources.aclose()

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
        request = self._request(method, self._checked(url, label), headers, body, timeout_s, None, once=once)
        head: httpx.Response | None = None
        await self._gate.enter(timeout_s, label)
        try:
            async with deadline(timeout_s):
                head = await self._send(request)
                headers = header_map(head.headers.raw)
                chunks = head.aiter_bytes() if "content-encoding" in headers else _raw(head)
                try:
                    return await read_whole(chunks, head.status_code, headers, max_bytes, label)
                finally:
                    await head.aclose()
        except LIBRARY_ERRORS as error:
            failed = _failure(error, label, head)
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
        first_s = idle_s if timeout_s is None else timeout_s
        wanted = {**headers, "accept-encoding": "identity"}
        request = self._request(method, self._checked(url, label), wanted, body, first_s, idle_s)
        await self._gate.enter(first_s, label)
        try:
            ends_at = math.inf if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
            head = await self._open(request, label, first_s)
            try:
                yield StreamReply(head.status_code, header_map(head.headers.raw), lambda: _chunks(head, ends_at, label))
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
        self._checked(url, label)
        target, routes = _exact(url), self._routing()
        proxy = routes.proxy_for(target.scheme, target.host or "")

        def session(watch: aiohttp.ClientMiddlewareType) -> aiohttp.ClientSession:
            connect_s = min(self._settings.connect_timeout_s, timeout_s / 2)
            limits = aiohttp.ClientTimeout(connect=connect_s)
            return _session(self._settings, routes, middlewares=(watch,), timeout=limits)

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

    async def _open(self, request: httpx.Request, label: str, timeout_s: float) -> httpx.Response:
        try:
            async with deadline(timeout_s):
                return await self._send(request)
        except LIBRARY_ERRORS as error:
            failed = failure(error, label)
        raise failed

    async def _send(self, request: httpx.Request) -> httpx.Response:
        if self._client is not None:
            return await self._client.send(request, stream=True, follow_redirects=False)
        if self._inner is None:
            raise RuntimeError("a Transport is used outside its context")
        return await self._inner.handle_async_request(request)

    def _request(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
        idle_s: float | None,
        *,
        once: bool = False,
    ) -> httpx.Request:
        # Under the deadline of the whole, so that a connect that hangs is told apart from a reply that does.
        connect_s = min(self._settings.connect_timeout_s, timeout_s / 2)
        limits = {"connect": connect_s, "read": idle_s, "write": None, "pool": connect_s}
        wanted = _ready_headers(tuple(headers.items()))
        return httpx.Request(method, url, headers=wanted, content=body, extensions={"timeout": limits, "once": once})

    def _checked(self, url: str, label: str) -> httpx.URL:
        """`url` parsed; TransportError when it is none, or is an address that no resolver would check."""
        try:
            parsed = _parsed(url)
        except httpx.InvalidURL:
            parsed = None
        if parsed is None or parsed.scheme not in {"http", "https"} or not parsed.host:
            raise TransportError(f"{label}: this is not an http URL", sent=False, kind="protocol")
        host, loopback = parsed.host, self._settings.allow_loopback
        if self._settings.public_only and is_address(host) and not is_allowed(host, allow_loopback=loopback):
            raise TransportError(f"{label}: not a public address", sent=False, kind="refused_address")
        return parsed


class _ExactTransport(AiohttpTransport):
    """httpx-aiohttp with our session, and URLs that travel as given: yarl would decode a signed URL's `%2C`."""

    def __init__(self, settings: TransportSettings, routes: Routes) -> None:
        self._routes = routes
        self._sessions = Sessions(lambda: _session(settings, routes))
        super().__init__(verify=_context(settings), trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        session = self._sessions.take()
        try:
            await self._sessions.sweep()
            response = await self._exchange(session, request)
        except BaseException:
            await self._sessions.give_back(session)
            raise
        stream = _Body(response, lambda: self._sessions.give_back(session))
        return httpx.Response(response.status, headers=response.raw_headers, stream=stream, request=request)

    async def aclose(self) -> None:
        await self._sessions.aclose()

    async def _exchange(self, session: aiohttp.ClientSession, request: httpx.Request) -> aiohttp.ClientResponse:
        limits = request.extensions.get("timeout", {})  # a hook's own requests may lack it
        proxy = self._routes.proxy_for(request.url.scheme, request.url.host)
        with map_aiohttp_exceptions():
            return await session.request(
                request.method,
                _exact(str(request.url)),
                headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw],
                data=payload_of(await request.aread()),
                allow_redirects=False,
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(connect=limits.get("connect"), sock_read=limits.get("read")),
                proxy=proxy.url if proxy else None,
                proxy_headers=proxy.headers if proxy else None,
                middlewares=(never_again,) if request.extensions.get("once") else None,
            )


class _Body(AiohttpResponseStream):
    """A reply's body, which tells when it is over."""

    def __init__(self, response: aiohttp.ClientResponse, over: Callable[[], Awaitable[None]]) -> None:
        super().__init__(response)
        self._over = over

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            await self._over()  # once: httpx closes a stream but once


def _session(settings: TransportSettings, routes: Routes, **more: Any) -> aiohttp.ClientSession:
    """A session that adds nothing of its own to a request."""
    return aiohttp.ClientSession(
        connector=Connector(settings, _context(settings), routes.proxy_hosts),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        **more,
    )


def _context(settings: TransportSettings) -> ssl.SSLContext:
    return settings.ssl_context or _process_ssl_context(settings.trust_env)


@lru_cache
def _process_ssl_context(trust_env: bool) -> ssl.SSLContext:
    """One context for all transports: making one costs 15 ms."""
    return httpx.create_ssl_context(trust_env=trust_env)


@lru_cache(maxsize=4096)
def _parsed(url: str) -> httpx.URL:
    """Parsing costs 11 µs; a request's status URL is asked for several times, a submit URL thousands."""
    return httpx.URL(url)


@lru_cache(maxsize=4096)
def _exact(url: str) -> yarl.URL:
    return yarl.URL(url, encoded=True)


@lru_cache(maxsize=64)
def _ready_headers(items: tuple[tuple[str, str], ...]) -> httpx.Headers:
    """A client sends the same headers thousands of times; httpx encodes them at 3 µs each."""
    return httpx.Headers({"accept": "*/*", "accept-encoding": "gzip, deflate", **dict(items)})


def _raw(response: httpx.Response) -> AsyncIterable[bytes]:
    """The body undecoded, without httpx's own checks and counting."""
    if isinstance(response.stream, httpx.AsyncByteStream):
        return response.stream
    raise TypeError("the transport answered with a synchronous stream")


async def _chunks(response: httpx.Response, ends_at: float, label: str) -> AsyncIterator[bytes]:
    """The raw body, until `ends_at` (the loop's clock), which also ends a silence that the idle limit would allow."""
    now = asyncio.get_running_loop().time
    body = aiter(_raw(response))
    try:
        while (chunk := await _next(body, ends_at - now())) is not None:
            if now() > ends_at:
                raise TimeoutError
            yield chunk
        return
    except LIBRARY_ERRORS as error:
        failed = _failure(error, label, response)
    raise failed


async def _next(body: AsyncIterator[bytes], left_s: float) -> bytes | None:
    """The next chunk, None at the end; TimeoutError after `left_s`."""
    if left_s == math.inf:
        return await anext(body, None)
    async with deadline(left_s):
        return await anext(body, None)


def _failure(error: Exception, label: str, head: httpx.Response | None) -> TransportError:
    if head is None:
        return failure(error, label)
    return failure(error, label, status=head.status_code, headers=head.headers)
