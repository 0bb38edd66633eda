"""What few jobs tell of all: sums, ranges that hold as often as they say, and how long it takes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.projection import Span, Stratum, Times, project_cost, project_duration, t_95

A0, A1, B0 = Stratum("a", 0), Stratum("a", 1), Stratum("b", 0)


def test_jobs_left_count_at_the_mean_of_their_stratum() -> None:
    found = project_cost([(A0, 10), (A0, 12), (A1, 100)], {A0: 1000, A1: 10}, spent=122, reserved=0)
    assert found.total == 122 + 1000 * 11 + 10 * 100


def test_a_stratum_that_was_not_tried_counts_at_its_endpoints_mean() -> None:
    found = project_cost([(A0, 10), (A1, 20)], {Stratum("a", 7): 100}, spent=30, reserved=5)
    assert found.total == 35 + 1500
    assert found.left_mean == 15


def test_alike_costs_give_a_point_and_one_job_no_range() -> None:
    alike = project_cost([(A0, 5)] * 4, {A0: 100}, spent=20, reserved=0)
    assert (alike.low, alike.total, alike.high) == (520, 520, 520)
    alone = project_cost([(A0, 5)], {A0: 100}, spent=5, reserved=0)
    assert (alone.total, alone.low, alone.high) == (505, None, None)
    assert alone.why == "one job tells no spread"


def test_an_endpoint_of_unknown_cost_leaves_the_whole_unsaid() -> None:
    found = project_cost([(A0, 5)], {A0: 10, B0: 1}, spent=5, reserved=0)
    assert found.total is None
    assert found.why == "no cost of b is known"
    assert project_cost([(A0, 5)], {A0: 10, B0: 0}, spent=5, reserved=0).total == 55


def test_nothing_left_costs_nothing_more() -> None:
    found = project_cost([], {}, spent=7, reserved=1)
    assert (found.low, found.total, found.high) == (8, 8, 8)


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=30), st.integers(1, 100_000))
def test_the_range_holds_the_sum_and_is_never_below_what_was_spent(costs: list[int], left: int) -> None:
    found = project_cost([(A0, cost) for cost in costs], {A0: left}, spent=sum(costs), reserved=0)
    assert found.total is not None
    assert found.low is not None
    assert found.high is not None
    assert sum(costs) <= found.low <= found.total <= found.high


def test_the_range_holds_in_nineteen_of_twenty_batches() -> None:
    """2,000 batches of uneven jobs, a canary of 12 of each: as often as it says, within what chance allows."""
    chance = random.Random(7)
    held = 0
    for _ in range(2000):
        batch = [round(10**6 * (1 + chance.random() + (chance.random() < 0.4))) for _ in range(400)]
        tried, rest = batch[:12], batch[12:]
        found = project_cost([(A0, cost) for cost in tried], {A0: len(rest)}, spent=sum(tried), reserved=0)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= sum(batch) <= found.high
    assert 0.93 <= held / 2000 <= 0.975


@pytest.mark.parametrize(("degrees", "least"), [(1, 12.706), (5, 2.571), (9, 2.262), (10, 2.228), (30, 2.042)])
def test_students_t_is_rounded_up(degrees: int, least: float) -> None:
    assert least <= t_95(degrees) <= least + 0.02


def test_times_are_those_that_were_seen() -> None:
    assert Times.of([]) is None
    times = Times.of([5.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0, 9.0, 30.0])
    assert times == Times(10, 5.0, 9.0)


def of_a(spans: list[Span]) -> list[tuple[Stratum, Span]]:
    """All of one kind."""
    return [(A0, span) for span in spans]


def capped(count: int, at_once: int, work_s: float) -> list[Span]:
    """`count` requests submitted together to a fal that runs `at_once` of them."""
    return [Span(0.0, work_s * (1 + place // at_once), work_s) for place in range(count)]


@pytest.mark.parametrize(("count", "at_once"), [(10, 2), (11, 2), (3, 1), (12, 10), (100, 40)])
def test_while_some_wait_fal_runs_as_many_as_it_will(count: int, at_once: int) -> None:
    found = project_duration(of_a(capped(count, at_once, 5.0)), {A0: 1000})
    assert found.at_once == pytest.approx(at_once)
    assert found.seconds == pytest.approx(1000 * 5.0 / at_once)
    assert not found.is_bound
    assert "as seen so far" in found.assumption


def test_where_none_waited_the_time_is_a_bound() -> None:
    found = project_duration(of_a(capped(10, 40, 5.0)), {A0: 1000})
    assert found.seconds == pytest.approx(500.0)
    assert (found.at_once, found.is_bound) == (10.0, True)
    assert "all at once" in found.assumption
    alone = project_duration(of_a(capped(1, 1, 5.0)), {A0: 10})
    assert (alone.seconds, alone.is_bound) == (50.0, True)


def test_without_words_on_work_the_pace_of_the_canary_counts() -> None:
    found = project_duration(of_a([Span(0.0, 5.0, 2.0), Span(1.0, 11.0, None)]), {A0: 100})
    assert found.seconds == pytest.approx(550.0)
    assert (found.at_once, found.is_bound) == (None, True)


def test_slow_jobs_count_as_often_as_they_are_left() -> None:
    tried = [(A0, Span(0.0, 1.0, 1.0)), (B0, Span(0.0, 9.0, 9.0))]
    assert project_duration(tried, {A0: 1000, B0: 10}).seconds == pytest.approx((1000 * 1 + 10 * 9) / 2)
    assert project_duration(tried[:1], {A0: 1, B0: 1}).assumption == "no time of b is known"


def test_what_cannot_be_said_says_why() -> None:
    assert project_duration([], {A0: 5}).seconds is None
    assert project_duration([], {A0: 5}).assumption
    assert project_duration([], {A0: 0}).seconds == 0.0


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e4), st.none() | st.floats(0, 1e5)), max_size=20),
    st.integers(0, 10**6),
)
def test_any_times_give_a_time(spans: list[tuple[float, float, float | None]], left: int) -> None:
    found = project_duration(of_a([Span(at, at + seconds, work) for at, seconds, work in spans]), {A0: left})
    assert found.seconds is None or found.seconds >= 0
