"""What a template gave, as plain JSON values; anything that JSON cannot hold is refused before it is sent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any, Final

from falbatch.core.fileinputs import FileInput

MAX_TEXT: Final = 1_000_000
"""Characters of one text: far more than any prompt; files belong behind a URL."""
_MAX_DEPTH: Final = 64


def to_json(value: Any, depth: int = 0) -> Any:
    """`value` with JSON types only, and the files of an input as they are: tuples become lists, dates ISO text. Raises
    ValueError saying what cannot."""
    kind = type(value)
    if kind is str:
        return _text(value)
    if kind is int or kind is bool or value is None or kind is FileInput:
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        raise ValueError(f"{value} is not a number that JSON knows")
    if depth > _MAX_DEPTH:
        raise ValueError(f"values are nested more than {_MAX_DEPTH} deep")
    if isinstance(value, (list, tuple)):
        return [to_json(entry, depth + 1) for entry in value]
    if isinstance(value, Mapping):
        return {_key(key): to_json(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    if isinstance(value, str):  # a subclass, such as the escaped text of Jinja's `escape`
        return _text(str.__str__(value))
    raise ValueError(f"{_kind_name(value)} cannot be sent as JSON")


def _text(value: str) -> str:
    if len(value) > MAX_TEXT:
        raise ValueError(f"a text of {len(value):,} characters; at most {MAX_TEXT:,} are sent (give a URL instead)")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("the text holds half of a surrogate pair, which is no character") from None
    return value


def _key(key: Any) -> str:
    if not isinstance(key, str):
        # ValueError like all others here: it is the data that is wrong, not our call
        raise ValueError(f"a key must be text, not {key}")  # noqa: TRY004
    return _text(str(key))


def _kind_name(value: Any) -> str:
    match value:
        case bytes() | bytearray():
            return "bytes"
        case set() | frozenset():
            return "a set"
        case _ if callable(value):
            return "a function"
        case _:
            return f"a value of type {type(value).__name__}"
