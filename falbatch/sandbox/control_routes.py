"""`/sandbox/…`: looking into the sandbox and steering it. No key is asked for; it is on loopback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox.access import url_of
from falbatch.sandbox.endpoints import profile_of
from falbatch.sandbox.ledger import ledger_page
from falbatch.sandbox.replies import METHOD_NOT_ALLOWED, NOT_FOUND, Call, Reply, detail_reply, json_reply
from falbatch.sandbox.rules import FaultError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from falbatch.sandbox.world import World


async def answer(world: World, call: Call) -> Reply:
    """Answer a control call. What it changes is on disk before the reply, where the sandbox keeps a folder."""
    name, _, rest = call.tail.strip("/").partition("/")
    if name == "requests" and rest:
        return _request_page(world, rest) if call.method == "GET" else METHOD_NOT_ALLOWED
    methods = _ROUTES.get(call.tail.strip("/"))
    if methods is None:
        return NOT_FOUND
    route = methods.get(call.method)
    if route is None:
        return METHOD_NOT_ALLOWED
    world.catch_up()
    reply = route(world, call)
    await world.settled()
    return reply


def _ledger(world: World, _call: Call) -> Reply:
    return json_reply(200, ledger_page(world.requests.values()))


def _stats(world: World, _call: Call) -> Reply:
    accounts = {
        name: {
            "waiting": len(account.normal) + len(account.low),
            "running": account.running,
            "peak_running": account.peak,
            "locked": world.is_locked(name),
        }
        for name, account in world.engine.accounts.items()
    }
    page = world.stats.page() | {"seed": world.behaviour.seed, "accounts": accounts}
    return json_reply(200, page)


def _reset(world: World, _call: Call) -> Reply:
    world.reset()
    return json_reply(200, {"status": "OK"})


def _list_faults(world: World, _call: Call) -> Reply:
    return json_reply(200, {"faults": world.faults.snapshot()})


def _add_faults(world: World, call: Call) -> Reply:
    try:
        world.add_faults(json.loads(call.body))
    except FaultError as error:
        return detail_reply(400, str(error))
    except (ValueError, RecursionError):
        return detail_reply(400, "the body is not JSON")
    return _list_faults(world, call)


def _clear_faults(world: World, call: Call) -> Reply:
    world.clear_faults()
    return _list_faults(world, call)


def _account(world: World, call: Call) -> Reply:
    try:
        asked = json.loads(call.body)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict) or not isinstance(asked.get("locked"), bool) or asked.keys() - _ACCOUNT_KEYS:
        return detail_reply(400, 'expected {"locked": true or false, "key_id": optional text}')
    key_id = asked.get("key_id")
    if not isinstance(key_id, str | None):
        return detail_reply(400, f"key_id: expected text, not {key_id!r}")
    world.lock(key_id, asked["locked"])
    return json_reply(200, {"key_id": key_id, "locked": asked["locked"]})


def _uploads(world: World, call: Call) -> Reply:
    """What was uploaded and is still there: the judge of "uploaded once"."""
    files = world.storage.files(world.now())
    page: dict[str, Any] = {
        "count": len(files),
        "bytes": sum(file.size for file in files),
        "unfinished": world.storage.unfinished(),
        "files": [
            {
                "url": url_of(call, file.path),
                "size": file.size,
                "sha256": file.sha256,
                "content_type": file.content_type,
                "uploaded_at": file.uploaded_at,
                "parts": file.parts,
                "sent": file.sent,
                "account": file.owner,
                "expires_at": file.expires_at,
            }
            for file in files
        ],
    }
    return json_reply(200, page)


def _list_webhooks(world: World, _call: Call) -> Reply:
    return json_reply(200, world.webhooks.page())


def _rotate_webhook_key(world: World, _call: Call) -> Reply:
    world.webhooks.rotate()
    return json_reply(200, world.webhooks.key_set())


def _request_page(world: World, request_id: str) -> Reply:
    """Everything recorded about one request, expired or not; the key is not among it."""
    world.catch_up()
    request = world.requests.get(request_id.lower())
    if request is None:
        return NOT_FOUND
    page: dict[str, Any] = {
        "request_id": request.id,
        "ordinal": request.ordinal,
        "account": request.account,
        "endpoint": request.endpoint,
        "unit": profile_of(request.endpoint).unit,
        "via": request.via,
        "query": dict(request.query),
        "headers": dict(request.headers),
        "input": request.payload,
        "status": request.status,
        "attempt": request.attempt,
        "submitted_at": request.submitted_at,
        "started_at": request.started_at,
        "ended_at": request.ended_at,
    }
    return json_reply(200, page)


_ACCOUNT_KEYS: Final = frozenset({"key_id", "locked"})

_ROUTES: Final[Mapping[str, Mapping[str, Callable[[World, Call], Reply]]]] = {
    "ledger": {"GET": _ledger},
    "stats": {"GET": _stats},
    "reset": {"POST": _reset},
    "faults": {"GET": _list_faults, "POST": _add_faults, "DELETE": _clear_faults},
    "account": {"POST": _account},
    "uploads": {"GET": _uploads},
    "webhooks": {"GET": _list_webhooks},
    "webhooks/rotate": {"POST": _rotate_webhook_key},
}
