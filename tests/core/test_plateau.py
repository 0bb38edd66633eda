"""The window's size from single observations: what proves more, what proves less, and what proves nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.flow import EARLY_UNKNOWN_S
from falbatch.core.plateau import AHEAD_LEAST, LOOK_EVERY, LOOK_S, SLOW_START_SIZE, Observation, Plateau


def accept(plateau: Plateau, *numbers: int, endpoint: str = "x") -> list[float | None]:
    return [plateau.seen(Observation(f"{endpoint}{number}", endpoint, "")) for number in numbers]


def see(plateau: Plateau, number: int, phase: str, age_s: float, endpoint: str = "x") -> float | None:
    return plateau.seen(Observation(f"{endpoint}{number}", endpoint, phase, age_s))


def end(plateau: Plateau, number: int, age_s: float, inference_s: float | None, endpoint: str = "x") -> None:
    plateau.seen(Observation(f"{endpoint}{number}", endpoint, "COMPLETED", age_s, inference_s))


def test_it_starts_small() -> None:
    plateau = Plateau()
    accept(plateau, *range(SLOW_START_SIZE))
    assert plateau.size == SLOW_START_SIZE
    assert plateau.is_starting("x")


def test_one_that_is_at_work_at_once_vouches_for_all_that_came_before() -> None:
    plateau = Plateau()
    accept(plateau, *range(1, 101))
    see(plateau, 100, "IN_PROGRESS", 0.3)
    assert plateau.size == 100 + 50
    assert plateau.running == 100
    see(plateau, 40, "IN_PROGRESS", 0.3)
    assert plateau.size == 100 + 50


def test_one_that_is_at_work_late_or_in_the_queue_vouches_for_nobody() -> None:
    plateau = Plateau()
    accept(plateau, *range(1, 17))
    see(plateau, 16, "IN_QUEUE", 1.0)
    see(plateau, 15, "IN_PROGRESS", EARLY_UNKNOWN_S + 0.1)
    assert plateau.size == SLOW_START_SIZE


def test_what_waits_is_counted_by_littles_law() -> None:
    """60 at fal, each there for 15 s, 10 of them at work: 40 run, 20 wait."""
    plateau = Plateau()
    accept(plateau, *range(60))
    for number in range(400):
        see(plateau, number, "IN_QUEUE", 4.9)
        see(plateau, number, "IN_PROGRESS", 5.1)
        end(plateau, number, 15.0, 10.0)
        accept(plateau, number + 60)
    assert plateau.running == pytest.approx(40, abs=1)
    assert plateau.size == pytest.approx(60, abs=1)


def test_who_is_never_seen_waiting_is_judged_by_the_time_of_work() -> None:
    plateau = Plateau()
    accept(plateau, *range(60))
    for number in range(400):
        see(plateau, number, "IN_PROGRESS", 14.5)  # it began at 5 s, which nobody saw
        end(plateau, number, 15.5, 10.0)
        accept(plateau, number + 60)
    assert plateau.running == pytest.approx(40, abs=2)


def test_submits_on_their_way_have_room_of_their_own() -> None:
    plateau = Plateau()
    accept(plateau, *range(1, 41))
    for number in range(1, 41):
        see(plateau, number, "IN_PROGRESS", 0.05)
    for number in range(1, 41):
        end(plateau, number, 0.5, 0.5)
        accept(plateau, number + 40)
    before = plateau.size
    plateau.answered(0.25)
    assert plateau.size - before == pytest.approx(40, abs=4), "80 a second, and half a second to and fro"


def test_failures_and_the_times_of_earlier_runs_requests_teach_nothing() -> None:
    plateau = Plateau()
    for number in range(20):
        plateau.seen(Observation(f"old{number}", "x", "", is_ours=False))
        plateau.seen(Observation(f"old{number}", "x", "IN_PROGRESS", 0.3))
    for number in range(20):
        plateau.seen(Observation(f"old{number}", "x", "COMPLETED", 1.0, 0.9))
    accept(plateau, *range(20))
    for number in range(20):
        plateau.seen(Observation(f"x{number}", "x", "COMPLETED", 0.4, None, is_failed=True))
    assert plateau.is_starting("x")
    assert plateau.at_fal == 0


def test_requests_of_earlier_runs_that_are_at_work_are_what_fal_runs_at_least() -> None:
    plateau = Plateau()
    for number in range(200):
        plateau.seen(Observation(f"old{number}", "x", "", is_ours=False))
    assert plateau.size == SLOW_START_SIZE
    for number in range(200):
        plateau.seen(Observation(f"old{number}", "x", "IN_PROGRESS", 50.0, is_ours=False))
    assert (plateau.running, plateau.size) == (200, 300)
    plateau.left("old0")
    plateau.seen(Observation("old1", "x", "IN_QUEUE", 60.0, is_ours=False))
    plateau.seen(Observation("old2", "x", "COMPLETED", 60.0, 5.0, is_ours=False))
    assert plateau.running == 197
    for number in range(200):
        plateau.left(f"old{number}")
    assert plateau.size == SLOW_START_SIZE


def test_fals_calls_teach_although_they_tell_no_time_of_work() -> None:
    """One was asked about; the others end by fal's call."""
    plateau = Plateau()
    accept(plateau, *range(16))
    end(plateau, 0, 20.0, 19.5)
    for number in range(1, 400):
        while plateau.at_fal < int(plateau.size):
            accept(plateau, 16 + number * 1000 + plateau.at_fal)
        plateau.seen(Observation(next(iter(plateau._stays)), "x", "COMPLETED", 20.0))
    assert plateau.size > 150


def test_a_request_that_fal_began_anew_teaches_nothing() -> None:
    plateau = Plateau()
    accept(plateau, 1)
    see(plateau, 1, "IN_PROGRESS", 5.0)
    see(plateau, 1, "IN_QUEUE", 6.0)
    end(plateau, 1, 60.0, 1.0)
    assert plateau.is_starting("x")


def test_the_first_one_is_looked_at_early_then_one_at_each_step_of_the_ramp() -> None:
    plateau = Plateau()
    looks = accept(plateau, *range(1, 31))
    assert [number for number, look_s in enumerate(looks, start=1) if look_s] == [
        1,
        2,
        3,
        4,
        5,
        7,
        9,
        12,
        15,
        19,
        24,
        30,
    ]
    assert set(looks) == {None, LOOK_S}


def test_one_that_waits_is_looked_at_again_while_it_would_still_tell() -> None:
    plateau = Plateau()
    assert accept(plateau, 1) == [LOOK_S]
    assert see(plateau, 1, "IN_QUEUE", 0.3) == 0.3
    assert see(plateau, 1, "IN_QUEUE", 0.6) == 0.6
    assert see(plateau, 1, "IN_QUEUE", EARLY_UNKNOWN_S + 1) is None


def test_where_things_wait_few_are_looked_at_and_none_where_work_is_short() -> None:
    for work_s, looks in ((10.0, 400 // LOOK_EVERY), (1.0, 0)):
        plateau = Plateau()
        accept(plateau, *range(60))
        found: list[float | None] = []
        for number in range(400):
            see(plateau, number, "IN_QUEUE", work_s)
            end(plateau, number, 2 * work_s, work_s)
            found += accept(plateau, number + 60)
            if found[-1] is not None:
                see(plateau, number + 60, "IN_QUEUE", work_s / 2)  # that told: it waits
        assert sum(look_s is not None for look_s in found) == pytest.approx(looks, rel=0.2)


def test_who_waits_for_runners_of_its_own_does_not_count_as_the_common_line() -> None:
    plateau = Plateau()
    accept(plateau, *range(40), endpoint="hot")
    accept(plateau, *range(40), endpoint="cool")
    for number in range(200):
        for endpoint, wait_s in (("hot", 50.0), ("cool", 0.2)):
            see(plateau, number, "IN_PROGRESS", wait_s, endpoint)
            end(plateau, number, wait_s + 10, 10.0, endpoint)
            accept(plateau, number + 40, endpoint=endpoint)
    assert plateau.size >= 40 + 40 + AHEAD_LEAST


def test_an_endpoint_that_is_over_leaves_its_room() -> None:
    plateau = Plateau()
    accept(plateau, *range(1, 41), endpoint="a")
    accept(plateau, 1, endpoint="b")
    see(plateau, 40, "IN_PROGRESS", 0.3, "a")
    see(plateau, 1, "IN_PROGRESS", 0.3, "b")
    before = plateau.size
    plateau.over("a")
    assert plateau.size == before
    for number in range(1, 41):
        end(plateau, number, 5.0, 5.0, "a")
    assert plateau.size == 1 + AHEAD_LEAST
    assert not plateau.is_starting("b")


_EVENTS = st.tuples(
    st.integers(0, 12),
    st.sampled_from(["", "IN_QUEUE", "IN_PROGRESS", "COMPLETED", "ODD", "left"]),
    st.floats(0, 1e6),
    st.one_of(st.none(), st.floats(0, 1e6)),
    st.booleans(),
)


@given(st.lists(_EVENTS, max_size=120))
def test_whatever_fal_says_the_size_is_a_number_above_the_first_and_nothing_stays_behind(
    events: list[tuple[int, str, float, float | None, bool]],
) -> None:
    plateau = Plateau()
    for number, phase, age_s, inference_s, flag in events:
        name = f"r{number}"
        if phase == "left":
            plateau.left(name)
        else:
            look_s = plateau.seen(Observation(name, f"e{number % 3}", phase, age_s, inference_s, flag, not flag))
            assert look_s is None or look_s > 0
        assert SLOW_START_SIZE <= plateau.size < float("inf")
        assert 0 <= plateau.running < float("inf")
    for number in range(13):
        plateau.left(f"r{number}")
    assert plateau.at_fal == 0
