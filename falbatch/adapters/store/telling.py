"""What the journal says of the changes of one run, once they are on record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from falbatch.adapters.store.journal import STARTED, sealed
from falbatch.core import changes
from falbatch.core.state import Event

if TYPE_CHECKING:
    import sqlite3

    from falbatch.core.changes import Change

_DESCRIBED: Final = ("endpoint", "mode", "replica", "name", "origin")

_JOB: Final = f"SELECT hex(key), input, {', '.join(_DESCRIBED)} FROM jobs WHERE id = ?"


class Teller:
    """Makes the lines. It remembers the keys of jobs whose submits are under way, so that an outcome asks nothing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._batch: list[Any] | None = None
        self._keys: dict[int, str] = {}

    def line_of(self, change: Change) -> bytes | None:
        """The line of a change that is on record; None for those that are about no submit."""
        match change:
            case changes.SubmitStarted():
                sent: dict[str, Any] = {"sent": change.sent_sha256.hex()} if change.sent_sha256 else {}
                if change.roll:
                    sent |= {"roll": change.roll, "seed": change.seed}
                return self._described(change, {"event": STARTED, "reserved": change.reserved, **sent})
            case changes.RequestFound():
                facts = {
                    "event": Event.FOUND.value,
                    "request_id": change.request_id,
                    "since": change.accepted_at,
                    "followed": change.event is not None,
                }
                return self._described(change, facts)
            case changes.SubmitAccepted():
                return self._outcome(change, {"event": Event.ACCEPTED.value, "request_id": change.request_id})
            case changes.SubmitNotAccepted():
                failure = change.failure
                why = [failure.error_type, failure.message, failure.http_status]
                return self._outcome(change, {"event": change.event.value, "named_id": change.request_id, "why": why})
            case _:
                return None

    def _described(self, change: changes.SubmitStarted | changes.RequestFound, facts: dict[str, Any]) -> bytes:
        """With all that the job is: what stands alone after a copy says itself what it is about."""
        key, given, *described = self._connection.execute(_JOB, (change.job_id,)).fetchone()
        if isinstance(change, changes.SubmitStarted):
            self._keys[change.job_id] = key
        return sealed(
            {
                "key": key,
                "attempt": change.attempt,
                "at": change.at,
                **facts,
                **dict(zip(_DESCRIBED, described, strict=True)),
                "batch": self._batch_row(),
            },
            bytes(given),
        )

    def _outcome(self, change: changes.SubmitAccepted | changes.SubmitNotAccepted, facts: dict[str, Any]) -> bytes:
        key = self._keys.pop(change.job_id, None)
        if key is None:
            (key,) = self._connection.execute("SELECT hex(key) FROM jobs WHERE id = ?", (change.job_id,)).fetchone()
        return sealed({"key": key, "attempt": change.attempt, "at": change.at, **facts})

    def _batch_row(self) -> list[Any] | None:
        """Name, target and making of the batch; None before a run has claimed the file."""
        if self._batch is None:
            row = self._connection.execute("SELECT name, target, created_at FROM batch").fetchone()
            self._batch = None if row is None else [*row]
        return self._batch
