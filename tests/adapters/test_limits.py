"""When a download is too slow to be waited for, and how much of an unannounced body is taken."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.adapters.limits import GIBIBYTE, MEBIBYTE, FetchLimits, Pace

LIMITS = FetchLimits(slowest_bytes_per_s=100.0, slow_for_s=10.0)


def _given_up_at(*chunks: tuple[float, int], limits: FetchLimits = LIMITS) -> float | None:
    """When a body whose chunks come as (second, bytes) is given up."""
    pace = Pace(limits, 0.0)
    return next((at for at, count in chunks if pace.too_slow(count, at) is not None), None)


def _steady(speed: int, *, begin: int = 0, seconds: int = 100) -> list[tuple[float, int]]:
    """A chunk a second."""
    return [(float(begin + second), speed) for second in range(1, seconds + 1)]


@pytest.mark.parametrize(
    ("chunks", "given_up_at"),
    [
        pytest.param(_steady(100), None, id="just fast enough"),
        pytest.param(_steady(99), 10.0, id="a little too slow"),
        pytest.param([(5.0, 1), (9.9, 1)], None, id="slow for less than a stretch"),
        pytest.param([(0.5, 1_000_000), *_steady(1, begin=1)], 11.0, id="a burst counts in its own stretch only"),
        pytest.param([*_steady(1000, seconds=50), *_steady(1, begin=50)], 60.0, id="it becomes slow"),
        pytest.param([*_steady(1, seconds=9), (9.5, 5_000), *_steady(200, begin=10)], None, id="it becomes fast"),
        pytest.param([*_steady(500, seconds=5), *_steady(500, begin=3600)], None, id="the machine was asleep"),
        pytest.param([*_steady(500, seconds=5), *_steady(1, begin=3600)], 3611.0, id="asleep, and slow after it"),
        pytest.param([(55.0, 1), (110.0, 1)], 110.0, id="one byte a minute"),
        pytest.param([(9.0, 1), (18.0, 1)], 18.0, id="gaps that are all shorter than a stretch"),
        pytest.param([], None, id="nothing comes"),
    ],
)
def test_a_body_is_given_up_when_a_whole_stretch_of_it_was_too_slow(
    chunks: list[tuple[float, int]], given_up_at: float | None
) -> None:
    assert _given_up_at(*chunks) == given_up_at


def test_the_speed_that_is_told_is_that_of_the_slow_stretch() -> None:
    pace = Pace(LIMITS, 0.0)
    speeds = [pace.too_slow(count, at) for at, count in [(1.0, 1_000_000), *_steady(50, begin=1, seconds=10)]]
    assert speeds[:-1] == [None] * 10
    assert speeds[-1] == 50.0


_chunks = st.lists(st.tuples(st.floats(0.01, 9.0), st.integers(0, 3_000)), min_size=1, max_size=60)
"""Seconds since the chunk before, bytes."""


@given(_chunks)
def test_what_is_given_up_had_a_slow_stretch(chunks: list[tuple[float, int]]) -> None:
    times = list(accumulate(gap for gap, _ in chunks))
    totals = [0, *accumulate(count for _, count in chunks)]
    at = _given_up_at(*((time, count) for time, (_, count) in zip(times, chunks, strict=True)))
    if at is None:
        return
    end = times.index(at)
    begins = [0.0, *times]
    assert any(
        totals[end + 1] - totals[begin] < LIMITS.slowest_bytes_per_s * (at - begins[begin])
        for begin in range(end + 1)
        if at - begins[begin] >= LIMITS.slow_for_s
    )


@given(_chunks)
def test_what_is_always_slow_is_given_up_after_a_stretch(chunks: list[tuple[float, int]]) -> None:
    slow = [(gap, count % max(1, int(gap * LIMITS.slowest_bytes_per_s))) for gap, count in chunks]
    times = list(accumulate(gap for gap, _ in slow))
    late = [time for time in times if time >= LIMITS.slow_for_s]
    at = _given_up_at(*((time, count) for time, (_, count) in zip(times, slow, strict=True)))
    assert at == (late[0] if late else None)


@pytest.mark.parametrize(
    ("claimed", "most"),
    [
        (None, 2 * GIBIBYTE),
        (0, MEBIBYTE),
        (10, MEBIBYTE + 20),
        (100 * MEBIBYTE, 201 * MEBIBYTE),
        (100 * GIBIBYTE, 2 * GIBIBYTE),
    ],
)
def test_of_a_body_without_a_length_so_much_is_taken(claimed: int | None, most: int) -> None:
    assert FetchLimits().unannounced_most(claimed) == most
