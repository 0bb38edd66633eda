"""`/rest/storage/…`: tokens for the CDN, and targets to upload to (fal-protocol §6.1, §6.3)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox import passes
from falbatch.sandbox.access import TARGETS, url_of
from falbatch.sandbox.faults import Target, Where
from falbatch.sandbox.ids import fingerprint
from falbatch.sandbox.lifecycle import is_seconds, read_headers
from falbatch.sandbox.queue_routes import BAD_KEY, account_of
from falbatch.sandbox.replies import METHOD_NOT_ALLOWED, NOT_FOUND, Call, Operation, Reply, detail_reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from falbatch.sandbox.world import World

MAX_TOKEN_S: Final = 30 * 86_400
"""The longest life of a CDN token, and that of one for which no other is asked."""

TARGET_S: Final = 86_400
"""Life of an upload target; fal's is unknown."""


class _BadBody(Exception):
    """Raised for a body that cannot be used; the text is for the caller."""


def resolve(world: World, call: Call) -> Operation | Reply:
    """What `call` asks of the storage. A locked account may upload: nothing is charged for it."""
    account = account_of(call.headers.get("Authorization", ""), world.behaviour.key)
    if account is None:
        return BAD_KEY
    known = _ROUTES.get(call.tail.rstrip("/"))
    if known is None:
        return NOT_FOUND
    if call.method != "POST":
        return METHOD_NOT_ALLOWED
    step, types, route = known

    async def run() -> Reply:
        if call.query.get("storage_type") not in types:
            return detail_reply(400, f"storage_type: expected {' or '.join(sorted(types))}")
        try:
            return json_reply(200, route(world, call, account, _json_object(call.body)))
        except _BadBody as error:
            return detail_reply(422, str(error))

    return Operation(Target(Where.UPLOAD, step, call.path, fingerprint(call.body)), run, account=account)


def _token(world: World, call: Call, account: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    seconds = asked.get("expiration_seconds")
    seconds = MAX_TOKEN_S if seconds is None else seconds
    if not is_seconds(seconds) or not 0 < seconds <= MAX_TOKEN_S:
        raise _BadBody(f"expiration_seconds: expected seconds above 0, at most {MAX_TOKEN_S}")
    expires_at = world.now() + seconds
    return {
        "token": passes.issue(world.behaviour.seed, passes.Kind.CDN, expires_at, account=account),
        "token_type": "Bearer",
        "base_url": f"{call.origin}/cdn",
        # With an offset instead of Z, which Python before 3.11 cannot read.
        "expires_at": datetime.fromtimestamp(expires_at, UTC).isoformat(),
    }


def _initiate(world: World, call: Call, account: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """A target, for one PUT or for parts, and the URL that the file will have."""
    name, kind = asked.get("file_name", ""), asked.get("content_type", "")
    if not isinstance(name, str) or not isinstance(kind, str):
        raise _BadBody("file_name and content_type: expected texts")
    now = world.now()
    try:
        wanted = read_headers(call.headers).over(world.storage.settings_of(account, now))
    except ValueError as error:
        raise _BadBody(str(error)) from error
    in_parts = call.tail.rstrip("/").endswith("-multipart")
    upload = world.storage.begin(account, kind, name, wanted, in_parts=in_parts)
    world.storage.open(upload)
    signature = passes.issue(world.behaviour.seed, passes.Kind.TARGET, now + TARGET_S, upload=upload.id)
    target = url_of(call, f"{TARGETS}{upload.id}")
    return {"upload_url": f"{target}?signature={signature}", "file_url": url_of(call, upload.path)}


_ROUTES: Final[
    Mapping[str, tuple[str, frozenset[str], Callable[[World, Call, str, Mapping[str, Any]], dict[str, Any]]]]
] = {
    "storage/auth/token": ("token", frozenset({"fal-cdn-v3"}), _token),
    "storage/upload/initiate": ("initiate", frozenset({"gcs", "fal-cdn-v3"}), _initiate),
    "storage/upload/initiate-multipart": ("initiate", frozenset({"gcs", "fal-cdn-v3"}), _initiate),
}
"""Path → (the step that fault rules name, the storage types that it knows, what answers)."""


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _BadBody("the body is not a JSON object")
    return value
