"""OpenAPI 3.0 in the words of JSON Schema."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from falbatch.core.plainschema import plain_input_schema
from falbatch.sandbox.catalogue.document import openapi_document
from falbatch.sandbox.catalogue.model import plain_input
from falbatch.sandbox.catalogue.models import MODELS
from tests.core.openapi import SIZE, SIZES, document


def made(field: Any, **schemas: Any) -> Any:
    return plain_input_schema(document({"x": field}, **schemas))["properties"]["x"]


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ({"type": "integer", "nullable": True}, {"type": ["integer", "null"]}),
        (
            {"type": "string", "enum": ["a"], "nullable": True},
            {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}]},
        ),
        ({"minimum": 0, "exclusiveMinimum": True}, {"exclusiveMinimum": 0}),
        ({"maximum": 9, "exclusiveMaximum": False}, {"maximum": 9}),
        ({"maximum": float("inf"), "minimum": float("nan"), "multipleOf": float("inf")}, {}),
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ({"title": "X", "default": 3, "format": "uri", "ui": {"a": 1}, "type": "string"}, {"type": "string"}),
        ({"type": "array", "items": {"type": "string", "x-fal": 1}}, {"type": "array", "items": {"type": "string"}}),
        ({"additionalProperties": {"type": "integer"}}, {"additionalProperties": {"type": "integer"}}),
    ],
)
def test_each_word_becomes_its_plain_one(given: dict[str, Any], plain: dict[str, Any]) -> None:
    assert made(given) == plain


def test_references_stay_and_what_they_name_comes_along() -> None:
    schema = plain_input_schema(document({"size": SIZES}, Size=SIZE))
    assert schema["properties"]["size"]["anyOf"][0] == {"$ref": "#/components/schemas/Size"}
    assert schema["components"]["schemas"]["Size"]["properties"]["width"]["maximum"] == 14142


def test_a_closed_schema_knows_no_other_fields() -> None:
    schema = plain_input_schema(document({"size": SIZES}, Size=SIZE), closed=True)
    assert schema["additionalProperties"] is False
    assert schema["components"]["schemas"]["Size"]["additionalProperties"] is False


@pytest.mark.parametrize("union", ["allOf", "anyOf"])
def test_parts_of_parts_are_open_too(union: str) -> None:
    """An object of several parts has the fields of all: none of them may be closed."""
    reference = {"$ref": "#/components/schemas/"}
    whole = {"allOf": [{"$ref": reference["$ref"] + "B"}, {"properties": {"q": {}}}]}
    schemas: dict[str, Any] = {
        "B": {union: [{"$ref": reference["$ref"] + "C"}]},
        "C": {"type": "object", "properties": {"z": {}}},
    }
    given = document({"x": {"$ref": reference["$ref"] + "A"}}, A=whole, **schemas)
    schema = plain_input_schema(given, closed=True)
    assert "additionalProperties" not in schema["components"]["schemas"]["C"]
    assert jsonschema.Draft202012Validator(schema).is_valid({"x": {"q": 1, "z": 2}})


def test_a_reference_may_be_nullable() -> None:
    plain = made({"$ref": "#/components/schemas/Size", "nullable": True}, Size=SIZE)
    assert plain == {"anyOf": [{"$ref": "#/components/schemas/Size"}, {"type": "null"}]}


def test_an_object_is_closed_only_where_its_schema_says_nothing_of_other_fields() -> None:
    fields = {"type": "object", "properties": {"a": {}}}
    given = document({"x": {**fields, "additionalProperties": True}, "y": fields})
    closed = plain_input_schema(given, closed=True)["properties"]
    assert "additionalProperties" not in closed["x"]
    assert closed["y"]["additionalProperties"] is False


def test_an_absurdly_deep_schema_ends_somewhere() -> None:
    field: dict[str, Any] = {"type": "integer"}
    for _ in range(500):
        field = {"type": "array", "items": field}
    jsonschema.Draft202012Validator.check_schema(plain_input_schema(document({"x": field})))


@pytest.mark.parametrize("endpoint", MODELS)
def test_every_known_model_has_a_plain_schema_that_agrees_with_the_models_own(endpoint: str) -> None:
    model = MODELS[endpoint]
    schema = plain_input_schema(openapi_document(model))
    jsonschema.Draft202012Validator.check_schema(schema)
    ours, theirs = jsonschema.Draft202012Validator(schema), jsonschema.Draft202012Validator(plain_input(model))
    for field in model.input["properties"]:
        for value in ("", "x", 0, 1, -1, 2.5, 10**6, True, None, [], ["a"], {}, {"width": 0}, {"width": 9}):
            given = {**model.example, field: value}
            assert ours.is_valid(given) == theirs.is_valid(given), (field, value)
