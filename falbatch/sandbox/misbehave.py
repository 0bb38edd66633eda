"""Carries an operation out, well or as a fault rule wants it. The replies that faults make are pure functions."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from falbatch.sandbox.faults import Do, Rule, Where
from falbatch.sandbox.hostile import mistreat
from falbatch.sandbox.queue_routes import TOO_EARLY
from falbatch.sandbox.replies import (
    EVENTS_TYPE,
    JSON_TYPE,
    NOT_FOUND,
    Ending,
    Operation,
    Outcome,
    Reply,
    Socket,
    Stream,
    detail_reply,
    error_reply,
    json_reply,
    platform_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from falbatch.sandbox.replies import Wire
    from falbatch.sandbox.world import World

_SERVER_TYPES: Final[Mapping[int, str]] = {
    500: "internal_error",
    502: "runner_incomplete_response",
    503: "runner_scheduling_failure",
    504: "request_timeout",
}
"""fal's word for a 5xx of its own (fal-protocol §8.2)."""

_NGINX_PAGE: Final = (
    "<html>\r\n<head><title>{0}</title></head>\r\n<body>\r\n<center><h1>{0}</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)

_PAGE: Final = b"<!doctype html><title>Sorry</title><p>This is not what you asked for."

_MASK: Final = 0x5A


async def perform(world: World, operation: Operation) -> Outcome:
    """Carry `operation` out, unless a fault rule meets it: then as the rule says."""
    rule = world.faults.meet(operation.target)
    if rule is None:
        return await operation.run()
    world.note_faults()
    return await _misbehave(world, operation, rule)


async def _misbehave(world: World, operation: Operation, rule: Rule) -> Outcome:
    """What each fault does around carrying the operation out, or instead of it."""
    match rule.do:
        case Do.DROP_BEFORE:
            return Ending.RESET
        case Do.REDIRECT:
            return Reply(307, b"", {"Location": rule.word})
        case Do.LATE:
            return NOT_FOUND if operation.target.where is Where.FILE else TOO_EARLY
        case Do.STATUS:
            if rule.accepted:
                await operation.run()
            return refusal(rule, operation.request_id or world.stray_id())
        case Do.REQUEUE:
            world.engine.requeue(world.requests[operation.request_id], world.now())
        case Do.LOCK:
            world.lock(operation.account, locked=True)
        case _:
            pass
    outcome = await operation.run()
    if rule.do is Do.DELAY:
        await asyncio.sleep(rule.amount)
    request = world.requests.get(operation.request_id or outcome.headers.get("x-fal-request-id", ""))
    ordinal = 0 if request is None else request.ordinal
    return spoil(rule, outcome, ordinal, is_file=operation.target.where is Where.FILE)


def refusal(rule: Rule, request_id: str) -> Reply:
    """The reply of a `status` rule: fal's own error with its id, or the page of the ingress without."""
    code = int(rule.amount)
    headers = {} if rule.retry_after is None else {"Retry-After": f"{rule.retry_after:g}"}
    phrase = HTTPStatus(code).phrase if code in {*HTTPStatus} else "Unknown"
    if rule.nginx:
        page = _NGINX_PAGE.format(f"{code} {phrase}").encode()
        return _with_body(Reply(code, page, headers, "text/html"), rule.body)
    if rule.where is Where.PLATFORM:
        return _with_body(platform_error(code, phrase, headers), rule.body)
    headers["x-fal-request-id"] = request_id
    if code >= 500:
        reply = error_reply(code, _SERVER_TYPES.get(code, "internal_error"), phrase, headers)
    else:
        reply = detail_reply(code, phrase, headers)
    return _with_body(reply, rule.body)


def spoil(rule: Rule, outcome: Outcome, ordinal: int, *, is_file: bool) -> Outcome:
    """What is left of a good outcome under `rule`; unchanged where the rule is about something else.

    `ordinal` is the place of the request called about among all of the sandbox, 0 without one.
    """
    match outcome:
        case Reply():
            return _spoil_reply(rule, outcome, ordinal, is_file=is_file)
        case Stream():
            return _spoil_stream(rule, outcome)
        case Socket():
            talk = outcome.talk
            return replace(outcome, talk=lambda wire: talk(_SpoiltWire(rule, wire)))
        case Ending():
            return outcome


def _spoil_reply(rule: Rule, reply: Reply, ordinal: int, *, is_file: bool) -> Outcome:
    match rule.do:
        case Do.HANG:
            return Ending.HANG
        case Do.DROP_AFTER:
            return replace(_cut(reply), resets=True) if is_file else Ending.RESET
        case Do.TRUNCATE:
            return _cut(reply, quiet=rule.quiet)
        case Do.CORRUPT:
            return replace(reply, body=garble(reply))
        case Do.WRONG_TYPE:
            return replace(reply, body=_PAGE)
        case _:
            return mistreat(rule, reply, ordinal)


def _spoil_stream(rule: Rule, stream: Stream) -> Outcome:
    match rule.do:
        case Do.HANG:
            return Ending.HANG
        case Do.DROP_AFTER:
            return Ending.RESET
        case Do.TRUNCATE:
            return _one_event(stream)
        case Do.CORRUPT:
            return _changed(stream, lambda chunk: garble(Reply(200, chunk, content_type=stream.content_type)))
        case Do.WRONG_TYPE:
            return _changed(_one_event(stream), lambda _: _PAGE)
        case _:
            return stream


def garble(reply: Reply) -> bytes:
    """A body that no reader of its type takes: its magic bytes and every 97th are wrong, or its JSON is none.

    Of the same length, but for events.
    """
    if reply.content_type == JSON_TYPE:
        return reply.body[1:] + b","
    if reply.content_type == EVENTS_TYPE:
        return reply.body.replace(b"{", b"", 1)
    body = bytearray(reply.body)
    for place in [*range(min(16, len(body))), *range(16, len(body), 97)]:
        body[place] ^= _MASK
    return bytes(body)


def _with_body(reply: Reply, body: object) -> Reply:
    if body is None:
        return reply
    if isinstance(body, str):
        kind = reply.content_type if reply.content_type != JSON_TYPE else "text/plain"
        return replace(reply, body=body.encode(), content_type=kind)
    return replace(reply, body=json_reply(0, body).body, content_type=JSON_TYPE)


def _cut(reply: Reply, *, quiet: bool = False) -> Reply:
    half = reply.body[: len(reply.body) // 2]
    return replace(reply, body=half, announced=None if quiet else len(reply.body))


def _one_event(stream: Stream) -> Stream:
    chunks_left = 1

    async def next_chunk() -> bytes | None:
        nonlocal chunks_left
        chunks_left -= 1
        return await stream.next_chunk() if chunks_left == 0 else None

    return replace(stream, next_chunk=next_chunk)


def _changed(stream: Stream, change: Callable[[bytes], bytes]) -> Stream:
    async def next_chunk() -> bytes | None:
        chunk = await stream.next_chunk()
        return None if chunk is None else change(chunk)

    return replace(stream, next_chunk=next_chunk)


class _SpoiltWire:
    """A WebSocket whose answers fare as a rule wants it."""

    def __init__(self, rule: Rule, wire: Wire) -> None:
        self._rule = rule
        self._wire = wire
        self.receive = wire.receive
        self.close = wire.close
        self.reset = wire.reset
        self.has_left = wire.has_left

    async def send(self, message: bytes | str) -> None:
        match self._rule.do:
            case Do.DROP_AFTER:
                self._wire.reset()
            case Do.HANG:
                pass
            case Do.WRONG_TYPE:
                await self._wire.send(_PAGE.decode())
            case Do.TRUNCATE:
                await self._wire.send(message[: len(message) // 2])
            case Do.CORRUPT if isinstance(message, bytes):
                await self._wire.send(garble(Reply(200, message, content_type="application/msgpack")))
            case Do.CORRUPT:
                await self._wire.send(f"{message[1:]!s},")
            case _:
                await self._wire.send(message)
