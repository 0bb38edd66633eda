"""Schemas read as tables: what fal's documents look like, and what may be wrong with them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.fields import MADE_UP, Field, endpoint_fields
from falbatch.core.openapi import input_defaults, input_schema, output_schema


def document(given: dict[str, Any], answer: dict[str, Any] | None = None) -> dict[str, Any]:
    """An OpenAPI document in fal's form; the input's schema stands under a name that tells nothing."""
    return {
        "openapi": "3.0.4",
        "paths": {
            "/me/app": {
                "post": {
                    "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/X"}}}}
                }
            },
            "/me/app/requests/{request_id}/status": {"get": {}},
            "/me/app/requests/{request_id}": {
                "get": {"responses": {"200": {"content": {"application/json": {"schema": answer or {}}}}}}
            },
        },
        "components": {
            "schemas": {
                "AppInput": {"properties": {"wrong": {"type": "string"}}},
                "X": given,
                "Image": {"type": "object", "title": "Image", "properties": {"url": {"type": "string"}}},
            }
        },
    }


def fields_of(properties: dict[str, Any], **more: Any) -> tuple[Field, ...]:
    return endpoint_fields(document({"type": "object", "properties": properties, **more})).inputs


def test_the_input_is_found_through_the_post_not_by_its_name() -> None:
    (field,) = fields_of({"prompt": {"type": "string", "description": "What to\n  paint."}}, required=["prompt"])
    assert field == Field(
        "prompt", "text", True, "", "", "What to paint.", kinds=frozenset({"string"}), examples=(MADE_UP,)
    )


def test_defaults_are_the_fields_own_or_their_types() -> None:
    """`None` for a field without one; no answer at all where the document describes no input."""
    properties = {
        "num_images": {"type": "integer", "default": 1},
        "image_size": {"anyOf": [{"$ref": "#/components/schemas/Image"}, {"type": "string"}], "default": "square"},
        "size": {"$ref": "#/components/schemas/Size"},
        "prompt": {"type": "string"},
        "odd": 7,
    }
    given = document({"properties": properties})
    given["components"]["schemas"]["Size"] = {"type": "string", "default": "large"}
    assert input_defaults(given) == {
        "num_images": 1,
        "image_size": "square",
        "size": "large",
        "prompt": None,
        "odd": None,
    }
    assert input_defaults({}) is None
    assert input_defaults(document({"type": "object"})) == {}


def test_fields_stand_in_fals_order_and_none_is_lost() -> None:
    given: dict[str, Any] = {"b": {}, "a": {}, "c": {}}
    assert [field.name for field in fields_of(given, **{"x-fal-order-properties": ["c", "zz", "a"]})] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("schema", "type_", "bounds", "default"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 50, "default": 28}, "integer", "1 to 50", "28"),
        ({"type": "number", "minimum": 0.5}, "number", "from 0.5", ""),
        ({"type": "number", "maximum": 20}, "number", "at most 20", ""),
        ({"type": "string", "maxLength": 4096, "default": ""}, "text", "at most 4096 characters", '""'),
        ({"enum": ["jpeg", "png"], "default": "jpeg"}, 'one of "jpeg", "png"', "", '"jpeg"'),
        ({"enum": list(range(20))}, "one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …", "", ""),
        ({"type": "array", "items": {"$ref": "#/components/schemas/Image"}, "maxItems": 4}, "list of Image", "", ""),
        ({"anyOf": [{"enum": ["square"]}, {"$ref": "#/components/schemas/Image"}]}, 'one of "square" or Image', "", ""),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text", "", ""),
        ({"type": "boolean", "default": None}, "boolean", "", "null"),
        ({}, "anything", "", ""),
        ({"$ref": "#/nowhere"}, "anything", "", ""),
        ({"$ref": "https://example.org/schema"}, "anything", "", ""),
    ],
)
def test_a_field_in_words(schema: dict[str, Any], type_: str, bounds: str, default: str) -> None:
    (field,) = fields_of({"x": schema})
    assert (field.type, field.default) == (type_, default)
    assert field.bounds == (bounds or ("at most 4 entries" if "maxItems" in schema else ""))


def test_a_reference_keeps_what_stands_beside_it() -> None:
    (field,) = fields_of({"image": {"$ref": "#/components/schemas/Image", "description": "The input"}})
    assert (field.type, field.description) == ("Image", "The input")


def test_outputs_are_what_the_request_answers() -> None:
    answer = {"type": "object", "properties": {"images": {"type": "array", "items": {"type": "string"}}}}
    found = endpoint_fields(document({}, answer)).outputs
    assert [(field.name, field.type) for field in found] == [("images", "list of text")]


def test_references_that_go_round_end() -> None:
    round_and_round = document({"$ref": "#/components/schemas/X"})
    assert input_schema(round_and_round) is None
    nested = document({"properties": {"x": {"$ref": "#/components/schemas/X"}}})
    assert endpoint_fields(nested).inputs[0].name == "x"
    deep: dict[str, Any] = {"type": "array"}
    deep["items"] = deep
    assert fields_of({"x": deep})[0].type.endswith("…")
    itself: dict[str, Any] = {"type": "object", "properties": {}, "required": ["a", "b"]}
    itself["properties"] |= {"a": itself, "b": itself}
    assert fields_of({"x": itself})[0].examples == ({"a": {"a": {}, "b": {}}, "b": {"a": {}, "b": {}}},)


@pytest.mark.parametrize(
    ("schema", "examples"),
    [
        ({"type": "string", "examples": ["a", "b"], "default": "c"}, ["a", "b", "c"]),
        ({"type": "string", "examples": [7, None, "a"], "enum": ["a", "b"]}, ["a", "b"]),
        ({"type": "integer", "default": 28, "minimum": 1, "maximum": 20}, [1]),
        ({"type": "integer", "exclusiveMinimum": 4}, [5]),
        ({"type": "number", "minimum": 0.5, "examples": [True, 0.2, 1]}, [1]),
        ({"anyOf": [{"type": "integer", "minimum": 3}, {"type": "null"}], "default": None}, [3]),
        ({"anyOf": [{"enum": ["square"]}, {"type": "object"}], "default": {"width": 1}}, [{"width": 1}, "square"]),
        ({"allOf": [{"$ref": "#/components/schemas/Image"}], "description": "x"}, [{}]),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2}, [[MADE_UP, MADE_UP]]),
        ({"type": "string", "minLength": 3}, [MADE_UP * 3]),
        ({"type": ["string", "null"], "default": None, "const": "x"}, ["x"]),
        ({"type": "boolean"}, [False]),
        ({}, []),
    ],
)
def test_examples_are_the_schemas_own_or_made_up_within_its_bounds(schema: dict[str, Any], examples: list[Any]) -> None:
    (field,) = fields_of({"x": schema})
    assert [*field.examples] == examples


def test_fields_of_objects_lists_and_unions_are_inside() -> None:
    side = {"type": "integer", "exclusiveMinimum": 0}
    size = {"type": "object", "properties": {"width": side}, "required": ["width"]}
    for schema in (size, {"anyOf": [size, {"enum": ["square"]}]}, {"type": "array", "items": size}):
        (field,) = fields_of({"x": schema})
        assert [(one.name, one.type, one.is_required, one.bounds) for one in field.inside] == [
            ("width", "integer", True, "above 0")
        ]


KEYS = ["paths", "/a", "post", "requestBody", "content", "application/json", "schema", "$ref", "properties", "type"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4))
def test_no_document_is_too_odd(odd: dict[str, Any]) -> None:
    endpoint_fields(odd)
    endpoint_fields(document({"properties": odd}, odd))
    assert output_schema({}) is None
