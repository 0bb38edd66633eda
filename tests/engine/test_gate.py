"""The submit gate: room in the window, turns in time, and closed for good when it is closed."""

from __future__ import annotations

import anyio
import pytest

from falbatch.core.backoff import BackoffPolicy
from falbatch.core.pacing import Rate, RetryBudget, Window
from falbatch.engine.gate import GateClosed, SubmitGate
from falbatch.errors import CredentialsError, LimitReached
from tests.engine.fakes import FakeClock

pytestmark = pytest.mark.anyio


def gate(window: Window | None = None, per_s: float = 1000.0) -> SubmitGate:
    return SubmitGate(
        FakeClock(),
        window=window or Window.fixed_at(2),
        rate=Rate(per_s),
        backoff=BackoffPolicy(1.0, 60.0),
        budget=RetryBudget(0.2),
    )


async def test_a_slot_is_waited_for_until_one_is_given_back() -> None:
    one = gate()
    assert await one.slot()
    assert await one.slot()
    with anyio.move_on_after(10) as waiting:
        await one.slot()
    assert waiting.cancelled_caught
    one.give_back()
    assert await one.slot()
    assert one.in_flight == 2


async def test_a_request_that_is_at_fal_takes_its_slot_whether_there_is_room_or_not() -> None:
    one = gate(Window.fixed_at(1))
    one.take_slot()
    one.take_slot()
    assert one.in_flight == 2
    one.give_back()
    with anyio.move_on_after(1) as waiting:
        await one.slot()
    assert waiting.cancelled_caught


async def test_a_window_that_grows_lets_waiters_in() -> None:
    one = gate(Window(size=1, ceiling=10))
    assert await one.slot()
    async with anyio.create_task_group() as group:
        group.start_soon(one.slot)
        await anyio.sleep(1)
        assert one.in_flight == 1
        one.accepted(0.0)
    assert one.in_flight == 2


async def test_closing_wakes_who_waits_for_a_slot_and_the_first_reason_stays() -> None:
    one = gate(Window.fixed_at(1))
    await one.slot()
    answers: list[bool] = []

    async def wait() -> None:
        answers.append(await one.slot())

    first = LimitReached("enough")
    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.sleep(1)
        one.close(first)
        one.close(CredentialsError("later"))
    assert answers == [False]
    assert one.closed_by is first
    with pytest.raises(GateClosed):
        await one.turn()


async def test_a_turn_that_was_waited_for_is_lost_when_the_gate_closes() -> None:
    one = gate(per_s=0.1)
    await one.turn()
    async with anyio.create_task_group() as group:

        async def second() -> None:
            with pytest.raises(GateClosed):
                await one.turn()

        group.start_soon(second)
        await anyio.sleep(1)
        one.close(LimitReached("enough"))


async def test_refusals_in_a_row_wait_longer_and_an_acceptance_starts_again() -> None:
    one = gate()
    pauses = []
    for _ in range(4):
        await anyio.sleep(100)
        pauses.append(one.refused(anyio.current_time(), None))
        await anyio.sleep(0.001)
    assert pauses == pytest.approx([0.5, 1.0, 2.0, 4.0])
    await anyio.sleep(100)
    one.accepted(anyio.current_time())
    await anyio.sleep(1)
    assert one.refused(anyio.current_time(), None) == pytest.approx(0.5)


async def test_a_second_refusal_of_an_episode_lengthens_the_pause_only_if_fal_says_so() -> None:
    one = gate()
    await anyio.sleep(1)
    assert one.refused(0.9, None) == pytest.approx(0.5)
    assert one.refused(0.95, None) == pytest.approx(0.5)
    assert one.refused(0.95, 20.0) == pytest.approx(20.5)
    assert one.refused(0.95, 3.0) == pytest.approx(20.5)
    assert one.cool_down.refusals == 1


async def test_what_did_not_reach_fal_pauses_without_cutting_the_window() -> None:
    one = gate(Window(size=64, ceiling=100))
    await anyio.sleep(1)
    assert one.unreached(0.5) == pytest.approx(0.5)
    assert one.window.room == 64
    one.refused(0.9, None)
    assert one.window.room == 32
