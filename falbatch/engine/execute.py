"""Carrying out a plan: the feeder keeps the window full, each job goes through its stages, and the run ends when
nothing is left to do, when something closed the gate, or when it is told to stop.

    feeder ─▶ submit ─▶ wait ─▶ result ─▶ download ─▶ done
       ▲         │                 │
       └─ slot ──┘◀──── another ───┘      (one coroutine per job in flight; the store is written at every ─▶)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel

from falbatch.core.classify import Failure
from falbatch.core.events import JobEnded, JobMoved, Listener, Notice, ResultCame, RunEvent, RunStopping
from falbatch.core.pacing import Rate, RetryBudget
from falbatch.core.record import OpenJob, StoredResult
from falbatch.core.state import State
from falbatch.engine.attempts import Attempts
from falbatch.engine.bell import Bell
from falbatch.engine.callbacks import Callbacks
from falbatch.engine.direct import DIRECT_GRACE_S, DirectCaller
from falbatch.engine.download import Downloader
from falbatch.engine.failing import Failing
from falbatch.engine.feed import Feeder
from falbatch.engine.gate import GateClosed, SubmitGate
from falbatch.engine.judge import Judge
from falbatch.engine.reach import Reach
from falbatch.engine.reconcile import Reconciler
from falbatch.engine.result import ResultReader
from falbatch.engine.settings import ExecuteSettings, Scope, plateau_for, window_for
from falbatch.engine.submit import Submitter
from falbatch.engine.uploads import InputFiles
from falbatch.engine.wait import PollScheduler
from falbatch.errors import FalbatchError

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from falbatch.core.callback import CallbackUrls
    from falbatch.engine.ports import Clock, Direct, Files, Queue, RequestList, Storage, Store
    from falbatch.engine.spending import Spending
    from falbatch.engine.stop import Stop

DOWNLOADS_AHEAD: Final = 8
"""Jobs per download slot that may wait for their files before the feeder pauses: bounds memory when the disk or
the line is slower than fal."""


@dataclass(frozen=True, slots=True)
class Deps:
    """Everything outside that a run needs, built in one place (`api.py`)."""

    store: Store
    queue: Queue
    requests: RequestList
    files: Files
    clock: Clock
    listen: Listener
    spending: Spending
    direct: Direct
    storage: Storage | None = None
    """Where files of inputs go; None for a run that submits nothing."""
    callbacks: CallbackUrls | None = None
    """Where fal shall call; None where nobody listens."""


class Execution:
    """One run over the open jobs of a store."""

    def __init__(self, deps: Deps, settings: ExecuteSettings, stop: Stop) -> None:
        self._deps = deps
        self._settings = settings
        self._stop = stop
        self._bug: Exception | None = None
        self._alive: set[int] = set()
        """Jobs that a coroutine goes on with."""
        self._is_fed = False
        self._changed = Bell()
        """Rung when a job became unknown, and when the last one ended: the reconciler has something to think about."""
        self._fetching = 0
        self._fetched = Bell()
        self.halted_by: FalbatchError | None = None
        """What ended the run at once (disk full, fal unreachable, key refused)."""
        self._work = anyio.CancelScope()
        self._build(deps, settings, stop)
        self._callbacks = Callbacks(deps.store, self._polls, self._reconciler, deps.listen, wake=self._changed.ring)

    def _build(self, deps: Deps, settings: ExecuteSettings, stop: Stop) -> None:
        budget = RetryBudget(settings.retry_ratio)
        rate = Rate(settings.submits_per_s)
        reach = Reach(deps.clock)
        self._gate = SubmitGate(
            deps.clock,
            window=window_for(settings),
            rate=rate,
            backoff=settings.backoff,
            budget=budget,
            plateau=plateau_for(settings),
        )
        self._gate.is_shut = settings.scope is not Scope.ALL
        self._failing = Failing(self._gate, settings)
        self._polls = PollScheduler(
            queue=deps.queue,
            clock=deps.clock,
            reach=reach,
            rate=Rate(settings.polls_per_s),
            backoff=settings.backoff,
            listen=deps.listen,
            is_called_back=deps.callbacks is not None,
            observe=self._gate.observe,
            store=deps.store,
        )
        self._build_submits(deps, settings, stop, reach)
        self._results = ResultReader(
            store=deps.store,
            queue=deps.queue,
            clock=deps.clock,
            polls=self._polls,
            gate=self._gate,
            spending=deps.spending,
            reach=reach,
            backoff=settings.backoff,
            attempts=settings.attempts,
            listen=self._heard,
        )
        self._judge = Judge(deps.store, deps.clock, self._gate, settings, self._heard)
        self._downloads = Downloader(
            store=deps.store,
            files=deps.files,
            clock=deps.clock,
            backoff=settings.backoff,
            at_once=settings.downloads,
            sidecar=settings.sidecar,
            judge=self._judge,
            listen=self._heard,
        )
        self._reconciler = Reconciler(
            store=deps.store,
            requests=deps.requests,
            queue=deps.queue,
            clock=deps.clock,
            spending=deps.spending,
            polls=self._polls,
            patience=settings.reconcile_s,
            listen=deps.listen,
            is_called_back=deps.callbacks is not None,
        )

    def _build_submits(self, deps: Deps, settings: ExecuteSettings, stop: Stop, reach: Reach) -> None:
        self._inputs = InputFiles(
            store=deps.store,
            storage=deps.storage,
            clock=deps.clock,
            gate=self._gate,
            at_once=settings.uploads,
            listen=self._heard,
        )
        attempts = Attempts(
            store=deps.store,
            clock=deps.clock,
            gate=self._gate,
            spending=deps.spending,
            reach=reach,
            stop=stop,
            files=self._inputs,
            listen=self._heard,
        )
        self._submitter = Submitter(
            attempts=attempts,
            store=deps.store,
            queue=deps.queue,
            clock=deps.clock,
            listen=self._heard,
            callbacks=deps.callbacks,
        )
        self._direct = DirectCaller(
            attempts=attempts,
            store=deps.store,
            direct=deps.direct,
            clock=deps.clock,
            polls=self._polls,
            gate=self._gate,
            spending=deps.spending,
            backoff=settings.backoff,
            most_attempts=settings.attempts,
            listen=self._heard,
        )

    @property
    def ended_by(self) -> FalbatchError | None:
        """Why the run did less than it could have, None when it did all."""
        return self.halted_by or self._gate.closed_by

    async def run(self) -> None:
        """Do all that is open. Returns early after `stop`; what ended it otherwise is in `ended_by`.

        A bug of ours in one job is raised when the others are through.
        """
        with self._work:
            async with anyio.create_task_group() as background:
                background.start_soon(self._polls.run, background)
                async with anyio.create_task_group() as jobs:
                    if self._settings.scope is not Scope.FILES:
                        jobs.start_soon(self._reconcile, jobs)
                    try:
                        await self._feed(jobs)
                    except FalbatchError as error:
                        self._halt(error)
                    self._is_fed = True
                    self._changed.ring()
                background.cancel_scope.cancel()
        if self._bug is not None:
            raise self._bug

    def called_back(self, job_id: int, attempt: int, request_id: str, error: str | None) -> None:
        """fal called about an attempt, and we know that it was fal: `request_id` has ended, with `error` by its word.
        Returns at once. Raises `StateError`."""
        self._callbacks.came(job_id, attempt, request_id, error)

    def stop(self, reason: str) -> None:
        """Submit nothing more, give calls under way a bounded moment to record their ids, leave the rest."""
        is_first = not self._stop.reason
        self._stop.now(reason)
        self._deps.listen(RunStopping(reason))
        calls = self._stop.waits_for(DIRECT_GRACE_S)
        if is_first and calls:
            self._deps.listen(
                Notice(
                    f"{calls:,} direct calls are under way and paid for: waiting for their answers,"
                    f" {DIRECT_GRACE_S:.0f} s at most. A second signal leaves them; their jobs are unknown then"
                )
            )
        self._work.cancel()

    def _halt(self, error: FalbatchError) -> None:
        """Something that no job can do without is gone: end as after `stop`, with the error."""
        if self.halted_by is None:
            self.halted_by = error
            self.stop(str(error))

    async def _feed(self, group: TaskGroup) -> None:
        """Start what is paid for first, then the planned jobs as the window allows."""
        paid = self._deps.store.paid_jobs()
        for job in paid:
            has_result = job.state is State.COMPLETED
            if has_result:  # where nobody wants files, a crash may have come before the verdict
                is_wanted = self._settings.with_files or job.is_unjudged
            else:
                is_wanted = self._settings.scope is not Scope.FILES
            if not is_wanted:
                continue
            if has_result:
                await self._room_for_downloads()
            else:
                self._gate.take_slot(job.endpoint)
            self._begin(group, job)
            await anyio.lowlevel.checkpoint()  # lets it begin, so that the next look at the room counts it
        if self._settings.scope is not Scope.ALL:
            return
        feeder = Feeder(self._deps.store, self._gate, is_alive=self._alive.__contains__)
        while True:
            await self._room_for_downloads()
            planned = await feeder.next()
            if planned is None:
                return
            self._begin(group, planned)

    def _begin(self, group: TaskGroup, job: OpenJob) -> None:
        self._alive.add(job.job_id)
        group.start_soon(self._live, job)

    async def _reconcile(self, group: TaskGroup) -> None:
        """Look for submits without an answer until all jobs have ended and nothing more can be hoped for."""
        try:
            while True:
                self._go_on_with(group, await self._callbacks.adopt())
                wait_s = self._reconciler.wait_s()
                if wait_s is None and self._is_fed and not self._alive:
                    if not self._reconciler.has_a_last_look():
                        return
                elif wait_s is None or wait_s > 0:
                    with anyio.move_on_after(wait_s):
                        await self._changed.wait()
                    continue
                self._go_on_with(group, await self._reconciler.look())
        except FalbatchError as error:
            self._halt(error)

    def _go_on_with(self, group: TaskGroup, found: list[OpenJob]) -> None:
        for job in found:
            if job.state is not State.COMPLETED:
                self._gate.take_slot(job.endpoint)
            self._begin(group, job)

    async def _room_for_downloads(self) -> None:
        while self._fetching >= DOWNLOADS_AHEAD * self._settings.downloads:
            await self._fetched.wait()

    async def _live(self, begun: OpenJob) -> None:
        """One job through its stages, whatever it begins with."""
        job = begun
        try:
            job = await self._once(job)
            # Re-rolled: it does not stand in the feeder's line again.
            while job.state is State.PLANNED and self._judge.submits(job):
                await self._gate.another(job.endpoint)
                job = await self._once(job)
        except GateClosed:
            return
        except FalbatchError as error:
            self._halt(error)
        except Exception as bug:  # noqa: BLE001  (one job's bug must not keep the others from coming home)
            self._bug = self._bug or bug
            self._deps.spending.wait_no_more()
        finally:
            self._alive.discard(begun.job_id)
            if not self._alive:
                self._changed.ring()

    async def _once(self, job: OpenJob) -> OpenJob:
        """One job to its files, or to where it cannot be taken further; `planned` when it is to be rolled again."""
        is_new = job.state is not State.COMPLETED
        if is_new:
            try:
                job, stored = await self._to_result(job)
            finally:
                self._gate.give_back(job.endpoint)
        else:
            stored = self._deps.store.result_of(job.job_id)
        if job.state is State.COMPLETED and stored is not None:
            return await self._to_files(job, stored, is_new=is_new)
        return job

    async def _to_result(self, job: OpenJob) -> tuple[OpenJob, StoredResult | None]:
        """Submit and wait, with further attempts as they are granted."""
        is_ours = job.state is not State.SUBMITTED
        while True:
            if job.state is State.PLANNED:
                job = await self._inputs.ready(job)
            if job.state is State.PLANNED and job.mode.is_direct:
                job, stored = await self._direct.call(job)
                if job.state is State.PLANNED:
                    continue
                return job, stored
            if job.state is State.PLANNED:
                job = await self._submitter.submit(job)
                self._callbacks.settled(job)
            if job.state is not State.SUBMITTED or job.request is None:
                return job, None
            request = job.request
            try:
                job, result = await self._results.bring(job, request, is_ours=is_ours)
            finally:
                self._gate.left(request.request_id)
            if result is not None:
                return job, StoredResult(result.body, result.content_type)
            if job.state is not State.PLANNED:
                return job, None
            is_ours = True

    async def _to_files(self, job: OpenJob, stored: StoredResult, *, is_new: bool) -> OpenJob:
        if not self._settings.with_files:
            return await self._downloads.judge_alone(job, stored)
        self._fetching += 1
        self._deps.listen(JobMoved(job.name, "", "", "DOWNLOADING"))
        try:
            return await self._downloads.bring(job, stored, is_new=is_new)
        finally:
            self._fetching -= 1
            self._deps.listen(JobMoved(job.name, "", "DOWNLOADING", ""))
            self._fetched.ring()

    def _heard(self, event: RunEvent) -> None:
        """Pass an event on; close the gate when too many jobs have failed."""
        self._deps.listen(event)
        match event:
            case ResultCame(endpoint=endpoint):
                self._failing.succeeded(endpoint)
            case JobEnded(state=State.DONE | State.COMPLETED, failure=None, endpoint=endpoint):
                self._failing.taken(endpoint)
            case JobEnded(state=State.UNKNOWN):
                self._reconciler.noticed()
                self._changed.ring()
            case JobEnded(state=State.FAILED, failure=Failure() as failure, endpoint=endpoint):
                self._failing.failed(endpoint, failure)
            case _:
                pass
