"""What an endpoint takes and gives, read out of its OpenAPI document (fal-protocol §11.2). Pure, and lenient: a schema
is advice, and whatever in it makes no sense is left out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MAX_DEPTH: Final = 8
"""References followed one into another."""

CHOICES_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an input or an output."""

    name: str
    type: str
    """In words: `integer`, `text`, `one of "a", "b"`, `list of Image`."""
    is_required: bool
    default: str
    """As JSON; "" for none."""
    bounds: str
    """`1 to 50`, `at most 4096 characters`; "" for none."""
    description: str


@dataclass(frozen=True, slots=True)
class EndpointFields:
    """An endpoint's schema as tables."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]


def input_schema(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema of the input, found through the POST's requestBody and never by its name; None without one."""
    for path in _mapping(document.get("paths")).values():
        post = _mapping(_mapping(path).get("post"))
        schema = _content_schema(document, _resolved(document, post.get("requestBody")))
        if schema:
            return schema
    return None


def output_schema(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema of the result: what `…/requests/{request_id}` answers; None without one."""
    for name, path in _mapping(document.get("paths")).items():
        if str(name).rstrip("/").endswith("/requests/{request_id}"):
            replies = _mapping(_mapping(_mapping(path).get("get")).get("responses"))
            return _content_schema(document, _resolved(document, replies.get("200")))
    return None


def endpoint_fields(document: Mapping[str, Any]) -> EndpointFields:
    """The fields of input and output, in the order that fal shows them."""
    return EndpointFields(
        _fields(document, input_schema(document) or {}), _fields(document, output_schema(document) or {})
    )


def property_names(document: Mapping[str, Any], path: Sequence[str | int]) -> list[str]:
    """The names that the input schema has for the object at `path` of an input, in all the forms that it may have."""
    schemas = [input_schema(document) or {}]
    for step in path:
        inner = [part for schema in schemas for part in _forms(document, schema, 0)]
        if isinstance(step, int):
            schemas = [_mapping(part.get("items")) for part in inner]
        else:
            schemas = [_mapping(_mapping(part.get("properties")).get(step)) for part in inner]
    forms = [part for schema in schemas for part in _forms(document, schema, 0)]
    return list(dict.fromkeys(name for part in forms for name in _mapping(part.get("properties"))))


def _forms(document: Mapping[str, Any], given: Mapping[str, Any], depth: int) -> Iterator[dict[str, Any]]:
    """A schema and the parts of its unions, one by one."""
    schema = _resolved(document, given)
    yield schema
    for key in ("anyOf", "oneOf", "allOf"):
        parts = schema.get(key)
        if isinstance(parts, list) and depth < MAX_DEPTH:
            for part in parts:
                yield from _forms(document, _mapping(part), depth + 1)


def _content_schema(document: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any] | None:
    content = _mapping(_mapping(part.get("content")).get("application/json"))
    return _resolved(document, content.get("schema")) or None


def _fields(document: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[Field, ...]:
    properties = _mapping(schema.get("properties"))
    required = schema.get("required")
    needed = set(required) if isinstance(required, list) else set()
    order = schema.get("x-fal-order-properties")
    first = [name for name in order if name in properties] if isinstance(order, list) else []
    names = dict.fromkeys([*first, *properties])
    return tuple(_field(document, name, _mapping(properties[name]), is_required=name in needed) for name in names)


def _field(document: Mapping[str, Any], name: str, given: Mapping[str, Any], *, is_required: bool) -> Field:
    about = {**_resolved(document, given), **given}
    default = json.dumps(about["default"], ensure_ascii=False) if "default" in about else ""
    description = about.get("description")
    return Field(
        name=name,
        type=_type(document, given, 0),
        is_required=is_required,
        default=default,
        bounds=_bounds(about),
        description=" ".join(description.split()) if isinstance(description, str) else "",
    )


def _type(document: Mapping[str, Any], given: Mapping[str, Any], depth: int) -> str:
    """A type in words."""
    schema = _resolved(document, given)
    if depth > MAX_DEPTH:
        return "…"
    choices = schema.get("enum")
    if isinstance(choices, list):
        shown = ", ".join(json.dumps(choice, ensure_ascii=False) for choice in choices[:CHOICES_SHOWN])
        return f"one of {shown}{', …' if len(choices) > CHOICES_SHOWN else ''}"
    for key in ("anyOf", "oneOf", "allOf"):
        parts = schema.get(key)
        if isinstance(parts, list):
            words = [_type(document, _mapping(part), depth + 1) for part in parts]
            return " or ".join(dict.fromkeys(word for word in words if word != "null")) or "anything"
    match schema.get("type"):
        case "array":
            return f"list of {_type(document, _mapping(schema.get('items')), depth + 1)}"
        case "object":
            title = schema.get("title")
            return title if isinstance(title, str) else "object"
        case "string":
            return "text"
        case str() as word:
            return word
        case _:
            return "anything"


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    words = []
    if low is not None and high is not None:
        words.append(f"{low} to {high}")
    elif low is not None:
        words.append(f"from {low}")
    elif high is not None:
        words.append(f"at most {high}")
    if (longest := schema.get("maxLength")) is not None:
        words.append(f"at most {longest} characters")
    if (most := schema.get("maxItems")) is not None:
        words.append(f"at most {most} entries")
    return ", ".join(words)


def _resolved(document: Mapping[str, Any], value: Any) -> dict[str, Any]:
    """`value` with its local `$ref`, if it has one, followed; {} for what leads nowhere."""
    schema = _mapping(value)
    for _ in range(MAX_DEPTH):
        target = schema.get("$ref")
        if not isinstance(target, str):
            return schema
        if not target.startswith("#/"):
            return {}
        found: Any = document
        for word in target.removeprefix("#/").split("/"):
            found = _mapping(found).get(word.replace("~1", "/").replace("~0", "~"))
        schema = _mapping(found)
    return {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
