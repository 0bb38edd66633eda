"""What the plan on record was made from, as the state file remembers it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

from falbatch.adapters.localfiles import Content, Stamp

if TYPE_CHECKING:
    import sqlite3

ENDPOINTS_MOST: Final = 1_000
"""Endpoints that are kept by name; where there are more, the jobs are asked again."""

FIRST: Final = 5
"""Jobs that a plan shows in full."""

_SEAL_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Basis:
    """What the plan on record was made from."""

    digest: bytes
    """Of all that decides which jobs there are, but the files that inputs name: those are in `local_files`."""
    rows: Content | None = None
    """What the file of rows held; None without one."""
    jobs: int = 0
    endpoints: tuple[str, ...] | None = None
    """Of these jobs; None when they are too many to be kept."""
    first: tuple[int, ...] = ()
    """Row numbers of the first ones, in the manifest's order."""

    def sealed(self) -> bytes:
        """As the state file has it."""
        rows = self.rows
        told = rows and [rows.stamp.size_bytes, rows.stamp.mtime_ns, rows.stamp.ctime_ns, rows.hashed_ns]
        body = orjson.dumps(
            [self.digest.hex(), told, rows and rows.sha256.hex(), self.jobs, self.endpoints, self.first]
        )
        return hashlib.sha256(body).digest()[:_SEAL_BYTES] + body

    @classmethod
    def unsealed(cls, sealed: bytes) -> Basis | None:
        """Back again; None for anything that is garbled."""
        seal, body = sealed[:_SEAL_BYTES], sealed[_SEAL_BYTES:]
        if seal != hashlib.sha256(body).digest()[:_SEAL_BYTES]:
            return None
        digest, told, rows_sha256, jobs, endpoints, first = orjson.loads(body)
        rows = None
        if told is not None:
            *stamp, hashed_ns = told
            rows = Content(Stamp(*stamp), hashed_ns, bytes.fromhex(rows_sha256))
        named = None if endpoints is None else tuple(endpoints)
        return cls(bytes.fromhex(digest), rows, jobs, named, tuple(first))


def basis_of(connection: sqlite3.Connection) -> Basis | None:
    """What the plan on record was made from; None where that is not known."""
    row = connection.execute("SELECT sources FROM batch").fetchone()
    return None if row is None or row[0] is None else Basis.unsealed(row[0])


def keep_basis(connection: sqlite3.Connection, basis: Basis | None) -> None:
    """Note what the plan on record was made from; None: nothing that could be known again. In a transaction."""
    connection.execute("UPDATE batch SET sources = ?", (None if basis is None else basis.sealed(),))
