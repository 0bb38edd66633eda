"""The submit gate: room in the window, turns in time, and closed for good when it is closed."""

from __future__ import annotations

import anyio
import pytest

from falbatch.core.backoff import BackoffPolicy
from falbatch.core.pacing import Rate, RetryBudget, Window
from falbatch.core.plateau import SLOW_START_SIZE, Observation, Plateau
from falbatch.engine.gate import GateClosed, SubmitGate
from falbatch.errors import CredentialsError, LimitReached
from tests.engine.fakes import FakeClock

pytestmark = pytest.mark.anyio


def gate(window: Window | None = None, per_s: float = 1000.0, plateau: Plateau | None = None) -> SubmitGate:
    return SubmitGate(
        FakeClock(),
        window=window or Window.fixed_at(2),
        rate=Rate(per_s),
        backoff=BackoffPolicy(1.0, 60.0),
        budget=RetryBudget(0.2),
        plateau=plateau,
    )


def x() -> str:
    """Every slot goes to the same endpoint."""
    return "fal-ai/x"


async def test_a_slot_is_waited_for_until_one_is_given_back() -> None:
    one = gate()
    assert await one.slot(x) == "fal-ai/x"
    assert await one.slot(x) == "fal-ai/x"
    with anyio.move_on_after(10) as waiting:
        await one.slot(x)
    assert waiting.cancelled_caught
    one.give_back("fal-ai/x")
    assert await one.slot(x) == "fal-ai/x"
    assert one.in_flight == 2


async def test_who_chooses_is_asked_again_at_each_change_and_counts_by_endpoint() -> None:
    one = gate()
    chosen: list[str | None] = [None, "b"]
    one.take_slot("a")
    async with anyio.create_task_group() as group:
        group.start_soon(one.slot, lambda: chosen.pop(0))
        await anyio.sleep(1)
        assert (one.in_flight, chosen) == (1, ["b"])
        one.give_back("a")
    assert (one.slots_of("a"), one.slots_of("b"), one.in_flight) == (0, 1, 1)


async def test_a_request_that_is_at_fal_takes_its_slot_whether_there_is_room_or_not() -> None:
    one = gate(Window.fixed_at(1))
    one.take_slot(x())
    one.take_slot(x())
    assert one.in_flight == 2
    one.give_back(x())
    with anyio.move_on_after(1) as waiting:
        await one.slot(x)
    assert waiting.cancelled_caught


async def test_a_window_that_grows_lets_waiters_in() -> None:
    one = gate(Window(size=1, ceiling=10))
    assert await one.slot(x)
    async with anyio.create_task_group() as group:
        group.start_soon(one.slot, x)
        await anyio.sleep(1)
        assert one.in_flight == 1
        one.accepted(0.0)
    assert one.in_flight == 2


async def test_closing_wakes_who_waits_for_a_slot_and_the_first_reason_stays() -> None:
    one = gate(Window.fixed_at(1))
    await one.slot(x)
    answers: list[str | None] = []

    async def wait() -> None:
        answers.append(await one.slot(x))

    first = LimitReached("enough")
    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.sleep(1)
        one.close(first)
        one.close(CredentialsError("later"))
    assert answers == [None]
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


def begun(one: SubmitGate, *numbers: int, endpoint: str = "fal-ai/x") -> None:
    """Requests that fal accepted, each with a slot."""
    for number in numbers:
        one.take_slot(endpoint)
        one.observe(Observation(f"r{number}", endpoint, ""))


async def test_what_is_seen_at_work_opens_the_window_and_wakes_who_waits() -> None:
    one = gate(Window(size=1000, ceiling=1000), plateau=Plateau())
    begun(one, *range(SLOW_START_SIZE))
    async with anyio.create_task_group() as group:
        group.start_soon(one.slot, x)
        await anyio.sleep(1)
        assert one.in_flight == SLOW_START_SIZE
        one.observe(Observation(f"r{SLOW_START_SIZE - 1}", "fal-ai/x", "IN_PROGRESS", 0.3))
    assert one.in_flight == SLOW_START_SIZE + 1
    assert one.room == 2 * SLOW_START_SIZE


async def test_jobs_on_their_way_home_leave_their_room_to_others_up_to_a_windowful() -> None:
    one = gate(Window(size=2, ceiling=2), plateau=Plateau())
    begun(one, 1, 2)
    assert not one.has_room
    one.observe(Observation("r1", "fal-ai/x", "COMPLETED", 5.0))
    assert one.has_room
    begun(one, 3)
    one.observe(Observation("r2", "fal-ai/x", "COMPLETED", 5.0))
    begun(one, 4)
    one.observe(Observation("r3", "fal-ai/x", "COMPLETED", 5.0))
    assert not one.has_room, "results that cannot be read must not pile up"
    one.left("r3")
    one.give_back("fal-ai/x")
    assert one.has_room


async def test_a_result_that_was_not_there_yet_counts_as_at_fal_again() -> None:
    one = gate(Window(size=1, ceiling=1), plateau=Plateau())
    begun(one, 1)
    one.observe(Observation("r1", "fal-ai/x", "COMPLETED", 5.0))
    assert one.has_room
    one.observe(Observation("r1", "fal-ai/x", "", is_ours=False))
    assert not one.has_room


async def test_a_window_that_the_user_set_counts_every_job_until_it_is_home() -> None:
    one = gate(Window.fixed_at(1))
    begun(one, 1)
    one.observe(Observation("r1", "fal-ai/x", "COMPLETED", 5.0))
    assert not one.has_room


async def test_a_refusal_cuts_what_was_used_not_what_nothing_came_near() -> None:
    one = gate(Window(size=1000, ceiling=1000), plateau=Plateau())
    await anyio.sleep(1)
    one.refused(0.5, None)
    assert one.room == SLOW_START_SIZE // 2


def crowded() -> SubmitGate:
    """50 at fal, and a job that was refused as the 51st: the window is half of that."""
    one = gate(Window(size=1000, ceiling=1000), plateau=Plateau())
    begun(one, *range(50))
    one.take_slot(x())
    return one


async def test_what_is_at_fal_is_what_a_refusal_tells_of_and_one_cause_cuts_once() -> None:
    one = crowded()
    for _ in range(5):
        await anyio.sleep(100)
        one.refused(anyio.current_time() - 0.1, None)
    assert (one.window.size, one.window.refused_at) == (25.5, 51)
    for number in range(30):
        one.left(f"r{number}")
    await anyio.sleep(100)
    one.refused(anyio.current_time() - 0.1, None)
    assert one.window.size == pytest.approx(10.5), "now it is felt at fal, and that takes even less"


async def test_after_a_cut_nothing_leaves_until_enough_has_ended_at_fal() -> None:
    one = crowded()
    await anyio.sleep(1)
    one.refused(0.5, None)
    left_s: list[float] = []

    async def leave() -> None:
        await one.turn()
        left_s.append(anyio.current_time())

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(leave)
        await anyio.sleep(100)
        assert not left_s
        for number in range(50):
            one.left(f"r{number}")
            await anyio.sleep(1)
    assert len(left_s) == 3, "and when nothing is at fal nobody waits"
    assert min(left_s) == pytest.approx(101 + 25, abs=1)


async def test_closing_wakes_who_waits_for_an_end_at_fal() -> None:
    one = crowded()
    await anyio.sleep(1)
    one.refused(0.5, None)
    turned_away = 0

    async def leave() -> None:
        nonlocal turned_away
        with pytest.raises(GateClosed):
            await one.turn()
        turned_away += 1

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(leave)
        await anyio.sleep(100)
        one.close(LimitReached("enough"))
    assert turned_away == 3


async def test_an_endpoint_whose_runners_start_gets_no_more_than_the_first_window() -> None:
    one = gate(Window(size=1000, ceiling=1000), plateau=Plateau())
    begun(one, *range(SLOW_START_SIZE))
    assert not one.may_have_more("fal-ai/x")
    assert one.may_have_more("fal-ai/y")
    one.observe(Observation("r3", "fal-ai/x", "IN_PROGRESS", 0.3))
    assert one.may_have_more("fal-ai/x")


async def test_closing_wakes_every_call_that_waits_for_its_place() -> None:
    one = gate(Window.fixed_at(1))
    turned_away = 0

    async def call() -> None:
        nonlocal turned_away
        try:
            async with one.call():
                await anyio.sleep(5)
        except GateClosed:
            turned_away += 1

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(call)
        await anyio.sleep(1)
        one.close(LimitReached("enough"))
        await anyio.sleep(1)
        assert turned_away == 9
    assert anyio.current_time() == pytest.approx(5, abs=0.1)
