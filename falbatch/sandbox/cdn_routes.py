"""`/cdn/…`: public files, as v3b.fal.media serves them (fal-protocol §7). Drawn when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from falbatch.faultpoints import fault_point
from falbatch.sandbox import upload_routes
from falbatch.sandbox.access import note_leak, refusal
from falbatch.sandbox.faults import Target, Where
from falbatch.sandbox.ranges import span_of
from falbatch.sandbox.replies import METHOD_NOT_ALLOWED, NOT_FOUND, Call, Operation, Reply
from falbatch.sandbox.sources import file_at

if TYPE_CHECKING:
    from falbatch.sandbox.media import Medium
    from falbatch.sandbox.world import World


def resolve(world: World, call: Call) -> Operation | Reply:
    """The file that `call` asks for; it needs no key, and one that comes along is counted as leaked."""
    note_leak(world, call)
    uploaded = upload_routes.resolve(world, call)
    if uploaded is not None:
        return uploaded
    if call.method not in {"GET", "HEAD"}:
        return METHOD_NOT_ALLOWED
    now = world.catch_up()
    found = file_at(world, call.tail)
    if found is None:
        return NOT_FOUND
    request, medium = found
    refused = refusal(world, call, now)
    if refused is not None:
        return refused

    async def run() -> Reply:
        body = await world.gallery.draw(medium)
        fault_point("sandbox.file")
        return serve(call, medium, body)

    since_end_s = None if request.ended_at is None else now - request.ended_at
    return Operation(Target(Where.FILE, request.endpoint, call.path, since_end_s=since_end_s), run)


def serve(call: Call, medium: Medium, body: bytes) -> Reply:
    """The whole of `body`, or the part that Range asks for (RFC 9110 §14): one range, 206 or 416."""
    headers = {
        "ETag": medium.etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "public, max-age=31536000, immutable",
    }
    span = span_of(call, medium.etag, len(body))
    if span.content_range:
        headers["Content-Range"] = span.content_range
    return Reply(span.status, body[span.first : span.end], headers, medium.content_type)
