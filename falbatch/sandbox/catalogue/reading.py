"""What a model makes of an input before it looks at it: lax as pydantic is, with its defaults. Pure.

`"3"` for an integer is 3 and `"yes"` for a boolean is true, as for fal's own models; what cannot be read stays as
it is, for `checking` to complain about. Unknown properties are left out, as models ignore them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox.catalogue.model import plain_input

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falbatch.sandbox.catalogue.fields import Schema
    from falbatch.sandbox.catalogue.model import Model

_TRUTHS: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}


def read_input(model: Model, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The properties that are given, as the model reads them; nothing is refused here."""
    read: dict[str, Any] = _read_object(payload, plain_input(model))
    return read


def arguments(model: Model, payload: Mapping[str, Any]) -> dict[str, Any]:
    """What the model works with: what is given, and defaults for the rest. Of a valid input only."""
    properties = plain_input(model)["properties"]
    defaults = {name: one["default"] for name, one in properties.items() if "default" in one}
    return defaults | read_input(model, payload)


def _read(value: Any, schema: Schema) -> Any:
    """`value` as `schema` would have it, or as it is."""
    for part in (*schema.get("allOf", ()), *schema.get("anyOf", ())):
        value = _read(value, part)
    if "enum" in schema:
        return value
    wanted = schema.get("type", ())
    for kind in [wanted] if isinstance(wanted, str) else wanted:
        value = _READERS[kind](value, schema)
    return value


def _read_object(value: Any, schema: Schema) -> Any:
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    return {name: _read(value[name], one) for name, one in properties.items() if name in value}


def _read_list(value: Any, schema: Schema) -> Any:
    return [_read(entry, schema["items"]) for entry in value] if isinstance(value, list) else value


def _read_integer(value: Any, _schema: Schema) -> Any:
    """3 for 3.0, "3", " 3 " and "3.0", 1 for true: pydantic's table of conversions."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        whole, _, fraction = value.strip().partition(".")
        try:
            return int(whole) if not fraction.strip("0") else value
        except ValueError:
            return value
    return value


def _read_number(value: Any, _schema: Schema) -> Any:
    if isinstance(value, bool | str):
        try:
            number = float(value)
        except ValueError:
            return value
        # Not a number is within any bounds, as far as comparing tells.
        return number if math.isfinite(number) else value
    return value


def _read_boolean(value: Any, _schema: Schema) -> Any:
    if isinstance(value, str):
        return _TRUTHS.get(value.lower(), value)
    return bool(value) if isinstance(value, int | float) and value in {0, 1} else value


def _as_it_is(value: Any, _schema: Schema) -> Any:
    return value


_READERS: Final = {
    "object": _read_object,
    "array": _read_list,
    "integer": _read_integer,
    "number": _read_number,
    "boolean": _read_boolean,
    "string": _as_it_is,
    "null": _as_it_is,
}
