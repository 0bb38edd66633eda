"""Paths as people write them, and the words of every field."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise

import pytest

from falbatch.core.limits import BudgetSpec, LimitsSpec, OutputSpec, RetrySpec
from falbatch.core.request import RequestSpec
from falbatch.core.schema import Section, dotted, expected


def test_paths_read_as_in_messages() -> None:
    assert dotted(("matrix", "include", 0, "seed")) == "matrix.include[0].seed"
    assert dotted(()) == ""


@pytest.mark.parametrize("model", [BudgetSpec, LimitsSpec, OutputSpec, RetrySpec, RequestSpec])
def test_every_setting_says_what_it_takes_and_what_it_is(model: type[Section]) -> None:
    told = _docstrings(model)
    for key in model.model_fields:
        assert expected(model, key) != "something else", key
        assert told[key], key


def _docstrings(model: type[Section]) -> dict[str, str]:
    """Each field's own docstring: the string that follows it in the source."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(model)).body if isinstance(node, ast.ClassDef))
    return {
        field.target.id: after.value.value
        for field, after in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
    }
