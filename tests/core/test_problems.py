"""Each cause is shown once, however many items it hits."""

from __future__ import annotations

import pytest

from falbatch.core.problems import ProblemLog, nearest, nearest_or_list, shown
from falbatch.errors import ManifestError, Problem


def _problem(line: int, what: str = "wrong") -> Problem:
    return Problem("m.yaml", line, 1, what)


def test_the_same_cause_is_shown_once_with_how_many_items_it_hits() -> None:
    log = ProblemLog()
    for line in (7, 8, 9):
        log.add(_problem(line), cause="typo")
    assert [str(problem) for problem in log.problems()] == ["m.yaml:7:1: wrong [3 items]"]
    assert len(log) == 3


def test_causes_beyond_the_kept_ones_are_counted_only() -> None:
    log = ProblemLog(kept=2)
    for line in range(1, 6):
        log.add(_problem(line))
    assert [problem.what for problem in log.problems()] == ["wrong", "wrong", "and 3 more problems"]


def test_problems_are_sorted_by_place() -> None:
    log = ProblemLog()
    for line in (9, 3, 5):
        log.add(_problem(line))
    assert [problem.line for problem in log.problems()] == [3, 5, 9]


def test_an_empty_log_raises_nothing_and_a_full_one_everything() -> None:
    log = ProblemLog()
    log.raise_if_any()
    log.add(_problem(1))
    log.add(_problem(2))
    with pytest.raises(ManifestError) as caught:
        log.raise_if_any(advice="fix them")
    assert len(caught.value.problems) == 2
    assert caught.value.advice == "fix them"


def test_the_nearest_word_is_found_or_the_known_ones_are_listed() -> None:
    assert nearest("downlaods", ["downloads", "in_flight"]) == 'did you mean "downloads"?'
    assert nearest("zzz", ["downloads"]) == ""
    assert nearest_or_list("zzz", ["b", "a"]) == "known: a, b"
    assert nearest_or_list("Seed", ["seed"]) == 'did you mean "seed"?'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        ("a\nb", '"a\\nb"'),
        ("a\x1b[2Jb\x07", '"a [2Jb "'),
        ({}, "a mapping"),
        ([], "a list"),
        (1.5, "1.5"),
        (10**400, "a number of very many digits"),
        ("x" * 100, '"' + "x" * 59 + '…"'),
    ],
)
def test_values_are_shown_on_one_short_line(value: object, text: str) -> None:
    assert shown(value) == text
