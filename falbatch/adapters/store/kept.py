"""The plan that is on record: what it was made from, and the manifest's jobs as the state file has them.

When a manifest makes the jobs that it made last time, they need not be made again to know what is left of them. The
questions are those of `stage.py`, with the same answers; none but `planned_jobs` reads the jobs that are done.
"""

from __future__ import annotations

import heapq
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from falbatch.adapters.store import uploads
from falbatch.adapters.store.basis import basis_of, keep_basis
from falbatch.adapters.store.jobs import EndedJob, Group, note_again
from falbatch.core.model import JobKey
from falbatch.core.plan import Again, Change, Orphan, PlannedJob, Record, ToSubmit, decide
from falbatch.core.state import State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from falbatch.adapters.store.basis import Basis

_OPEN: Final = tuple(state for state in State if state is not State.DONE)
"""The states that are in an index. Jobs that are done are those that are in none of these."""


def is_whole(connection: sqlite3.Connection, basis: Basis) -> bool:
    """True when the manifest's jobs on record are as many as were planned."""
    return basis.jobs == _count(connection) - orphan_count(connection)


def is_still(connection: sqlite3.Connection, basis: Basis | None) -> bool:
    """True when no other plan went on record since `basis` was looked at."""
    found = basis_of(connection)
    return found is not None and basis is not None and (found.digest, found.jobs) == (basis.digest, basis.jobs)


def _count(connection: sqlite3.Connection) -> int:
    """All jobs on record: none is ever taken away, so their row numbers count them."""
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM jobs").fetchone()[0])


def stage_files(connection: sqlite3.Connection) -> None:
    """The plan's files are those on record."""
    uploads.begin_stage(connection)
    connection.execute("INSERT INTO temp.stage_files SELECT * FROM main.local_files")


def file_places(connection: sqlite3.Connection) -> Iterator[str]:
    """Where the files lie that the manifest's inputs name."""
    for (place,) in connection.execute("SELECT path FROM main.local_files ORDER BY path"):
        yield place


def groups(connection: sqlite3.Connection, again: Again) -> list[Group]:
    """The manifest's jobs, counted by what will be done about them and why; in the order of their first ones."""
    found: list[Group] = []
    note_again(connection, again)
    touched: Counter[str] = Counter()
    for state, is_files, count, first in connection.execute(
        "SELECT j.state, a.is_files, count(*), min(j.seq) FROM temp.again a CROSS JOIN jobs j ON j.id = a.job_id"
        " WHERE j.seq IS NOT NULL GROUP BY 1, 2"
    ):
        touched[state] += count
        record = Record(State(state), done_again=not is_files, files_again=bool(is_files))
        found.append(Group.of(record, Change.UNCHANGED, count, first))
    for state in _OPEN:
        where = f"state = '{state}' AND state <> 'done' AND seq IS NOT NULL"
        if state in touched:
            where += " AND id NOT IN (SELECT job_id FROM temp.again)"
        question = f"SELECT NULL, count(*), min(seq) FROM jobs WHERE {where}"
        if state is State.FAILED:
            question = f"SELECT error_type, count(*), min(seq) FROM jobs WHERE {where} GROUP BY 1"
        for error_type, count, first in connection.execute(question):
            if count:
                found.append(Group.of(Record(state, error_type=error_type), Change.UNCHANGED, count, first))
    if done := count_done(connection) - sum(count for state, count in touched.items() if state == State.DONE):
        found.append(Group.of(Record(State.DONE), Change.UNCHANGED, done, _first_done(connection)))
    return sorted(found, key=lambda group: group.first)


def _first_done(connection: sqlite3.Connection) -> int:
    """The first place of a job that is done and stays so: the first at which no other job is."""
    others = [
        connection.execute(
            "SELECT seq FROM jobs WHERE state = ? AND state <> 'done' AND seq >= 0 ORDER BY seq", (state,)
        )
        for state in _OPEN
    ]
    again = connection.execute(
        "SELECT j.seq FROM temp.again a CROSS JOIN jobs j ON j.id = a.job_id"
        " WHERE j.state = 'done' AND j.seq >= 0 ORDER BY 1"
    )
    place = 0
    for (taken,) in heapq.merge(*others, again):
        if taken != place:
            break
        place += 1
    for cursor in (*others, again):
        cursor.close()
    return place


def planned_jobs(connection: sqlite3.Connection, again: Again) -> Iterator[PlannedJob]:
    """The manifest's jobs in its order, with action and reason. Nothing may be written while they are read."""
    connection.execute("DROP TABLE IF EXISTS temp.places")
    connection.execute("CREATE TEMP TABLE places (seq INTEGER PRIMARY KEY, job_id INTEGER)")
    connection.execute("INSERT INTO temp.places SELECT seq, id FROM jobs WHERE seq IS NOT NULL")
    for row in connection.execute(f"{_JOBS} FROM temp.places p JOIN jobs j ON j.id = p.job_id ORDER BY p.seq"):
        yield _planned_job(row, again)


_JOBS: Final = (
    "SELECT j.seq, j.id, j.key, j.name, j.endpoint, j.input, j.replica, j.origin, j.state, j.request_id, j.error_type"
)


def _planned_job(row: tuple[Any, ...], again: Again) -> PlannedJob:
    seq, job_id, key, name, endpoint, input_json, replica, origin, state, request_id, error_type = row
    record = Record(
        State(state),
        request_id,
        error_type,
        done_again=job_id in again.submit,
        files_again=job_id in again.files,
    )
    decision = decide(record)
    return PlannedJob(seq, JobKey(key), name, endpoint, input_json, replica, origin, decision, Change.UNCHANGED)


def first_jobs(connection: sqlite3.Connection, again: Again, count: int) -> list[PlannedJob]:
    """The first jobs of the manifest; at most as many as are kept."""
    basis = basis_of(connection)
    ids = basis.first[:count] if basis else ()
    rows = (connection.execute(f"{_JOBS} FROM jobs j WHERE j.id = ?", (job_id,)).fetchone() for job_id in ids)
    return [_planned_job(row, again) for row in rows]


def changed_jobs(_connection: sqlite3.Connection, _count: int) -> list[PlannedJob]:
    """None: all jobs are on record under their names."""
    return []


def to_submit(connection: sqlite3.Connection, again: Again) -> Iterator[ToSubmit]:
    """The manifest's jobs that are to be submitted, each once."""
    note_again(connection, again)
    for row in connection.execute(
        "SELECT seq, endpoint, input, origin, replica FROM jobs WHERE state = 'planned' AND seq IS NOT NULL UNION ALL"
        " SELECT j.seq, j.endpoint, j.input, j.origin, j.replica FROM temp.again a CROSS JOIN jobs j ON j.id = a.job_id"
        " WHERE NOT a.is_files AND j.seq IS NOT NULL AND j.state <> 'planned'"
    ):
        yield ToSubmit(*row)


def in_states(connection: sqlite3.Connection, states: tuple[State, ...]) -> list[EndedJob]:
    """The manifest's jobs in any of `states`, in its order."""
    marks = ",".join("?" * len(states))
    is_open = "" if State.DONE in states else " AND state <> 'done'"
    rows = connection.execute(
        f"SELECT id, name, state, error_type FROM jobs WHERE state IN ({marks}){is_open} AND seq IS NOT NULL"
        " ORDER BY seq",
        states,
    )
    return [EndedJob(job_id, name, State(state), error_type) for job_id, name, state, error_type in rows]


def endpoints(connection: sqlite3.Connection) -> list[str]:
    """The endpoints of the manifest's jobs."""
    basis = basis_of(connection)
    if basis is not None and basis.endpoints is not None:
        return list(basis.endpoints)
    rows = connection.execute("SELECT DISTINCT endpoint FROM jobs WHERE seq IS NOT NULL ORDER BY endpoint")
    return [row[0] for row in rows]


def orphan_count(connection: sqlite3.Connection) -> int:
    """How many jobs on record the manifest does not make."""
    return int(connection.execute("SELECT count(*) FROM jobs WHERE seq IS NULL").fetchone()[0])


def orphans(connection: sqlite3.Connection) -> Iterator[Orphan]:
    """Jobs on record that the manifest does not make."""
    # With a plain "id" SQLite would go through all jobs in its order.
    rows = connection.execute("SELECT name, state, request_id, error_type FROM jobs WHERE seq IS NULL ORDER BY +id")
    for name, state, request_id, error_type in rows:
        record = Record(State(state), request_id, error_type, orphaned=True)
        yield Orphan(name, record.state, decide(record))


def has_paid_orphans(connection: sqlite3.Connection, *, whole: bool) -> bool:  # noqa: ARG001  (all of it is planned)
    """True when something that was paid for is still to be brought home, though the manifest does not make it."""
    found = connection.execute(
        "SELECT 1 FROM jobs WHERE state IN ('submitted', 'completed') AND seq IS NULL LIMIT 1"
    ).fetchone()
    return found is not None


def count_done(connection: sqlite3.Connection) -> int:
    """The manifest's jobs that are done."""
    ((others,),) = connection.execute("SELECT count(*) FROM jobs WHERE state <> 'done'")
    ((left,),) = connection.execute("SELECT count(*) FROM jobs WHERE state = 'done' AND seq IS NULL")
    return _count(connection) - int(others) - int(left)


def forget_basis(connection: sqlite3.Connection) -> None:
    """The file was put together again: its plan is made anew, once."""
    keep_basis(connection, None)


def adopt(connection: sqlite3.Connection, *, whole: bool, at: float, basis: Basis | None) -> None:  # noqa: ARG001
    """The plan on record goes on as it is. The caller holds a transaction."""
    if not whole:
        raise AssertionError("a part of a manifest is always planned anew")
    connection.execute("DELETE FROM selection")
    keep_basis(connection, basis)
