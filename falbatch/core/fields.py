"""What an endpoint takes and gives, read out of its OpenAPI document (fal-protocol §11.2). Pure, and lenient: a schema
is advice, and whatever in it makes no sense is left out."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.openapi import MAX_DEPTH, input_schema, mapping, output_schema, resolved

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MADE_UP: Final = "…"
"""A text of which a schema says nothing, as an example."""

MADE_DEPTH: Final = 3
"""Levels of objects and lists that an example is made up of."""

INSIDE_DEPTH: Final = 2
"""Fields of fields of fields are not shown: whoever needs them reads the document."""

CHOICES_SHOWN: Final = 12

LARGEST: Final = 1e300
"""Bounds beyond it bound nothing."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an input or an output."""

    name: str
    type: str
    """In words: `integer`, `text`, `one of "a", "b"`, `list of Image`."""
    is_required: bool
    default: str
    """As JSON; "" for none."""
    bounds: str
    """`1 to 50`, `at most 4096 characters`; "" for none."""
    description: str
    kinds: frozenset[str] = frozenset()
    """JSON's words for what it takes (`string`, `integer` …), null left out; empty where anything goes."""
    choices: tuple[Any, ...] = ()
    """The words that it takes, null left out; of a union, those of its parts."""
    examples: tuple[Any, ...] = ()
    """Values that it should take, never null: the schema's own examples, its default, its choices; else one made up."""
    inside: tuple[Field, ...] = ()
    """The fields of the object that it is, of the objects in a list, or of those among the parts of a union."""


@dataclass(frozen=True, slots=True)
class EndpointFields:
    """An endpoint's schema as tables."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]


def endpoint_fields(document: Mapping[str, Any]) -> EndpointFields:
    """The fields of input and output, in the order that fal shows them."""
    return EndpointFields(
        _fields(document, input_schema(document) or {}), _fields(document, output_schema(document) or {})
    )


def _fields(document: Mapping[str, Any], schema: Mapping[str, Any], depth: int = 0) -> tuple[Field, ...]:
    properties = mapping(schema.get("properties"))
    required = schema.get("required")
    needed = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
    order = schema.get("x-fal-order-properties")
    first = [name for name in order if isinstance(name, str) and name in properties] if isinstance(order, list) else []
    names = dict.fromkeys([*first, *properties])
    return tuple(
        _field(document, name, mapping(properties[name]), is_required=name in needed, depth=depth) for name in names
    )


def _field(document: Mapping[str, Any], name: str, given: Mapping[str, Any], *, is_required: bool, depth: int) -> Field:
    about = _flat(document, given)
    parts = _parts(document, about)
    default = json.dumps(about["default"], ensure_ascii=False) if "default" in about else ""
    description = about.get("description")
    inner = [_flat(document, mapping(part.get("items"))) if "items" in part else part for part in parts]
    return Field(
        name=name,
        type=_type(document, given, 0),
        is_required=is_required,
        default=default,
        bounds=_bounds(about),
        description=" ".join(description.split()) if isinstance(description, str) else "",
        kinds=frozenset(kind for part in parts for kind in _kinds(part)),
        choices=tuple(choice for part in parts for choice in _choices(part)),
        examples=_examples(document, about, 0),
        inside=tuple(one for part in inner for one in _fields(document, part, depth + 1))
        if depth < INSIDE_DEPTH
        else (),
    )


def _flat(document: Mapping[str, Any], given: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """`given` with its reference followed, and what it is besides (`allOf`, a union with nothing but null) put in."""
    made = {**resolved(document, given), **given}
    if depth < MAX_DEPTH:
        every = made.get("allOf")
        for part in [*(every if isinstance(every, list) else []), *_only(made)]:
            made = {**_flat(document, mapping(part), depth + 1), **made}
    return made


def _union(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The alternatives that are not null; [] without any."""
    parts: list[Any] = next((schema[key] for key in ("anyOf", "oneOf") if isinstance(schema.get(key), list)), [])
    return [mapping(part) for part in parts if mapping(part).get("type") != "null"]


def _only(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = _union(schema)
    return parts if len(parts) == 1 else []


def _parts(document: Mapping[str, Any], about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a flat schema may be: the alternatives of a union, else itself."""
    union = _union(about)
    return [_flat(document, part) for part in union] if len(union) > 1 else [dict(about)]


def _kinds(schema: Mapping[str, Any]) -> list[str]:
    kinds = schema.get("type")
    return [
        kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if isinstance(kind, str) and kind != "null"
    ]


def _choices(schema: Mapping[str, Any]) -> list[Any]:
    choices = schema.get("enum")
    return [choice for choice in choices if choice is not None] if isinstance(choices, list) else []


def _examples(document: Mapping[str, Any], about: Mapping[str, Any], depth: int) -> tuple[Any, ...]:
    """Values that fit a flat schema, best first, each once."""
    parts = _parts(document, about)
    own = about.get("examples")
    said = [*(own if isinstance(own, list) else []), about.get("example"), about.get("default"), about.get("const")]
    said += [choice for part in parts for choice in _choices(part)]
    good = [value for value in said if value is not None and any(_fits(value, part) for part in parts)]
    if not good:
        made = [value for part in parts for value in _made(document, part, depth)]
        good = [value for value in made if any(_fits(value, part) for part in parts)][:1]
    return tuple(value for place, value in enumerate(good) if not _is_among(value, good[:place]))


def _is_among(value: Any, others: list[Any]) -> bool:
    """Whether it stands there already; 1, 1.0 and true are three."""
    return any(type(value) is type(other) and value == other for other in others)


_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value is of the type, among the choices and within the bounds, as far as one look tells."""
    kinds, choices = _kinds(schema), _choices(schema)
    is_flag = isinstance(value, bool)
    if kinds and not any(isinstance(value, _TYPES.get(kind, ())) and is_flag == (kind == "boolean") for kind in kinds):
        return False
    if choices and not _is_among(value, choices):
        return False
    if isinstance(value, int | float) and not is_flag:
        return _is_within(value, schema)
    size = len(value) if isinstance(value, str | list) else None
    least, most = ("minLength", "maxLength") if isinstance(value, str) else ("minItems", "maxItems")
    return size is None or _number(schema, least, 0) <= size <= _number(schema, most, math.inf)


def _is_within(value: float, schema: Mapping[str, Any]) -> bool:
    low, above, high, below = _limits(schema)  # NaN is within none
    return low <= value <= high and above < value < below and _is_multiple(value, _number(schema, "multipleOf", 0))


def _limits(schema: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """At least, above, at most, below. OpenAPI 3.0 says `exclusiveMinimum: true` of the minimum beside it."""
    low, high = _number(schema, "minimum", -math.inf), _number(schema, "maximum", math.inf)
    above = low if schema.get("exclusiveMinimum") is True else _number(schema, "exclusiveMinimum", -math.inf)
    below = high if schema.get("exclusiveMaximum") is True else _number(schema, "exclusiveMaximum", math.inf)
    return low, above, high, below


def _is_multiple(value: float, step: float) -> bool:
    """Whether `value` is a multiple of `step` as both are written: 0.3 is one of 0.1."""
    return step <= 0 or value in {math.inf, -math.inf} or _exact(value) % _exact(step) == 0


def _exact(value: float) -> Fraction:
    return Fraction(value) if isinstance(value, int) else Fraction(str(value))


def _number(schema: Mapping[str, Any], key: str, otherwise: float) -> float:
    value = schema.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST:
        return value
    return otherwise


def _made(document: Mapping[str, Any], schema: Mapping[str, Any], depth: int) -> Iterator[Any]:
    """Something of each type that a schema has, where it gives no value itself."""
    for kind in _kinds(schema) if depth < MADE_DEPTH else []:
        match kind:
            case "string":
                yield MADE_UP * max(1, min(int(_number(schema, "minLength", 1)), 1000))
            case "integer" | "number":
                yield from _made_numbers(schema, is_whole=kind == "integer")
            case "boolean":
                yield False
            case "array":
                inner = _examples(document, _flat(document, mapping(schema.get("items"))), depth + 1)
                yield [*inner[:1]] * max(1, min(int(_number(schema, "minItems", 1)), 10))
            case "object":
                properties, required = mapping(schema.get("properties")), schema.get("required")
                needed = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
                inside = {
                    name: _examples(document, _flat(document, mapping(properties.get(name))), depth + 1)
                    for name in needed
                }
                yield {name: values[0] for name, values in inside.items() if values}


def _made_numbers(schema: Mapping[str, Any], *, is_whole: bool) -> Iterator[float]:
    """Numbers that may be within the bounds: 0, else the lowest, the highest, one between."""
    low, above, high, below = _limits(schema)
    least, most = max(low, above), min(high, below)
    step = _exact(max(0, _number(schema, "multipleOf", 0)) or (1 if is_whole else 0))
    if least <= 0 <= most and not math.isfinite(low):
        yield 0
    for edge, sign in ((least, 1), (most, -1)):
        if not math.isfinite(edge):
            continue
        exact = _exact(edge)
        first = exact if not step else sign * math.ceil(sign * exact / step) * step
        for number in (first, first + sign * (step or 1)):
            yield int(number) if number.denominator == 1 else float(number)
    if math.isfinite(least) and math.isfinite(most):
        yield (least + most) / 2


def _type(document: Mapping[str, Any], given: Mapping[str, Any], depth: int) -> str:
    """A type in words."""
    schema = resolved(document, given)
    if depth > MAX_DEPTH:
        return "…"
    choices = schema.get("enum")
    if isinstance(choices, list):
        choices = _choices(schema)
        shown = ", ".join(json.dumps(choice, ensure_ascii=False) for choice in choices[:CHOICES_SHOWN])
        return f"one of {shown}{', …' if len(choices) > CHOICES_SHOWN else ''}"
    for key in ("anyOf", "oneOf", "allOf"):
        parts = schema.get(key)
        if isinstance(parts, list):
            words = [_type(document, mapping(part), depth + 1) for part in parts]
            return " or ".join(dict.fromkeys(word for word in words if word != "null")) or "anything"
    match schema.get("type"):
        case "array":
            return f"list of {_type(document, mapping(schema.get('items')), depth + 1)}"
        case "object":
            title = schema.get("title")
            return title if isinstance(title, str) else "object"
        case "string":
            return "text"
        case str() as word:
            return word
        case list() as words:
            kinds = [_type(document, {**schema, "type": word}, depth + 1) for word in words if word != "null"]
            return " or ".join(dict.fromkeys(kinds)) or "anything"
        case _:
            return "anything"


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    words = []
    if low is not None and high is not None:
        words.append(f"{low} to {high}")
    elif low is not None:
        words.append(f"from {low}")
    elif high is not None:
        words.append(f"at most {high}")
    for key, form in _BOUNDS.items():
        bound = schema.get(key)
        if bound is not None and not isinstance(bound, bool):
            words.append(form.format(bound))
    return ", ".join(words)


_BOUNDS: Final = {
    "exclusiveMinimum": "above {}",
    "exclusiveMaximum": "below {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
}
"""Keyword of a schema → how it is said."""
