"""Opening the state file: schema, migrations, and every way in which a file can be the wrong one."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from falbatch.adapters.store.journal import remains
from falbatch.adapters.store.migrations import MIGRATIONS, SCHEMA_VERSION
from falbatch.adapters.store.whole import defect
from falbatch.errors import DiskFull, OutputError, StateError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPLICATION_ID: Final = 0x66616C62
"""`falb` in ASCII, in the header of every state file: tells ours from other SQLite files."""

QUICK_CHECK_BYTES: Final = 64 * 1024 * 1024
"""Files up to this size are checked for damage at open (half a second at most); larger ones where they are read."""

FIRST_PAGE: Final = 4096
"""Bytes of a file that holds nothing yet."""

BUSY_MS: Final = 10_000
"""How long a reader waits for the writer's moment of exclusive access."""


def open_writer(path: Path) -> sqlite3.Connection:
    """Open (or create, mode 0600) the state file for its one writer. The caller holds the lock.

    Raises `StateError` for a damaged, foreign or newer file, `OutputError` where the folder cannot be written.
    """
    with translated(path):
        if _size(path) == 0 and _size(path, "-wal") > 0:
            # SQLite throws a -wal away, with all that was committed in it, when it finds the file itself empty.
            raise _damaged(path, f"it is empty or gone; {path.name}-wal, which goes with it, is not")
        path.touch(mode=0o600)
        # A file that is not ours, or not whole, stays as it is, to the byte: a writer that closes it would move what
        # lies in its -wal.
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with contextlib.closing(_connect(path, "rw" if _is_hot(path) else "ro")) as look:
            if not _is_blank(look):
                _check_file(look, path)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
        try:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
            if _is_blank(connection):
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            _configure(connection)
            _migrate(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def open_reader(path: Path, *, is_checked: bool = False) -> sqlite3.Connection:
    """Open an existing state file for reading, also while a run writes to it. It may create temporary tables.

    A file whose making was cut short reads as the state of a batch that never ran. `is_checked`: the caller has it open
    for writing. Raises `StateError` for a missing, damaged, foreign or differently versioned file.
    """
    if _size(path) == 0 and (left := remains(path)):
        raise _damaged(path, f"it is {'empty' if path.exists() else 'gone'}, beside it is {left}")
    if not path.is_file():
        raise StateError(
            f"{path}: there is no state file, so nothing of this batch has run",
            advice="`falbatch run` begins it; --output names another folder.",
        )
    with translated(path):
        connection = _connect(path, "ro")
        try:
            if is_checked:
                return connection
            if _is_blank(connection):
                connection.close()
                return open_empty()
            _check_file(connection, path)
            if _version(connection) < SCHEMA_VERSION:
                raise StateError(
                    f"{path}: its format is older than this falbatch",
                    advice="Run the batch once: that upgrades it.",
                )
        except BaseException:
            connection.close()
            raise
        return connection


def open_empty(version: int | None = None) -> sqlite3.Connection:
    """The state of a batch that never ran, in memory: lets a plan be made without writing anything."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    for script in MIGRATIONS[:version]:
        connection.executescript(script)
    return connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
    )
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    return connection


def _size(path: Path, ending: str = "") -> int:
    place = path.with_name(path.name + ending)
    return place.stat().st_size if place.is_file() else 0


def _is_hot(path: Path) -> bool:
    """True when the making of the file was cut short in its very first step, which only a writer can undo."""
    return _size(path, "-journal") > 0 and _size(path) <= FIRST_PAGE


def _is_blank(connection: sqlite3.Connection) -> bool:
    """True for a new file, and for one whose making was cut short (killed, disk full) before it held a table."""
    if connection.execute("PRAGMA application_id").fetchone()[0] not in {0, APPLICATION_ID}:
        return False
    if connection.execute("PRAGMA page_count").fetchone()[0] > 1:
        return False
    return _version(connection) == 0 and connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL: what was committed survives a power cut. With group commit it costs the same as NORMAL (measured).
    connection.execute("PRAGMA synchronous = FULL")
    # Some builds write zeros over what is freed: a tenth of a commit's work, for what is no secret.
    connection.execute("PRAGMA secure_delete = OFF")
    connection.execute("PRAGMA temp_store = FILE")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _check_file(connection: sqlite3.Connection, path: Path) -> None:
    check_ours(connection, path)
    if path.stat().st_size <= QUICK_CHECK_BYTES:
        check_whole(connection, path)


def check_ours(connection: sqlite3.Connection, path: Path) -> None:
    """Raises `StateError` for the database of another program, or of a newer falbatch."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StateError(f"{path}: this is not a falbatch state file", advice="Give the batch another output folder.")
    version = _version(connection)
    if version > SCHEMA_VERSION:
        raise StateError(
            f"{path}: written by a newer falbatch (format {version}, this one reads up to {SCHEMA_VERSION})",
            advice="Upgrade falbatch; nothing in the file was touched.",
        )


def check_whole(connection: sqlite3.Connection, path: Path, *, to_the_last_row: bool = False) -> None:
    """Raises `DamagedState` when the database is damaged; `path` is what the message calls it."""
    with translated(path), contextlib.closing(open_empty(_version(connection))) as expected:
        found = defect(connection, expected, to_the_last_row=to_the_last_row)
    if found:
        raise _damaged(path, found)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = _version(connection)
    if 0 < version < SCHEMA_VERSION:
        copy = path.with_suffix(f".v{version}.bak")
        copy.touch(mode=0o600)
        with contextlib.closing(sqlite3.connect(copy)) as backup:
            connection.backup(backup)
    if version < SCHEMA_VERSION:
        script = ";".join(MIGRATIONS[version:])
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


class DamagedState(StateError):
    """Raised for a state file that SQLite cannot read as a whole."""


def _damaged(path: Path, detail: str) -> StateError:
    return DamagedState(
        f"{path}: the state file is damaged ({detail})",
        advice="`falbatch run MANIFEST` puts it together again from its copy and its journal where they are beside it. "
        "Without them, move it away and check your fal dashboard before running again: jobs that were paid for are "
        "not known.",
    )


_TROUBLE: Final = ("SQLITE_IOERR", "SQLITE_LOCKED", "SQLITE_PROTOCOL", "SQLITE_INTERRUPT", "SQLITE_READONLY_ROLLBACK")
"""The disk or the system would not, or a -journal is in the way: that says nothing of the file."""


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn sqlite3's and the system's errors into ours, with the file's name."""
    try:
        yield
    except sqlite3.OperationalError as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith("SQLITE_FULL") or name in {"SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"}:
            raise DiskFull(
                f"{path}: no space left for the state file", advice="Free some space and run again."
            ) from error
        if name.startswith(_TROUBLE):
            raise StateError(
                f"{path}: cannot be read or written just now ({error})",
                advice="Nothing was changed. Check the disk; the same command goes on.",
            ) from error
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            raise OutputError(
                f"{path}: cannot be written ({error})", advice="Check the folder's permissions."
            ) from error
        if name.startswith("SQLITE_BUSY"):
            raise StateError(f"{path}: the state file is in use by another program ({error})") from error
        raise _damaged(path, str(error)) from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{path}: no space left", advice="Free some space and run again.") from error
        raise OutputError(
            f"{path}: {error.strerror or error}", advice="Check the folder and its permissions."
        ) from error
