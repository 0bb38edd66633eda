"""`/rest/…`: what rest.fal.ai answers, by the first segment of the path (fal-protocol §1.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from falbatch.sandbox import storage_routes, token_routes, webhook_keys
from falbatch.sandbox.replies import NOT_FOUND, Call, Operation, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from falbatch.sandbox.world import World

_RESOLVERS: Final[Mapping[str, Callable[[World, Call], Operation | Reply]]] = {
    "storage": storage_routes.resolve,
    ".well-known": webhook_keys.resolve,
    "tokens": token_routes.resolve,
}
"""First segment behind the host prefix → its routes."""


def resolve(world: World, call: Call) -> Operation | Reply:
    """What `call` asks of the REST host."""
    resolver = _RESOLVERS.get(call.tail.partition("/")[0])
    return NOT_FOUND if resolver is None else resolver(world, call)
