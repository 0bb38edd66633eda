"""A plan beside the state: the manifest's jobs in a temporary table, compared with what is on record.

SQLite holds the table on disk, so a million jobs never sit in memory; keys, replicas and names are settled here
because they depend on all jobs together.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from falbatch.adapters.store import uploads
from falbatch.adapters.store.basis import ENDPOINTS_MOST, FIRST, keep_basis
from falbatch.adapters.store.jobs import EndedJob, Group, note_again
from falbatch.adapters.store.keys import CHUNK, default_name, settle_keys
from falbatch.core.identity import canonical_json, job_key
from falbatch.core.model import Item, JobKey
from falbatch.core.naming import fold
from falbatch.core.plan import Again, Change, Orphan, PlannedJob, Record, ToSubmit, decide
from falbatch.core.seeds import MARK_JSON
from falbatch.core.state import State
from falbatch.errors import Problem

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from falbatch.adapters.store.basis import Basis

CACHE_KIB: Final = -32 * 1024
"""Memory for the state file's pages while a plan is held against it, in KiB: SQLite takes those as negative numbers."""

MAX_CLASHES: Final = 20
"""Clashing names that are reported one by one."""

_TABLE: Final = """
CREATE TEMP TABLE stage (
    seq INTEGER PRIMARY KEY, key BLOB, name TEXT, fold TEXT, named INTEGER, label TEXT,
    endpoint TEXT, mode TEXT, input BLOB, replica INTEGER, origin TEXT, number INTEGER
)
"""


def fill(connection: sqlite3.Connection, items: Iterable[Item]) -> int:
    """Write the items of a manifest into the stage and settle keys and names. Returns how many there are."""
    connection.execute("PRAGMA temp_store = FILE")
    for table in ("stage", "stage_endpoints", "left_jobs"):
        connection.execute(f"DROP TABLE IF EXISTS temp.{table}")
    connection.execute(_TABLE)
    connection.execute("CREATE TEMP TABLE stage_endpoints (endpoint TEXT PRIMARY KEY) WITHOUT ROWID")
    uploads.begin_stage(connection)
    connection.execute("BEGIN")
    count = 0
    has_seeds = False
    for chunk in _chunks(items):
        rows = [_row(item) for item in chunk]
        connection.executemany("INSERT INTO stage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        has_seeds = has_seeds or any(MARK_JSON in row[_INPUT] for row in rows)
        named = {(item.endpoint,) for item in chunk}
        connection.executemany("INSERT OR IGNORE INTO stage_endpoints VALUES (?)", named)
        count += len(chunk)
    connection.execute("CREATE INDEX temp.stage_key ON stage (key, seq)")
    settle_keys(connection, has_seeds=has_seeds)
    connection.execute("CREATE INDEX temp.stage_fold ON stage (fold)")
    connection.execute("COMMIT")
    return count


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


_INPUT: Final = 8
"""Place of the input in a row."""


def _row(item: Item) -> tuple[Any, ...]:
    input_json = canonical_json(item.input)
    key = job_key(item.endpoint, item.mode, input_json, 0)
    name = item.name or default_name(item.label, key)
    return (
        item.seq,
        key,
        name,
        fold(name),
        item.name is not None,
        item.label,
        item.endpoint,
        item.mode.value,
        input_json,
        0,
        item.origin,
        item.number,
    )


def in_states(connection: sqlite3.Connection, states: tuple[State, ...]) -> list[EndedJob]:
    """The staged jobs that are on record in any of `states`, in the manifest's order."""
    marks = ",".join("?" * len(states))
    rows = connection.execute(
        "SELECT j.id, j.name, j.state, j.error_type FROM stage s JOIN jobs j ON j.key = s.key"
        f" WHERE j.state IN ({marks}) ORDER BY s.seq",
        states,
    )
    return [EndedJob(job_id, name, State(state), error_type) for job_id, name, state, error_type in rows]


def endpoints(connection: sqlite3.Connection) -> list[str]:
    """The endpoints of the staged jobs."""
    return [row[0] for row in connection.execute("SELECT endpoint FROM stage_endpoints ORDER BY endpoint")]


def clashes(connection: sqlite3.Connection, *, file: str, line: int, column: int) -> list[Problem]:
    """Names that two jobs share, on a disk that may not tell upper from lower case. Place: `output.name`."""
    shared = "SELECT fold FROM stage GROUP BY fold HAVING count(*) > 1"  # by the index alone: there are hardly ever any
    rows = connection.execute(
        f"SELECT min(name), count(*), min(origin), max(origin) FROM stage WHERE fold IN ({shared}) GROUP BY fold"
        " ORDER BY min(seq) LIMIT ?",
        (MAX_CLASHES,),
    ).fetchall()
    return [
        Problem(
            file,
            line,
            column,
            f'{count} jobs would write the file name "{name}", among them {first} and {last}',
            "make output.name tell them apart, e.g. with {{ index }}, {{ replica }} or a column of the row",
        )
        for name, count, first, last in rows
    ]


def _note_left(connection: sqlite3.Connection) -> None:
    """The jobs on record that the staged manifest does not make, found once for each plan."""
    if connection.execute("SELECT 1 FROM temp.sqlite_master WHERE name = 'left_jobs'").fetchone():
        return
    connection.execute("CREATE TEMP TABLE left_jobs (job_id INTEGER PRIMARY KEY, name TEXT)")
    connection.execute(
        "INSERT INTO temp.left_jobs SELECT id, name FROM jobs"
        " WHERE NOT EXISTS (SELECT 1 FROM stage s WHERE s.key = jobs.key)"
    )
    connection.execute("CREATE INDEX temp.left_names ON left_jobs (name)")


def _has_jobs(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM jobs LIMIT 1").fetchone() is not None


_IS_CHANGED: Final = "j.id IS NULL AND EXISTS (SELECT 1 FROM temp.left_jobs l WHERE l.name = s.name)"


def groups(connection: sqlite3.Connection, again: Again) -> list[Group]:
    """The staged jobs, counted by what will be done about them and why; in the order of their first ones."""
    if not _has_jobs(connection):
        ((count,),) = connection.execute("SELECT count(*) FROM stage")
        return [Group.of(None, Change.ADDED, count, 0)] if count else []
    with _roomy(connection):
        return _groups(connection, again)


def _groups(connection: sqlite3.Connection, again: Again) -> list[Group]:
    _note_left(connection)
    note_again(connection, again)
    rows = connection.execute(
        "SELECT j.state, CASE j.state WHEN 'failed' THEN j.error_type END, a.is_files,"
        f" {_IS_CHANGED}, count(*), min(s.seq) FROM stage s LEFT JOIN jobs j ON j.key = s.key"
        " LEFT JOIN temp.again a ON a.job_id = j.id GROUP BY 1, 2, 3, 4 ORDER BY 6"
    )
    found = []
    for state, error_type, is_files, is_changed, count, first in rows:
        record = None
        if state is not None:
            record = Record(State(state), None, error_type, done_again=is_files == 0, files_again=is_files == 1)
        found.append(Group.of(record, _change(record, is_changed=is_changed), count, first))
    return found


def _change(record: Record | None, *, is_changed: bool) -> Change:
    if record is not None:
        return Change.UNCHANGED
    return Change.CHANGED if is_changed else Change.ADDED


_JOINED: Final = (
    "SELECT j.id, s.seq, s.key, s.name, s.endpoint, s.input, s.replica, s.origin, j.state, j.request_id, j.error_type,"
    f" {_IS_CHANGED} FROM stage s LEFT JOIN jobs j ON j.key = s.key"
)


def planned_jobs(connection: sqlite3.Connection, again: Again) -> Iterator[PlannedJob]:
    """Every staged job in the manifest's order, with its action and reason."""
    _note_left(connection)
    for row in connection.execute(f"{_JOINED} ORDER BY s.seq"):
        yield _planned_job(row, again)


def first_jobs(connection: sqlite3.Connection, again: Again, count: int) -> list[PlannedJob]:
    """The first of the staged jobs."""
    _note_left(connection)
    rows = connection.execute(f"{_JOINED} ORDER BY s.seq LIMIT ?", (count,))
    return [_planned_job(row, again) for row in rows]


def changed_jobs(connection: sqlite3.Connection, count: int) -> list[PlannedJob]:
    """The first of the staged jobs that are new under a name that an old job had."""
    _note_left(connection)
    rows = connection.execute(f"{_JOINED} WHERE {_IS_CHANGED} ORDER BY s.seq LIMIT ?", (count,))
    return [_planned_job(row, Again()) for row in rows]


def _planned_job(row: tuple[Any, ...], again: Again) -> PlannedJob:
    job_id, seq, key, name, endpoint, input_json, replica, origin, state, request_id, error_type, is_changed = row
    record = None
    if state is not None:
        record = Record(
            State(state),
            request_id,
            error_type,
            done_again=job_id in again.submit,
            files_again=job_id in again.files,
        )
    change = _change(record, is_changed=is_changed)
    return PlannedJob(seq, JobKey(key), name, endpoint, input_json, replica, origin, decide(record), change)


def to_submit(connection: sqlite3.Connection, again: Again) -> Iterator[ToSubmit]:
    """The staged jobs that are to be submitted, in the manifest's order."""
    note_again(connection, again)
    for row in connection.execute(
        "SELECT s.seq, s.endpoint, s.input, s.origin, s.replica FROM stage s LEFT JOIN jobs j ON j.key = s.key"
        " WHERE j.id IS NULL OR j.state = 'planned' OR j.id IN (SELECT job_id FROM temp.again WHERE NOT is_files)"
        " ORDER BY s.seq"
    ):
        yield ToSubmit(*row)


def orphan_count(connection: sqlite3.Connection) -> int:
    """How many jobs on record the staged manifest does not make."""
    _note_left(connection)
    return int(connection.execute("SELECT count(*) FROM temp.left_jobs").fetchone()[0])


def orphans(connection: sqlite3.Connection) -> Iterator[Orphan]:
    """Jobs on record that the staged manifest does not make."""
    _note_left(connection)
    rows = connection.execute(
        "SELECT j.name, j.state, j.request_id, j.error_type FROM temp.left_jobs l JOIN jobs j ON j.id = l.job_id"
        " ORDER BY l.job_id"
    )
    for name, state, request_id, error_type in rows:
        record = Record(State(state), request_id, error_type, orphaned=True)
        yield Orphan(name, record.state, decide(record))


def has_paid_orphans(connection: sqlite3.Connection, *, whole: bool) -> bool:
    """True when something that was paid for is still to be brought home, though the manifest does not make it."""
    gone = "seq IS NULL OR NOT EXISTS (SELECT 1 FROM stage s WHERE s.key = jobs.key)" if whole else "seq IS NULL"
    found = connection.execute(
        f"SELECT 1 FROM jobs WHERE state IN ('submitted', 'completed') AND state <> 'done' AND ({gone}) LIMIT 1"
    ).fetchone()
    return found is not None


def adopt(connection: sqlite3.Connection, *, whole: bool, at: float, basis: Basis | None = None) -> None:
    """Make the staged plan the state's: new jobs become `planned`, jobs that left lose their place.

    With `whole=False` (a run over a part of the manifest) jobs outside the stage stay as they are, and the part is
    kept in `selection`; a job that had left the manifest and is back gets a place again. `basis` is what the stage was
    made from, None where it could not be known again. The caller holds a transaction.
    """
    with _roomy(connection):
        is_alike = _follow(connection) if whole and _has_jobs(connection) else True
        _insert_new(connection, at)
    connection.execute("DROP TABLE IF EXISTS temp.left_jobs")
    uploads.adopt_files(connection, whole=whole)
    connection.execute("DELETE FROM selection")
    if whole:
        keep_basis(connection, _counted(connection, basis) if basis and is_alike else None)
        return
    connection.execute("INSERT INTO selection SELECT j.id FROM stage s JOIN jobs j ON j.key = s.key")
    connection.execute(
        "UPDATE jobs SET seq = s.seq, origin = s.origin FROM stage s WHERE s.key = jobs.key AND jobs.seq IS NULL"
    )
    keep_basis(connection, None)


@contextmanager
def _roomy(connection: sqlite3.Connection) -> Iterator[None]:
    """Keys come in any order: with their index in memory a million of them take half the time."""
    ((pages,),) = connection.execute("PRAGMA cache_size")
    connection.execute(f"PRAGMA cache_size = {CACHE_KIB}")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA cache_size = {pages}")


def _insert_new(connection: sqlite3.Connection, at: float) -> None:
    is_new = "NOT EXISTS (SELECT 1 FROM jobs j WHERE j.key = s.key)" if _has_jobs(connection) else "TRUE"
    connection.execute(
        "INSERT INTO jobs (key, seq, name, endpoint, mode, input, replica, origin, state, updated_at)"
        " SELECT key, seq, name, endpoint, mode, input, replica, origin, 'planned', ? FROM stage s"
        f" WHERE {is_new} ORDER BY seq",
        (at,),
    )


def _follow(connection: sqlite3.Connection) -> bool:
    """Where the manifest let go of a job, moved it, or renamed one that has no files yet, the record follows. Returns
    False when a job keeps another name than the manifest gives it."""
    _note_left(connection)
    connection.execute("UPDATE jobs SET seq = NULL WHERE id IN (SELECT job_id FROM temp.left_jobs) AND seq IS NOT NULL")
    connection.execute("DROP TABLE IF EXISTS temp.moved")
    connection.execute("CREATE TEMP TABLE moved (id INTEGER PRIMARY KEY, seq INTEGER, origin TEXT, name TEXT)")
    connection.execute(
        "INSERT INTO temp.moved SELECT j.id, s.seq, s.origin, s.name FROM stage s JOIN jobs j ON j.key = s.key"
        " WHERE j.seq IS NOT s.seq OR j.origin <> s.origin OR j.name <> s.name"
    )
    connection.execute(
        "UPDATE jobs SET (seq, origin, name) = (SELECT m.seq, m.origin,"
        " CASE WHEN jobs.state NOT IN ('completed', 'done') THEN m.name ELSE jobs.name END"
        " FROM temp.moved m WHERE m.id = jobs.id) WHERE id IN (SELECT id FROM temp.moved)"
    )
    differs = connection.execute(
        "SELECT 1 FROM temp.moved m JOIN jobs j ON j.id = m.id WHERE j.name <> m.name LIMIT 1"
    ).fetchone()
    connection.execute("DROP TABLE temp.moved")
    return differs is None


def _counted(connection: sqlite3.Connection, basis: Basis) -> Basis:
    ((count,),) = connection.execute("SELECT count(*) FROM stage")
    named = endpoints(connection)
    first = connection.execute(
        "SELECT j.id FROM stage s CROSS JOIN jobs j ON j.key = s.key ORDER BY s.seq LIMIT ?", (FIRST,)
    )
    return replace(
        basis,
        jobs=count,
        endpoints=tuple(named) if len(named) <= ENDPOINTS_MOST else None,
        first=tuple(job_id for (job_id,) in first),
    )
