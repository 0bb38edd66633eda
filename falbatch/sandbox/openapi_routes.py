"""`/openapi/queue/openapi.json`: the schema of an endpoint, as fal.ai/api/openapi gives it (fal-protocol §11.2).

No key is asked for. An id that the sandbox runs without knowing its schema is not found here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from falbatch.sandbox.catalogue.document import openapi_document
from falbatch.sandbox.catalogue.models import model_of
from falbatch.sandbox.endpoints import parse_endpoint
from falbatch.sandbox.faults import Target, Where
from falbatch.sandbox.replies import METHOD_NOT_ALLOWED, NOT_FOUND, Call, Operation, Reply, detail_reply, json_reply

if TYPE_CHECKING:
    from falbatch.sandbox.world import World

_PATH: Final = "queue/openapi.json"


def resolve(_world: World, call: Call) -> Operation | Reply:
    """The document that `call` asks for."""
    if call.tail.rstrip("/") != _PATH:
        return NOT_FOUND
    if call.method not in {"GET", "HEAD"}:
        return METHOD_NOT_ALLOWED
    text = call.query.get("endpoint_id", "")
    if not text:
        return detail_reply(400, "endpoint_id is required")

    async def run() -> Reply:
        endpoint = parse_endpoint(text)
        model = model_of(endpoint.full) if endpoint else None
        if model is None:
            return detail_reply(404, f"Endpoint not found: {text}")
        return json_reply(200, openapi_document(model))

    return Operation(Target(Where.OPENAPI, text, call.path), run)
