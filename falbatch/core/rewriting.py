"""A template that is one expression, with something more done to its value. Pure.

    {{ row.n if row.n else omit }}  ─ {} | int ─▶  {{ row.n | int if row.n else omit }}

What leaves a field out, `omit`, is no value and stays as it is; what binds less than a filter gets parentheses.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from falbatch.core.template import only_expression

if TYPE_CHECKING:
    from collections.abc import Sequence

_PLAIN: Final = re.compile(r"[\w.]+(\[[^\[\]]*\])?( *\| *[\w]+(\([^()]*\))?)*")
"""A name, its entry, filters: what a further filter may follow."""

_RECKONING: Final = frozenset({"+", "-", "*", "/", "//", "%", "**"})

_OR_OMIT: Final = {"| default(omit)": " is defined", "| default(omit, true)": ""}
"""The usual filters that leave a field out, and when they do not."""

Token = tuple[str, str]
"""Kind and text, as Jinja's lexer gives them."""


def rewritten(template: str, form: str) -> str:
    """`template` with `form` in place of its value, `{}` in it, as in `{} | int`; "" where that cannot be said: it is
    not one expression, or leaves the field out in a way of its own."""
    made = _applied(only_expression(template), form)
    return f"{{{{ {made} }}}}" if made else ""


def reckons(template: str) -> bool:
    """Whether a one-expression template reckons: with text, that gives other text."""
    return any(kind == "operator" and text in _RECKONING for kind, text in only_expression(template))


def _applied(given: Sequence[Token], form: str) -> str:
    tokens = _unwrapped(given)
    text = _text(tokens)
    if text == "omit" or not tokens:
        return text
    question, otherwise = _place(tokens, "if"), _place(tokens, "else")
    if 0 <= question < otherwise and ("name", "omit") in [*tokens[:question], *tokens[otherwise:]]:
        made = _applied(tokens[:question], form), _applied(tokens[otherwise + 1 :], form)
        condition = _text(tokens[question + 1 : otherwise])
        first = f"({made[0]})" if " if " in form and made[0] != "omit" else made[0]
        return f"{first} if {condition} else {made[1]}" if all(made) else ""
    for ending, condition in _OR_OMIT.items():
        base = text.removesuffix(ending).rstrip()
        if base != text and _PLAIN.fullmatch(base):
            made_of_base = form.replace("{}", base)
            first = f"({made_of_base})" if " if " in form else made_of_base
            return f"{first} if {base}{condition} else omit"
    if ("name", "omit") in tokens:
        return ""
    return form.replace("{}", text if _PLAIN.fullmatch(text) else f"({text})")


def _text(tokens: Sequence[Token]) -> str:
    return "".join(text for _, text in tokens).strip()


def _depths(tokens: Sequence[Token]) -> list[int]:
    """How many brackets are open before each token, and at the end."""
    depths = [0]
    for kind, text in tokens:
        change = (text in {"(", "[", "{"}) - (text in {")", "]", "}"}) if kind == "operator" else 0
        depths.append(depths[-1] + change)
    return depths


def _place(tokens: Sequence[Token], word: str) -> int:
    """Where `word` first stands outside brackets; -1 where it does not."""
    depths = _depths(tokens)
    places = (place for place, token in enumerate(tokens) if token == ("name", word) and depths[place] == 0)
    return next(places, -1)


def _unwrapped(given: Sequence[Token]) -> list[Token]:
    """Without blanks and parentheses around all of it."""
    tokens = list(given)
    while tokens and tokens[0][0] == "whitespace":
        tokens.pop(0)
    while tokens and tokens[-1][0] == "whitespace":
        tokens.pop()
    if tokens and tokens[0][1] == "(" and tokens[-1][1] == ")" and 0 not in _depths(tokens)[1:-1]:
        return _unwrapped(tokens[1:-1])
    return tokens
