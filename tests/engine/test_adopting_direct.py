"""Lost direct calls: adopted from fal's list together with their output, or left unknown with the reason."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from falbatch.core import changes
from falbatch.core.model import Mode
from falbatch.core.money import Purse
from falbatch.core.state import Event, State
from falbatch.engine.wanted import EVENTS
from falbatch.errors import ReplyError
from tests.engine.fakes import ONE_IMAGE, FakeAnswer, gateway, http, listed, planned, unanswered, unknown
from tests.engine.runs import Run, lost_before, settings_with

if TYPE_CHECKING:
    from falbatch.core.reconcile import Listed
    from falbatch.core.record import OpenJob

pytestmark = pytest.mark.anyio


def lost(*jobs: OpenJob, patience_s: float = 0.0, **more: Any) -> Run:
    """A run that finds these direct jobs unknown."""
    return Run(jobs=0, paid=jobs, settings=settings_with(mode=Mode.RUN, reconcile_s=patience_s), **more)


def unknown_call(number: int, **more: Any) -> OpenJob:
    return unknown(number, **{"mode": Mode.RUN, "reserved": 10, **more})


def whole(request_id: str, number: int = 1) -> Listed:
    """A listed request with its output."""
    return replace(listed(request_id, number), output=ONE_IMAGE)


async def test_a_lost_call_is_adopted_with_its_output_in_one_entry_and_its_files_fetched() -> None:
    run = lost(unknown_call(1), purse=Purse(1000, lost=10))
    run.requests.listed["fal-ai/x"] = [whole("r-1")]
    assert await run.run() is None
    assert run.store.states() == [State.DONE]
    assert run.events_of(1)[:2] == [Event.FOUND, Event.RESULT_STORED]
    assert run.store.stored[1].body == ONE_IMAGE
    assert run.files.disk["n1.png"]
    assert run.direct.calls == []
    assert run.queue.polls == run.queue.results == []
    assert (run.spending.purse.lost, run.spending.purse.at_fal, run.spending.purse.spent) == (0, 0, 10)
    (stored,) = run.store.of_kind(changes.ResultStored)
    assert stored.cost == 10
    assert run.counter.found == 1


async def test_without_an_output_it_stays_unknown_and_says_why() -> None:
    run = lost(unknown_call(1))
    run.requests.listed["fal-ai/x"] = [listed("r-1")]
    await run.run()
    assert run.store.states() == [State.UNKNOWN]
    assert run.store.stuck[1].failure.error_type == "no_answer"
    assert "fal lists its request r-1, without an output" in run.store.stuck[1].failure.message


async def test_the_reason_is_said_once_however_often_is_looked() -> None:
    run = lost(unknown_call(1), patience_s=120.0)
    run.requests.listed["fal-ai/x"] = [listed("r-1")]
    await run.run()
    assert len(run.requests.looks_s()) > 2
    assert len(run.store.of_kind(changes.Stuck)) == 1


async def test_an_output_that_appears_later_is_taken() -> None:
    run = lost(unknown_call(1), patience_s=120.0)
    pages = [[listed("r-1")], [listed("r-1")], [whole("r-1")]]
    real = run.requests.page

    async def page(endpoint: str, *, since: float, cursor: str | None) -> Any:
        run.requests.listed[endpoint] = pages.pop(0) if len(pages) > 1 else pages[0]
        return await real(endpoint, since=since, cursor=cursor)

    run.requests.page = page  # type: ignore[method-assign]  # the fake list, one page further each time
    await run.run()
    assert run.store.states() == [State.DONE]


async def test_as_many_replicas_are_adopted_as_have_outputs() -> None:
    jobs = [unknown_call(number, input_json=planned(1).input_json) for number in (1, 2, 3)]
    run = lost(*jobs)
    run.requests.listed["fal-ai/x"] = [whole("r-1"), whole("r-2"), listed("r-3")]
    await run.run()
    assert sorted(run.store.states()) == [State.DONE, State.DONE, State.UNKNOWN]


async def test_a_call_that_was_lost_in_this_run_comes_home_in_it() -> None:
    run = Run(jobs=0, others=(planned(1, mode=Mode.RUN),), settings=settings_with(mode=Mode.RUN))
    run.direct.on_call.then(unanswered())
    run.requests.listed["fal-ai/x"] = [whole("r-1")]
    await run.run()
    assert run.store.states() == [State.DONE]
    assert len(run.direct.calls) == 1


async def test_a_broken_answer_that_named_its_request_is_found_by_that_name() -> None:
    named = str(uuid4())
    run = Run(jobs=0, others=(planned(1, mode=Mode.RUN),), settings=settings_with(mode=Mode.RUN))
    run.direct.on_call.then(ReplyError("cut", request_id=named.upper()))
    # Another input: fal may have filled in defaults.
    run.requests.listed["fal-ai/x"] = [whole(named, 99)]
    await run.run()
    assert run.store.states() == [State.DONE]
    assert run.queue.polls == []


async def test_a_job_that_is_called_again_keeps_its_second_call() -> None:
    """By the user's word; the first turns up later and is recorded with its cost."""
    job = planned(1, mode=Mode.RUN, attempts=1, reserved=10)
    run = Run(
        jobs=0,
        others=(job,),
        settings=settings_with(mode=Mode.RUN, reconcile_s=120.0),
        attempts={(1, 1): lost_before(5.0)},
        purse=Purse(1000, lost=10),
    )
    run.direct.service_s = 0.5
    run.direct.on_call.then(FakeAnswer(ONE_IMAGE, request_id=str(uuid4())))
    run.requests.latency_s = 3.0
    run.requests.listed["fal-ai/x"] = [whole("r-1")]
    await run.run()
    assert run.store.states() == [State.DONE]
    assert len(run.direct.calls) == 1
    (found,) = run.store.of_kind(changes.RequestFound)
    assert found.event is None
    assert found.cost == 10
    assert len(run.store.of_kind(changes.ResultStored)) == 1


async def test_an_adopted_stream_has_its_result_and_no_events() -> None:
    run = lost(unknown_call(1, mode=Mode.STREAM))
    run.requests.listed["fal-ai/x"] = [whole("r-1")]
    await run.run()
    assert run.store.states() == [State.DONE]
    assert not [path for path in run.files.disk if path.endswith(EVENTS)]


def lost_in_both_ways(*, patience_s: float = 0.0) -> Run:
    """A queued submit (job 1) and a direct call (job 2) of the same input, both without an answer. fal's queue knows
    `r-queued` only."""
    run = lost(unknown(1), unknown_call(2, input_json=planned(1).input_json), patience_s=patience_s)
    progress = run.queue.on_status.default
    run.queue.accepted_at["r-queued"] = -10.0
    run.queue.on_status.default = lambda request: progress(request) if request.request_id == "r-queued" else http(404)
    return run


@pytest.mark.parametrize(
    ("ids", "states"),
    [
        (["r-queued"], [State.DONE, State.UNKNOWN]),
        (["r-direct"], [State.UNKNOWN, State.DONE]),
        (["r-direct", "r-queued"], [State.DONE, State.DONE]),
        (["r-queued", "r-direct"], [State.DONE, State.DONE]),
    ],
)
async def test_a_queued_submit_and_a_direct_call_take_their_own_requests(ids: list[str], states: list[State]) -> None:
    run = lost_in_both_ways()
    run.requests.listed["fal-ai/x"] = [whole(request_id) for request_id in ids]
    await run.run()
    assert run.store.states() == states
    taken = {change.job_id: change.request_id for change in run.store.of_kind(changes.RequestFound)}
    assert taken == {job_id: name for job_id, name in ((1, "r-queued"), (2, "r-direct")) if name in ids}


async def test_what_the_queue_does_not_say_waits_for_another_look() -> None:
    run = lost_in_both_ways(patience_s=120.0)
    run.queue.on_status.then(unanswered(), gateway(502))
    run.requests.listed["fal-ai/x"] = [whole("r-direct")]
    await run.run()
    assert run.store.states() == [State.UNKNOWN, State.DONE]
    assert len(run.requests.looks_s()) > 2


async def test_the_queue_is_asked_only_where_it_can_tell_something() -> None:
    run = lost(unknown(1), unknown_call(2))
    run.requests.listed["fal-ai/x"] = [whole("r-direct", 2)]
    await run.run()
    assert run.store.states() == [State.UNKNOWN, State.DONE]
    assert run.queue.polls == []
