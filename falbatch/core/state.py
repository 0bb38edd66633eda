"""The life of a job: which state may follow which, and because of what. Nothing else changes a state.

This module does not know who calls it or where states are kept. The table is data; ARCHITECTURE.md draws it
and a test holds the two together.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(StrEnum):
    """Where a job is. The value is what the state file and `status` show."""

    PLANNED = "planned"
    """Nothing about it is at fal."""
    SUBMITTING = "submitting"
    """Its submit is on the way: stored before the call leaves. Found at start, it is unknown."""
    SUBMITTED = "submitted"
    """fal accepted it and its request id is stored."""
    COMPLETED = "completed"
    """Its result is stored; files may be missing."""
    DONE = "done"
    """Its files are on disk, whole, with their hashes."""
    FAILED = "failed"
    """fal (or a dead link) said no for good."""
    CANCELLED = "cancelled"
    """Cancelled at fal, by us or by somebody else."""
    UNKNOWN = "unknown"
    """Its submit got no answer: it may have run and been charged. Never submitted again by itself."""


class Event(StrEnum):
    """What happened to a job."""

    SUBMIT_STARTED = "submit_started"
    INPUT_FAILED = "input_failed"
    """A file of its input cannot be sent: it is gone, or changed, or fal does not take it."""
    REFUSED = "refused"
    """Provably not accepted (429, never sent): it may be submitted again."""
    REJECTED = "rejected"
    """Refused for good (404, 422 at submit …)."""
    NO_ANSWER = "no_answer"
    ACCEPTED = "accepted"
    FOUND = "found"
    """The request of a submit without an answer was found in fal's own list."""
    ATTEMPT_FAILED = "attempt_failed"
    """The request failed in a way worth another attempt."""
    REQUEST_FAILED = "request_failed"
    REQUEST_CANCELLED = "request_cancelled"
    RESULT_STORED = "result_stored"
    FILES_STORED = "files_stored"
    FILES_GONE = "files_gone"
    """The result's links are dead for good."""
    RESULT_REFUSED = "result_refused"
    """Its files are on disk, and its result is not what was asked for, or flagged."""
    REROLLED = "rerolled"
    """Its result was flagged, and another attempt with another seed was granted."""
    REOPENED = "reopened"
    """The user asked for it to be done again, new charge included."""
    FILES_WANTED = "files_wanted"
    """The user asked for lost files to be fetched again from the stored result, or wants an earlier one after all."""


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    (State.PLANNED, Event.SUBMIT_STARTED): State.SUBMITTING,
    (State.PLANNED, Event.INPUT_FAILED): State.FAILED,
    (State.PLANNED, Event.FILES_WANTED): State.COMPLETED,
    (State.SUBMITTING, Event.REFUSED): State.PLANNED,
    (State.SUBMITTING, Event.REJECTED): State.FAILED,
    (State.SUBMITTING, Event.NO_ANSWER): State.UNKNOWN,
    (State.SUBMITTING, Event.ACCEPTED): State.SUBMITTED,
    (State.SUBMITTED, Event.ATTEMPT_FAILED): State.PLANNED,
    (State.SUBMITTED, Event.REQUEST_FAILED): State.FAILED,
    (State.SUBMITTED, Event.REQUEST_CANCELLED): State.CANCELLED,
    (State.SUBMITTED, Event.RESULT_STORED): State.COMPLETED,
    (State.COMPLETED, Event.FILES_STORED): State.DONE,
    (State.COMPLETED, Event.FILES_GONE): State.FAILED,
    (State.COMPLETED, Event.RESULT_REFUSED): State.FAILED,
    (State.COMPLETED, Event.REROLLED): State.PLANNED,
    (State.FAILED, Event.REOPENED): State.PLANNED,
    (State.CANCELLED, Event.REOPENED): State.PLANNED,
    (State.UNKNOWN, Event.FOUND): State.SUBMITTED,
    (State.PLANNED, Event.FOUND): State.SUBMITTED,
    (State.PLANNED, Event.NO_ANSWER): State.UNKNOWN,
    (State.UNKNOWN, Event.REOPENED): State.PLANNED,
    (State.DONE, Event.FILES_WANTED): State.COMPLETED,
    (State.FAILED, Event.FILES_WANTED): State.COMPLETED,
    (State.CANCELLED, Event.FILES_WANTED): State.COMPLETED,
}

UNSENT: Final = "not_uploaded"
"""Error type of a planned job whose file did not get through; the next run tries again."""


class IllegalTransition(ValueError):
    """Raised when an event cannot happen in a state: a bug of ours, stopped before it is stored."""


def after(state: State, event: Event) -> State:
    """The state that follows `state` on `event`. Raises `IllegalTransition` for anything not in the table."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"a job that is {state} cannot see {event}") from None
