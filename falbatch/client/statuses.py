"""Where a request is, in fal_client's classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from falbatch.fal.wire import Phase

if TYPE_CHECKING:
    from falbatch.fal.wire import Progress


@dataclass(frozen=True, slots=True)
class Status:
    """One of the three below. A request may go back from InProgress to Queued."""


@dataclass(frozen=True, slots=True)
class Queued(Status):
    """Waiting for a runner."""

    position: int | None
    """Requests ahead, of all callers; 0 is next. None when fal does not say."""


@dataclass(frozen=True, slots=True)
class InProgress(Status):
    """Running."""

    logs: list[dict[str, Any]] | None
    """All lines so far, when asked for: `message`, and perhaps `level`, `source`, `timestamp`."""


@dataclass(frozen=True, slots=True)
class Completed(Status):
    """Over, well or badly: fal has no other word for a failure or a cancellation."""

    logs: list[dict[str, Any]] | None
    metrics: dict[str, Any]
    """`inference_time` in seconds, as a rule."""
    error: str | None = field(default=None)
    """fal's words about a failed request. None is no proof of success: the result tells."""
    error_type: str | None = field(default=None)


def status_of(progress: Progress) -> Status:
    """`progress` in these classes. A word that is new to us counts as running: asking again is safe."""
    logs = None if progress.logs is None else [dict(line) for line in progress.logs]
    match progress.phase:
        case Phase.IN_QUEUE:
            return Queued(progress.queue_position)
        case Phase.COMPLETED:
            return Completed(logs, dict(progress.metrics), progress.error or None, progress.error_type or None)
        case _:
            return InProgress(logs)
