"""What all direct calls have in common: how one starts or is refused, how its end is waited for (fal-protocol §5)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from falbatch.faultpoints import fault_point
from falbatch.sandbox.answers import answer
from falbatch.sandbox.ids import fingerprint
from falbatch.sandbox.queue_routes import LOCKED, UNKNOWN_APP, account_of, account_of_token, kept_headers
from falbatch.sandbox.replies import Reply, detail_reply, error_reply
from falbatch.sandbox.requests import Request, Via, parse_payload
from falbatch.sandbox.states import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from falbatch.sandbox.endpoints import EndpointId
    from falbatch.sandbox.faults import Where
    from falbatch.sandbox.replies import Call
    from falbatch.sandbox.world import World

TOKEN: Final = "fal_jwt_token"  # noqa: S105 - the name of a parameter
"""Query parameter of a token."""

_UNKEPT: Final = frozenset({TOKEN, "fal_webhook"})
"""Parameters not kept with a request: one is secret, the other is the queue's alone."""

NO_SOCKET: Final = detail_reply(426, "Upgrade Required", {"Upgrade": "websocket"})
"""To a plain call of what is spoken only over a WebSocket."""

LOOK_S: Final = 0.05
"""At most so long until it is noticed that a caller has gone."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls what, and how."""

    call: Call
    account: str
    endpoint: EndpointId
    where: Where
    """One of `faults.DIRECT`."""


def account_of_caller(world: World, call: Call, endpoint: EndpointId | None) -> str | None:
    """The account that a call's key names, or without a key its token."""
    if "Authorization" in call.headers:
        return account_of(call.headers["Authorization"], world.behaviour.key)
    return account_of_token(world, call, endpoint)


def refusal(world: World, caller: Caller) -> Reply | None:
    """Why nothing of this caller's can start now, whatever the input; None when it can."""
    if world.is_locked(caller.account):
        return LOCKED
    if not caller.endpoint.exists:
        return UNKNOWN_APP
    world.catch_up()
    return None if world.engine.has_room(caller.account) else _over_limit(world)


def begin(world: World, caller: Caller, raw: bytes) -> Request | Reply:
    """Start a request with the JSON `raw` as its input. A refused one leaves no trace."""
    payload = parse_payload(raw)
    refused = refusal(world, caller)
    if refused is not None:
        return refused
    if payload is None:
        stray = {"x-fal-request-id": world.stray_id()}
        return error_reply(400, "bad_request", "The request body is not a JSON object", stray)
    call, endpoint = caller.call, caller.endpoint.full
    seed = payload.get("seed")
    ending = world.faults.ending_for(endpoint, call.path, fingerprint(raw), seed, caller.where)
    query = {name: value for name, value in call.query.items() if name not in _UNKEPT}
    via = Via(caller.where.value)
    return world.accept(caller.account, endpoint, raw, payload, query, kept_headers(call.headers), ending, via)


async def has_ended(world: World, request: Request, has_left: Callable[[], bool]) -> bool:
    """Wait until `request` has ended, durably. False when its caller has left before, or the sandbox was reset."""
    while request.status is not Status.COMPLETED:
        now = world.catch_up()
        if has_left():
            world.leave(request)
        if has_left() or not world.knows(request):
            return False
        await asyncio.sleep(pause_s(request.finishes_at, now))
    await world.settled()
    return True


async def answer_at_end(world: World, caller: Caller, request: Request) -> Reply:
    """The app's own answer to a request that has begun, once it has ended."""
    if not await has_ended(world, request, caller.call.has_left):
        headers = {"x-fal-request-id": request.id}
        if world.knows(request):
            return error_reply(499, "client_disconnected", "Client disconnected", headers)
        return error_reply(503, "runner_disconnected", "Runner disconnected", headers)
    reply = await answer(world, request, caller.call.origin)
    fault_point("sandbox.answering")
    return reply


def pause_s(due: float | None, now: float) -> float:
    """How long to sleep when something happens at `due`, without being blind for too long."""
    return min(LOOK_S, max(0.001, (due or 0.0) - now))


def _over_limit(world: World) -> Reply:
    """The refusal of a direct call beyond the account's running ones (fal-protocol §9.1)."""
    limit = world.behaviour.concurrency
    detail = f"Concurrent requests limit reached: {limit} requests are in progress, the limit is {limit}"
    headers = {"X-Fal-Needs-Retry": "1", "x-fal-request-id": world.stray_id()}
    return error_reply(429, "concurrent_requests_limit", detail, headers)
