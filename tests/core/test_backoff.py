"""Exponential back-off with full jitter: the formula, its bounds, and the server's word on top of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.backoff import ASKED_MOST_S, BackoffPolicy, delay_s

jitters = st.floats(min_value=0, max_value=1, exclude_max=True)
policies = st.builds(
    lambda first_s, factor: BackoffPolicy(first_s, first_s * factor),
    st.floats(min_value=0.001, max_value=3600),
    st.floats(min_value=1, max_value=1000),
)


@pytest.mark.parametrize(
    ("failures", "first_s", "cap_s", "jitter", "expected_s"),
    [
        (1, 1.0, 60.0, 0.0, 0.0),
        (1, 1.0, 60.0, 0.5, 0.5),
        (2, 1.0, 60.0, 0.5, 1.0),
        (3, 1.0, 60.0, 0.5, 2.0),
        (6, 1.0, 60.0, 0.5, 16.0),
        (7, 1.0, 60.0, 0.5, 30.0),
        (50, 1.0, 60.0, 0.5, 30.0),
        (5000, 1.0, 60.0, 0.5, 30.0),
        (2, 0.25, 60.0, 0.5, 0.25),
        (4, 10.0, 20.0, 0.25, 5.0),
    ],
)
def test_the_wait_doubles_up_to_the_cap(
    failures: int, first_s: float, cap_s: float, jitter: float, expected_s: float
) -> None:
    assert delay_s(failures, BackoffPolicy(first_s, cap_s), jitter) == pytest.approx(expected_s)


@pytest.mark.parametrize(
    ("failures", "jitter", "retry_after_s", "expected_s"),
    [
        (1, 0.0, 10.0, 10.0),
        (1, 0.5, 10.0, 10.5),
        (6, 0.5, 10.0, 11.0),  # at most first_s comes on top: the server has said how long
        (6, 0.01, 10.0, 10.32),
        (1, 0.5, 120.0, 120.5),  # above the cap: the server's word counts
        (3, 0.5, 0.0, 1.0),
        (1, 0.5, -5.0, 0.5),
    ],
)
def test_what_the_server_asked_for_is_the_least_wait(
    failures: int, jitter: float, retry_after_s: float, expected_s: float
) -> None:
    assert delay_s(failures, BackoffPolicy(1.0, 60.0), jitter, retry_after_s=retry_after_s) == pytest.approx(expected_s)


@given(st.integers(1, 100_000), policies, jitters)
def test_no_wait_is_negative_or_above_the_cap(failures: int, policy: BackoffPolicy, jitter: float) -> None:
    wait_s = delay_s(failures, policy, jitter)
    assert 0 <= wait_s <= policy.cap_s
    assert math.isfinite(wait_s)


@given(st.integers(1, 1000), policies, jitters, st.floats(min_value=0, max_value=ASKED_MOST_S))
def test_retry_after_is_never_undercut_and_little_comes_on_top(
    failures: int, policy: BackoffPolicy, jitter: float, retry_after_s: float
) -> None:
    wait_s = delay_s(failures, policy, jitter, retry_after_s=retry_after_s)
    assert retry_after_s <= wait_s <= retry_after_s + policy.first_s


def test_a_server_that_asks_for_a_day_gets_minutes() -> None:
    assert delay_s(1, BackoffPolicy(), 0.0, retry_after_s=86_400) == ASKED_MOST_S


@given(st.integers(1, 100), policies, jitters)
def test_more_failures_never_wait_less(failures: int, policy: BackoffPolicy, jitter: float) -> None:
    assert delay_s(failures + 1, policy, jitter) >= delay_s(failures, policy, jitter)


@pytest.mark.parametrize("failures", [0, -1])
def test_failures_are_counted_from_one(failures: int) -> None:
    with pytest.raises(ValueError, match="from 1"):
        delay_s(failures, BackoffPolicy(), 0.5)
