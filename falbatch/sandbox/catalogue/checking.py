"""What a model's schema says to an input: fal's `detail` list, or nothing (fal-protocol §8.3). Pure.

The rules are jsonschema's, the words pydantic's and fal's. A model's validator is made once, when first asked for.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox.catalogue.model import plain_input
from falbatch.sandbox.catalogue.reading import read_input
from falbatch.sandbox.failures import detail_item

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

    from falbatch.sandbox.catalogue.model import Model

Detail = dict[str, Any]
Loc = tuple[str | int, ...]


def schema_problems(model: Model, payload: Mapping[str, Any]) -> list[Detail]:
    """Every problem of an input, in the order of the schema's properties; empty when it is good."""
    found = [problem for error in _validator(model).iter_errors(read_input(model, payload)) for problem in _told(error)]
    if len(found) < 2:
        return [_detail(problem, payload) for problem in found]
    order = {name: place for place, name in enumerate(plain_input(model)["properties"])}
    once = {(problem[0], problem[1]): problem for problem in found}
    return [
        _detail(problem, payload) for problem in sorted(once.values(), key=lambda one: order.get(str(one[0][0]), -1))
    ]


@lru_cache(maxsize=128)
def _validator(model: Model) -> Validator:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(plain_input(model))


_Problem = tuple[Loc, str, str, dict[str, Any]]
"""Where, type, message, ctx."""


def _told(error: ValidationError) -> Iterator[_Problem]:
    """A complaint of jsonschema's in fal's words; one of a union is that of the branch that was meant."""
    loc: Loc = tuple(error.absolute_path)
    rule: Any = error.validator_value
    value: Any = error.instance
    match str(error.validator):
        case "anyOf" | "allOf":
            for inner in _meant(error):
                yield from _told(inner)
        case "required":
            for name in rule:
                if name not in value:
                    yield (*loc, name), "missing", "Field required", {}
        case "enum":
            words = [word for word in rule if word is not None]
            message = "Input should be " + ", ".join(f"'{word}'" for word in words)
            yield loc, "one_of", message, {"expected": words}
        case "type":
            # A Literal of pydantic's complains once, about the words.
            if not (isinstance(error.schema, dict) and "enum" in error.schema):
                yield loc, *_wrong_type(value, rule), {}
        case name if name in _BOUNDS:
            type_, ctx, message = _BOUNDS[name]
            yield loc, type_, message.format(rule), {ctx: rule}
        case _:
            yield loc, "value_error", f"Value error, {error.message}", {}


def _meant(error: ValidationError) -> Iterable[ValidationError]:
    """The complaints of one branch of a union: of the one whose type fits, else of one that has a list of words."""
    branches: dict[int, list[ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(int(inner.schema_path[0]), []).append(inner)
    at = len(error.absolute_path)
    fitting = [
        errors
        for errors in branches.values()
        if not any(one.validator == "type" and len(one.absolute_path) == at for one in errors)
    ]
    worded = [errors for errors in branches.values() if any(one.validator == "enum" for one in errors)]
    return next(iter([*fitting, *worded, *branches.values()]), [])


def _wrong_type(value: Any, wanted: str | list[str]) -> tuple[str, str]:
    """pydantic's type and message for a value of the wrong type."""
    kind = wanted if isinstance(wanted, str) else wanted[0]
    match kind, value:
        case "integer", str():
            return "int_parsing", "Input should be a valid integer, unable to parse string as an integer"
        case "integer", float():
            return "int_from_float", "Input should be a valid integer, got a number with a fractional part"
        case "number", str():
            return "float_parsing", "Input should be a valid number, unable to parse string as a number"
        case "boolean", str() | int() | float():
            return "bool_parsing", "Input should be a valid boolean, unable to interpret input"
        case _:
            return _TYPES[kind]


_TYPES: Final[Mapping[str, tuple[str, str]]] = {
    "integer": ("int_type", "Input should be a valid integer"),
    "number": ("float_type", "Input should be a valid number"),
    "boolean": ("bool_type", "Input should be a valid boolean"),
    "string": ("string_type", "Input should be a valid string"),
    "array": ("list_type", "Input should be a valid list"),
    "object": ("model_attributes_type", "Input should be a valid dictionary or object to extract fields from"),
}

_BOUNDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "minimum": ("greater_than_equal", "ge", "Input should be greater than or equal to {}"),
    "maximum": ("less_than_equal", "le", "Input should be less than or equal to {}"),
    "exclusiveMinimum": ("greater_than", "gt", "Input should be greater than {}"),
    "exclusiveMaximum": ("less_than", "lt", "Input should be less than {}"),
    "multipleOf": ("multiple_of", "multiple_of", "Input should be a multiple of {}"),
    "minLength": ("sequence_too_short", "min_length", "String should have at least {} characters"),
    "maxLength": ("sequence_too_long", "max_length", "String should have at most {} characters"),
    "minItems": ("sequence_too_short", "min_length", "List should have at least {} items"),
    "maxItems": ("sequence_too_long", "max_length", "List should have at most {} items"),
}
"""Keyword → fal's type, the member of its ctx, the message."""


def _detail(problem: _Problem, payload: Mapping[str, Any]) -> Detail:
    """fal's entry; `input` is the value as it was sent, for a missing one the object that lacks it."""
    loc, type_, message, ctx = problem
    value: Any = payload
    for step in loc[:-1] if type_ == "missing" else loc:
        value = value[step]
    return detail_item(type_, message, loc, ctx, input=value)
