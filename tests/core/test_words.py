"""Numbers as people read them."""

from __future__ import annotations

import pytest

from falbatch.core.words import counted, in_time


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (75, "1 min 15 s"), (7322, "2 h 2 min")]
)
def test_a_length_of_time_is_said_in_two_parts_at_most(seconds: float, said: str) -> None:
    assert in_time(seconds) == said


@pytest.mark.parametrize(("count", "said"), [(0, "0 jobs"), (1, "1 job"), (2000, "2,000 jobs")])
def test_one_is_one(count: int, said: str) -> None:
    assert counted(count, "job") == said
