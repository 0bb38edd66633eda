"""where, then sample, then limit; the order is kept."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.choose import choose
from falbatch.core.rows import Sample


def test_where_comes_before_sample_and_sample_before_limit() -> None:
    even = list(choose(range(1000), where=lambda n: n % 2 == 0, sample=Sample(10, 7)))
    assert len(even) == 10
    assert all(n % 2 == 0 for n in even)
    assert list(choose(range(1000), where=lambda n: n % 2 == 0, sample=Sample(10, 7), limit=3)) == even[:3]


def test_nothing_is_read_beyond_the_limit() -> None:
    endless = itertools.count()
    assert list(choose(endless, limit=3)) == [0, 1, 2]
    assert next(endless) == 3


def test_another_seed_chooses_others() -> None:
    assert list(choose(range(1000), sample=Sample(10, 1))) != list(choose(range(1000), sample=Sample(10, 2)))


@given(st.integers(0, 200), st.integers(1, 50), st.integers())
def test_a_sample_is_repeatable_in_order_and_of_the_right_size(size: int, n: int, seed: int) -> None:
    first = list(choose(range(size), sample=Sample(n, seed)))
    assert first == list(choose(range(size), sample=Sample(n, seed)))
    assert first == sorted(set(first))
    assert len(first) == min(n, size)
    assert set(first) <= set(range(size))


def test_every_thing_is_about_equally_likely() -> None:
    counts = [0] * 10
    for seed in range(1000):
        for n in choose(range(10), sample=Sample(3, seed)):
            counts[n] += 1
    assert all(230 < count < 370 for count in counts)
