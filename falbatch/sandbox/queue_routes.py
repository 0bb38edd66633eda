"""`/queue/…`: what queue.fal.run answers (fal-protocol §3). Each function makes a reply and does what it says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from falbatch.faultpoints import fault_point
from falbatch.sandbox.answers import answer
from falbatch.sandbox.endpoints import EndpointId, parse_endpoint
from falbatch.sandbox.engine import Cancelled
from falbatch.sandbox.faults import Target, Where
from falbatch.sandbox.ids import fingerprint
from falbatch.sandbox.pages import logs_of, status_page, submit_page
from falbatch.sandbox.replies import (
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    Call,
    Operation,
    Reply,
    Stream,
    detail_reply,
    error_reply,
    json_reply,
)
from falbatch.sandbox.requests import Request, parse_payload
from falbatch.sandbox.states import Status
from falbatch.sandbox.status_stream import status_stream
from falbatch.sandbox.tokens import check

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falbatch.sandbox.world import World

_REQUEST_PATH: Final = re.compile(r"(.+)/requests/([^/]+)(/status|/status/stream|/response|/cancel)?/?")
_KEY: Final = re.compile(r"Key ([^\s:]+):([^\s:]+)", re.IGNORECASE)

_CALLS: Final[Mapping[tuple[str, str], Where]] = {
    ("GET", "/status"): Where.STATUS,
    ("GET", "/status/stream"): Where.STATUS_STREAM,
    ("GET", ""): Where.RESULT,
    ("GET", "/response"): Where.RESULT,
    ("PUT", "/cancel"): Where.CANCEL,
}

BAD_KEY: Final = detail_reply(401, "invalid key credentials")
UNKNOWN: Final = json_reply(404, {"status": "NOT_FOUND"})
UNKNOWN_APP: Final = detail_reply(404, "Application not found")
LOCKED: Final = detail_reply(
    403, "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
)
TOO_EARLY: Final = detail_reply(400, "Request is still in progress")


def resolve(world: World, call: Call) -> Operation | Reply:
    """What `call` asks for, or the refusal of a call that asks for nothing."""
    account = account_of(call.headers.get("Authorization", ""), world.behaviour.key)
    found = _REQUEST_PATH.fullmatch(call.tail)
    if account is None and found and found[3] == "/status/stream":
        # A browser's event source can send no header.
        account = account_of_token(world, call, parse_endpoint(found[1]))
    if account is None:
        return BAD_KEY
    if found:
        where = _CALLS.get((call.method, found[3] or ""))
        if where is None:
            return METHOD_NOT_ALLOWED
        return _about_request(world, call, where, account, found[1], found[2])
    endpoint = parse_endpoint(call.tail)
    if endpoint is None:
        return NOT_FOUND
    if call.method != "POST":
        return METHOD_NOT_ALLOWED
    key = fingerprint(call.body)
    target = Target(Where.SUBMIT, endpoint.full, call.path, key)

    async def run() -> Reply:
        return await submit(world, call, account, endpoint, key)

    return Operation(target, run, account=account)


def account_of(authorization: str, only: str | None) -> str | None:
    """The account that an Authorization header names: the key's id. None when it is refused.

    `only` is the one accepted `id:secret`; without it every well-formed key is an account of its own.
    """
    key = _KEY.fullmatch(authorization.strip())
    if key is None or (only is not None and f"{key[1]}:{key[2]}" != only):
        return None
    return key[1]


def account_of_token(world: World, call: Call, endpoint: EndpointId | None) -> str | None:
    """The account whose `fal_jwt_token` is in the query, None without one that is good for `endpoint`."""
    grant = check(world.behaviour.seed, call.query.get("fal_jwt_token", ""), world.now())
    return grant.account if grant and endpoint and grant.allows(endpoint) else None


async def submit(world: World, call: Call, account: str, endpoint: EndpointId, key: str) -> Reply:
    """Accept a request, durably, or refuse it (§3.1). `key` is a hash of the body."""
    if world.is_locked(account):
        return LOCKED
    if not endpoint.exists:
        return UNKNOWN_APP
    payload = parse_payload(call.body)
    if payload is None:
        return error_reply(400, "bad_request", "The request body is not a JSON object", _stray(world))
    world.catch_up()
    longest = call.query.get("fal_max_queue_length", "")
    if longest.isdecimal() and world.engine.waiting_on(endpoint.full) > int(longest):
        return detail_reply(429, f"More than {longest} requests wait on {endpoint.full}", _stray(world))
    ending = world.faults.ending_for(endpoint.full, call.path, key, payload.get("seed"))
    request = world.accept(
        account, endpoint.full, call.body, payload, dict(call.query), kept_headers(call.headers), ending
    )
    position = world.engine.position(request) if request.status is Status.IN_QUEUE else 0
    reply = json_reply(200, submit_page(request, position, call.origin), {"x-fal-request-id": request.id})
    # No await stands between accepting and here, so no commit can have taken the request along yet.
    fault_point("sandbox.accepting")
    await world.settled()
    fault_point("sandbox.accepted")
    return reply


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as recorded with a request: lower case, and without the key."""
    return {name.lower(): value for name, value in headers.items() if name.lower() != "authorization"}


def status(world: World, call: Call, request: Request) -> Reply:
    """The status object, 202 until it is COMPLETED (§3.2)."""
    page = status_now(world, request, call.origin, with_logs=call.query.get("logs") in {"1", "true"})
    return json_reply(200 if page["status"] == Status.COMPLETED else 202, page, {"x-fal-request-id": request.id})


def status_now(world: World, request: Request, origin: str, *, with_logs: bool) -> dict[str, object]:
    """The status object of this moment."""
    now = world.catch_up()
    position = world.engine.position(request) if request.status is Status.IN_QUEUE else 0
    names = world.behaviour.scenario.model_errors_in_status
    logs = logs_of(request, now) if with_logs else None
    return status_page(request, position, logs, origin, names_model_errors=names)


async def result(world: World, call: Call, request: Request) -> Reply:
    """The stored answer, replayed as often as asked (§3.4)."""
    world.catch_up()
    if request.status is not Status.COMPLETED:
        return TOO_EARLY
    reply = await answer(world, request, call.origin)
    if reply.status == 200:
        fault_point("sandbox.result")
    return reply


async def cancel(world: World, request: Request) -> Reply:
    """Cancel (§3.5): 200 for a queued request (newest reference), 202 for a running one, 400 when too late."""
    headers = {"x-fal-request-id": request.id}
    match world.engine.cancel(request, world.catch_up()):
        case Cancelled.TOO_LATE:
            return json_reply(400, {"status": "ALREADY_COMPLETED"}, headers)
        case Cancelled.DROPPED:
            await world.settled()
            return json_reply(200, {"status": "OK"}, headers)
        case Cancelled.ASKED:
            return json_reply(202, {"status": "CANCELLATION_REQUESTED"}, headers)


def _about_request(
    world: World, call: Call, where: Where, account: str, endpoint_text: str, request_id: str
) -> Operation | Reply:
    endpoint = parse_endpoint(endpoint_text)
    now = world.catch_up()
    request = world.find(request_id, now)
    if endpoint is None or request is None or request.account != account or request.app != endpoint.app:
        return UNKNOWN

    async def run() -> Reply | Stream:
        match where:
            case Where.STATUS:
                return status(world, call, request)
            case Where.STATUS_STREAM:
                with_logs = call.query.get("logs") in {"1", "true"}
                page = lambda: status_now(world, request, call.origin, with_logs=with_logs)  # noqa: E731
                return status_stream(world, request, page)
            case Where.RESULT:
                return await result(world, call, request)
            case _:
                return await cancel(world, request)

    target = Target(
        where,
        request.endpoint,
        call.path,
        is_running=request.status is Status.IN_PROGRESS,
        since_end_s=None if request.ended_at is None else now - request.ended_at,
    )
    return Operation(target, run, request.id, account)


def _stray(world: World) -> dict[str, str]:
    return {"x-fal-request-id": world.stray_id()}
