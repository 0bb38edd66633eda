"""What an endpoint's own schema says to one input. Pure.

    OpenAPI document ─plainschema─▶ two validators ─▶ `InputCheck.faults(input)`

The rules are those of JSON Schema, checked by jsonschema-rs; the words are ours. A field that the schema does not have
is a warning (models ignore them, fal-protocol §11.2); all else is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import jsonschema_rs

from falbatch.core.fields import property_names
from falbatch.core.plainschema import plain_input_schema
from falbatch.core.problems import shown

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

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


@dataclass(frozen=True, slots=True)
class InputFault:
    """One thing in an input that its endpoint will not take, or not look at."""

    path: Path
    """Where in the input. Of a field that is missing, where it should be."""
    rule: str
    """The schema's word: `required`, `type`, `enum`, `maximum` …; `unknown` for a field that it does not have."""
    limit: Any
    """What the rule asks for: the types, the choices, the bound."""
    value: Any
    """What was given."""
    known: tuple[str, ...] = ()
    """For an unknown field: those that the schema has there. For a missing one: those that were given."""

    @property
    def is_error(self) -> bool:
        """False for what a model ignores."""
        return self.rule != "unknown"

    @property
    def kind(self) -> tuple[Hashable, ...]:
        """Place and rule; list entries count alike."""
        return tuple("[]" if isinstance(step, int) else step for step in self.path), self.rule

    @property
    def cause(self) -> Hashable:
        """Equal for faults that one correction mends: values count apart only where each has a remedy of its own."""
        if self.rule in {"enum", "const", "union"} and isinstance(self.value, str | int | float):
            return *self.kind, str(self.value)[:_VALUE_MOST], type(self.value).__name__
        return *self.kind, type(self.value).__name__ if self.rule == "type" else ""

    @property
    def what(self) -> str:
        """What is wrong, in words that follow the field's name."""
        match self.rule:
            case "unknown":
                return "is not in the endpoint's schema; models ignore such fields"
            case "required":
                return "is missing"
            case "type":
                return f"must be {kinds(self.limit)}, not {_told(self.value)}"
            case "enum" | "const":
                return f"must be {_choices(self.limit)}, not {_told(self.value)}"
            case "union":
                return f"must be {' or '.join(self.limit)}, not {_told(self.value)}"
            case _ if self.rule in _COUNTS:
                things, bound, verb = _COUNTS[self.rule]
                return f"has {len(self.value):,} {things}; {bound} {self.limit:,} are {verb}"
            case _ if self.rule in BOUNDS:
                return f"must be {BOUNDS[self.rule]} {shown(self.limit)}, not {_told(self.value)}"
            case "pattern":
                return f"{_told(self.value)} does not have the form {shown(self.limit)}"
            case _:
                return f"{_told(self.value)} is not taken: {self.limit}"


_COUNTS: Final[Mapping[str, tuple[str, str, str]]] = {
    "maxLength": ("characters", "at most", "taken"),
    "minLength": ("characters", "at least", "needed"),
    "maxItems": ("entries", "at most", "taken"),
    "minItems": ("entries", "at least", "needed"),
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
    return f"the text {shown(value)}" if isinstance(value, str) else shown(value)


def kinds(types: Sequence[str]) -> str:
    """The types that a schema names, in words."""
    return " or ".join(_NAMES.get(word, word) for word in types if word != "null") or "null"


def _choices(choices: Sequence[Any]) -> str:
    words = [printable(shown(choice)) for choice in choices[:_CHOICES_SHOWN]]
    more = ", …" if len(choices) > _CHOICES_SHOWN else ""
    return f"{'one of ' if len(choices) > 1 else ''}{', '.join(words)}{more}"


def printable(text: str) -> str:
    """fal's words, fit for a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


class InputCheck:
    """The checks of one endpoint. Made once, used for each of its inputs; unchangeable."""

    __slots__ = ("_closed", "_document", "_open")

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Raises `ValueError` for a document without an input schema that can be used."""
        self._document = document
        self._open = _validator(document, closed=False)
        self._closed = _validator(document, closed=True)

    def is_good(self, given: Any) -> bool:
        """True when there is nothing to say: the common case, in a microsecond."""
        return self._closed.is_valid(given)

    def takes(self, name: str, value: Any) -> bool:
        """Whether the input's field `name` may have `value`, whatever else is missing."""
        return not any(fault.is_error and fault.path[:1] == (name,) for fault in self.faults({name: value}))

    def faults(self, given: Any) -> Iterator[InputFault]:
        """All that is wrong with an input, and all in it that nobody will look at."""
        if self._closed.is_valid(given):
            return
        wrong = list(self._open.iter_errors(given))
        told: list[InputFault] = []
        chosen = {tuple(error.instance_path) for error in wrong if error.kind.name == "enum"}
        for error in wrong:
            # A choice that is of another type is one mistake.
            if error.kind.name != "type" or tuple(error.instance_path) not in chosen:
                told += _faults_of(error)
        yield from told
        refused = {fault.path for fault in told}
        for error in self._closed.iter_errors(given):
            for one in _innermost(error):
                yield from self._unknown(one, refused)

    def _unknown(self, error: jsonschema_rs.ValidationError, refused: set[Path]) -> Iterator[InputFault]:
        if error.kind.name != "additionalProperties":
            return
        path = tuple(error.instance_path)
        known = tuple(property_names(self._document, path))
        for name in error.kind.value:
            if (*path, name) not in refused:
                yield InputFault((*path, name), "unknown", None, None, known)


_SAID: Final = frozenset({"type", "enum", "const", "pattern", *_COUNTS, *BOUNDS})
"""Rules that `InputFault.what` has words of its own for."""


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


def _faults_of(error: jsonschema_rs.ValidationError) -> Iterator[InputFault]:
    best = _innermost(error)
    if not best:
        yield _no_kind(error)
    for one in best:
        rule, path = one.kind.name, tuple(one.instance_path)
        if rule == "required":
            missing = str(one.kind.value)
            yield InputFault(
                (*path, missing), rule, None, None, tuple(one.instance) if isinstance(one.instance, dict) else ()
            )
        elif rule == "additionalProperties":
            for name in one.kind.value:
                yield InputFault((*path, name), "additionalProperties", "the schema refuses other fields", None)
        elif rule in _SAID:
            yield InputFault(path, rule, one.kind.value, one.instance)
        else:
            yield InputFault(path, rule, printable(one.message)[:200], one.instance)


def _no_kind(error: jsonschema_rs.ValidationError) -> InputFault:
    """A value that is of none of the kinds that a union takes."""
    words: dict[str, None] = {}
    choices: list[Any] = []
    for one in _leaves(error):
        if one.kind.name == "type":
            words[kinds(one.kind.value)] = None
        elif one.kind.name == "enum":
            choices += one.kind.value
    words.pop("null", None)
    if choices:
        words.pop("text", None)
    limit = (*([_choices(choices)] if choices else []), *words)
    return InputFault(tuple(error.instance_path), "union", limit, error.instance)


def _innermost(error: jsonschema_rs.ValidationError) -> list[jsonschema_rs.ValidationError]:
    """What to say of an error. Of a union: the errors of the part that the value was meant for; none where no part
    takes such a value at all."""
    if not isinstance(error.kind, jsonschema_rs.ValidationErrorKind.AnyOf):
        return [error]
    branches: list[list[jsonschema_rs.ValidationError]] = []
    for branch in error.kind.context:
        if any(one.kind.name == "type" and one.instance_path == error.instance_path for one in branch):
            continue
        inner: list[jsonschema_rs.ValidationError] = []
        for one in branch:
            found = _innermost(one)
            if not found:
                break
            inner += found
        else:
            branches.append(inner)
    return min(branches, key=_weight, default=[])


def _weight(errors: Sequence[jsonschema_rs.ValidationError]) -> int:
    """How far a value is from what it was checked against."""
    return sum(len(one.kind.value) if one.kind.name == "additionalProperties" else 1 for one in errors)


def _leaves(error: jsonschema_rs.ValidationError) -> Iterator[jsonschema_rs.ValidationError]:
    if not isinstance(error.kind, jsonschema_rs.ValidationErrorKind.AnyOf):
        yield error
        return
    for branch in error.kind.context:
        for one in branch:
            yield from _leaves(one)
