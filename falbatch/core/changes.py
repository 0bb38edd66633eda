"""What the engine tells the store: one frozen value per thing that happened to a job. The store writes them in
groups; a change that carries an `event` moves the job along the table of `core/state.py`.

`at` is Unix time in seconds: for people and for fal's request list, never for measuring waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from falbatch.core.state import Event

if TYPE_CHECKING:
    from falbatch.core.classify import Failure
    from falbatch.core.flags import Noticed
    from falbatch.core.money import Bill


@dataclass(frozen=True, slots=True)
class SubmitStarted:
    """Intent: stored, durably, before the POST leaves."""

    job_id: int
    attempt: int
    """1-based number of the try to get this job accepted."""
    at: float
    reserved: int = 0
    """Nano-dollars that the job is expected to cost; 0 where no price is known."""
    sent_sha256: bytes | None = None
    """SHA-256 of the canonical JSON that leaves; None where it is the job's input as it stands."""
    roll: int = 0
    """Number of the re-roll that leaves, 0 before the first."""
    seed: int | None = None
    """What leaves in place of the input's seed; None where that leaves as it is."""
    event: Event = Event.SUBMIT_STARTED


@dataclass(frozen=True, slots=True)
class SubmitNotAccepted:
    """The attempt's outcome when there is no request: REFUSED, REJECTED or NO_ANSWER."""

    job_id: int
    attempt: int
    at: float
    event: Event
    failure: Failure
    request_id: str = ""
    """What a failing reply named as the request, which may exist all the same; "" for none."""


@dataclass(frozen=True, slots=True)
class SubmitAccepted:
    """fal's reply: stored before anything else happens."""

    job_id: int
    attempt: int
    at: float
    request_id: str
    status_url: str
    response_url: str
    cancel_url: str
    queue_position: int | None = None
    event: Event = Event.ACCEPTED


@dataclass(frozen=True, slots=True)
class RequestFound:
    """The request of a submit that got no answer, found at fal later. Its URLs follow from endpoint and id."""

    job_id: int
    attempt: int
    at: float
    request_id: str
    accepted_at: float
    """When fal says that it was sent, or when its submit left."""
    event: Event | None = Event.FOUND
    """None when the job was submitted again since: nobody follows this request any more."""
    cost: int | None = None
    """Nano-dollars at which such a request is reckoned."""


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request without a result: ATTEMPT_FAILED, REQUEST_FAILED or REQUEST_CANCELLED."""

    job_id: int
    request_id: str
    at: float
    event: Event
    failure: Failure
    billable_units: float | None = None
    cost: int | None = None
    """Nano-dollars; None where no price is known."""


@dataclass(frozen=True, slots=True)
class ResultStored:
    """The result as fal gave it: stored before its files are fetched."""

    job_id: int
    request_id: str
    at: float
    body: bytes
    content_type: str
    billable_units: float | None = None
    inference_s: float | None = None
    cost: int | None = None
    """Nano-dollars; None where no price is known."""
    events: bytes | None = None
    """All events of a stream as JSON lines."""
    bill: Bill | None = None
    """What later jobs' cost is learned from; None where no price is known, or fal did not say the units."""
    event: Event = Event.RESULT_STORED


@dataclass(frozen=True, slots=True)
class FileReady:
    """A file lies complete under its temporary name; stored before it is renamed, so that a crash between the
    two finds the file and knows its hash. Moves no state."""

    job_id: int
    place: int
    """0-based place of the file in its result."""
    url: str
    """"" for a file that came inside the result."""
    path: str
    """Relative to the output folder, POSIX slashes."""
    size_bytes: int
    sha256: bytes
    content_type: str
    at: float
    is_black: bool = False
    """True for a picture that is all black."""


@dataclass(frozen=True, slots=True)
class FilesStored:
    """Every file of the job is on disk under its name: the job is done."""

    job_id: int
    at: float
    event: Event = Event.FILES_STORED


@dataclass(frozen=True, slots=True)
class FilesGone:
    """A link of the result is dead for good."""

    job_id: int
    at: float
    failure: Failure
    event: Event = Event.FILES_GONE


@dataclass(frozen=True, slots=True)
class ResultFlagged:
    """What was noticed about a result; written together with what follows from it. Moves no state."""

    job_id: int
    request_id: str
    at: float
    noticed: Noticed
    is_marked: bool = False
    """True where the job is counted and listed apart for it."""


@dataclass(frozen=True, slots=True)
class ResultTaken:
    """A result is as it should be, and nobody wants its files: its job is not looked at again. Moves no state."""

    job_id: int
    at: float


@dataclass(frozen=True, slots=True)
class ResultRefused:
    """fal answered 200, its files are on disk, and the job failed all the same."""

    job_id: int
    at: float
    failure: Failure
    event: Event = Event.RESULT_REFUSED


@dataclass(frozen=True, slots=True)
class Rerolled:
    """Another attempt with another seed was granted to a job whose result is flagged: what it sends from now on is on
    record with this, long before it leaves."""

    job_id: int
    at: float
    roll: int
    """Number of the re-roll, from 1; the seed follows from it and the job's key."""
    event: Event = Event.REROLLED


@dataclass(frozen=True, slots=True)
class FileSkipped:
    """A link that the job is done without could not be fetched. Moves no state."""

    job_id: int
    at: float
    failure: Failure


@dataclass(frozen=True, slots=True)
class Stuck:
    """The job could not be taken further this time; it stays open, with the reason. Moves no state."""

    job_id: int
    at: float
    failure: Failure


@dataclass(frozen=True, slots=True)
class UploadStored:
    """A file of an input is at fal: stored before its URL is sent anywhere. Moves no state."""

    job_id: int
    """The job that it was uploaded for first."""
    at: float
    sha256: bytes
    content_type: str
    """As asked for in the input, "" where it was not."""
    terms: str
    """`UploadTerms.text`."""
    url: str
    size_bytes: int
    expires_at: float | None
    """Unix seconds; None: never."""


@dataclass(frozen=True, slots=True)
class InputFailed:
    """A file of the input cannot be sent: nothing was submitted."""

    job_id: int
    at: float
    failure: Failure
    event: Event = Event.INPUT_FAILED


@dataclass(frozen=True, slots=True)
class DurationsLearned:
    """How long an endpoint's requests take, by all that was seen. Of no job; moves no state."""

    endpoint: str
    sketch: bytes
    """`core/sketch.py` knows what is in it."""
    at: float


Change = (
    SubmitStarted
    | SubmitNotAccepted
    | SubmitAccepted
    | RequestFound
    | RequestEnded
    | ResultStored
    | FileReady
    | FilesStored
    | FilesGone
    | ResultFlagged
    | ResultTaken
    | ResultRefused
    | Rerolled
    | FileSkipped
    | Stuck
    | UploadStored
    | InputFailed
    | DurationsLearned
)
