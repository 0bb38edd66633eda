"""What a run will do about each job, and why: one action and one reason per job. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from falbatch.core.state import State


class Action(StrEnum):
    """What this run will do about a job."""

    SUBMIT = "submit"
    WAIT = "wait"
    DOWNLOAD = "download"
    SKIP = "skip"


class Change(StrEnum):
    """How a job of the manifest stands to what the state file knew before."""

    ADDED = "added"
    CHANGED = "changed"
    """A new job under a name that an old job had."""
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Record:
    """What the state file says of one job, as far as the decision needs it."""

    state: State
    request_id: str | None = None
    error_type: str | None = None
    orphaned: bool = False
    """True when the manifest no longer makes this job."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One action and its reason, in words for the user."""

    action: Action
    reason: str


def decide(record: Record | None) -> Decision:
    """The action for one job, from what is on record about it (None: nothing)."""
    if record is None:
        return Decision(Action.SUBMIT, "new")
    if record.orphaned:
        return _decide_orphan(record)
    match record.state:
        case State.PLANNED:
            return Decision(Action.SUBMIT, "not submitted yet")
        case State.SUBMITTING | State.UNKNOWN:
            return Decision(Action.SKIP, "unknown: its submit got no answer, so it may have run and been charged")
        case State.SUBMITTED:
            return Decision(Action.WAIT, f"request {record.request_id} is at fal")
        case State.COMPLETED:
            return Decision(Action.DOWNLOAD, "its result is stored, files are missing")
        case State.DONE:
            return Decision(Action.SKIP, "done")
        case State.FAILED:
            return Decision(Action.SKIP, f"failed: {record.error_type or 'error'}")
        case State.CANCELLED:
            return Decision(Action.SKIP, "cancelled")
        case _:
            assert_never(record.state)


def _decide_orphan(record: Record) -> Decision:
    """A job that left the manifest: what is paid is still brought home, nothing new is submitted."""
    if record.state is State.SUBMITTED:
        return Decision(Action.WAIT, f"no longer in the manifest, but request {record.request_id} is at fal")
    if record.state is State.COMPLETED:
        return Decision(Action.DOWNLOAD, "no longer in the manifest, but its result is stored")
    return Decision(Action.SKIP, "no longer in the manifest")
