"""`/ws/…`: direct calls one after another over one WebSocket, as ws.fal.run takes them (fal-protocol §5.4)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from falbatch.sandbox.direct import NO_SOCKET, Caller, account_of_caller, answer_at_end, begin, refusal
from falbatch.sandbox.endpoints import parse_endpoint
from falbatch.sandbox.faults import Target, Where
from falbatch.sandbox.inbox import Inbox
from falbatch.sandbox.queue_routes import BAD_KEY
from falbatch.sandbox.replies import JSON_TYPE, NOT_FOUND, Call, Operation, Reply, Socket, dumps

if TYPE_CHECKING:
    from falbatch.sandbox.replies import Wire
    from falbatch.sandbox.world import World


def resolve(world: World, call: Call) -> Operation | Reply:
    """The conversation that `call` asks for, or its refusal."""
    endpoint = parse_endpoint(call.tail)
    account = account_of_caller(world, call, endpoint)
    if account is None:
        return BAD_KEY
    if endpoint is None:
        return NOT_FOUND
    if not call.is_handshake:
        return NO_SOCKET
    caller = Caller(call, account, endpoint, Where.REALTIME)

    async def run() -> Reply | Socket:
        return refusal(world, caller) or Socket(lambda wire: _talk(world, caller, wire))

    return Operation(Target(Where.REALTIME, endpoint.full, call.path), run, account=account)


async def _talk(world: World, caller: Caller, wire: Wire) -> None:
    """Each message is a body; each answer a start, the body, and an end."""
    async with Inbox(wire) as inbox:
        there = replace(caller, call=replace(caller.call, has_left=inbox.has_left))
        while (message := await inbox.next()) is not None:
            began = world.now()
            request = begin(world, there, message.encode() if isinstance(message, str) else message)
            reply = request if isinstance(request, Reply) else await answer_at_end(world, there, request)
            common = {"request_id": reply.headers.get("x-fal-request-id", ""), "status": reply.status}
            await _tell(wire, {"type": "start", **common, "headers": dict(reply.headers)})
            await wire.send(reply.body.decode() if reply.content_type == JSON_TYPE else reply.body)
            took_s = round(world.now() - began, 6)
            await _tell(wire, {"type": "end", **common, "time_to_first_byte_seconds": took_s})


async def _tell(wire: Wire, event: dict[str, Any]) -> None:
    await wire.send(dumps(event).decode())
