"""A hundred kills at random moments and places. As many as you like: `python -m tests.faults --kills 10000`."""

from __future__ import annotations

import pytest

from tests.faults.rounds import Tally, play

KILLS = 25
"""In each of four tests, which share the processors."""


@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", range(4))
def test_batches_survive_kills_at_random_moments(part: int) -> None:
    tally = Tally()
    while tally.kills < KILLS:
        tally.add(play(f"20261121:{part}:{tally.rounds}", kills=KILLS - tally.kills))
    assert tally.executions >= tally.jobs
