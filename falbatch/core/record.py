"""What the state file knows of a job, as the engine and the exports see it. Frozen copies, never live rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from falbatch.core.model import JobKey
    from falbatch.core.state import State


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


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result as fal gave it."""

    body: bytes
    content_type: str


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
