"""Small JSON documents by kind and name, kept in one SQLite file.

A change is on disk when the call that makes it returns: one transaction of some ten microseconds, so it is made in
the open. Durable as `store` is: killed at any point, nothing committed is lost.
"""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from falbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SCHEMA_VERSION: Final = 1

_SCHEMA: Final = """
create table if not exists documents (
  kind text not null, name text not null, body text not null, primary key (kind, name)
) without rowid;
"""

_PUT: Final = "insert or replace into documents values (?, ?, ?)"
_DROP: Final = "delete from documents where kind = ? and name = ?"

Place = tuple[str, str]
"""(kind, name)."""


class Shelf:
    """The open file."""

    def __init__(self, path: Path) -> None:
        """Create or open it. Raises UsageError when it is damaged or newer."""
        try:
            # The routes of one event loop use it, which may not run in the thread that made it.
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        except sqlite3.Error as error:
            raise _damaged(path, error) from error
        try:
            self._prepare(path)
        except sqlite3.Error as error:
            self.close()
            raise _damaged(path, error) from error

    def all(self, kind: str) -> dict[str, Any]:
        """All documents of a kind, by name."""
        rows = self._db.execute("select name, body from documents where kind = ?", (kind,))
        return {name: json.loads(body) for name, body in rows}

    def change(self, put: Mapping[Place, object], drop: Iterable[Place] = ()) -> None:
        """Drop and put documents, all in one transaction."""
        database = self._db
        database.execute("begin immediate")
        try:
            database.executemany(_DROP, list(drop))
            database.executemany(_PUT, [(kind, name, json.dumps(body)) for (kind, name), body in put.items()])
            database.execute("commit")
        except BaseException:
            if database.in_transaction:
                database.execute("rollback")
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _prepare(self, path: Path) -> None:
        database = self._db
        database.execute("pragma journal_mode=wal")
        database.execute("pragma synchronous=normal")
        version = database.execute("pragma user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            self.close()
            raise UsageError(
                f"{path} was written by a newer falbatch (schema {version}, ours {SCHEMA_VERSION})",
                advice="Update falbatch, or give --data another folder.",
            )
        database.executescript(_SCHEMA)
        database.execute(f"pragma user_version={SCHEMA_VERSION}")
        database.execute("select count(body) from documents").fetchone()


def _damaged(path: Path, error: sqlite3.Error) -> UsageError:
    return UsageError(
        f"{path} is damaged or no sandbox state: {error}", advice="Move it away, or give --data another folder."
    )
