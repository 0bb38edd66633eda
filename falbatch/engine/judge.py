"""What becomes of a job whose result is here and paid for: done, marked, failed, or another attempt with another seed.

completed ─▶ flags? lacks? (core/flags) ─┬▶ done
                                         ├▶ failed      (its files stay)
                                         └▶ planned     (re-rolled: the seed is on record before anything leaves)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, assert_never

from falbatch.core import changes
from falbatch.core.classify import Failure
from falbatch.core.events import JobEnded, JobTriedAgain, Listener
from falbatch.core.flags import (
    FlagPolicy,
    LackPolicy,
    Noticed,
    Result,
    Treatment,
    failure_for,
    lack,
    noticed,
    treatment,
)
from falbatch.core.seeds import can_roll
from falbatch.core.state import State
from falbatch.engine.settings import Scope

if TYPE_CHECKING:
    from collections.abc import Collection

    from falbatch.core.record import OpenJob
    from falbatch.engine.gate import SubmitGate
    from falbatch.engine.ports import Clock, Store
    from falbatch.engine.settings import ExecuteSettings

NO_SUBMITS: Final = "no attempt is made in this run"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was decided about one result."""

    treatment: Treatment
    noticed: Noticed | None
    failure: Failure | None
    """Why it fails, or is rolled again."""

    @property
    def is_taken(self) -> bool:
        """False for a result that the job is not done with: its place is left to another one."""
        return self.treatment in {Treatment.TAKE, Treatment.MARK}


class Judge:
    """Judges the results of one run."""

    def __init__(
        self, store: Store, clock: Clock, gate: SubmitGate, settings: ExecuteSettings, listen: Listener
    ) -> None:
        self._store = store
        self._clock = clock
        self._gate = gate
        self._policy = FlagPolicy(settings.flagged)  # callers from Python may give the word
        self._keeps_lacking = LackPolicy(settings.lacking) is LackPolicy.KEEP
        self._attempts = settings.attempts
        self._scope = settings.scope
        self._listen = listen

    def comes_first(self, result: Result) -> bool:
        """True where a result may not be taken, so that it is judged before its files are named."""
        return self._policy in {FlagPolicy.FAIL, FlagPolicy.REROLL} or self._lack(result) is not None

    def judge(self, job: OpenJob, result: Result, *, has_black: bool) -> Judgement:
        """Decide about `job`; a re-roll that is granted counts as an attempt from now on."""
        seen, lacking = noticed(result, has_black=has_black), self._lack(result)
        decided, why = treatment(seen, lacking, self._policy), ""
        if decided is Treatment.REROLL:
            why = self._refusal(job)
            decided = Treatment.FAIL if why else decided
        has_failed = decided in {Treatment.FAIL, Treatment.REROLL}
        reason = failure_for(seen, lacking if decided is Treatment.FAIL else None, why=why) if has_failed else None
        return Judgement(decided, seen, reason)

    def submits(self, job: OpenJob) -> bool:
        """Is another attempt at `job` this run's? Otherwise it is recorded, and left to a later one."""
        return self._scope is Scope.ALL and self._store.is_selected(job.job_id)

    def _lack(self, result: Result) -> Failure | None:
        return None if self._keeps_lacking else lack(result)

    def _refusal(self, job: OpenJob) -> str:
        """Why `job` gets no further attempt; "" when it was granted one."""
        failures = job.failures + 1
        if job.seq is None:
            return "it left the manifest, so it is not re-rolled"
        if not can_roll(job.input_json):
            return "its seed cannot be replaced"
        if failures >= self._attempts:
            return "retry.attempts is used up"
        if self._scope is Scope.FILES:
            return NO_SUBMITS
        # A run that is not to submit it leaves the attempt, and its share of the budget, to the next one.
        if self.submits(job) and not self._gate.grant_another(job, failures, self._attempts):
            return "retry.budget is used up"
        return ""

    async def end(self, job: OpenJob, found: Judgement, files: Collection[str] | None) -> OpenJob:
        """Put what was decided on record, all in one entry, and tell it. `files` are those of the result, on disk under
        their names; None where none are wanted: a good result is on record already then."""
        at = self._clock.unix_s()
        happened: list[changes.Change] = []
        if found.noticed is not None:
            seen = replace(found.noticed, files=() if found.is_taken else tuple(files or ()))
            request_id = job.request.request_id if job.request else ""
            is_marked = found.treatment is Treatment.MARK
            happened.append(changes.ResultFlagged(job.job_id, request_id, at, seen, is_marked))
        match found.treatment:
            case Treatment.TAKE | Treatment.MARK:
                if files is not None:
                    happened.append(changes.FilesStored(job.job_id, at))
                elif found.noticed is None:
                    happened.append(changes.ResultTaken(job.job_id, at))
                ended = replace(job, state=State.COMPLETED if files is None else State.DONE)
            case Treatment.FAIL:
                happened.append(changes.ResultRefused(job.job_id, at, found.failure or Failure("", "")))
                ended = replace(job, state=State.FAILED)
            case Treatment.REROLL:
                roll = job.roll + 1
                happened.append(changes.Rerolled(job.job_id, at, roll))
                ended = replace(job, state=State.PLANNED, roll=roll, failures=job.failures + 1, request=None)
            case _:
                assert_never(found.treatment)
        await self._store.record(*happened)
        self._tell(ended, found.failure)
        return ended

    def _tell(self, job: OpenJob, failure: Failure | None) -> None:
        if job.state is State.PLANNED and failure is not None:
            self._listen(JobTriedAgain(job.name, failure))
        else:
            self._listen(JobEnded(job.job_id, job.key, job.name, job.state, failure, job.endpoint))
