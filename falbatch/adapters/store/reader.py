"""Questions to the state file. Each function is one question; none of them scans more than it must."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from falbatch.adapters.store import flagged, spending, uploads
from falbatch.adapters.store.addresses import JOIN_FORM, URLS
from falbatch.core.identity import input_of
from falbatch.core.model import JobKey, Mode
from falbatch.core.record import AttemptOnRecord, OpenJob, RequestOnRecord, StoredFile, StoredResult
from falbatch.core.report import BatchStatus, FailureGroup, UnknownJob
from falbatch.core.state import UNSENT, Event, State
from falbatch.exactjson import parse_json

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from falbatch.adapters.store.flagged import Ancestor

GROUPS: Final = 50
"""Reasons of failure that are told apart in a report."""

UNKNOWN_SHOWN: Final = 1_000
"""Unknown jobs that a report lists one by one."""

_OPEN_JOB: Final = (
    "SELECT j.id, j.key, j.seq, j.name, j.endpoint, j.mode, j.input, j.state, j.attempts, j.failures,"
    f" coalesce(a.reserved_nano, 0), j.roll, j.unjudged, r.request_id, {URLS}, r.accepted_at"
    f" FROM jobs j LEFT JOIN requests r ON r.request_id = j.request_id {JOIN_FORM}"
    " LEFT JOIN attempts a ON a.job_id = r.job_id AND a.attempt = r.attempt"
)

_SELECTED: Final = "(NOT EXISTS (SELECT 1 FROM selection) OR {} IN (SELECT job_id FROM selection))"

_PLANNED: Final = f"{_OPEN_JOB} WHERE j.state = 'planned' AND j.state <> 'done' AND {_SELECTED.format('j.id')}"


_OPEN_COUNTS: Final = "SELECT state, count(*) FROM jobs WHERE state <> 'done' AND seq IS NOT NULL GROUP BY state"

_BLAMED: Final = (
    "SELECT error_type, count(*), min(id) FROM jobs WHERE state = ?1 AND error_type IS NOT NULL AND seq IS NOT NULL"
    " AND error_type IS coalesce(?2, error_type) GROUP BY error_type"
)


@dataclass(frozen=True, slots=True)
class BatchRow:
    """What the state file says of itself."""

    name: str
    target: str
    manifest: str
    created_at: float
    runner: str


@dataclass(frozen=True, slots=True)
class ExportRow:
    """One job with its input, its result and its files."""

    seq: int | None
    name: str
    key: str
    endpoint: str
    origin: str
    state: State
    input_json: bytes
    """With the names of files in place of their markers."""
    request_id: str | None
    error_type: str | None
    error: str | None
    inference_s: float | None
    billable_units: float | None
    result: bytes | None
    files: tuple[StoredFile, ...]
    flags: tuple[str, ...] = ()
    """What was noticed about its result, whatever followed."""
    lineage: tuple[Ancestor, ...] = ()
    """Its requests, where an earlier one had a flagged result that was not taken."""


def batch_row(connection: sqlite3.Connection) -> BatchRow | None:
    """The one row of `batch`, None in a file that no run has claimed yet."""
    row = connection.execute("SELECT name, target, manifest, created_at, runner FROM batch").fetchone()
    return None if row is None else BatchRow(*row)


def paid_jobs(connection: sqlite3.Connection) -> list[OpenJob]:
    """Jobs whose request or result is at hand: those of the whole batch, in the manifest or not."""
    rows = connection.execute(
        f"{_OPEN_JOB} WHERE j.state IN ('submitted', 'completed') AND j.state <> 'done' ORDER BY j.state DESC, j.id"
    )
    return [_open_job(row) for row in rows]


def planned_endpoints(connection: sqlite3.Connection) -> list[str]:
    """The endpoints of planned jobs: one step in the index for each, whatever the number of jobs."""
    rows = connection.execute(
        "WITH RECURSIVE named (endpoint) AS ("
        " SELECT min(endpoint) FROM jobs WHERE state = 'planned' UNION ALL"
        " SELECT (SELECT min(endpoint) FROM jobs WHERE state = 'planned' AND endpoint > named.endpoint)"
        " FROM named WHERE endpoint IS NOT NULL) SELECT endpoint FROM named WHERE endpoint IS NOT NULL"
    )
    return [endpoint for (endpoint,) in rows]


def planned_of(connection: sqlite3.Connection, endpoint: str, seq: int, limit: int) -> list[OpenJob]:
    """The next jobs to submit to an endpoint, in the manifest's order. In a partial run only the selected ones.

    Partial runs count their own part, so jobs may share a place: those at the last place all come, beyond `limit`.
    """
    of = f"{_PLANNED} AND j.endpoint = ?"
    rows = connection.execute(f"{of} AND j.seq > ? ORDER BY j.seq LIMIT ?", (endpoint, seq, limit))
    jobs = [_open_job(row) for row in rows]
    if len(jobs) < limit:
        return jobs
    last = jobs[-1].seq
    at_last = connection.execute(f"{of} AND j.seq = ? ORDER BY j.id", (endpoint, last))
    return [job for job in jobs if job.seq != last] + [_open_job(row) for row in at_last]


def is_selected(connection: sqlite3.Connection, job_id: int) -> bool:
    """False for a job outside of the part that the run is about."""
    return bool(connection.execute(f"SELECT {_SELECTED.format('?')}", (job_id,)).fetchone()[0])


def at_fal(connection: sqlite3.Connection) -> list[OpenJob]:
    """Jobs with a request that fal has not been seen to finish."""
    rows = connection.execute(f"{_OPEN_JOB} WHERE j.state = 'submitted' AND j.state <> 'done' ORDER BY j.id")
    return [_open_job(row) for row in rows]


def _open_job(row: Any) -> OpenJob:
    job_id, key, seq, name, endpoint, mode, given, state, attempts, failures, reserved, roll, *rest = row
    unjudged, request_id, *request = rest
    return OpenJob(
        job_id=job_id,
        key=JobKey(key),
        seq=seq,
        name=name,
        endpoint=endpoint,
        mode=Mode(mode),
        input_json=given,
        state=State(state),
        attempts=attempts,
        failures=failures,
        reserved=reserved,
        roll=roll,
        is_unjudged=bool(unjudged),
        request=None if request_id is None else RequestOnRecord(request_id, endpoint, *request),
    )


def result_of(connection: sqlite3.Connection, job_id: int) -> StoredResult | None:
    """The stored result of a job."""
    row = connection.execute("SELECT body, content_type, events FROM results WHERE job_id = ?", (job_id,)).fetchone()
    return None if row is None else StoredResult(*row)


def files_of(connection: sqlite3.Connection, job_id: int) -> list[StoredFile]:
    """The artifacts on record for a job, in their places."""
    rows = connection.execute(
        "SELECT place, path, size_bytes, sha256, content_type, stored, black FROM artifacts WHERE job_id = ?"
        " ORDER BY place",
        (job_id,),
    )
    return [
        StoredFile(place, path, size, sha256, content_type, stored, bool(black))
        for place, path, size, sha256, content_type, stored, black in rows
    ]


def path_owner(connection: sqlite3.Connection, path: str) -> int | None:
    """The job that has this path on record, on a disk that may not tell upper from lower case."""
    row = connection.execute(
        "SELECT job_id FROM artifacts WHERE coalesce(path_fold, path) = ?", (path.casefold(),)
    ).fetchone()
    return None if row is None else int(row[0])


def job(connection: sqlite3.Connection, job_id: int) -> OpenJob:
    """One job as it stands now."""
    return _open_job(connection.execute(f"{_OPEN_JOB} WHERE j.id = ?", (job_id,)).fetchone())


def attempt(connection: sqlite3.Connection, job_id: int, number: int) -> AttemptOnRecord | None:
    """One submit as it stands now; None when there was none."""
    row = connection.execute(
        "SELECT a.outcome, r.request_id, j.state, a.attempt = j.attempts FROM attempts a JOIN jobs j ON j.id = a.job_id"
        " LEFT JOIN requests r ON r.job_id = a.job_id AND r.attempt = a.attempt WHERE a.job_id = ? AND a.attempt = ?",
        (job_id, number),
    ).fetchone()
    if row is None:
        return None
    outcome, request_id, state, is_latest = row
    return AttemptOnRecord(None if outcome is None else Event(outcome), request_id, State(state), bool(is_latest))


def callback_secret(connection: sqlite3.Connection) -> bytes | None:
    """What makes this batch's callback tokens; None before the first run that needed it."""
    row = connection.execute("SELECT callback_secret FROM batch").fetchone()
    return None if row is None else row[0]


def status(connection: sqlite3.Connection, *, running: bool) -> BatchStatus:
    """How the batch stands, from one consistent moment.

    `running` tells whether a run holds the lock: without one, a submit under way can no longer be answered, and its
    job is unknown.
    """
    connection.execute("BEGIN")
    try:
        return _status(connection, ("unknown",) if running else ("unknown", "submitting"))
    finally:
        connection.execute("COMMIT")


def _status(connection: sqlite3.Connection, unknown_states: tuple[str, ...]) -> BatchStatus:
    batch = batch_row(connection)
    counts: Counter[State] = Counter()
    for state, count in connection.execute(_OPEN_COUNTS):
        counts[State.UNKNOWN if state in unknown_states else State(state)] += count
    (orphaned,) = connection.execute("SELECT count(*) FROM jobs WHERE seq IS NULL").fetchone()
    # No job is ever taken away, so the highest id says how many there are; those that are in no index are done.
    (jobs,) = connection.execute("SELECT coalesce(max(id), 0) FROM jobs").fetchone()
    if done := jobs - orphaned - counts.total():
        counts[State.DONE] = done
    files, size, executions, units = connection.execute("SELECT files, bytes, executions, units FROM totals").fetchone()
    return BatchStatus(
        name=batch.name if batch else "",
        counts=counts,
        orphaned=orphaned,
        files=files,
        bytes=size,
        executions=executions,
        billable_units=round(units, 9),
        failures=_grouped(connection, State.FAILED),
        stuck=_grouped(connection, State.SUBMITTED, State.COMPLETED) + _grouped(connection, State.PLANNED, of=UNSENT),
        unknown=_unknown(connection, unknown_states),
        flagged=flagged.groups(connection),
        money=spending.money(connection),
        mode=mode_of(connection),
    )


def mode_of(connection: sqlite3.Connection) -> Mode:
    """How the manifest's jobs are called: all in one way."""
    row = connection.execute("SELECT mode FROM jobs WHERE seq IS NOT NULL ORDER BY id DESC LIMIT 1").fetchone()
    return Mode.QUEUE if row is None else Mode(row[0])


def _grouped(connection: sqlite3.Connection, *states: State, of: str = "") -> tuple[FailureGroup, ...]:
    """Blamed jobs by reason, counted in an index; the example of each is its first job."""
    counts: Counter[str] = Counter()
    first: dict[str, int] = {}
    for state in states:
        for error_type, count, job_id in connection.execute(_BLAMED, (state, of or None)):
            counts[error_type] += count
            first[error_type] = min(job_id, first.get(error_type, job_id))
    return tuple(
        FailureGroup(
            word,
            count,
            *connection.execute("SELECT coalesce(error, ''), name FROM jobs WHERE id = ?", (first[word],)).fetchone(),
        )
        for word, count in counts.most_common(GROUPS)
    )


def _unknown(connection: sqlite3.Connection, states: tuple[str, ...]) -> tuple[UnknownJob, ...]:
    marks = ",".join("?" * len(states))
    rows = connection.execute(
        f"WITH first AS (SELECT id FROM jobs WHERE state IN ({marks}) AND state <> 'done' AND seq IS NOT NULL"
        " ORDER BY id LIMIT ?)"
        " SELECT j.name, j.input, a.started_at FROM first JOIN jobs j ON j.id = first.id"
        " JOIN attempts a ON a.job_id = j.id AND a.attempt = j.attempts ORDER BY j.id",
        (*states, UNKNOWN_SHOWN),
    )
    return tuple(UnknownJob(name, bytes(input_json).decode(), at) for name, input_json, at in rows)


def ids_taken(connection: sqlite3.Connection) -> list[int]:
    """Row numbers of the manifest's jobs whose results are here and judged, files or not, in its order."""
    rows = connection.execute(
        "SELECT id FROM jobs WHERE state = 'completed' AND state <> 'done' AND unjudged = 0 AND seq IS NOT NULL"
        " ORDER BY seq"
    )
    return [int(row[0]) for row in rows]


def ids_in(connection: sqlite3.Connection, states: tuple[State, ...]) -> list[int]:
    """Row numbers of the manifest's jobs in any of `states`, in its order."""
    marks = ",".join("?" * len(states))
    rows = connection.execute(f"SELECT id FROM jobs WHERE state IN ({marks}) AND seq IS NOT NULL ORDER BY seq", states)
    return [int(row[0]) for row in rows]


_EXPORT: Final = (
    "SELECT j.id, j.seq, j.name, j.key, j.endpoint, j.origin, j.state, j.input, j.request_id, j.error_type,"
    " j.error, r.inference_s, r.billable_units, s.body, r.flagged,"
    " EXISTS (SELECT 1 FROM requests o WHERE o.job_id = j.id AND o.flagged IS NOT NULL"
    " AND o.request_id IS NOT j.request_id) FROM jobs j"
    " LEFT JOIN requests r ON r.request_id = j.request_id LEFT JOIN results s ON s.job_id = j.id"
)


def export_rows(connection: sqlite3.Connection, states: tuple[State, ...]) -> Iterator[ExportRow]:
    """The jobs in `states`, in the manifest's order, those that left it last."""
    marks = ",".join("?" * len(states))
    rows = connection.execute(f"{_EXPORT} WHERE j.state IN ({marks}) ORDER BY j.seq IS NULL, j.seq, j.id", states)
    for job_id, *facts in rows:
        yield _export_row(connection, job_id, facts)


def export_row(connection: sqlite3.Connection, job_id: int) -> ExportRow:
    """One job with its input, its result and its files."""
    row = connection.execute(f"{_EXPORT} WHERE j.id = ?", (job_id,)).fetchone()
    return _export_row(connection, job_id, row[1:])


def _export_row(connection: sqlite3.Connection, job_id: int, facts: Any) -> ExportRow:
    seq, name, key, endpoint, origin, state, input_json, request_id, *rest = facts
    error_type, error, inference_s, units, body, noticed, was_rejected = rest
    files = tuple(file for file in files_of(connection, job_id) if file.stored)
    paths = tuple(file.path for file in files)
    return ExportRow(
        seq=seq,
        name=name,
        key=key.hex(),
        endpoint=endpoint,
        origin=origin,
        state=State(state),
        input_json=uploads.named(connection, input_json),
        request_id=request_id,
        error_type=error_type,
        error=error,
        inference_s=inference_s,
        billable_units=units,
        result=body,
        files=files,
        flags=flagged.noticed(noticed).flags,
        lineage=flagged.lineage(connection, job_id, input_of(input_json), _output(body), paths) if was_rejected else (),
    )


def _output(body: bytes | None) -> Any:
    with suppress(ValueError):
        return None if body is None else parse_json(body)
    return None
