"""`/run/…/realtime`: a WebSocket on which each message is a request of its own (fal-protocol §5.3).

Messages are answered one after another, in msgpack or JSON as they came. Files come inside the answer where the
endpoint knows `sync_mode`, as bytes in msgpack; of the others the URLs come. As in fal's own apps, what an app cannot
answer ends the connection after its error, and silence ends it with the error TIMEOUT. An open connection takes none
of the account's places; each message does while it runs.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox.answers import answer
from falbatch.sandbox.direct import begin, has_ended, refusal
from falbatch.sandbox.inbox import Inbox
from falbatch.sandbox.outputs import inference_s
from falbatch.sandbox.replies import Reply, Socket, detail_reply, dumps

if TYPE_CHECKING:
    from falbatch.sandbox.direct import Caller
    from falbatch.sandbox.inbox import Message
    from falbatch.sandbox.replies import Wire
    from falbatch.sandbox.requests import Request
    from falbatch.sandbox.world import World

_BUFFERING: Final = range(1, 61)
"""What `max_buffering` may be."""

_POLICY_VIOLATION: Final = 1008
"""Close code of RFC 6455."""


def connect(world: World, caller: Caller) -> Reply | Socket:
    """The answer to a handshake: a conversation, or a plain refusal."""
    asked = caller.call.query.get("max_buffering")
    if asked is not None and (not asked.isdecimal() or int(asked) not in _BUFFERING):
        return detail_reply(422, f"max_buffering: expected a whole number from 1 to 60, not {asked!r}")
    drops_beyond = None if asked is None else int(asked)

    async def talk(wire: Wire) -> None:
        async with Inbox(wire, drops_beyond) as inbox:
            # From here on a caller leaves as one does who closes a WebSocket.
            there = replace(caller, call=replace(caller.call, has_left=inbox.has_left))
            await _Session(world, there, wire, inbox).talk()

    return refusal(world, caller) or Socket(talk)


async def _refuse(wire: Wire) -> None:
    """What a bad token gets: the handshake succeeded, the conversation does not."""
    await wire.send(dumps({"status": "error", "error": "Unauthorized"}).decode())
    await wire.close(_POLICY_VIOLATION, "Unauthorized")


UNAUTHORIZED: Final = Socket(_refuse)


class _Session:
    """One connection."""

    def __init__(self, world: World, caller: Caller, wire: Wire, inbox: Inbox) -> None:
        self._world = world
        self._caller = caller
        self._wire = wire
        self._inbox = inbox

    async def talk(self) -> None:
        """Answer messages until the client goes, is silent for too long, or sends what cannot be answered."""
        try:
            while (message := await self._inbox.next(self._world.behaviour.scenario.realtime_idle_s)) is not None:
                if not await self._answer(message):
                    return
        except TimeoutError:
            await self._send_error("TIMEOUT", "no inputs, reconnect when needed!")
            await self._wire.close(reason="TIMEOUT")

    async def _answer(self, message: Message) -> bool:
        """Carry one message out and answer it; False when that was the last one."""
        try:
            raw = json_of(message)
        except ValueError as error:
            await self._send_error("INTERNAL_ERROR", f"the message cannot be decoded: {error}")
            return False
        request = begin(self._world, self._caller, raw)
        if isinstance(request, Reply):
            await self._send_error(*_error_of(request))
            return request.status == 429
        if not await has_ended(self._world, request, self._caller.call.has_left):
            return False
        reply = await answer(self._world, with_files_inside(request), self._caller.call.origin)
        if reply.status != 200:
            await self._send_error(*_error_of(reply))
            return False
        output = json.loads(reply.body)
        output["request_id"] = request.payload.get("request_id", request.id)
        await self._wire.send(encode(output) if isinstance(message, bytes) else dumps(output).decode())
        timings = {"type": "x-fal-message", "action": "timings", "timing": inference_s(request)}
        await self._wire.send(dumps(timings).decode())
        return True

    async def _send_error(self, error: str, reason: str) -> None:
        await self._wire.send(dumps({"type": "x-fal-error", "error": error, "reason": reason}).decode())


def with_files_inside(request: Request) -> Request:
    """The same request as if it had asked for its files in the output."""
    return replace(request, raw=dumps({**request.payload, "sync_mode": True}))


def encode(output: dict[str, Any]) -> bytes:
    """An output as msgpack, data URIs in it as plain bytes under `content`."""
    import ormsgpack

    return ormsgpack.packb(_with_bytes(output))


def _with_bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_bytes(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    url = value.get("url")
    if isinstance(url, str) and url.startswith("data:"):
        rest = {name: member for name, member in value.items() if name != "url"}
        return {"content": base64.b64decode(url.partition(",")[2]), **rest}
    return {name: _with_bytes(member) for name, member in value.items()}


def json_of(message: Message) -> bytes:
    """A message as JSON, bytes in it as data URIs. Raises ValueError for what is no msgpack."""
    if isinstance(message, str):
        return message.encode("utf-8", "surrogatepass")
    import ormsgpack

    return json.dumps(ormsgpack.unpackb(message), default=_data_uri, separators=(",", ":")).encode()


def _data_uri(value: object) -> str:
    """Bytes in an input as a data URI. Raises TypeError for anything else that is not JSON."""
    if not isinstance(value, bytes):
        raise TypeError(type(value).__name__)
    return f"data:application/octet-stream;base64,{base64.b64encode(value).decode()}"


def _error_of(reply: Reply) -> tuple[str, str]:
    """A refusal or a failure as the `error` and `reason` of an error message."""
    body = json.loads(reply.body)
    detail = body["detail"]
    if isinstance(detail, str):
        return body.get("error_type", "INTERNAL_ERROR"), detail
    return "INTERNAL_ERROR", "; ".join(f"{'.'.join(map(str, entry['loc'][1:]))}: {entry['msg']}" for entry in detail)
