"""An endpoint's OpenAPI document: where its schemas stand in it, and what follows from their references (fal-protocol
§11.2). Pure, and lenient: what leads nowhere is as if it were not there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MAX_DEPTH: Final = 8
"""References followed one into another."""


def input_schema(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema of the input, found through the POST's requestBody and never by its name; None without one."""
    for path in mapping(document.get("paths")).values():
        post = mapping(mapping(path).get("post"))
        schema = _content_schema(document, resolved(document, post.get("requestBody")))
        if schema:
            return schema
    return None


def input_defaults(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The input's fields with their defaults, None for those without; None where the document describes no input."""
    schema = input_schema(document)
    if schema is None:
        return None
    found = {}
    for name, given in mapping(schema.get("properties")).items():
        about = mapping(given)
        found[str(name)] = about.get("default", resolved(document, about).get("default"))
    return found


def output_schema(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema of the result: what `…/requests/{request_id}` answers; None without one."""
    for name, path in mapping(document.get("paths")).items():
        if str(name).rstrip("/").endswith("/requests/{request_id}"):
            replies = mapping(mapping(mapping(path).get("get")).get("responses"))
            return _content_schema(document, resolved(document, replies.get("200")))
    return None


def property_names(document: Mapping[str, Any], path: Sequence[str | int]) -> list[str]:
    """The names that the input schema has for the object at `path` of an input, in all the forms that it may have."""
    forms = forms_at(document, path)
    return list(dict.fromkeys(name for part in forms for name in mapping(part.get("properties"))))


def forms_at(document: Mapping[str, Any], path: Sequence[str | int]) -> list[dict[str, Any]]:
    """The schemas for what stands at `path` of an input: its own, and the parts of its unions one by one. Any number is
    a place in a list."""
    forms = list(_forms(document, input_schema(document) or {}, 0))
    for step in path:
        inner = [
            form.get("items") if isinstance(step, int) else mapping(form.get("properties")).get(step) for form in forms
        ]
        forms = [part for schema in inner if isinstance(schema, dict) for part in _forms(document, schema, 0)]
    return forms


def names_field(document: Mapping[str, Any], names: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether the input schema has the field `names`, through lists too; with the names that it has where it ends."""
    forms = forms_at(document, ())
    known: list[str] = []
    for name in names:
        for _ in range(MAX_DEPTH):
            entries = [form["items"] for form in forms if isinstance(form.get("items"), dict)]
            if not entries:
                break
            forms = [
                *(form for form in forms if "items" not in form),
                *(part for schema in entries for part in _forms(document, schema, 0)),
            ]
        known = list(dict.fromkeys(one for form in forms for one in mapping(form.get("properties"))))
        if name not in known:
            return not any("properties" in form for form in forms), known
        inner = [mapping(form.get("properties")).get(name) for form in forms]
        forms = [part for schema in inner if isinstance(schema, dict) for part in _forms(document, schema, 0)]
    return True, known


def _forms(document: Mapping[str, Any], given: Mapping[str, Any], depth: int) -> Iterator[dict[str, Any]]:
    """A schema and the parts of its unions, one by one."""
    schema = {**resolved(document, given), **given}
    yield schema
    for key in ("anyOf", "oneOf", "allOf"):
        parts = schema.get(key)
        if isinstance(parts, list) and depth < MAX_DEPTH:
            for part in parts:
                yield from _forms(document, mapping(part), depth + 1)


def _content_schema(document: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any] | None:
    content = mapping(mapping(part.get("content")).get("application/json"))
    return resolved(document, content.get("schema")) or None


def resolved(document: Mapping[str, Any], value: Any) -> dict[str, Any]:
    """`value` with its local `$ref`, if it has one, followed; {} for what leads nowhere."""
    schema = mapping(value)
    for _ in range(MAX_DEPTH):
        target = schema.get("$ref")
        if not isinstance(target, str):
            return schema
        if not target.startswith("#/"):
            return {}
        found: Any = document
        for word in target.removeprefix("#/").split("/"):
            found = mapping(found).get(word.replace("~1", "/").replace("~0", "~"))
        schema = mapping(found)
    return {}


def mapping(value: Any) -> dict[str, Any]:
    """`value` where it is a JSON object, else {}."""
    return value if isinstance(value, dict) else {}
