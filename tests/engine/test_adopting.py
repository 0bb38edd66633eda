"""Whose request a listed one is: each is adopted once, by a submit of its own input that got no answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falbatch.core import changes
from falbatch.core.backoff import BackoffPolicy
from falbatch.core.money import Price, Purse
from falbatch.core.reconcile import Listed
from falbatch.core.state import Event, State
from tests.engine.fakes import (
    ONE_IMAGE,
    UNIX_AT_START,
    FakePage,
    FakeProgress,
    FakeResult,
    VirtualLoop,
    http,
    listed,
    unanswered,
    unknown,
)
from tests.engine.runs import Run, lost_before, replica, settings_with

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from tests.engine.fakes import FakeAccepted

pytestmark = pytest.mark.anyio

X = "fal-ai/x"
NAMED = "7c2e6a3e-0a36-4a0e-9b1d-1f2a3b4c5d6e"
OTHER = "0b8b1d3a-5a64-4b7e-8a55-5d6e7f8a9b0c"


async def test_of_three_alike_two_are_found_when_two_are_listed() -> None:
    run = Run(jobs=0, others=tuple(replica(number) for number in (1, 2, 3)))
    run.queue.on_submit.then(*[unanswered()] * 3)
    run.requests.listed[X] += [listed("a", 1), listed("b", 1)]
    await run.run()
    assert sorted(run.store.states()) == [State.DONE, State.DONE, State.UNKNOWN]
    assert len(run.queue.submits) == 3


async def test_a_request_of_another_job_is_left_alone() -> None:
    """The list names the request of a job with the same input that is done, or at fal."""
    run = Run(jobs=1, others=(replica(2, state=State.UNKNOWN, attempts=1),), settings=settings_with(reconcile_s=30.0))
    run.requests.listed[X].append(listed("r0", 1))
    await run.run()
    assert run.store.states() == [State.DONE, State.UNKNOWN]
    assert run.store.requests == {"r0": 1}


async def test_while_a_submit_of_the_same_input_is_under_way_nothing_of_that_input_is_adopted() -> None:
    """What is listed may be its request: the answer is slower than the list."""
    run = Run(jobs=1, others=(replica(2, state=State.UNKNOWN, attempts=1), unknown(3)))
    run.requests.listed[X] += [listed("r0", 1), listed("third", 3)]
    run.queue.latency_s = 30.0
    await run.run()
    assert run.store.requests == {"r0": 1, "third": 3}
    assert run.store.states() == [State.DONE, State.UNKNOWN, State.DONE]


async def test_an_input_is_adopted_once_no_submit_of_it_is_under_way() -> None:
    run = Run(jobs=1, others=(replica(2, state=State.UNKNOWN, attempts=1),))
    run.requests.listed[X] += [listed("r0", 1), listed("lost", 1)]
    run.queue.latency_s = 15.0
    await run.run()
    assert run.store.requests == {"r0": 1, "lost": 2}
    assert run.store.states() == [State.DONE] * 2


async def test_an_error_that_names_a_request_is_settled_by_asking_about_it() -> None:
    run = Run()
    run.queue.on_submit.then(http(500, request_id=NAMED))
    run.queue.accepted_at[NAMED] = 0.0
    await run.run()
    assert run.store.states() == [State.DONE]
    assert run.store.requests == {NAMED: 1}
    assert len(run.queue.submits) == 1


async def test_a_request_that_is_named_in_capitals_is_the_one_that_is_listed_in_small_letters() -> None:
    run = Run(jobs=1, others=(replica(2),), settings=settings_with(reconcile_s=5.0, in_flight=1))
    run.queue.on_submit.then(http(500, request_id=NAMED.upper()), unanswered())
    run.requests.listed[X].append(listed(NAMED, 1))
    await run.run()
    assert run.store.requests == {NAMED: 1}
    assert run.store.states() == [State.DONE, State.UNKNOWN]


async def test_a_named_request_that_fal_does_not_know_is_none() -> None:
    run = Run(settings=settings_with(reconcile_s=5.0))
    run.queue.on_submit.then(http(500, request_id=NAMED))
    run.queue.on_status.default = http(404)
    await run.run()
    assert run.store.states() == [State.UNKNOWN]
    assert run.store.requests == {}
    assert len(run.requests.looks_s()) >= 2, "the list is looked through all the same"


async def test_a_named_request_that_cannot_be_asked_about_is_looked_for_in_the_list() -> None:
    run = Run(jobs=0, others=(unknown(1), unknown(2)), attempts={(1, 1): lost_before(5, named_id=NAMED)})
    run.requests.listed[X] += [listed(NAMED, 1), listed("second", 2)]
    run.queue.on_status.then(http(405))
    await run.run()
    assert run.store.requests == {NAMED: 1, "second": 2}
    assert run.store.states() == [State.DONE] * 2


async def test_a_name_that_is_no_request_id_is_not_asked_about() -> None:
    run = Run(settings=settings_with(reconcile_s=0.0))
    run.queue.on_submit.then(http(500, request_id="../../other"))
    await run.run()
    assert run.queue.polls == []
    assert run.store.states() == [State.UNKNOWN]


def twice_lost(*named_ids: str) -> Run:
    """A job that was submitted twice, on the user's word, each time without an answer; 10 reserved for each."""
    first, second = named_ids or ("", "")
    return Run(
        jobs=0,
        others=(unknown(1, attempts=2, reserved=10),),
        attempts={(1, 1): lost_before(90, named_id=first), (1, 2): lost_before(30, named_id=second)},
        prices={X: Price(10, "image")},
        purse=Purse(lost=20),
        settings=settings_with(reconcile_s=0.0),
    )


async def test_of_two_lost_submits_of_a_job_one_goes_on_and_the_other_is_recorded_with_its_cost() -> None:
    run = twice_lost()
    run.requests.listed[X] += [listed("a", 1, sent_at=UNIX_AT_START - 80), listed("b", 1, sent_at=UNIX_AT_START - 20)]
    await run.run()
    assert run.store.states() == [State.DONE]
    first, second = run.store.of_kind(changes.RequestFound)
    assert (first.request_id, first.attempt, first.event) == ("a", 1, Event.FOUND)
    assert (second.request_id, second.attempt, second.event, second.cost) == ("b", 2, None, 10)
    assert [request_id for _, request_id in run.queue.results] == ["a"]
    assert run.spending.purse == Purse(spent=20)


async def test_two_lost_submits_of_a_job_that_both_named_their_requests_are_settled_alike() -> None:
    run = twice_lost(NAMED, OTHER)
    await run.run()
    assert run.store.states() == [State.DONE]
    assert run.store.requests == {NAMED: 1, OTHER: 1}
    assert [change.event for change in run.store.of_kind(changes.RequestFound)] == [Event.FOUND, None]
    assert run.spending.purse == Purse(spent=20)


async def test_a_lost_submit_of_a_job_that_was_submitted_again_is_recorded_with_its_cost_only() -> None:
    """Looked for along with others of its endpoint."""
    again = replica(1, state=State.DONE, attempts=2, request=None)
    attempts = {(1, 1): lost_before(90)}
    run = Run(jobs=0, others=(again, unknown(2)), attempts=attempts, settings=settings_with(reconcile_s=0.0))
    run.requests.listed[X].append(listed("old", 1, sent_at=UNIX_AT_START - 80))
    await run.run()
    assert run.store.states() == [State.DONE, State.UNKNOWN]
    (found,) = run.store.of_kind(changes.RequestFound)
    assert (found.event, found.request_id, found.cost) == (None, "old", 10)
    assert run.queue.results == []


Submit = tuple[str, int]
"""What becomes of a submit (answered, swallowed: accepted without an answer, lost: never arrived), and its input."""


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["answered", "swallowed", "lost"]), st.integers(1, 2)), min_size=1, max_size=7),
    st.floats(0, 20),
    st.floats(0.01, 20),
)
def test_every_request_that_fal_took_comes_home_once_and_nothing_else_is_made_of_a_lost_submit(
    plan: list[Submit], listed_after_s: float, latency_s: float
) -> None:
    async def scenario() -> None:
        jobs = tuple(replica(number, of=kind) for number, (_, kind) in enumerate(plan, 1))
        run = Run(jobs=0, others=jobs)
        fates = [fate for fate, _ in plan]
        taken: list[Listed] = []

        def at_fal(body: bytes) -> FakeAccepted:
            accepted: FakeAccepted = run.queue._accept(body)
            taken.append(Listed(accepted.request_id, body, run.clock.unix_s()))
            return accepted

        def submit(body: bytes) -> Awaitable[FakeAccepted]:
            async def answer() -> FakeAccepted:
                fate = fates.pop()
                if fate == "lost":
                    raise unanswered()
                accepted = at_fal(body)
                await anyio.sleep(latency_s)
                if fate == "swallowed":
                    raise unanswered()
                return accepted

            return answer()

        def page(_endpoint: str) -> FakePage:
            known_until = run.clock.unix_s() - listed_after_s
            return FakePage(tuple(one for one in taken if (one.sent_at or 0.0) <= known_until))

        run.queue.on_submit.default = submit
        run.requests.on_page.default = page
        await run.run()
        assert len(run.queue.submits) == len(plan)
        assert run.store.requests.keys() == {one.request_id for one in taken}
        inputs = {one.request_id: one.input_json for one in taken}
        for request_id, job_id in run.store.requests.items():
            assert run.store.jobs[job_id].input_json == inputs[request_id]
        assert run.store.states().count(State.DONE) == len(taken)
        assert run.store.states().count(State.UNKNOWN) == len(plan) - len(taken)

    anyio.run(scenario, backend_options={"loop_factory": VirtualLoop})


@pytest.mark.parametrize(("status", "is_asked_again"), [(404, False), (500, True)])
async def test_an_endpoint_whose_list_cannot_be_read_hides_no_other(status: int, is_asked_again: bool) -> None:
    run = Run(
        jobs=0,
        paid=(unknown(1), unknown(2, endpoint="fal-ai/y")),
        attempts={(1, 1): lost_before(1.0), (2, 1): lost_before(1.0)},
        settings=settings_with(reconcile_s=5.0),
    )

    def page(endpoint: str) -> FakePage | Exception:
        return http(status) if endpoint == "fal-ai/x" else FakePage((listed("found", 2),))

    run.requests.on_page.default = page
    assert await run.run() is None
    assert run.store.states() == [State.UNKNOWN, State.DONE]
    asked = [endpoint for _, endpoint, _, _ in run.requests.asked]
    assert (asked.count("fal-ai/x") > 1) is is_asked_again


async def test_a_job_that_waits_for_its_second_submit_goes_on_with_its_first_when_that_is_found() -> None:
    run = Run(jobs=2, attempts={(2, 1): lost_before(3600.0)}, settings=settings_with(in_flight=1, reconcile_s=5.0))
    run.store.jobs[2] = replica(2, of=2, attempts=1)
    run.requests.listed[X].append(listed("found", 2, sent_at=UNIX_AT_START - 3600.0))
    assert await run.run() is None
    assert run.store.requests["found"] == 2
    assert run.store.states() == [State.DONE, State.DONE]
    assert len(run.queue.submits) == 1, "the other job's"


async def test_a_result_whose_door_is_in_trouble_is_not_paid_for_again() -> None:
    run = Run(jobs=1)
    run.queue.on_status.default = lambda _request: FakeProgress("COMPLETED", inference_time_s=2.0)
    run.queue.on_result.then(*[http(500, "internal_error")] * 4)
    assert await run.run() is None
    assert run.store.states() == [State.DONE]
    assert len(run.queue.submits) == 1


async def test_a_last_look_is_taken_once_however_long_it_takes() -> None:
    run = Run(jobs=1, paid=(unknown(2),), attempts={(2, 1): lost_before(3600.0)}, settings=settings_with())
    run.queue.service_s = 120.0
    run.requests.latency_s = 60.0
    assert await run.run() is None
    assert run.store.states() == [State.DONE, State.UNKNOWN]
    assert len(run.requests.looks_s()) == 2, "at the start, and when all else was done"


async def test_a_found_job_that_is_tried_again_is_handed_out_by_nobody_else() -> None:
    """It comes later in the manifest than what the feeder has reached, and is planned again while it pauses."""
    run = Run(
        jobs=12,
        paid=(unknown(13),),
        attempts={(13, 1): lost_before(1.0)},
        settings=settings_with(in_flight=2, reconcile_s=5.0, backoff=BackoffPolicy(30.0, 30.0)),
    )
    run.requests.listed[X].append(listed("found", 13))
    answers = [http(500, "internal_error")] * 2
    run.queue.on_result.default = lambda request: (
        answers.pop() if request.request_id == "found" and answers else FakeResult(ONE_IMAGE)
    )
    assert await run.run() is None
    assert run.store.states() == [State.DONE] * 13
    assert [change.attempt for change in run.store.of_kind(changes.SubmitStarted) if change.job_id == 13] == [2]
    assert len(run.queue.submits) == 13
    assert run.queue.submits[-1][0] > 15.0, "after the pause, which another coroutine would not know of"
