"""Jobs that one call does: run, stream, realtime. The answer comes on the call's own connection, or never.

intent on disk ─▶ call ─▶ acceptance and outcome on disk, in one entry ─▶ files
                    └─▶ no answer: unknown; fal's list may hold the output (engine/reconcile.py)
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from falbatch.core import changes
from falbatch.core.backoff import BackoffPolicy, delay_s
from falbatch.core.classify import DirectVerdict, Failure, direct_verdict, failure_of
from falbatch.core.events import JobEnded, JobMoved, JobSubmitted, JobTriedAgain, Listener, Notice, ResultCame
from falbatch.core.record import OpenJob, RequestOnRecord, StoredResult
from falbatch.core.state import Event, State
from falbatch.engine.attempts import Attempts, is_uuid
from falbatch.errors import DiskFull, HttpError, WireError
from falbatch.faultpoints import fault_point

if TYPE_CHECKING:
    from collections.abc import Iterator

    from falbatch.engine.gate import SubmitGate
    from falbatch.engine.ports import Answer, Clock, Direct, Store
    from falbatch.engine.spending import Spending
    from falbatch.engine.wait import PollScheduler

DIRECT_GRACE_S: Final = 120.0
"""How long a direct call may take after the run was told to stop: its answer is paid for, and cannot be asked for
again."""

ROOM_S: Final = 60.0
"""How long an answer waits in memory for room on a full disk, before its job is given up as unknown."""
ROOM_PAUSE_S: Final = 2.0

OWN_ID: Final = "direct-"
"""Begins the ids that we give to calls that fal did not name, or named like another: no id of fal's looks like it."""


class DirectCaller:
    """The one stage of direct calls, before their files."""

    def __init__(
        self,
        *,
        attempts: Attempts,
        store: Store,
        direct: Direct,
        clock: Clock,
        polls: PollScheduler,
        gate: SubmitGate,
        spending: Spending,
        backoff: BackoffPolicy,
        most_attempts: int,
        listen: Listener,
    ) -> None:
        self._attempts = attempts
        self._store = store
        self._direct = direct
        self._clock = clock
        self._polls = polls
        """Knows how long jobs take, which bounds how long lost ones are looked for."""
        self._gate = gate
        self._spending = spending
        self._backoff = backoff
        self._most_attempts = most_attempts
        self._listen = listen

    async def call(self, job: OpenJob) -> tuple[OpenJob, StoredResult | None]:
        """`job` as it is after its call: `completed` with its result, `failed`, `cancelled`, `unknown`, or `planned`
        when another attempt is due (its pause was waited here).

        Raises `GateClosed` (the job is `planned` as before) and `FalUnreachable`.
        """
        ended, stored = await self._attempts.make(job, self._send, place=self._gate.call, grace_s=DIRECT_GRACE_S)
        if ended.state is State.PLANNED:
            await self._clock.sleep(delay_s(ended.failures, self._backoff, self._clock.jitter()))
        return ended, stored

    async def _send(self, job: OpenJob, sent_at_s: float) -> tuple[OpenJob, StoredResult | None]:
        fault_point("submit.leaving")
        self._listen(JobMoved(job.name, "", "", "IN_PROGRESS"))
        try:
            answer = await self._direct.call(job.mode, job.endpoint, job.sent_json)
        except WireError as error:
            fault_point("submit.answered")
            return await self._without_answer(job, error, sent_at_s), None
        finally:
            self._listen(JobMoved(job.name, "", "IN_PROGRESS", ""))
        fault_point("submit.answered")
        self._polls.took(job.endpoint, self._clock.now_s() - sent_at_s)
        return await self._with_answer(job, answer, sent_at_s)

    async def _with_answer(self, job: OpenJob, answer: Answer, sent_at_s: float) -> tuple[OpenJob, StoredResult]:
        cost = self._spending.settle(job, answer.billable_units)
        at = self._clock.unix_s()
        with self._named(answer.request_id) as request_id:
            result = changes.ResultStored(
                job.job_id,
                request_id,
                at,
                body=answer.body,
                content_type=answer.content_type,
                billable_units=answer.billable_units,
                cost=cost,
                events=answer.events,
                bill=self._spending.bill(job, answer.billable_units),
            )
            await self._keep(job, request_id, result)
        self._attempts.taken(sent_at_s)
        self._listen(JobSubmitted(job.name, request_id))
        self._listen(ResultCame(job.name, request_id, job.endpoint))
        request = RequestOnRecord(request_id, job.endpoint, "", "", "", at)
        completed = replace(job, state=State.COMPLETED, request=request, body=None)
        return completed, StoredResult(answer.body, answer.content_type, answer.events)

    async def _keep(self, job: OpenJob, request_id: str, outcome: changes.ResultStored | changes.RequestEnded) -> None:
        """Acceptance and outcome in one entry. The answer is paid for and cannot be asked for again, so on a full disk
        it waits for room; at last its name is kept, by which fal's list may bring it back. Raises `DiskFull`."""
        accepted = changes.SubmitAccepted(
            job.job_id, job.attempts, outcome.at, request_id=request_id, status_url="", response_url="", cancel_url=""
        )
        until_s = self._clock.now_s() + ROOM_S
        while True:
            try:
                return await self._store.record(accepted, outcome)
            except DiskFull as error:
                if self._gate.closed_by is None:
                    self._listen(
                        Notice(f"{error}: answers that are paid for wait {ROOM_S:.0f} s for room. {error.advice}")
                    )
                self._gate.close(error)
                if self._clock.now_s() >= until_s:
                    await self._keep_name(job, request_id)
                    raise
            await self._clock.sleep(ROOM_PAUSE_S)

    async def _keep_name(self, job: OpenJob, request_id: str) -> None:
        named = "" if request_id.startswith(OWN_ID) else request_id
        failure = Failure("no_answer", "the disk was full when its answer came")
        at = self._clock.unix_s()
        lost = changes.SubmitNotAccepted(job.job_id, job.attempts, at, Event.NO_ANSWER, failure, named)
        with suppress(DiskFull):
            await self._store.record(lost)

    @contextmanager
    def _named(self, named: str) -> Iterator[str]:
        """What a call goes by on record: fal's own id as long as no other call has it, else one of ours."""
        if is_uuid(named):
            with self._attempts.naming(named.lower()) as is_new:
                if is_new:
                    yield named.lower()
                    return
        yield f"{OWN_ID}{uuid4()}"

    async def _without_answer(self, job: OpenJob, error: WireError, sent_at_s: float) -> OpenJob:
        match direct_verdict(error):
            case DirectVerdict.UNREACHED:
                return await self._attempts.unreached(job, error, sent_at_s)
            case DirectVerdict.REFUSED:
                return await self._attempts.refused(job, error, sent_at_s)
            case DirectVerdict.ACCOUNT:
                return await self._attempts.account(job, error)
            case DirectVerdict.REJECTED:
                return await self._attempts.rejected(job, error)
            case DirectVerdict.UNKNOWN:
                return await self._attempts.lost(job, error, sent_at_s)
            case DirectVerdict.CANCELLED:
                return await self._ended(job, error, sent_at_s, Event.REQUEST_CANCELLED)
            case DirectVerdict.FAILED:
                return await self._ended(job, error, sent_at_s, Event.REQUEST_FAILED)
            case DirectVerdict.WORTH_ANOTHER:
                failures = job.failures + 1
                if not self._gate.grant_another(job, failures, self._most_attempts):
                    return await self._ended(job, error, sent_at_s, Event.REQUEST_FAILED)
                planned = await self._ended(job, error, sent_at_s, Event.ATTEMPT_FAILED)
                return replace(planned, failures=failures)

    async def _ended(self, job: OpenJob, error: WireError, sent_at_s: float, event: Event) -> OpenJob:
        """The call was answered, with a failure of the job's own."""
        failure = failure_of(error)
        units = error.billable_units if isinstance(error, HttpError) else None
        cost = self._spending.settle(job, units, failed_status=failure.http_status or 400)
        at = self._clock.unix_s()
        with self._named(error.request_id if isinstance(error, HttpError) else "") as request_id:
            ended = changes.RequestEnded(job.job_id, request_id, at, event, failure, billable_units=units, cost=cost)
            await self._keep(job, request_id, ended)
        self._attempts.taken(sent_at_s)
        self._listen(JobSubmitted(job.name, request_id))
        return self._told(job, failure, event)

    def _told(self, job: OpenJob, failure: Failure, event: Event) -> OpenJob:
        states = {Event.REQUEST_CANCELLED: State.CANCELLED, Event.REQUEST_FAILED: State.FAILED}
        state = states.get(event, State.PLANNED)
        if state is State.PLANNED:
            self._listen(JobTriedAgain(job.name, failure))
        else:
            self._listen(JobEnded(job.job_id, job.key, job.name, state, failure, job.endpoint))
        return replace(job, state=state, body=None)
