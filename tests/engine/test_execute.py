"""A run over all stages: what is paid comes first, the window holds, failures and stops end it as they should."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falbatch.core import changes
from falbatch.core.backoff import BackoffPolicy
from falbatch.core.events import JobTriedAgain, RunEvent, RunStopping
from falbatch.core.record import StoredResult
from falbatch.core.state import Event, State
from falbatch.engine.execute import DOWNLOADS_AHEAD
from falbatch.engine.result import NOT_YET_LOOKS, OUTCOME_LOOKS, READS
from falbatch.engine.settings import failure_limit
from falbatch.engine.stop import GRACE_S
from falbatch.errors import (
    CredentialsError,
    DiskFull,
    FalUnreachable,
    HttpError,
    LimitReached,
    ReplyError,
)
from tests.engine.fakes import (
    ONE_IMAGE,
    FakeProgress,
    FakeResult,
    VirtualLoop,
    gateway,
    http,
    refused,
    unanswered,
    unsent,
)
from tests.engine.runs import Run, at_fal, settings_with, stopped_after, with_result

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


async def test_a_job_goes_through_its_stages_in_order() -> None:
    run = Run()
    assert await run.run() is None
    assert run.log == [
        "submit_started 1",
        "submit fal-ai/x",
        "accepted 1",
        "result r0",
        "result_stored 1",
        "FileReady 1",
        "rename n1.png",
        "files_stored 1",
    ]
    assert run.store.states() == [State.DONE]
    assert run.files.disk == {"n1.png": b"https://cdn/a.png"}
    assert run.ended() == [State.DONE]
    (stored,) = run.store.of_kind(changes.ResultStored)
    assert (stored.body, stored.billable_units, stored.inference_s) == (ONE_IMAGE, 1.0, None)


async def test_many_jobs_are_all_done_once() -> None:
    run = Run(jobs=300)
    assert await run.run() is None
    assert run.store.states() == [State.DONE] * 300
    assert len(run.queue.submits) == 300
    assert run.counter.ended == {State.DONE: 300}
    assert (run.counter.at_fal, run.counter.downloading) == (0, 0)


async def test_nothing_to_do_ends_at_once() -> None:
    run = Run(jobs=0)
    assert await run.run() is None
    assert anyio.current_time() < 1


async def test_the_window_is_never_overfilled() -> None:
    run = Run(jobs=40, settings=settings_with(in_flight=5))
    assert await run.run() is None
    assert run.most_at_fal == 5
    assert run.store.states() == [State.DONE] * 40


async def test_what_is_paid_comes_first() -> None:
    run = Run(jobs=8, settings=settings_with(in_flight=2), paid=(at_fal(6), at_fal(7)))
    await run.run()
    assert run.store.states() == [State.DONE] * 8
    assert len(run.queue.submits) == 6
    assert run.log.index("result_stored 6") < run.log.index("submit_started 1")


async def test_a_stored_result_is_downloaded_without_asking_fal() -> None:
    run = Run(jobs=1, paid=(with_result(1),))
    run.store.stored[1] = StoredResult(ONE_IMAGE, "application/json")
    await run.run()
    assert run.store.states() == [State.DONE]
    assert run.queue.submits == run.queue.polls == run.queue.results == []


async def test_many_stored_results_are_not_all_read_into_memory_at_once() -> None:
    run = Run(jobs=0, paid=tuple(with_result(number) for number in range(1, 201)), settings=settings_with(downloads=2))
    for number in range(1, 201):
        run.store.stored[number] = StoredResult(ONE_IMAGE, "application/json")
    most = 0

    original = run.execution._deps.listen

    def listen(event: RunEvent) -> None:
        nonlocal most
        original(event)
        most = max(most, run.counter.downloading)

    run.execution._deps = replace(run.execution._deps, listen=listen)
    await run.run()
    assert run.store.states() == [State.DONE] * 200
    assert most <= DOWNLOADS_AHEAD * 2 + 1


async def test_an_earlier_runs_request_that_fails_is_submitted_again_by_nobody_else() -> None:
    """Its job turns `planned` while the feeder still reads planned jobs."""
    slowly = BackoffPolicy(60.0, 60.0)  # 30 s between the failure and the further attempt
    run = Run(jobs=300, paid=(at_fal(290),), settings=settings_with(in_flight=64, backoff=slowly))
    run.queue.on_result.then(*[http(503, "runner_disconnected")] * OUTCOME_LOOKS)
    assert await run.run() is None
    assert run.store.states() == [State.DONE] * 300
    assert run.events_of(290).count(Event.ACCEPTED) == 1


async def test_a_job_that_left_the_manifest_is_brought_home_but_gets_no_further_attempt() -> None:
    run = Run(jobs=0, paid=(at_fal(1, seq=None), at_fal(2, seq=None)))
    run.queue.on_result.default = lambda request: (
        http(503, "runner_disconnected") if request.request_id == "old1" else FakeResult(ONE_IMAGE)
    )
    await run.run()
    assert run.store.states() == [State.FAILED, State.DONE]
    assert run.queue.submits == []


async def test_without_files_results_are_stored_and_nothing_is_fetched() -> None:
    run = Run(jobs=2, paid=(with_result(2),), settings=settings_with(with_files=False))
    run.store.stored[2] = StoredResult(ONE_IMAGE, "application/json")
    await run.run()
    assert run.store.states() == [State.COMPLETED, State.COMPLETED]
    assert run.files.fetches == []


async def test_completed_is_read_three_ways() -> None:
    """A result; an error of the job, passing or final; or "ask again"."""
    run = Run(jobs=4)
    answers: dict[str, list[FakeResult | HttpError]] = {
        "r0": [FakeResult(ONE_IMAGE)],
        "r1": [http(422, "content_policy_violation", billable_units=0.0)],
        "r2": [gateway(502), gateway(504), FakeResult(ONE_IMAGE)],
        "r3": [http(500, "internal_error")] * OUTCOME_LOOKS,
    }
    run.queue.on_result.default = lambda request: (
        answers[request.request_id].pop(0) if request.request_id in answers else FakeResult(ONE_IMAGE)
    )
    await run.run()
    assert run.store.states() == [State.DONE, State.FAILED, State.DONE, State.DONE]
    assert len(run.queue.submits) == 5
    (failed, again) = run.store.of_kind(changes.RequestEnded)
    assert (failed.event, failed.failure.error_type, failed.billable_units) == (
        Event.REQUEST_FAILED,
        "content_policy_violation",
        0.0,
    )
    assert (again.event, again.failure.error_type) == (Event.ATTEMPT_FAILED, "internal_error")
    assert [event.name for event in run.heard if isinstance(event, JobTriedAgain)] == ["n4"]


@pytest.mark.parametrize(
    ("error", "state", "error_type"),
    [
        (http(499, "client_cancelled"), State.CANCELLED, "client_cancelled"),
        (http(422, "missing"), State.FAILED, "missing"),
        (http(504, "request_timeout", timeout_type="user"), State.FAILED, "request_timeout"),
        (http(404), State.FAILED, "result_gone"),
    ],
    ids=str,
)
async def test_a_request_may_end_without_a_result(error: HttpError, state: State, error_type: str) -> None:
    run = Run()
    run.queue.on_result.default = error
    await run.run()
    assert run.store.states() == [state]
    assert run.store.of_kind(changes.RequestEnded)[0].failure.error_type == error_type
    assert run.ended() == [state]
    assert len(run.queue.submits) == 1


async def test_a_result_that_is_not_there_yet_is_looked_for_again_soon() -> None:
    run = Run()
    run.queue.service_s = 20.0
    run.queue.on_result.then(http(400), http(404), http(400))
    await run.run()
    assert run.store.states() == [State.DONE]
    assert anyio.current_time() < 20 * 1.3 + 5


async def test_a_second_look_is_soon_however_long_requests_take() -> None:
    run = Run(jobs=15, settings=settings_with(in_flight=1))
    run.queue.service_s = 100.0
    late = [http(400)]
    run.queue.on_result.default = lambda request: (
        late.pop() if request.request_id == "r14" and late else FakeResult(ONE_IMAGE)
    )
    await run.run()
    (first_s, _), (second_s, _) = [look for look in run.queue.results if look[1] == "r14"]
    assert 1.0 <= second_s - first_s <= 1.5


async def test_a_result_that_never_comes_is_not_looked_for_without_end() -> None:
    """An app that answers 400 without a type looks like "not yet"."""
    run = Run()
    run.queue.on_result.default = http(400)
    await run.run()
    assert run.store.states() == [State.FAILED]
    assert len(run.queue.results) == NOT_YET_LOOKS


async def test_a_fal_that_falls_silent_before_the_result_ends_the_run() -> None:
    run = Run()
    run.queue.on_result.default = unanswered()
    await run.run()
    assert run.store.states() == [State.SUBMITTED]
    assert isinstance(run.execution.ended_by, FalUnreachable)


@pytest.mark.parametrize("error", [gateway(502), ReplyError("cut")], ids=str)
async def test_a_result_that_cannot_be_read_stays_at_fal_for_another_run(
    error: HttpError | ReplyError,
) -> None:
    run = Run()
    run.queue.on_result.default = error
    await run.run()
    assert run.store.states() == [State.SUBMITTED]
    assert len(run.queue.results) == READS
    assert 1 in run.store.stuck
    assert run.ended() == [State.SUBMITTED]


async def test_a_job_is_tried_as_often_as_allowed_with_growing_pauses() -> None:
    run = Run(settings=settings_with(attempts=3))
    run.queue.on_result.default = http(503, "runner_disconnected")
    await run.run()
    assert run.store.states() == [State.FAILED]
    assert len(run.queue.submits) == 3
    assert run.events_of(1).count(Event.ATTEMPT_FAILED) == 2
    assert [pause_s for pause_s in run.clock.slept_s if pause_s in {0.5, 1.0, 2.0}] == [0.5, 1.0]


async def test_failures_of_earlier_runs_count() -> None:
    run = Run(jobs=0, paid=(at_fal(1, failures=3),))
    run.queue.on_result.default = http(503, "runner_disconnected")
    await run.run()
    assert run.store.states() == [State.FAILED]
    assert run.queue.submits == []


async def test_the_whole_batch_has_a_budget_for_further_attempts() -> None:
    """10 are always allowed, then a fifth of what was submitted: a broken endpoint is not paid for four times."""
    run = Run(jobs=100, settings=settings_with(max_equal_failures=None))
    run.queue.on_result.default = http(503, "runner_disconnected")
    await run.run()
    assert run.store.states() == [State.FAILED] * 100
    again = len(run.queue.submits) - 100
    assert 30 <= again <= 10 + 0.2 * len(run.queue.submits) + 1


async def test_the_failure_limit_closes_the_gate_and_brings_home_what_is_paid() -> None:
    run = Run(jobs=200, settings=settings_with(max_failures=3, in_flight=4))
    run.queue.on_result.then(*[http(422, "missing")] * 4)
    error = await run.run()
    assert isinstance(error, LimitReached)
    states = run.store.states()
    assert states.count(State.FAILED) == 4
    assert states.count(State.PLANNED) > 150
    assert set(states) == {State.FAILED, State.DONE, State.PLANNED}


async def test_failures_up_to_the_limit_are_accepted() -> None:
    run = Run(jobs=20, settings=settings_with(max_failures=3))
    run.queue.on_result.then(*[http(422, "missing")] * 3)
    assert await run.run() is None
    assert run.store.states().count(State.DONE) == 17


async def test_account_trouble_stops_submits_while_polling_and_downloads_go_on() -> None:
    run = Run(jobs=10, paid=(at_fal(9),), settings=settings_with(in_flight=3))
    run.queue.on_submit.default = http(403)
    run.queue.on_status.then(FakeProgress("IN_PROGRESS"), FakeProgress("IN_PROGRESS"))
    error = await run.run()
    assert isinstance(error, CredentialsError)
    states = run.store.states()
    assert states[8] is State.DONE
    assert states.count(State.PLANNED) == 9


async def test_a_key_that_is_refused_for_reads_closes_the_gate_and_leaves_the_jobs_at_fal() -> None:
    run = Run(jobs=9, settings=settings_with(in_flight=3))
    run.queue.on_status.default = http(401)
    error = await run.run()
    assert isinstance(error, CredentialsError)
    assert run.store.states() == [State.SUBMITTED] * 3 + [State.PLANNED] * 6
    assert set(run.store.stuck) == {1, 2, 3}
    assert run.ended() == [State.SUBMITTED] * 3
    assert run.counter.stuck == 3


async def test_a_key_that_is_refused_for_reads_keeps_no_download_from_its_end() -> None:
    run = Run(jobs=1, paid=(with_result(2),))
    run.store.stored[2] = StoredResult(ONE_IMAGE, "application/json")
    run.files.latency_s = 500.0
    run.queue.on_status.default = http(401)
    assert isinstance(await run.run(), CredentialsError)
    assert run.store.states() == [State.SUBMITTED, State.DONE]
    assert not [event for event in run.heard if isinstance(event, RunStopping)]


async def test_one_result_that_is_refused_keeps_no_other_from_coming_home() -> None:
    """Who refuses is not said: the request stays as it is, and the run goes on."""
    run = Run(jobs=3)
    run.queue.on_result.then(http(403))
    assert await run.run() is None
    assert sorted(run.store.states()) == [State.DONE, State.DONE, State.SUBMITTED]


async def test_a_passing_moment_of_the_results_door_buys_no_second_run() -> None:
    run = Run(jobs=1)
    run.queue.on_result.then(http(500, "internal_error"))
    assert await run.run() is None
    assert run.store.states() == [State.DONE]
    assert len(run.queue.submits) == 1


async def test_no_network_ends_the_run_with_every_job_as_it_was() -> None:
    run = Run(jobs=3)
    run.queue.on_submit.default = unsent()
    assert isinstance(await run.run(), FalUnreachable)
    assert run.store.states() == [State.PLANNED] * 3


async def test_submits_without_answers_close_the_gate_before_all_jobs_are_unknown() -> None:
    run = Run(jobs=100, settings=settings_with(in_flight=2))
    run.queue.on_submit.default = unanswered()
    assert isinstance(await run.run(), FalUnreachable)
    unknown = run.store.states().count(State.UNKNOWN)
    assert 8 <= unknown <= 9
    assert run.store.states().count(State.PLANNED) == 100 - unknown


async def test_a_full_disk_ends_the_run_and_keeps_what_is_known() -> None:
    run = Run(jobs=30, settings=settings_with(in_flight=3))
    run.files.fails_to_publish.append(DiskFull("no space left"))
    assert isinstance(await run.run(), DiskFull)
    states = run.store.states()
    assert State.COMPLETED in states
    assert State.FAILED not in states
    assert State.SUBMITTING not in states


async def test_a_stop_submits_nothing_new_and_releases_who_waits() -> None:
    run = Run(jobs=50, settings=settings_with(in_flight=5))
    run.queue.service_s = 3600.0
    await stopped_after(run, 10.0)
    assert anyio.current_time() < 10.1
    assert run.store.states().count(State.SUBMITTED) == 5
    assert run.store.states().count(State.PLANNED) == 45
    assert run.stop.reason == "SIGINT"
    assert RunStopping("SIGINT") in run.heard
    assert run.execution.ended_by is None


async def test_a_stop_lets_submits_under_way_be_recorded() -> None:
    run = Run(jobs=50, settings=settings_with(in_flight=5))
    run.queue.latency_s = 4.0
    await stopped_after(run, 1.0)
    assert run.store.states().count(State.SUBMITTED) == 5
    assert run.store.states().count(State.PLANNED) == 45
    assert len(run.queue.submits) == 5
    assert anyio.current_time() < 5


async def test_a_stop_waits_for_no_submit_longer_than_its_grace() -> None:
    run = Run(jobs=3)
    run.queue.latency_s = 1000.0
    await stopped_after(run, 1.0)
    assert anyio.current_time() == pytest.approx(1 + GRACE_S, abs=0.1)
    assert run.store.states() == [State.SUBMITTING] * 3


async def test_a_stop_during_a_pause_after_a_refusal_ends_at_once() -> None:
    run = Run(jobs=5)
    run.queue.on_submit.default = refused(600.0)
    await stopped_after(run, 5.0)
    assert anyio.current_time() < 5.1
    assert run.store.states() == [State.PLANNED] * 5


async def test_an_execution_that_is_stopped_before_it_runs_does_nothing() -> None:
    run = Run(jobs=5)
    run.execution.stop("SIGINT")
    await run.run()
    assert run.queue.submits == []
    assert run.store.states() == [State.PLANNED] * 5


@pytest.mark.parametrize(
    ("count", "share", "total", "limit"),
    [
        (None, None, 100, None),
        (0, None, 100, 0),
        (7, None, 5, 7),
        (None, 0.05, 100, 5),
        (None, 0.05, 30, 1),
        (None, 0.0, 9, 0),
    ],
)
def test_a_failure_limit_is_a_count_or_a_share_of_all_jobs(
    count: int | None, share: float | None, total: int, limit: int | None
) -> None:
    assert failure_limit(count, share, total) == limit


SUBMITS = [None, refused(), unsent(), unanswered(), http(404), gateway(502)]
RESULTS: list[Callable[[], FakeResult | HttpError | ReplyError]] = [
    lambda: FakeResult(ONE_IMAGE),
    lambda: http(422, "missing"),
    lambda: http(503, "runner_disconnected"),
    lambda: http(499),
    lambda: gateway(502),
    lambda: http(400),
    lambda: http(404),
    lambda: ReplyError("cut"),
]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(SUBMITS), max_size=15),
    st.lists(st.sampled_from(RESULTS), max_size=15),
    st.integers(0, 8),
    st.one_of(st.none(), st.floats(min_value=0, max_value=20)),
)
def test_whatever_fal_answers_and_whenever_it_is_stopped_a_run_keeps_the_table_and_pays_once(
    submits: list[HttpError | None], results: list[Callable[[], FakeResult]], jobs: int, stop_after_s: float | None
) -> None:
    """The store raises on any event that the table does not allow, so ending without an error is half of the test."""

    async def scenario() -> None:
        run = Run(jobs=jobs)
        run.queue.on_submit.then(*(run.queue._accept if answer is None else answer for answer in submits))
        run.queue.on_result.then(*(answer() for answer in results))
        if stop_after_s is None:
            await run.run()
            assert not {State.SUBMITTING, State.COMPLETED} & set(run.store.states())
        else:
            await stopped_after(run, stop_after_s)
        for number in range(1, jobs + 1):
            story = run.events_of(number)
            for place, event in enumerate(story):
                if event is Event.SUBMIT_STARTED and place:
                    assert story[place - 1] in {Event.REFUSED, Event.ATTEMPT_FAILED}
            assert story.count(Event.ACCEPTED) <= 1 + story.count(Event.ATTEMPT_FAILED)

    anyio.run(scenario, backend_options={"loop_factory": VirtualLoop})
