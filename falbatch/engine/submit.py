"""Getting one job into fal's queue. Intent before the call, outcome right after; unknown is never repeated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import anyio

from falbatch.core import changes
from falbatch.core.classify import SubmitVerdict, submit_verdict
from falbatch.core.events import JobSubmitted, Listener
from falbatch.core.record import OpenJob, RequestOnRecord
from falbatch.core.state import State
from falbatch.errors import ReplyError, WireError
from falbatch.faultpoints import fault_point

if TYPE_CHECKING:
    from falbatch.core.callback import CallbackUrls
    from falbatch.engine.attempts import Attempts
    from falbatch.engine.ports import Accepted, Clock, Queue, Store

SUBMITS_AT_ONCE: Final = 96
"""Submits with an intent on record at the same time; fewer than the transport carries, so that an intent never waits
there unsent and becomes unknown if the program dies. At 0.2 s a submit this is 480 a second; with the
default `submits_per_s` about forty are under way."""


@dataclass(frozen=True, slots=True)
class _Rescued:
    """An acceptance of which only the id is known; its URLs are made from endpoint and id when they are used."""

    request_id: str
    status_url: str = ""
    response_url: str = ""
    cancel_url: str = ""
    queue_position: int | None = None


class Submitter:
    """The submit stage of one run."""

    def __init__(
        self,
        *,
        attempts: Attempts,
        store: Store,
        queue: Queue,
        clock: Clock,
        listen: Listener,
        callbacks: CallbackUrls | None = None,
    ) -> None:
        """`callbacks`: where fal shall call at the end of each request; None for nowhere."""
        self._attempts = attempts
        self._store = store
        self._queue = queue
        self._clock = clock
        self._listen = listen
        self._callbacks = callbacks
        self._under_way = anyio.Semaphore(SUBMITS_AT_ONCE, fast_acquire=True)

    async def submit(self, job: OpenJob) -> OpenJob:
        """`job` as it is after its submit: `submitted`, `failed` or `unknown`.

        Raises `GateClosed` (the job is `planned` as before) and `FalUnreachable`.
        """
        return await self._attempts.make(job, self._send, place=lambda: self._under_way)

    async def _send(self, job: OpenJob, sent_at_s: float) -> OpenJob:
        callback = None if self._callbacks is None else self._callbacks.of(job.job_id, job.attempts)
        fault_point("submit.leaving")
        try:
            accepted = await self._queue.submit(job.endpoint, job.sent_json, callback)
        except WireError as error:
            fault_point("submit.answered")
            if isinstance(error, ReplyError) and error.request_id:
                # The body broke, but a header of the success names the request: it is ours, and paid for.
                return await self._accepted(job, _Rescued(error.request_id), sent_at_s)
            return await self._not_accepted(job, error, sent_at_s)
        fault_point("submit.answered")
        return await self._accepted(job, accepted, sent_at_s)

    async def _accepted(self, job: OpenJob, accepted: Accepted, sent_at_s: float) -> OpenJob:
        with self._attempts.naming(accepted.request_id) as is_new:
            if not is_new:
                twice = ReplyError(f"fal's answer names request {accepted.request_id}, which is another submit's")
                return await self._not_accepted(job, twice, sent_at_s)
            await self._record_acceptance(job, accepted)
        self._attempts.taken(sent_at_s)
        self._listen(JobSubmitted(job.name, accepted.request_id))
        request = RequestOnRecord(
            accepted.request_id,
            job.endpoint,
            accepted.status_url,
            accepted.response_url,
            accepted.cancel_url,
            self._clock.unix_s(),
            accepted.queue_position,
        )
        return replace(job, state=State.SUBMITTED, request=request, body=None)

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
        match submit_verdict(error):
            case SubmitVerdict.UNREACHED:
                return await self._attempts.unreached(job, error, sent_at_s)
            case SubmitVerdict.REFUSED:
                return await self._attempts.refused(job, error, sent_at_s)
            case SubmitVerdict.ACCOUNT:
                return await self._attempts.account(job, error)
            case SubmitVerdict.REJECTED:
                return await self._attempts.rejected(job, error)
            case SubmitVerdict.UNKNOWN:
                return await self._attempts.lost(job, error, sent_at_s)
