"""httpx as a carrier: its API for those who stand at the door (event hooks, mounts, mocks, transports of their own).

    Transport ─▶ [httpx.AsyncClient of the caller's] ─▶ [httpx transport of the caller's] | aiohttp, by httpx-aiohttp

Without an AsyncClient the httpx transport is called directly, which halves the cost of a request.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Self

import aiohttp
import httpx
from httpx_aiohttp.transport import map_aiohttp_exceptions

from falbatch.fal.aiohttp_carrier import exact, make_session, time_limits
from falbatch.fal.carrier import Told
from falbatch.fal.exchange import header_map, payload_of
from falbatch.fal.failures import LIBRARY_ERRORS, never_again, told
from falbatch.fal.slumber import Sessions

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable

    from falbatch.fal.carrier import Call
    from falbatch.fal.exchange import TransportSettings
    from falbatch.fal.proxies import Routes

_UNSENT: Final[tuple[tuple[str, tuple[type[Exception], ...]], ...]] = (
    ("pool", (httpx.PoolTimeout,)),
    ("connect", (httpx.ConnectTimeout, httpx.ConnectError)),
    ("protocol", (httpx.InvalidURL, httpx.UnsupportedProtocol)),
)
_SENT: Final[tuple[tuple[str, tuple[type[Exception], ...]], ...]] = (
    ("timeout", (httpx.TimeoutException,)),
    ("protocol", (httpx.ProtocolError, httpx.DecodingError)),
)
"""As httpx's documentation has it; all others are a `reset`."""


class HttpxCarrier:
    """Calls over an httpx transport, through the caller's client if there is one."""

    errors = (*LIBRARY_ERRORS, httpx.HTTPError, httpx.InvalidURL, httpx.StreamError)

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        client_factory: Callable[[httpx.AsyncBaseTransport], httpx.AsyncClient] | None = None,
    ) -> None:
        self._inner = inner
        self._client_factory = client_factory
        self._client: httpx.AsyncClient | None = None
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        if self._client_factory is None:
            await self._resources.enter_async_context(self._inner)
            return self
        logger = logging.getLogger("httpx")
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)  # its INFO line per request costs 18 µs and shows whole URLs
        self._client = await self._resources.enter_async_context(self._client_factory(self._inner))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._resources.aclose()

    async def open(self, call: Call) -> HttpxHead:
        """Send `call`; the head of its reply."""
        limits = {"connect": call.connect_s, "read": call.idle_s, "write": None, "pool": call.connect_s}
        request = httpx.Request(
            call.method,
            _parsed(call.url),
            headers=_ready_headers(tuple(call.headers.items())),
            content=call.body,
            extensions={"timeout": limits, "once": call.once},
        )
        if self._client is not None:
            response = await self._client.send(request, stream=True, follow_redirects=False)
        else:
            response = await self._inner.handle_async_request(request)
        return HttpxHead(response)

    def told(self, error: Exception) -> Told:
        """What `error` says of a call."""
        # httpx-aiohttp turns ServerDisconnectedError (after the request was read!) into ConnectTimeout: what
        # aiohttp raised is the truth, what httpx calls it is not.
        if isinstance(error, httpx.HTTPError) and isinstance(error.__cause__, aiohttp.ClientError):
            return told(error.__cause__)
        for sent, table in ((False, _UNSENT), (True, _SENT)):
            for kind, known in table:
                if isinstance(error, known):
                    return Told(kind, sent, error)
        return told(error)


class HttpxHead:
    """A reply's head."""

    __slots__ = ("_response", "headers", "status")

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers = header_map(response.headers.raw)

    def chunks(self) -> AsyncIterable[bytes]:
        """The body as it comes, without httpx's own checks and counting."""
        if isinstance(self._response.stream, httpx.AsyncByteStream):
            return self._response.stream
        raise TypeError("the transport answered with a synchronous stream")

    async def aclose(self) -> None:
        """Be done with it."""
        await self._response.aclose()


class ExactTransport(httpx.AsyncBaseTransport):
    """aiohttp under httpx, as httpx-aiohttp has it, with our session, and URLs that travel as given."""

    def __init__(self, settings: TransportSettings, routes: Routes) -> None:
        self._routes = routes
        self._sessions = Sessions(lambda: make_session(settings, routes))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the reply's body is still to come."""
        session = self._sessions.take()
        try:
            if self._sessions.has_old:
                await self._sessions.sweep()
            response = await self._exchange(session, request)
        except BaseException:
            await self._sessions.give_back(session)
            raise
        stream = _Body(response, lambda: self._sessions.give_back(session))
        return httpx.Response(response.status, headers=response.raw_headers, stream=stream, request=request)

    async def aclose(self) -> None:
        """Close whatever is open."""
        await self._sessions.aclose()

    async def _exchange(self, session: aiohttp.ClientSession, request: httpx.Request) -> aiohttp.ClientResponse:
        limits = request.extensions.get("timeout", {})  # a hook's own requests may lack it
        proxy = self._routes.proxy_for(request.url.scheme, request.url.host)
        body = await request.aread()
        with map_aiohttp_exceptions():
            return await session.request(
                request.method,
                exact(str(request.url)),
                headers=_aiohttp_headers(tuple(request.headers.raw)),
                data=payload_of(body) if body else None,
                allow_redirects=False,
                auto_decompress=False,
                timeout=time_limits(limits.get("connect"), limits.get("read")),
                proxy=proxy.url if proxy else None,
                proxy_headers=proxy.headers if proxy else None,
                middlewares=(never_again,) if request.extensions.get("once") else None,
            )


class _Body(httpx.AsyncByteStream):
    """A reply's body, as it comes; it tells when it is over."""

    def __init__(self, response: aiohttp.ClientResponse, over: Callable[[], Awaitable[None]]) -> None:
        self._response = response
        self._over = over

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with map_aiohttp_exceptions():
            async for chunk in self._response.content.iter_any():
                yield chunk

    async def aclose(self) -> None:
        self._response.close()  # a connection whose reply was read to its end has been given back already
        await self._over()  # once: httpx closes a stream but once


def quoted(url: str) -> str:
    """`url` as it can travel, by httpx's rules. Raises `httpx.InvalidURL`."""
    return str(httpx.URL(url))


@lru_cache(maxsize=4096)
def _parsed(url: str) -> httpx.URL:
    """Parsing costs 11 µs; a request's status URL is asked for several times, a submit URL thousands."""
    return httpx.URL(url)


@lru_cache(maxsize=64)
def _ready_headers(items: tuple[tuple[str, str], ...]) -> httpx.Headers:
    """A client sends the same headers thousands of times; httpx encodes them at 3 µs each."""
    return httpx.Headers(dict(items))


@lru_cache(maxsize=256)
def _aiohttp_headers(raw: tuple[tuple[bytes, bytes], ...]) -> list[tuple[str, str]]:
    """The same headers thousands of times; but for a hook's and a length they change with the client only."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]
