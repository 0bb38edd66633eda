"""Only JSON leaves a template."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from markupsafe import Markup

from falbatch.core.jsonvalue import to_json


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ((1, [2.5, (None, True)]), [1, [2.5, [None, True]]]),
        ({"a": {"b": date(2024, 1, 2)}}, {"a": {"b": "2024-01-02"}}),
        (datetime(2024, 1, 2, 3, 4, tzinfo=UTC), "2024-01-02T03:04:00+00:00"),
        (10**30, 10**30),
        (Markup("a"), "a"),
    ],
)
def test_values_become_plain_json(value: Any, made: Any) -> None:
    got = to_json(value)
    assert got == made
    assert type(got) is type(made)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "not a number that JSON knows"),
        ([float("inf")], "not a number that JSON knows"),
        ({1, 2}, "a set cannot be sent"),
        (b"x", "bytes cannot be sent"),
        (len, "a function cannot be sent"),
        (object(), "a value of type object"),
        ({1: "x"}, "a key must be text"),
        ("\ud800", "surrogate"),
        ("x" * 1_000_001, "1,000,001 characters"),
    ],
)
def test_what_json_cannot_hold_is_refused(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        to_json(value)


def test_nesting_is_bounded() -> None:
    value: Any = []
    for _ in range(100):
        value = [value]
    with pytest.raises(ValueError, match="nested"):
        to_json(value)
