"""The one writer of the state file. Changes of many jobs share a commit, and so an fsync.

    record() ──▶ pending group ──▶ commit in a thread ──▶ everybody in the group goes on
                    ▲                                │
                    └── the next group fills up ◀────┘

A caller that returns from `record` knows that its change survives a power cut. A change that was handed over is
written even if its caller was cancelled while waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial, singledispatch
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from falbatch.adapters.store.database import translated
from falbatch.core import changes
from falbatch.core.state import TRANSITIONS, Event, IllegalTransition, State
from falbatch.errors import DiskFull

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

    from falbatch.core.changes import Change
    from falbatch.core.classify import Failure

GROUP_ENTRIES: Final = 2_000
"""Most callers in one commit: bounds the time that a reader may wait."""

LINGER_S: Final = 0.004
"""How long a group waits for company before it is committed: a few fsyncs' worth, far below any call to fal."""

_FROM_STATE: Final[dict[Event, str]] = {
    event: ",".join(f"'{before}'" for (before, e), _ in TRANSITIONS.items() if e is event) for event in Event
}
_TO_STATE: Final[dict[Event, State]] = {event: after for (_, event), after in TRANSITIONS.items()}


RESERVE_BYTES: Final = 1024 * 1024
"""Room kept for the state file while a run goes on: when the disk is full, the ids of submits under way still fit."""


def reserve_path(state: Path) -> Path:
    """The file that keeps the room; given up at the first sign of a full disk."""
    return state.with_suffix(".reserve")


@dataclass(slots=True)
class _Entry:
    """What one caller handed over, and what became of it."""

    changes: tuple[Change, ...]
    error: BaseException | None = field(default_factory=lambda: RuntimeError("the writer ended before it was written"))


@dataclass(slots=True)
class _Group:
    """Entries that will share a commit. Filled by callers, emptied once by the writer."""

    entries: list[_Entry] = field(default_factory=list)
    committed: anyio.Event = field(default_factory=anyio.Event)


class Writer:
    """Records changes durably. `run` must be running in a task group for `record` to return."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._reserve = reserve_path(path)
        self._group = _Group()
        self._wake = anyio.Event()
        self._closing = False
        # A thread of its own: hashing and syncing of large files must not keep a commit waiting.
        self._thread = anyio.CapacityLimiter(1)
        self.closed = anyio.Event()
        """Set when `run` has returned: everything handed over is on disk."""

    async def record(self, *happened: Change) -> None:
        """Return when `happened` is on disk. Raises what the group's commit raised (`DiskFull`, `StateError`)."""
        if not happened:
            return
        if self.closed.is_set():
            raise RuntimeError("the writer has ended: nothing more can be recorded")
        group, entry = self._group, _Entry(happened)
        group.entries.append(entry)
        self._wake.set()
        await group.committed.wait()
        if entry.error is not None:
            raise entry.error

    async def run(self) -> None:
        """Commit groups until `close` is called and nothing is pending. Callers get the errors of their commits.

        Cancelling it does not stop it: what was handed over is written first.
        """
        with anyio.CancelScope(shield=True):
            try:
                while self._group.entries or not self._closing:
                    await self._next_group()
            finally:
                self.closed.set()

    async def _next_group(self) -> None:
        if not self._group.entries:
            await self._wake.wait()
        await anyio.sleep(LINGER_S)
        group, self._group = self._group, _Group()
        self._wake = anyio.Event()
        try:
            await anyio.to_thread.run_sync(self._commit, group.entries, limiter=self._thread)
        finally:
            group.committed.set()

    def close(self) -> None:
        """Let `run` return once everything pending is committed."""
        self._closing = True
        self._wake.set()

    def _commit(self, entries: list[_Entry]) -> None:
        """Runs in a worker thread; one at a time, since `run` waits for it."""
        for start in range(0, len(entries), GROUP_ENTRIES):
            self._commit_part(entries[start : start + GROUP_ENTRIES])

    def _commit_part(self, part: list[_Entry]) -> None:
        """All in one transaction. Where that fails, each entry in its own: one that cannot be written must not take
        the request ids of others with it."""
        if self._written(part) is None:
            for entry in part:
                entry.error = None
            return
        for entry in part:
            entry.error = self._written([entry])

    def _written(self, entries: list[_Entry]) -> BaseException | None:
        """None when `entries` are on disk, else why none of them is."""
        try:
            with translated(self._path):
                in_transaction(self._connection, partial(self._apply, entries))
        except DiskFull as error:
            if self._reserve.exists():
                self._reserve.unlink()
                return self._written(entries)
            return error
        except Exception as error:  # noqa: BLE001  (whatever it is, it belongs to whoever handed the entry over)
            return error
        return None

    def _apply(self, entries: list[_Entry]) -> None:
        for entry in entries:
            for change in entry.changes:
                _move(self._connection, change)
                write(change, self._connection)


def in_transaction(connection: sqlite3.Connection, work: Callable[[], None]) -> None:
    """Run `work` between BEGIN and COMMIT; roll back and re-raise if it fails."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        work()
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _move(connection: sqlite3.Connection, change: Change) -> None:
    """Bring the job to the state that follows; refuse what the table does not allow."""
    event: Event | None = getattr(change, "event", None)
    if event is None:
        return
    moved = connection.execute(
        f"UPDATE jobs SET state = ?, updated_at = ? WHERE id = ? AND state IN ({_FROM_STATE[event]})",
        (_TO_STATE[event], change.at, change.job_id),
    )
    if moved.rowcount != 1:
        raise IllegalTransition(f"job {change.job_id} cannot see {event} in its state")


def log_event(connection: sqlite3.Connection, at: float, job_id: int | None, event: str, detail: str | None) -> None:
    """Append to the story of the batch."""
    connection.execute(
        "INSERT INTO events (at, job_id, event, detail) VALUES (?, ?, ?, ?)", (at, job_id, event, detail)
    )


@singledispatch
def write(change: Change, connection: sqlite3.Connection) -> None:  # noqa: ARG001  (the signature of all)
    """Write the details of one change; its state was moved already."""
    raise TypeError(f"no table takes a {type(change).__name__}")


@write.register(changes.SubmitStarted)
def _(change: changes.SubmitStarted, connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE jobs SET attempts = ? WHERE id = ?", (change.attempt, change.job_id))
    connection.execute(
        "INSERT INTO attempts (job_id, attempt, started_at) VALUES (?, ?, ?)",
        (change.job_id, change.attempt, change.at),
    )


@write.register(changes.SubmitNotAccepted)
def _(change: changes.SubmitNotAccepted, connection: sqlite3.Connection) -> None:
    _end_attempt(connection, change.job_id, change.attempt, change.at, change.event, change.failure.message)
    if change.event is not Event.REFUSED:
        _blame(connection, change.job_id, change.failure)
    log_event(connection, change.at, change.job_id, change.event, change.failure.error_type)


@write.register(changes.SubmitAccepted)
def _(change: changes.SubmitAccepted, connection: sqlite3.Connection) -> None:
    _end_attempt(connection, change.job_id, change.attempt, change.at, change.event, None)
    connection.execute(
        "INSERT INTO requests (request_id, job_id, attempt, status_url, response_url, cancel_url, status,"
        " queue_position, accepted_at) VALUES (?, ?, ?, ?, ?, ?, 'accepted', ?, ?)",
        (
            change.request_id,
            change.job_id,
            change.attempt,
            change.status_url,
            change.response_url,
            change.cancel_url,
            change.queue_position,
            change.at,
        ),
    )
    connection.execute(
        "UPDATE jobs SET request_id = ?, error_type = NULL, error = NULL, http_status = NULL WHERE id = ?",
        (change.request_id, change.job_id),
    )
    log_event(connection, change.at, change.job_id, change.event, change.request_id)


@write.register(changes.RequestEnded)
def _(change: changes.RequestEnded, connection: sqlite3.Connection) -> None:
    status = "cancelled" if change.event is Event.REQUEST_CANCELLED else "failed"
    connection.execute(
        "UPDATE requests SET status = ?, ended_at = ?, http_status = ?, error_type = ?, billable_units = ?"
        " WHERE request_id = ?",
        (
            status,
            change.at,
            change.failure.http_status,
            change.failure.error_type,
            change.billable_units,
            change.request_id,
        ),
    )
    _blame(connection, change.job_id, change.failure)
    connection.execute("UPDATE jobs SET failures = failures + 1 WHERE id = ?", (change.job_id,))
    log_event(connection, change.at, change.job_id, change.event, change.failure.error_type)


@write.register(changes.ResultStored)
def _(change: changes.ResultStored, connection: sqlite3.Connection) -> None:
    connection.execute(
        "UPDATE requests SET status = 'completed', ended_at = ?, http_status = 200, inference_s = ?,"
        " billable_units = ? WHERE request_id = ?",
        (change.at, change.inference_s, change.billable_units, change.request_id),
    )
    connection.execute(
        "INSERT OR REPLACE INTO results (job_id, request_id, content_type, body) VALUES (?, ?, ?, ?)",
        (change.job_id, change.request_id, change.content_type, change.body),
    )
    _clear_blame(connection, change.job_id)
    # A new result makes the files of an older one, if there was any, nobody's.
    connection.execute("DELETE FROM artifacts WHERE job_id = ?", (change.job_id,))
    log_event(connection, change.at, change.job_id, change.event, change.request_id)


@write.register(changes.FileReady)
def _(change: changes.FileReady, connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT INTO artifacts (job_id, place, path, path_fold, url, size_bytes, sha256, content_type)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (job_id, place) DO UPDATE SET path = excluded.path,"
        " path_fold = excluded.path_fold, url = excluded.url, size_bytes = excluded.size_bytes,"
        " sha256 = excluded.sha256, content_type = excluded.content_type, stored = 0",
        (
            change.job_id,
            change.place,
            change.path,
            change.path.casefold(),
            change.url,
            change.size_bytes,
            change.sha256,
            change.content_type,
        ),
    )


@write.register(changes.FilesStored)
def _(change: changes.FilesStored, connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE artifacts SET stored = 1 WHERE job_id = ?", (change.job_id,))
    _clear_blame(connection, change.job_id)
    log_event(connection, change.at, change.job_id, change.event, None)


@write.register(changes.FilesGone)
def _(change: changes.FilesGone, connection: sqlite3.Connection) -> None:
    _blame(connection, change.job_id, change.failure)
    log_event(connection, change.at, change.job_id, change.event, change.failure.message)


@write.register(changes.FileSkipped)
def _(change: changes.FileSkipped, connection: sqlite3.Connection) -> None:
    log_event(connection, change.at, change.job_id, "file_skipped", change.failure.message)


@write.register(changes.Stuck)
def _(change: changes.Stuck, connection: sqlite3.Connection) -> None:
    _blame(connection, change.job_id, change.failure)
    log_event(connection, change.at, change.job_id, "stuck", change.failure.message)


def _end_attempt(
    connection: sqlite3.Connection, job_id: int, attempt: int, at: float, outcome: Event, error: str | None
) -> None:
    connection.execute(
        "UPDATE attempts SET ended_at = ?, outcome = ?, error = ? WHERE job_id = ? AND attempt = ?",
        (at, outcome, error, job_id, attempt),
    )


def _blame(connection: sqlite3.Connection, job_id: int, failure: Failure) -> None:
    connection.execute(
        "UPDATE jobs SET error_type = ?, error = ?, http_status = ? WHERE id = ?",
        (failure.error_type, failure.message, failure.http_status, job_id),
    )


def _clear_blame(connection: sqlite3.Connection, job_id: int) -> None:
    connection.execute("UPDATE jobs SET error_type = NULL, error = NULL, http_status = NULL WHERE id = ?", (job_id,))
