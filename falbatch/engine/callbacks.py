"""What fal's calls mean for the jobs of a run. Whoever hands them over has verified that fal sent them, and that their
token is of the attempt that they are about.

    called ─▶ its request is on record ─▶ the wait ends, the result is read
              its submit is under way ──▶ remembered until that has ended
              its submit got no answer ─▶ the request is adopted
              anything else ────────────▶ dropped, and told

A call is believed in one thing only: that the request which it names has ended. Touched on the event loop only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from falbatch.core.events import Listener, Notice
from falbatch.core.state import Event, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from falbatch.core.record import OpenJob
    from falbatch.engine.ports import Store
    from falbatch.engine.reconcile import Reconciler
    from falbatch.engine.wait import PollScheduler

TOLD_MOST: Final = 20
"""Dropped calls that are told one by one; the rest of a run's are not."""

_LOST: Final = {None, Event.NO_ANSWER}
"""Outcomes of attempts whose requests are not known."""


@dataclass(frozen=True, slots=True)
class _Call:
    """What a call says, as far as it is believed."""

    attempt: int
    request_id: str
    error: str | None


class Callbacks:
    """The calls of one run."""

    def __init__(
        self, store: Store, polls: PollScheduler, reconciler: Reconciler, listen: Listener, *, wake: Callable[[], None]
    ) -> None:
        """`wake` is called when there is something to `adopt`."""
        self._store = store
        self._polls = polls
        self._reconciler = reconciler
        self._listen = listen
        self._wake = wake
        self._early: dict[int, _Call] = {}
        """By job id: calls that came before the answer to their submit. As many as submits under way, at most."""
        self._lost: dict[tuple[int, int], _Call] = {}
        """By job id and attempt: calls about submits without an answer."""
        self._told = 0

    def came(self, job_id: int, attempt: int, request_id: str, error: str | None) -> None:
        """fal called about an attempt. Returns at once. Raises `StateError` when the state file cannot be read."""
        call = _Call(attempt, request_id, error)
        known = self._store.attempt(job_id, attempt)
        if known is None:
            self._drop(job_id, attempt, "no such submit is on record")
        elif known.request_id is not None:
            self._about_known(job_id, call, known.request_id, is_open=known.is_latest and _is_open(known.job_state))
        elif known.outcome not in _LOST:
            self._drop(job_id, attempt, f"fal has {known.outcome} that submit")
        elif self._store.known_requests([request_id]):
            self._drop(job_id, attempt, "it names a request that is another submit's")
        elif known.job_state is State.SUBMITTING and known.is_latest:
            self._early.setdefault(job_id, call)
        else:
            self._about_lost(job_id, call)

    def settled(self, job: OpenJob) -> None:
        """The submit of `job` has ended one way or the other, and that is on record."""
        call = self._early.pop(job.job_id, None)
        if call is None:
            return
        if job.state is State.SUBMITTED and job.request is not None and call.attempt == job.attempts:
            self._about_known(job.job_id, call, job.request.request_id, is_open=True)
        elif job.state is State.UNKNOWN and call.attempt == job.attempts:
            self._about_lost(job.job_id, call)
        else:
            self._drop(job.job_id, call.attempt, "fal did not take that submit")

    async def adopt(self) -> list[OpenJob]:
        """Adopt the requests that calls named since. The jobs that go on with them: nobody follows them yet."""
        found: list[OpenJob] = []
        while self._lost:
            (job_id, attempt), call = self._lost.popitem()
            jobs = await self._reconciler.adopt(job_id, attempt, call.request_id)
            if jobs:
                self._polls.called_back(call.request_id, call.error, is_open=True)
            found += jobs
        return found

    def _about_known(self, job_id: int, call: _Call, request_id: str, *, is_open: bool) -> None:
        if call.request_id != request_id.lower():
            # fal does call, on its own or for somebody who came by the token: either way it is not about our job.
            self._drop(job_id, call.attempt, "it names another request than the one on record")
            return
        self._polls.called_back(request_id, call.error, is_open=is_open)

    def _about_lost(self, job_id: int, call: _Call) -> None:
        self._lost.setdefault((job_id, call.attempt), call)
        self._wake()

    def _drop(self, job_id: int, attempt: int, why: str) -> None:
        self._told += 1
        if self._told > TOLD_MOST:
            return
        more = "; no more of these are told" if self._told == TOLD_MOST else ""
        self._listen(Notice(f"a webhook about submit {attempt} of job {job_id} was dropped: {why}{more}"))


def _is_open(state: State) -> bool:
    """True when the job waits for its request, or will."""
    return state is State.SUBMITTED
