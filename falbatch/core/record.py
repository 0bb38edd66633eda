"""What the state file knows of a job, as the engine and the exports see it. Frozen copies, never live rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from falbatch.core.seeds import rolled_seed

if TYPE_CHECKING:
    from falbatch.core.model import JobKey, Mode
    from falbatch.core.state import Event, State


@dataclass(frozen=True, slots=True)
class RequestOnRecord:
    """fal's side of an accepted attempt."""

    request_id: str
    endpoint: str
    status_url: str
    response_url: str
    cancel_url: str
    accepted_at: float
    """Unix seconds."""
    queue_position: int | None = None
    """Its place in fal's queue when it was accepted, where fal told; not on record."""


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job that a run can do something about."""

    job_id: int
    """Row number in this state file; the key is what means the same elsewhere."""
    key: JobKey
    seq: int | None
    """Place in the manifest; None for a job that left it."""
    name: str
    """Safe relative path without extension, POSIX slashes."""
    endpoint: str
    mode: Mode
    input_json: bytes
    state: State
    attempts: int
    """Submits tried so far, refused ones included."""
    failures: int
    """Requests that failed since the job was planned or reopened."""
    reserved: int = 0
    """Nano-dollars reserved for the latest attempt."""
    request: RequestOnRecord | None = None
    """The latest request, where the job is at fal or its result is stored."""
    body: bytes | None = None
    """Canonical JSON that leaves in place of the input, while it is being submitted; None: the input does."""
    roll: int = 0
    """Re-rolls that were granted to it; the number of the one that is next to leave."""

    is_unjudged: bool = False
    """True when its result is on record, and nobody has said yet what that is worth."""

    @property
    def sent_json(self) -> bytes:
        """What leaves."""
        return self.input_json if self.body is None else self.body

    @property
    def seed(self) -> int | None:
        """What leaves in place of the input's seed; None where that leaves as it is."""
        return rolled_seed(self.input_json, self.key, self.roll)

    @property
    def sent_sha256(self) -> bytes | None:
        """SHA-256 of what leaves; None where that is the input as it stands."""
        return None if self.body is None else hashlib.sha256(self.body).digest()


@dataclass(frozen=True, slots=True)
class AttemptOnRecord:
    """One try to get a job accepted, as it stands now."""

    outcome: Event | None
    """None while no answer came, or when the program ended before one."""
    request_id: str | None
    """The request that it became, None for none that is known."""
    job_state: State
    is_latest: bool
    """False when its job was submitted again since."""


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result as fal gave it."""

    body: bytes
    content_type: str
    events: bytes | None = None
    """All events of a stream as JSON lines, the result's own last; None for other calls."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An artifact on record."""

    place: int
    path: str
    """Relative to the output folder, POSIX slashes."""
    size_bytes: int
    sha256: bytes
    content_type: str
    stored: int
    """1 when the file is under its name; 0: it was complete under its temporary name when last heard of."""
    is_black: bool = False
    """True for a picture that is all black."""
