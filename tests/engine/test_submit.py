"""Getting one job accepted: intent before the call, the answer right after it, and never twice by itself."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falbatch.core import changes
from falbatch.core.backoff import BackoffPolicy
from falbatch.core.events import JobEnded, JobSubmitted, RunEvent, SubmitPaused
from falbatch.core.money import Purse
from falbatch.core.pacing import Rate, RetryBudget, Window
from falbatch.core.state import Event, State
from falbatch.engine.attempts import REFUSED_FOR_S, UNANSWERED_MOST, Attempts
from falbatch.engine.gate import GateClosed, SubmitGate
from falbatch.engine.reach import PATIENCE_AT_START_S, Reach
from falbatch.engine.spending import Spending
from falbatch.engine.stop import GRACE_S, Stop
from falbatch.engine.submit import Submitter
from falbatch.errors import CredentialsError, FalUnreachable, ReplyError, TransportError, WireError
from tests.engine.fakes import (
    FakeAccepted,
    FakeClock,
    FakeQueue,
    FakeStore,
    VirtualLoop,
    gateway,
    http,
    no_files,
    planned,
    refused,
    unanswered,
    unsent,
)

if TYPE_CHECKING:
    from falbatch.core.record import OpenJob

pytestmark = pytest.mark.anyio


@dataclass
class Stage:
    """The submit stage over fakes. Built inside the loop."""

    jobs: int = 1
    window: Window = field(default_factory=Window.auto)
    per_s: float = 1000.0

    def __post_init__(self) -> None:
        self.log: list[str] = []
        self.clock = FakeClock()
        self.queue = FakeQueue(log=self.log)
        self.store = FakeStore(*(planned(number) for number in range(1, self.jobs + 1)), log=self.log)
        self.gate = SubmitGate(
            self.clock,
            window=self.window,
            rate=Rate(self.per_s),
            backoff=BackoffPolicy(1.0, 60.0),
            budget=RetryBudget(0.2),
        )
        self.spending = Spending(Purse(), {})
        self.stop = Stop()
        self.heard: list[RunEvent] = []
        attempts = Attempts(
            store=self.store,
            clock=self.clock,
            gate=self.gate,
            spending=self.spending,
            reach=Reach(self.clock),
            stop=self.stop,
            files=no_files(self.store, self.clock, self.gate),
            listen=self.heard.append,
        )
        self.submitter = Submitter(
            attempts=attempts, store=self.store, queue=self.queue, clock=self.clock, listen=self.heard.append
        )

    async def submit(self, number: int = 1) -> OpenJob:
        return await self.submitter.submit(self.store.jobs[number])

    async def submit_all(self) -> list[OpenJob | None]:
        """All jobs at once; None for those that found the gate closed."""
        ends: dict[int, OpenJob | None] = {}

        async def one(number: int) -> None:
            try:
                ends[number] = await self.submit(number)
            except GateClosed:
                ends[number] = None

        async with anyio.create_task_group() as group:
            for number in self.store.jobs:
                group.start_soon(one, number)
        return [ends[number] for number in sorted(ends)]

    def pauses(self) -> list[float]:
        return [event.seconds for event in self.heard if isinstance(event, SubmitPaused)]


async def test_intent_is_recorded_before_the_call_and_the_answer_before_anything_else() -> None:
    stage = Stage()
    stage.queue.on_submit.then(FakeAccepted("r-9", "s", "u", "c", 3))
    job = await stage.submit()
    assert stage.log == ["submit_started 1", "submit fal-ai/x", "accepted 1"]
    assert (job.state, job.attempts) == (State.SUBMITTED, 1)
    assert job.request is not None
    assert (job.request.request_id, job.request.status_url) == ("r-9", "s")
    assert stage.store.changes[-1] == changes.SubmitAccepted(
        1, 1, stage.store.changes[-1].at, "r-9", "s", "u", "c", queue_position=3
    )
    assert stage.heard == [JobSubmitted("n1", "r-9")]


async def test_the_call_waits_until_its_intent_is_on_disk() -> None:
    stage = Stage()
    stage.store.latency_s = 0.5
    await stage.submit()
    assert stage.queue.submits[0][0] == pytest.approx(0.5)


async def test_nothing_is_sent_when_the_intent_cannot_be_written() -> None:
    stage = Stage()
    stage.store.fails.append(OSError("no disk"))
    with pytest.raises(OSError, match="no disk"):
        await stage.submit()
    assert stage.queue.submits == []


async def test_a_refusal_is_waited_out_and_the_job_submitted_again() -> None:
    stage = Stage()
    stage.queue.on_submit.then(refused(), refused())
    job = await stage.submit()
    assert job.state is State.SUBMITTED
    assert stage.log == [
        *("submit_started 1", "submit fal-ai/x", "refused 1"),
        *("submit_started 1", "submit fal-ai/x", "refused 1"),
        *("submit_started 1", "submit fal-ai/x", "accepted 1"),
    ]
    assert [getattr(change, "attempt", None) for change in stage.store.changes] == [1, 1, 2, 2, 3, 3]
    gaps = [
        later - earlier for (earlier, _), (later, _) in zip(stage.queue.submits, stage.queue.submits[1:], strict=False)
    ]
    assert gaps == pytest.approx([0.5, 1.0], abs=0.05)  # half of 1 s, then half of 2 s
    assert all(isinstance(event, SubmitPaused) and event.refused for event in stage.heard[:2])


async def test_retry_after_is_the_least_pause() -> None:
    stage = Stage()
    stage.queue.on_submit.then(refused(retry_after_s=30.0))
    await stage.submit()
    (first_s, _), (second_s, _) = stage.queue.submits
    assert 30.0 <= second_s - first_s <= 31.1


async def test_a_refusal_cools_everybody_down() -> None:
    """Of three jobs at once, one is told to come back in 20 s: none is sent before."""
    stage = Stage(jobs=4, per_s=20.0)
    stage.queue.on_submit.then(refused(retry_after_s=20.0))
    ends = await stage.submit_all()
    assert all(job is not None and job.state is State.SUBMITTED for job in ends)
    times = [at_s for at_s, _ in stage.queue.submits]
    assert times[0] < 0.1
    assert all(at_s >= 20.0 for at_s in times[1:])
    assert len(times) == 5


async def test_one_episode_of_refusals_cuts_the_window_once_and_loses_no_attempt() -> None:
    stage = Stage(jobs=8)
    stage.queue.latency_s = 0.2  # all eight are on the way when the first is refused
    stage.queue.on_submit.then(*[refused()] * 8)
    ends = await stage.submit_all()
    assert [job.state for job in ends if job] == [State.SUBMITTED] * 8
    assert stage.gate.window.slow_start is False
    assert stage.gate.window.size == pytest.approx(8.0 + sum(1 / (8 + 0.1 * n) for n in range(8)), abs=0.3)
    assert len(stage.store.of_kind(changes.SubmitStarted)) == 16
    assert stage.pauses()[0] == pytest.approx(0.5, abs=0.01)


async def test_two_episodes_cut_twice() -> None:
    stage = Stage(window=Window(size=64, ceiling=100))
    stage.queue.on_submit.then(refused(), refused())
    await stage.submit()
    assert stage.gate.window.room == 16


async def test_a_window_that_the_user_set_is_not_cut() -> None:
    stage = Stage(window=Window.fixed_at(5))
    stage.queue.on_submit.then(refused())
    await stage.submit()
    assert stage.gate.window == Window.fixed_at(5)


async def test_what_never_left_is_sent_again_and_the_window_stays() -> None:
    stage = Stage(window=Window(size=64, ceiling=64))
    stage.queue.on_submit.then(unsent(), unsent())
    job = await stage.submit()
    assert (job.state, job.attempts) == (State.SUBMITTED, 3)
    assert stage.gate.window.room == 64
    assert [change.event for change in stage.store.of_kind(changes.SubmitNotAccepted)] == [Event.REFUSED] * 2
    assert [event.refused for event in stage.heard if isinstance(event, SubmitPaused)] == [False, False]


@pytest.mark.parametrize(
    "error",
    [
        unanswered(),
        TransportError("reset", sent=True, kind="reset"),
        http(500),
        gateway(502),
        http(408),
        ReplyError("?"),
    ],
    ids=str,
)
async def test_a_submit_without_an_answer_makes_the_job_unknown_and_is_never_repeated(error: WireError) -> None:
    stage = Stage()
    stage.queue.on_submit.then(error)
    job = await stage.submit()
    assert job.state is State.UNKNOWN
    assert stage.store.state_of(1) is State.UNKNOWN
    assert len(stage.queue.submits) == 1
    assert [type(event) for event in stage.heard] == [SubmitPaused, JobEnded]


async def test_a_job_that_fal_will_never_take_has_failed() -> None:
    stage = Stage()
    stage.queue.on_submit.then(http(404))
    job = await stage.submit()
    assert job.state is State.FAILED
    (end,) = stage.store.of_kind(changes.SubmitNotAccepted)
    assert (end.event, end.failure.error_type, end.failure.http_status) == (Event.REJECTED, "http_404", 404)
    assert isinstance(stage.heard[0], JobEnded)


async def test_the_id_in_a_broken_reply_rescues_the_request() -> None:
    stage = Stage()
    stage.queue.on_submit.then(ReplyError("cut", request_id="r-7"))
    job = await stage.submit()
    assert job.state is State.SUBMITTED
    assert job.request is not None
    assert (job.request.request_id, job.request.status_url, job.request.response_url) == ("r-7", "", "")
    assert stage.store.of_kind(changes.SubmitAccepted)[0].request_id == "r-7"


async def test_an_answer_that_names_another_submits_request_is_no_answer() -> None:
    stage = Stage(jobs=2)
    stage.queue.on_submit.default = FakeAccepted("r-7")
    first, second = await stage.submit(1), await stage.submit(2)
    assert (first.state, second.state) == (State.SUBMITTED, State.UNKNOWN)
    assert stage.store.requests == {"r-7": 1}


async def test_two_answers_at_once_that_name_one_request_are_one_acceptance() -> None:
    stage = Stage(jobs=5)
    stage.queue.on_submit.default = FakeAccepted("r-7")
    ends = await stage.submit_all()
    assert sorted(job.state for job in ends if job) == [State.SUBMITTED] + [State.UNKNOWN] * 4


async def test_eight_submits_in_a_row_without_an_answer_close_the_gate() -> None:
    stage = Stage(jobs=20, window=Window.fixed_at(1))
    stage.queue.on_submit.default = unanswered()
    ends = []
    for number in range(1, 21):
        try:
            ends.append((await stage.submit(number)).state)
        except GateClosed:
            break
    assert ends == [State.UNKNOWN] * UNANSWERED_MOST
    assert stage.store.states() == [State.UNKNOWN] * 8 + [State.PLANNED] * 12
    assert isinstance(stage.gate.closed_by, FalUnreachable)


async def test_an_answer_in_between_starts_the_count_again() -> None:
    stage = Stage(jobs=15)
    stage.queue.on_submit.then(*[unanswered()] * 7, FakeAccepted("r"), *[unanswered()] * 7)
    for number in range(1, 16):
        await stage.submit(number)
    assert stage.gate.closed_by is None
    assert stage.store.states().count(State.UNKNOWN) == 14


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_account_trouble_closes_the_gate_and_leaves_the_jobs_planned(status: int) -> None:
    stage = Stage(jobs=5)
    stage.queue.on_submit.default = http(status)
    ends = await stage.submit_all()
    assert ends == [None] * 5
    assert stage.store.states() == [State.PLANNED] * 5
    assert isinstance(stage.gate.closed_by, CredentialsError)
    assert not [event for event in stage.heard if isinstance(event, JobEnded)]


async def test_no_route_to_fal_ends_the_run_after_some_patience() -> None:
    stage = Stage()
    stage.queue.on_submit.default = unsent()
    with pytest.raises(FalUnreachable):
        await stage.submit()
    assert PATIENCE_AT_START_S <= anyio.current_time() <= PATIENCE_AT_START_S + 61
    assert stage.store.state_of(1) is State.PLANNED


async def test_a_run_that_was_busy_elsewhere_is_as_patient_as_at_its_start() -> None:
    """Minutes of downloads before the first submit are not minutes of silence."""
    stage = Stage()
    await anyio.sleep(1000)
    stage.queue.on_submit.then(unsent())
    job = await stage.submit()
    assert job.state is State.SUBMITTED


async def test_half_an_hour_of_refusals_closes_the_gate() -> None:
    stage = Stage()
    stage.queue.on_submit.default = lambda _body: refused(60.0)
    with pytest.raises(GateClosed):
        await stage.submit()
    assert isinstance(stage.gate.closed_by, FalUnreachable)
    assert anyio.current_time() == pytest.approx(REFUSED_FOR_S, abs=130)
    assert stage.store.state_of(1) is State.PLANNED


async def test_one_refusal_after_an_hour_without_submits_closes_nothing() -> None:
    """With long jobs and a small window, the last acceptance may be long ago."""
    stage = Stage(jobs=2)
    await stage.submit(1)
    await anyio.sleep(2 * REFUSED_FOR_S)
    stage.queue.on_submit.then(refused())
    job = await stage.submit(2)
    assert job.state is State.SUBMITTED
    assert stage.gate.closed_by is None


async def test_submits_keep_their_rate() -> None:
    stage = Stage(jobs=10, per_s=4.0)
    await stage.submit_all()
    times = [at_s for at_s, _ in stage.queue.submits]
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == pytest.approx([0.25] * 9, abs=0.01)


async def test_the_rate_holds_right_after_a_pause_too() -> None:
    """Those whose turn came during the pause must not all leave at its end."""
    stage = Stage(jobs=100, per_s=10.0)
    stage.queue.on_submit.then(refused(retry_after_s=5.0))
    await stage.submit_all()
    times = [at_s for at_s, _ in stage.queue.submits]
    busiest = max(sum(at_s <= other < at_s + 1.0 for other in times) for at_s in times)
    assert busiest <= 11
    assert len(times) == 101


async def test_a_stop_lets_a_submit_under_way_finish_and_be_recorded() -> None:
    stage = Stage()
    stage.queue.latency_s = 5.0
    with anyio.CancelScope() as work:
        async with anyio.create_task_group() as group:
            group.start_soon(stage.submit)
            await anyio.sleep(1)
            stage.stop.now("SIGINT")
            work.cancel()
    assert stage.log == ["submit_started 1", "submit fal-ai/x", "accepted 1"]
    assert stage.store.state_of(1) is State.SUBMITTED


async def test_the_grace_of_a_stop_is_bounded_and_leaves_the_intent_on_record() -> None:
    """Found as `submitting` by the next run, which reads it as unknown."""
    stage = Stage()
    stage.queue.latency_s = 3600.0
    with anyio.CancelScope() as work:
        async with anyio.create_task_group() as group:
            group.start_soon(_ignoring_a_closed_gate, stage)
            await anyio.sleep(1)
            stage.stop.now("SIGINT")
            stage.stop.now("SIGTERM")
            work.cancel()
    assert anyio.current_time() == pytest.approx(1 + GRACE_S, abs=0.1)
    assert stage.store.state_of(1) is State.SUBMITTING
    assert stage.stop.reason == "SIGINT"


async def _ignoring_a_closed_gate(stage: Stage) -> None:
    with pytest.raises(GateClosed):
        await stage.submit()


async def test_nothing_new_is_submitted_after_a_stop() -> None:
    stage = Stage()
    stage.stop.now("SIGINT")
    with pytest.raises(GateClosed):
        await stage.submit()
    assert stage.log == []
    assert stage.store.state_of(1) is State.PLANNED


ANSWERS: list[WireError | str | None] = [
    refused(),
    refused(2.0),
    unsent(),
    unanswered(),
    http(404),
    gateway(502),
    "a broken reply that names its request",
    None,
]


def as_answer(place: int, answer: WireError | str | None) -> WireError | FakeAccepted:
    """Each accepted request has an id of its own."""
    if isinstance(answer, str):
        return ReplyError(answer, request_id=f"b{place}")
    return FakeAccepted(f"q{place}") if answer is None else answer


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(ANSWERS), max_size=12), st.integers(1, 6))
def test_whatever_is_answered_no_job_is_accepted_twice_or_sent_again_when_unknown(
    answers: list[WireError | str | None], jobs: int
) -> None:
    async def scenario() -> None:
        stage = Stage(jobs=jobs)
        stage.queue.on_submit.then(*(as_answer(place, answer) for place, answer in enumerate(answers)))
        ends = await stage.submit_all()
        assert all(job is not None for job in ends)
        for number in range(1, jobs + 1):
            story = [change.event for change in stage.store.changes if change.job_id == number]  # type: ignore[union-attr]  # only changes of submits
            assert story[-1] in {Event.ACCEPTED, Event.NO_ANSWER, Event.REJECTED}
            assert story[1:-1:2] == [Event.REFUSED] * (len(story) // 2 - 1)
            assert story[::2] == [Event.SUBMIT_STARTED] * (len(story) // 2)

    options: dict[str, Any] = {"loop_factory": VirtualLoop}
    anyio.run(scenario, backend_options=options)
