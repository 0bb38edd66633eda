"""The folder that keeps a sandbox alive over restarts: one SQLite file, one process at a time.

Outputs are functions of the stored requests, so neither results nor files are kept. WAL with
synchronous=NORMAL: what is committed survives the process being killed at any point; a power cut may cost the
last moments, which an emulator can afford.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final

from falbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SCHEMA_VERSION: Final = 2

_SCHEMA: Final = """
create table if not exists meta (name text primary key, value text not null) without rowid;
create table if not exists requests (
  ordinal integer primary key, id text not null, account text not null, endpoint text not null,
  query text not null, headers text not null, raw blob not null, submitted_at real not null,
  low integer not null, deadline real,
  failure text, status text not null, attempt integer not null, started_at real, finishes_at real, ended_at real,
  via text not null default 'queue'
);
"""

# A folder from before direct calls: all that is in it came through the queue.
_ADD_VIA: Final = "alter table requests add column via text not null default 'queue'"

# One row per accepted request, as it stands at the moment of the commit.
_INSERT: Final = "insert into requests values (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
# The life of a request that has a row.
_UPDATE: Final = """update requests set failure=?, status=?, attempt=?, started_at=?, finishes_at=?, ended_at=?
where ordinal=?"""
# Small facts by name: seed, port, next ordinal, locks, faults.
_SET_META: Final = "insert or replace into meta values (?, ?)"

Row = tuple[Any, ...]


class Store:
    """The open file. Made in one thread, then used by one at a time."""

    def __init__(self, folder: Path) -> None:
        """Create or open the state in `folder`. Raises UsageError when it is in use, damaged or newer."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _take_lock(folder)
        except OSError as error:
            raise UsageError(
                f"cannot use {folder} as the sandbox's data folder: {error}", advice="Give --data another folder."
            ) from error
        self._path = path = folder / "sandbox.db"
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._prepare(path)
        except sqlite3.DatabaseError as error:
            self._lock.close()
            raise _damaged(path, error) from error

    def meta(self) -> dict[str, Any]:
        """All small facts, decoded."""
        return {name: json.loads(value) for name, value in self._read("select name, value from meta")}

    def rows(self) -> list[Row]:
        """All requests in the order of submission, columns as in the schema."""
        return self._read("select * from requests order by ordinal")

    def commit(self, new: Sequence[Row], changed: Sequence[Row], meta: Mapping[str, Any], *, wipe: bool) -> None:
        """Write all of it in one transaction; `wipe` deletes every request before."""
        self._db.execute("begin immediate")
        try:
            if wipe:
                self._db.execute("delete from requests")
            self._db.executemany(_INSERT, new)
            self._db.executemany(_UPDATE, changed)
            self._db.executemany(_SET_META, [(name, json.dumps(value)) for name, value in meta.items()])
            self._db.execute("commit")
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.execute("rollback")
            raise

    def close(self) -> None:
        """Close the file and let another process have the folder."""
        self._db.close()
        self._lock.close()

    def _read(self, query: str) -> list[Row]:
        """All rows of `query`. Raises UsageError where the file turns out to be damaged."""
        try:
            return self._db.execute(query).fetchall()
        except sqlite3.DatabaseError as error:
            raise _damaged(self._path, error) from error

    def _prepare(self, path: Path) -> None:
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("pragma synchronous=normal")
        version = self._db.execute("pragma user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            self._lock.close()
            raise UsageError(
                f"{path} was written by a newer falbatch (schema {version}, ours {SCHEMA_VERSION})",
                advice="Update falbatch, or give --data another folder.",
            )
        if version == 1:
            self._db.executescript(f"begin; {_ADD_VIA}; pragma user_version={SCHEMA_VERSION}; commit;")
        self._db.executescript(_SCHEMA)
        self._db.execute(f"pragma user_version={SCHEMA_VERSION}")
        self._db.execute("select count(id) from requests").fetchone()


def _damaged(path: Path, error: sqlite3.DatabaseError) -> UsageError:
    return UsageError(
        f"{path} is damaged or no sandbox state: {error}", advice="Move it away, or give --data another folder."
    )


def _take_lock(folder: Path) -> IO[str]:
    """Hold the folder's lock file for as long as this process lives, even if it is killed."""
    lock = (folder / "sandbox.lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise UsageError(
            f"another sandbox is using {folder}", advice="Stop it, or give --data another folder."
        ) from error
    return lock
