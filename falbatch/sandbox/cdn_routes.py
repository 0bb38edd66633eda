"""`/cdn/…`: public files, as v3b.fal.media serves them (fal-protocol §7). Drawn when asked for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from falbatch.faultpoints import fault_point
from falbatch.sandbox.faults import Target, Where
from falbatch.sandbox.outputs import Picture, file_path, pictures
from falbatch.sandbox.replies import METHOD_NOT_ALLOWED, NOT_FOUND, Call, Operation, Reply
from falbatch.sandbox.states import Status

if TYPE_CHECKING:
    from falbatch.sandbox.requests import Request
    from falbatch.sandbox.world import World

_FILE: Final = re.compile(r"files/(b/([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})/[^/]+)")
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")


def resolve(world: World, call: Call) -> Operation | Reply:
    """The file that `call` asks for; it needs no key, and one that comes along is counted as leaked."""
    if "Authorization" in call.headers:
        world.stats.leaked_keys += 1
    if call.method not in {"GET", "HEAD"}:
        return METHOD_NOT_ALLOWED
    found = _FILE.fullmatch(call.tail)
    request = world.requests.get("-".join(found.groups()[1:])) if found else None
    now = world.catch_up()
    if found is None or request is None:
        return NOT_FOUND
    picture = _picture_at(request, found[1])
    if picture is None:
        return NOT_FOUND

    async def run() -> Reply:
        body = await world.gallery.draw(picture)
        fault_point("sandbox.file")
        return serve(call, picture, body)

    since_end_s = None if request.ended_at is None else now - request.ended_at
    return Operation(Target(Where.FILE, request.endpoint, call.path, since_end_s=since_end_s), run)


def serve(call: Call, picture: Picture, body: bytes) -> Reply:
    """The whole of `body`, or the part that Range asks for (RFC 9110 §14): one range, 206 or 416."""
    headers = {
        "ETag": picture.etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "public, max-age=31536000, immutable",
    }
    wanted = call.headers.get("Range", "") if call.method == "GET" else ""
    if not wanted or call.headers.get("If-Range", picture.etag) != picture.etag:
        return Reply(200, body, headers, picture.content_type)
    span = parse_range(wanted, len(body))
    if span is None:
        return Reply(200, body, headers, picture.content_type)
    first, end = span
    if first >= end:
        return Reply(416, b"", {**headers, "Content-Range": f"bytes */{len(body)}"}, picture.content_type)
    headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(body)}"
    return Reply(206, body[first:end], headers, picture.content_type)


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """A Range header as (first byte, end), the end not included and cut at `size`; empty when it lies outside.

    None for what a server may ignore: several ranges, other units, nonsense.
    """
    found = _RANGE.fullmatch(text.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return max(0, size - int(found[2])), size
    if not found[2]:
        return int(found[1]), size
    first, last = int(found[1]), int(found[2])
    return None if last < first else (first, min(last + 1, size))


def _picture_at(request: Request, path: str) -> Picture | None:
    """The picture of a request that succeeded under `path`, or None."""
    if request.status is not Status.COMPLETED or request.verdict.status != 200:
        return None
    return next((made for made in pictures(request, request.payload) if file_path(request, made) == path), None)
