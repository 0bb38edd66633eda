"""Small OpenAPI documents, as fal writes them (fal-protocol §11.2)."""

from __future__ import annotations

from typing import Any


def document(properties: dict[str, Any], *, required: list[str] | None = None, **schemas: Any) -> dict[str, Any]:
    """The document of an endpoint whose input has `properties`; `schemas` are beside it in `components`."""
    given = {"title": "Input", "type": "object", "properties": properties, "required": required or []}
    body = {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/OddInput"}}}}
    return {
        "openapi": "3.0.4",
        "paths": {
            "/a/b/requests/{request_id}": {"get": {"responses": {"200": {"description": "x"}}}},
            "/a/b": {"post": {"requestBody": body, "responses": {}}},
        },
        "components": {"schemas": {"OddInput": given, **schemas}},
    }


SIZE = {"type": "object", "properties": {"width": {"type": "integer", "minimum": 1, "maximum": 14142}}}
"""`image_size` as a mapping."""

SIZES = {"anyOf": [{"$ref": "#/components/schemas/Size"}, {"type": "string", "enum": ["square", "square_hd"]}]}
"""`image_size`: a mapping or a preset."""
