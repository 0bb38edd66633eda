"""Paths as people write them, and the words of every field."""

from __future__ import annotations

import pytest

from falbatch.core.limits import BudgetSpec, LimitsSpec, OutputSpec, RetrySpec
from falbatch.core.request import RequestSpec
from falbatch.core.schema import Section, dotted, expected


def test_paths_read_as_in_messages() -> None:
    assert dotted(("matrix", "include", 0, "seed")) == "matrix.include[0].seed"
    assert dotted(()) == ""


@pytest.mark.parametrize("model", [BudgetSpec, LimitsSpec, OutputSpec, RetrySpec, RequestSpec])
def test_every_setting_says_what_it_takes_and_what_it_is(model: type[Section]) -> None:
    for key, field in model.model_fields.items():
        assert expected(model, key) != "something else", key
        assert field.description, key
