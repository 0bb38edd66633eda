"""One try to get a job done by fal: what every call that costs money has in common.

turn ─▶ intent on disk ─▶ call ─▶ outcome on disk          (`send` is the caller's: the call and its good ends)
                           ├─▶ not taken: planned again, tried again here after everybody's pause
                           ├─▶ no answer: unknown, never repeated
                           └─▶ rejected: failed
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar
from uuid import UUID

from falbatch.core import changes
from falbatch.core.classify import failure_of
from falbatch.core.events import JobEnded, Listener, SubmitPaused
from falbatch.core.state import Event, IllegalTransition, State
from falbatch.engine.gate import GateClosed, SubmitGate
from falbatch.engine.repeat import repeat
from falbatch.engine.stop import GRACE_S, Stop
from falbatch.errors import CredentialsError, FalUnreachable, HttpError, LimitReached, TransportError, WireError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from falbatch.core.record import OpenJob
    from falbatch.engine.ports import Clock, Store
    from falbatch.engine.reach import Reach
    from falbatch.engine.spending import Spending
    from falbatch.engine.uploads import InputFiles

T = TypeVar("T")

REFUSED_FOR_S: Final = 30 * 60.0
"""When fal has refused every submit for so long, the run ends instead of knocking all night."""

UNANSWERED_MOST: Final = 8
"""Submits in a row without an answer after which nothing more is submitted: each of them may have been paid for."""

ACCOUNT_ADVICE: Final = (
    "Nothing was marked failed. Check the key, the balance and the limits in fal's dashboard; the same command goes on."
)


class NotTaken(Exception):
    """This try did not get the job to fal, and it may be tried again."""


class Attempts:
    """What the tries of one run share: turns, intents, money, and how fal's door behaves. One for all modes."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        gate: SubmitGate,
        spending: Spending,
        reach: Reach,
        stop: Stop,
        files: InputFiles,
        listen: Listener,
    ) -> None:
        self._store = store
        self._clock = clock
        self._gate = gate
        self._spending = spending
        self._reach = reach
        self._stop = stop
        self._files = files
        self._listen = listen
        self._refused_since_s: float | None = None
        """When the first submit since the last acceptance was refused; None when none was."""
        self._unanswered_in_a_row = 0
        self._naming: set[str] = set()
        """Request ids that are being recorded: a server that names one twice must not have a second job take it."""

    async def make(
        self,
        job: OpenJob,
        send: Callable[[OpenJob, float], Awaitable[T]],
        *,
        place: Callable[[], AbstractAsyncContextManager[object]],
        grace_s: float = GRACE_S,
    ) -> T:
        """What `send(job, sent_at_s)` made of `job`; it raises `NotTaken`, from the ends below, to be called again.

        `place` is entered before the intent is recorded: what bounds the calls under way. `grace_s` is what a call
        gets after a stop. Raises `GateClosed` (the job is `planned` as before) and `FalUnreachable`.
        """
        current = job

        async def try_once() -> T:
            nonlocal current
            if self._gate.is_closed:
                raise GateClosed
            reserved = await self._reserve(current)
            has_begun = False
            try:
                async with place():
                    await self._gate.turn()
                    if self._stop.reason or self._gate.is_closed:
                        raise GateClosed
                    current = await self._files.with_body(current)
                    has_begun = True
                    current = replace(current, attempts=current.attempts + 1, reserved=reserved)
                    with self._stop.shield(grace_s):
                        await self._intend(current)
                        return await send(current, self._clock.now_s())
                # The moment that a stop leaves ran out: the job stays `submitting`, for the next run it is unknown.
                raise GateClosed
            except NotTaken as error:
                # The body may have megabytes, and a thousand jobs may wait: nothing holds it, not even a traceback.
                current = replace(current, body=None)
                error.__cause__ = error.__context__ = None
                raise error.with_traceback(None)  # noqa: B904
            finally:
                if not has_begun:
                    self._spending.release(current, reserved)

        return await repeat(
            try_once,
            if_=lambda error: isinstance(error, NotTaken),
            wait_s=lambda _failures, _error: self._gate.cool_down.wait_s(self._clock.now_s()),
            sleep=self._clock.sleep,
        )

    async def _reserve(self, job: OpenJob) -> int:
        try:
            return await self._spending.reserve(job)
        except LimitReached as error:
            self._gate.close(error)
            raise GateClosed from error

    async def _intend(self, job: OpenJob) -> None:
        """The intent, on disk. Raises `GateClosed` when the call must not leave after all."""
        try:
            await self._store.record(
                changes.SubmitStarted(
                    job.job_id,
                    job.attempts,
                    self._clock.unix_s(),
                    job.reserved,
                    job.sent_sha256,
                    roll=job.roll,
                    seed=job.seed,
                )
            )
        except IllegalTransition:
            # Its earlier submit was found at fal while it waited here: whoever found it goes on with it.
            self._spending.release(job, job.reserved)
            raise GateClosed from None
        if self._stop.reason:
            stopped = TransportError("the run was stopped before the submit left", sent=False, kind="stopped")
            await self._end(job, stopped, Event.REFUSED)
            raise GateClosed

    @contextmanager
    def naming(self, request_id: str) -> Iterator[bool]:
        """True while `request_id` is this attempt's to record; False when it is another's, on record or soon."""
        if request_id in self._naming or self._store.known_requests([request_id]):
            yield False
            return
        self._naming.add(request_id)
        try:
            yield True
        finally:
            self._naming.discard(request_id)

    def taken(self, sent_at_s: float) -> None:
        """fal took a call that left at `sent_at_s`, whatever came of it."""
        self._reach.heard()
        self._refused_since_s = None
        self._unanswered_in_a_row = 0
        self._gate.accepted(sent_at_s)

    async def unreached(self, job: OpenJob, error: WireError, sent_at_s: float) -> NoReturn:
        """Nothing was sent: the job is `planned` as before, and everybody pauses. Raises `NotTaken`."""
        await self._end(job, error, Event.REFUSED)
        self._reach.missed(error)
        pause_s = self._gate.unreached(sent_at_s)
        self._listen(SubmitPaused(pause_s, str(error), refused=False))
        raise NotTaken from error

    async def refused(self, job: OpenJob, error: WireError, sent_at_s: float) -> NoReturn:
        """fal said "not now": the job is `planned` as before, everybody slows down. Raises `NotTaken`."""
        self._unanswered_in_a_row = 0
        await self._end(job, error, Event.REFUSED)
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
        raise NotTaken from error

    async def account(self, job: OpenJob, error: WireError) -> NoReturn:
        """fal takes nothing from this account: the gate closes, nothing is marked failed. Raises `NotTaken`."""
        self._unanswered_in_a_row = 0
        await self._end(job, error, Event.REFUSED)
        self._reach.heard()
        self._gate.close(CredentialsError(f"fal takes no submits: {error}", advice=ACCOUNT_ADVICE))
        raise NotTaken from error

    async def rejected(self, job: OpenJob, error: WireError) -> OpenJob:
        """fal will never take this job as it is: it is `failed`."""
        self._unanswered_in_a_row = 0
        self._reach.heard()
        return await self._end(job, error, Event.REJECTED)

    async def lost(self, job: OpenJob, error: WireError, sent_at_s: float) -> OpenJob:
        """No answer: the job is `unknown`. A door that swallows submits must not turn the whole batch into unknown
        jobs: slow down, then stop."""
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
        return await self._end(job, error, Event.NO_ANSWER)

    async def _end(self, job: OpenJob, error: WireError, event: Event) -> OpenJob:
        failure = failure_of(error)
        named_id = _named_by(error)
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


def _named_by(error: WireError) -> str:
    """The request that an error names, "" for none: it may exist all the same."""
    named = getattr(error, "request_id", "")  # a refusal, a reply that makes no sense, one that was cut
    return named.lower() if isinstance(named, str) and is_uuid(named) else ""


def is_uuid(text: str) -> bool:
    """fal's request ids are; anything else in that header names nothing that could be asked for."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
