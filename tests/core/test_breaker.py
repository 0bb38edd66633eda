"""A row of equal failures: it grows while they are alike, and begins anew with another."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.breaker import OWN_TROUBLE, Streak
from falbatch.core.classify import Failure


def after(*error_types: str) -> Streak:
    streak = Streak()
    for number, error_type in enumerate(error_types):
        streak = streak.failed(Failure(error_type, f"message {number}", 422))
    return streak


def test_equal_failures_make_a_row_whatever_their_messages() -> None:
    assert after("missing", "missing", "missing") == Streak("missing", 3)


def test_another_failure_begins_a_new_row() -> None:
    assert after("missing", "missing", "http_500") == Streak("http_500", 1)
    assert after("missing", "http_500", "missing") == Streak("missing", 1)


def test_nothing_failed_yet() -> None:
    assert after().length == 0


def test_failures_that_are_not_the_endpoints_are_known() -> None:
    before_it_was_asked = {"file_missing", "file_changed", "file_too_large", "upload_failed"}
    assert set(OWN_TROUBLE) == {"file_gone", "file_refused", "result_gone"} | before_it_was_asked


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=50))
def test_a_row_is_as_long_as_its_last_run_of_equals(error_types: list[str]) -> None:
    *_, (last, run) = [(key, len(list(group))) for key, group in groupby(error_types)]
    assert after(*error_types) == Streak(last, run)
