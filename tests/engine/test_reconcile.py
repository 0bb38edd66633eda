"""Submits without an answer are looked for in fal's list while the run goes on; what is found goes on, the rest stays
unknown, and nothing is ever submitted by it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
import pytest

from falbatch.core import changes
from falbatch.core.events import Reconciled
from falbatch.core.reconcile import PATIENCE_UNKNOWN_S, SKEW_S
from falbatch.core.state import Event, State
from falbatch.engine.reconcile import PAGES_MOST
from falbatch.engine.result import OUTCOME_LOOKS
from falbatch.engine.settings import Scope
from falbatch.errors import FalUnreachable, TransportError
from tests.engine.fakes import (
    UNIX_AT_START,
    FakePage,
    gateway,
    http,
    listed,
    refused,
    unanswered,
    unknown,
)
from tests.engine.runs import Run, lost_before, replica, settings_with, stopped_after, swallowing

if TYPE_CHECKING:
    from falbatch.errors import WireError

pytestmark = pytest.mark.anyio

X = "fal-ai/x"
NAMED = "7c2e6a3e-0a36-4a0e-9b1d-1f2a3b4c5d6e"
OTHER = "0b8b1d3a-5a64-4b7e-8a55-5d6e7f8a9b0c"


def looked(run: Run) -> list[Reconciled]:
    return [event for event in run.heard if isinstance(event, Reconciled)]


async def test_a_submit_without_an_answer_is_found_and_done_within_the_run() -> None:
    run = Run(jobs=3)
    swallowing(run, "found")
    assert await run.run() is None
    assert run.store.states() == [State.DONE] * 3
    assert run.events_of(1) == [
        Event.SUBMIT_STARTED,
        Event.NO_ANSWER,
        Event.FOUND,
        Event.RESULT_STORED,
        Event.FILES_STORED,
    ]
    assert run.store.requests["found"] == 1
    assert len(run.queue.submits) == 3
    assert run.counter.found == 1
    assert run.counter.ended == {State.DONE: 3, State.UNKNOWN: 0}
    assert run.counter.failed == 0


async def test_what_is_found_is_recorded_as_it_was_sent() -> None:
    run = Run(jobs=0, others=(unknown(1, reserved=7),))
    run.requests.listed[X].append(listed("found", 1, sent_at=UNIX_AT_START - 1.5))
    await run.run()
    (found,) = run.store.of_kind(changes.RequestFound)
    assert (found.job_id, found.attempt, found.request_id) == (1, 1, "found")
    assert (found.accepted_at, found.event, found.cost) == (UNIX_AT_START - 1.5, Event.FOUND, 7)


async def test_what_is_not_listed_yet_is_looked_for_again_with_growing_pauses_until_the_patience_is_over() -> None:
    run = Run()
    run.queue.on_submit.then(unanswered())
    assert await run.run() is None
    assert run.store.states() == [State.UNKNOWN]
    times = run.requests.looks_s()
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] == pytest.approx(2.0, abs=0.1)
    assert pauses[:-1] == pytest.approx(sorted(pauses[:-1]))
    assert times[-1] == pytest.approx(PATIENCE_UNKNOWN_S, abs=0.1)
    assert len(times) < 10
    assert looked(run)[-1] == Reconciled(0, 1, 0.0)
    assert [event.patience_s > 0 for event in looked(run)[:-1]] == [True] * (len(times) - 1)


async def test_what_is_listed_late_is_found_late() -> None:
    run = Run()
    swallowing(run, "late", after_s=40.0)
    assert await run.run() is None
    assert run.store.states() == [State.DONE]
    assert 40.0 < anyio.current_time() < 62.0


@pytest.mark.parametrize("wait_s", [0.0, 7.0, 300.0])
async def test_the_user_may_say_how_long_to_look(wait_s: float) -> None:
    run = Run(settings=settings_with(reconcile_s=wait_s))
    run.queue.on_submit.then(unanswered())
    await run.run()
    assert anyio.current_time() == pytest.approx(wait_s, abs=0.2)
    assert len(run.requests.looks_s()) >= 1


async def test_patience_goes_by_how_long_the_endpoints_jobs_take() -> None:
    run = Run(jobs=31, settings=settings_with(in_flight=30))
    run.queue.service_s = 100.0
    run.queue.on_submit.then(*[run.queue._accept] * 30, unanswered())
    await run.run()
    lost_s = run.queue.submits[-1][0]
    assert 390 <= run.requests.looks_s()[-1] - lost_s <= 600


async def test_the_other_jobs_go_on_while_one_is_looked_for() -> None:
    run = Run(jobs=50, settings=settings_with(in_flight=2, reconcile_s=600.0))
    swallowing(run, "late", after_s=300.0)
    await run.run()
    assert run.store.states() == [State.DONE] * 50
    assert run.queue.submits[-1][0] < 60


async def test_a_run_without_lost_submits_never_asks_for_the_list() -> None:
    run = Run(jobs=5)
    await run.run()
    assert run.requests.asked == []
    assert looked(run) == []


async def test_unknown_jobs_of_earlier_runs_are_looked_for_at_once() -> None:
    run = Run(jobs=0, others=(unknown(1),))
    run.requests.listed[X].append(listed("found", 1))
    await run.run()
    assert run.store.states() == [State.DONE]
    assert run.requests.looks_s() == [pytest.approx(0.0, abs=0.01)]


async def test_after_their_patience_unknown_jobs_of_earlier_runs_are_looked_for_once() -> None:
    run = Run(jobs=0, others=(unknown(1),), attempts={(1, 1): lost_before(3600)})
    await run.run()
    assert len(run.requests.looks_s()) == 1
    assert anyio.current_time() < 1
    assert run.store.states() == [State.UNKNOWN]


@pytest.mark.parametrize(
    "error",
    [unanswered(), http(500), gateway(502), refused(), refused(5.0), TransportError("dns", sent=False, kind="dns")],
    ids=str,
)
async def test_a_list_that_fails_is_asked_for_again(error: WireError) -> None:
    run = Run()
    swallowing(run, "found")
    run.requests.on_page.then(error, error, error)
    assert await run.run() is None
    assert run.store.states() == [State.DONE]
    assert [event.trouble for event in looked(run)] == [str(error)] * 3 + [""]
    assert run.counter.trouble == ""


@pytest.mark.parametrize(
    "error",
    [
        *(http(status) for status in (401, 402, 403, 404)),
        TransportError("this fal has no platform API", sent=False, kind="no_platform"),
    ],
    ids=str,
)
async def test_a_list_that_can_never_be_read_is_given_up_with_its_reason(error: WireError) -> None:
    run = Run(jobs=3, settings=settings_with(in_flight=1))
    run.queue.on_submit.then(unanswered(), unanswered())
    run.queue.service_s = 30.0
    run.requests.on_page.default = error
    assert await run.run() is None, "the run itself lacks nothing"
    assert len(run.requests.asked) == 1
    assert looked(run) == [Reconciled(0, 2, 0.0, str(error))]
    assert run.counter.trouble == str(error)
    assert run.store.states() == [State.UNKNOWN, State.UNKNOWN, State.DONE]


async def test_all_pages_of_the_list_are_read() -> None:
    run = Run(jobs=0, others=(unknown(1), unknown(2)))
    run.requests.on_page.then(FakePage((listed("a", 1),), "next"), FakePage((), "last"), FakePage((listed("b", 2),)))
    await run.run()
    assert [(endpoint, cursor) for _, endpoint, _, cursor in run.requests.asked] == [
        (X, None),
        (X, "next"),
        (X, "last"),
    ]
    assert run.store.states() == [State.DONE] * 2


async def test_a_list_without_end_is_read_so_far_and_no_further() -> None:
    run = Run(jobs=0, others=(unknown(1),), settings=settings_with(reconcile_s=0.0))
    run.requests.on_page.default = FakePage((listed("a", 2),), "more")
    await run.run()
    assert len(run.requests.asked) == PAGES_MOST


async def test_the_list_is_read_from_before_the_first_of_the_lost_submits() -> None:
    y = unknown(3, endpoint="fal-ai/y")
    others = (unknown(1), unknown(2), y)
    attempts = {(2, 1): lost_before(5000)}
    run = Run(jobs=0, others=others, attempts=attempts, settings=settings_with(reconcile_s=0.0))
    await run.run()
    asked = {(endpoint, since) for _, endpoint, since, _ in run.requests.asked}
    assert asked == {(X, UNIX_AT_START - 5000 - SKEW_S), ("fal-ai/y", UNIX_AT_START - 2 - SKEW_S)}


async def test_each_endpoint_has_its_own_list() -> None:
    """The same input was sent to both."""
    run = Run(jobs=0, others=(unknown(1), replica(2, endpoint="fal-ai/y", state=State.UNKNOWN, attempts=1)))
    run.requests.listed["fal-ai/y"].append(listed("y", 1))
    await run.run()
    assert run.store.states() == [State.UNKNOWN, State.DONE]


@pytest.mark.parametrize("scope", [Scope.PAID, Scope.ALL])
async def test_looking_submits_nothing(scope: Scope) -> None:
    run = Run(jobs=0, others=(unknown(1), unknown(2)), settings=settings_with(scope=scope))
    run.requests.listed[X].append(listed("found", 1))
    assert await run.run() is None
    assert run.store.states() == [State.DONE, State.UNKNOWN]
    assert run.queue.submits == []


async def test_planned_jobs_stay_planned_where_only_what_is_paid_is_brought_home() -> None:
    run = Run(jobs=5, others=(unknown(9),), settings=settings_with(scope=Scope.PAID))
    run.requests.listed[X].append(listed("found", 9))
    assert await run.run() is None
    assert run.store.states() == [State.PLANNED] * 5 + [State.DONE]
    assert run.queue.submits == []


async def test_fetching_files_only_asks_nothing() -> None:
    run = Run(jobs=0, others=(unknown(1),), settings=settings_with(scope=Scope.FILES))
    await run.run()
    assert run.requests.asked == []


async def test_found_jobs_come_home_after_the_gate_was_closed() -> None:
    run = Run(jobs=40, settings=settings_with(in_flight=8))
    swallowing(run, *(f"f{number}" for number in range(8)), after_s=20.0)
    assert isinstance(await run.run(), FalUnreachable)
    assert run.store.states() == [State.DONE] * 8 + [State.PLANNED] * 32


async def test_a_found_request_that_fails_is_tried_again_like_any_other() -> None:
    run = Run(jobs=1)
    swallowing(run, "found")
    run.queue.on_result.then(*[http(503, "runner_disconnected")] * OUTCOME_LOOKS)
    await run.run()
    assert run.store.states() == [State.DONE]
    assert run.events_of(1).count(Event.ATTEMPT_FAILED) == 1
    assert len(run.queue.submits) == 2


async def test_a_stop_while_it_looks_or_waits_to_look_ends_at_once() -> None:
    for pause_s in (0.0, 50.0):
        run = Run(jobs=0, others=(unknown(1),))
        run.requests.latency_s = pause_s
        began_s = anyio.current_time()
        await stopped_after(run, 5.0)
        assert anyio.current_time() - began_s < 5.1
        assert run.store.states() == [State.UNKNOWN]
