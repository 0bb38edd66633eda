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

from falbatch.sandbox import cdn_routes, control_routes, platform_routes, queue_routes
from falbatch.sandbox.misbehave import perform
from falbatch.sandbox.replies import NOT_FOUND, Call, Ending, Operation, Outcome, Reply, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from falbatch.sandbox.world import World

MAX_BODY_BYTES: Final = 256 * 1024 * 1024
"""Of one call. fal's own bound is unknown (§15); data URIs may make inputs big."""

_RESOLVERS: Final[dict[str, Callable[[World, Call], Operation | Reply]]] = {
    "queue": queue_routes.resolve,
    "cdn": cdn_routes.resolve,
    "api": platform_routes.resolve,
}
"""Host prefix → its routes."""

# (on, 0 seconds): closing sends RST and throws away what was not sent.
_NO_LINGER: Final = struct.pack("ii", 1, 0)


def make_runner(world: World) -> web.ServerRunner:
    """A server over `world`, to be bound to a socket. aiohttp's router is left out: a prefix needs none."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        stats = world.stats  # a call from before a reset does not count after it
        route, outcome = await answer(world, await read_call(request))
        stats.count(route, str(outcome if isinstance(outcome, Ending) else outcome.status))
        return await send(request, outcome)

    server = web.Server(handler=handle, request_factory=_make_request, access_log=None)
    return web.ServerRunner(server, shutdown_timeout=0.5)


async def read_call(request: web.BaseRequest) -> Call:
    """The whole HTTP request as a value."""
    path = request.path
    return Call(
        method=request.method,
        path=path,
        tail=path[1:].partition("/")[2],
        query=request.query,
        headers=request.headers,
        body=await request.read() if request.can_read_body else b"",
        origin=f"{request.scheme}://{request.host}",
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
    if isinstance(resolved, Reply):
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
    # A client that leaves in the middle is none of the sandbox's trouble.
    with suppress(ConnectionError):
        await response.prepare(request)
        while request.method != "HEAD" and (chunk := await stream.next_chunk()) is not None:
            await response.write(chunk)
    return response


async def _client_left(request: web.BaseRequest) -> None:
    # aiohttp offers no event for this without cancelling every handler whose client leaves.
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def _make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY_BYTES)
