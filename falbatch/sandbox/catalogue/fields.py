"""The words that schemas are written in: OpenAPI 3.0 as fal writes it (fal-protocol §11.2). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Schema = dict[str, Any]
"""A schema object of OpenAPI 3.0, with `$ref`s into `#/components/schemas/`."""

REF: Final = "#/components/schemas/"


def text(title: str, description: str, **more: Any) -> Schema:
    """A string."""
    return {"type": "string", "title": title, "description": description, **more}


def whole(title: str, description: str, **more: Any) -> Schema:
    """An integer."""
    return {"type": "integer", "title": title, "description": description, **more}


def number(title: str, description: str, **more: Any) -> Schema:
    """A number."""
    return {"type": "number", "title": title, "description": description, **more}


def flag(title: str, description: str, *, default: bool, **more: Any) -> Schema:
    """A boolean."""
    return {"type": "boolean", "title": title, "description": description, "default": default, **more}


def choice(title: str, description: str, words: Sequence[str], **more: Any) -> Schema:
    """One of some words."""
    return {"enum": [*words], "type": "string", "title": title, "description": description, **more}


def listed(title: str, description: str, items: Schema, **more: Any) -> Schema:
    """An array."""
    return {"type": "array", "title": title, "description": description, "items": items, **more}


def ref(name: str, title: str = "", description: str = "", **more: Any) -> Schema:
    """A shared schema; with words of its own it stands in `allOf`, as OpenAPI 3.0 lets nothing stand beside a $ref."""
    plain = {"$ref": REF + name}
    if not (title or description or more):
        return plain
    return {"allOf": [plain], "title": title, "description": description, **more}


def record(title: str, properties: Mapping[str, Schema], required: Sequence[str] = (), description: str = "") -> Schema:
    """An object; the order of its properties is that of fal's forms."""
    schema: Schema = {"title": title, "type": "object", "x-fal-order-properties": [*properties]}
    if description:
        schema["description"] = description
    schema["properties"] = dict(properties)
    if required:
        schema["required"] = [*required]
    return schema
