"""`/run/…`: what fal.run answers: direct calls, event streams and WebSockets, by the form of the call (§5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from falbatch.sandbox import event_stream, realtime
from falbatch.sandbox.direct import NO_SOCKET, TOKEN, Caller, account_of_caller, answer_at_end, begin
from falbatch.sandbox.endpoints import parse_endpoint
from falbatch.sandbox.faults import Target, Where
from falbatch.sandbox.ids import fingerprint
from falbatch.sandbox.queue_routes import BAD_KEY
from falbatch.sandbox.replies import (
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    Call,
    Operation,
    Reply,
    Socket,
    Stream,
    dumps,
)

if TYPE_CHECKING:
    from falbatch.sandbox.world import World

_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})


def resolve(world: World, call: Call) -> Operation | Reply | Socket:
    """What `call` asks for, or how it is refused."""
    where, path = form_of(call)
    endpoint = parse_endpoint(path)
    account = account_of_caller(world, call, endpoint)
    if account is None:
        is_bad_token = "Authorization" not in call.headers and TOKEN in call.query
        return realtime.UNAUTHORIZED if where is Where.REALTIME and is_bad_token else BAD_KEY
    if endpoint is None:
        return NOT_FOUND
    if call.method not in _METHODS:
        return METHOD_NOT_ALLOWED
    if where is not Where.REALTIME and path.endswith("/realtime"):
        return NO_SOCKET
    caller = Caller(call, account, endpoint, where)
    raw = query_input(call) if call.method == "GET" else call.body

    async def run() -> Reply | Stream | Socket:
        match where:
            case Where.STREAM:
                return await event_stream.stream(world, caller, raw)
            case Where.REALTIME:
                return realtime.connect(world, caller)
            case _:
                request = begin(world, caller, raw)
                return request if isinstance(request, Reply) else await answer_at_end(world, caller, request)

    return Operation(Target(where, endpoint.full, call.path, fingerprint(raw)), run, account=account)


def form_of(call: Call) -> tuple[Where, str]:
    """In which form `call` wants its answer, and the endpoint's id, of which that form's suffix is no part."""
    path = call.tail.rstrip("/")
    if call.is_handshake:
        return Where.REALTIME, path.removesuffix("/realtime")
    if path.endswith("/stream"):
        return Where.STREAM, path.removesuffix("/stream")
    return Where.RUN, path


def query_input(call: Call) -> bytes:
    """The input of a GET: its query, every value a text, a list where a name is repeated (JS's `get`)."""
    values: dict[str, list[str]] = {}
    for name, value in call.query.items():
        if name != TOKEN:
            values.setdefault(name, []).append(value)
    return dumps({name: found[0] if len(found) == 1 else found for name, found in values.items()})
