"""aiohttp as a carrier: one session, connections kept, nothing added to a request."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
import certifi
import yarl

from falbatch.fal.connections import Connector
from falbatch.fal.exchange import header_map, payload_of
from falbatch.fal.failures import LIBRARY_ERRORS, never_again, told
from falbatch.fal.slumber import Sessions

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable

    from falbatch.fal.carrier import Call, Told
    from falbatch.fal.exchange import TransportSettings
    from falbatch.fal.proxies import Routes

MAX_HEADER_BYTES: Final = 32 * 1024
"""Of one header line. All of fal's stay under 16 KB (fal-protocol §8.5), aiohttp's default is 8 KB."""

READ_BYTES: Final = 256 * 1024
"""What one read of a socket brings at most. aiohttp's default of 64 KB stops reading after each, and begins again."""


class AiohttpCarrier:
    """A session for all calls; after the machine slept, a new one."""

    errors = LIBRARY_ERRORS

    def __init__(self, settings: TransportSettings, routes: Routes) -> None:
        self._routes = routes
        self._sessions = Sessions(lambda: make_session(settings, routes))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._sessions.aclose()

    async def open(self, call: Call) -> AiohttpHead:
        """Send `call`; the head of its reply."""
        session = self._sessions.take()
        try:
            if self._sessions.has_old:
                await self._sessions.sweep()
            response = await self._send(session, call)
        except BaseException:
            await self._sessions.give_back(session)
            raise
        return AiohttpHead(response, session, self._sessions)

    def told(self, error: Exception) -> Told:
        """What `error` says of a call."""
        return told(error)

    async def _send(self, session: aiohttp.ClientSession, call: Call) -> aiohttp.ClientResponse:
        url = exact(call.url)
        proxy = self._routes.proxy_for(url.scheme, url.host or "")
        return await session.request(
            call.method,
            url,
            headers=call.headers,
            data=None if call.body is None else payload_of(call.body),
            allow_redirects=False,
            auto_decompress=False,
            timeout=time_limits(call.connect_s, call.idle_s),
            proxy=proxy.url if proxy else None,
            proxy_headers=proxy.headers if proxy else None,
            middlewares=(never_again,) if call.once else None,
        )


class AiohttpHead:
    """A reply's head."""

    __slots__ = ("_response", "_session", "_sessions", "headers", "status")

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        session: aiohttp.ClientSession,
        sessions: Sessions[aiohttp.ClientSession],
    ) -> None:
        self._response = response
        self._session = session
        self._sessions = sessions
        self.status = response.status
        self.headers = header_map(response.raw_headers)

    def chunks(self) -> AsyncIterable[bytes]:
        """The body as it comes."""
        return self._response.content.iter_any()

    async def aclose(self) -> None:
        """Be done with it."""
        self._response.close()  # a connection whose reply was read to its end has been given back already
        await self._sessions.give_back(self._session)


def make_session(settings: TransportSettings, routes: Routes, **more: Any) -> aiohttp.ClientSession:
    """A session that adds nothing of its own to a request."""
    return aiohttp.ClientSession(
        connector=Connector(settings, ssl_context(settings), routes.proxy_hosts),
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=READ_BYTES,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        **more,
    )


def socket_session(
    settings: TransportSettings, routes: Routes, connect_s: float
) -> Callable[[aiohttp.ClientMiddlewareType], aiohttp.ClientSession]:
    """What makes the session of one WebSocket; its middleware sees the handshake."""
    limits = aiohttp.ClientTimeout(connect=connect_s)
    return lambda watch: make_session(settings, routes, middlewares=(watch,), timeout=limits)


def ssl_context(settings: TransportSettings) -> ssl.SSLContext:
    """The settings' own, else the process's."""
    return settings.ssl_context or _process_ssl_context(settings.trust_env)


@lru_cache
def _process_ssl_context(trust_env: bool) -> ssl.SSLContext:
    """One context for all transports: making one costs 15 ms. The same authorities as httpx takes."""
    file, folder = (os.environ.get(name) if trust_env else None for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
    if file or folder:
        return ssl.create_default_context(cafile=file or None, capath=None if file else folder)
    return ssl.create_default_context(cafile=certifi.where())


@lru_cache(maxsize=4096)
def exact(url: str) -> yarl.URL:
    """`url` as it is: yarl would decode a signed URL's `%2C`."""
    return yarl.URL(url, encoded=True)


@lru_cache(maxsize=256)
def time_limits(connect_s: float | None, idle_s: float | None) -> aiohttp.ClientTimeout:
    """aiohttp's own limits: until a connection is there, and of each silence on it."""
    return aiohttp.ClientTimeout(connect=connect_s, sock_read=idle_s)
