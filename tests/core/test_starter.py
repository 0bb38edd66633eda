"""A first manifest from a schema: it is valid, it makes what it says, and each of its comments can be used."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator

from falbatch.core.checking import InputCheck
from falbatch.core.expand import expand
from falbatch.core.fields import endpoint_fields
from falbatch.core.fileinputs import FileInput
from falbatch.core.manifest import parse_manifest
from falbatch.core.problems import ProblemLog
from falbatch.core.rows import InlineRows
from falbatch.core.starter import Starter, Subject, starter
from falbatch.core.yamltext import load
from falbatch.sandbox.catalogue.document import openapi_document
from falbatch.sandbox.catalogue.model import plain_input
from falbatch.sandbox.catalogue.models import MODELS
from tests.core.test_fields import document
from tests.core.test_yamlwords import TRAPS
from tests.manifest_schema import SHIPPED

if TYPE_CHECKING:
    from collections.abc import Iterator

VALIDATOR = Draft7Validator(json.loads(SHIPPED.read_bytes()))
COMMENTED = re.compile(r"^( *)# (?!yaml-language-server)", re.MULTILINE)


def start(properties: dict[str, Any], *required: str, file: str = "app.yaml", **more: Any) -> Starter:
    """A starter for an endpoint with these inputs."""
    given = document({"type": "object", "properties": properties, "required": [*required]})
    subject = Subject("me/app", endpoint_fields(given).inputs, takes=InputCheck(given).takes, **more)
    return starter(subject, file=file, schema="falbatch.schema.json")


def of_model(endpoint: str) -> Starter:
    """A starter for an endpoint of the sandbox's."""
    model = MODELS[endpoint]
    fields = endpoint_fields(openapi_document(model)).inputs
    subject = Subject(endpoint, fields, model.display_name, model.category)
    return starter(subject, file="m.yaml", schema="falbatch.schema.json")


def inputs(text: str) -> list[dict[str, Any]]:
    """What the jobs of a valid manifest are given, files as URLs."""
    manifest = parse_manifest(text.encode(), source="app.yaml")
    assert [error.message for error in VALIDATOR.iter_errors(load(text.encode(), source="app.yaml")[0])] == []
    problems = ProblemLog()
    rows = manifest.rows.source.rows if manifest.rows and isinstance(manifest.rows.source, InlineRows) else None
    items = [*expand(manifest, rows, check_endpoint=lambda _: None, problems=problems)]
    assert problems.problems() == ()
    return [as_urls(item.input) for item in items]


def as_urls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: as_urls(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [as_urls(entry) for entry in value]
    return f"https://example.org/{value.path}" if isinstance(value, FileInput) else value


def uncommented(text: str) -> Iterator[str]:
    """`text` with each commented setting used, one at a time."""
    for found in COMMENTED.finditer(text):
        yield text[: found.start()] + found[1] + text[found.end() :]


@pytest.mark.parametrize("endpoint", MODELS)
def test_a_starter_gives_its_endpoint_what_it_takes_and_so_does_each_comment(endpoint: str) -> None:
    made = of_model(endpoint)
    schema = plain_input(MODELS[endpoint])
    variants = [made.text, *uncommented(made.text)]
    assert len(variants) > len(schema["properties"])
    for text in variants:
        found = inputs(text)
        assert [error.message for one in found for error in Draft202012Validator(schema).iter_errors(one)] == []
    assert len(inputs(made.text)) == made.jobs == (1 if MODELS[endpoint].is_training else 2)


@pytest.mark.parametrize("endpoint", MODELS)
def test_every_field_is_there_with_its_type_range_default_and_meaning(endpoint: str) -> None:
    flowing = re.sub(r"\n *##     ", " ", of_model(endpoint).text)
    for field in endpoint_fields(openapi_document(MODELS[endpoint])).inputs:
        (line,) = re.findall(rf"^  (?:# )?{field.name}: .* .*{re.escape(field.type)}.*$", flowing, re.MULTILINE)
        for fact in (field.bounds, f"default {field.default}" if field.default else "", field.description):
            assert fact in line or len(field.default) > 60


def test_lines_are_of_a_sane_width() -> None:
    for endpoint in MODELS:
        assert max(len(line) for line in of_model(endpoint).text.splitlines() if "://" not in line) <= 120


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"seed": {"type": "integer"}, "style": {"enum": ["a", "b"]}}, "  seed: {range: [0, 2]}"),
        ({"seed": {"type": "integer", "minimum": 5}}, "  seed: {range: [5, 7]}"),
        ({"duration": {"enum": ["5", "10"]}, "ratio": {"enum": ["1:1", "4:3"]}}, '  ratio: ["1:1", "4:3"]'),
        ({"row": {"enum": ["a", "b"]}, "b": {"enum": ["{{", "x"]}, "c d": {"enum": ["a", "b"]}}, "repeat: 2"),
        ({"seed": {"type": "string"}}, "repeat: 2"),
    ],
)
def test_the_matrix_is_of_what_does_not_decide_the_price(fields: dict[str, Any], line: str) -> None:
    made = start(fields)
    assert [one for one in made.text.splitlines() if one.startswith(line)]
    assert len(inputs(made.text)) == made.jobs == 2


def test_files_may_be_paths_or_urls() -> None:
    url = {"type": "string", "examples": ["https://a.b/c.png"]}
    many = {"type": "array", "items": {"type": "string"}, "examples": [["https://a.b/d.png"]]}
    made = start({"image_url": url, "mask_url": {"type": "string"}, "image_urls": many}, "image_url", "image_urls")
    assert '  image_url: {file: "{{ row.image_url }}"}' in made.text
    assert '  # mask_url: {file: "photo.png"}' in made.text
    assert '  image_urls: [{file: "https://a.b/d.png"}]' in made.text
    assert inputs(made.text)[0] == {"image_url": "https://a.b/c.png", "image_urls": ["https://a.b/d.png"]}


def test_an_endpoint_without_fields_is_given_nothing() -> None:
    assert inputs(start({}).text) == [{}, {}]


def test_an_endpoint_whose_only_field_is_called_file_gets_a_field() -> None:
    assert inputs(start({"file": {"type": "string"}}, "file").text)[0] == {"file": "a red kite over the sea"}


def test_an_endpoint_whose_only_field_is_called_derive_gets_a_field() -> None:
    assert inputs(start({"derive": {"type": "string"}}, "derive").text)[0] == {"derive": "a red kite over the sea"}


INT, NUMBER, TEXT_TYPE = {"type": "integer"}, {"type": "number"}, {"type": "string"}


@pytest.mark.parametrize(
    "field",
    [
        {**INT, "minimum": 1, "multipleOf": 8},
        {**INT, "maximum": -5},
        {**INT, "minimum": 5, "exclusiveMinimum": True},
        {**INT, "maximum": -5, "exclusiveMaximum": True},
        {**INT, "exclusiveMinimum": 5, "multipleOf": 5},
        {**INT, "minimum": 0.5},
        {**INT, "minimum": -(10**400), "maximum": 10**400},
        {**INT, "multipleOf": 10**20},
        {**NUMBER, "minimum": float("-inf"), "multipleOf": float("inf")},
        {**NUMBER, "minimum": 0, "maximum": 1, "exclusiveMinimum": True, "exclusiveMaximum": True},
        {**NUMBER, "exclusiveMinimum": 2.5},
        {**NUMBER, "minimum": 0.25, "multipleOf": 0.1},
        {**NUMBER, "maximum": -0.5},
        {**INT, "examples": [9, 16], "multipleOf": 8},
        {**INT, "enum": [3, 7]},
        {"type": "boolean"},
        {"type": "array", "items": INT, "minItems": 2},
        {"type": "object", "properties": {"a": {**INT, "minimum": 1, "multipleOf": 8}}, "required": ["a"]},
        {**TEXT_TYPE, "maxLength": 5},
        {**TEXT_TYPE, "minLength": 60},
        {**TEXT_TYPE, "pattern": "^[a-z]{3}$", "examples": ["ABC", "abc"]},
        {"anyOf": [{**INT, "maximum": -5}, {"type": "boolean"}]},
    ],
    ids=str,
)
@pytest.mark.parametrize("is_required", [True, False])
def test_what_a_starter_gives_passes_a_runs_own_check(field: dict[str, Any], is_required: bool) -> None:
    required = ["x"] if is_required else []
    check = InputCheck(document({"type": "object", "properties": {"x": field}, "required": required}))
    made = start({"x": field}, *required)
    for text in [made.text, *uncommented(made.text)]:
        for one in inputs(text):
            assert "x" in one or not is_required
            assert [fault.what for fault in check.faults(one)] == []


@pytest.mark.parametrize(
    ("seed", "axis"),
    [
        ({**INT, "examples": [42]}, "  seed: {range: [42, 44]}"),
        ({**INT, "enum": [42, 1000]}, "  seed: [42, 1000]"),
        ({**INT, "enum": [42]}, None),
        ({**INT, "examples": [42], "multipleOf": 7}, "  seed: {range: [42, 56, 7]}"),
        ({**INT, "multipleOf": 5, "minimum": 3}, "  seed: {range: [5, 15, 5]}"),
        ({**INT, "maximum": 42, "examples": [42]}, "  seed: [42, 0]"),
    ],
)
def test_the_seeds_of_the_matrix_are_such_as_the_endpoint_takes(seed: dict[str, Any], axis: str | None) -> None:
    check = InputCheck(document({"type": "object", "properties": {"seed": seed}}))
    made = start({"seed": seed, "prompt": TEXT_TYPE})
    assert (axis is None and "\n  seed:" not in made.text) or axis in made.text.splitlines()
    for text in [made.text, *uncommented(made.text)]:
        for one in inputs(text):
            assert [fault.what for fault in check.faults(one) if fault.path[0] == "seed"] == []


def test_a_seed_of_the_jobs_own_is_offered_where_it_is_taken() -> None:
    assert "Or {derive: true}" in start({"seed": INT, "prompt": TEXT_TYPE}).text
    assert "Or {derive: true}" not in start({"seed": {**INT, "maximum": 65535}, "prompt": TEXT_TYPE}).text


def test_a_file_called_like_a_template_has_comments_that_can_be_used() -> None:
    made = start({"prompt": TEXT_TYPE}, file="{{x}}.yaml")
    for text in uncommented(made.text):
        assert inputs(text)


def test_a_starter_by_the_sandbox_names_commands_for_the_sandbox() -> None:
    commands = re.findall(
        r"^##   (falbatch (?:plan|run) .*?)   ", start({"prompt": TEXT_TYPE}, is_sandbox=True).text, re.MULTILINE
    )
    assert len(commands) == 2
    assert all(" --sandbox" in command for command in commands)


def test_what_nothing_is_known_of_is_given_a_text() -> None:
    assert inputs(start({"x": {}}, "x").text)[0] == {"x": "a red kite over the sea"}


NAMES = ["prompt", "seed", "image_url", "file", "as", "row", "falbatch:file", "true", "a b", "items", "if", *TRAPS]
TEXT = st.sampled_from(TRAPS) | st.text(st.sampled_from('{}%#"\\ \n\u2028ab'), max_size=10)
VALUE = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | TEXT
    | st.lists(TEXT, max_size=2)
    | st.dictionaries(TEXT, TEXT, max_size=2)
)
FIELD = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "integer", "number", "boolean", "array", "object"]),
        "title": TEXT,
        "description": TEXT,
        "default": VALUE,
        "examples": st.lists(VALUE, max_size=3),
        "enum": st.lists(TEXT, min_size=1, max_size=3),
        "minimum": st.integers(-3, 3),
        "items": st.just({"type": "string"}),
    },
)


@settings(max_examples=150)
@example({"null": {"enum": ["a", "b"]}}, [], "", "app.yaml")
@given(
    st.dictionaries(st.sampled_from(NAMES), FIELD, max_size=4),
    st.lists(st.sampled_from(NAMES), max_size=3),
    TEXT,
    st.sampled_from(["app.yaml", "a b/'x'.yaml", "a\nb: c.yaml", "\ud800.yaml"]),
)
def test_whatever_a_schema_says_the_manifest_is_valid(
    properties: dict[str, Any], required: list[str], words: str, file: str
) -> None:
    found = endpoint_fields(document({"type": "object", "properties": properties, "required": required}))
    subject = Subject("me/app", found.inputs, words, words)
    made = starter(subject, file=file, schema="falbatch.schema.json")
    made.text.encode()
    given = inputs(made.text)
    assert len(given) == made.jobs
    assert all(name in given[0] for name in required if name in properties and name != "falbatch:file")
    for text in uncommented(made.text):
        parse_manifest(text.encode(), source=file)
