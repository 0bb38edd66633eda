"""The filters that templates have beside Jinja's own, or in place of them: strict, since what they give is paid for."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from jinja2 import filters
from jinja2.utils import missing

from falbatch.core.jsonvalue import to_json
from falbatch.core.naming import slug
from falbatch.core.problems import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def as_int(value: Any, default: Any = missing, base: int = 10) -> int:
    """`int`, refusing what is none. Raises `ValueError`."""
    if default is not missing:
        return filters.do_int(value, default, base)
    try:
        number = int(value, base) if isinstance(value, str) else int(value)
    except (TypeError, ValueError):
        raise ValueError(f"{shown(value)} is not a whole number") from None
    if isinstance(value, float) and number != value:
        raise ValueError(f"{shown(value)} is not a whole number (round it first)")
    return number


def as_float(value: Any, default: Any = missing) -> float:
    """`float`, the same. Raises `ValueError`."""
    if default is not missing:
        return filters.do_float(value, default)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{shown(value)} is not a number")
    return number


def as_slug(value: Any) -> str:
    """`slug`: what is fit for a file's name."""
    if value is None:
        raise ValueError("null has no slug; write | default('none', true) | slug")
    return slug(str(value))


def as_json(value: Any, indent: int | None = None) -> str:
    """`tojson`, without escapes for web pages."""
    return json.dumps(to_json(value), ensure_ascii=False, indent=indent)


_WORDS: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("true", "yes", "1", "on"), True),
    **dict.fromkeys(("false", "no", "0", "off"), False),
}


def as_bool(value: Any) -> bool:
    """`bool`: true or false, 1 or 0, and the words for them in any case. Raises `ValueError` for anything else."""
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    found = _WORDS.get(value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{shown(value)} is neither true nor false")
    return found


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "int": as_int,
    "float": as_float,
    "bool": as_bool,
    "slug": as_slug,
    "tojson": as_json,
}
"""By the names that templates call them."""
