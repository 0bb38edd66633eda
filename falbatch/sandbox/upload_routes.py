"""`/cdn/…` of files that clients upload: taking them in, signing links, and serving them (fal-protocol §6, §7).

The steps of an upload, as fault rules name them in `endpoint`: `file` (the bytes at once), `create`, `part/1`,
`part/2` …, `complete`; `token` and `initiate` are in `storage_routes`.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any, Final

from falbatch.faultpoints import fault_point
from falbatch.sandbox import passes
from falbatch.sandbox.access import FORBIDDEN, cdn_account, policy_at, refusal, signed_url, url_of
from falbatch.sandbox.deposits import StoredFile, Upload, mistake_in
from falbatch.sandbox.faults import Target, Where
from falbatch.sandbox.ids import fingerprint
from falbatch.sandbox.lifecycle import Decision, is_seconds, read_headers
from falbatch.sandbox.ranges import span_of
from falbatch.sandbox.replies import (
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    Call,
    Operation,
    Reply,
    Stream,
    detail_reply,
    json_reply,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from falbatch.sandbox.world import World

MAX_PARTS: Final = 10_000
"""As S3 and its kin have it; fal's bound is unknown."""

MAX_SIGNED_S: Final = 7 * 86_400
DEFAULT_SIGNED_S: Final = 86_400

WHOLE_BYTES: Final = 16 * 1024 * 1024
"""What is longer is sent piece by piece, and only faults that go with a stream meet it."""

PIECE_BYTES: Final = 1024 * 1024

BAD_TOKEN: Final = detail_reply(401, "Invalid or expired CDN token")
ALREADY_COMPLETE: Final = detail_reply(400, "The upload is complete already")
NO_SUCH_UPLOAD: Final = detail_reply(404, "Upload not found")

_FILE: Final = re.compile(r"files/b/[0-9a-f]{8}/[^/]+")
_SIGN: Final = re.compile(r"(files/b/[0-9a-f]+/[^/]+)/sign")
_IN_PARTS: Final = re.compile(r"(files/b/[0-9a-f]{8}/[^/]+)/multipart/([0-9a-f]+)/(complete|\d{1,6})")
_TARGET: Final = re.compile(r"uploads/([0-9a-f]+)(?:/(complete|\d{1,6}))?")


def carries_file(method: str, path: str) -> bool:
    """Whether the body of a call to the CDN is to be kept as a file instead of being read."""
    return path.startswith("/cdn/") and (method == "PUT" or (method == "POST" and path == "/cdn/files/upload"))


def resolve(world: World, call: Call) -> Operation | Reply | None:
    """What `call` asks of uploaded files; None where it is about a file that a request made, or about none."""
    now = world.now()
    if call.tail in {"files/upload", "files/upload/multipart"}:
        return _begin(world, call, now)
    if found := _IN_PARTS.fullmatch(call.tail):
        return _about_parts(world, call, now, found[1], found[2], found[3])
    if found := _TARGET.fullmatch(call.tail):
        return _about_target(world, call, now, found[1], found[2] or "")
    if found := _SIGN.fullmatch(call.tail):
        return _sign(world, call, now, found[1])
    if _FILE.fullmatch(call.tail):
        return _read(world, call, now)
    return None


def _begin(world: World, call: Call, now: float) -> Operation | Reply:
    """An upload by CDN token (§6.1, §6.2): the bytes at once, or the creation of one in parts."""
    if call.method != "POST":
        return METHOD_NOT_ALLOWED
    account = cdn_account(world, call, now)
    if account is None:
        return BAD_TOKEN
    in_parts = call.tail.endswith("/multipart")

    async def run() -> Reply:
        try:
            wanted = read_headers(call.headers).over(world.storage.settings_of(account, now))
        except ValueError as error:
            return detail_reply(400, str(error))
        kind = call.headers.get("Content-Type", "")
        upload = world.storage.begin(account, kind, call.headers.get("X-Fal-File-Name", ""), wanted, in_parts=in_parts)
        page = {"access_url": url_of(call, upload.path)}
        if in_parts:
            world.storage.open(upload)
            return json_reply(200, page | {"uploadId": upload.id})
        if call.spool is None:
            return METHOD_NOT_ALLOWED
        world.storage.keep(upload, call.spool, world.now())
        return json_reply(200, page)

    return _operation(call, "create" if in_parts else "file", account, run)


def _about_parts(world: World, call: Call, now: float, path: str, upload_id: str, what: str) -> Operation | Reply:
    """A part of an upload by CDN token, or its completion (§6.2)."""
    account = cdn_account(world, call, now)
    if account is None:
        return BAD_TOKEN
    upload = world.storage.upload(upload_id)
    if upload is None or upload.path != path or upload.owner != account:
        return NO_SUCH_UPLOAD
    return _send_or_complete(world, call, upload, what)


def _about_target(world: World, call: Call, now: float, upload_id: str, what: str) -> Operation | Reply:
    """A call to the target of `initiate` or `initiate-multipart`: its signature alone lets it in (§6.3)."""
    claims = passes.check(world.behaviour.seed, passes.Kind.TARGET, call.query.get("signature", ""), now)
    if claims is None or claims["upload"] != upload_id:
        return FORBIDDEN
    upload = world.storage.upload(upload_id)
    if upload is None or upload.in_parts != bool(what):
        return NO_SUCH_UPLOAD
    if what:
        return _send_or_complete(world, call, upload, what)
    spool = call.spool
    if call.method != "PUT" or spool is None:
        return METHOD_NOT_ALLOWED

    async def run() -> Reply:
        world.storage.keep(upload, spool, world.now())
        return json_reply(200, {})

    return _operation(call, "file", upload.owner, run)


def _send_or_complete(world: World, call: Call, upload: Upload, what: str) -> Operation | Reply:
    """A call about an upload in parts, by whoever may make it; `what` is a part's number, or `complete`."""
    if call.method != ("POST" if what == "complete" else "PUT"):
        return METHOD_NOT_ALLOWED

    async def run() -> Reply:
        if what == "complete":
            return await _complete(world, call, upload)
        return _keep_part(world, call, upload, int(what))

    return _operation(call, what if what == "complete" else f"part/{int(what)}", upload.owner, run)


def _keep_part(world: World, call: Call, upload: Upload, number: int) -> Reply:
    if not 1 <= number <= MAX_PARTS or call.spool is None:
        return detail_reply(400, f"part numbers go from 1 to {MAX_PARTS}")
    if upload.etags or upload.is_closing:
        return ALREADY_COMPLETE
    part = world.storage.keep_part(upload, number, call.spool)
    page = {"partNumber": number, "etag": part.etag}
    # What stands before the CDN compresses where it may, and the ETag gets lost on the way (§6.2).
    return json_reply(200, page, {} if _takes_compression(call) else {"ETag": part.etag})


async def _complete(world: World, call: Call, upload: Upload) -> Reply:
    """Complete an upload in parts. The same list once more gets the same answer: the first may have got lost."""
    listed = _member(call.body, "parts")
    done = json_reply(200, {"access_url": url_of(call, upload.path)})
    if upload.etags:
        return done if _etags_in_order(listed) == upload.etags else ALREADY_COMPLETE
    # fal's own Python client sends parts in the order in which they got through (§6.6), and gets away with it.
    mistake = mistake_in(listed, upload.parts, in_order=world.behaviour.scenario.sorted_parts)
    if mistake:
        return detail_reply(400, mistake)
    file = await world.storage.complete(upload, sorted(upload.parts), world.now())
    return NO_SUCH_UPLOAD if file is None else done


def _sign(world: World, call: Call, now: float, path: str) -> Reply:
    """A link to a restricted file, as text; only its owner gets one (§6.5)."""
    if call.method != "POST":
        return METHOD_NOT_ALLOWED
    account = cdn_account(world, call, now)
    policy = policy_at(world, path, now)
    if account is None:
        return BAD_TOKEN
    if policy is None or (policy.expires_at is not None and now >= policy.expires_at):
        return NOT_FOUND
    if account != policy.owner:
        return NOT_FOUND if policy.acl.decide(account) is Decision.HIDE else FORBIDDEN
    seconds = _member(call.body, "duration", DEFAULT_SIGNED_S)
    if not is_seconds(seconds) or not 0 < seconds <= MAX_SIGNED_S:
        return detail_reply(400, f"duration: expected seconds above 0, at most {MAX_SIGNED_S}")
    if _member(call.body, "scope", ["read"]) != ["read"]:
        return detail_reply(400, 'scope: expected ["read"]')
    return Reply(200, signed_url(world, call, path, now + seconds).encode(), {}, "text/plain; charset=utf-8")


def _read(world: World, call: Call, now: float) -> Operation | Reply:
    """GET or HEAD of an uploaded file, whole or a range of it."""
    if call.method not in {"GET", "HEAD"}:
        return METHOD_NOT_ALLOWED
    file = world.storage.find(call.tail, now)
    if file is None:
        return NOT_FOUND
    refused = refusal(world, call, now)
    if refused is not None:
        return refused

    async def run() -> Reply | Stream:
        reply = await serve(call, file, world.storage.place_of(file))
        fault_point("sandbox.file")
        return reply

    target = Target(Where.FILE, "", call.path, since_end_s=now - file.uploaded_at)
    return Operation(target, run)


async def serve(call: Call, file: StoredFile, place: Path) -> Reply | Stream:
    """The bytes of `file` at `place`, or the part of them that Range asks for."""
    is_public = file.acl.default is Decision.ALLOW and file.expires_at is None
    headers = {
        "ETag": file.etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "public, max-age=31536000, immutable" if is_public else "private, no-store",
    }
    span = span_of(call, file.etag, file.size)
    if span.content_range:
        headers["Content-Range"] = span.content_range
    if call.method == "HEAD":
        return Reply(span.status, b"", headers, file.content_type, announced=file.size)
    if span.end - span.first <= WHOLE_BYTES:
        body = await asyncio.to_thread(_piece, place, span.first, span.end - span.first)
        return Reply(span.status, body, headers, file.content_type)
    position = span.first

    async def next_chunk() -> bytes | None:
        nonlocal position
        chunk = await asyncio.to_thread(_piece, place, position, min(PIECE_BYTES, span.end - position))
        position += len(chunk)
        return chunk or None

    return Stream(next_chunk, headers | {"Content-Length": str(span.end - span.first)}, span.status, file.content_type)


def _piece(place: Path, first: int, size: int) -> bytes:
    """Bytes of a file; empty where it was deleted meanwhile, so that the reader gets too few."""
    try:
        with place.open("rb") as file:
            file.seek(first)
            return file.read(size)
    except FileNotFoundError:
        return b""


def _operation(call: Call, step: str, account: str, run: Callable[[], Awaitable[Reply]]) -> Operation:
    key = fingerprint(call.body) if call.spool is None else call.spool.sha256
    return Operation(Target(Where.UPLOAD, step, call.path, key), run, account=account)


def _etags_in_order(listed: Any) -> list[str]:
    """The etags of a list of parts by part number, with quotes; empty when it is no such list."""
    try:
        parts = sorted((entry["partNumber"], entry["etag"]) for entry in listed)
        return [f'"{etag.strip(chr(34))}"' for _, etag in parts]
    except (TypeError, LookupError, AttributeError):
        return []


def _takes_compression(call: Call) -> bool:
    """Whether the caller takes an encoding other than identity."""
    accepted = call.headers.get("Accept-Encoding", "identity").lower()
    codings = [entry.partition(";") for entry in accepted.split(",")]
    return any(name.strip() not in {"identity", ""} and rest.strip() != "q=0" for name, _, rest in codings)


def _member(body: bytes, name: str, default: Any = None) -> Any:
    """A member of the JSON object in `body`; `default` where it is not there, or no such object is."""
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return None
    return value.get(name, default) if isinstance(value, dict) else None
