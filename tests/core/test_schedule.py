"""When to ask: the edges of what was seen, the bounds of each pause, and a simulated night of polling."""

from __future__ import annotations

import heapq
import random
import statistics
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.schedule import (
    COLD_FIRST_S,
    ENOUGH,
    HISTORY,
    MISSES_MOST,
    NET_LEAST_S,
    NET_PAUSE_S,
    NET_UNKNOWN_S,
    STEP_MAX_S,
    STEP_MIN_S,
    Durations,
    Trust,
    first_poll_s,
    learned_s,
    net_poll_s,
    next_poll_s,
)

if TYPE_CHECKING:
    from collections.abc import Callable

seconds = st.floats(min_value=0, max_value=100_000)
edges_of_history = st.none() | st.tuples(seconds, seconds).map(lambda pair: (min(pair), max(pair)))


def durations(*seen_s: float) -> Durations:
    history = Durations()
    for duration_s in seen_s:
        history.add(duration_s)
    return history


def test_too_few_durations_are_not_believed() -> None:
    assert durations(*[1.0] * (ENOUGH - 1)).edges() is None
    assert durations(*[1.0] * ENOUGH).edges() == (1.0, 1.0)


def test_the_edges_are_the_10th_and_90th_percentile() -> None:
    assert durations(*range(1, 102)).edges() == (11, 91)


def test_a_single_outlier_does_not_move_the_edges() -> None:
    assert durations(*[5.0] * 40, 500.0).edges() == (5.0, 5.0)


def test_the_history_follows_a_drift() -> None:
    history = durations(*[10.0] * HISTORY)
    assert history.edges() == (10.0, 10.0)
    for _ in range(HISTORY):
        history.add(2.0)
    assert history.edges() == (2.0, 2.0)
    assert len(history.seen_s) == HISTORY


@given(st.lists(seconds, min_size=ENOUGH, max_size=2 * HISTORY))
def test_the_edges_lie_within_what_was_seen(seen_s: list[float]) -> None:
    edges = durations(*seen_s).edges()
    assert edges is not None
    assert min(seen_s) <= edges[0] <= edges[1] <= max(seen_s)


def test_without_history_the_first_question_is_soon() -> None:
    assert first_poll_s(None) == COLD_FIRST_S


@pytest.mark.parametrize(
    ("edges", "expected_s"),
    [((10.0, 10.0), 10.2), ((10.0, 18.0), 10.7), ((0.0, 0.0), STEP_MIN_S), ((0.001, 0.001), STEP_MIN_S)],
)
def test_with_history_the_first_question_comes_just_after_the_early_edge(
    edges: tuple[float, float], expected_s: float
) -> None:
    assert first_poll_s(edges) == pytest.approx(expected_s)


@pytest.mark.parametrize(
    ("age_s", "polls", "edges", "expected_s"),
    [
        (1.0, 1, None, 0.3),
        (10.0, 5, None, 3.0),
        (0.0, 1, None, STEP_MIN_S),
        (1000.0, 9, None, STEP_MAX_S),
        (10.0, 1, (10.0, 18.0), 1.0),  # an eighth of the spread
        (10.0, 2, (10.0, 18.0), 1.2),
        (10.0, 3, (10.0, 18.0), 1.44),
        (10.0, 1, (10.0, 10.0), 0.4),  # no spread: 4 % of the duration
        (30.0, 6, (10.0, 18.0), 3.6),  # long past the late edge: 30 % of what is past it
        (9.0, 3, (10.0, 10.0), 1.2),  # asked too early: at the early edge, whatever the count
        (0.0, 1, (1000.0, 1000.0), STEP_MAX_S),
        (1000.0, 10_000, (10.0, 18.0), STEP_MAX_S),
        (0.001, 1, (0.001, 0.001), STEP_MIN_S),
    ],
)
def test_the_next_question_follows_the_table(
    age_s: float, polls: int, edges: tuple[float, float] | None, expected_s: float
) -> None:
    assert next_poll_s(age_s, polls, edges) == pytest.approx(expected_s)


@given(seconds, st.integers(0, 1_000_000), edges_of_history)
def test_every_pause_is_bounded(age_s: float, polls: int, edges: tuple[float, float] | None) -> None:
    """The longest pause stays far below the 6 minutes for which fal keeps a large result."""
    assert STEP_MIN_S <= next_poll_s(age_s, polls, edges) <= STEP_MAX_S <= 60
    assert first_poll_s(edges) >= STEP_MIN_S


@pytest.mark.parametrize(
    ("not_yet_s", "done_s", "edges", "expected_s"),
    [
        (0.0, 0.25, None, 0.125),
        (2.0, 3.0, None, 2.5),
        (10.7, 11.7, (10.0, 18.0), 11.2),
        (0.0, 10.7, (10.0, 18.0), 9.7),  # done when first asked: a step earlier
        (0.0, 10.2, (10.0, 10.0), 9.588),  # no spread: 6 %
        (0.0, 11.0, (10.0, 18.0), 9.7),  # asked a little late: not held against the model
        (0.0, 30.0, (10.0, 18.0), None),  # asked very late: tells nothing
        (25.0, 30.0, (10.0, 18.0), 27.5),
    ],
)
def test_what_is_learned_from_two_questions(
    not_yet_s: float, done_s: float, edges: tuple[float, float] | None, expected_s: float | None
) -> None:
    learned = learned_s(not_yet_s, done_s, edges)
    assert learned == (None if expected_s is None else pytest.approx(expected_s))


def test_a_late_first_question_teaches_nothing() -> None:
    history = durations(*[10.0] * ENOUGH)
    history.learn(not_yet_s=0.0, done_s=50.0)
    assert list(history.seen_s) == [10.0] * ENOUGH
    history.learn(not_yet_s=9.0, done_s=11.0)
    assert history.seen_s[-1] == 10.0
    assert len(history.seen_s) == ENOUGH + 1


@dataclass
class Night:
    """What a simulated run came to, warm-up left out."""

    polls: list[int]
    lateness: list[float]
    """Seconds between completion and its discovery, as a share of the service time."""
    last_edges: tuple[float, float] | None


def simulate(service_s: Callable[[], float], gap_s: float, *, jobs: int = 2500, warm_up: int = 500) -> Night:
    """One request each `gap_s`, polled as `core/schedule.py` says. No clock, no sleep: a heap of moments."""
    history = Durations()
    night = Night([], [], None)
    heap = [(number * gap_s, number, -1) for number in range(jobs)]
    began_s, takes_s, not_yet_s = [0.0] * jobs, [0.0] * jobs, [0.0] * jobs
    while heap:
        now_s, number, polls = heapq.heappop(heap)
        if polls < 0:
            began_s[number], takes_s[number] = now_s, service_s()
            heapq.heappush(heap, (now_s + first_poll_s(history.edges()), number, 0))
            continue
        polls += 1
        age_s = now_s - began_s[number]
        if age_s < takes_s[number]:
            not_yet_s[number] = age_s
            heapq.heappush(heap, (now_s + next_poll_s(age_s, polls, history.edges()), number, polls))
            continue
        history.learn(not_yet_s=not_yet_s[number], done_s=age_s)
        if number >= warm_up:
            night.polls.append(polls)
            night.lateness.append((age_s - takes_s[number]) / takes_s[number])
    night.last_edges = history.edges()
    return night


@pytest.mark.parametrize("median_s", [0.5, 5.0, 60.0])
@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.3, 0.5])
def test_few_questions_find_completions_soon(median_s: float, sigma: float) -> None:
    """Steady (sigma 0) and log-normal service times: at most 5 polls a job and 15 % late, in the median."""
    chance = random.Random(20_261_121)
    night = simulate(lambda: median_s * chance.lognormvariate(0.0, sigma), gap_s=median_s / 16)
    assert statistics.median(night.polls) <= 5
    assert statistics.fmean(night.polls) <= 5
    assert statistics.median(night.lateness) <= 0.15


@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_the_estimate_does_not_run_away_over_a_long_night(sigma: float) -> None:
    """Each discovery is a little late; learned as it is, lateness would feed itself (50 % late after 4000 jobs)."""
    chance = random.Random(7)
    night = simulate(lambda: 5.0 * chance.lognormvariate(0.0, sigma), gap_s=0.3, jobs=6000, warm_up=5000)
    assert night.last_edges is not None
    assert 5.0 * 0.55 <= night.last_edges[0] <= 5.0 * 1.02
    assert statistics.median(night.lateness) <= 0.15


def test_a_model_that_becomes_slower_or_faster_is_followed() -> None:
    services = iter([5.0] * 1500 + [15.0] * 1500 + [3.0] * 1500)
    night = simulate(lambda: next(services), gap_s=0.5, jobs=4500, warm_up=4000)
    assert statistics.median(night.polls) <= 5
    assert statistics.median(night.lateness) <= 0.15


@given(st.lists(st.floats(min_value=0.01, max_value=1000), min_size=ENOUGH, max_size=40), st.floats(0.01, 5000))
def test_any_request_is_found_by_few_questions(seen_s: list[float], takes_s: float) -> None:
    """However wrong the history, the pauses grow, so that a long request is not asked about without end."""
    edges = durations(*seen_s).edges()
    ages = [first_poll_s(edges)]
    while ages[-1] < takes_s:
        ages.append(ages[-1] + next_poll_s(ages[-1], len(ages), edges))
    assert all(earlier < later for earlier, later in pairwise(ages))
    assert len(ages) <= 45 + takes_s / STEP_MAX_S


@pytest.mark.parametrize(
    ("usual_s", "first_s"),
    [(None, NET_UNKNOWN_S), (1.0, NET_LEAST_S), (15.0, 60.0), (30.0, 120.0), (80.0, 320.0), (600.0, 840.0)],
)
def test_the_safety_net_waits_for_calls_but_not_longer_than_results_last(usual_s: float | None, first_s: float) -> None:
    edges = None if usual_s is None else (usual_s / 2, usual_s)
    assert net_poll_s(0, edges) == first_s
    assert net_poll_s(1, edges) == net_poll_s(9, edges) == NET_PAUSE_S < 360


def test_before_the_first_call_one_miss_is_enough_to_trust_none() -> None:
    assert Trust().is_open
    assert not Trust().is_lost
    assert Trust().missed().is_lost
    assert not Trust().missed().is_open


def test_after_a_call_several_misses_in_a_row_are_and_a_call_makes_up_for_all() -> None:
    trust = Trust().missed().came()
    assert not trust.is_lost
    assert not trust.is_open
    for _ in range(MISSES_MOST - 1):
        trust = trust.missed()
    assert not trust.is_lost
    assert trust.came().missed().is_lost is False
    assert trust.missed().is_lost
