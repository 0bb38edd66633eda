"""Sockets of the client: realtime apps, and raw frames."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from falbatch.client.connections import USER_AGENT
from falbatch.client.errors import LOST_RUN, FalClientConnectionError, client_error
from falbatch.errors import HttpError, WireError
from falbatch.fal.exchange import SocketClosed
from falbatch.fal.realtime import RealtimeClient

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping

    from falbatch.client.connections import Connections, Session
    from falbatch.fal.realtime import RealtimeSocket, Socket

TOKEN_LIFE_S: Final = 120
"""Seconds that the token for a connection is good, as in the official client."""


class AsyncRealtimeConnection:
    """An open realtime connection. One task may send while another receives."""

    def __init__(self, socket: RealtimeSocket, session: Session) -> None:
        self._socket = socket
        self._session = session
        self._is_closed = False

    async def send(self, arguments: Mapping[str, Any]) -> None:
        """Send one input. This may cost money; it is never sent again by itself."""
        if self._is_closed:
            raise FalClientConnectionError("the connection was closed; nothing was sent", kind="reset", sent=False)
        with translated(self._session):
            await self._socket.send(arguments)

    async def recv(self) -> Any:
        """The next output; None when the connection has been closed in peace. RealtimeError for the app's errors."""
        if self._is_closed:
            return None
        try:
            with translated(self._session):
                return await self._socket.receive()
        except FalClientConnectionError:
            if self._is_closed:  # by another task, while this one waited
                return None
            raise

    async def close(self) -> None:
        """Close the connection; the end of its block does so too."""
        self._is_closed = True
        await self._socket.__aexit__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


class AsyncWebSocket:
    """An open socket: frames as they are, bytes or text. Iterate over it, or `recv`."""

    def __init__(self, socket: Socket, session: Session) -> None:
        self._socket = socket
        self._session = session

    async def send(self, message: bytes | str) -> None:
        """Send one frame. This may cost money."""
        with translated(self._session):
            await self._socket.send(message)

    async def recv(self) -> bytes | str:
        """The next frame; FalClientConnectionError when the other side has closed."""
        with translated(self._session):
            return await self._socket.receive()

    async def __aiter__(self) -> AsyncGenerator[bytes | str, None]:
        """Frames, until the other side closes in peace."""
        with translated(self._session):
            while True:
                try:
                    yield await self._socket.receive()
                except SocketClosed as error:
                    if error.is_clean:
                        return
                    raise


@contextmanager
def translated(session: Session) -> Iterator[None]:
    """WireErrors of a block as FalClientErrors."""
    try:
        yield
    except WireError as error:
        # A status comes only where a connection is opened, before any input.
        lost = "" if isinstance(error, HttpError) else LOST_RUN
        raise client_error(error, None, session.credentials.redact, lost=lost) from error


class Sockets:
    """Part of AsyncClient. Opening a connection costs nothing; every input may."""

    connections: Connections

    @asynccontextmanager
    async def realtime(
        self,
        application: str,
        *,
        use_jwt: bool = True,
        path: str = "/realtime",
        max_buffering: int | None = None,
        token_expiration: int = TOKEN_LIFE_S,
        encode_message: Callable[[Any], bytes] | None = None,
        decode_message: Callable[[bytes], Any] | None = None,
        reconnect: bool = False,
    ) -> AsyncIterator[AsyncRealtimeConnection]:
        """A realtime connection, closed when the block ends.

        Messages are msgpack unless `encode_message` and `decode_message` say otherwise. `use_jwt`: opened with a
        token of `token_expiration` seconds, else with the key in a header. `max_buffering` (1 to 60): fal drops older
        inputs beyond. `reconnect`: a send after fal closed an idle connection opens a new one.
        """
        session = await self.connections.here()
        client = RealtimeClient(session.transport, session.hosts, session.credentials, user_agent=USER_AGENT)
        opened = client.connect(
            application,
            path=path,
            use_jwt=use_jwt,
            max_buffering=max_buffering,
            token_expiration=token_expiration,
            encode=encode_message,
            decode=decode_message,
            reconnect=reconnect,
        )
        with translated(session):
            async with opened as socket:
                yield AsyncRealtimeConnection(socket, session)

    @asynccontextmanager
    async def ws_connect(
        self,
        application: str,
        *,
        use_jwt: bool = True,
        path: str = "",
        max_buffering: int | None = None,
        token_expiration: int = TOKEN_LIFE_S,
    ) -> AsyncIterator[AsyncWebSocket]:
        """A socket to the app, closed when the block ends: frames as they are."""
        session = await self.connections.here()
        client = RealtimeClient(session.transport, session.hosts, session.credentials, user_agent=USER_AGENT)
        opened = client.connect_raw(
            application,
            path=path,
            use_jwt=use_jwt,
            max_buffering=max_buffering,
            token_expiration=token_expiration,
        )
        with translated(session):
            async with opened as socket:
                yield AsyncWebSocket(socket, session)
