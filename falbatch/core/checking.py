"""What an endpoint's own schema says to one input. Pure.

    OpenAPI document ─plainschema─▶ two validators ─▶ `InputCheck.faults(input)`

The rules are those of JSON Schema, checked by jsonschema-rs; the words are ours. A field that the schema does not have
is a warning (models ignore them, fal-protocol §11.2), and so is what the schema itself is at odds about (`Pardon`); all
else is an error. One wrong value is one fault, the one that says most.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import jsonschema_rs

from falbatch.core.fileinputs import is_stand_in
from falbatch.core.openapi import forms_at, names_field, property_names
from falbatch.core.plainschema import plain_input_schema
from falbatch.core.problems import printable, shown

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

Path = tuple[str | int, ...]

_NAMES: Final = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}
_CHOICES_SHOWN: Final = 8
_VALUE_MOST: Final = 80
"""Characters up to which two wrong values are told apart."""


class Pardon(StrEnum):
    """Why a fault is only a warning: what the schema says of leaving the field out is at odds with its rule."""

    NONE = ""
    NULL = "null"
    """Null for a field that may be left out: fal writes an optional integer like one that must be there."""
    DEFAULT = "default"
    """The value that the schema itself names as the field's default."""


@dataclass(frozen=True, slots=True)
class InputFault:
    """One thing in an input that its endpoint will not take, or not look at."""

    path: Path
    """Where in the input. Of a field that is missing, where it should be."""
    rule: str
    """The schema's word: `required`, `type`, `enum`, `maximum` …; `unknown` for a field that it does not have; `union`
    for a value that is of none of the kinds of a union."""
    limit: Any
    """What the rule asks for: the types, the choices, the bound."""
    value: Any
    """What was given."""
    known: tuple[str, ...] = ()
    """For an unknown field: those that the schema has there. For a missing one: those that were given."""
    choices: tuple[Any, ...] = ()
    """The values that are taken, where the rule names some; of a union, those of all its parts."""
    pardon: Pardon = Pardon.NONE

    @property
    def is_error(self) -> bool:
        """False for what a model ignores, and for what it most likely takes."""
        return self.rule != "unknown" and not self.pardon

    @property
    def kind(self) -> tuple[Hashable, ...]:
        """Place and rule; list entries count alike."""
        return tuple("[]" if isinstance(step, int) else step for step in self.path), self.rule, self.is_error

    @property
    def asks(self) -> Hashable:
        """Equal for faults whose words name the same limit; as cheap for 3,000 choices as for eight."""
        first = self.choices[:_CHOICES_SHOWN]
        limit = None if self.rule in _CHOOSING else str(self.limit)
        return len(self.choices), tuple(map(repr, first)), limit

    @property
    def cause(self) -> Hashable:
        """Equal for faults that one correction mends: values count apart only where each has a remedy of its own."""
        if self.choices and isinstance(self.value, str | int | float):
            return *self.kind, str(self.value)[:_VALUE_MOST], type(self.value).__name__
        return *self.kind, type(self.value).__name__ if self.rule in {"type", "union"} else ""

    @property
    def what(self) -> str:
        """What is wrong, in words that follow the field's name."""
        match self.rule:
            case "unknown":
                return "is not in the endpoint's schema; models ignore such fields"
            case "required":
                return "is missing"
            case "additionalProperties":
                return "is not taken: the schema refuses other fields"
            case "type" | "union" | "enum" | "const":
                return f"must be {self._wanted()}, not {_told(self.value)}"
            case "uniqueItems":
                return "has entries that are equal; each may stand there once"
            case _ if self.rule in _COUNTS:
                things, bound, verb = _COUNTS[self.rule]
                return f"has {len(self.value):,} {things}; {bound} {self.limit:,} are {verb}"
            case _ if self.rule in BOUNDS:
                return f"must be {BOUNDS[self.rule]} {shown(self.limit)}, not {_told(self.value)}"
            case "pattern":
                return f"{_told(self.value)} does not have the form {shown(self.limit)}"
            case _:
                return f"{_told(self.value)} is not taken, by the schema's rule {self.rule}"

    def _wanted(self) -> str:
        words = [_choices(self.choices)] if self.choices else []
        if self.rule in {"type", "union"} and (self.limit or not words):
            words.append(kinds(self.limit))
        return " or ".join(words)


_CHOOSING: Final = frozenset({"enum", "const"})
_WHOLE: Final = frozenset({"type", "union", *_CHOOSING})
"""Rules that a value breaks as a whole: it is of another kind."""

_RANKS: Final[Mapping[str, int]] = {"enum": 0, "const": 1, "type": 2, "union": 3}
"""Of several faults of one value, the one that says most goes first."""

_COUNTS: Final[Mapping[str, tuple[str, str, str]]] = {
    "maxLength": ("characters", "at most", "taken"),
    "minLength": ("characters", "at least", "needed"),
    "maxItems": ("entries", "at most", "taken"),
    "minItems": ("entries", "at least", "needed"),
    "maxProperties": ("fields", "at most", "taken"),
    "minProperties": ("fields", "at least", "needed"),
}
BOUNDS: Final[Mapping[str, str]] = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "above",
    "exclusiveMaximum": "below",
    "multipleOf": "a multiple of",
}


def _told(value: Any) -> str:
    """A value with its kind where a reader may miss it."""
    if is_stand_in(value):
        return "a file"
    return f"the text {shown(value)}" if isinstance(value, str) else shown(value)


def kinds(types: Sequence[str]) -> str:
    """The types that a schema names, in words."""
    return " or ".join(_NAMES.get(word, word) for word in types if word != "null") or "null"


def _choices(choices: Sequence[Any]) -> str:
    words = [shown(choice) for choice in choices[:_CHOICES_SHOWN]]
    more = ", …" if len(choices) > _CHOICES_SHOWN else ""
    return f"{'one of ' if len(choices) > 1 else ''}{', '.join(words)}{more}"


PLACES_MOST: Final = 1_000
"""Places of a schema whose forms are remembered."""


class InputCheck:
    """The checks of one endpoint. Made once, used for each of its inputs."""

    __slots__ = ("_at", "_closed", "_document", "_names", "_open")

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Raises `ValueError` for a document without an input schema that can be used."""
        self._document = document
        self._at: dict[Path, list[dict[str, Any]]] = {}
        try:
            self._names = frozenset(property_names(document, ()))
            self._open = _validator(document, closed=False)
            self._closed = _validator(document, closed=True)
        except ValueError:
            raise
        except Exception as error:  # advice that cannot be read, for whatever reason, stops nothing
            raise ValueError(printable(f"{type(error).__name__}: {error}")[:200]) from error

    def is_good(self, given: Any) -> bool:
        """True when there is nothing to say, in a microsecond; False when `faults` must be asked."""
        return self._closed.is_valid(given)

    def takes(self, name: str, value: Any) -> bool:
        """Whether the input's field `name` may have `value`, whatever else is missing."""
        return not any(fault.is_error and fault.path[:1] == (name,) for fault in self.faults({name: value}))

    def faults(self, given: Any) -> Iterator[InputFault]:
        """All that is wrong with an input, and all in it that nobody will look at."""
        if self._closed.is_valid(given):
            return
        told = _one_each(fault for error in self._open.iter_errors(given) for fault in _meant(error))
        yield from map(self._judged, told)
        if self._is_plain(given):
            return
        refused = {fault.path for fault in told}
        for error in self._closed.iter_errors(given):
            for fault in _meant(error):
                if fault.rule == "additionalProperties" and fault.path not in refused:
                    known = tuple(property_names(self._document, fault.path[:-1]))
                    yield InputFault(fault.path, "unknown", None, None, known)

    def lacks(self, names: Sequence[str]) -> list[str] | None:
        """The names that the schema has in place of the last of `names`; None where it has that field, or anything may
        stand there."""
        is_there, known = names_field(self._document, names)
        return None if is_there else known

    def _is_plain(self, given: Any) -> bool:
        """True where no field can be unknown: all names are the schema's, and nothing has fields inside."""
        return (
            isinstance(given, dict)
            and self._names.issuperset(given)
            and not any(isinstance(value, dict | list) for value in given.values())
        )

    def _forms(self, path: Path) -> list[dict[str, Any]]:
        """What the schema has at a place; looked for once."""
        place = tuple(0 if isinstance(step, int) else step for step in path)
        found = self._at.get(place)
        if found is None:
            found = forms_at(self._document, place)
            if len(self._at) < PLACES_MOST:
                self._at[place] = found
        return found

    def _judged(self, fault: InputFault) -> InputFault:
        """`fault` with what pardons it."""
        if fault.rule in {"required", "additionalProperties"} or not fault.path or isinstance(fault.path[-1], int):
            return fault
        if fault.value is None:
            around = self._forms(fault.path[:-1])
            lists = [form["required"] for form in around if isinstance(form.get("required"), list)]
            is_needed = any(fault.path[-1] in names for names in lists)
            return fault if is_needed else replace(fault, pardon=Pardon.NULL)
        named = [form["default"] for form in self._forms(fault.path) if "default" in form]
        is_default = any(type(one) is type(fault.value) and one == fault.value for one in named)
        return replace(fault, pardon=Pardon.DEFAULT) if is_default else fault


def _validator(document: Mapping[str, Any], *, closed: bool) -> jsonschema_rs.Draft202012Validator:
    why = ""
    for patterns in (True, False):  # a regular expression of another language must not cost the whole check
        schema = plain_input_schema(document, closed=closed, patterns=patterns)
        if schema is None:
            raise ValueError("it names no input")
        try:
            return jsonschema_rs.Draft202012Validator(schema, validate_formats=False)
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            why = printable(str(error))[:200]
    raise ValueError(why)


def _one_each(faults: Iterable[InputFault]) -> list[InputFault]:
    """One fault for each place: one mistake may break several rules."""
    told: dict[Path, InputFault] = {}
    for fault in faults:
        before = told.setdefault(fault.path, fault)
        if _RANKS.get(fault.rule, len(_RANKS)) < _RANKS.get(before.rule, len(_RANKS)):
            told[fault.path] = fault
    return list(told.values())


def _meant(error: jsonschema_rs.ValidationError) -> list[InputFault]:
    """What to say of an error. Of a union: the faults of the part that the value was meant for; nothing where a part
    takes it after all; where no part takes such a value, that."""
    kind, path = error.kind, tuple(error.instance_path)
    if not isinstance(kind, jsonschema_rs.ValidationErrorKind.AnyOf):
        return [] if _is_forgiven(error) else list(_told_of(error, path))
    parts = [_one_each(fault for one in branch for fault in _meant(one)) for branch in kind.context]
    if not all(parts):
        return []
    parts = [part for part in parts if not any(_is_null(fault, path) for fault in part)] or parts
    if len(parts) == 1:
        return parts[0]
    near = [part for part in parts if not any(fault.path == path and fault.rule in _WHOLE for fault in part)]
    return min(near, key=len) if near else [_union(path, error.instance, parts)]


def _is_null(fault: InputFault, path: Path) -> bool:
    """Whether null is all that is taken there: the half of a union that says no more than "or nothing"."""
    return fault.path == path and (
        (fault.rule == "type" and list(fault.limit) == ["null"])
        or (fault.rule in _CHOOSING and list(fault.choices) == [None])
    )


_CLASSES: Final = re.compile(r"\\[wWdDsSbB]")
_OF_TEXT: Final = frozenset({"pattern", "minLength", "maxLength", *_CHOOSING})


def _is_forgiven(error: jsonschema_rs.ValidationError) -> bool:
    """Whether a model may see the rule as kept, whatever the checker says: a file's URL is not known yet; `\\w` and its
    like mean all letters to a model and A to Z to the checker; a pattern may cost more than the checker pays."""
    kind = error.kind
    match kind:
        case jsonschema_rs.ValidationErrorKind.BacktrackLimitExceeded() | (
            jsonschema_rs.ValidationErrorKind.RegexEngineFailure()
        ):
            return True
    if kind.name not in _OF_TEXT or not isinstance(error.instance, str):
        return False
    if kind.name == "pattern" and not error.instance.isascii() and _CLASSES.search(kind.value):
        return True
    return is_stand_in(error.instance)


def _told_of(error: jsonschema_rs.ValidationError, path: Path) -> Iterator[InputFault]:
    rule, limit = error.kind.name, error.kind.value
    match rule:
        case "required":
            given = tuple(error.instance) if isinstance(error.instance, dict) else ()
            yield InputFault((*path, str(limit)), rule, None, None, given)
        case "additionalProperties":
            for name in limit:
                yield InputFault((*path, name), rule, None, None)
        case "enum":
            yield InputFault(path, rule, None, error.instance, choices=tuple(limit))
        case "const":
            yield InputFault(path, rule, None, error.instance, choices=(limit,))
        case _:
            yield InputFault(path, rule, limit, error.instance)


def _union(path: Path, value: Any, parts: Sequence[Sequence[InputFault]]) -> InputFault:
    """A value that is of none of the kinds that a union takes."""
    wanted = [fault for part in parts for fault in part if fault.path == path and fault.rule in _WHOLE]
    types = dict.fromkeys(kind for fault in wanted for kind in fault.limit or () if kind != "null")
    if "number" in types:
        types.pop("integer", None)
    choices = tuple(choice for fault in wanted for choice in fault.choices if choice is not None)
    return InputFault(path, "union", tuple(types), value, choices=choices)
