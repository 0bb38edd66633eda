"""From a mapping (a scenario file's, a posted JSON's) to a fault rule, strictly. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final

from falbatch.sandbox.failures import FAILURES
from falbatch.sandbox.faults import ALLOWED, ENDINGS, By, Do, Once, Rule, Where

_TAKES_SECONDS: Final = frozenset({Do.DELAY, Do.LATE, Do.DRIP})

_TAKES_PLACE: Final[Mapping[Do, tuple[re.Pattern[str], str]]] = {
    Do.REDIRECT: (re.compile(r"(https?:/)?/.*"), "a URL or a path"),
    Do.FOREIGN: (re.compile(r"https?://[^/?#]+(/[^?#]*)?"), "an http or https URL without a query"),
    Do.LINK: (re.compile(r"https?://.+"), "an http or https URL"),
    Do.FOREIGN_FILES: (re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:.+"), "a URL"),
}

_TAKES_NOTHING: Final = frozenset(Do) - _TAKES_SECONDS - _TAKES_PLACE.keys() - {Do.STATUS, Do.FAIL, Do.HUGE}

MAX_MEGABYTES: Final = 1024

Check = Callable[[Any], bool]


class FaultError(ValueError):
    """Raised when a rule cannot be used as given; the text names the place and the nearest right word."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_KEYS: Final[Mapping[str, tuple[Check, str]]] = {
    "on": (lambda value: isinstance(value, str), "a word"),
    "do": (lambda value: isinstance(value, str), "a word"),
    "p": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "nth": (_is_count, "a whole number from 1"),
    "times": (_is_count, "a whole number from 1"),
    "endpoint": (lambda value: isinstance(value, str), "a pattern such as fal-ai/*"),
    "once": (lambda value: value in [*Once], "path or input"),
    "by": (lambda value: value in [*By], "call or input"),
    "seeds": (lambda value: isinstance(value, list) and bool(value) and all(map(_is_whole, value)), "whole numbers"),
    "retry_after": (lambda value: _is_number(value) and value >= 0, "seconds"),
    "body": (lambda _: True, "text or JSON"),
    "nginx": (lambda value: isinstance(value, bool), "true or false"),
    "accepted": (lambda value: isinstance(value, bool), "true or false"),
    "quiet": (lambda value: isinstance(value, bool), "true or false"),
}

_ONLY_FOR: Final[Mapping[str, frozenset[Do]]] = {
    **dict.fromkeys(("retry_after", "body", "nginx", "accepted"), frozenset({Do.STATUS})),
    "quiet": frozenset({Do.TRUNCATE}),
    "seeds": ENDINGS,
}


def parse_rules(value: object, first_number: int) -> list[Rule]:
    """Rules from one mapping, a list of them, or `{"faults": [...]}`, numbered from `first_number`."""
    if isinstance(value, dict) and set(value) == {"faults"}:
        value = value["faults"]
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise FaultError('expected a rule, or {"faults": [rules]}')
    return [parse_rule(entry, number) for number, entry in enumerate(value, first_number)]


def parse_rule(value: object, number: int) -> Rule:
    """One rule. Raises FaultError."""
    if not isinstance(value, dict):
        raise FaultError(f"a fault rule is a mapping, not {value!r}")
    for key, setting in value.items():
        known_word(str(key), _KEYS, "a key of a fault rule")
        is_good, form = _KEYS[key]
        if not is_good(setting):
            raise FaultError(f"{key}: expected {form}, not {setting!r}")
    if missing := {"on", "do"} - set(value):
        raise FaultError(f"a fault rule needs {' and '.join(sorted(missing))}: {value!r}")
    where = Where(known_word(value["on"], [*Where], "a call that faults can meet"))
    do, amount, word = _parse_do(value["do"])
    _check_fit(value, where, do)
    rest = {key: setting for key, setting in value.items() if key not in {"on", "do"}}
    if "once" in rest:
        rest["once"] = Once(rest["once"])
    if "by" in rest:
        rest["by"] = By(rest["by"])
    if "seeds" in rest:
        rest["seeds"] = tuple(rest["seeds"])
    return Rule(number, dict(value), where, do, amount, word, **rest)


def known_word(word: str, known: Iterable[str], what: str) -> str:
    """`word` itself when it is one of `known`; else FaultError with the nearest one."""
    words = [str(entry) for entry in known]
    if word in words:
        return word
    near = get_close_matches(word, words, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(words)}"
    raise FaultError(f"{word!r} is not {what} ({hint})")


def _parse_do(text: str) -> tuple[Do, float, str]:
    """`name[:argument]` → (what, number, word)."""
    name, colon, argument = text.partition(":")
    do = Do(known_word(name, [*Do], "a fault"))
    if do in _TAKES_NOTHING:
        if colon:
            raise FaultError(f"{name} takes nothing after a colon, not {argument!r}")
        return do, 0.0, ""
    if do is Do.FAIL:
        return do, 0.0, known_word(argument, FAILURES, "a failure of fal's")
    if do in _TAKES_PLACE:
        pattern, form = _TAKES_PLACE[do]
        if not pattern.fullmatch(argument):
            raise FaultError(f"{do}: expected {form} after the colon, not {argument!r}")
        return do, 0.0, argument
    return do, _parse_number(do, argument), ""


def _parse_number(do: Do, argument: str) -> float:
    try:
        number = float(argument)
    except ValueError:
        number = math.nan
    if do in _TAKES_SECONDS and 0 <= number < math.inf:
        return number
    if do is Do.STATUS and number.is_integer() and 200 <= number <= 599:
        return number
    if do is Do.HUGE and 0 < number <= MAX_MEGABYTES:
        return number
    forms = {Do.STATUS: "an HTTP status from 200 to 599", Do.HUGE: f"megabytes, at most {MAX_MEGABYTES},"}
    form = forms.get(do, "seconds")
    raise FaultError(f"{do}: expected {form} after the colon, not {argument!r}")


def _check_fit(value: Mapping[str, Any], where: Where, do: Do) -> None:
    if where not in ALLOWED[do]:
        places = ", ".join(sorted(ALLOWED[do]))
        raise FaultError(f"{do} makes no sense on {where}, only on {places}")
    for key, only in _ONLY_FOR.items():
        if key in value and do not in only:
            raise FaultError(f"{key} belongs to {' or '.join(sorted(only))}, not to {do}")
