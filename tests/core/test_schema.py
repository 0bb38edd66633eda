"""Paths as people write them, and the words of every field."""

from __future__ import annotations

import pytest

from falbatch.core.manifest_schema import section_models
from falbatch.core.schema import Section, dotted, expected
from tests.manifest_schema import docstrings


def test_paths_read_as_in_messages() -> None:
    assert dotted(("matrix", "include", 0, "seed")) == "matrix.include[0].seed"
    assert dotted(()) == ""


@pytest.mark.parametrize("model", section_models().values())
def test_every_setting_says_what_it_takes_and_what_it_is(model: type[Section]) -> None:
    told = docstrings(model)
    for key in model.model_fields:
        assert expected(model, key) != "something else", key
        assert told[key], key
