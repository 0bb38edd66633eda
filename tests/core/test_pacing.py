"""Windows, pauses, rates and budgets: values that change by the rules and never beyond their bounds."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.pacing import AUTO_CEILING, RETRY_FLOOR, CoolDown, Rate, RetryBudget, Window
from falbatch.core.plateau import SLOW_START_SIZE


def test_auto_starts_small_and_doubles_with_each_round_of_acceptances() -> None:
    window = Window.auto()
    assert window.room == SLOW_START_SIZE
    for _ in range(SLOW_START_SIZE):
        window = window.accepted()
    assert window.room == 2 * SLOW_START_SIZE


def test_slow_start_ends_at_the_ceiling() -> None:
    window = Window.auto()
    for _ in range(2 * AUTO_CEILING):
        window = window.accepted()
    assert window.room == AUTO_CEILING


def test_a_refusal_halves_the_window_and_ends_slow_start() -> None:
    window = Window(size=64, ceiling=1000).refused(sent_at_s=5.0, now_s=6.0)
    assert window.room == 32
    for _ in range(32):
        window = window.accepted()
    assert 35 <= window.room <= 37, "an eighth of what is missing comes back with a round"


def test_after_a_cut_the_window_grows_up_to_what_was_refused_and_then_hardly() -> None:
    window = Window(size=40, ceiling=1000).refused(sent_at_s=5.0, now_s=6.0)
    rounds = 0
    while window.size < 39:
        for _ in range(window.room):
            window = window.accepted()
        rounds += 1
    assert rounds <= 16
    for _ in range(8 * 39):
        window = window.accepted()
    assert 39.5 <= window.size <= 40.5


def rounds_to(window: Window, size: float) -> int:
    """Rounds of acceptances until the window is so large."""
    for number in range(1000):
        if window.size >= size:
            return number
        for _ in range(window.room):
            window = window.accepted()
    pytest.fail("it does not grow")


def test_a_refusal_that_is_over_slows_nothing_down() -> None:
    """Others of the account left room for 5; now all is free."""
    window = Window(size=5.5, ceiling=1000, slow_start=False).refused(sent_at_s=0.0, now_s=1.0, used=5)
    assert rounds_to(window, 40) <= 25
    assert rounds_to(window, 640) - rounds_to(window, 40) <= 8
    far = Window(size=50, ceiling=1000, slow_start=False, refused_at=5.0)
    assert far.refused(sent_at_s=5.0, now_s=6.0).size == pytest.approx(25), "a new refusal, not the old one"


def test_where_fal_stands_still_one_round_in_eight_is_refused_at_most() -> None:
    window, refusals, rounds = Window(size=40, ceiling=1000).refused(sent_at_s=0.0, now_s=1.0, used=41), 0, 400
    for second in range(2, rounds):
        if window.room > 40:
            refusals += 1
            window = window.refused(sent_at_s=second, now_s=second, used=41)
        for _ in range(min(40, window.room)):
            window = window.accepted()
    assert refusals <= rounds / 8
    assert window.size >= 36


def test_a_refusal_where_the_last_one_was_gives_up_a_tenth() -> None:
    """Direct calls stand at fal's cap: half of it after each try for more would leave a quarter of it idle."""
    window = Window(size=40, ceiling=1000, slow_start=False, refused_at=40.0)
    assert window.refused(sent_at_s=5.0, now_s=6.0).size == pytest.approx(36)
    lower = Window(size=30, ceiling=1000, slow_start=False, refused_at=40.0)
    assert lower.refused(sent_at_s=5.0, now_s=6.0).size == pytest.approx(15), "fal takes less than before"


def test_an_episode_tells_how_many_fal_takes() -> None:
    """64 leave together, 24 are refused."""
    window = Window(size=64, ceiling=1000)
    for under_way in range(64, 40, -1):
        window = window.refused(sent_at_s=5.0, now_s=6.0, used=under_way)
    assert (window.room, window.refused_at) == (32, 41)


def test_what_is_cut_is_what_was_used() -> None:
    window = Window(size=1000, ceiling=1000).refused(sent_at_s=5.0, now_s=6.0, used=60)
    assert window.size == pytest.approx(30)


def test_one_episode_of_refusals_cuts_once() -> None:
    """All that was on the way when the first 429 came belongs to the same episode."""
    window = Window(size=64, ceiling=1000)
    for sent_at_s in [5.0, 5.1, 5.9, 6.0]:
        window = window.refused(sent_at_s=sent_at_s, now_s=6.0)
    assert window.room == 32


def test_a_refusal_of_what_was_sent_after_the_cut_cuts_again() -> None:
    window = Window(size=64, ceiling=1000).refused(sent_at_s=5.0, now_s=6.0).refused(sent_at_s=6.5, now_s=7.0)
    assert window.room == 16


def test_the_window_never_closes() -> None:
    window = Window.auto()
    for second in range(40):
        window = window.refused(sent_at_s=second, now_s=second)
    assert window.room == 1


@given(st.integers(1, 10_000), st.lists(st.booleans(), max_size=50))
def test_a_window_that_the_user_set_never_moves(size: int, answers: list[bool]) -> None:
    window = Window.fixed_at(size)
    for second, accepted in enumerate(answers):
        window = window.accepted() if accepted else window.refused(sent_at_s=second, now_s=second)
    assert window == Window.fixed_at(size)
    assert window.room == size


@given(st.lists(st.booleans(), max_size=300))
def test_the_window_stays_between_one_and_its_ceiling(answers: list[bool]) -> None:
    window = Window(size=8, ceiling=40)
    for second, accepted in enumerate(answers):
        before = window
        window = window.accepted() if accepted else window.refused(sent_at_s=second, now_s=second)
        assert 1 <= window.room <= 40
        assert window.size >= before.size if accepted else window.size <= before.size


def test_a_cool_down_counts_an_episode_once() -> None:
    pause = CoolDown().refused(sent_at_s=1.0, now_s=2.0)
    assert pause.refusals == 1
    assert pause.refused(sent_at_s=1.5, now_s=2.1).refusals == 1
    assert pause.refused(sent_at_s=2.5, now_s=3.0).refusals == 2


def test_an_acceptance_of_what_was_sent_before_the_refusal_does_not_end_the_episode() -> None:
    pause = CoolDown().refused(sent_at_s=1.0, now_s=2.0)
    assert pause.accepted(sent_at_s=1.9).refusals == 1
    assert pause.accepted(sent_at_s=2.1).refusals == 0


@given(st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=20))
def test_a_longer_pause_is_never_shortened(ends_s: list[float]) -> None:
    pause = CoolDown()
    for end_s in ends_s:
        pause = pause.until(end_s)
    assert pause.opens_at_s == max(ends_s)
    assert pause.wait_s(0.0) == max(ends_s)
    assert pause.wait_s(max(ends_s)) == 0.0


def test_a_fresh_cool_down_is_open() -> None:
    assert CoolDown().wait_s(0.0) == 0.0


def test_the_rate_spaces_slots_evenly() -> None:
    rate = Rate(4.0)
    waits = []
    for _ in range(4):
        rate, wait_s = rate.take(10.0)
        waits.append(wait_s)
    assert waits == pytest.approx([0.0, 0.25, 0.5, 0.75])


def test_unused_slots_are_not_saved_up() -> None:
    rate, _ = Rate(4.0).take(0.0)
    waits = []
    for _ in range(3):
        rate, wait_s = rate.take(100.0)
        waits.append(wait_s)
    assert waits == pytest.approx([0.0, 0.25, 0.5])


@given(
    st.floats(min_value=0.1, max_value=1000),
    st.lists(st.floats(min_value=0, max_value=5), min_size=2, max_size=60),
)
def test_two_slots_are_never_closer_than_the_rate_allows(per_s: float, gaps_s: list[float]) -> None:
    rate = Rate(per_s)
    now_s = 0.0
    slots = []
    for gap_s in gaps_s:
        now_s += gap_s
        rate, wait_s = rate.take(now_s)
        assert wait_s >= 0
        slots.append(now_s + wait_s)
    assert all(later - earlier >= 1 / per_s - 1e-9 for earlier, later in itertools.pairwise(slots))


def test_a_small_batch_may_always_retry_a_little() -> None:
    budget = RetryBudget(ratio=0.001)
    granted = 0
    while budget.has_room:
        budget = budget.after_retry()
        granted += 1
    assert granted == RETRY_FLOOR


def test_a_ratio_of_nothing_allows_nothing() -> None:
    assert not RetryBudget(ratio=0.0).has_room
    assert not RetryBudget(ratio=0.0, submitted=10_000).has_room


@given(st.floats(min_value=0, max_value=1), st.lists(st.booleans(), max_size=200))
def test_retries_stay_within_the_floor_and_a_share_of_what_was_submitted(ratio: float, steps: list[bool]) -> None:
    budget = RetryBudget(ratio)
    for is_submit in steps:
        if is_submit:
            budget = budget.after_submit()
        elif budget.has_room:
            budget = budget.after_retry()
    assert budget.submitted == sum(steps)
    assert budget.retried < RETRY_FLOOR + ratio * budget.submitted + 1
