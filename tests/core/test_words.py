"""Numbers as people read them."""

from __future__ import annotations

import pytest

from falbatch.core.words import in_time


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (75, "1 min 15 s"), (7322, "2 h 2 min")]
)
def test_a_length_of_time_is_said_in_two_parts_at_most(seconds: float, said: str) -> None:
    assert in_time(seconds) == said
