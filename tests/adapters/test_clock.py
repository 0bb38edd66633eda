"""The real clocks: one for waits, one for records, and chance."""

from __future__ import annotations

import time

import anyio
import pytest

from falbatch.adapters.clock import SystemClock

pytestmark = pytest.mark.anyio


async def test_the_two_clocks_are_the_machines() -> None:
    clock = SystemClock()
    assert time.monotonic() <= clock.now_s() <= time.monotonic()
    assert abs(clock.unix_s() - time.time()) < 5


async def test_sleeping_takes_at_least_as_long_as_asked() -> None:
    clock = SystemClock()
    began = clock.now_s()
    await clock.sleep(0.02)
    assert clock.now_s() - began >= 0.02


async def test_a_cancelled_sleeper_wakes_at_once() -> None:
    with anyio.move_on_after(0.01) as scope:
        await SystemClock().sleep(3600)
    assert scope.cancelled_caught


async def test_jitter_is_spread_over_nought_to_one() -> None:
    clock = SystemClock()
    draws = [clock.jitter() for _ in range(200)]
    assert all(0 <= draw < 1 for draw in draws)
    assert min(draws) < 0.3
    assert max(draws) > 0.7
