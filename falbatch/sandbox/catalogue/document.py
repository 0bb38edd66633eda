"""A model's OpenAPI document, as fal writes it (fal-protocol §11.2). Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox.catalogue.fields import REF, Schema

if TYPE_CHECKING:
    from falbatch.sandbox.catalogue.model import Model

_SITE: Final = "https://fal.ai/models"
_THUMBNAILS: Final = "https://v3b.fal.media/files/b/sandbox"

_WORDS: Final = {"type": "object", "additionalProperties": True}
_QUEUE_STATUS: Final[Schema] = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]},
        "request_id": {"type": "string", "description": "The request id."},
        "response_url": {"type": "string", "description": "The response url."},
        "status_url": {"type": "string", "description": "The status url."},
        "cancel_url": {"type": "string", "description": "The cancel url."},
        # Arrays or null in truth; fal's documents say object, and ours imitate them.
        "logs": {**_WORDS, "description": "The logs."},
        "metrics": {**_WORDS, "description": "The metrics."},
        "queue_position": {"type": "integer", "description": "The queue position."},
    },
    "required": ["status", "request_id"],
}
_REQUEST_ID: Final = {
    "name": "request_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "description": "Request ID"},
}
_LOGS: Final = {
    "name": "logs",
    "in": "query",
    "required": False,
    "schema": {"type": "number", "description": "Whether to include logs (`1`) in the response or not (`0`)."},
}
_SUCCESS: Final = {
    "type": "object",
    "properties": {"success": {"type": "boolean", "description": "Whether the request was cancelled successfully."}},
}


def thumbnail_url(model: Model) -> str:
    """A picture of the model; nothing is there, as the sandbox makes no pictures of models."""
    return f"{_THUMBNAILS}/{model.name}.jpg"


def model_url(model: Model) -> str:
    """Where fal shows the model."""
    return f"{_SITE}/{model.endpoint}"


@lru_cache(maxsize=128)
def openapi_document(model: Model) -> dict[str, Any]:
    """The whole document. Its paths have the full id, though calls about requests want the app's only."""
    base, input_, output = f"/{model.endpoint}", f"{model.name}Input", f"{model.name}Output"
    one = f"{base}/requests/{{request_id}}"
    status = {"$ref": REF + "QueueStatus"}
    schemas = {"QueueStatus": _QUEUE_STATUS, input_: model.input, output: model.output, **model.shared}
    submit = _answer("The request status.", status)
    submit["requestBody"] = {"required": True, "content": {"application/json": {"schema": {"$ref": REF + input_}}}}
    return {
        "openapi": "3.0.4",
        "info": {
            "title": f"Queue OpenAPI for {model.endpoint}",
            "version": "1.0.0",
            "description": f"The OpenAPI schema for the {model.endpoint} queue.",
            "x-fal-metadata": {
                "endpointId": model.endpoint,
                "category": model.category,
                "thumbnailUrl": thumbnail_url(model),
                "playgroundUrl": model_url(model),
                "documentationUrl": f"{model_url(model)}/api",
            },
        },
        "components": {
            "securitySchemes": {
                "apiKeyAuth": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "Fal Key",
                }
            },
            "schemas": schemas,
        },
        "paths": {
            f"{one}/status": {"get": _answer("The request status.", status, _REQUEST_ID, _LOGS)},
            f"{one}/cancel": {"put": _answer("The request was cancelled.", _SUCCESS, _REQUEST_ID)},
            base: {"post": submit},
            one: {"get": _answer("Result of the request.", {"$ref": REF + output}, _REQUEST_ID)},
        },
        # Where the model is at fal, not here: a reader must build URLs from its own settings.
        "servers": [{"url": "https://queue.fal.run"}],
        "security": [{"apiKeyAuth": []}],
    }


def _answer(description: str, schema: Schema, *parameters: Schema) -> dict[str, Any]:
    """An operation that declares its 200 and nothing else, as fal's do."""
    content = {"application/json": {"schema": schema}}
    operation: dict[str, Any] = {"responses": {"200": {"description": description, "content": content}}}
    return {"parameters": list(parameters), **operation} if parameters else operation
