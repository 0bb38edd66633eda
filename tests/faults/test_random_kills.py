"""A hundred kills at random moments and places. As many as you like: `python -m tests.faults --kills 10000`."""

from __future__ import annotations

import pytest

from tests.faults.rounds import KILLS_MOST, play

ROUNDS = 10
KILLS = 10


@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_batches_survive_kills_at_random_moments(number: int) -> None:
    tally = play(f"20261121:{number}", kills=KILLS)
    assert tally.kills == KILLS <= KILLS_MOST
    assert tally.executions >= tally.jobs
