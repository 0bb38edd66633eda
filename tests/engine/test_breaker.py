"""Equal failures in a row on one endpoint: nothing more is submitted, and what is at fal comes home."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from falbatch.core.record import StoredResult
from falbatch.core.state import State
from falbatch.engine.settings import Scope
from falbatch.errors import ExitCode, LimitReached
from tests.engine.fakes import ONE_IMAGE, FakeResult, http, planned, unanswered
from tests.engine.runs import Run, at_fal, settings_with, with_result

if TYPE_CHECKING:
    from falbatch.errors import HttpError

pytestmark = pytest.mark.anyio

MISSING = http(422, "missing")
REFUSED = http(422, "content_policy_violation")
GOOD = FakeResult(ONE_IMAGE)


def run_with(row: int | None, jobs: int = 30, **more: Any) -> Run:
    """A run that sends one job after the other."""
    settings = {"in_flight": 1, "max_equal_failures": row, "reconcile_s": 0.0, **more.pop("settings", {})}
    return Run(jobs=jobs, settings=settings_with(**settings), **more)


async def test_equal_failures_in_a_row_close_the_gate() -> None:
    run = run_with(5)
    run.queue.on_result.default = MISSING
    error = await run.run()
    assert isinstance(error, LimitReached)
    assert error.exit_code is ExitCode.LIMIT
    assert "the last 5 jobs on fal-ai/x all failed alike: missing, answer 422" in str(error)
    assert "max_equal_failures" in error.advice
    assert run.store.states() == [State.FAILED] * 5 + [State.PLANNED] * 25


async def test_what_is_at_fal_is_brought_home() -> None:
    run = run_with(3, settings={"in_flight": 10})
    run.queue.on_result.then(MISSING, MISSING, MISSING)
    assert isinstance(await run.run(), LimitReached)
    states = run.store.states()
    assert states.count(State.FAILED) == 3
    assert states.count(State.DONE) >= 7
    assert set(states) == {State.FAILED, State.DONE, State.PLANNED}


@pytest.mark.parametrize("between", [GOOD, REFUSED], ids=["a success", "another failure"])
async def test_something_else_in_between_begins_the_row_anew(between: FakeResult | HttpError) -> None:
    run = run_with(3)
    run.queue.on_result.then(MISSING, MISSING, between, MISSING, MISSING)
    assert await run.run() is None
    assert State.PLANNED not in run.store.states()


async def test_an_unknown_job_in_between_is_no_success() -> None:
    run = run_with(3)
    run.queue.on_result.then(MISSING, MISSING, MISSING)
    run.queue.on_submit.then(run.queue._accept, run.queue._accept, unanswered())
    assert isinstance(await run.run(), LimitReached)
    assert run.store.states()[:4] == [State.FAILED, State.FAILED, State.UNKNOWN, State.FAILED]


async def test_submits_that_are_rejected_alike_count_too() -> None:
    run = run_with(4)
    run.queue.on_submit.default = http(404)
    assert isinstance(await run.run(), LimitReached)
    assert len(run.queue.submits) == 4


async def test_other_endpoints_do_not_count_together() -> None:
    """They fail in turn, three each."""
    others = tuple(planned(number, endpoint="fal-ai/y") for number in (2, 4, 6))
    run = run_with(4, jobs=5, others=others)
    run.queue.on_result.default = MISSING
    assert await run.run() is None
    assert run.store.states() == [State.FAILED] * 6


async def test_a_success_elsewhere_does_not_help_an_endpoint() -> None:
    others = tuple(planned(number, endpoint="fal-ai/y") for number in range(2, 31, 2))
    run = run_with(4, jobs=30, others=others)
    run.queue.on_result.default = lambda request: GOOD if request.endpoint == "fal-ai/y" else MISSING
    error = await run.run()
    assert isinstance(error, LimitReached)
    assert "fal-ai/x" in str(error)


async def test_a_dead_link_says_nothing_about_the_endpoint() -> None:
    paid = tuple(with_result(number) for number in range(1, 11))
    run = run_with(3, jobs=10, paid=paid)
    for job in paid:
        run.store.stored[job.job_id] = StoredResult(ONE_IMAGE, "application/json")
    run.files.web["https://cdn/a.png"] = lambda: http(404)
    assert await run.run() is None
    assert run.store.states() == [State.FAILED] * 10


async def test_a_result_that_is_gone_says_nothing_about_the_endpoint() -> None:
    run = run_with(3, jobs=6)
    run.queue.on_result.default = http(404)
    assert await run.run() is None
    assert run.store.states() == [State.FAILED] * 6


async def test_it_can_be_switched_off() -> None:
    run = run_with(None, jobs=60)
    run.queue.on_result.default = MISSING
    assert await run.run() is None
    assert run.store.states() == [State.FAILED] * 60


async def test_twenty_are_too_many_unless_told_otherwise() -> None:
    run = Run(jobs=60, settings=settings_with(in_flight=1))
    run.queue.on_result.default = MISSING
    assert isinstance(await run.run(), LimitReached)
    assert run.store.states().count(State.FAILED) == 20


async def test_the_users_own_limit_on_failures_is_said_when_it_comes_first() -> None:
    run = run_with(5, settings={"max_failures": 2})
    run.queue.on_result.default = MISSING
    error = await run.run()
    assert "max_failures" in str(error)
    assert run.store.states().count(State.FAILED) == 3


async def test_where_nothing_is_submitted_failures_reach_no_limit() -> None:
    paid = tuple(at_fal(number) for number in range(1, 11))
    run = run_with(3, jobs=20, paid=paid, settings={"max_failures": 2, "scope": Scope.PAID})
    run.queue.on_result.default = MISSING
    assert await run.run() is None
    assert run.store.states() == [State.FAILED] * 10 + [State.PLANNED] * 10
