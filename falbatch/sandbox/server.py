"""The only module that knows aiohttp: turns HTTP into calls, and outcomes into bytes on a socket.

HTTP ─▶ Call ─▶ route module of the host prefix ─▶ Operation ─▶ misbehave ─▶ Outcome ─▶ HTTP
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from falbatch.sandbox import (
    cdn_routes,
    control_routes,
    http_socket,
    openapi_routes,
    platform_routes,
    queue_routes,
    rest_routes,
    run_routes,
)
from falbatch.sandbox.misbehave import perform
from falbatch.sandbox.replies import NOT_FOUND, Call, Ending, Operation, Outcome, Reply, Socket, Stream
from falbatch.sandbox.storage import TooLarge
from falbatch.sandbox.upload_routes import carries_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from falbatch.sandbox.world import World

MAX_BODY_BYTES: Final = 256 * 1024 * 1024
"""Of one call. fal's own bound is unknown (§15); data URIs may make inputs big."""

_RESOLVERS: Final[dict[str, Callable[[World, Call], Operation | Reply | Socket]]] = {
    "queue": queue_routes.resolve,
    "run": run_routes.resolve,
    "ws": http_socket.resolve,
    "cdn": cdn_routes.resolve,
    "api": platform_routes.resolve,
    "openapi": openapi_routes.resolve,
    "rest": rest_routes.resolve,
}
"""Host prefix → its routes."""

_GAP_S: Final = 0.001
"""Between two pieces of a chunk."""

# (on, 0 seconds): closing sends RST and throws away what was not sent.
_NO_LINGER: Final = struct.pack("ii", 1, 0)


def make_runner(world: World) -> web.ServerRunner:
    """A server over `world`, to be bound to a socket. aiohttp's router is left out: a prefix needs none."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        stats = world.stats  # a call from before a reset does not count after it
        try:
            call = await read_call(request, world)
        except (ConnectionError, web.RequestPayloadError):
            return reset(request)  # the client left in the middle of its body
        try:
            route, outcome = await answer(world, call)
        finally:
            if call.spool is not None:
                world.storage.discard(call.spool)
        stats.count(route, str(outcome if isinstance(outcome, Ending) else outcome.status))
        return await send(request, outcome)

    server = web.Server(handler=handle, request_factory=_make_request, access_log=None)
    return web.ServerRunner(server, shutdown_timeout=0.5)


async def read_call(request: web.BaseRequest, world: World) -> Call:
    """The whole HTTP request as a value; the bytes of an upload lie in a file already."""
    path = request.path
    spool = None
    if carries_file(request.method, path):
        try:
            spool = await world.storage.receive(request.content.iter_any(), MAX_BODY_BYTES)
        except TooLarge:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, request.content_length or 0) from None
    return Call(
        method=request.method,
        path=path,
        tail=path[1:].partition("/")[2],
        query=request.query,
        headers=request.headers,
        body=await request.read() if request.can_read_body and spool is None else b"",
        origin=f"{request.scheme}://{request.host}",
        has_left=lambda: _has_left(request),
        spool=spool,
    )


async def answer(world: World, call: Call) -> tuple[str, Outcome]:
    """What comes of a call, and the name under which it is counted."""
    prefix = call.path[1:].partition("/")[0]
    if prefix == "sandbox":
        return prefix, await control_routes.answer(world, call)
    resolver = _RESOLVERS.get(prefix)
    if resolver is None:
        return "unknown", NOT_FOUND
    resolved = resolver(world, call)
    if not isinstance(resolved, Operation):
        return prefix, resolved
    return resolved.target.where, await perform(world, resolved)


async def send(request: web.BaseRequest, outcome: Outcome) -> web.StreamResponse:
    """Put `outcome` on the wire. A reset returns a response that goes nowhere, as aiohttp wants one."""
    match outcome:
        case Reply(announced=None):
            headers = {"Content-Type": outcome.content_type, **outcome.headers}
            return web.Response(status=outcome.status, body=outcome.body, headers=headers)
        case Reply():
            return await _send_short(request, outcome)
        case Stream():
            return await _send_stream(request, outcome)
        case Socket():
            return await _converse(request, outcome)
        case Ending.HANG:
            await _client_left(request)
            return reset(request)
        case Ending.RESET:
            return reset(request)


def reset(request: web.BaseRequest) -> web.Response:
    """End the connection with a TCP RST."""
    transport = request.transport
    if transport is not None:
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.abort()
    return web.Response()


async def _send_short(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    """A body that ends before its announced length."""
    headers = {"Content-Type": reply.content_type, **reply.headers, "Content-Length": str(reply.announced)}
    response = web.StreamResponse(status=reply.status, headers=headers)
    response.force_close()
    await response.prepare(request)
    if request.method != "HEAD":
        await response.write(reply.body)
    return reset(request) if reply.resets else response


async def _send_stream(request: web.BaseRequest, stream: Stream) -> web.StreamResponse:
    headers = {"Content-Type": stream.content_type, **stream.headers}
    response = web.StreamResponse(status=stream.status, headers=headers)
    response.force_close()
    try:
        # A client that leaves in the middle is none of the sandbox's trouble.
        with suppress(ConnectionError):
            await response.prepare(request)
            while request.method != "HEAD" and (chunk := await stream.next_chunk()) is not None:
                if stream.ragged:
                    first, chunk = _halves(chunk)
                    await response.write(first)
                    await asyncio.sleep(_GAP_S)  # or both would arrive as one
                await response.write(chunk)
    finally:
        if stream.closed is not None:
            stream.closed()
    return response


def _halves(chunk: bytes) -> tuple[bytes, bytes]:
    """Two pieces, the border inside the first character of several bytes, if there is one."""
    border = next((place + 1 for place, byte in enumerate(chunk) if byte >= 0xC0), len(chunk) // 2)
    return chunk[:border], chunk[border:]


async def _converse(request: web.BaseRequest, accepted: Socket) -> web.StreamResponse:
    connection = web.WebSocketResponse(max_msg_size=MAX_BODY_BYTES)
    connection.headers.update(accepted.headers)
    await connection.prepare(request)
    await accepted.talk(_Wire(request, connection))
    await connection.close()
    return connection


class _Wire:
    """`replies.Wire` over aiohttp."""

    def __init__(self, request: web.BaseRequest, connection: web.WebSocketResponse) -> None:
        self._request = request
        self._connection = connection

    async def receive(self) -> bytes | str | None:
        message = await self._connection.receive()
        # A message that breaks the protocol or is too large ends the connection, as a close does.
        return message.data if message.type in {web.WSMsgType.BINARY, web.WSMsgType.TEXT} else None

    async def send(self, message: bytes | str) -> None:
        with suppress(ConnectionError):
            if isinstance(message, bytes):
                await self._connection.send_bytes(message)
            else:
                await self._connection.send_str(message)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self._connection.close(code=code, message=reason.encode())

    def reset(self) -> None:
        reset(self._request)

    def has_left(self) -> bool:
        return _has_left(self._request)


async def _client_left(request: web.BaseRequest) -> None:
    # aiohttp offers no event for this without cancelling every handler whose client leaves.
    while not _has_left(request):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def _has_left(request: web.BaseRequest) -> bool:
    return request.transport is None or request.transport.is_closing()


def _make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY_BYTES)
