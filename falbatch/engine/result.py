"""From "submitted" to "completed": wait, then read COMPLETED in its three ways (design §6)."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Final, assert_never

from falbatch.core import changes
from falbatch.core.backoff import BackoffPolicy, delay_s
from falbatch.core.classify import Failure, ResultVerdict, failure_of, result_verdict
from falbatch.core.events import JobEnded, JobTriedAgain, Listener, ResultCame
from falbatch.core.state import Event, State
from falbatch.engine.repeat import pause_s, repeat
from falbatch.engine.wait import NOT_YET_S, CalledBack, PollScheduler
from falbatch.errors import CredentialsError, HttpError, TransportError, WireError
from falbatch.faultpoints import fault_point

if TYPE_CHECKING:
    from falbatch.core.record import OpenJob, RequestOnRecord
    from falbatch.engine.gate import SubmitGate
    from falbatch.engine.ports import Clock, Progress, Queue, Result, Store
    from falbatch.engine.reach import Reach
    from falbatch.engine.spending import Spending

READS: Final = 40
"""Tries to read one result before it is left for the next run: at the default back-off a little longer than the run's
whole patience with a silent fal (`engine/reach.py`)."""

NOT_YET_LOOKS: Final = 30
"""A completed request whose result is "not yet" for so many looks (half a minute) is not late: an app's own 400
looks the same (fal-protocol §3.4), and would be asked for without end."""

OUTCOME_LOOKS: Final = 2
"""A failure that would be paid for again is looked at twice, unless the status named an error too: a stored answer
repeats itself, a bad moment of fal's does not (fal-protocol §13.1)."""

DOUBTFUL_LOOKS: Final = 6
"""The same where the status told how long the model worked and of no error: then its door is in trouble rather than the
request. With growing pauses, half a minute."""

GONE_LOOKS: Final = 3
"""A result is believed to be gone when it was looked for this often: a 404 may be a gateway's bad moment."""


class ResultReader:
    """The wait and result stages of one run."""

    def __init__(
        self,
        *,
        store: Store,
        queue: Queue,
        clock: Clock,
        polls: PollScheduler,
        gate: SubmitGate,
        spending: Spending,
        reach: Reach,
        backoff: BackoffPolicy,
        attempts: int,
        listen: Listener,
    ) -> None:
        self._store = store
        self._queue = queue
        self._clock = clock
        self._polls = polls
        self._gate = gate
        self._spending = spending
        self._reach = reach
        self._backoff = backoff
        self._attempts = attempts
        self._listen = listen

    async def bring(self, job: OpenJob, request: RequestOnRecord, *, is_ours: bool) -> tuple[OpenJob, Result | None]:
        """`job` after its request ended: `completed` with its result, `planned` (another attempt is due after the
        pause that was waited here), `failed`, `cancelled`, or still `submitted` when it could not be read.

        A key that is refused closes the gate; what is being downloaded goes on. Raises `FalUnreachable`.
        """
        pause_s = 0.0
        looks = {
            ResultVerdict.NOT_YET: NOT_YET_LOOKS,
            ResultVerdict.GONE: GONE_LOOKS,
            ResultVerdict.WORTH_ANOTHER: OUTCOME_LOOKS,
        }
        for look in count(1):
            try:
                # Only the first wait is as long as the request took, and teaches something.
                progress = await self._polls.completion(
                    job.name, request, is_ours=is_ours and look == 1, not_before_s=pause_s
                )
            except WireError as error:
                # Whatever a status call answers is no outcome of the job (fal-protocol §13.1).
                return await self._stuck(job, failure_of(error)), None
            except CredentialsError as error:
                self._gate.close(error)
                return await self._stuck(job, Failure("key_refused", str(error))), None
            try:
                result = await self._read(request)
            except WireError as error:
                verdict = result_verdict(error)
                most = looks.get(verdict, 0)
                if verdict is ResultVerdict.WORTH_ANOTHER and progress and progress.inference_time_s is not None:
                    most = DOUBTFUL_LOOKS
                # A call is a hint: where fal itself says "not yet", it is asked.
                is_hint = isinstance(progress, CalledBack) and verdict is ResultVerdict.NOT_YET
                if look < most and (is_hint or not (progress and progress.error)):
                    pause_s = NOT_YET_S if most != DOUBTFUL_LOOKS else NOT_YET_S * 2 ** (look - 1)
                    continue
                return await self._without_result(job, request, error, verdict), None
            fault_point("result.answered")
            return await self._store_result(job, request, result, progress), result
        raise AssertionError("count() has no end")

    async def _read(self, request: RequestOnRecord) -> Result:
        async def call() -> Result:
            try:
                result = await self._queue.result(request)
            except TransportError as error:
                self._reach.missed(error)
                raise
            except HttpError:
                self._reach.heard()
                raise
            self._reach.heard()
            return result

        return await repeat(
            call,
            if_=lambda error: isinstance(error, WireError) and result_verdict(error) is ResultVerdict.ASK_AGAIN,
            wait_s=lambda failures, error: pause_s(failures, error, self._backoff, self._clock),
            sleep=self._clock.sleep,
            attempts=READS,
        )

    async def _store_result(
        self, job: OpenJob, request: RequestOnRecord, result: Result, progress: Progress | None
    ) -> OpenJob:
        cost = self._spending.settle(job, result.billable_units)
        await self._store.record(
            changes.ResultStored(
                job.job_id,
                request.request_id,
                self._clock.unix_s(),
                body=result.body,
                content_type=result.content_type,
                billable_units=result.billable_units,
                inference_s=progress.inference_time_s if progress else None,
                cost=cost,
                bill=self._spending.bill(job, result.billable_units),
            )
        )
        self._listen(ResultCame(job.name, request.request_id, job.endpoint))
        return replace(job, state=State.COMPLETED)

    async def _without_result(
        self, job: OpenJob, request: RequestOnRecord, error: WireError, verdict: ResultVerdict
    ) -> OpenJob:
        match verdict:
            case ResultVerdict.ASK_AGAIN | ResultVerdict.ACCOUNT:
                # A key that is refused altogether shows at the next status call, and ends the run there.
                return await self._stuck(job, failure_of(error))
            case ResultVerdict.GONE:
                gone = Failure("result_gone", f"fal no longer has request {request.request_id}", 404)
                return await self._end(job, request, error, Event.REQUEST_FAILED, gone)
            case ResultVerdict.CANCELLED:
                return await self._end(job, request, error, Event.REQUEST_CANCELLED, failure_of(error))
            case ResultVerdict.FAILED | ResultVerdict.NOT_YET:
                return await self._end(job, request, error, Event.REQUEST_FAILED, failure_of(error))
            case ResultVerdict.WORTH_ANOTHER:
                return await self._another(job, request, error)
            case _:
                assert_never(verdict)

    async def _stuck(self, job: OpenJob, failure: Failure) -> OpenJob:
        """Leave the request at fal for another run, with the reason."""
        self._spending.lose(job, job.reserved)
        await self._store.record(changes.Stuck(job.job_id, self._clock.unix_s(), failure))
        self._listen(JobEnded(job.job_id, job.key, job.name, State.SUBMITTED, failure, job.endpoint))
        return job

    async def _another(self, job: OpenJob, request: RequestOnRecord, error: WireError) -> OpenJob:
        """Grant a further attempt within the job's own bound and the batch's budget; wait its pause."""
        failure = failure_of(error)
        failures = job.failures + 1
        if not self._gate.grant_another(job, failures, self._attempts):
            return await self._end(job, request, error, Event.REQUEST_FAILED, failure)
        planned = await self._end(job, request, error, Event.ATTEMPT_FAILED, failure)
        self._listen(JobTriedAgain(job.name, failure))
        await self._clock.sleep(delay_s(failures, self._backoff, self._clock.jitter()))
        return replace(planned, failures=failures)

    async def _end(
        self, job: OpenJob, request: RequestOnRecord, error: WireError, event: Event, failure: Failure
    ) -> OpenJob:
        units = error.billable_units if isinstance(error, HttpError) else None
        cost = self._spending.settle(job, units, failed_status=failure.http_status or 400)
        at = self._clock.unix_s()
        await self._store.record(
            changes.RequestEnded(job.job_id, request.request_id, at, event, failure, billable_units=units, cost=cost)
        )
        states = {Event.REQUEST_CANCELLED: State.CANCELLED, Event.REQUEST_FAILED: State.FAILED}
        state = states.get(event, State.PLANNED)
        if state is not State.PLANNED:
            self._listen(JobEnded(job.job_id, job.key, job.name, state, failure, job.endpoint))
        return replace(job, state=state)
