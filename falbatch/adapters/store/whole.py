"""Is a state file whole? More than SQLite asks: a flipped bit inside a value leaves every page in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from falbatch.core.identity import job_key
from falbatch.core.model import Mode
from falbatch.core.state import State

if TYPE_CHECKING:
    import sqlite3

_TYPES: Final = {"TEXT": "'text'", "BLOB": "'blob'", "INTEGER": "'integer', 'real'", "REAL": "'integer', 'real'"}
"""What SQLite may have in a column, by the type that the column was declared with."""

_CONTRADICTIONS: Final = {
    "an attempt of which its job knows nothing": (
        "SELECT 1 FROM attempts a LEFT JOIN jobs j ON j.id = a.job_id WHERE j.id IS NULL OR a.attempt > j.attempts"
    ),
    "a job to be submitted that is at fal": (
        "SELECT 1 FROM jobs j JOIN requests r ON r.request_id = j.request_id"
        " WHERE j.state = 'planned' AND r.status IN ('accepted', 'completed')"
    ),
    "a job at fal without its request": (
        "SELECT 1 FROM jobs j WHERE j.state = 'submitted'"
        " AND NOT EXISTS (SELECT 1 FROM requests r WHERE r.request_id = j.request_id)"
    ),
}
"""What no run of ours leaves behind: pages of different times in one file."""

_SPENT: Final = (  # two sums of which neither can overflow; their own overflow makes a REAL, which is not the least
    "min(9000000000000000000, coalesce(sum(cost_nano / 1000000000), 0) * 1000000000"
    " + coalesce(sum(cost_nano % 1000000000), 0))"
)

COUNTED: Final = (
    "SELECT (SELECT count(*) FROM attempts), r.*, a.* FROM"
    f" (SELECT count(*), {_SPENT}, count(CASE WHEN ended_at IS NOT NULL AND cost_nano > 0 THEN 1 END),"
    " count(CASE WHEN ended_at IS NOT NULL AND cost_nano IS NULL THEN 1 END) FROM requests) r,"
    " (SELECT count(*), coalesce(sum(size_bytes), 0) FROM artifacts WHERE stored = 1) a"
)
"""What `totals` has in whole numbers, added up anew."""

TOTALS: Final = "SELECT submits, executions, spent_nano, priced, unpriced, files, bytes FROM totals"

UNITS: Final = (
    "SELECT t.units AS kept, r.units AS counted FROM totals t, (SELECT total(billable_units) AS units FROM requests) r"
)
"""The units of `totals`, and added up anew: the same but for rounding."""

_SINCE_TOTALS: Final = {
    "totals that are not the sum of their parts": (
        f"SELECT 1 WHERE NOT EXISTS ({TOTALS} INTERSECT {COUNTED})"
        " AND coalesce((SELECT spent_nano FROM totals), 0) < 9e18"
        f" UNION ALL SELECT 1 FROM ({UNITS}) WHERE abs(kept - counted) > 1e-6 * max(1, counted)"
    ),
    "a job that is gone": "SELECT 1 WHERE (SELECT count(*) FROM jobs) <> (SELECT coalesce(max(id), 0) FROM jobs)",
    "a request whose URLs are gone": (
        "SELECT 1 FROM requests WHERE address IS NOT NULL AND address NOT IN (SELECT id FROM addresses)"
    ),
}
"""The same of files that keep totals."""


def defect(connection: sqlite3.Connection, expected: sqlite3.Connection, *, to_the_last_row: bool = False) -> str:
    """What is wrong with a state file, "" when nothing is. `expected` is an empty one of the same version.

    `to_the_last_row` reads every value of every table. Raises `sqlite3.DatabaseError` where nothing can be read.
    """
    verdict = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
    if verdict != "ok":
        return verdict
    tables, there = _columns(expected), _columns(connection)
    if any(there.get(table) != columns for table, columns in tables.items()):
        return "its tables are not those that were made"
    for table, columns in tables.items():
        wrong = " OR ".join(f"typeof({name}) NOT IN ({_TYPES[kind]}, 'null')" for name, kind in columns)
        if connection.execute(f"SELECT 1 FROM {table} WHERE {wrong} LIMIT 1").fetchone():
            return f"a value of another type in {table}"
    questions = _CONTRADICTIONS | (_SINCE_TOTALS if "totals" in tables else {})
    for what, question in questions.items():
        if connection.execute(f"{question} LIMIT 1").fetchone():
            return what
    if to_the_last_row:
        for table in tables:
            for _ in connection.execute(f"SELECT * FROM {table}"):
                pass
    return _wrong_job(connection)


def _columns(connection: sqlite3.Connection) -> dict[str, list[tuple[str, str]]]:
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
    return {
        table: connection.execute("SELECT name, type FROM pragma_table_info(?) ORDER BY cid", (table,)).fetchall()
        for (table,) in tables
    }


def _wrong_job(connection: sqlite3.Connection) -> str:
    """A job that is not what its key says: another input would be paid for, or the same one under another name."""
    modes, states = frozenset(Mode), frozenset(State)
    rows = connection.execute("SELECT id, key, endpoint, mode, input, replica, name, origin, state FROM jobs")
    for job_id, key, endpoint, mode, given, replica, _, _, state in rows:
        if mode not in modes or state not in states or job_key(endpoint, Mode(mode), given, replica) != key:
            return f"job {job_id} is garbled"
    return ""
