"""Rules as values: which are accepted, and which call each one meets."""

from __future__ import annotations

import re
from typing import Any

import pytest

from falbatch.sandbox.faults import FaultBook, Target, Where
from falbatch.sandbox.rules import FaultError, parse_rule, parse_rules


def a_book(*rules: dict[str, Any], seed: int = 1) -> FaultBook:
    book = FaultBook(seed)
    book.add(parse_rules(list(rules), 0))
    return book


def a_submit(path: str = "/queue/fal-ai/flux", endpoint: str = "fal-ai/flux", key: str = "") -> Target:
    return Target(Where.SUBMIT, endpoint, path, key)


def hits(book: FaultBook, number: int, target: Target | None = None) -> list[int]:
    """Which of `number` calls were met, 1-based."""
    return [n for n in range(1, number + 1) if book.meet(target or a_submit()) is not None]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"nth": 3}, [3]),
        ({"times": 2}, [1, 2]),
        ({"nth": 2, "times": 1}, [2]),
        ({"p": 0}, []),
        ({"p": 1, "times": 1}, [1]),
        ({"endpoint": "fal-ai/*"}, [1, 2, 3, 4, 5, 6]),
        ({"endpoint": "openai/*"}, []),
        ({"once": "path"}, [1]),
        ({"once": "input"}, [1]),
    ],
)
def test_place_number_and_pattern_decide_which_calls_are_met(rule: dict[str, Any], expected: list[int]) -> None:
    assert hits(a_book({"on": "submit", "do": "hang", **rule}), 6) == expected


def test_other_calls_are_neither_met_nor_counted() -> None:
    book = a_book({"on": "result", "do": "hang", "nth": 1})
    assert hits(book, 3) == []
    assert book.meet(Target(Where.RESULT, "fal-ai/flux", "/x")) is not None


def test_draws_follow_p_repeat_with_the_seed_and_differ_by_rule() -> None:
    rule = {"on": "submit", "do": "hang", "p": 0.2}
    first = hits(a_book(rule), 2000)
    assert 320 <= len(first) <= 480
    assert hits(a_book(rule), 2000) == first
    assert hits(a_book(rule, seed=2), 2000) != first
    other = a_book()
    other.add([parse_rule(rule, 1)])
    assert hits(other, 2000) != first


def test_once_draws_by_path_whatever_the_order() -> None:
    rule = {"on": "file", "do": "truncate", "p": 0.3, "once": "path"}
    paths = [f"/cdn/{n}" for n in range(100)]

    def met(order: list[str]) -> set[str]:
        book = a_book(rule)
        return {path for path in order if book.meet(Target(Where.FILE, "x", path))}

    assert met(paths) == met(paths[::-1])
    assert 15 <= len(met(paths)) <= 45


def test_the_first_rule_that_fires_wins_and_the_others_still_count() -> None:
    book = a_book({"on": "submit", "do": "hang", "nth": 1}, {"on": "submit", "do": "drop_before", "nth": 2})
    met = [book.meet(a_submit()) for _ in range(3)]
    assert [rule.do if rule else None for rule in met] == ["hang", "drop_before", None]


def test_a_failure_is_chosen_apart_from_what_happens_on_the_wire() -> None:
    book = a_book({"on": "result", "do": "fail:internal_error"}, {"on": "submit", "do": "hang"})
    assert book.ending_for("fal-ai/flux", "/q", "", None) == "internal_error"
    met = book.meet(a_submit())
    assert met is not None
    assert met.do == "hang"


def test_requeue_meets_running_requests_and_late_recent_ones_only() -> None:
    requeue = a_book({"on": "status", "do": "requeue", "nth": 1})
    assert requeue.meet(Target(Where.STATUS, "x", "/")) is None
    assert requeue.meet(Target(Where.STATUS, "x", "/", is_running=True)) is not None
    late = a_book({"on": "result", "do": "late:5"})
    assert late.meet(Target(Where.RESULT, "x", "/")) is None
    assert late.meet(Target(Where.RESULT, "x", "/", since_end_s=4.9)) is not None
    assert late.meet(Target(Where.RESULT, "x", "/", since_end_s=5.1)) is None


def test_counters_survive_a_snapshot() -> None:
    rules = [{"on": "submit", "do": "hang", "nth": 3}, {"on": "submit", "do": "lock", "once": "path", "nth": 1}]
    book = a_book(*rules)
    assert hits(book, 2) == [1]
    again = FaultBook(1)
    for entry in book.snapshot():
        source = {key: entry[key] for key in ("on", "do", "nth", "once") if key in entry}
        again.resume(parse_rule(source, entry["number"]), entry["seen"], entry["fired"], entry.get("hits", ()))
    assert again.snapshot() == book.snapshot()
    assert hits(again, 2) == [1]
    assert again.next_number == 2


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"on": "submt", "do": "hang"}, "did you mean 'submit'"),
        ({"on": "webhooks", "do": "hang"}, "'webhooks' is not a call"),
        ({"on": "submit", "do": "hnag"}, "did you mean 'hang'"),
        ({"on": "submit", "do": "duplicates"}, "'duplicates' is not a fault"),
        ({"on": "submit", "do": "hang", "tmies": 1}, "did you mean 'times'"),
        ({"on": "submit"}, "needs do"),
        ({"do": "hang"}, "needs on"),
        ({"on": "submit", "do": "status"}, "HTTP status from 200 to 599"),
        ({"on": "submit", "do": "status:99"}, "HTTP status"),
        ({"on": "submit", "do": "status:5e2.5"}, "HTTP status"),
        ({"on": "submit", "do": "delay:soon"}, "seconds"),
        ({"on": "submit", "do": "delay:-1"}, "seconds"),
        ({"on": "submit", "do": "delay:inf"}, "seconds"),
        ({"on": "submit", "do": "hang:3"}, "nothing after a colon"),
        ({"on": "submit", "do": "redirect:ftp://x"}, "URL"),
        ({"on": "submit", "do": "fail:content_polcy"}, "did you mean 'content_policy_violation'"),
        ({"on": "file", "do": "requeue"}, "only on status"),
        ({"on": "cancel", "do": "fail:internal_error"}, "only on realtime, result, run, stream, submit"),
        ({"on": "file", "do": "lock"}, "makes no sense on file"),
        ({"on": "submit", "do": "hang", "p": 1.5}, "from 0 to 1"),
        ({"on": "submit", "do": "hang", "p": True}, "from 0 to 1"),
        ({"on": "submit", "do": "hang", "nth": 0}, "whole number from 1"),
        ({"on": "submit", "do": "hang", "times": 1.5}, "whole number from 1"),
        ({"on": "submit", "do": "hang", "once": "always"}, "path or input"),
        ({"on": "submit", "do": "hang", "retry_after": 1}, "belongs to status"),
        ({"on": "submit", "do": "status:429", "quiet": True}, "belongs to truncate"),
        ("hang", "is a mapping"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_with_the_reason(rule: object, message: str) -> None:
    with pytest.raises(FaultError, match=re.escape(message)):
        parse_rule(rule, 0)


def test_rules_come_alone_in_a_list_or_under_faults() -> None:
    rule = {"on": "submit", "do": "hang"}
    for value in (rule, [rule], {"faults": [rule]}):
        assert [parsed.number for parsed in parse_rules(value, 4)] == [4]
    with pytest.raises(FaultError, match="expected a rule"):
        parse_rules("hang", 0)
