"""How long each endpoint's requests take, as the engine learned it: kept as it came, and understood by nobody here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

    from falbatch.core.changes import DurationsLearned


def sketches(connection: sqlite3.Connection) -> dict[str, bytes]:
    """What is on record, by endpoint."""
    return {
        endpoint: bytes(sketch) for endpoint, sketch in connection.execute("SELECT endpoint, sketch FROM durations")
    }


def keep(connection: sqlite3.Connection, change: DurationsLearned) -> None:
    """Write what was learned in place of what was known. The caller holds a transaction."""
    connection.execute(
        "INSERT OR REPLACE INTO durations (endpoint, sketch, at) VALUES (?, ?, ?)",
        (change.endpoint, change.sketch, change.at),
    )
