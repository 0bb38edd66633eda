"""What an endpoint's schema says to an input, and what to write instead."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.checking import InputCheck, InputFault
from falbatch.core.correction import correction
from falbatch.core.fileinputs import FileMark, Travel, stand_in
from falbatch.sandbox.catalogue.document import openapi_document
from falbatch.sandbox.catalogue.models import MODELS
from tests.core.openapi import SIZE, SIZES, document

FIELDS: dict[str, Any] = {
    "prompt": {"type": "string", "minLength": 2, "maxLength": 12},
    "steps": {"type": "integer", "minimum": 1, "maximum": 50, "default": 28},
    "scale": {"type": "number", "exclusiveMinimum": True, "minimum": 0},
    "safe": {"type": "boolean"},
    "duration": {"type": "string", "enum": ["5", "10"]},
    "quality": {"type": "integer", "enum": [10, 50, 90]},
    "image_size": SIZES,
    "seed": {"type": "integer", "nullable": True},
    "loras": {
        "type": "array",
        "maxItems": 2,
        "items": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    },
    "colour": {"type": "string", "pattern": "^#[0-9a-f]{6}$"},
    "tags": {"type": "array", "items": {"type": "string"}},
    "step_of": {"type": "integer", "multipleOf": 8},
}
CHECK = InputCheck(document(FIELDS, required=["prompt"], Size=SIZE))


def faults(**changes: Any) -> list[InputFault]:
    return list(CHECK.faults({"prompt": "a kite", **changes}))


@pytest.mark.parametrize(
    "good",
    [
        {},
        {"steps": 1, "scale": 0.1, "safe": False, "duration": "5", "seed": None},
        {"image_size": "square"},
        {"image_size": {"width": 512}},
        {"seed": 2**64 + 1, "steps": 50},
        {"loras": [{"path": "x"}], "colour": "#00ff00", "tags": []},
    ],
)
def test_a_good_input_has_nothing_said_of_it(good: dict[str, Any]) -> None:
    assert CHECK.is_good({"prompt": "a kite", **good})
    assert faults(**good) == []


TEMPLATE = "{{ row.x }}"

BAD = [
    ({"steps": "4"}, "steps", 'must be a whole number, not the text "4"', "write 4, without quotes", "row.x | int"),
    ({"steps": "four"}, "steps", 'must be a whole number, not the text "four"', "write a whole number", ""),
    ({"steps": 2.5}, "steps", "must be a whole number, not 2.5", "write 2", ""),
    ({"steps": 0}, "steps", "must be at least 1, not 0", "write 1", "{{ [row.x, 1] | max }}"),
    ({"steps": 99}, "steps", "must be at most 50, not 99", "write 50", "{{ [row.x, 50] | min }}"),
    ({"scale": 0}, "scale", "must be above 0, not 0", "write a number that is above 0", ""),
    ({"scale": "3.5"}, "scale", 'must be a number, not the text "3.5"', "write 3.5, without", "row.x | float"),
    ({"safe": "yes"}, "safe", 'must be true or false, not the text "yes"', "write true, without", "row.x | bool"),
    ({"safe": "no"}, "safe", 'must be true or false, not the text "no"', "write false, without", ""),
    ({"duration": 5}, "duration", 'must be one of "5", "10", not 5', 'write "5", with quotes', "row.x | string"),
    ({"duration": "7"}, "duration", 'must be one of "5", "10", not the text "7"', "write one of those", ""),
    ({"quality": 60}, "quality", "must be one of 10, 50, 90, not 60", "the nearest is 50", ""),
    ({"quality": "50"}, "quality", 'must be one of 10, 50, 90, not the text "50"', "write 50, without quotes", ""),
    (
        {"image_size": "square-hd"},
        "image_size",
        'must be one of "square", "square_hd" or a mapping, not the text "square-hd"',
        'did you mean "square_hd"?',
        "",
    ),
    ({"image_size": 7}, "image_size", 'must be one of "square", "square_hd" or a mapping, not 7', "write one of", ""),
    ({"image_size": {"width": 0}}, "image_size.width", "must be at least 1, not 0", "write 1", ""),
    ({"image_size": {"width": "64"}}, "image_size.width", "must be a whole number, not the text", "write 64,", ""),
    ({"loras": [{"path": "x"}, {"path": 3}]}, "loras.1.path", "must be text, not 3", 'write "3", with quotes', ""),
    ({"loras": [{"path": "x"}] * 3}, "loras", "has 3 entries; at most 2 are taken", "see `falbatch schema`", ""),
    ({"loras": [{}]}, "loras.0.path", "is missing", "add `path:`", ""),
    ({"tags": "red"}, "tags", 'must be a list, not the text "red"', 'write ["red"]', ""),
    ({"prompt": "x"}, "prompt", "has 1 characters; at least 2 are needed", "see `falbatch schema`", ""),
    ({"prompt": "a kite " * 3}, "prompt", "has 21 characters; at most 12 are taken", "shorten it", "(row.x)[:12]"),
    ({"colour": "red"}, "colour", 'the text "red" does not have the form "^#', "see `falbatch schema`", ""),
    ({"step_of": 20}, "step_of", "must be a multiple of 8, not 20", "a multiple of 8", ""),
]


@pytest.mark.parametrize(("change", "path", "what", "plain", "templated"), BAD)
def test_each_mistake_is_told_with_its_remedy(
    change: dict[str, Any], path: str, what: str, plain: str, templated: str
) -> None:
    (fault,) = faults(**change)
    assert ".".join(map(str, fault.path)) == path
    assert fault.is_error
    assert fault.what.startswith(what)
    assert plain in correction(fault, change.get(path))
    assert templated in correction(fault, TEMPLATE)


def test_all_mistakes_of_an_input_are_told_at_once() -> None:
    found = CHECK.faults(
        {"steps": "4", "scale": 0, "duration": 5, "image_size": {"width": 0, "hight": 1}, "promt": "x"}
    )
    told = {(".".join(map(str, fault.path)), fault.rule) for fault in found}
    assert told == {
        ("prompt", "required"),
        ("steps", "type"),
        ("scale", "exclusiveMinimum"),
        ("duration", "enum"),
        ("image_size.width", "minimum"),
        ("image_size.hight", "unknown"),
        ("promt", "unknown"),
    }


def test_a_field_that_is_missing_is_looked_for_among_those_that_were_given() -> None:
    missing = next(fault for fault in CHECK.faults({"promt": "x"}) if fault.rule == "required")
    assert correction(missing, None) == 'is it "promt"?'
    alone = next(iter(CHECK.faults({})))
    assert correction(alone, None) == "add `prompt:` to it"


def test_an_unknown_field_is_a_warning_with_the_nearest_known_one() -> None:
    (fault,) = faults(image_size={"width": 4, "widht": 4})
    assert not fault.is_error
    assert fault.path == ("image_size", "widht")
    assert correction(fault, None) == 'did you mean "width"?'
    (other,) = faults(zzz=1)
    assert correction(other, None).startswith("known: ")


def test_what_the_schema_refuses_is_an_error_and_told_once() -> None:
    strict = InputCheck(document({"a": {"type": "object", "properties": {"b": {}}, "additionalProperties": False}}))
    (fault,) = strict.faults({"a": {"b": 1, "c": 2}})
    assert fault.is_error
    assert fault.path == ("a", "c")


def test_an_object_of_several_parts_knows_the_fields_of_all() -> None:
    base = {"type": "object", "properties": {"x": {"type": "integer"}}}
    more = {"type": "object", "properties": {"y": {"type": "integer"}}}
    parts = {"allOf": [{"$ref": "#/components/schemas/Base"}, {"$ref": "#/components/schemas/More"}]}
    check = InputCheck(document({"both": parts}, Base=base, More=more))
    assert list(check.faults({"both": {"x": 1, "y": 2}})) == []
    assert [fault.path for fault in check.faults({"both": {"x": "1", "y": 2}})] == [("both", "x")]


def test_causes_are_alike_where_one_correction_mends_all() -> None:
    causes = [
        {fault.cause for fault in faults(**change)} for change in ({"steps": "4"}, {"steps": "5"}, {"steps": 2.5})
    ]
    assert causes[0] == causes[1] != causes[2]
    enums = [{fault.cause for fault in faults(duration=word)} for word in ("6", "6", "7")]
    assert enums[0] == enums[1] != enums[2]
    entries = [fault.cause for fault in faults(loras=[{}, {}])]
    assert len(entries) == 2
    assert len(set(entries)) == 1


ODD = [
    {"type": "file"},
    {"type": ["string", 7]},
    {"enum": "red"},
    {"minimum": "low"},
    {"pattern": "(unclosed"},
    {"pattern": "(?(1)a|b)"},
    {"$ref": "#/components/schemas/Nowhere"},
    {"$ref": "https://example.org/schema.json"},
    {"anyOf": "both"},
    {"items": 3},
    {"properties": ["a"]},
    {"required": "yes"},
    {"additionalProperties": "no"},
    {"oneOf": [{"type": "string"}, {"type": "string"}]},
    "nothing",
    None,
]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_a_schema_that_makes_no_sense_refuses_nothing(odd: Any) -> None:
    check = InputCheck(document({"odd": odd, "steps": {"type": "integer"}}))
    assert list(check.faults({"odd": "x", "steps": 1})) == []
    assert [fault.path for fault in check.faults({"odd": "x", "steps": "1"})] == [("steps",)]


def test_a_schema_that_refers_to_itself_is_read() -> None:
    node = {"type": "object", "properties": {"inner": {"$ref": "#/components/schemas/Node"}, "n": {"type": "integer"}}}
    check = InputCheck(document({"tree": {"$ref": "#/components/schemas/Node"}}, Node=node))
    (fault,) = check.faults({"tree": {"inner": {"inner": {"n": "1"}}}})
    assert fault.path == ("tree", "inner", "inner", "n")


@pytest.mark.parametrize("broken", [{}, {"paths": {}}, {"paths": {"/a": {"post": {"requestBody": 7}}}}])
def test_a_document_without_an_input_is_said_to_have_none(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="names no input"):
        InputCheck(broken)


def test_words_of_fals_reach_a_terminal_as_words() -> None:
    check = InputCheck(document({"mood": {"type": "string", "enum": ["\x1b[31mred", "blue"]}}))
    (fault,) = check.faults({"mood": "green"})
    assert "\x1b" not in fault.what + correction(fault, None)


GOOD = [
    ({"$ref": "#/components/schemas/Size", "nullable": True}, None),
    ({"type": "string", "pattern": r"^\w+$"}, "Käse"),
    ({"type": "string", "pattern": r"^[\w\s,.]+$", "nullable": True}, "Größe 5"),
    ({"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "string", "pattern": r"^\w+$"}]}, "é"),
    ({"type": "string", "pattern": "^data:"}, stand_in(FileMark(bytes(32), Travel.DATA))),
    ({"type": "string", "pattern": "^https:"}, stand_in(FileMark(bytes(32)))),
    ({"type": "string", "pattern": "[.]png$", "maxLength": 40}, stand_in(FileMark(bytes(32)))),
    ({"type": "string", "enum": ["https://v3.fal.media/a.png"]}, stand_in(FileMark(bytes(32)))),
    (
        {"type": "array", "uniqueItems": True, "items": {"type": "string"}},
        [stand_in(FileMark(bytes(32))), stand_in(FileMark(b"1" * 32))],
    ),
    ({"type": "object", "properties": {"a": {}}, "additionalProperties": True}, {"b": 1}),
    ({"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "integer"}}, {"b": 1}),
]


@pytest.mark.parametrize(("schema", "value"), GOOD)
def test_what_a_model_takes_is_not_refused(schema: dict[str, Any], value: Any) -> None:
    assert list(InputCheck(document({"x": schema}, Size=SIZE)).faults({"x": value})) == []


def test_a_pattern_still_counts_where_it_means_the_same() -> None:
    check = InputCheck(
        document({"x": {"type": "string", "pattern": r"^\w+$"}, "y": {"type": "string", "pattern": "^a"}})
    )
    assert [fault.path for fault in check.faults({"x": "a b", "y": "ä"})] == [("x",), ("y",)]


def test_null_and_the_default_of_a_field_that_may_be_left_out_are_no_errors() -> None:
    fields = {"n": {"type": "integer"}, "must": {"type": "integer"}, "mood": {"enum": ["a"], "default": ""}}
    inner = {"in": {"type": "object", "properties": {"n": {"type": "integer"}}}}
    check = InputCheck(document({**fields, **inner}, required=["must"]))
    found = list(check.faults({"n": None, "must": None, "mood": "", "in": {"n": None}}))
    assert {".".join(map(str, fault.path)): fault.is_error for fault in found} == {
        "n": False,
        "must": True,
        "mood": False,
        "in.n": False,
    }
    causes = {next(iter(check.faults({"must": 1, "mood": word}))).kind for word in ("", "b")}
    assert len(causes) == 2, "a warning must not hide an error of the same place"


WHOLE, FLAG = {"type": "integer", "minimum": 1}, {"type": "boolean"}
AUTO, WORDS = {"type": "string", "enum": ["auto"]}, {"type": "string", "enum": ["aa", "square_hd"]}
NULL = {"type": "null"}
UNIONS: list[tuple[Any, Any, str, str]] = [
    ([WHOLE, NULL], "5", 'must be a whole number, not the text "5"', "write 5, without quotes"),
    ([NULL, WHOLE], 0, "must be at least 1, not 0", "write 1"),
    ([FLAG, NULL], "yes", 'must be true or false, not the text "yes"', "write true, without quotes"),
    ([WORDS, NULL], "square", 'must be one of "aa", "square_hd", not the text "square"', 'did you mean "square_hd"?'),
    ([WORDS, NULL], 5, 'must be one of "aa", "square_hd", not 5', "write one of those"),
    ([{"anyOf": [WHOLE, NULL]}, NULL], "5", 'must be a whole number, not the text "5"', "write 5, without quotes"),
    ([{"enum": [None]}, WHOLE], "5", 'must be a whole number, not the text "5"', "write 5, without quotes"),
    ([{"type": "array", "items": WHOLE}, NULL], ["5"], 'must be a whole number, not the text "5"', "write 5,"),
    ([AUTO, WHOLE], "5", 'must be "auto" or a whole number, not the text "5"', "write 5, without quotes"),
    ([AUTO, WHOLE], 0, "must be at least 1, not 0", "write 1"),
    ([AUTO, WORDS], "square", 'must be one of "auto", "aa", "square_hd", not the', 'did you mean "square_hd"?'),
    ([WHOLE, FLAG], "x", 'must be a whole number or true or false, not the text "x"', "write one of those"),
]


@pytest.mark.parametrize(("parts", "value", "what", "hint"), UNIONS)
def test_a_union_says_what_it_takes_and_what_the_value_was_meant_for(
    parts: list[Any], value: Any, what: str, hint: str
) -> None:
    (fault,) = InputCheck(document({"x": {"anyOf": parts}})).faults({"x": value})
    assert fault.what.startswith(what)
    assert correction(fault, value).startswith(hint)


def test_texts_for_a_union_of_numbers_and_null_are_one_cause() -> None:
    check = InputCheck(document({"x": {"anyOf": [WHOLE, NULL]}, "y": {"anyOf": [WHOLE, FLAG]}}))
    for name in "xy":
        assert len({fault.cause for word in "56789" for fault in check.faults({name: word})}) == 1


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "const": "xyz", "enum": ["xyz"]},
        {"const": "xyz", "type": "string"},
        {"type": "string", "enum": ["xyz"], "minLength": 3, "pattern": "^x"},
    ],
)
def test_one_mistake_is_told_once(schema: dict[str, Any]) -> None:
    for value in ("y", 5):
        (fault,) = InputCheck(document({"x": schema})).faults({"x": value})
        assert fault.what.startswith('must be "xyz", not ')


class Unreadable(dict[str, Any]):
    """A document at which reading stumbles."""

    def get(self, *_: Any) -> Any:
        raise LookupError("there is a stone")


def test_a_schema_that_cannot_be_read_for_whatever_reason_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="LookupError: there is a stone"):
        InputCheck(Unreadable())


@pytest.mark.parametrize("endpoint", MODELS)
def test_the_examples_of_every_known_model_are_good(endpoint: str) -> None:
    model = MODELS[endpoint]
    assert list(InputCheck(openapi_document(model)).faults(model.example)) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*FIELDS, "other"]), JSON, max_size=6))
def test_whatever_is_given_each_fault_has_words_and_a_remedy(given_: dict[str, Any]) -> None:
    found = list(CHECK.faults(given_))
    assert bool(found) is not CHECK.is_good(given_)
    for fault in found:
        assert fault.what
        assert "\n" not in fault.what
        for written in (None, TEMPLATE, "a {{ x }} b", fault.value):
            assert correction(fault, written)
        hash(fault.cause)
