"""Replies of a server that means harm, or is badly broken: what a careful client must live through. No effects.

Each function takes the true reply and gives the one to send instead.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from falbatch.sandbox.faults import Do
from falbatch.sandbox.replies import JSON_TYPE, Reply, Stream, dumps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from falbatch.sandbox.faults import Rule

CHUNK_BYTES: Final = 64 * 1024

ENDLESS_BYTES: Final = 512 * 1024 * 1024
"""Where an endless body ends all the same, for the sake of whoever is still reading."""

DEPTH: Final = 100_000
"""Of `deep`: far beyond the stack of any parser that recurses."""

HOSTILE_NAMES: Final = (
    "../../../../evil",
    "/etc/passwd",
    "CON.png",
    "a\x1b[2J\x1b[31mred\x07\x00\n\r\x7f.png",
    "invoice\u202egnp.exe",
    "n" * 10_240 + ".png",
    "",
    ".",
    "..",
    "trailing. . . ",
)
"""What `names` puts into file objects; request number n of the sandbox gets the one at n modulo their number."""

_MEGABYTE: Final = 1024 * 1024


def mistreat(rule: Rule, reply: Reply, ordinal: int) -> Reply | Stream:
    """What `rule` makes of the true `reply`; unchanged where it is about something else.

    `ordinal` is the place of the request called about among all of the sandbox, 0 without one.
    """
    match rule.do:
        case Do.NAMES:
            return rename_files(reply, HOSTILE_NAMES[ordinal % len(HOSTILE_NAMES)])
        case Do.FOREIGN:
            return lead_away(reply, rule.word)
        case Do.FOREIGN_FILES:
            return _with_file_members(reply, {"url": rule.word})
        case Do.LINK:
            return add_link(reply, rule.word)
        case Do.ENDLESS:
            return endless(reply)
        case Do.DRIP:
            bytes_ = (reply.body[place : place + 1] for place in range(len(reply.body)))
            return _stream(reply, bytes_, length=len(reply.body), pause_s=rule.amount)
        case Do.HUGE:
            return huge(reply, int(rule.amount * _MEGABYTE))
        case Do.DEEP:
            return replace(reply, body=b"[" * DEPTH + reply.body + b"]" * DEPTH)
        case Do.TYPES:
            page = json.loads(reply.body)
            return replace(reply, body=dumps({key: absurd(value, key) for key, value in page.items()}))
        case _:
            return reply


def rename_files(reply: Reply, name: str) -> Reply:
    """The same result with `name` as the file_name of all its files."""
    return _with_file_members(reply, {"file_name": name})


def lead_away(reply: Reply, origin: str) -> Reply:
    """A submit's reply whose three URLs lead to `origin`, under their own paths."""
    if reply.status != 200:
        return reply
    page = json.loads(reply.body)
    for name in ("status_url", "response_url", "cancel_url"):
        page[name] = origin.rstrip("/") + urlsplit(page[name]).path
    return replace(reply, body=dumps(page))


def add_link(reply: Reply, url: str) -> Reply:
    """The same result with a link beside its files, as some models give to a licence or a web page."""
    if reply.status != 200:
        return reply
    return replace(reply, body=dumps({**json.loads(reply.body), "more_info": url}))


def endless(reply: Reply) -> Stream:
    """A 200 that begins as the true reply does and goes on in its manner: a long string, or a long picture."""
    if reply.content_type == JSON_TYPE:
        first, more = _open_json(reply.body), b"x" * CHUNK_BYTES
    else:
        first = reply.body
        more = ((first or b"\0") * CHUNK_BYTES)[:CHUNK_BYTES] if len(first) < CHUNK_BYTES else first[:CHUNK_BYTES]
    whole = replace(reply, status=200, headers=_without(reply.headers, "Content-Range"))
    return _stream(whole, chain([first], repeat(more, ENDLESS_BYTES // CHUNK_BYTES)), length=None)


def huge(reply: Reply, size: int) -> Stream:
    """The true JSON object with one more member, a string that makes the body `size` bytes long."""
    first, last = _open_json(reply.body), b'"}'
    padding = max(0, size - len(first) - len(last))
    whole, rest = divmod(padding, CHUNK_BYTES)
    chunks = chain([first], repeat(b"x" * CHUNK_BYTES, whole), [b"x" * rest + last])
    return _stream(reply, chunks, length=len(first) + padding + len(last))


def absurd(value: Any, key: str = "") -> Any:
    """A value of another type: null for ids, numbers for texts, lists for objects, texts for numbers.

    A list stays one, so that what is in it can be absurd as well.
    """
    if key == "id" or key.endswith("_id"):
        return None
    match value:
        case str():
            return len(value)
        case dict():
            return list(value)
        case list():
            return [
                {name: absurd(member, name) for name, member in entry.items()}
                if isinstance(entry, dict)
                else absurd(entry)
                for entry in value
            ]
        case None:
            return {}
        case _:
            return json.dumps(value)


def _with_file_members(reply: Reply, members: Mapping[str, str]) -> Reply:
    """The same result with `members` in each of its file objects: whatever has a `url`."""
    if reply.status != 200:
        return reply

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            inner = {key: changed(member) for key, member in value.items()}
            return {**inner, **members} if isinstance(value.get("url"), str) else inner
        return [changed(entry) for entry in value] if isinstance(value, list) else value

    return replace(reply, body=dumps(changed(json.loads(reply.body))))


def _open_json(body: bytes) -> bytes:
    """A JSON object, open at the inside of a string member that it did not have."""
    inside = body.strip()[:-1]
    return inside + (b"" if inside == b"{" else b",") + b'"padding":"'


def _stream(reply: Reply, chunks: Iterator[bytes], *, length: int | None, pause_s: float = 0.0) -> Stream:
    """`reply` with `chunks` for its body, a pause between each two; chunked when there is no `length`."""
    headers = dict(reply.headers) | ({} if length is None else {"Content-Length": str(length)})
    is_first = True

    async def next_chunk() -> bytes | None:
        nonlocal is_first
        if not is_first:
            # Also of 0 seconds: a client that reads fast must not keep the others waiting.
            await asyncio.sleep(pause_s)
        is_first = False
        return next(chunks, None)

    return Stream(next_chunk, headers, reply.status, reply.content_type)


def _without(headers: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key != name}
