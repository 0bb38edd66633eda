"""Money during a run: every submit reserves, every end settles, and the limit holds with any number in flight."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falbatch.core import changes
from falbatch.core.backoff import BackoffPolicy
from falbatch.core.identity import canonical_json
from falbatch.core.money import NANO, Bill, Price, Purse, Tariff
from falbatch.core.state import State
from falbatch.engine.result import OUTCOME_LOOKS
from falbatch.engine.settings import Scope
from falbatch.engine.spending import Spending
from falbatch.errors import ExitCode, FalbatchError, LimitReached
from tests.engine.fakes import (
    ONE_IMAGE,
    FakeAccepted,
    FakeResult,
    FakeStore,
    VirtualLoop,
    gateway,
    http,
    listed,
    planned,
    refused,
    unanswered,
    unknown,
    unsent,
)
from tests.engine.runs import Run, at_fal, settings_with, stopped_after

pytestmark = pytest.mark.anyio

CENT = NANO // 100
BY_IMAGE = {"fal-ai/x": Price(CENT, "image")}
TARIFFS = {endpoint: Tariff(price) for endpoint, price in BY_IMAGE.items()}
BY_MEGAPIXEL = {"fal-ai/x": Price(CENT, "megapixel")}


def cents(count: int) -> Purse:
    return Purse(count * CENT)


def billed(units: float | None) -> FakeResult:
    return FakeResult(ONE_IMAGE, billable_units=units)


def run_with(jobs: int, limit: int, **more: Any) -> Run:
    """A run whose jobs cost a cent each, with so many cents."""
    options = {"in_flight": 256, "reconcile_s": 0, "max_cost_nano": limit * CENT, **more.pop("settings", {})}
    return Run(jobs=jobs, prices=more.pop("prices", BY_IMAGE), settings=settings_with(**options), **more)


async def test_without_a_price_nothing_is_reserved_and_nothing_waits() -> None:
    spending = Spending(cents(0), {})
    assert await spending.reserve(planned(1)) == 0
    assert spending.settle(planned(1), 3.0) is None
    assert spending.purse == cents(0)


async def test_what_does_not_fit_waits_for_what_is_at_fal() -> None:
    spending = Spending(cents(1), TARIFFS)
    first = replace(planned(1), reserved=await spending.reserve(planned(1)))
    got: list[int] = []

    async def second() -> None:
        got.append(await spending.reserve(planned(2)))

    async with anyio.create_task_group() as group:
        group.start_soon(second)
        await anyio.sleep(100)
        assert got == []
        assert spending.settle(first, 0.0) == 0
    assert got == [CENT]
    assert spending.purse == Purse(CENT, at_fal=CENT)


async def test_what_can_never_fit_is_refused_with_the_amounts() -> None:
    spending = Spending(Purse(5 * CENT, spent=3 * CENT, lost=2 * CENT), TARIFFS)
    with pytest.raises(LimitReached, match=r"limit of \$0\.05 .* \$0\.03 spent, \$0\.02 reserved .* \$0\.01") as caught:
        await spending.reserve(planned(1))
    assert "--max-cost" in caught.value.advice
    assert caught.value.exit_code is ExitCode.LIMIT


@pytest.mark.parametrize("seed", range(5))
async def test_the_limit_holds_with_hundreds_of_jobs_in_flight(seed: int) -> None:
    chance = random.Random(seed)
    run = run_with(400, 120)
    most = most_in_flight = 0

    def answer(_request: object) -> FakeResult:
        nonlocal most, most_in_flight
        most = max(most, run.spending.purse.committed)
        most_in_flight = max(most_in_flight, run.most_at_fal)
        return billed(round(chance.uniform(0.2, 1.0), 3))

    run.queue.on_result.default = answer
    error = await run.run()
    assert isinstance(error, LimitReached)
    stored = run.store.of_kind(changes.ResultStored)
    assert sum(change.cost for change in stored) == run.spending.purse.spent
    assert most <= 120 * CENT
    assert run.spending.purse.spent + CENT > 120 * CENT, "as long as another job fits, it is submitted"
    assert run.spending.purse.at_fal == 0
    assert most_in_flight >= 100
    assert set(run.store.states()) == {State.DONE, State.PLANNED}


async def test_two_hundred_in_flight_at_once_spend_no_more_than_the_limit() -> None:
    run = run_with(500, 250, settings={"in_flight": 200})
    assert isinstance(await run.run(), LimitReached)
    assert run.most_at_fal == 200
    assert run.store.states().count(State.DONE) == 250
    assert len(run.queue.submits) == 250
    assert run.spending.purse == Purse(250 * CENT, spent=250 * CENT)


async def test_at_the_limit_what_is_at_fal_comes_home_and_the_run_says_why_it_ended() -> None:
    run = run_with(50, 10, settings={"in_flight": 4})
    error = await run.run()
    assert isinstance(error, LimitReached)
    assert error.exit_code is ExitCode.LIMIT
    assert "$0.10 is reached: $0.10 spent" in str(error)
    assert run.store.states() == [State.DONE] * 10 + [State.PLANNED] * 40


async def test_a_limit_that_is_enough_is_not_reached() -> None:
    run = run_with(10, 10)
    assert await run.run() is None
    assert run.store.states() == [State.DONE] * 10


async def test_without_a_limit_the_cost_is_only_counted() -> None:
    run = Run(jobs=20, prices=BY_MEGAPIXEL)
    assert await run.run() is None
    assert run.most_at_fal > 5, "nobody waits for the first"
    assert run.spending.purse == Purse(spent=20 * CENT)


async def test_what_is_reserved_and_what_it_cost_is_recorded() -> None:
    run = run_with(1, 10)
    run.queue.on_result.default = billed(0.25)
    await run.run()
    assert [change.reserved for change in run.store.of_kind(changes.SubmitStarted)] == [CENT]
    assert [change.cost for change in run.store.of_kind(changes.ResultStored)] == [CENT // 4]


async def test_without_a_schema_images_are_not_counted_and_the_first_job_runs_alone() -> None:
    """The endpoint makes four by itself: a dollar is no more than a dollar."""
    run = run_with(20, 100, prices={"fal-ai/x": Price(25 * CENT, "image")}, has_schemas=False)
    run.queue.on_result.default = billed(4.0)
    assert isinstance(await run.run(), LimitReached)
    assert run.spending.purse.spent == 100 * CENT
    assert len(run.queue.submits) == 1


async def test_what_was_billed_is_recorded_to_be_learned_from() -> None:
    run = run_with(2, 10)
    run.queue.on_result.then(billed(0.25), billed(None))
    await run.run()
    stored = run.store.of_kind(changes.ResultStored)
    bill = Bill("fal-ai/x", "image", "", 0.25)
    assert sorted((change.bill for change in stored), key=str) == [bill, None]


def submitted_before(run: Run, entry: str) -> int:
    return run.log[: run.log.index(entry)].count("submit fal-ai/x")


async def test_the_first_job_of_an_endpoint_whose_units_are_not_known_runs_alone() -> None:
    run = run_with(20, 50, prices=BY_MEGAPIXEL)
    run.queue.on_result.default = billed(2.0)
    assert await run.run() is None
    assert submitted_before(run, "result_stored 1") == 1
    assert run.most_at_fal > 5
    assert [change.reserved for change in run.store.of_kind(changes.SubmitStarted)] == [CENT] + [2 * CENT] * 19
    assert run.spending.purse.spent == 40 * CENT


async def test_after_a_first_job_that_fails_the_next_one_runs_alone() -> None:
    run = run_with(20, 50, prices=BY_MEGAPIXEL)
    run.queue.on_result.then(http(422, "missing", billable_units=0.0))
    assert await run.run() is None
    assert submitted_before(run, "request_failed 1") == 1
    assert submitted_before(run, "result_stored 2") == 2


async def test_the_first_job_of_one_endpoint_keeps_no_other_endpoint_waiting() -> None:
    prices = BY_MEGAPIXEL | {"fal-ai/y": Price(CENT, "image")}
    others = tuple(planned(number, endpoint="fal-ai/y") for number in range(11, 21))
    run = run_with(10, 50, prices=prices, others=others)
    assert await run.run() is None
    assert run.log[: run.log.index("result_stored 1")].count("submit fal-ai/y") == 10
    assert submitted_before(run, "result_stored 1") == 1


async def test_the_first_of_each_variant_runs_alone_and_keeps_no_known_one_waiting() -> None:
    """Pictures of three resolutions: none is taken for proof of another."""
    kinds = ["1K", "2K", "4K"]
    jobs = tuple(
        planned(number, input_json=canonical_json({"resolution": kinds[number % 3]})) for number in range(1, 31)
    )
    run = run_with(0, 200, others=jobs)
    assert await run.run() is None
    assert run.store.states() == [State.DONE] * 30
    assert submitted_before(run, "result_stored 1") == 1
    assert submitted_before(run, "result_stored 2") <= 4, "two more of the first, one of another"
    assert run.most_at_fal > 5


@pytest.mark.parametrize(("unit", "field"), [("video", "duration"), ("request", "duration"), ("image", "quality")])
async def test_a_value_that_is_free_makes_no_variant_of_each_job(unit: str, field: str) -> None:
    """150 videos, each of another length: they are not done one after another."""
    jobs = tuple(planned(number, input_json=canonical_json({field: number + 5})) for number in range(1, 151))
    run = run_with(0, 100_000, others=jobs, prices={"fal-ai/x": Price(CENT, unit)})
    assert await run.run() is None
    assert run.store.states() == [State.DONE] * 150
    assert run.most_at_fal > 20


async def test_jobs_whose_units_are_counted_wait_for_no_variant() -> None:
    odd = planned(1, input_json=canonical_json({"resolution": "4K"}))
    others = tuple(planned(number) for number in range(2, 12))
    run = run_with(0, 50, others=(odd, *others))
    assert await run.run() is None
    assert submitted_before(run, "result_stored 1") == 11


async def test_a_larger_input_reserves_more() -> None:
    large = canonical_json({"image_size": {"width": 2000, "height": 2000}})
    run = run_with(1, 50, prices=BY_MEGAPIXEL, others=(planned(2, input_json=large),))
    await run.run()
    assert [change.reserved for change in run.store.of_kind(changes.SubmitStarted)] == [CENT, 4 * CENT]


async def test_a_failure_of_fals_own_servers_frees_its_reservation() -> None:
    run = run_with(3, 2, settings={"attempts": 1, "in_flight": 1})
    run.queue.on_result.then(*[http(500, "internal_error")] * OUTCOME_LOOKS)
    assert await run.run() is None
    assert run.store.states() == [State.FAILED, State.DONE, State.DONE]
    assert run.spending.purse.spent == 2 * CENT


async def test_another_failure_without_a_word_on_its_units_counts_as_what_was_reserved() -> None:
    run = run_with(3, 2, settings={"in_flight": 1})
    run.queue.on_result.then(http(422, "missing"))
    assert isinstance(await run.run(), LimitReached)
    assert run.store.states() == [State.FAILED, State.DONE, State.PLANNED]
    assert [change.cost for change in run.store.of_kind(changes.RequestEnded)] == [CENT]


async def test_a_failure_that_was_not_billed_frees_its_reservation() -> None:
    run = run_with(3, 2, settings={"in_flight": 1})
    run.queue.on_result.then(http(422, "missing", billable_units=0.0))
    assert await run.run() is None
    assert run.spending.purse.spent == 2 * CENT


@pytest.mark.parametrize("error", [refused(), unsent()], ids=str)
async def test_a_submit_that_was_not_accepted_frees_its_reservation(error: Exception) -> None:
    run = run_with(2, 2)
    run.queue.on_submit.then(error, error, error)
    assert await run.run() is None
    assert run.spending.purse == Purse(2 * CENT, spent=2 * CENT)


@pytest.mark.parametrize("status", [403, 404])
async def test_jobs_that_fal_does_not_take_reserve_nothing(status: int) -> None:
    run = run_with(5, 2)
    run.queue.on_submit.default = http(status)
    await run.run()
    assert run.spending.purse == cents(2)


async def test_a_job_whose_submit_got_no_answer_keeps_its_reservation() -> None:
    run = run_with(5, 3, settings={"in_flight": 1})
    run.queue.on_submit.then(unanswered())
    error = await run.run()
    assert isinstance(error, LimitReached)
    assert "$0.01 reserved for jobs whose end is not known" in str(error)
    assert run.store.states() == [State.UNKNOWN, State.DONE, State.DONE, State.PLANNED, State.PLANNED]
    assert run.spending.purse == Purse(3 * CENT, spent=2 * CENT, lost=CENT)


async def test_a_found_submit_costs_what_it_cost_and_frees_the_rest() -> None:
    run = run_with(2, 2, others=(unknown(3, reserved=CENT),), purse=Purse(2 * CENT, lost=CENT))
    run.requests.listed["fal-ai/x"].append(listed("f", 3))
    run.queue.on_result.default = billed(0.5)
    assert await run.run() is None
    assert run.store.states() == [State.DONE] * 3
    assert run.spending.purse == Purse(2 * CENT, spent=CENT * 3 // 2)


async def test_an_earlier_runs_request_settles_what_was_reserved_for_it() -> None:
    run = run_with(2, 2, paid=(at_fal(1, reserved=CENT),), purse=Purse(2 * CENT, at_fal=CENT))
    run.queue.on_result.default = billed(1.0)
    assert await run.run() is None
    assert run.store.states() == [State.DONE] * 2
    assert run.spending.purse == Purse(2 * CENT, spent=2 * CENT)


async def test_a_stuck_job_keeps_its_reservation_and_makes_nobody_wait_for_ever() -> None:
    run = run_with(4, 2, settings={"in_flight": 2})
    run.queue.on_status.then(http(405))
    error = await run.run()
    assert isinstance(error, LimitReached)
    assert run.store.states().count(State.SUBMITTED) == 1
    assert run.store.states().count(State.PLANNED) == 2
    assert run.spending.purse == Purse(2 * CENT, spent=CENT, lost=CENT)


async def test_a_bug_in_one_job_makes_nobody_wait_for_ever() -> None:
    run = run_with(4, 2, settings={"in_flight": 4})
    run.queue.on_result.then(RuntimeError("a bug of ours"))
    with pytest.raises(RuntimeError, match="a bug of ours"):
        await run.run()
    assert State.DONE in run.store.states()


async def test_a_stop_while_jobs_wait_for_room_ends_at_once() -> None:
    run = run_with(10, 2)
    run.queue.service_s = 3600.0
    await stopped_after(run, 5.0)
    assert anyio.current_time() < 5.1
    assert run.store.states() == [State.SUBMITTED] * 2 + [State.PLANNED] * 8
    assert run.spending.purse == Purse(2 * CENT, at_fal=2 * CENT)


async def test_a_run_that_submits_nothing_does_not_complain_of_the_limit() -> None:
    """The request that was found failed: another attempt is not due here, and so not a question of money."""
    run = run_with(0, 1, others=(unknown(1, reserved=CENT),), settings={"scope": Scope.PAID})
    run.spending.purse = Purse(CENT, lost=CENT)
    run.requests.listed["fal-ai/x"].append(listed("f", 1))
    run.queue.on_result.default = http(503, "runner_disconnected", billable_units=1.0)
    assert await run.run() is None
    assert run.store.states() == [State.PLANNED]
    assert run.queue.submits == []


def reserved_in(store: FakeStore) -> int:
    """For requests at fal and for submits without an answer."""
    at_fal = sum(job.reserved for job in store.jobs.values() if job.state is State.SUBMITTED)
    return at_fal + sum(attempt.reserved for attempt in store.attempts.values() if attempt.is_lost)


def spent_in(store: FakeStore) -> int:
    return sum(getattr(change, "cost", None) or 0 for change in store.changes)


SUBMITS: list[FalbatchError | Exception | None] = [None, refused(), unsent(), unanswered(), http(404), gateway(502)]
RESULTS: list[Any] = [
    billed(1.0),
    billed(0.0),
    billed(None),
    http(422, "missing"),
    http(422, "missing", billable_units=0.5),
    http(503, "runner_disconnected"),
    http(499),
    http(405),
]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(SUBMITS), max_size=15),
    st.lists(st.sampled_from(RESULTS), max_size=15),
    st.integers(0, 8),
    st.integers(0, 8),
    st.sampled_from([BY_IMAGE, BY_MEGAPIXEL]),
    st.one_of(st.none(), st.floats(min_value=0, max_value=20)),
)
def test_whatever_fal_answers_and_whenever_it_is_stopped_the_purse_is_what_is_on_record(
    submits: list[Exception | None],
    results: list[Any],
    jobs: int,
    limit: int,
    prices: dict[str, Price],
    stop_after_s: float | None,
) -> None:
    async def scenario() -> None:
        quickly = BackoffPolicy(0.1, 1.0)
        run = run_with(jobs, limit, prices=prices, settings={"backoff": quickly, "max_equal_failures": None})
        accepted = (FakeAccepted(f"q{place}") for place in range(len(submits)))
        run.queue.on_submit.then(*(next(accepted) if answer is None else answer for answer in submits))
        run.queue.on_result.then(*results)
        if stop_after_s is None:
            await run.run()
            assert run.spending.purse.at_fal == 0
        else:
            await stopped_after(run, stop_after_s)
        purse = run.spending.purse
        assert purse.spent == spent_in(run.store)
        assert purse.at_fal + purse.lost == reserved_in(run.store)
        assert purse.committed <= limit * CENT

    anyio.run(scenario, backend_options={"loop_factory": VirtualLoop})
