"""A door for webhooks: an HTTP server that takes signed deliveries and nothing else.

    connection ─▶ POST /prefix/token? ─▶ marks there? ─▶ body, bounded ─▶ verified ─▶ new? ─▶ handed over ─▶ 200
                   405, 404, 503          400             413, 408, 503    401, 503    200      503

What is wrong is answered without a reason, for whoever sent it has no business to know; the reason goes to the log.
An answer takes milliseconds whatever a run does, since deliveries are only handed over. TLS is best ended in front of
it, by what makes it reachable for fal (a tunnel, a proxy): then peers are that one's address.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter, OrderedDict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import anyio
from aiohttp import web

from falbatch.errors import UsageError, WireError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

__all__ = ["Limits", "Listener", "Refusal", "Settings", "listen"]

MAX_HEADER_BYTES: Final = 16 * 1024
"""Of one header line; a delivery's are under 200."""

SHUTDOWN_S: Final = 0.5
"""For answers under way when the door closes: they take milliseconds, and what is cut off comes again."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_PREFIX: Final = re.compile(r"(/[A-Za-z0-9._~-]+)*")

_T = TypeVar("_T")


class Refusal(StrEnum):
    """Why something was not taken: a few words for counts and for the log."""

    HTTP = "not HTTP"
    METHOD = "not a POST"
    PATH = "no such path or token"
    MARKS = "a header of the signature is missing or repeated"
    SIZE = "the body is too large"
    SLOW = "the sender is too slow"
    CUT = "the sender left in the middle"
    BUSY = "too much at once"
    FORGED = "not verified"
    UNSURE = "the keys to verify with cannot be had"
    FULL = "nobody could take it"


_STATUS: Final[Mapping[Refusal, int]] = {
    Refusal.HTTP: 400,
    Refusal.METHOD: 405,
    Refusal.PATH: 404,
    Refusal.MARKS: 400,
    Refusal.SIZE: 413,
    Refusal.SLOW: 408,
    Refusal.CUT: 400,
    Refusal.BUSY: 503,
    Refusal.FORGED: 401,
    Refusal.UNSURE: 503,
    Refusal.FULL: 503,
}
"""503 where fal shall come again (fal-protocol §4.2)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What strangers may cost us."""

    body_bytes: int = 64 * 1024 * 1024
    """Of one delivery. Results are kilobytes, inline media (`sync_mode`) tens of megabytes; what is larger is no loss,
    since the poll finds it."""
    held_bytes: int = 256 * 1024 * 1024
    """Of all bodies that are being received or verified."""
    connections: int = 256
    """Open at once; fal's deliveries of one account come by the dozen."""
    head_s: float = 10.0
    """Until a connection's request must have come up to its body."""
    silence_s: float = 10.0
    """Longest pause within a body."""
    exchange_s: float = 60.0
    """For a whole body. fal gives up after 15 s, later after 120 s (fal-protocol §4.2)."""
    linger_s: float = 2.0
    """What a refused sender still sends is read and thrown away for so long, so that it sees the answer."""
    remembered: int = 100_000
    """Deliveries that are known again when they are repeated; about 100 bytes each."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to listen, and for what."""

    marks: Sequence[str]
    """Headers, in lower case, that every delivery has exactly once, and that name it together: the same ones again
    are a repeat."""
    host: str = "127.0.0.1"
    port: int = 0
    """0 picks one."""
    prefix: str = "/webhook"
    """What stands before `/token` in paths; "" for nothing."""
    limits: Limits = field(default_factory=Limits)
    tls: ssl.SSLContext | None = None
    """None for plain HTTP."""


class Listener(Generic[_T]):
    """What `listen` gives: where it is, and what came. Belongs to one event loop."""

    def __init__(
        self,
        settings: Settings,
        knows: Callable[[str], bool],
        verify: Callable[[Mapping[str, str], bytes], Awaitable[_T]],
        deliver: Callable[[str, _T], None],
        refused: Callable[[str, str], None],
    ) -> None:
        self.port = 0
        """Where it listens, once it does."""
        self.delivered = 0
        """Handed over."""
        self.repeated = 0
        """Verified, and handed over before."""
        self.refusals: Counter[Refusal] = Counter()
        self.limits = settings.limits
        self._settings = settings
        self._knows = knows
        self._verify = verify
        self._deliver = deliver
        self._tell = refused
        self._held_bytes = 0
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; its connection ends with it."""
        try:
            await self._take(request)
            status = 200
        except _Refused as refused:
            self.note(refused.why, request.remote or "unknown", refused.detail)
            status = _STATUS[refused.why]
        return _reply(status)

    def note(self, why: Refusal, peer: str, detail: str = "") -> None:
        """Count a refusal and tell of it."""
        self.refusals[why] += 1
        self._tell(f"{why}: {detail}" if detail else str(why), peer)

    async def _take(self, request: web.BaseRequest) -> None:
        """Hand over what `request` delivers, unless that was done before. Raises _Refused."""
        token = self._token(request)
        marks = self._marks(request)
        if (request.content_length or 0) > self.limits.body_bytes:
            raise _Refused(Refusal.SIZE)
        body = bytearray()
        try:
            await self._receive(request, body)
            delivery = await self._verified(request, bytes(body))
        finally:
            self._held_bytes -= len(body)
        # No await from here on: of two equal deliveries at once, one is the second.
        if marks in self._seen:
            self._seen.move_to_end(marks)
            self.repeated += 1
            return
        try:
            self._deliver(token, delivery)
        except Exception as error:
            raise _Refused(Refusal.FULL, type(error).__name__) from error
        self._remember(marks)
        self.delivered += 1

    def _token(self, request: web.BaseRequest) -> str:
        # The target as it came: one path must not have many spellings.
        before, _, token = request.raw_path.partition("?")[0].rpartition("/")
        if before != self._settings.prefix or not _TOKEN.fullmatch(token):
            raise _Refused(Refusal.PATH)
        if request.method != "POST":
            raise _Refused(Refusal.METHOD)
        if not self._knows(token):
            raise _Refused(Refusal.PATH)
        return token

    def _marks(self, request: web.BaseRequest) -> bytes:
        """A hash of the headers that name a delivery."""
        values = []
        for name in self._settings.marks:
            given = request.headers.getall(name, [])
            if len(given) != 1 or not given[0]:
                raise _Refused(Refusal.MARKS)
            values.append(given[0].lower())  # hex has two spellings
        return hashlib.sha256("\n".join(values).encode("utf-8", "surrogateescape")).digest()

    async def _receive(self, request: web.BaseRequest, body: bytearray) -> None:
        """Read the whole of it into `body`, whose length is counted as held."""
        now = asyncio.get_running_loop().time
        ends_at = now() + self.limits.exchange_s
        try:
            async with asyncio.timeout_at(now() + self.limits.silence_s) as silence:
                while chunk := await request.content.readany():
                    silence.reschedule(min(ends_at, now() + self.limits.silence_s))
                    if len(body) + len(chunk) > self.limits.body_bytes:
                        raise _Refused(Refusal.SIZE)
                    if self._held_bytes + len(chunk) > self.limits.held_bytes:
                        raise _Refused(Refusal.BUSY)
                    body += chunk
                    self._held_bytes += len(chunk)
        except TimeoutError:
            raise _Refused(Refusal.SLOW) from None
        except (OSError, web.PayloadAccessError, web.RequestPayloadError):
            raise _Refused(Refusal.CUT) from None

    async def _verified(self, request: web.BaseRequest, body: bytes) -> _T:
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            return await self._verify(headers, body)
        except ValueError as error:
            raise _Refused(Refusal.FORGED, str(error)) from error
        except WireError as error:
            raise _Refused(Refusal.UNSURE, str(error)) from error

    def _remember(self, marks: bytes) -> None:
        self._seen[marks] = None
        if len(self._seen) > self.limits.remembered:
            self._seen.popitem(last=False)


@asynccontextmanager
async def listen(
    settings: Settings,
    *,
    knows: Callable[[str], bool],
    verify: Callable[[Mapping[str, str], bytes], Awaitable[_T]],
    deliver: Callable[[str, _T], None],
    refused: Callable[[str, str], None],
) -> AsyncIterator[Listener[_T]]:
    """Take deliveries while the block runs; runs under asyncio.

    `knows(token)` says whether a path's last segment is one of ours, before anything is read: whoever does not know a
    token cannot make us work. `verify(headers, body)`, with header names in lower case, gives what the body says, or
    raises ValueError for what is not to be believed, WireError when that cannot be told now: the texts of both are
    logged. `deliver(token, delivery)` must return at once; when it raises, the sender is asked to come again. It is
    called once for each delivery, repeats left out as long as they are remembered. `refused(reason, peer)` is for the
    log; a flood calls it often.

    Raises UsageError when the address or the prefix cannot be used.
    """
    if not _PREFIX.fullmatch(settings.prefix):
        raise UsageError(f"{settings.prefix!r} is no prefix for webhook paths", advice="Use one like /webhook.")
    if not settings.marks:
        raise ValueError("without marks every delivery would be a repeat of the first")
    listener = Listener(settings, knows, verify, deliver, refused)
    runner = web.ServerRunner(_Server(listener), shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await _start(runner, settings)
        listener.port = runner.addresses[0][1]
        yield listener
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


async def _start(runner: web.ServerRunner, settings: Settings) -> None:
    site = web.TCPSite(runner, settings.host, settings.port, ssl_context=settings.tls)
    try:
        await site.start()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot listen for webhooks on {settings.host}:{settings.port}: {error}",
            advice="Give another address or port; port 0 picks a free one.",
        ) from error


class _Server(web.Server):
    """aiohttp's server, less its router, with bounds on connections: it has none of its own."""

    def __init__(self, listener: Listener[Any]) -> None:
        self._listener = listener
        self._limits: Limits = listener.limits
        self._waiting: dict[Any, asyncio.TimerHandle] = {}
        """Open connections whose request has not come up to its body, with what ends them."""
        self._open = 0
        super().__init__(self._answer)

    def __call__(self) -> web.RequestHandler:
        """What speaks HTTP on one connection."""
        return _Connection(
            self,
            self._listener,
            loop=asyncio.get_running_loop(),
            access_log=None,
            auto_decompress=False,  # what is signed is what came
            lingering_time=self._limits.linger_s,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        """A stranger is here; has until `head_s` to say what for."""
        super().connection_made(handler, transport)
        self._open += 1
        if self._open > self._limits.connections:
            # A turn later: aiohttp's own task for the connection must have begun.
            asyncio.get_running_loop().call_soon(self._end, transport, Refusal.BUSY)
            return
        later = asyncio.get_running_loop().call_later
        self._waiting[handler] = later(self._limits.head_s, self._end, transport, Refusal.SLOW)

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        """It is gone."""
        super().connection_lost(handler, exc)
        self._open -= 1
        self._stop_waiting(handler)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self._stop_waiting(request.protocol)
        return await self._listener.handle(request)

    def _stop_waiting(self, handler: Any) -> None:
        if timer := self._waiting.pop(handler, None):
            timer.cancel()

    def _end(self, transport: asyncio.Transport, why: Refusal) -> None:
        peer = transport.get_extra_info("peername") or ["unknown"]
        transport.abort()
        self._listener.note(why, str(peer[0]))


class _Connection(web.RequestHandler):
    """aiohttp's connection, which tells strangers nothing about what is wrong with their HTTP."""

    __slots__ = ("_listener",)

    def __init__(self, server: _Server, listener: Listener[Any], **more: Any) -> None:
        super().__init__(server, **more)
        self._listener = listener

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP; a mistake of our own is logged by aiohttp, and answered by it."""
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        peer = self.peername
        self._listener.note(Refusal.HTTP, str(peer[0]) if isinstance(peer, tuple) else "unknown")
        return _reply(_STATUS[Refusal.HTTP])


def _reply(status: int) -> web.Response:
    response = web.Response(status=status, headers={"Server": "falbatch"})
    response.force_close()
    return response


class _Refused(Exception):
    """Raised inside the door; `detail` is for the log."""

    def __init__(self, why: Refusal, detail: str = "") -> None:
        super().__init__(str(why))
        self.why = why
        self.detail = detail
