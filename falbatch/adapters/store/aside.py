"""Results that are not taken, of jobs that are run again: kept, with their files, until another one is taken.

They are paid for. When the later attempt fails, or the user thinks better of it, the earlier result is still to be had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3

_FILE: Final = "job_id, place, path, path_fold, size_bytes, sha256, content_type, black"


def put(connection: sqlite3.Connection, job_id: int) -> None:
    """Set a job's result aside, in the place of one that was there before. Before its request is let go of."""
    is_there = connection.execute(
        "INSERT OR REPLACE INTO aside (job_id, request_id, content_type, body, events)"
        " SELECT r.job_id, j.request_id, r.content_type, r.body, r.events FROM results r JOIN jobs j ON j.id = r.job_id"
        " WHERE r.job_id = ? AND j.request_id IS NOT NULL",
        (job_id,),
    ).rowcount
    if is_there:
        connection.execute("DELETE FROM aside_files WHERE job_id = ?", (job_id,))
        connection.execute(
            f"INSERT INTO aside_files ({_FILE}) SELECT {_FILE} FROM artifacts WHERE job_id = ?", (job_id,)
        )
    connection.execute("DELETE FROM results WHERE job_id = ?", (job_id,))
    connection.execute("DELETE FROM artifacts WHERE job_id = ?", (job_id,))


def take(connection: sqlite3.Connection, job_id: int) -> None:
    """Make the result that was set aside the job's own again. Its state is for the caller to move."""
    connection.execute(
        "INSERT OR REPLACE INTO results (job_id, content_type, body, events)"
        " SELECT job_id, content_type, body, events FROM aside WHERE job_id = ?",
        (job_id,),
    )
    connection.execute("DELETE FROM artifacts WHERE job_id = ?", (job_id,))
    connection.execute(f"INSERT INTO artifacts ({_FILE}) SELECT {_FILE} FROM aside_files WHERE job_id = ?", (job_id,))
    connection.execute(
        "UPDATE jobs SET request_id = (SELECT request_id FROM aside WHERE job_id = id) WHERE id = ?", (job_id,)
    )
    connection.execute("DELETE FROM aside WHERE job_id = ?", (job_id,))
    connection.execute("DELETE FROM aside_files WHERE job_id = ?", (job_id,))


def jobs(connection: sqlite3.Connection) -> frozenset[int]:
    """Jobs with a result that was set aside."""
    return frozenset(job_id for (job_id,) in connection.execute("SELECT job_id FROM aside"))


def waiting(connection: sqlite3.Connection) -> frozenset[int]:
    """Those of them whose re-roll was granted and has not left."""
    rows = connection.execute(
        "SELECT a.job_id FROM aside a CROSS JOIN jobs j ON j.id = a.job_id WHERE j.state = 'planned' AND j.roll > 0"
    )
    return frozenset(job_id for (job_id,) in rows)
