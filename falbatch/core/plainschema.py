"""An endpoint's input schema, as fal writes it in OpenAPI 3.0, in the words of plain JSON Schema (2020-12). Pure.

fal-protocol §11.2: a schema is advice, and lags behind its model. So what makes no sense in it is left out, and nothing
is read stricter than it is meant: `oneOf` is `anyOf`, formats are comments.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.openapi import input_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_REF: Final = "#/components/schemas/"
_TYPES: Final = frozenset({"string", "integer", "number", "boolean", "array", "object", "null"})
_UNIONS: Final[Mapping[str, str]] = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf"}
MAX_DEPTH: Final = 32
"""Levels of a schema that are read; below them everything is right."""


def plain_input_schema(document: Mapping[str, Any], *, closed: bool = False, patterns: bool = True) -> Any:
    """The schema of the input as a JSON Schema document of its own; None where `document` has none.

    `closed`: an object may have the properties that are named and no others, where the schema does not say so or
    otherwise. `patterns` False leaves regular expressions out.
    """
    schema = input_schema(document)
    if schema is None:
        return None
    components = document.get("components")
    schemas = components.get("schemas") if isinstance(components, dict) else None
    named = schemas if isinstance(schemas, dict) else {}
    reader = _Reader(frozenset(named), closed=closed, patterns=patterns)
    root = reader.read(schema, 0)
    made = {name: reader.read(one, 0) for name, one in named.items()}
    opened: set[str] = set()
    while new := reader.parts - opened:  # a part may have parts of its own
        opened |= new
        made |= {name: reader.read(named[name], 0, closed=False) for name in sorted(new)}
    return {**root, "components": {"schemas": made}} if made else root


class _Reader:
    """Reads schemas one into another."""

    def __init__(self, named: frozenset[str], *, closed: bool, patterns: bool) -> None:
        self._named = named
        self._closed = closed
        self._patterns = patterns
        self.parts: set[str] = set()
        """Names of schemas that are parts of larger objects somewhere."""

    def read(self, schema: Any, depth: int, *, closed: bool = True) -> dict[str, Any]:
        """A schema of OpenAPI as one of JSON Schema; {} for what is none. `closed` False: part of a larger object."""
        if not isinstance(schema, dict) or depth > MAX_DEPTH:
            return {}
        if isinstance(target := schema.get("$ref"), str):
            name = target.removeprefix(_REF)
            if name == target or name not in self._named:
                return {}
            if not closed:
                self.parts.add(name)
            reference = {"$ref": target}
            return _with_null(reference) if schema.get("nullable") is True else reference
        made: dict[str, Any] = {key: value for key, value in schema.items() if key in _READ and _READ[key](value)}
        if not self._patterns:
            made.pop("pattern", None)
        self._bounds(schema, made)
        self._inside(schema, made, depth, closed=closed)
        return _with_null(made) if schema.get("nullable") is True else made

    @staticmethod
    def _bounds(schema: Mapping[str, Any], made: dict[str, Any]) -> None:
        """OpenAPI 3.0 says `minimum: 0, exclusiveMinimum: true`."""
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if schema.get(exclusive) is True and bound in made:
                made[exclusive] = made.pop(bound)

    def _inside(self, schema: Mapping[str, Any], made: dict[str, Any], depth: int, *, closed: bool) -> None:
        has_union = False
        for word, plain in _UNIONS.items():
            parts = schema.get(word)
            if isinstance(parts, list) and parts:
                is_one = word != "allOf" or (len(parts) == 1 and "properties" not in schema)
                made[plain] = [self.read(part, depth + 1, closed=closed and is_one) for part in parts]
                has_union = True
        if "items" in schema:
            made["items"] = self.read(schema["items"], depth + 1)
        properties = schema.get("properties")
        if isinstance(properties, dict):
            made["properties"] = {name: self.read(part, depth + 1) for name, part in properties.items()}
        others = schema.get("additionalProperties")
        is_silent = "additionalProperties" not in schema
        if isinstance(others, dict):
            made["additionalProperties"] = self.read(others, depth + 1)
        elif others is False or (is_silent and self._closed and closed and "properties" in made and not has_union):
            made["additionalProperties"] = False


def _with_null(made: dict[str, Any]) -> dict[str, Any]:
    if set(made) == {"type"}:
        kinds = made["type"] if isinstance(made["type"], list) else [made["type"]]
        return {"type": [*kinds, "null"]}
    return {"anyOf": [made, {"type": "null"}]} if made else made


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_type(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, str) and one in _TYPES for one in value)
    return isinstance(value, str) and value in _TYPES


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


_READ: Final[Mapping[str, Callable[[Any], bool]]] = {
    "type": _is_type,
    "enum": lambda value: isinstance(value, list) and bool(value),
    "const": lambda _value: True,
    "required": _is_names,
    "pattern": lambda value: isinstance(value, str),
    "uniqueItems": lambda value: isinstance(value, bool),
    "multipleOf": lambda value: _is_number(value) and value > 0,
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _is_number),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _is_count),
}
"""Keyword → is this value one for it? What is not here, or has another value, says nothing."""
