"""Files of inputs in the state file: what local files held when they were last read, and where their contents are at
fal. A plan's files are in a temporary table of their own, like its jobs."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from falbatch.adapters.localfiles import Content, Stamp
from falbatch.core.fileinputs import FileMark, Travel, Upload, marks_in, with_files

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from falbatch.core.changes import UploadStored

_STAGE: Final = """
CREATE TEMP TABLE stage_files (
    path TEXT PRIMARY KEY, name TEXT, size_bytes INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, hashed_ns INTEGER,
    sha256 BLOB, seal BLOB
) WITHOUT ROWID
"""
_WANTED: Final = "CREATE TEMP TABLE wanted (sha256 BLOB, content_type TEXT, PRIMARY KEY (sha256, content_type))"

_CONTENT: Final = "size_bytes, mtime_ns, ctime_ns, hashed_ns, sha256"


def begin_stage(connection: sqlite3.Connection) -> None:
    """An empty table for a plan's files."""
    connection.execute("DROP TABLE IF EXISTS temp.stage_files")
    connection.execute(_STAGE)
    connection.execute("CREATE INDEX temp.stage_files_by_content ON stage_files (sha256)")


def staged_content(connection: sqlite3.Connection, path: str) -> Content | None:
    """What this plan has found in a file already."""
    row = connection.execute(f"SELECT {_CONTENT} FROM temp.stage_files WHERE path = ?", (path,)).fetchone()
    return None if row is None else _content(row)


def _content(row: Sequence[Any]) -> Content:
    *stamp, hashed_ns, sha256 = row
    return Content(Stamp(*stamp), hashed_ns, bytes(sha256))


def known_content(connection: sqlite3.Connection, path: str) -> Content | None:
    """What an earlier run found in a file; None where it did not look, or its note is garbled."""
    row = connection.execute(f"SELECT name, {_CONTENT}, seal FROM main.local_files WHERE path = ?", (path,)).fetchone()
    if row is None:
        return None
    name, *found, seal = row
    content = _content(found)
    return content if seal == _seal(path, name, content) else None


def stage_files(connection: sqlite3.Connection, found: Iterable[tuple[str, str, Content]]) -> None:
    """Note (path, name as written, content) of files of the plan."""
    connection.executemany(
        "INSERT OR REPLACE INTO temp.stage_files VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(path, name, *_facts(content), content.sha256, _seal(path, name, content)) for path, name, content in found],
    )


def _facts(content: Content) -> tuple[int, int, int, int]:
    stamp = content.stamp
    return stamp.size_bytes, stamp.mtime_ns, stamp.ctime_ns, content.hashed_ns


def _seal(path: str, name: str, content: Content) -> bytes:
    facts = (path, name, *_facts(content), content.sha256.hex())
    return hashlib.sha256(repr(facts).encode()).digest()[:8]


def adopt_files(connection: sqlite3.Connection, *, whole: bool) -> None:
    """Keep what the plan found; with `whole`, forget files that it does not name. The caller holds a transaction."""
    connection.execute("INSERT OR REPLACE INTO main.local_files SELECT * FROM temp.stage_files")
    if whole:
        connection.execute("DELETE FROM main.local_files WHERE path NOT IN (SELECT path FROM temp.stage_files)")


class Wanted:
    """The contents that a plan's submits need, each once; kept in a temporary table."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute("DROP TABLE IF EXISTS temp.wanted")
        connection.execute(_WANTED)
        self._marks: set[tuple[bytes, str]] = set()

    def add(self, input_json: bytes) -> None:
        """The files of one job that is to be submitted."""
        for mark in marks_in(input_json):
            if mark.travel is Travel.URL:
                self._marks.add((mark.sha256, mark.content_type))
        if len(self._marks) >= 1_000:
            self._flush()

    def _flush(self) -> None:
        self._connection.executemany("INSERT OR IGNORE INTO temp.wanted VALUES (?, ?)", self._marks)
        self._marks.clear()

    def count(self, terms: str | None, now: float) -> tuple[int, int, int]:
        """(files to upload, their bytes, files that are at fal already) on these terms; None: nothing is there."""
        self._flush()
        files = size_bytes = there = 0
        rows = self._connection.execute(
            "SELECT w.sha256, w.content_type,"
            " (SELECT size_bytes FROM temp.stage_files s WHERE s.sha256 = w.sha256) FROM temp.wanted w"
        )
        for sha256, content_type, size in rows:
            mark = FileMark(bytes(sha256), content_type=content_type)
            known = None if terms is None else latest(self._connection, mark, terms)
            if known is not None and known.is_good(now):
                there += 1
            else:
                files += 1
                size_bytes += size or 0
        return files, size_bytes, there


def latest(connection: sqlite3.Connection, mark: FileMark, terms: str) -> Upload | None:
    """The latest upload of a content on these terms."""
    row = connection.execute(
        "SELECT url, uploaded_at, expires_at FROM main.uploads WHERE sha256 = ? AND content_type = ? AND terms = ?"
        " ORDER BY uploaded_at DESC LIMIT 1",
        (mark.sha256, mark.content_type, terms),
    ).fetchone()
    return None if row is None else Upload(*row)


def keep(connection: sqlite3.Connection, change: UploadStored) -> None:
    """Write an upload. The caller holds a transaction."""
    connection.execute(
        "INSERT OR REPLACE INTO main.uploads (sha256, url, content_type, terms, size_bytes, uploaded_at, expires_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            change.sha256,
            change.url,
            change.content_type,
            change.terms,
            change.size_bytes,
            change.at,
            change.expires_at,
        ),
    )


def paths_of(connection: sqlite3.Connection, sha256: bytes) -> list[str]:
    """Where a content was found."""
    rows = connection.execute("SELECT path FROM main.local_files WHERE sha256 = ? ORDER BY path", (sha256,))
    return [row[0] for row in rows]


def urls_of(connection: sqlite3.Connection, sha256: bytes) -> list[str]:
    """Every URL that a content ever had."""
    return [row[0] for row in connection.execute("SELECT url FROM main.uploads WHERE sha256 = ?", (sha256,))]


def named(connection: sqlite3.Connection, input_json: bytes, *, staged: bool = False) -> bytes:
    """An input with the names of its files in place of the markers, for people; `staged` ones are the plan's."""
    if not marks_in(input_json):
        return input_json
    return with_files(input_json, lambda mark: _name_of(connection, mark, staged=staged))


def _name_of(connection: sqlite3.Connection, mark: FileMark, *, staged: bool) -> str:
    """Its path as written, else its latest URL, else its hash."""
    table = "temp.stage_files" if staged else "main.local_files"
    row = connection.execute(f"SELECT min(name) FROM {table} WHERE sha256 = ?", (mark.sha256,)).fetchone()
    if row[0] is None:
        row = connection.execute(
            "SELECT url FROM main.uploads WHERE sha256 = ? ORDER BY uploaded_at DESC LIMIT 1", (mark.sha256,)
        ).fetchone()
    return f"sha256:{mark.sha256.hex()}" if row is None else str(row[0])
