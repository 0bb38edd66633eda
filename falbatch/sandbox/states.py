"""The state machine of a request: all that may happen to it, as a table (fal-protocol §3.8)."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Status(StrEnum):
    """What fal's status route says. There is no FAILED and no CANCELLED: both are COMPLETED."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"


class Event(StrEnum):
    """What can happen to an accepted request."""

    START = "start"
    """A runner took it."""
    FINISH = "finish"
    """The runner answered, well or badly."""
    REQUEUE = "requeue"
    """The runner was lost; fal tries again by itself (§3.7)."""
    CANCEL = "cancel"
    """Cancelled by the caller while queued, or while running where the app stops for it (§3.5)."""
    EXPIRE = "expire"
    """Its start deadline passed while it was queued (§3.1, X-Fal-Request-Timeout)."""


TRANSITIONS: Final[Mapping[tuple[Status, Event], Status]] = {
    (Status.IN_QUEUE, Event.START): Status.IN_PROGRESS,
    (Status.IN_QUEUE, Event.CANCEL): Status.COMPLETED,
    (Status.IN_QUEUE, Event.EXPIRE): Status.COMPLETED,
    (Status.IN_PROGRESS, Event.FINISH): Status.COMPLETED,
    (Status.IN_PROGRESS, Event.CANCEL): Status.COMPLETED,
    (Status.IN_PROGRESS, Event.REQUEUE): Status.IN_QUEUE,
}
"""What is not listed cannot happen; COMPLETED never changes."""


def next_status(status: Status, event: Event) -> Status:
    """The status after `event`. Raises ValueError for what cannot happen."""
    try:
        return TRANSITIONS[status, event]
    except KeyError:
        raise ValueError(f"a request that is {status} cannot {event}") from None
