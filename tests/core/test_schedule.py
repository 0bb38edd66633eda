"""When to ask: shares of those that are still open, the bounds of each pause, and whether fal's calls are trusted."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.schedule import (
    COLD_FIRST_S,
    MISSES_MOST,
    NET_LEAST_S,
    NET_PAUSE_S,
    NET_UNKNOWN_S,
    PLANNED_MAX_S,
    STEP_MAX_S,
    STEP_MIN_S,
    Trust,
    cold_age_s,
    likely_age_s,
    net_poll_s,
    next_age_s,
)
from falbatch.core.sketch import Profile, Sketch


def profile(*seen_s: float) -> Profile:
    sketch = Sketch()
    for duration_s in seen_s:
        sketch.add(duration_s)
    return Profile(sketch)


EVEN = profile(*(number / 10 for number in range(1, 1001)))
"""0.1 s to 100 s, all alike."""

FAST_AND_SLOW = profile(*[0.3] * 500, *[10.0] * 500)


def test_without_history_the_first_question_is_soon_and_the_pauses_grow() -> None:
    assert cold_age_s(0.0) == COLD_FIRST_S
    assert cold_age_s(1.0) == pytest.approx(1.3)
    assert cold_age_s(1000.0) == 1000.0 + STEP_MAX_S
    assert cold_age_s(0.001) == pytest.approx(0.001 + STEP_MIN_S)


def test_a_few_durations_put_the_first_question_off() -> None:
    assert cold_age_s(0.0, hunch=profile(60.0, 70.0)) == pytest.approx(30.0, rel=0.02)
    assert cold_age_s(40.0, hunch=profile(60.0)) == pytest.approx(52.0)


def test_the_next_question_comes_when_a_share_of_those_that_are_open_has_ended() -> None:
    first_s = next_age_s(0.0, EVEN)
    assert first_s == pytest.approx(30.0 * 1.02, rel=0.03)
    assert next_age_s(30.0, EVEN) == pytest.approx(30.0 + 0.25 * 70.0, rel=0.03)
    assert next_age_s(51.0, EVEN) == pytest.approx(51.0 + 0.25 * 49.0, rel=0.03)


def test_what_was_not_fast_is_asked_about_when_the_slow_ones_end() -> None:
    assert next_age_s(0.0, FAST_AND_SLOW) == pytest.approx(0.3, rel=0.05)
    assert next_age_s(0.31, FAST_AND_SLOW) == pytest.approx(10.0, rel=0.5)
    ages = [next_age_s(0.0, FAST_AND_SLOW)]
    while ages[-1] < 10.2:
        ages.append(next_age_s(ages[-1], FAST_AND_SLOW))
    assert len(ages) <= 4


def test_a_model_without_spread_is_asked_each_4_percent() -> None:
    steady = profile(*[10.0] * 100)
    first_s = next_age_s(0.0, steady)
    assert 10.0 <= first_s <= 10.4
    assert next_age_s(9.9, steady) - 9.9 == pytest.approx(0.4, rel=0.2)


def test_what_takes_longer_than_all_others_is_asked_about_ever_more_seldom() -> None:
    steady = profile(*[2.0] * 100)
    ages = [next_age_s(0.0, steady)]
    while ages[-1] < 3600:
        ages.append(next_age_s(ages[-1], steady))
    pauses = [later - earlier for earlier, later in pairwise(ages)]
    assert max(pauses) == pytest.approx(STEP_MAX_S)
    assert len(ages) < 30 + 3600 / STEP_MAX_S


def test_likely_is_when_four_in_five_have_ended() -> None:
    assert likely_age_s(0.0, EVEN) == pytest.approx(80.0, rel=0.03)
    assert likely_age_s(50.0, EVEN) == pytest.approx(90.0, rel=0.03)
    assert likely_age_s(500.0, EVEN) == 500.0


@given(st.lists(st.floats(0.001, 50_000), min_size=1, max_size=40), st.floats(0, 100_000))
def test_every_pause_is_bounded(seen_s: list[float], age_s: float) -> None:
    """The longest pause stays far below the 6 minutes for which fal keeps a large result."""
    known = profile(*seen_s)
    next_s = next_age_s(age_s, known)
    if age_s > 0:
        assert STEP_MIN_S * 0.99 <= next_s - age_s <= PLANNED_MAX_S * 1.01 < 180
    assert likely_age_s(age_s, known) >= age_s
    assert next_age_s(0.0, known) >= STEP_MIN_S


@given(st.lists(st.floats(0.01, 1000), min_size=8, max_size=40), st.floats(0.01, 5000))
def test_any_request_is_found_by_few_questions(seen_s: list[float], takes_s: float) -> None:
    """However wrong the history, the pauses grow, so that a long request is not asked about without end."""
    known = profile(*seen_s)
    ages = [next_age_s(0.0, known)]
    while ages[-1] < takes_s:
        ages.append(next_age_s(ages[-1], known))
    assert all(earlier < later for earlier, later in pairwise(ages))
    assert len(ages) <= 60 + 2 * len(seen_s) + takes_s / STEP_MAX_S


@pytest.mark.parametrize(
    ("usual_s", "first_s"),
    [(None, NET_UNKNOWN_S), (1.0, NET_LEAST_S), (15.0, 60.0), (30.0, 120.0), (80.0, 240.0), (600.0, 240.0)],
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
