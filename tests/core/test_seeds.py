"""The seed of a re-roll follows from the job's key and its number, and takes the place of the input's own."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.identity import canonical_json
from falbatch.core.model import JobKey
from falbatch.core.seeds import asked_seed, can_roll, named_seed, rolled_seed, seed_of, with_seed

KEY = JobKey(bytes(range(32)))


def test_the_rule_is_the_one_that_the_readme_states() -> None:
    first = int.from_bytes(hashlib.sha256(KEY + b"\0\0\0\1").digest(), "big") >> (256 - 31)
    assert seed_of(KEY, 1) == first == 39012997
    assert seed_of(KEY, 2) != first
    assert seed_of(JobKey(bytes(32)), 1) != first


@given(st.binary(min_size=32, max_size=32), st.integers(1, 10_000))
def test_a_seed_has_31_bits(key: bytes, roll: int) -> None:
    assert 0 <= seed_of(JobKey(key), roll) < 2**31


@pytest.mark.parametrize("seed", [0, -1, 7, 2**63, 12345678901234567890])
def test_an_integer_seed_is_replaced_and_nothing_else(seed: int) -> None:
    given_json = canonical_json({"seed": seed, "prompt": "ü", "other": {"seed": seed}, "big": 2**70})
    assert rolled_seed(given_json, KEY, 0) is None
    rolled = rolled_seed(given_json, KEY, 3)
    assert rolled == seed_of(KEY, 3)
    sent = json.loads(with_seed(given_json, rolled))
    assert sent == {"seed": rolled, "prompt": "ü", "other": {"seed": seed}, "big": 2**70}
    assert with_seed(given_json, rolled) == canonical_json(sent)


@pytest.mark.parametrize(
    ("written", "expected"),
    [("7.0", 7), ('"7"', 7), ('" -7 "', -7), ("7e2", 700), ('"12345678901234567890"', 12345678901234567890)],
)
def test_a_whole_number_is_a_seed_however_it_is_written_and_a_number_is_sent(written: str, expected: int) -> None:
    given_json = f'{{"seed": {written}}}'.encode()
    rolled = rolled_seed(given_json, KEY, 1)
    assert (rolled, can_roll(given_json)) == (seed_of(KEY, 1), True)
    assert with_seed(given_json, rolled) == canonical_json({"seed": rolled})
    assert asked_seed(json.loads(given_json)) == expected


@pytest.mark.parametrize("seed", [True, 1.5, "seven", "", "7_0", "9" * 41, [7], {"a": 7}])
def test_a_seed_that_cannot_be_replaced_is_not_rolled(seed: object) -> None:
    given_json = canonical_json({"seed": seed})
    assert rolled_seed(given_json, KEY, 1) is None
    assert not can_roll(given_json)


@pytest.mark.parametrize(("seed", "expected"), [(7, 7), (True, None), (7.0, None), ("7", None), (None, None)])
def test_the_seed_of_a_result_is_an_integer(seed: object, expected: int | None) -> None:
    assert named_seed({"seed": seed}) == expected
    assert named_seed([seed]) is None


@pytest.mark.parametrize("given_value", [{}, {"seed": None}])
def test_an_input_without_one_goes_as_it_is(given_value: dict[str, Any]) -> None:
    given_json = canonical_json(given_value)
    assert rolled_seed(given_json, KEY, 1) is None
    assert with_seed(given_json, None) == given_json
    assert can_roll(given_json)
