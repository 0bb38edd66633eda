"""A whole run against a fal with a cap: the window finds it, in the queue from what is seen, else from refusals."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio
import pytest

from falbatch.core.model import Mode
from falbatch.core.state import State
from tests.engine.fakes import ONE_IMAGE, FakeAccepted, FakeAnswer, FakeProgress, planned, refused
from tests.engine.runs import Run, at_fal, settings_with

if TYPE_CHECKING:
    from falbatch.core.record import RequestOnRecord

pytestmark = pytest.mark.anyio


class CappedFal:
    """fal's queue behind a run: one line for all endpoints, `cap` at work at a time."""

    def __init__(self, run: Run, cap: int, work_s: dict[str, float], *, cold_s: float = 0.0) -> None:
        """`work_s` is by endpoint; nothing is at work before `cold_s`."""
        self.cap = cap
        self.work_s = work_s
        self.cold_s = cold_s
        self.endpoints = {job.input_json: job.endpoint for job in run.store.jobs.values()}
        self.line: deque[str] = deque()
        self.accepted_s: dict[str, float] = {}
        self.ends_s: dict[str, float] = {}
        self.works_s: dict[str, float] = {}
        """Of each request."""
        run.queue.on_submit.default = self._accept
        run.queue.on_status.default = self.progress

    def _accept(self, body: bytes) -> FakeAccepted:
        request_id = f"r{len(self.accepted_s)}"
        self.accepted_s[request_id] = anyio.current_time()
        self.works_s[request_id] = self.work_s[self.endpoints[body]]
        self.line.append(request_id)
        self._pass_time()
        return FakeAccepted(request_id)

    def _pass_time(self) -> None:
        """Whoever ended made room at that moment."""
        now_s = anyio.current_time()
        while self.line:
            ends_s = sorted(self.ends_s.values())
            begins_s = max(self.cold_s, ends_s[-self.cap] if len(ends_s) >= self.cap else 0.0)
            begins_s = max(begins_s, self.accepted_s[self.line[0]])
            if begins_s > now_s:
                return
            request_id = self.line.popleft()
            self.ends_s[request_id] = begins_s + self.works_s[request_id]

    def began_s(self, request_id: str) -> float:
        return self.ends_s[request_id] - self.works_s[request_id]

    def progress(self, request: RequestOnRecord) -> FakeProgress:
        self._pass_time()
        name = request.request_id
        if name not in self.accepted_s:
            return FakeProgress("COMPLETED", inference_time_s=1.0)  # of an earlier run
        if name not in self.ends_s:
            return FakeProgress("IN_QUEUE")
        if self.ends_s[name] > anyio.current_time():
            return FakeProgress("IN_PROGRESS")
        return FakeProgress("COMPLETED", inference_time_s=self.works_s[name])

    def most_waiting(self) -> int:
        """The longest line, looked at every five seconds."""
        last_s = int(max(self.ends_s.values()))
        return max(
            sum(at_s <= moment_s < self.began_s(name) for name, at_s in self.accepted_s.items())
            for moment_s in range(0, last_s, 5)
        )


@pytest.mark.parametrize(("cap", "jobs"), [(2, 60), (40, 400)])
async def test_fal_is_kept_busy_with_no_more_than_it_takes(cap: int, jobs: int) -> None:
    run = Run(jobs=jobs)
    fal = CappedFal(run, cap, {"fal-ai/x": 10.0})
    assert await run.run() is None
    assert run.store.states() == [State.DONE] * jobs
    assert max(fal.ends_s.values()) <= 1.03 * jobs / cap * 10.0 + 4
    assert fal.most_waiting() <= 1.2 * cap + 16


async def test_a_cold_start_is_waited_for_with_no_more_than_the_first_window() -> None:
    run = Run(jobs=300)
    fal = CappedFal(run, 40, {"fal-ai/x": 2.0}, cold_s=100.0)
    assert await run.run() is None
    assert sum(at_s <= 100 for at_s, _ in run.queue.submits) == 16
    assert max(fal.ends_s.values()) <= 100 + 300 / 40 * 2.0 + 45


async def test_a_fast_endpoint_does_not_wait_behind_a_slow_one() -> None:
    jobs = tuple(planned(number, endpoint="slow" if number <= 100 else "fast") for number in range(1, 201))
    run = Run(jobs=0, others=jobs)
    fal = CappedFal(run, 10, {"slow": 600.0, "fast": 1.0})
    assert await run.run() is None
    assert run.store.states() == [State.DONE] * 200
    last_s = {
        work_s: max(end_s for name, end_s in fal.ends_s.items() if fal.works_s[name] == work_s)
        for work_s in (600.0, 1.0)
    }
    assert last_s[1.0] < last_s[600.0] / 1.5


async def test_requests_of_an_earlier_run_count_and_teach_nothing_wrong() -> None:
    run = Run(jobs=130, paid=tuple(at_fal(number) for number in range(1, 31)))
    fal = CappedFal(run, 10, {"fal-ai/x": 5.0})
    assert await run.run() is None
    assert run.store.states() == [State.DONE] * 130
    assert max(fal.ends_s.values()) <= 1.05 * 100 / 10 * 5.0 + 5


async def test_a_window_that_the_user_set_holds_whatever_is_seen() -> None:
    run = Run(jobs=60, settings=settings_with(in_flight=4))
    CappedFal(run, 40, {"fal-ai/x": 1.0})
    assert await run.run() is None
    assert run.most_at_fal == 4


async def test_a_batch_that_is_resumed_goes_on_while_its_requests_are_at_work() -> None:
    run = Run(jobs=300, paid=tuple(at_fal(number) for number in range(1, 101)))
    fal = CappedFal(run, 1000, {"fal-ai/x": 10.0})

    def progress(request: RequestOnRecord) -> FakeProgress:
        is_old = request.request_id not in fal.accepted_s
        return FakeProgress("IN_PROGRESS") if is_old and anyio.current_time() < 300 else fal.progress(request)

    run.queue.on_status.default = progress
    assert await run.run() is None
    assert run.store.states() == [State.DONE] * 300
    assert run.queue.submits[0][0] <= 5
    assert max(fal.ends_s.values()) <= 60


async def test_where_fal_takes_so_many_together_refusals_are_few_and_it_is_busy() -> None:
    run = Run(jobs=600)
    fal = CappedFal(run, 1000, {"fal-ai/x": 10.0})
    take, refusals = run.queue.on_submit.default, 0

    def accept(body: bytes) -> FakeAccepted:
        nonlocal refusals
        if sum(end_s > anyio.current_time() for end_s in fal.ends_s.values()) >= 50:
            refusals += 1
            raise refused()
        assert callable(take)
        return take(body)  # type: ignore[no-any-return]

    run.queue.on_submit.default = accept
    assert await run.run() is None
    assert refusals <= 10
    assert max(fal.ends_s.values()) <= 1.5 * 600 / 50 * 10.0


@pytest.mark.parametrize("work_s", [2.0, 60.0])
async def test_direct_calls_settle_at_the_cap_with_few_refusals(work_s: float) -> None:
    cap, at_work, refusals = 20, 0, 0
    jobs = tuple(planned(number, mode=Mode.RUN) for number in range(1, 401))
    run = Run(jobs=0, others=jobs, settings=settings_with(mode=Mode.RUN, reconcile_s=0.0))
    run.direct.service_s = 0.05  # to fal's door

    async def call(_body: bytes) -> FakeAnswer:
        nonlocal at_work, refusals
        if at_work >= cap:
            refusals += 1
            raise refused()
        at_work += 1
        await anyio.sleep(work_s)
        at_work -= 1
        return FakeAnswer(ONE_IMAGE)

    run.direct.on_call.default = call
    assert await run.run() is None
    assert run.store.states() == [State.DONE] * 400
    # Slow start takes a round or two, the way back to the cap after its one large cut as much again.
    assert anyio.current_time() <= 1.06 * 400 / cap * work_s + 3 * work_s
    assert refusals <= 25
