"""One scheduler asks about all requests: each one at a time, within the rate, and by what it has learned."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import pytest

from falbatch.core.backoff import BackoffPolicy
from falbatch.core.events import JobMoved, Polled, RunEvent
from falbatch.core.pacing import Rate
from falbatch.engine.reach import PATIENCE_AT_START_S, Reach
from falbatch.engine.wait import MOST_MISSES, NOT_FOUND_LOOKS, PollScheduler
from falbatch.errors import CredentialsError, FalUnreachable, HttpError, TransportError
from tests.engine.fakes import UNIX_AT_START, FakeClock, FakeProgress, FakeQueue, a_request, gateway, http, unsent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


@dataclass
class Stage:
    """The scheduler over fakes; `running` runs it beside a test."""

    polls_per_s: float = 1000.0

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.queue = FakeQueue()
        self.reach = Reach(self.clock)
        self.heard: list[RunEvent] = []
        self.scheduler = PollScheduler(
            queue=self.queue,
            clock=self.clock,
            reach=self.reach,
            rate=Rate(self.polls_per_s),
            backoff=BackoffPolicy(1.0, 60.0),
            listen=self.heard.append,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Stage]:
        async with anyio.create_task_group() as group:
            group.start_soon(self.scheduler.run, group)
            yield self
            group.cancel_scope.cancel()

    async def wait_for(
        self, request_id: str = "r", *, is_ours: bool = True, not_before_s: float = 0.0
    ) -> FakeProgress | None:
        """Wait for a request that fal has accepted just now (an earlier run's: ten minutes ago)."""
        now_s = anyio.current_time()
        self.queue.accepted_at.setdefault(request_id, now_s if is_ours else now_s - 600)
        request = a_request(request_id, accepted_at=self.clock.unix_s() if is_ours else UNIX_AT_START - 600)
        progress = await self.scheduler.completion(
            f"job of {request_id}", request, is_ours=is_ours, not_before_s=not_before_s
        )
        assert progress is None or isinstance(progress, FakeProgress)
        return progress

    def moves(self) -> list[tuple[str, str]]:
        return [(event.before, event.phase) for event in self.heard if isinstance(event, JobMoved)]


async def test_a_request_is_asked_about_until_it_is_completed() -> None:
    stage = Stage()
    stage.queue.on_status.then(
        FakeProgress("IN_QUEUE", 3), FakeProgress("IN_PROGRESS"), FakeProgress("COMPLETED", inference_time_s=2.5)
    )
    async with stage.running():
        progress = await stage.wait_for()
    assert progress == FakeProgress("COMPLETED", inference_time_s=2.5)
    assert len(stage.queue.polls) == 3
    assert sum(isinstance(event, Polled) for event in stage.heard) == 3
    assert stage.moves() == [
        ("", "ACCEPTED"),
        ("ACCEPTED", "IN_QUEUE"),
        ("IN_QUEUE", "IN_PROGRESS"),
        ("IN_PROGRESS", ""),
    ]


async def test_progress_may_go_backwards() -> None:
    stage = Stage()
    stage.queue.on_status.then(
        FakeProgress("IN_PROGRESS"), FakeProgress("IN_QUEUE"), FakeProgress("IN_PROGRESS"), FakeProgress("COMPLETED")
    )
    async with stage.running():
        assert await stage.wait_for() is not None
    assert stage.moves() == [
        ("", "ACCEPTED"),
        ("ACCEPTED", "IN_PROGRESS"),
        ("IN_PROGRESS", "IN_QUEUE"),
        ("IN_QUEUE", "IN_PROGRESS"),
        ("IN_PROGRESS", ""),
    ]


async def test_a_phase_of_next_year_is_waited_through() -> None:
    stage = Stage()
    stage.queue.on_status.then(FakeProgress("WARMING_UP"), FakeProgress("COMPLETED"))
    async with stage.running():
        assert await stage.wait_for() is not None


async def test_each_request_is_asked_about_once_at_a_time() -> None:
    stage = Stage()
    stage.queue.latency_s = 2.0  # slower than any pause between questions
    stage.queue.service_s = 20.0
    async with stage.running(), anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(stage.wait_for, f"r{number}")
    assert stage.queue.most_polling == 1
    assert len(stage.queue.polls) >= 10


async def test_polls_keep_their_rate_over_all_requests() -> None:
    stage = Stage(polls_per_s=10.0)
    stage.queue.service_s = 3.0
    async with stage.running(), anyio.create_task_group() as group:
        for number in range(40):
            group.start_soon(stage.wait_for, f"r{number}")
    times = [at_s for at_s, _ in stage.queue.polls]
    assert len(times) >= 40
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 0.099


async def test_a_slow_answer_about_one_request_holds_up_no_other() -> None:
    stage = Stage()
    stage.queue.service_s = 0.1
    times: dict[str, float] = {}

    async def wait(request_id: str) -> None:
        await stage.wait_for(request_id)
        times[request_id] = anyio.current_time()

    async def slowly(_request: object) -> FakeProgress:
        await anyio.sleep(100)
        return FakeProgress("COMPLETED")

    async with stage.running(), anyio.create_task_group() as group:
        group.start_soon(wait, "slow")
        await anyio.sleep(0.01)
        stage.queue.on_status.then(slowly)
        group.start_soon(wait, "quick")
    assert times["slow"] > 100
    assert times["quick"] < 1


async def test_durations_are_learned_so_that_few_questions_are_enough() -> None:
    stage = Stage()
    stage.queue.service_s = 30.0
    async with stage.running():
        for number in range(60):
            await stage.wait_for(f"r{number}")
    late = [request_id for _, request_id in stage.queue.polls if int(request_id[1:]) >= 40]
    early = [request_id for _, request_id in stage.queue.polls if int(request_id[1:]) < 5]
    assert len(early) / 5 > 5
    assert len(late) / 20 <= 4
    assert anyio.current_time() <= 60 * 30 * 1.15


async def test_nothing_is_learned_from_an_earlier_runs_request_and_it_is_asked_about_at_once() -> None:
    stage = Stage()
    async with stage.running():
        for number in range(20):
            began_s = anyio.current_time()
            await stage.wait_for(f"old{number}", is_ours=False)
            assert anyio.current_time() - began_s < 0.1
        await stage.wait_for("new")
    new = [at_s for at_s, request_id in stage.queue.polls if request_id == "new"]
    assert len(new) > 1, "the first question must come early, as for an unknown endpoint"


async def test_a_second_look_does_not_wait_a_whole_duration() -> None:
    stage = Stage()
    stage.queue.service_s = 30.0
    async with stage.running():
        for number in range(10):
            await stage.wait_for(f"r{number}")
        began_s = anyio.current_time()
        await stage.wait_for("r9", is_ours=False, not_before_s=1.0)
        assert 1.0 <= anyio.current_time() - began_s < 1.2


async def test_a_request_that_fal_does_not_know_is_given_up_after_some_looks() -> None:
    stage = Stage()
    stage.queue.on_status.default = http(404)
    async with stage.running():
        assert await stage.wait_for() is None
    assert len(stage.queue.polls) == NOT_FOUND_LOOKS


async def test_a_404_right_after_the_submit_is_forgiven() -> None:
    stage = Stage()
    stage.queue.on_status.then(*[http(404)] * (NOT_FOUND_LOOKS - 1), FakeProgress("COMPLETED"))
    async with stage.running():
        assert await stage.wait_for() == FakeProgress("COMPLETED")


@pytest.mark.parametrize(
    "error", [unsent(), TransportError("reset", sent=True, kind="reset"), http(500), gateway(502), http(429)], ids=str
)
async def test_a_passing_trouble_is_waited_out(error: HttpError | TransportError) -> None:
    stage = Stage()
    stage.queue.on_status.then(*[error] * 3, FakeProgress("COMPLETED"))
    async with stage.running():
        assert await stage.wait_for() == FakeProgress("COMPLETED")
    times = [at_s for at_s, _ in stage.queue.polls]
    assert [b - a for a, b in itertools.pairwise(times)] == pytest.approx([0.5, 1.0, 2.0], abs=0.05)


async def test_retry_after_of_a_status_call_is_honoured() -> None:
    stage = Stage()
    stage.queue.on_status.then(
        HttpError("slow down", status=429, from_fal=True, retry_after_s=40.0), FakeProgress("COMPLETED")
    )
    async with stage.running():
        await stage.wait_for()
    (first_s, _), (second_s, _) = stage.queue.polls
    assert second_s - first_s >= 40


async def test_a_lasting_trouble_with_one_request_is_left_to_another_run() -> None:
    stage = Stage()
    stage.queue.on_status.default = gateway(502)
    async with stage.running():
        with pytest.raises(HttpError, match="502"):
            await stage.wait_for()
    assert len(stage.queue.polls) == MOST_MISSES


async def test_a_plain_refusal_is_not_asked_again() -> None:
    stage = Stage()
    stage.queue.on_status.default = http(405)
    async with stage.running():
        with pytest.raises(HttpError, match="405"):
            await stage.wait_for()
    assert len(stage.queue.polls) == 1


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_refused_key_is_said_at_once(status: int) -> None:
    stage = Stage()
    stage.queue.on_status.default = http(status)
    async with stage.running():
        with pytest.raises(CredentialsError):
            await stage.wait_for()
    assert len(stage.queue.polls) == 1


async def test_silence_ends_the_wait() -> None:
    stage = Stage()
    stage.queue.on_status.default = unsent()
    async with stage.running():
        with pytest.raises(FalUnreachable):
            await stage.wait_for()
    assert anyio.current_time() >= PATIENCE_AT_START_S


async def test_once_fal_has_answered_an_outage_of_minutes_is_borne() -> None:
    stage = Stage()

    def answer(_request: object) -> FakeProgress | TransportError:
        now_s = anyio.current_time()
        return FakeProgress("COMPLETED") if now_s > 300 else unsent() if now_s > 1 else FakeProgress("IN_QUEUE")

    stage.queue.on_status.default = answer
    async with stage.running():
        assert await stage.wait_for() == FakeProgress("COMPLETED")
    assert 300 <= anyio.current_time() <= 360


async def test_a_waiting_job_that_is_cancelled_says_that_it_left_its_phase() -> None:
    stage = Stage()
    stage.queue.service_s = 1000.0
    async with stage.running():
        with anyio.move_on_after(5):
            await stage.wait_for()
    assert stage.moves() == [("", "ACCEPTED"), ("ACCEPTED", "IN_PROGRESS"), ("IN_PROGRESS", "")]
