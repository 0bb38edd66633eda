"""Direct calls in a whole run: intent, one call, one entry with acceptance and outcome; unknown is never repeated."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falbatch.core import changes
from falbatch.core.events import JobEnded, Notice
from falbatch.core.model import Mode
from falbatch.core.money import Price
from falbatch.core.pacing import DIRECT_AT_ONCE
from falbatch.core.record import StoredResult
from falbatch.core.state import Event, State
from falbatch.engine.direct import DIRECT_GRACE_S, OWN_ID, ROOM_S
from falbatch.engine.wanted import EVENTS
from falbatch.errors import CredentialsError, DiskFull, FalUnreachable, HttpError, ReplyError, WireError
from tests.engine.fakes import (
    ONE_IMAGE,
    FakeAnswer,
    VirtualLoop,
    gateway,
    http,
    planned,
    refused,
    unanswered,
    unsent,
)
from tests.engine.runs import Run, settings_with

if TYPE_CHECKING:
    from falbatch.engine.settings import ExecuteSettings

pytestmark = pytest.mark.anyio

HOUR = Price(10**9, "requests", 0.0)


def direct(count: int = 1, mode: Mode = Mode.RUN, limits: ExecuteSettings | None = None, **more: Any) -> Run:
    """A run over direct jobs."""
    jobs = tuple(planned(number, mode=mode) for number in range(1, count + 1))
    return Run(jobs=0, others=jobs, settings=limits or settings_with(mode=mode, reconcile_s=0.0), **more)


def own(status: int, **more: Any) -> HttpError:
    """A failure of the request itself."""
    return http(status, **{"request_id": str(uuid4()), **more})


async def test_a_direct_job_is_one_call_with_its_outcome_in_one_entry() -> None:
    run = direct()
    request_id = str(uuid4())
    run.direct.on_call.then(FakeAnswer(ONE_IMAGE, request_id=request_id.upper()))
    assert await run.run() is None
    assert run.log[:4] == ["submit_started 1", "run fal-ai/x", "accepted 1", "result_stored 1"]
    assert run.store.states() == [State.DONE]
    (accepted,) = run.store.of_kind(changes.SubmitAccepted)
    assert accepted.request_id == request_id
    assert run.queue.submits == run.queue.polls == run.queue.results == []
    assert run.files.disk["n1.png"] == b"https://cdn/a.png"


async def test_acceptance_and_result_are_one_call_of_the_store() -> None:
    run = direct()
    together: list[tuple[str, ...]] = []
    record = run.store.record

    async def watched(*happened: changes.Change) -> None:
        together.append(tuple(type(change).__name__ for change in happened))
        await record(*happened)

    run.store.record = watched  # type: ignore[method-assign]
    await run.run()
    assert together[:2] == [("SubmitStarted",), ("SubmitAccepted", "ResultStored")]


@pytest.mark.parametrize("named", ["", "not a uuid", "../../etc"])
async def test_a_call_that_fal_did_not_name_gets_an_id_that_shows_it(named: str) -> None:
    run = direct()
    run.direct.on_call.then(FakeAnswer(ONE_IMAGE, request_id=named))
    await run.run()
    (accepted,) = run.store.of_kind(changes.SubmitAccepted)
    assert accepted.request_id.startswith(OWN_ID)
    UUID(accepted.request_id.removeprefix(OWN_ID))


async def test_an_id_that_comes_twice_is_the_first_job_s_and_no_answer_is_lost() -> None:
    run = direct(3)
    run.direct.on_call.default = FakeAnswer(ONE_IMAGE, request_id=str(uuid4()))
    await run.run()
    ids = [one.request_id for one in run.store.of_kind(changes.SubmitAccepted)]
    assert len(set(ids)) == 3
    assert [one.startswith(OWN_ID) for one in ids].count(True) == 2
    assert run.store.states() == [State.DONE] * 3


async def test_no_answer_is_unknown_and_never_repeated() -> None:
    for error in (unanswered(), ReplyError("cut"), gateway(502), http(500), http(408), gateway(499)):
        run = direct()
        run.direct.on_call.then(error)
        await run.run()
        assert run.store.states() == [State.UNKNOWN], error
        assert len(run.direct.calls) == 1


async def test_a_429_costs_no_attempt_and_no_budget_and_is_tried_again() -> None:
    run = direct(limits=settings_with(mode=Mode.RUN, attempts=1, retry_ratio=0.0))
    run.direct.on_call.then(*(refused() for _ in range(15)))
    assert await run.run() is None
    assert run.store.states() == [State.DONE]
    assert run.store.jobs[1].failures == 0
    assert len(run.direct.calls) == 16
    assert run.counter.refusals == 15
    assert run.counter.further_attempts == 0


async def test_what_was_never_sent_is_tried_again() -> None:
    run = direct()
    run.direct.on_call.then(unsent(), unsent())
    assert await run.run() is None
    assert run.events_of(1)[:4] == [*(Event.SUBMIT_STARTED, Event.REFUSED) * 2]
    assert run.store.states() == [State.DONE]


async def test_a_refused_account_closes_the_gate_and_marks_nothing_failed() -> None:
    run = direct(5, limits=settings_with(mode=Mode.RUN, in_flight=2))
    run.direct.on_call.default = gateway(403)
    ended = await run.run()
    assert isinstance(ended, CredentialsError)
    assert set(run.store.states()) == {State.PLANNED}
    assert len(run.direct.calls) <= 2


async def test_an_error_of_the_request_s_own_fails_the_job_with_its_text() -> None:
    run = direct()
    run.direct.on_call.then(own(422, error_type="content_policy_violation"))
    await run.run()
    assert run.log[2:] == ["accepted 1", "request_failed 1"]
    assert run.store.states() == [State.FAILED]
    (ended,) = run.store.of_kind(changes.RequestEnded)
    assert ended.failure.error_type == "content_policy_violation"
    assert ended.failure.message == "answer 422"
    assert ended.failure.http_status == 422


async def test_a_rejection_in_front_of_the_app_has_no_request() -> None:
    run = direct()
    run.direct.on_call.then(gateway(404))
    await run.run()
    assert run.store.states() == [State.FAILED]
    assert run.store.of_kind(changes.SubmitAccepted) == []


async def test_somebody_else_s_cancel_is_told_as_such() -> None:
    run = direct()
    run.direct.on_call.then(own(499, error_type="client_cancelled"))
    await run.run()
    assert run.store.states() == [State.CANCELLED]


async def test_fal_s_own_word_brings_another_attempt_and_its_absence_does_not() -> None:
    run = direct()
    run.direct.on_call.then(own(503, retryable=True), own(500, retryable=True))
    await run.run()
    assert run.store.states() == [State.DONE]
    assert run.store.jobs[1].failures == 2
    assert run.counter.further_attempts == 2
    plain = direct()
    plain.direct.on_call.then(own(503, error_type="runner_disconnected"))
    await plain.run()
    assert plain.store.states() == [State.FAILED]
    assert len(plain.direct.calls) == 1


async def test_attempts_are_bounded() -> None:
    run = direct(limits=settings_with(mode=Mode.RUN, attempts=3))
    run.direct.on_call.default = lambda _body: own(503, retryable=True)
    await run.run()
    assert run.store.states() == [State.FAILED]
    assert len(run.direct.calls) == 3


async def test_calls_swallowed_in_a_row_end_the_run() -> None:
    run = direct(100, limits=settings_with(mode=Mode.RUN, in_flight=2, reconcile_s=0.0))
    run.direct.on_call.default = lambda _body: unanswered()
    assert isinstance(await run.run(), FalUnreachable)
    assert run.store.states().count(State.UNKNOWN) <= 10


@pytest.mark.parametrize("room", [1, 7])
async def test_a_fixed_window_holds_for_calls(room: int) -> None:
    run = direct(30, limits=settings_with(mode=Mode.RUN, in_flight=room))
    await run.run()
    assert run.direct.most_under_way == room
    assert run.store.states() == [State.DONE] * 30


async def test_no_window_is_larger_than_the_connections_for_it() -> None:
    run = direct(600, limits=settings_with(mode=Mode.RUN, in_flight=600, downloads=200))
    run.direct.service_s = 30.0
    await run.run()
    assert run.direct.most_under_way == DIRECT_AT_ONCE


async def test_realtime_calls_are_as_many_as_connections() -> None:
    for limits in (settings_with(mode=Mode.REALTIME, connections=3), settings_with(mode=Mode.REALTIME, in_flight=3)):
        run = direct(20, Mode.REALTIME, limits)
        await run.run()
        assert run.direct.most_under_way == 3


async def test_a_cut_window_holds_back_jobs_that_have_their_places_already() -> None:
    """fal runs two at a time: after the first refusals few calls leave in vain."""
    run = direct(60)
    run.direct.service_s = 0.5
    running = 0

    async def limited(_body: bytes) -> FakeAnswer | WireError:
        nonlocal running
        if running >= 2:
            return refused()
        running += 1
        await anyio.sleep(1.0)
        running -= 1
        return FakeAnswer(ONE_IMAGE)

    run.direct.on_call.default = limited
    assert await run.run() is None
    assert run.store.states() == [State.DONE] * 60
    assert run.counter.refusals < 60


async def test_a_stop_waits_for_calls_under_way_and_says_so() -> None:
    run = direct(10, limits=settings_with(mode=Mode.RUN, in_flight=3))
    run.direct.service_s = 60.0
    async with anyio.create_task_group() as group:
        group.start_soon(run.run)
        await anyio.sleep(5.0)
        run.execution.stop("SIGINT")
        run.execution.stop("SIGINT")
    assert run.store.states().count(State.COMPLETED) == 3
    assert run.store.states().count(State.PLANNED) == 7
    (notice,) = [event for event in run.heard if isinstance(event, Notice)]
    assert "3 direct calls are under way" in notice.text
    assert anyio.current_time() < 62


async def test_a_stop_waits_for_two_minutes_at_most() -> None:
    run = direct(3)
    run.direct.service_s = 3600.0
    async with anyio.create_task_group() as group:
        group.start_soon(run.run)
        await anyio.sleep(1.0)
        run.execution.stop("SIGINT")
    assert anyio.current_time() == pytest.approx(1.0 + DIRECT_GRACE_S, abs=1.0)
    assert run.store.states() == [State.SUBMITTING] * 3  # unknown, when the file is opened again


async def test_events_of_a_stream_lie_beside_the_result() -> None:
    run = direct(1, Mode.STREAM)
    lines = b'{"images":[]}\n' + ONE_IMAGE + b"\n"
    run.direct.on_call.then(FakeAnswer(ONE_IMAGE, events=lines))
    await run.run()
    assert run.store.stored[1] == StoredResult(ONE_IMAGE, "application/json", lines)
    assert run.files.disk["n1" + EVENTS] == lines
    assert run.files.disk["n1.png"]
    assert set(run.files.disk) == {"n1.png", "n1" + EVENTS}


async def test_events_are_never_counted_among_the_pictures() -> None:
    two = b'{"images":[{"url":"https://cdn/a.png"},{"url":"https://cdn/b.png"}]}'
    run = direct(1, Mode.STREAM)
    run.direct.on_call.then(FakeAnswer(two, events=two + b"\n"))
    await run.run()
    assert set(run.files.disk) == {"n1-1.png", "n1-2.png", "n1" + EVENTS}


async def test_money_is_reserved_settled_lost_and_given_back() -> None:
    limits = settings_with(mode=Mode.RUN, in_flight=1, max_cost_nano=100 * 10**9, reconcile_s=0.0)
    run = direct(4, limits=limits, prices={"fal-ai/x": HOUR})
    run.direct.on_call.then(
        FakeAnswer(ONE_IMAGE, billable_units=1.0), own(422, billable_units=0.0), gateway(404), unanswered()
    )
    await run.run()
    assert sorted(run.store.states()) == sorted([State.DONE, State.FAILED, State.FAILED, State.UNKNOWN])
    assert run.spending.purse.spent == 1 * 10**9
    assert run.spending.purse.at_fal == 0
    assert run.spending.purse.lost == 1 * 10**9


def _any_answer() -> st.SearchStrategy[Any]:
    return st.sampled_from(
        [
            lambda: FakeAnswer(ONE_IMAGE),
            lambda: FakeAnswer(ONE_IMAGE, request_id=str(uuid4())),
            unanswered,
            unsent,
            refused,
            lambda: gateway(502),
            lambda: gateway(404),
            lambda: own(422),
            lambda: own(503, retryable=True),
            lambda: own(500),
            lambda: ReplyError("cut"),
        ]
    )


@given(st.lists(_any_answer(), min_size=1, max_size=12), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_whatever_is_answered_every_call_is_accounted_for(answers: list[Any], jobs: int) -> None:
    async def check() -> None:
        run = direct(jobs)
        run.direct.on_call.then(*(answer() for answer in answers))
        await run.run()
        for number in range(1, jobs + 1):
            story = run.events_of(number)
            starts = story.count(Event.SUBMIT_STARTED)
            # After a lost call nothing leaves for this job any more.
            assert Event.NO_ANSWER not in story or story[-1] is Event.NO_ANSWER
            assert starts == sum(
                story.count(end) for end in (Event.ACCEPTED, Event.REFUSED, Event.REJECTED, Event.NO_ANSWER)
            )
        ends = [event.job_id for event in run.heard if isinstance(event, JobEnded)]
        assert len(ends) == len(set(ends))
        assert all(first != second for first, second in itertools.pairwise(sorted(ends)))

    options: dict[str, Any] = {"loop_factory": VirtualLoop}
    anyio.run(check, backend_options=options)


def _on_a_full_disk(run: Run, full_s: float) -> None:
    """No answer fits on the disk for so long; smaller things do."""
    record = run.store.record

    async def tight(*happened: changes.Change) -> None:
        has_answer = any(isinstance(change, changes.ResultStored | changes.RequestEnded) for change in happened)
        if has_answer and run.clock.now_s() < full_s:
            raise DiskFull("no space left", advice="Make room.")
        await record(*happened)

    run.store.record = tight  # type: ignore[method-assign]


@pytest.mark.parametrize("answer", [FakeAnswer(ONE_IMAGE), own(422)])
async def test_on_a_full_disk_an_answer_waits_for_room(answer: Any) -> None:
    run = direct(3, limits=settings_with(mode=Mode.RUN, in_flight=2, reconcile_s=0.0))
    run.direct.on_call.default = answer
    _on_a_full_disk(run, ROOM_S / 2)
    assert isinstance(await run.run(), DiskFull)
    ended = State.FAILED if isinstance(answer, HttpError) else State.DONE
    assert run.store.states() == [ended, ended, State.PLANNED], "nothing new leaves"
    (notice,) = [event.text for event in run.heard if isinstance(event, Notice)]
    assert notice.endswith("answers that are paid for wait 60 s for room. Make room.")


async def test_a_disk_that_stays_full_keeps_the_name_of_the_request() -> None:
    run = direct(2)
    named = str(uuid4())
    run.direct.on_call.then(FakeAnswer(ONE_IMAGE, request_id=named), FakeAnswer(ONE_IMAGE))
    _on_a_full_disk(run, float("inf"))
    assert isinstance(await run.run(), DiskFull)
    assert run.store.states() == [State.UNKNOWN, State.UNKNOWN]
    assert sorted(lost.named_id for lost in run.store.lost_submits()) == ["", named]
