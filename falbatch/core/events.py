"""What a run tells whoever listens: one frozen value per thing that happened. The bar, the log and `--json` are
listeners; the engine prints nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from falbatch.core.flags import FLAGGED
from falbatch.core.report import RunTally
from falbatch.core.state import State

if TYPE_CHECKING:
    from falbatch.core.classify import Failure
    from falbatch.core.model import JobKey


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    """fal accepted a job."""

    name: str
    request_id: str


@dataclass(frozen=True, slots=True)
class JobMoved:
    """A request is `ACCEPTED`, and nobody asked yet; or fal said where it is: `IN_QUEUE` or `IN_PROGRESS`; or it is
    `AWAITED`, since fal will call; or we are `UPLOADING` or `DOWNLOADING` a file of it. Progress is not monotonic."""

    name: str
    request_id: str
    before: str
    phase: str


@dataclass(frozen=True, slots=True)
class SubmitPaused:
    """A submit was refused (429) or did not get through: all submits wait `seconds`."""

    seconds: float
    reason: str
    refused: bool


@dataclass(frozen=True, slots=True)
class JobTriedAgain:
    """A request failed in a way worth another attempt, or its result was flagged and is rolled again."""

    name: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class ResultCame:
    """A result is stored; its files come next."""

    name: str
    request_id: str
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job reached `done`, `failed`, `cancelled` or `unknown`; or stays open as it is, with the reason (stuck)."""

    job_id: int
    key: JobKey
    name: str
    state: State
    failure: Failure | None = None
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class FileUploaded:
    """A file of an input is at fal."""

    url: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Polled:
    """One status call was made."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """fal's request list was looked through for submits without an answer."""

    found: int
    """Submits whose request is known now."""
    left: int
    """Jobs that are still unknown."""
    patience_s: float
    """Seconds for which they are still looked for."""
    trouble: str = ""
    """Why the list could not be read, "" when it could."""
    jobs: frozenset[int] = frozenset()
    """The jobs that go on with what was found."""


@dataclass(frozen=True, slots=True)
class FoundByCallback:
    """fal called about a submit that had got no answer, and so named its request."""

    job_id: int


@dataclass(frozen=True, slots=True)
class CallbacksCounted:
    """The listener for fal's calls has closed: how many came, were repeats, were refused."""

    came: int
    repeated: int
    refused: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the user should know, and that ends nothing."""

    text: str


@dataclass(frozen=True, slots=True)
class RunStopping:
    """Nothing more is submitted, and why."""

    reason: str


RunEvent = (
    JobSubmitted
    | JobMoved
    | SubmitPaused
    | JobTriedAgain
    | ResultCame
    | JobEnded
    | FileUploaded
    | Polled
    | Reconciled
    | FoundByCallback
    | CallbacksCounted
    | Notice
    | RunStopping
)
Listener = Callable[[RunEvent], None]


_NOT_AT_FAL: Final = frozenset({"", "UPLOADING", "DOWNLOADING"})
"""All other phases are fal's, or ours for a request that is there. How many of them fal runs is not counted: each is
asked about a few times only, so the figure would be wrong."""


@dataclass(slots=True)
class Counter:
    """A listener that counts. Read by the progress line during the run and by the report after it."""

    total: int = 0
    """Jobs of the batch (or of the part of it that this run is about)."""
    done_before: int = 0
    submitted: int = 0
    ended: dict[State, int] = field(default_factory=dict)
    stuck: int = 0
    further_attempts: int = 0
    rerolls: int = 0
    """Those of them that were made because a result was flagged."""
    refusals: int = 0
    status_calls: int = 0
    at_fal: int = 0
    """Requests that fal accepted and that are not known to have ended."""
    downloading: int = 0
    uploading: int = 0
    uploads: int = 0
    """Files of inputs that were uploaded."""
    uploaded_bytes: int = 0
    found: int = 0
    """Submits without an answer whose requests were found."""
    trouble: str = ""
    """Why fal's request list could not be read at the latest look."""
    found_by_callback: int = 0
    """Submits without an answer whose requests fal's calls named."""
    callbacks: int = 0
    """Calls of fal's that were taken."""
    callbacks_repeated: int = 0
    callbacks_refused: int = 0
    _lost: set[int] = field(default_factory=set, compare=False)
    """Jobs that became unknown in this run and were not found yet."""

    def __call__(self, event: RunEvent) -> None:
        match event:
            case JobSubmitted():
                self.submitted += 1
            case Polled():
                self.status_calls += 1
            case JobMoved(before=before, phase=phase):
                self._count(before, -1)
                self._count(phase, 1)
            case FileUploaded(size_bytes=size):
                self.uploads += 1
                self.uploaded_bytes += size
            case SubmitPaused(refused=True):
                self.refusals += 1
            case JobTriedAgain(failure=failure):
                self.further_attempts += 1
                self.rerolls += failure.error_type == FLAGGED
            case Reconciled(found=found, trouble=trouble, jobs=jobs):
                self.found += found
                self._know_again(jobs)
                self.trouble = trouble
            case JobEnded(state=state, job_id=job_id):
                self._end(job_id, state)
            case _:
                self._count_callbacks(event)

    def _count_callbacks(self, event: RunEvent) -> None:
        match event:
            case FoundByCallback(job_id=job_id):
                self.found_by_callback += 1
                self._know_again(frozenset([job_id]))
            case CallbacksCounted(came=came, repeated=repeated, refused=refused):
                self.callbacks += came
                self.callbacks_repeated += repeated
                self.callbacks_refused += refused
            case _:
                pass

    def _know_again(self, jobs: frozenset[int]) -> None:
        self.ended[State.UNKNOWN] = self.ended.get(State.UNKNOWN, 0) - len(self._lost & jobs)
        self._lost -= jobs

    def _count(self, phase: str, change: int) -> None:
        self.at_fal += change * (phase not in _NOT_AT_FAL)
        self.downloading += change * (phase == "DOWNLOADING")
        self.uploading += change * (phase == "UPLOADING")

    def _end(self, job_id: int, state: State) -> None:
        if state in {State.SUBMITTED, State.COMPLETED, State.PLANNED}:
            self.stuck += 1
            return
        if state is State.UNKNOWN:
            self._lost.add(job_id)
        self.ended[state] = self.ended.get(state, 0) + 1

    @property
    def done(self) -> int:
        """Jobs whose files are on disk, those of earlier runs included."""
        return self.done_before + self.ended.get(State.DONE, 0)

    @property
    def failed(self) -> int:
        """Jobs that ended in this run without files."""
        return sum(count for state, count in self.ended.items() if state is not State.DONE)

    def tally(self, *, seconds: float, stopped_by: str) -> RunTally:
        """The counts as the report keeps them."""
        return RunTally(
            submitted=self.submitted,
            finished=self.ended.get(State.DONE, 0),
            failed=self.failed,
            further_attempts=self.further_attempts,
            rerolls=self.rerolls,
            refusals=self.refusals,
            status_calls=self.status_calls,
            found=self.found,
            uploads=self.uploads,
            uploaded_bytes=self.uploaded_bytes,
            reconcile_trouble=self.trouble,
            found_by_callback=self.found_by_callback,
            callbacks=self.callbacks,
            callbacks_repeated=self.callbacks_repeated,
            callbacks_refused=self.callbacks_refused,
            seconds=round(seconds, 3),
            stopped_by=stopped_by,
        )
