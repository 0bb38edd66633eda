"""The manifest's JSON Schema as it is shipped: `python -m tests.manifest_schema` writes it anew.

Its descriptions are docstrings of fields, which only the sources have; so it is made here, and read everywhere else.
"""

from __future__ import annotations

import ast
import functools
import inspect
import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.manifest_schema import manifest_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

SHIPPED: Final = Path(__file__).parents[1] / "falbatch" / "manifest.schema.json"


@functools.cache
def docstrings(kind: type) -> Mapping[str, str]:
    """Each field's (or member's) own docstring: the string that follows it in the source."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(kind)).body if isinstance(node, ast.ClassDef))
    return {
        name: after.value.value
        for field, after in pairwise(body)
        if (name := _target(field))
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
    }


def _target(statement: ast.stmt) -> str:
    """The name that a statement gives a value or a type to; "" for another one."""
    target: ast.expr | None = None
    if isinstance(statement, ast.AnnAssign):
        target = statement.target
    elif isinstance(statement, ast.Assign):
        target = statement.targets[0]
    return target.id if isinstance(target, ast.Name) else ""


def generated() -> dict[str, Any]:
    """The schema as the code has it now. Raises KeyError for a field without a docstring."""
    return manifest_schema(lambda kind, name: docstrings(kind)[name])


def text_of(schema: Mapping[str, Any]) -> str:
    """The text of the file."""
    return json.dumps(schema, ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    SHIPPED.write_text(text_of(generated()), encoding="utf-8")
