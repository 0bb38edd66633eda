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
    JSON_TYPE,
    NOT_FOUND,
    Ending,
    Operation,
    Outcome,
    Reply,
    Stream,
    detail_reply,
    error_reply,
    json_reply,
    platform_error,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    if rule.do is Do.HANG:
        return Ending.HANG
    request = world.requests.get(operation.request_id)
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
    match rule.do:
        case Do.DROP_AFTER:
            if is_file and isinstance(outcome, Reply):
                return replace(_cut(outcome), resets=True)
            return Ending.RESET
        case Do.TRUNCATE:
            if isinstance(outcome, Stream):
                return _one_event(outcome)
            return _cut(outcome, quiet=rule.quiet) if isinstance(outcome, Reply) else outcome
        case Do.CORRUPT:
            return replace(outcome, body=garble(outcome)) if isinstance(outcome, Reply) else outcome
        case Do.WRONG_TYPE:
            page = b"<!doctype html><title>Sorry</title><p>This is not what you asked for."
            return replace(outcome, body=page) if isinstance(outcome, Reply) else outcome
        case _:
            return mistreat(rule, outcome, ordinal) if isinstance(outcome, Reply) else outcome


def garble(reply: Reply) -> bytes:
    """A body of the same length that no reader of its type takes: its magic bytes and every 97th are wrong."""
    if reply.content_type == JSON_TYPE:
        return reply.body[1:] + b","
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
