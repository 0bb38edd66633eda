"""HTTP as falbatch needs it: one exchange in, one reply or one honest failure out. The only file that knows
an HTTP library, so that another can take its place.

    caller ─▶ gate ─▶ [httpx.AsyncClient, if the caller gave one] ─▶ aiohttp's connections

httpx's API is the door (event hooks, custom transports, mounts); without anybody at the door AsyncClient is
passed by, which halves the cost of a request. Nothing is retried and no redirect is followed here.
Library exceptions hold the request with its headers, so ours are raised without them as cause or context.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
import httpx
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from httpx_aiohttp import AiohttpTransport
from httpx_aiohttp.transport import AiohttpResponseStream, map_aiohttp_exceptions

from falbatch.errors import TransportError
from falbatch.fal.addresses import RefusedAddress, is_address, is_allowed
from falbatch.fal.exchange import (
    CutReply,
    Reply,
    StreamReply,
    TransportSettings,
    header_map,
    label_of,
    payload_of,
    read_whole,
    words_for,
)
from falbatch.fal.gate import Gate
from falbatch.fal.patience import deadline
from falbatch.fal.proxies import DIRECT, Routes, environment_proxies
from falbatch.fal.slumber import Sessions

if TYPE_CHECKING:
    import ssl

__all__ = ["ClientFactory", "CutReply", "Reply", "StreamReply", "Transport", "TransportSettings"]

MAX_HEADER_BYTES: Final = 32 * 1024
"""Of one header line. All of fal's stay under 16 KB (fal-protocol §8.5), aiohttp's default is 8 KB."""

DNS_TTL_S: Final = 60
"""aiohttp asks again after 10 s; fal's addresses change rarely, and a lookup needs a thread."""

IDLE_S: Final = 60.0
"""A download that is silent for this long has died."""

ClientFactory = Callable[[httpx.AsyncBaseTransport], httpx.AsyncClient]
"""Makes the client that stands at the door from the transport that it must use."""


class Transport:
    """Sends requests; use as an async context manager, one per process and purpose, under asyncio.

    `client_factory` puts an httpx.AsyncClient of the caller's in front (hooks, mounts); `transport` replaces
    aiohttp underneath (proxies of another kind, mocks): `settings` about connections then bind nobody.
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
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        inner = self._inner or _ExactTransport(self._settings)
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
    ) -> Reply:
        """One exchange, body read whole, at most `max_bytes` of it (decompressed).

        `timeout_s` bounds the wait at the gate (then nothing was sent) and, apart from it, the exchange.
        Raises TransportError; CutReply when only the head came; ReplyError for a body beyond `max_bytes`.
        """
        label = label_of(method, url)
        request = self._request(method, self._checked(url, label), headers, body, timeout_s, None)
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
        except _LIBRARY_ERRORS as error:
            failure = _failure(error, label, head)
        finally:
            self._gate.leave()
        raise failure

    @asynccontextmanager
    async def stream(
        self, url: str, *, headers: Mapping[str, str], timeout_s: float, idle_s: float = IDLE_S
    ) -> AsyncIterator[StreamReply]:
        """GET `url` for its bytes as they lie on the server (`Accept-Encoding: identity`).

        `timeout_s` bounds the wait at the gate and then the whole exchange; `idle_s` each silence in it.
        The gate is held until the block ends; leaving early closes the connection.
        """
        label = label_of("GET", url)
        wanted = {**headers, "accept-encoding": "identity"}
        request = self._request("GET", self._checked(url, label), wanted, None, timeout_s, idle_s)
        await self._gate.enter(timeout_s, label)
        try:
            ends_at = asyncio.get_running_loop().time() + timeout_s
            head = await self._open(request, label, timeout_s)
            try:
                yield StreamReply(head.status_code, header_map(head.headers.raw), lambda: _chunks(head, ends_at, label))
            finally:
                await head.aclose()
        finally:
            self._gate.leave()

    async def _open(self, request: httpx.Request, label: str, timeout_s: float) -> httpx.Response:
        try:
            async with deadline(timeout_s):
                return await self._send(request)
        except _LIBRARY_ERRORS as error:
            failure = _failure(error, label, None)
        raise failure

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
    ) -> httpx.Request:
        # Under the deadline of the whole, so that a connect that hangs is told apart from a reply that does.
        connect_s = min(self._settings.connect_timeout_s, timeout_s / 2)
        limits = {"connect": connect_s, "read": idle_s, "write": None, "pool": connect_s}
        wanted = _ready_headers(tuple(headers.items()))
        return httpx.Request(method, url, headers=wanted, content=body, extensions={"timeout": limits})

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

    def __init__(self, settings: TransportSettings) -> None:
        context = settings.ssl_context or _process_ssl_context(settings.trust_env)
        self._settings = settings
        self._routes = Routes(environment_proxies() if settings.trust_env else DIRECT)
        self._sessions = Sessions(self._new_session)
        super().__init__(verify=context, trust_env=False)

    def _new_session(self) -> aiohttp.ClientSession:
        settings = self._settings
        resolver = _PublicResolver(settings.allow_loopback, self._routes.proxy_hosts) if settings.public_only else None
        connector = _Connector(
            limit=max(settings.connections, settings.gate),
            ttl_dns_cache=DNS_TTL_S,
            keepalive_timeout=settings.keepalive_s,
            ssl=self.ssl_context,
            resolver=resolver,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )

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


class _Connector(aiohttp.TCPConnector):
    """Reuses no connection on which something came unasked: aiohttp would take it for the next request's answer.

    Front ends write a 408 or 400 to an idle connection before they close it.
    """

    async def _get(self, *args: Any, **more: Any) -> aiohttp.connector.Connection | None:
        found = await super()._get(*args, **more)
        while found is not None and (found.protocol is None or found.protocol.should_close):
            found.close()
            found = await super()._get(*args, **more)
        return found


class _PublicResolver(AbstractResolver):
    """The default resolver, less the addresses that nobody outside should make us connect to.

    Connections are made to the very addresses returned here, so a name cannot change its mind in between.
    """

    def __init__(self, allow_loopback: bool, exempt: set[str]) -> None:
        self._inner = DefaultResolver()
        self._allow_loopback = allow_loopback
        self._exempt = exempt

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if host in self._exempt:
            return found
        allowed = [one for one in found if is_allowed(one["host"], allow_loopback=self._allow_loopback)]
        if not allowed:
            raise RefusedAddress(f"{host} has no public address")
        return allowed

    async def close(self) -> None:
        await self._inner.close()


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
    """The raw body, until `ends_at` (the loop's clock). The idle limit keeps every single wait short."""
    now = asyncio.get_running_loop().time
    try:
        async for chunk in _raw(response):
            if now() > ends_at:
                raise TimeoutError
            yield chunk
        return
    except _LIBRARY_ERRORS as error:
        failure = _failure(error, label, response)
    raise failure


_LIBRARY_ERRORS: Final = (
    *(aiohttp.ClientError, httpx.HTTPError, httpx.InvalidURL, httpx.StreamError),
    *(OSError, TimeoutError, UnicodeError),
)
"""All that aiohttp and httpx raise for the network's and the server's doings. Other exceptions are bugs."""

_UNSENT: Final[tuple[tuple[str, tuple[type[Exception], ...]], ...]] = (
    ("dns", (aiohttp.ClientConnectorDNSError,)),
    ("tls", (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)),
    ("pool", (httpx.PoolTimeout,)),
    ("connect", (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError)),
    ("connect", (httpx.ConnectTimeout, httpx.ConnectError)),
    ("protocol", (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, httpx.InvalidURL, httpx.UnsupportedProtocol)),
)
"""Raised only before the first byte of a request leaves: read in aiohttp 3.14 (`connector.py`: all
ClientConnectorErrors and the connect timeout come from `connect`), for httpx in its documentation."""

_SENT: Final[tuple[tuple[str, tuple[type[Exception], ...]], ...]] = (
    ("timeout", (httpx.TimeoutException, TimeoutError)),
    ("protocol", (aiohttp.ClientResponseError, httpx.ProtocolError, httpx.DecodingError, UnicodeError)),
)
"""The rest may have reached the server: these by name, all others are a `reset`."""


def _failure(error: Exception, label: str, head: httpx.Response | None) -> TransportError:
    """The one place that decides what may have been sent. `head` is the reply's head, when one came."""
    # httpx-aiohttp turns ServerDisconnectedError (after the request was read!) into ConnectTimeout: what
    # aiohttp raised is the truth, what httpx calls it is not.
    if isinstance(error, httpx.HTTPError) and isinstance(error.__cause__, aiohttp.ClientError):
        error = error.__cause__
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if head is None:
        if isinstance(cause, RefusedAddress):
            return TransportError(f"{label}: {cause}", sent=False, kind="refused_address")
        for kind, known in _UNSENT:
            if isinstance(error, known):
                return TransportError(f"{label}: {words_for(kind, cause)}", sent=False, kind=kind)
    kind = next((kind for kind, known in _SENT if isinstance(error, known)), "reset")
    message = f"{label}: {words_for(kind, cause)}"
    if head is None:
        return TransportError(message, sent=True, kind=kind)
    request_id = head.headers.get("x-fal-request-id", "")
    return CutReply(message, kind=kind, status=head.status_code, request_id=request_id)
