"""JSON without loss: fast where that is exact, slow where it is not (fal-protocol §12, seeds). Knows nobody."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import orjson

_LONG: Final = re.compile(rb"[0-9]{19}")
"""orjson turns integers beyond 64 bits into floats without a word; below 19 digits none is beyond."""


def parse_json(body: bytes) -> Any:
    """The value of `body`. Integers of any size stay exact; NaN and Infinity, which Python apps write, are read.

    Raises ValueError for what is not JSON, is nested absurdly deep, or has a number of over 4300 digits.
    Half surrogate pairs, which could not be written to any file, become U+FFFD.
    """
    if not _LONG.search(body):
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            pass  # the standard library reads a little more: NaN, half surrogates, a byte order mark
    try:
        return _storable(json.loads(body))
    except RecursionError:
        raise ValueError("JSON nested too deep") from None


def is_nested_within(value: Any, levels: int) -> bool:
    """Whether a JSON value has at most `levels` of lists and objects one in another. Recursive readers of values from
    elsewhere ask first; this does not recurse."""
    layer = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        inner = (entry for one in layer for entry in (one.values() if isinstance(one, dict) else one))
        layer = [entry for entry in inner if isinstance(entry, dict | list)]
        if not layer:
            return True
    return not layer


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return value
