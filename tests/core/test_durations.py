"""What is learned from two questions, when it is believed, and how it is remembered."""

from __future__ import annotations

import pytest

from falbatch.core.durations import ENOUGH, MEMORY, REMEMBERED, Durations, learned_s


def durations(*seen_s: float) -> Durations:
    history = Durations()
    for duration_s in seen_s:
        history.add(duration_s)
    return history


def test_too_few_durations_are_not_believed() -> None:
    few = durations(*[1.0] * (ENOUGH - 1))
    assert few.edges() is None
    assert few.believed() is None
    assert few.profile() is not None
    few.add(1.0)
    assert few.edges() == pytest.approx((1.0, 1.0), rel=0.011)


def test_nothing_seen_has_no_profile() -> None:
    assert Durations().profile() is None


def test_the_edges_are_the_10th_and_90th_percentile() -> None:
    assert durations(*range(1, 102)).edges() == pytest.approx((11, 91), rel=0.1)


def test_a_single_outlier_does_not_move_the_edges() -> None:
    assert durations(*[5.0] * 40, 500.0).edges() == pytest.approx((5.0, 5.0), rel=0.011)


def test_the_history_follows_a_drift() -> None:
    history = durations(*[10.0] * int(MEMORY))
    for _ in range(3 * int(MEMORY)):
        history.add(2.0)
    assert history.edges() == pytest.approx((2.0, 2.0), rel=0.011)


def test_many_at_once_are_remembered_as_long_as_they_take_to_end() -> None:
    """They end in order: the latest 256 alone would say that all take as long as the slowest."""
    history = Durations()
    for number in range(10_000):
        history.add(10.0 + number / 100, at_once=10_000)
    together, one_by_one = history.edges(), durations(*(10.0 + number / 100 for number in range(10_000))).edges()
    assert together is not None
    assert one_by_one is not None
    assert together[0] < 40.0
    assert one_by_one[0] > 100.0


def test_what_another_run_learned_is_believed_and_outvoted_soon() -> None:
    old = durations(*[10.0] * 500)
    new = Durations.remembered(old.sketch.to_bytes())
    assert new.edges() == old.edges()
    assert new.sketch.weight == pytest.approx(REMEMBERED)
    for _ in range(400):
        new.add(2.0)
    assert new.edges() == pytest.approx((2.0, 2.0), rel=0.011)


def test_what_is_no_sketch_is_refused() -> None:
    with pytest.raises(ValueError, match="sketch"):
        Durations.remembered(b"something else")


@pytest.mark.parametrize(
    ("not_yet_s", "done_s", "due_s", "worked_s", "expected_s"),
    [
        (0.0, 0.25, None, None, 0.125),
        (2.0, 3.0, None, None, 2.5),
        (10.7, 11.7, 10.7, None, 11.2),
        (0.0, 10.7, 10.7, None, 9.7),  # done when first asked: a step earlier
        (0.0, 11.0, 10.7, None, 9.7),  # asked a little late: not held against the model
        (0.0, 30.0, 10.7, None, None),  # asked very late: tells nothing
        (25.0, 30.0, 10.7, None, 27.5),
        (10.7, 11.7, 10.7, 11.0, 11.0),  # fal's word, between the two
        (10.7, 11.7, 10.7, 3.0, 11.2),  # much of the time was no work
        (10.7, 11.7, 10.7, 50.0, 11.7),  # a word that cannot be
        (0.0, 10.7, 10.7, 10.5, 10.5),
        (0.0, 10.7, 10.7, 2.0, 9.7),
        (0.0, 30.0, 10.7, 12.0, 12.0),
    ],
)
def test_what_is_learned_from_two_questions(
    not_yet_s: float, done_s: float, due_s: float | None, worked_s: float | None, expected_s: float | None
) -> None:
    learned = learned_s(not_yet_s, done_s, due_s=due_s, step_s=1.0, worked_s=worked_s)
    assert learned == (None if expected_s is None else pytest.approx(expected_s))


def test_a_steady_model_is_pulled_by_a_share_of_its_age() -> None:
    assert learned_s(0.0, 10.0, due_s=10.0, step_s=0.1) == pytest.approx(9.4)
