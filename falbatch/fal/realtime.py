"""Realtime: one socket, inputs out and outputs in, msgpack or JSON (fal-protocol §5.3).

    connect ─▶ RealtimeSocket: send … receive …        a closing in peace is None; with `reconnect` the next send
                                                       opens a new connection

A message whose answer had not come when the connection broke is never sent again by itself: it may have run and
been billed. The key is in no URL: a token is, or the key in a header.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, Self
from urllib.parse import urlencode

import anyio
import ormsgpack

from falbatch.errors import ReplyError, TransportError, WireError
from falbatch.exactjson import parse_json
from falbatch.fal.calls import Caller, call_path_once
from falbatch.fal.exchange import Exchange, SocketClosed
from falbatch.fal.problems import one_line
from falbatch.fal.tokens import EXPIRATION_S, TokenClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from falbatch.fal.auth import Credentials
    from falbatch.fal.hosts import Hosts

__all__ = ["RealtimeClient", "RealtimeError", "RealtimeSocket", "Socket"]

HANDSHAKE_TIMEOUT_S: Final = 90.0
"""A runner may have to start first; fal's clients wait as long."""
RENEW_AT: Final = 0.9
"""Of a token's life: an older one is replaced before it opens a connection (§5.3)."""
MAX_BUFFERING: Final = 60
"""Inputs that fal can be asked to keep waiting (§5.3)."""
MAX_INBOX: Final = 64
"""Outputs kept for a caller that only sends; more stay with the connection, which slows the other side down."""
MAX_WORDS: Final = 500
"""Characters of an app's own words in a message."""

_TIMEOUT: Final = "TIMEOUT"
"""fal's word for a connection that it closes because nothing came for a while: no error (§5.3)."""


class Socket(Protocol):
    """One open WebSocket; `falbatch.fal.socket.Socket` is one."""

    @property
    def is_ended(self) -> bool: ...
    async def send(self, data: bytes | str) -> None: ...
    async def receive(self) -> bytes | str: ...
    async def look(self) -> list[bytes | str]: ...


class SocketExchange(Exchange, Protocol):
    """What this client needs of a transport; `falbatch.fal.transport.Transport` is one."""

    def socket(
        self, url: str, *, headers: Mapping[str, str], timeout_s: float, redact: Callable[[str], str]
    ) -> AbstractAsyncContextManager[Socket]: ...


class RealtimeError(WireError):
    """Raised when the app, or fal for it, answers with an error on an open socket. The socket stays usable."""

    def __init__(self, error: str, reason: str = "", payload: Mapping[str, Any] | None = None) -> None:
        super().__init__(one_line(f"{error}: {reason}" if reason else error, MAX_WORDS))
        self.error = error
        """fal's word for it (`Unauthorized`, `INVALID_INPUT` …)."""
        self.reason = reason
        """More words; may be empty."""
        self.payload: Mapping[str, Any] = payload or {}
        """The whole message."""


@dataclass(frozen=True, slots=True)
class _Line:
    """How to reach an endpoint's socket."""

    endpoint: str
    path: str
    use_jwt: bool
    max_buffering: int | None
    token_expiration_s: int
    timeout_s: float

    def __post_init__(self) -> None:
        call_path_once(self.endpoint, self.path)
        if self.max_buffering is not None and not 1 <= self.max_buffering <= MAX_BUFFERING:
            raise ValueError(f"max_buffering {self.max_buffering!r} must be 1 to {MAX_BUFFERING}")


class _Dialler:
    """Opens sockets on a line, with a token that is young enough."""

    def __init__(
        self, transport: SocketExchange, hosts: Hosts, caller: Caller, tokens: TokenClient, line: _Line
    ) -> None:
        self._transport = transport
        self._base = hosts.need("run")
        self._caller = caller
        self._tokens = tokens
        self._line = line
        self._token = ""
        self._renew_at_s = 0.0

    async def dial(self) -> AbstractAsyncContextManager[Socket]:
        """A socket to be opened. Gets a token first when one is wanted."""
        query: dict[str, str] = {}
        headers = dict(self._caller.headers)
        if self._line.use_jwt:
            query["fal_jwt_token"] = await self._ticket()
            del headers["authorization"]
        if self._line.max_buffering is not None:
            query["max_buffering"] = str(self._line.max_buffering)
        url = f"{self._base}/{call_path_once(self._line.endpoint, self._line.path)}"
        if query:
            url += f"?{urlencode(query)}"
        return self._transport.socket(url, headers=headers, timeout_s=self._line.timeout_s, redact=self._redact)

    async def _ticket(self) -> str:
        if not self._token or time.monotonic() >= self._renew_at_s:
            life_s, asked_s = self._line.token_expiration_s, time.monotonic()
            self._token = await self._tokens.create(self._line.endpoint, expiration_s=life_s)
            self._renew_at_s = asked_s + RENEW_AT * life_s
        return self._token

    def _redact(self, text: str) -> str:
        text = self._caller.redact(text)
        return text.replace(self._token, "***") if self._token else text


class RealtimeClient:
    """Opens realtime sockets over `transport`. Stateless but for its settings; safe to share between tasks.

    Failures to open: as of `DirectClient.run`, plus those of the token call. No message was sent then.
    """

    def __init__(
        self, transport: SocketExchange, hosts: Hosts, credentials: Credentials, *, user_agent: str = "falbatch"
    ) -> None:
        self._transport = transport
        self._hosts = hosts
        self._caller = Caller(credentials, user_agent)
        self._tokens = TokenClient(transport, hosts, credentials, user_agent=user_agent)

    @asynccontextmanager
    async def connect(
        self,
        endpoint: str,
        *,
        path: str = "realtime",
        use_jwt: bool = True,
        max_buffering: int | None = None,
        token_expiration: int = EXPIRATION_S,
        encode: Callable[[Any], bytes | str] | None = None,
        decode: Callable[[bytes], Any] | None = None,
        reconnect: bool = False,
        timeout_s: float = HANDSHAKE_TIMEOUT_S,
    ) -> AsyncIterator[RealtimeSocket]:
        """A socket to `endpoint`, closed when the block ends.

        `use_jwt`: a token of `token_expiration` seconds opens it, instead of the key in a header. `encode` and
        `decode` take msgpack's place for what is sent and for binary messages that come; text is JSON.
        `max_buffering` (1 to 60): fal drops older inputs beyond. `reconnect`: see `RealtimeSocket.send`.
        `timeout_s` bounds the handshake.
        """
        line = _Line(endpoint, path, use_jwt, max_buffering, token_expiration, timeout_s)
        dialler = _Dialler(self._transport, self._hosts, self._caller, self._tokens, line)
        one = RealtimeSocket(dialler, encode or pack, decode, reconnect=reconnect, may_drop=max_buffering is not None)
        async with one:
            yield one

    @asynccontextmanager
    async def connect_raw(
        self,
        endpoint: str,
        *,
        path: str = "",
        use_jwt: bool = True,
        max_buffering: int | None = None,
        token_expiration: int = EXPIRATION_S,
        timeout_s: float = HANDSHAKE_TIMEOUT_S,
    ) -> AsyncIterator[Socket]:
        """As `connect`, but bytes and text as they are, and SocketClosed at the end."""
        line = _Line(endpoint, path, use_jwt, max_buffering, token_expiration, timeout_s)
        dialler = _Dialler(self._transport, self._hosts, self._caller, self._tokens, line)
        async with AsyncExitStack() as stack:
            yield await _dialled(dialler, stack)


class RealtimeSocket:
    """An open realtime connection. One task may send while another receives."""

    def __init__(
        self,
        dialler: _Dialler,
        encode: Callable[[Any], bytes | str],
        decode: Callable[[bytes], Any] | None,
        *,
        reconnect: bool,
        may_drop: bool,
    ) -> None:
        self._dialler = dialler
        self._encode = encode
        self._decode = decode
        self._reconnect = reconnect
        self._may_drop = may_drop  # fal drops inputs: an answer may be the answer to several
        self._sending = anyio.Lock()
        self._stack = AsyncExitStack()
        self._socket: Socket | None = None
        self._is_opening = False
        self._inbox: deque[bytes | dict[str, Any] | RealtimeError] = deque()  # binary messages are read when asked for
        self._in_flight = 0  # inputs without an answer on this connection
        self._is_timed_out = False  # fal said that it closes an idle connection

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def send(self, arguments: Mapping[str, Any]) -> None:
        """Send one input. This may cost money.

        ValueError for what cannot be encoded. On a connection that has ended: TransportError, or with
        `reconnect` a new connection first, with a new token when the old one is near its end. But when inputs
        were without an answer, that is told once, as a TransportError with `sent`, and nothing is sent.
        """
        message = self._encode(arguments)
        async with self._sending:
            socket = await self._usable()
            self._in_flight += 1
            try:
                await socket.send(message)
            except TransportError as error:
                self._in_flight = 0 if error.sent else self._in_flight - 1  # told hereby
                raise

    async def receive(self) -> Any:
        """The next output, a dict; None when the connection was closed in peace. Waits as long as it takes.

        Text that is not JSON, and values that are no objects, come as `payload` of a dict. RealtimeError: the
        app's error. TransportError: the connection broke, or was closed before all inputs had their answer.
        ReplyError: a message that cannot be read. After an end, a later call gives None until a send reconnects.
        """
        while True:
            if self._inbox:
                outcome = self._read(self._inbox.popleft())
                if outcome is not None:
                    return outcome
                continue
            if self._is_opening:
                async with self._sending:  # a send opens a new connection: outputs will come from there
                    continue
            socket = self._socket
            if socket is None or self._is_timed_out:
                return self._ended(None)
            try:
                self._take(await socket.receive())
            except WireError as error:
                if socket is self._socket:
                    return self._ended(error)

    async def _usable(self) -> Socket:
        """The socket to send on, a new one if need be."""
        socket = self._socket
        if socket is not None and len(self._inbox) < MAX_INBOX:
            for message in await socket.look():
                self._take(message)
        if socket is not None and not socket.is_ended and not self._is_timed_out:
            return socket
        if self._in_flight:
            self._in_flight = 0
            raise TransportError(
                "the connection ended before earlier inputs had their answer; this one was not sent",
                sent=True,
                kind="reset",
            )
        if not self._reconnect:
            raise TransportError("the connection has ended; nothing was sent", sent=False, kind="reset")
        return await self._open()

    async def _open(self) -> Socket:
        """A new connection in place of the old one, if any. TransportErrors say that nothing was sent."""
        self._socket, self._is_opening = None, True
        try:
            await self._stack.aclose()
            self._socket = await _dialled(self._dialler, self._stack)
            self._is_timed_out = False
            return self._socket
        finally:
            self._is_opening = False

    def _ended(self, error: WireError | None) -> None:
        """None for an end in peace, else the error that tells of it; once."""
        self._socket = None
        lost, self._in_flight = self._in_flight, 0
        if lost and not isinstance(error, ReplyError):  # which was an answer, though nobody can read it
            what = "an input was" if lost == 1 else f"{lost} inputs were"
            why = f": {error}" if error else ""
            raise TransportError(
                f"the connection ended while {what} without an answer, and may have run{why}", sent=True, kind="reset"
            )
        if error is not None and not (isinstance(error, SocketClosed) and error.is_clean):
            raise error

    def _take(self, message: bytes | str) -> None:
        """Read one message into the inbox."""
        outcome = message if isinstance(message, bytes) else self._text(message)
        if outcome is not None:
            self._in_flight = 0 if self._may_drop else max(0, self._in_flight - 1)
            self._inbox.append(outcome)

    def _read(self, outcome: bytes | dict[str, Any] | RealtimeError) -> Any:
        """The output that lay in the inbox; None for one that the caller's own decoder wants passed over."""
        if isinstance(outcome, RealtimeError):
            raise outcome
        if isinstance(outcome, dict):
            return outcome
        if self._decode is not None:
            return self._decode(outcome)
        try:
            value = ormsgpack.unpackb(outcome, option=ormsgpack.OPT_NON_STR_KEYS)
        except ValueError:
            raise ReplyError("a realtime message is not the msgpack it should be") from None
        return value if isinstance(value, dict) else {"payload": value}

    def _text(self, message: str) -> dict[str, Any] | RealtimeError | None:
        """What a text message says; None for those that are not for the caller."""
        try:
            value = parse_json(message.encode())
        except ValueError:
            value = None
        if not isinstance(value, dict):
            return {"type": "text", "payload": message}
        if value.get("type") == "x-fal-message":
            return None
        error, reason = _words(value, "error"), _words(value, "reason")
        if value.get("type") == "x-fal-error":
            if _TIMEOUT in {error, reason}:
                self._is_timed_out = True
                return None
            return RealtimeError(error or "UNKNOWN_ERROR", reason, value)
        if value.get("status") == "error" and error:
            return RealtimeError(error, reason, value)
        return value


async def _dialled(dialler: _Dialler, stack: AsyncExitStack) -> Socket:
    """A new socket, which `stack` closes. TransportErrors say that nothing was sent."""
    try:
        return await stack.enter_async_context(await dialler.dial())
    except TransportError as error:
        # A handshake carries no input: whatever became of it, nothing can have run.
        failed = TransportError(str(error), sent=False, kind=error.kind)
    raise failed


def pack(arguments: Any) -> bytes:
    """`arguments` as msgpack, bytes as bytes. ValueError, naming the place, for what it cannot carry."""
    try:
        return ormsgpack.packb(arguments)
    except TypeError as error:
        place = _beyond_64_bits(arguments)
        if place is None:
            raise ValueError(f"the input cannot be written as msgpack: {error}") from None
    raise ValueError(f"the input {place!r} is an integer beyond 64 bits, which msgpack cannot carry; send it as text")


def _beyond_64_bits(value: Any) -> str | None:
    """Where in `value` the first integer beyond 64 bits is, as `a.0.b`; None when there is none."""
    todo: list[tuple[str, Any]] = [("", value)]
    while todo:
        place, one = todo.pop()
        if isinstance(one, int) and not -(2**63) <= one < 2**64:
            return place.removeprefix(".")
        if isinstance(one, dict):
            todo += [(f"{place}.{name}", inner) for name, inner in reversed(one.items())]
        elif isinstance(one, list | tuple):
            todo += [(f"{place}.{number}", inner) for number, inner in reversed(list(enumerate(one)))]
    return None


def _words(value: Mapping[str, Any], name: str) -> str:
    word = value.get(name)
    return word if isinstance(word, str) else ""
