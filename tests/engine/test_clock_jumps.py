"""The wall clock may jump: somebody sets it, a time server does, a laptop wakes up. Nothing waits by it."""

from __future__ import annotations

import random

import anyio
import pytest

from falbatch.core.state import State
from tests.engine.fakes import UNIX_AT_START
from tests.engine.runs import Run, at_fal, settings_with, swallowing

pytestmark = pytest.mark.anyio

DAY_S = 86_400.0


def jumping(run: Run, *, most_s: float) -> None:
    """From now on each look at the wall clock shows another time, up to `most_s` seconds off in either direction."""
    chance = random.Random(7)
    run.clock.unix_s = lambda: UNIX_AT_START + chance.uniform(-most_s, most_s)  # type: ignore[method-assign]  # one clock only


@pytest.mark.parametrize("most_s", [3600.0, DAY_S, 400 * DAY_S])
async def test_a_run_takes_as_long_and_ends_as_well_whatever_the_wall_clock_does(most_s: float) -> None:
    seconds: list[float] = []
    for is_jumping in (False, True):
        run = Run(20, paid=(at_fal(21), at_fal(22)))
        if is_jumping:
            jumping(run, most_s=most_s)
        began = anyio.current_time()
        assert await run.run() is None
        seconds.append(anyio.current_time() - began)
        assert run.store.states() == [State.DONE] * 22
        assert len(run.queue.submits) == 20
    steady_s, jumping_s = seconds
    # A request of an earlier run has an age by the wall clock only: how soon it is asked about again may differ, and
    # the longest pause between two questions bounds by how much.
    assert jumping_s <= steady_s + 30.0


async def test_a_lost_submit_is_found_when_the_clock_is_set_by_minutes_in_between() -> None:
    run = Run(3, settings=settings_with(reconcile_s=30.0))
    swallowing(run, "lost-1", after_s=3.0)
    jumping(run, most_s=240.0)
    assert await run.run() is None
    assert run.store.states() == [State.DONE] * 3
    assert len(run.queue.submits) == 3
