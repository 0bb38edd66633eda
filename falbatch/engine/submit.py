"""Getting one job accepted. Intent before the call, outcome right after; unknown is never repeated."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from uuid import UUID

import anyio

from falbatch.core import changes
from falbatch.core.classify import SubmitVerdict, failure_of, submit_verdict
from falbatch.core.events import JobEnded, JobSubmitted, Listener, SubmitPaused
from falbatch.core.record import OpenJob, RequestOnRecord
from falbatch.core.state import Event, IllegalTransition, State
from falbatch.engine.gate import GateClosed, SubmitGate
from falbatch.engine.repeat import repeat
from falbatch.errors import (
    CredentialsError,
    FalUnreachable,
    HttpError,
    LimitReached,
    ReplyError,
    TransportError,
    WireError,
)
from falbatch.faultpoints import fault_point

if TYPE_CHECKING:
    from collections.abc import Iterator

    from falbatch.engine.ports import Accepted, Clock, Queue, Store
    from falbatch.engine.reach import Reach
    from falbatch.engine.spending import Spending

GRACE_S: Final = 10.0
"""How long a submit under way may take after the run was told to stop, to get its request id recorded."""

REFUSED_FOR_S: Final = 30 * 60.0
"""When fal has refused every submit for so long, the run ends instead of knocking all night."""

SUBMITS_AT_ONCE: Final = 24
"""Submits with an intent on record at the same time; fewer than the transport carries, so that an intent never waits
there unsent and becomes unknown if the program dies. At 0.2 s a submit this is 120 a second."""

UNANSWERED_MOST: Final = 8
"""Submits in a row without an answer after which nothing more is submitted: each of them may have been paid for."""

ACCOUNT_ADVICE: Final = (
    "Nothing was marked failed. Check the key, the balance and the limits in fal's dashboard; the same command goes on."
)


class _NotAccepted(Exception):
    """This try did not get the job accepted, and it may be tried again."""


@dataclass(frozen=True, slots=True)
class _Rescued:
    """An acceptance of which only the id is known; its URLs are made from endpoint and id when they are used."""

    request_id: str
    status_url: str = ""
    response_url: str = ""
    cancel_url: str = ""
    queue_position: int | None = None


class Stop:
    """The run's stop signal as the submits see it: a call under way gets a bounded moment to finish."""

    def __init__(self) -> None:
        self.reason = ""
        self._scopes: set[anyio.CancelScope] = set()

    def now(self, reason: str) -> None:
        """Give every call under way `GRACE_S` from now. Idempotent; the first reason stays."""
        if self.reason:
            return
        self.reason = reason
        for scope in self._scopes:
            scope.deadline = anyio.current_time() + GRACE_S

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Protect a paid call from cancellation until its answer is on record."""
        with anyio.CancelScope(shield=True) as scope:
            if self.reason:
                scope.deadline = anyio.current_time() + GRACE_S
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)


class Submitter:
    """The submit stage of one run."""

    def __init__(
        self,
        *,
        store: Store,
        queue: Queue,
        clock: Clock,
        gate: SubmitGate,
        spending: Spending,
        reach: Reach,
        stop: Stop,
        listen: Listener,
    ) -> None:
        self._spending = spending
        self._store = store
        self._queue = queue
        self._clock = clock
        self._gate = gate
        self._reach = reach
        self._stop = stop
        self._listen = listen
        self._refused_since_s: float | None = None
        """When the first submit since the last acceptance was refused; None when none was."""
        self._unanswered_in_a_row = 0
        self._naming: set[str] = set()
        """Request ids that are being recorded: a server that names one twice must not have a second job take it."""
        self._under_way = anyio.Semaphore(SUBMITS_AT_ONCE, fast_acquire=True)

    async def submit(self, job: OpenJob) -> OpenJob:
        """`job` as it is after its submit: `submitted`, `failed` or `unknown`.

        Raises `GateClosed` (the job is `planned` as before) and `FalUnreachable`.
        """
        current = job

        async def try_once() -> OpenJob:
            nonlocal current
            if self._gate.is_closed:
                raise GateClosed
            reserved = await self._reserve(current)
            has_begun = False
            try:
                await self._gate.turn()
                async with self._under_way:
                    if self._stop.reason or self._gate.is_closed:
                        raise GateClosed
                    has_begun = True
                    current = replace(current, attempts=current.attempts + 1, reserved=reserved)
                    with self._stop.shield():
                        return await self._try(current)
                # The moment that a stop leaves ran out: the job stays `submitting`, for the next run it is unknown.
                raise GateClosed
            finally:
                if not has_begun:
                    self._spending.release(current, reserved)

        return await repeat(
            try_once,
            if_=lambda error: isinstance(error, _NotAccepted),
            wait_s=lambda _failures, _error: self._gate.cool_down.wait_s(self._clock.now_s()),
            sleep=self._clock.sleep,
        )

    async def _reserve(self, job: OpenJob) -> int:
        try:
            return await self._spending.reserve(job)
        except LimitReached as error:
            self._gate.close(error)
            raise GateClosed from error

    async def _try(self, job: OpenJob) -> OpenJob:
        try:
            await self._store.record(
                changes.SubmitStarted(job.job_id, job.attempts, self._clock.unix_s(), job.reserved)
            )
        except IllegalTransition:
            # Its earlier submit was found at fal while it waited here: whoever found it goes on with it.
            self._spending.release(job, job.reserved)
            raise GateClosed from None
        if self._stop.reason:
            stopped = TransportError("the run was stopped before the submit left", sent=False, kind="stopped")
            await self._end(job, stopped, Event.REFUSED)
            raise GateClosed
        sent_at_s = self._clock.now_s()
        fault_point("submit.leaving")
        try:
            accepted = await self._queue.submit(job.endpoint, job.input_json)
        except WireError as error:
            fault_point("submit.answered")
            if isinstance(error, ReplyError) and error.request_id:
                # The body broke, but a header of the success names the request: it is ours, and paid for.
                return await self._accepted(job, _Rescued(error.request_id), sent_at_s)
            return await self._not_accepted(job, error, sent_at_s)
        fault_point("submit.answered")
        return await self._accepted(job, accepted, sent_at_s)

    async def _accepted(self, job: OpenJob, accepted: Accepted, sent_at_s: float) -> OpenJob:
        if accepted.request_id in self._naming or self._store.known_requests([accepted.request_id]):
            twice = ReplyError(f"fal's answer names request {accepted.request_id}, which is another submit's")
            return await self._not_accepted(job, twice, sent_at_s)
        self._naming.add(accepted.request_id)
        try:
            await self._record_acceptance(job, accepted)
        finally:
            self._naming.discard(accepted.request_id)
        self._reach.heard()
        self._refused_since_s = None
        self._unanswered_in_a_row = 0
        self._gate.accepted(sent_at_s)
        self._listen(JobSubmitted(job.name, accepted.request_id))
        request = RequestOnRecord(
            accepted.request_id,
            job.endpoint,
            accepted.status_url,
            accepted.response_url,
            accepted.cancel_url,
            self._clock.unix_s(),
        )
        return replace(job, state=State.SUBMITTED, request=request)

    async def _record_acceptance(self, job: OpenJob, accepted: Accepted) -> None:
        await self._store.record(
            changes.SubmitAccepted(
                job.job_id,
                job.attempts,
                self._clock.unix_s(),
                request_id=accepted.request_id,
                status_url=accepted.status_url,
                response_url=accepted.response_url,
                cancel_url=accepted.cancel_url,
                queue_position=accepted.queue_position,
            )
        )

    async def _not_accepted(self, job: OpenJob, error: WireError, sent_at_s: float) -> OpenJob:
        verdict = submit_verdict(error)
        if verdict in {SubmitVerdict.REFUSED, SubmitVerdict.ACCOUNT, SubmitVerdict.REJECTED}:
            self._unanswered_in_a_row = 0
        match verdict:
            case SubmitVerdict.UNREACHED:
                await self._end(job, error, Event.REFUSED)
                self._reach.missed(error)
                pause_s = self._gate.unreached(sent_at_s)
                self._listen(SubmitPaused(pause_s, str(error), refused=False))
                raise _NotAccepted from error
            case SubmitVerdict.REFUSED:
                await self._end(job, error, Event.REFUSED)
                self._refused(error, sent_at_s)
                raise _NotAccepted from error
            case SubmitVerdict.ACCOUNT:
                await self._end(job, error, Event.REFUSED)
                self._reach.heard()
                self._gate.close(CredentialsError(f"fal takes no submits: {error}", advice=ACCOUNT_ADVICE))
                raise _NotAccepted from error
            case SubmitVerdict.REJECTED:
                self._reach.heard()
                return await self._end(job, error, Event.REJECTED)
            case SubmitVerdict.UNKNOWN:
                self._unanswered(error, sent_at_s)
                return await self._end(job, error, Event.NO_ANSWER)

    def _unanswered(self, error: WireError, sent_at_s: float) -> None:
        """A door that swallows submits must not turn the whole batch into unknown jobs: slow down, then stop."""
        self._unanswered_in_a_row += 1
        pause_s = self._gate.unreached(sent_at_s)
        self._listen(SubmitPaused(pause_s, str(error), refused=False))
        if self._unanswered_in_a_row >= UNANSWERED_MOST:
            self._gate.close(
                FalUnreachable(
                    f"{self._unanswered_in_a_row} submits in a row got no answer: {error}",
                    advice="fal may or may not have run them; what it does not list stays unknown. Look at fal's status"
                    " page; the same command goes on with the other jobs.",
                )
            )

    def _refused(self, error: WireError, sent_at_s: float) -> None:
        self._reach.heard()
        retry_after_s = error.retry_after_s if isinstance(error, HttpError) else None
        pause_s = self._gate.refused(sent_at_s, retry_after_s)
        self._listen(SubmitPaused(pause_s, str(error), refused=True))
        now_s = self._clock.now_s()
        if self._refused_since_s is None:
            self._refused_since_s = now_s
        refused_s = now_s - self._refused_since_s
        if refused_s >= REFUSED_FOR_S:
            self._gate.close(
                FalUnreachable(
                    f"fal has refused every submit for {refused_s / 60:.0f} minutes: {error}",
                    advice="Try again later; the same command goes on.",
                )
            )

    async def _end(self, job: OpenJob, error: WireError, event: Event) -> OpenJob:
        failure = failure_of(error)
        named_id = error.request_id.lower() if isinstance(error, HttpError) and _is_uuid(error.request_id) else ""
        at = self._clock.unix_s()
        await self._store.record(changes.SubmitNotAccepted(job.job_id, job.attempts, at, event, failure, named_id))
        if event is Event.NO_ANSWER:
            self._spending.lose(job, job.reserved)
        else:
            self._spending.release(job, job.reserved)
        state = {Event.REJECTED: State.FAILED, Event.NO_ANSWER: State.UNKNOWN}.get(event, State.PLANNED)
        if state is not State.PLANNED:
            self._listen(JobEnded(job.job_id, job.key, job.name, state, failure, job.endpoint))
        return replace(job, state=state)


def _is_uuid(text: str) -> bool:
    """fal's request ids are; anything else in that header names nothing that could be asked for."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
