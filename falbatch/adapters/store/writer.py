"""The one writer of the state file. Changes of many jobs share a commit, and so an fsync.

    record() ──▶ pending group ──▶ written ──▶ commit, journal (a thread) ──▶ everybody in the group goes on
                    ▲                                      │
                    └────── the next group fills up ◀──────┘

A caller that returns from `record` knows that its change survives a power cut. A change that was handed over is
written even if its caller was cancelled while waiting.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from falbatch.adapters.store import journal
from falbatch.adapters.store.apply import Applier
from falbatch.adapters.store.database import BUSY_MS, translated
from falbatch.adapters.store.telling import Teller
from falbatch.core import changes
from falbatch.errors import DiskFull
from falbatch.faultpoints import fault_point, is_armed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

    from falbatch.core.changes import Change

GROUP_ENTRIES: Final = 1_000
"""Most callers in one commit."""

LOOP_S: Final = 0.01
"""For so long the event loop writes statements and does nothing else; the rest of a group is the thread's."""

SLICE_ENTRIES: Final = 16
"""Entries between two looks at the clock."""

HEAVY_BYTES: Final = 4 * 1024 * 1024
"""Results of this size together are written in a thread: their bytes are copied several times."""

LINGER_S: Final = 0.002
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


@dataclass(slots=True)
class _Begun:
    """How far the loop came with a group."""

    lines: list[bytes]
    """The journal's, of the entries that are written."""
    count: int


class Writer:
    """Records changes durably. `run` must be running in a task group for `record` to return."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._applier = Applier(connection)
        self._teller = Teller(connection)
        self._path = path
        self._reserve = reserve_path(path)
        self._group = _Group()
        self._wake = anyio.Event()
        self._closing = False
        # A thread of its own: hashing and syncing of large files must not keep a commit waiting.
        self._thread = ThreadPoolExecutor(1, "falbatch-writer")
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

        Cancelling it does not stop it: what was handed over is written first. That holds for asyncio's own cancelling
        too, which no shield keeps off (`asyncio.run` does it to all tasks at its end): others would wait for ever.
        """
        cancelled = None
        with anyio.CancelScope(shield=True):
            try:
                while self._group.entries or not self._closing:
                    try:
                        await self._next_group()
                    except asyncio.CancelledError as error:
                        cancelled = error
            finally:
                self._thread.shutdown()
                self.closed.set()
        if cancelled is not None:
            raise cancelled

    async def _next_group(self) -> None:
        if not self._group.entries:
            await self._wake.wait()
        await anyio.sleep(LINGER_S)
        group, self._group = self._group, _Group()
        self._wake = anyio.Event()
        try:
            for start in range(0, len(group.entries), GROUP_ENTRIES):
                await self._commit(group.entries[start : start + GROUP_ENTRIES])
        finally:
            group.committed.set()

    def close(self) -> None:
        """Let `run` return once everything pending is committed."""
        self._closing = True
        self._wake.set()

    async def _commit(self, part: list[_Entry]) -> None:
        """The statements run here, on the event loop: in a thread, each would wait for its turn beside a busy loop,
        for longer than it takes. What waits for the disk, and large values, are a thread's."""
        self.has_written = self.has_written or bool(part)
        begun = None if _weight(part) > HEAVY_BYTES else self._begun(part)
        await self._in_thread(partial(self._commit_part, part) if begun is None else partial(self._finish, part, begun))

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """Do `work` in the writer's thread; where there is none to be had, here."""
        try:
            job = self._thread.submit(work)
        except RuntimeError:
            work()
            return
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set))
        try:
            await ended.wait()
        except asyncio.CancelledError:
            wait([job])  # some milliseconds; who handed something over must not be told before it is true
            raise
        job.result()

    def _begun(self, part: list[_Entry]) -> _Begun | None:
        """Write `part` in a transaction that is left open, as much of it as `LOOP_S` allows. None, with nothing
        written, where that fails or somebody else writes: `_commit_part` waits, and finds out what cannot be."""
        ends_s = time.monotonic() + LOOP_S
        begun = _Begun([], 0)
        try:
            _pass("before", part)
            self._connection.execute("PRAGMA busy_timeout = 0")
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            finally:
                self._connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
            while begun.count < len(part) and (not begun.count or time.monotonic() < ends_s):
                self._go_on(part, begun, begun.count + SLICE_ENTRIES)
        except BaseException as error:
            self._roll_back()
            if isinstance(error, Exception):
                return None
            raise
        return begun

    def _go_on(self, part: list[_Entry], begun: _Begun, end: int) -> None:
        entries = part[begun.count : end]
        self._apply(entries)
        begun.lines += self._lines(entries)
        begun.count += len(entries)

    def _finish(self, part: list[_Entry], begun: _Begun) -> None:
        """Write the rest of what was begun, and commit. Runs in a worker thread; one at a time, since `run` waits."""
        try:
            self._go_on(part, begun, len(part))
            self._connection.execute("COMMIT")
        except Exception:  # noqa: BLE001  (`_commit_part` finds out whose it is)
            self._roll_back()
            self._commit_part(part)
            return
        for entry in part:
            entry.error = None
        self._tell(part, lambda: begun.lines)

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._applier.forget()

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
        self._tell(on_record, partial(self._lines, on_record))

    def _tell(self, on_record: list[_Entry], lines: Callable[[], list[bytes]]) -> None:
        """The journal, once the state file has it."""
        error = self._tried(lambda: self._journal(lines()))
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
        try:
            in_transaction(self._connection, partial(self._apply, entries))
        except BaseException:
            self._applier.forget()
            raise

    def _apply(self, entries: list[_Entry]) -> None:
        self._applier.apply(change for entry in entries for change in entry.changes)

    def _lines(self, entries: list[_Entry]) -> list[bytes]:
        found = map(self._teller.line_of, (change for entry in entries for change in entry.changes))
        return [line for line in found if line is not None]

    def _journal(self, lines: list[bytes]) -> None:
        if lines:
            fault_point("journal.appending")
            journal.append(self._path, lines)


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


def _weight(entries: list[_Entry]) -> int:
    """Bytes of the results in them."""
    return sum(
        len(change.body) + len(change.events or b"")
        for entry in entries
        for change in entry.changes
        if isinstance(change, changes.ResultStored)
    )


def _pass(when: str, entries: list[_Entry]) -> None:
    """The fault points around a commit: one per kind of change in it."""
    if is_armed:
        for name in sorted({type(change).__name__ for entry in entries for change in entry.changes}):
            fault_point(f"{when}.{name}")
