"""What sets the inputs of a few jobs apart: the values that are not the same in all of them, in short. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.fileinputs import FILE_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from falbatch.core.model import JsonObject

VALUES_MOST: Final = 20
"""Values that are told of one input."""

SHOWN_MOST: Final = 80
"""Characters of one value."""


def varying(inputs: Iterable[JsonObject]) -> frozenset[str]:
    """The places whose values are not the same in all of `inputs`, or that some lack: `image_size.width`."""
    first: dict[str, Any] = {}
    counts: dict[str, int] = {}
    found: set[str] = set()
    many = 0
    for given in inputs:
        many += 1
        for place, value in _values(given):
            counts[place] = counts.get(place, 0) + 1
            if _text(first.setdefault(place, value)) != _text(value):
                found.add(place)
    return frozenset(found | {place for place, count in counts.items() if count < many})


def told(given: JsonObject, places: frozenset[str], file_name: Callable[[str], str]) -> list[str]:
    """The values of one input at `places`: `image_size.width: 64`. `file_name` names a file by its SHA-256 in hex."""
    found = [(place, value) for place, value in _values(given) if place in places]
    words = [
        f"{place}: {_short(file_name(value[FILE_KEY]) if _is_file(value) else _text(value))}"
        for place, value in found[:VALUES_MOST]
    ]
    return words if len(found) <= VALUES_MOST else [*words, f"and {len(found) - VALUES_MOST:,} more"]


def _values(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """All that is in a value but is no object, with its place. Lists are told as a whole."""
    if isinstance(value, dict) and value and not _is_file(value):
        for name, part in value.items():
            yield from _values(part, f"{place}.{name}" if place else name)
    elif place:
        yield place, value


def _is_file(value: Any) -> bool:
    return isinstance(value, dict) and FILE_KEY in value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_MOST else text[:SHOWN_MOST] + "…"
