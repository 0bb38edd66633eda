"""What can be wrong with a template, or with what it gave for one item, in plain words."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from falbatch.core.problems import nearest, nearest_or_list


class Omit(enum.Enum):
    """Type of the one value `omit`: false, so that `row.x or omit` reads well."""

    OMIT = "omit"

    def __bool__(self) -> bool:
        return False


OMIT: Final = Omit.OMIT


class Fault(NamedTuple):
    """What is wrong with a template, or with what it gave for one item."""

    what: str
    hint: str = ""
    line: int = 1
    """1-based line inside the template's text."""
    cause: str = ""
    """Equal for the same mistake met again in other items, whatever their values; "" means `what`."""


class TemplateError(Exception):
    """Raised when a template gives nothing usable for one item."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.what)
        self.fault = fault


def odd(error: Exception) -> Fault:
    """What Python says of an expression, mostly that text is no number."""
    is_of_text = isinstance(error, TypeError) and "str" in str(error)
    hint = "cells of CSV files are text: write (row.steps | int) to reckon with one" if is_of_text else ""
    return Fault(str(error) or type(error).__name__, hint, cause=type(error).__name__)


def name_hint(name: str, known: frozenset[str]) -> str:
    """What may be meant by a name that does not exist among those that do."""
    if name == "row":
        return "the manifest has no rows"
    meant = known - {"omit"}
    if near := nearest(name, meant):
        return near
    # Whoever forgot that columns are the row's has a column in mind.
    column = f"a column of the rows is row.{name}; " if "row" in known else ""
    return column + nearest_or_list(name, meant)


def syntax_hint(message: str) -> str:
    """What is mostly meant by what Jinja stumbles over; `message` is Jinja's."""
    _, is_there, got = message.partition(", got ")
    if not is_there:
        return ""
    if got == "'='":
        return "two things are compared with =="
    return 'a column with blanks in its name is row["the name"]' if got[1:-1].isidentifier() else ""


def missing_name(name: str) -> Fault:
    """A name that this item does not have, though others do."""
    hint = f"an include of the matrix may leave it out: write {name} | default(…)"
    return Fault(f"{name} does not exist for this item", hint)


def missing_entry(owner: Any, name: str, source: str) -> Fault:
    """The entry `name` of `owner`, wanted by the template `source`, that is not there."""
    before = re.search(rf"([A-Za-z_][\w.]*)(?:\.|\[['\"]?){re.escape(name)}\b", source)
    full = f"{before[1]}.{name}" if before else name
    choices = [key for key in owner if isinstance(key, str)] if isinstance(owner, Mapping) else []
    return Fault(f"{full} does not exist", nearest_or_list(name, choices))


def not_text(value: Any, expression: str) -> Fault:
    """`value`, made by `expression` ("" when not known), cannot stand inside text."""
    name = expression or "a value"
    match value:
        case None:
            return Fault(f"{name} is null here", f"write {{{{ {expression or 'x'} or '' }}}} to leave it empty")
        case Omit():
            return Fault("omit can only be a whole value", 'write key: "{{ … or omit }}"')
        case list() | tuple():
            hint = f"write {{{{ {expression or 'x'} | join(', ') }}}}"
            return Fault(f"{name} is a list, which cannot stand inside text", hint)
        case dict() | set():
            return Fault(f"{name} is a mapping or set, which cannot stand inside text", "name one of its entries")
        case _:
            what = "a function" if callable(value) else f"a {type(value).__name__}"
            return Fault(
                f"{name} is {what}, which cannot stand inside text", "name a value; of several: … | join(', ')"
            )
