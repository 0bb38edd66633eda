"""A plan beside the state: the manifest's jobs in a temporary table, compared with what is on record.

SQLite holds the table on disk, so a million jobs never sit in memory; keys, replicas and names are settled here
because they depend on all jobs together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from falbatch.adapters.store import uploads
from falbatch.core.identity import canonical_json, job_key
from falbatch.core.model import Item, JobKey, Mode
from falbatch.core.naming import fold
from falbatch.core.plan import Again, Change, Orphan, PlannedJob, Record, decide
from falbatch.core.state import State
from falbatch.errors import Problem

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

CHUNK: Final = 1_000
"""Items written at a time."""

SHORT_KEY: Final = 12
"""Hex digits of the key in a default name: 48 bits keep a million names apart, and a clash is found anyway."""

MAX_CLASHES: Final = 20
"""Clashing names that are reported one by one."""

_TABLE: Final = """
CREATE TEMP TABLE stage (
    seq INTEGER PRIMARY KEY, key BLOB, name TEXT, fold TEXT, named INTEGER, label TEXT,
    endpoint TEXT, mode TEXT, input BLOB, replica INTEGER, origin TEXT
)
"""


def fill(connection: sqlite3.Connection, items: Iterable[Item]) -> int:
    """Write the items of a manifest into the stage and settle keys and names. Returns how many there are."""
    connection.execute("PRAGMA temp_store = FILE")
    connection.execute("DROP TABLE IF EXISTS temp.stage")
    connection.execute(_TABLE)
    uploads.begin_stage(connection)
    connection.execute("BEGIN")
    count = 0
    for chunk in _chunks(items):
        connection.executemany("INSERT INTO stage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_row, chunk))
        count += len(chunk)
    connection.execute("CREATE INDEX temp.stage_key ON stage (key, seq)")
    _number_replicas(connection)
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


def _row(item: Item) -> tuple[object, ...]:
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
    )


def default_name(label: str, key: JobKey) -> str:
    """The name of a job whose manifest gives none: readable where there is something to read, stable, unique."""
    return f"{label}-{key.hex()[:SHORT_KEY]}" if label else key.hex()[:SHORT_KEY]


def _number_replicas(connection: sqlite3.Connection) -> None:
    """Rows that render to the same job are its replicas 0, 1, 2 … in the manifest's order (design §5.2)."""
    connection.execute("DROP TABLE IF EXISTS temp.twins")
    connection.execute("CREATE TEMP TABLE twins (seq INTEGER PRIMARY KEY, replica INTEGER)")
    connection.execute(
        "INSERT INTO twins SELECT seq, n FROM"
        " (SELECT seq, row_number() OVER (PARTITION BY key ORDER BY seq) - 1 AS n FROM stage) WHERE n > 0"
    )
    last = -1
    while alike := connection.execute(_TWINS, (last, CHUNK)).fetchall():
        connection.executemany(
            "UPDATE stage SET key = ?, replica = ?, name = ?, fold = ? WHERE seq = ?", map(_as_replica, alike)
        )
        last = alike[-1][0]
    connection.execute("DROP TABLE temp.twins")


_TWINS: Final = (
    "SELECT t.seq, t.replica, s.label, s.named, s.name, s.endpoint, s.mode, s.input"
    " FROM twins t JOIN stage s ON s.seq = t.seq WHERE t.seq > ? ORDER BY t.seq LIMIT ?"
)


def _as_replica(row: tuple[Any, ...]) -> tuple[object, ...]:
    seq, replica, label, named, name, endpoint, mode, input_json = row
    key = job_key(endpoint, Mode(mode), input_json, replica)
    settled = name if named else default_name(label, key)
    return key, replica, settled, fold(settled), seq


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A staged job that is on record, as a choice among them sees it."""

    job_id: int
    name: str
    state: State
    error_type: str | None


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
    return [row[0] for row in connection.execute("SELECT DISTINCT endpoint FROM stage ORDER BY endpoint")]


def clashes(connection: sqlite3.Connection, *, file: str, line: int, column: int) -> list[Problem]:
    """Names that two jobs share, on a disk that may not tell upper from lower case. Place: `output.name`."""
    rows = connection.execute(
        "SELECT min(name), count(*), min(origin), max(origin) FROM stage GROUP BY fold HAVING count(*) > 1"
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


_JOINED: Final = (
    "SELECT j.id, s.seq, s.key, s.name, s.endpoint, s.input, s.replica, s.origin, j.state, j.request_id, j.error_type,"
    " o.name IS NOT NULL"
    " FROM stage s LEFT JOIN jobs j ON j.key = s.key LEFT JOIN orphan_names o ON o.name = s.name ORDER BY s.seq"
)


def planned_jobs(connection: sqlite3.Connection, again: Again) -> Iterator[PlannedJob]:
    """Every staged job in the manifest's order, with its action and reason."""
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS orphan_names (name TEXT PRIMARY KEY) WITHOUT ROWID")
    connection.execute("DELETE FROM orphan_names")
    connection.execute(
        "INSERT OR IGNORE INTO orphan_names SELECT name FROM jobs"
        " WHERE NOT EXISTS (SELECT 1 FROM stage s WHERE s.key = jobs.key)"
    )
    for row in connection.execute(_JOINED):
        job_id, seq, key, name, endpoint, input_json, replica, origin, state, request_id, error_type, renamed = row
        record = None
        if state is not None:
            record = Record(
                State(state),
                request_id,
                error_type,
                done_again=job_id in again.submit,
                files_again=job_id in again.files,
            )
        change = Change.UNCHANGED if record else Change.CHANGED if renamed else Change.ADDED
        yield PlannedJob(seq, JobKey(key), name, endpoint, input_json, replica, origin, decide(record), change)


def orphans(connection: sqlite3.Connection) -> Iterator[Orphan]:
    """Jobs on record that the staged manifest does not make."""
    rows = connection.execute(
        "SELECT name, state, request_id, error_type FROM jobs"
        " WHERE NOT EXISTS (SELECT 1 FROM stage s WHERE s.key = jobs.key) ORDER BY id"
    )
    for name, state, request_id, error_type in rows:
        record = Record(State(state), request_id, error_type, orphaned=True)
        yield Orphan(name, record.state, decide(record))


def adopt(connection: sqlite3.Connection, *, whole: bool, at: float) -> None:
    """Make the staged plan the state's: new jobs become `planned`, jobs that left lose their place.

    With `whole=False` (a run over a part of the manifest) jobs outside the stage stay as they are, and the part is
    kept in `selection`; a job that had left the manifest and is back gets a place again. The caller
    holds a transaction.
    """
    connection.execute(
        "INSERT INTO jobs (key, seq, name, endpoint, mode, input, replica, origin, state, updated_at)"
        " SELECT key, seq, name, endpoint, mode, input, replica, origin, 'planned', ? FROM stage s"
        " WHERE NOT EXISTS (SELECT 1 FROM jobs j WHERE j.key = s.key) ORDER BY seq",
        (at,),
    )
    uploads.adopt_files(connection, whole=whole)
    connection.execute("DELETE FROM selection")
    if not whole:
        connection.execute("INSERT INTO selection SELECT j.id FROM stage s JOIN jobs j ON j.key = s.key")
        connection.execute(
            "UPDATE jobs SET seq = s.seq, origin = s.origin FROM stage s WHERE s.key = jobs.key AND jobs.seq IS NULL"
        )
        return
    connection.execute(
        "UPDATE jobs SET seq = NULL WHERE seq IS NOT NULL AND NOT EXISTS (SELECT 1 FROM stage s WHERE s.key = jobs.key)"
    )
    # Where the manifest moved a job, or renamed one that has no files yet, the record follows.
    connection.execute(
        "UPDATE jobs SET seq = s.seq, origin = s.origin,"
        " name = CASE WHEN jobs.state NOT IN ('completed', 'done') THEN s.name ELSE jobs.name END"
        " FROM stage s WHERE s.key = jobs.key AND (jobs.seq IS NOT s.seq OR jobs.name <> s.name"
        " OR jobs.origin <> s.origin)"
    )
