"""Waking: who waits for a change looks again; who waits for a place is woken only when there is one."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falbatch.engine.bell import Bell, Places
from tests.engine.fakes import VirtualLoop

pytestmark = pytest.mark.anyio


async def test_a_bell_wakes_all_who_wait_and_none_who_come_later() -> None:
    bell = Bell()
    bell.ring()
    woken: list[int] = []

    async def wait(number: int) -> None:
        await bell.wait()
        woken.append(number)

    async with anyio.create_task_group() as group:
        group.start_soon(wait, 1)
        group.start_soon(wait, 2)
        await anyio.sleep(1)
        assert (woken, bell.is_awaited) == ([], True)
        bell.ring()
        await anyio.sleep(1)
        assert (sorted(woken), bell.is_awaited) == ([1, 2], False)
        group.start_soon(wait, 3)
        await anyio.sleep(1)
        assert 3 not in woken
        group.cancel_scope.cancel()


async def test_places_go_in_the_order_of_the_line_and_wake_nobody_else() -> None:
    places = Places()
    come: list[int] = []

    async def take(number: int) -> None:
        await places.take(1)
        come.append(number)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(take, number)
            await anyio.sleep(0.1)
        assert come == [0]
        places.taken -= 1
        places.admit(3)
        await anyio.sleep(0.1)
        assert (come, places.taken) == ([0, 1, 2, 3], 3)
        places.dismiss()
    assert come == [0, 1, 2, 3, 4]


async def test_a_place_given_to_one_that_is_cancelled_goes_to_the_next() -> None:
    places = Places()
    await places.take(1)
    scope = anyio.CancelScope()

    async def cancelled() -> None:
        with scope:
            await places.take(1)

    come = False

    async def other() -> None:
        nonlocal come
        await places.take(1)
        come = True

    async with anyio.create_task_group() as group:
        group.start_soon(cancelled)
        await anyio.sleep(0.1)
        group.start_soon(other)
        await anyio.sleep(0.1)
        scope.cancel()
        places.taken -= 1
        places.admit(1)  # the first in line has its place already, and will not use it
        await anyio.sleep(0.1)
        assert come, "without anybody's word"
        assert places.taken == 1


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.booleans()), min_size=1, max_size=40))
def test_no_place_is_lost_and_none_given_twice(uses: list[tuple[int, int, bool]]) -> None:
    """Some leave while they wait; the rest all come."""
    places = Places()
    most = 3
    inside = 0
    came = 0

    async def use(hold_s: int, patience_s: int, is_patient: bool) -> None:
        nonlocal inside, came
        with anyio.move_on_after(1e6 if is_patient else patience_s):
            await places.take(most)
            try:
                inside += 1
                came += 1
                assert inside <= most
                await anyio.sleep(hold_s)
            finally:
                inside -= 1
                places.taken -= 1
                places.admit(most)

    async def run() -> None:
        async with anyio.create_task_group() as group:
            for one in uses:
                group.start_soon(use, *one)

    anyio.run(run, backend_options={"loop_factory": VirtualLoop})
    assert places.taken == 0
    assert came >= sum(is_patient for _, _, is_patient in uses)
