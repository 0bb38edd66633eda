"""The one writer of the state file. Changes of many jobs share a commit, and so an fsync.

    record() ──▶ pending group ──▶ commit in a thread ──▶ everybody in the group goes on
                    ▲                                │
                    └── the next group fills up ◀────┘

A caller that returns from `record` knows that its change survives a power cut. A change that was handed over is
written even if its caller was cancelled while waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from falbatch.adapters.store import journal
from falbatch.adapters.store.apply import move, write
from falbatch.adapters.store.database import translated
from falbatch.errors import DiskFull
from falbatch.faultpoints import fault_point, is_armed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

    from falbatch.core.changes import Change

GROUP_ENTRIES: Final = 2_000
"""Most callers in one commit: bounds the time that a reader may wait."""

LINGER_S: Final = 0.004
"""How long a group waits for company before it is committed: a few fsyncs' worth, far below any call to fal."""

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
        self.has_written = False
        """True once anything was handed over."""
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
        self.has_written = self.has_written or bool(entries)
        for start in range(0, len(entries), GROUP_ENTRIES):
            self._commit_part(entries[start : start + GROUP_ENTRIES])

    def _commit_part(self, part: list[_Entry]) -> None:
        """All in one transaction. Where that fails, each entry in its own: one that cannot be written must not take
        the request ids of others with it."""
        if self._tried(partial(self._write, part)) is None:
            for entry in part:
                entry.error = None
        else:
            for entry in part:
                entry.error = self._tried(partial(self._write, [entry]))
        on_record = [entry for entry in part if entry.error is None]
        error = self._tried(partial(self._journal, on_record))
        if error is not None:
            for entry in on_record:
                entry.error = error
        _pass("after", on_record)

    def _tried(self, work: Callable[[], None]) -> BaseException | None:
        """None when `work` was done, else why not; the room that was kept is given up for it."""
        try:
            with translated(self._path):
                work()
        except DiskFull as error:
            if self._reserve.exists():
                self._reserve.unlink()
                return self._tried(work)
            return error
        except Exception as error:  # noqa: BLE001  (whatever it is, it belongs to whoever handed the entry over)
            return error
        return None

    def _write(self, entries: list[_Entry]) -> None:
        _pass("before", entries)
        in_transaction(self._connection, partial(self._apply, entries))

    def _journal(self, entries: list[_Entry]) -> None:
        found = (journal.line_of(change, self._connection) for entry in entries for change in entry.changes)
        lines = [line for line in found if line is not None]
        if lines:
            fault_point("journal.appending")
            journal.append(self._path, lines)

    def _apply(self, entries: list[_Entry]) -> None:
        for entry in entries:
            for change in entry.changes:
                move(self._connection, change)
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


def _pass(when: str, entries: list[_Entry]) -> None:
    """The fault points around a commit: one per kind of change in it."""
    if is_armed:
        for name in sorted({type(change).__name__ for entry in entries for change in entry.changes}):
            fault_point(f"{when}.{name}")
