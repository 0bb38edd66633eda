"""Collecting what is wrong, so that all of it is said at once and each cause only once."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Final

from falbatch.errors import ManifestError, Problem

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

KEPT: Final = 100
"""Causes kept in full: more than anybody reads at once, little enough to hold for a million bad rows."""

_SHOWN: Final = 60
"""Characters of a value quoted in a message: enough to recognise it, short enough for one line."""


class ProblemLog:
    """A small mutable collector; one owner, not shared between threads.

    The first `kept` causes are kept in full, each with how often it came; later causes are only counted.
    """

    __slots__ = ("_counts", "_first", "_kept", "_more")

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._first: dict[Hashable, Problem] = {}
        self._counts: dict[Hashable, int] = {}
        self._more = 0

    def __len__(self) -> int:
        """How many problems were added, repeats included."""
        return sum(self._counts.values()) + self._more

    def add(self, problem: Problem, *, cause: Hashable = None) -> None:
        """Take one problem. Problems with an equal `cause` (default: the problem itself) are shown once."""
        key = problem if cause is None else cause
        if key in self._first:
            self._counts[key] += 1
        elif len(self._first) < self._kept:
            self._first[key] = problem
            self._counts[key] = 1
        else:
            self._more += 1

    def problems(self) -> tuple[Problem, ...]:
        """What to show: sorted by place, repeats said in words, and a last line for what was only counted."""
        shown = [_with_count(problem, self._counts[key]) for key, problem in self._first.items()]
        shown.sort(key=place_of)
        if self._more:
            shown.append(Problem(shown[0].file, 0, 0, f"and {self._more:,} more problems"))
        return tuple(shown)

    def raise_if_any(self, *, advice: str = "") -> None:
        """Raise ManifestError with everything found, if anything was."""
        if self._first or self._more:
            raise ManifestError(self.problems(), advice=advice)


def place_of(problem: Problem) -> tuple[str, int, int]:
    """What problems are sorted by."""
    return problem.file, problem.line, problem.column


def _with_count(problem: Problem, count: int) -> Problem:
    if count == 1:
        return problem
    what = f"{problem.what} [{count:,} items]"
    return Problem(problem.file, problem.line, problem.column, what, problem.hint)


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean "x"?` for the known word most like `word`, or "" when none is near."""
    words = {choice.casefold(): choice for choice in known}
    found = difflib.get_close_matches(word.casefold(), words, n=1)
    return f'did you mean "{words[found[0]]}"?' if found else ""


def nearest_or_list(word: str, known: Iterable[str]) -> str:
    """Like `nearest`; when no word is near, the known words themselves (at most twelve)."""
    words = sorted(set(known))
    hint = nearest(word, words)
    if hint or not words:
        return hint
    return "known: " + ", ".join(words[:12]) + (", …" if len(words) > 12 else "")


def shown(value: Any) -> str:
    """`value` as a person wrote it in YAML, on one line, shortened."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return '"' + _short(printable(value[: _SHOWN + 1].replace("\n", "\\n"))) + '"'
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case int() if value.bit_length() > 1000:  # Python refuses to print integers of very many digits
            return "a number of very many digits"
        case _:
            return _short(str(value))


def printable(text: str) -> str:
    """Words of others, fit for a terminal: nothing in them moves a cursor, ends a line or hides."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def one_line(text: str) -> str:
    """The same, without blanks beside blanks."""
    return " ".join(printable(text).split())


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
