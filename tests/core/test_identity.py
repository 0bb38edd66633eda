"""A job's key depends on what the job is and on nothing else; what is hashed is what is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.identity import canonical_json, input_of, job_key
from falbatch.core.model import JobKey, Mode
from falbatch.exactjson import parse_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=5)


def key_of(endpoint: str, value: dict[str, Any], replica: int = 0) -> JobKey:
    return job_key(endpoint, Mode.QUEUE, canonical_json(value), replica)


@pytest.mark.parametrize(
    ("endpoint", "value", "replica", "key"),
    [
        (
            "fal-ai/flux/dev",
            {"prompt": "a cat"},
            0,
            "735f8900bb2cee2b6aad1349b669e02dd871f23b6cc4b82593f541c22e45d278",
        ),
        (
            "fal-ai/flux/dev",
            {"seed": 2**70, "prompt": "Ä"},
            1,
            "85ed83fe55141fdae70b718d5f597f55f866a51e4f25918b4d909a6694dba7a7",
        ),
        ("workflows/me/x", {}, 0, "886d089f09aae0992dcef9669f630a70559f77d7ec1fb0cdf8bc3994e69d830a"),
    ],
)
def test_golden_keys_never_change(endpoint: str, value: dict[str, Any], replica: int, key: str) -> None:
    """A changed recipe would make every job of every user new, and paid again."""
    assert key_of(endpoint, value, replica).hex() == key


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        ({"b": 1, "a": 2}, b'{"a":2,"b":1}'),
        ({"b": {"d": 1, "c": [True, None]}, "a": "x y"}, b'{"a":"x y","b":{"c":[true,null],"d":1}}'),
        ({"ä": "€"}, '{"ä":"€"}'.encode()),
        ({"n": 1.0, "m": 1}, b'{"m":1,"n":1.0}'),
        ({"n": 2**63}, b'{"n":9223372036854775808}'),
        ({"n": 2**64 - 1}, b'{"n":18446744073709551615}'),
        ({"n": 2**64}, b'{"n":18446744073709551616}'),
        ({"n": -(2**63) - 1}, b'{"n":-9223372036854775809}'),
        ({"z": 10**40, "a": {"c": 1, "b": "é"}}, ('{"a":{"b":"é","c":1},"z":1' + "0" * 40 + "}").encode()),
    ],
)
def test_canonical_json_is_sorted_tight_and_exact(value: dict[str, Any], canonical: bytes) -> None:
    assert canonical_json(value) == canonical


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), {"deep": [b"x"]}, {"big": 2**70, "bad": b"x"}])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


@given(json_objects)
def test_canonical_bytes_parse_back_to_the_same_value(value: dict[str, Any]) -> None:
    canonical = canonical_json(value)
    assert input_of(canonical) == value
    assert json.loads(canonical) == value


@given(json_objects)
def test_the_order_of_keys_in_a_mapping_does_not_matter(value: dict[str, Any]) -> None:
    backwards = dict(reversed(value.items()))
    assert canonical_json(backwards) == canonical_json(value)
    assert key_of("a/b", backwards) == key_of("a/b", value)


@given(st.integers(min_value=-(2**200), max_value=2**200))
def test_integers_of_any_size_stay_exact(number: int) -> None:
    back = parse_json(canonical_json({"seed": number, "deep": [{"x": number}]}))
    assert back == {"seed": number, "deep": [{"x": number}]}
    assert type(back["seed"]) is int


def test_seeds_that_differ_beyond_64_bits_are_different_jobs() -> None:
    assert key_of("a/b", {"seed": 2**70}) != key_of("a/b", {"seed": 2**70 + 1})


def test_a_key_differs_by_endpoint_input_and_replica() -> None:
    keys = {
        key_of("a/b", {"x": 1}),
        key_of("a/c", {"x": 1}),
        key_of("a/b", {"x": 2}),
        key_of("a/b", {"x": 1}, 1),
        key_of("a/b", {"x": "1"}),
        key_of("a/b", {"x": 1.0}),
        key_of("a/b", {"x": True}),
        key_of("a/b", {"x": [1]}),
    }
    assert len(keys) == 8
    assert all(len(key) == 32 for key in keys)


@given(st.text(), st.text())
def test_no_text_in_an_endpoint_or_input_can_imitate_another_job(one: str, other: str) -> None:
    """The canonical object is put together by hand: quotes in the parts must not move its borders."""
    same = one == other
    assert (key_of(one, {"p": "x"}) == key_of(other, {"p": "x"})) is same
    assert (key_of("a/b", {"p": one}) == key_of("a/b", {"p": other})) is same


@pytest.mark.parametrize("text", [b"", b"nope", b"{", b"{'a': 1}", b'{"a":1}x', b"\xff"])
def test_text_that_is_no_json_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"[18446744073709551616, 1e19, -9223372036854775809]", [2**64, 1e19, -(2**63) - 1]),
        (b'{"a": {"b": 99999999999999999999}}', {"a": {"b": 99999999999999999999}}),
        (b'{"a": 1}', {"a": 1}),
        (b"null", None),
    ],
)
def test_parsing_keeps_integers_apart_from_floats(text: bytes, value: object) -> None:
    parsed = parse_json(text)
    assert parsed == value
    assert repr(parsed) == repr(value)


def test_an_input_that_is_no_object_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        input_of(b"[1]")
