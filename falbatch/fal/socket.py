"""WebSockets over aiohttp: messages out, messages in, and an honest end.

    handshake ─▶ Socket: send … receive … ─▶ SocketClosed (the other side's word), or the block ends (ours)

A handshake that is answered with a status of its own is an HttpError with fal's words, as any other call.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import aiohttp
import anyio

from falbatch.errors import ReplyError, TransportError
from falbatch.fal.exchange import Reply, SocketClosed, words_for
from falbatch.fal.failures import LIBRARY_ERRORS, failure, told
from falbatch.fal.patience import deadline
from falbatch.fal.problems import one_line, parse_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    import yarl

    from falbatch.fal.proxies import Proxy

HEARTBEAT_S: Final = 60.0
"""Silence after which the other side is pinged; half of it later it counts as gone. Front ends cut idle
connections after a minute or more, and a machine that vanished says nothing at all."""

CLOSE_S: Final = 2.0
"""For the other side to answer our goodbye; nothing hangs on it."""

MAX_REFUSAL_BYTES: Final = 64 * 1024
"""Read of the body of a refused handshake: a few words of JSON."""

MAX_LOOK: Final = 64
"""Messages that one `Socket.look` takes in; a caller that never receives must not fill the memory."""

MAX_REASON: Final = 200
"""Characters of a goodbye's reason; the protocol lets it have 123 bytes."""

_TOO_BIG: Final = 1009  # RFC 6455, 7.4.1


class Socket:
    """One open WebSocket. One task may send while another receives."""

    def __init__(
        self,
        inner: aiohttp.ClientWebSocketResponse,
        label: str,
        headers: Mapping[str, str],
        redact: Callable[[str], str],
    ) -> None:
        self._inner = inner
        self._label = label
        self._redact = redact
        self._ended: TransportError | ReplyError | None = None
        self._is_receiving = False
        self.headers = headers
        """Of the handshake's reply, names in lower case."""

    @property
    def is_ended(self) -> bool:
        """True once the connection's end was noticed."""
        return self._ended is not None or self._inner.closed

    async def send(self, data: bytes | str) -> None:
        """Send one message, binary or text. TransportError: unsent when the end had been noticed before."""
        if self.is_ended:
            raise TransportError(f"{self._label}: the connection had been closed", sent=False, kind="reset")
        try:
            await (self._inner.send_str(data) if isinstance(data, str) else self._inner.send_bytes(data))
            return
        except LIBRARY_ERRORS as error:
            kind = failure(told(error), self._label).kind
        # Whatever broke: on an open connection the message may have arrived.
        self._ended = TransportError(f"{self._label}: {words_for(kind)}", sent=True, kind=kind)
        raise self._again(self._ended)

    async def receive(self) -> bytes | str:
        """The next message. Raises SocketClosed, other TransportErrors, and ReplyError for one too big."""
        if self._ended is not None:
            raise self._again(self._ended)
        return await self._next()

    async def look(self) -> list[bytes | str]:
        """What has arrived, without waiting. So an end that came meanwhile is noticed: see `is_ended`.

        Nothing while another task receives: it will notice.
        """
        heard: list[bytes | str] = []
        while self._ended is None and not self._is_receiving and len(heard) < MAX_LOOK:
            try:
                async with asyncio.timeout(0):
                    heard.append(await self._next())
            except TimeoutError:
                break
            except (TransportError, ReplyError):
                break  # it is `_ended` now
        return heard

    async def close(self) -> None:
        """Say goodbye and end the connection. May be called again."""
        with anyio.move_on_after(CLOSE_S, shield=True):
            await self._inner.close()

    async def _next(self) -> bytes | str:
        self._is_receiving = True
        try:
            heard = await self._inner.receive()
        finally:
            self._is_receiving = False
        if heard.type is aiohttp.WSMsgType.TEXT:
            return str(heard.data)
        if heard.type is aiohttp.WSMsgType.BINARY:
            return bytes(heard.data)
        self._ended = self._end(heard)
        raise self._ended

    def _end(self, heard: aiohttp.WSMessage) -> TransportError | ReplyError:
        if heard.type is aiohttp.WSMsgType.CLOSE:
            reason = one_line(self._redact(heard.extra or ""), MAX_REASON)
            return SocketClosed(self._label, code=heard.data, reason=reason)
        if heard.type is aiohttp.WSMsgType.ERROR:
            if getattr(heard.data, "code", None) == _TOO_BIG:
                return ReplyError(f"{self._label}: a message is larger than what is read of one")
            return TransportError(f"{self._label}: what came is no WebSocket message", sent=True, kind="protocol")
        return SocketClosed(self._label, code=None)

    def _again(self, ended: TransportError | ReplyError) -> TransportError | ReplyError:
        """The same end once more, as an exception of its own: one that is raised twice grows a long traceback."""
        if isinstance(ended, SocketClosed):
            return SocketClosed(self._label, code=ended.code, reason=ended.reason)
        if isinstance(ended, TransportError):
            return TransportError(str(ended), sent=ended.sent, kind=ended.kind)
        return ReplyError(str(ended))


class _Refused(Exception):
    """Raised inside aiohttp, through it, with the reply that was no handshake."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


class _Watch:
    """aiohttp middleware: keeps the handshake's headers, and lets no other reply through.

    aiohttp would follow a redirect, and would throw away the body of a refusal.
    """

    def __init__(self) -> None:
        self.headers: Mapping[str, str] = {}

    async def __call__(self, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        response = await send(request)
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        if response.status == 101:
            return response
        try:
            raise _Refused(Reply(response.status, self.headers, await _some_of(response)))
        finally:
            response.close()


async def _some_of(response: aiohttp.ClientResponse) -> bytes:
    """The beginning of a body, or what came of it."""
    parts = bytearray()
    try:
        async for part in response.content.iter_any():
            parts += part
            if len(parts) > MAX_REFUSAL_BYTES:
                break
    except aiohttp.ClientError:
        pass  # the status says what matters
    return bytes(parts[:MAX_REFUSAL_BYTES])


@asynccontextmanager
async def open_socket(
    make_session: Callable[[aiohttp.ClientMiddlewareType], aiohttp.ClientSession],
    url: yarl.URL,
    headers: Mapping[str, str],
    proxy: Proxy | None,
    label: str,
    *,
    timeout_s: float,
    max_bytes: int,
    redact: Callable[[str], str],
) -> AsyncIterator[Socket]:
    """A socket at `url`, over a session of its own, named `label` in messages; see `Transport.socket`."""
    watch = _Watch()
    session = make_session(watch)
    try:
        inner = await _shake_hands(session, url, headers, proxy, label, timeout_s, max_bytes)
        if isinstance(inner, Reply):
            raise parse_error(inner.status, inner.headers, inner.body, call=label, redact=redact)
        socket = Socket(inner, label, watch.headers, redact)
        try:
            yield socket
        finally:
            await socket.close()
    finally:
        with anyio.CancelScope(shield=True):
            await session.close()


async def _shake_hands(
    session: aiohttp.ClientSession,
    url: yarl.URL,
    headers: Mapping[str, str],
    proxy: Proxy | None,
    label: str,
    timeout_s: float,
    max_bytes: int,
) -> aiohttp.ClientWebSocketResponse | Reply:
    """The open socket, or the reply that refused it. Raises TransportError."""
    try:
        async with deadline(timeout_s):
            return await session.ws_connect(
                url,
                headers=headers,
                proxy=proxy.url if proxy else None,
                proxy_headers=proxy.headers if proxy else None,
                autoclose=False,  # so that the goodbye is seen, with its code, before it is answered
                heartbeat=HEARTBEAT_S,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
                max_msg_size=max_bytes,
            )
    except _Refused as refused:
        return refused.reply
    except LIBRARY_ERRORS as error:
        failed = failure(told(error), label)
    raise failed
