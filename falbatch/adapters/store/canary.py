"""A batch's canary in the state file: which jobs it tries, what became of them, and what is left beside them.

The choice is made in the transaction that takes in the plan, and kept until a run without --canary begins. So the same
command goes on with the same jobs, whenever it was killed.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

from falbatch.adapters.store import flagged, reader, stage
from falbatch.core.canary import Draws, Tried, Wish, choose
from falbatch.core.model import Mode
from falbatch.core.projection import Span, Stratum
from falbatch.core.state import State
from falbatch.core.trial import TriedJob

if TYPE_CHECKING:
    import sqlite3

    from falbatch.adapters.store.jobs import ManifestJobs

_VARIANT: Final = "number / :repeat % :variants * :groups / :variants"
"""The stratum of a job within its endpoint, by its place in the manifest (`core/expand.py`): for each row all
combinations, of each all replicas."""

_OF_WHOLE: Final = "SELECT id AS job_id, endpoint, seq AS number FROM jobs WHERE seq IS NOT NULL"
_OF_PART: Final = "SELECT j.id AS job_id, j.endpoint, s.number FROM temp.stage s JOIN jobs j ON j.key = s.key"
"""The manifest's jobs with their places in all of it. In a run over a part `jobs.seq` counts the part."""

NO_JOB: Final = 0
"""Stands in a selection of nothing, which would otherwise mean everything."""


def tried(connection: sqlite3.Connection, jobs: ManifestJobs) -> Tried:
    """What the canary on record has come to, as far as the manifest still makes its `jobs`. Before they are adopted."""
    is_made = "EXISTS (SELECT 1 FROM temp.stage s WHERE s.key = j.key)" if jobs is stage else "j.seq IS NOT NULL"
    rows = connection.execute(
        f"SELECT j.state, count(*) FROM canary c JOIN jobs j ON j.id = c.job_id WHERE {is_made} GROUP BY 1"
    )
    counts: Counter[State] = Counter({State(state): count for state, count in rows})
    paid = counts[State.SUBMITTED] + counts[State.COMPLETED]
    lost = counts[State.UNKNOWN] + counts[State.SUBMITTING]
    ended = counts[State.FAILED] + counts[State.CANCELLED] + lost
    return Tried(done=counts[State.DONE], paid=paid, ended=ended, lost=lost, open=counts[State.PLANNED])


def keep(connection: sqlite3.Connection, wish: Wish, *, whole: bool) -> None:
    """Have the canary on record try as many jobs as wished, and select them for this run. Jobs that were submitted stay
    in it; others come and go. After `adopt`, in its transaction."""
    made = "SELECT id FROM jobs WHERE seq IS NOT NULL" if whole else "SELECT job_id FROM selection"
    connection.execute(f"DELETE FROM canary WHERE job_id NOT IN ({made})")
    ((count,),) = connection.execute("SELECT count(*) FROM canary")
    if count > wish.jobs:
        connection.execute(
            "DELETE FROM canary WHERE job_id IN (SELECT c.job_id FROM canary c JOIN jobs j ON j.id = c.job_id"
            " WHERE j.state = 'planned' ORDER BY j.seq DESC LIMIT ?)",
            (count - wish.jobs,),
        )
    elif count < wish.jobs:
        _add(connection, wish, wish.jobs - count, whole=whole)
    connection.execute("DELETE FROM selection")
    connection.execute("INSERT INTO selection SELECT job_id FROM canary")
    connection.execute("INSERT INTO selection VALUES (?)", (NO_JOB,))


def end(connection: sqlite3.Connection) -> None:
    """The batch goes on as a whole: no job is one of a canary any more. In a transaction."""
    connection.execute("DELETE FROM canary")


def _add(connection: sqlite3.Connection, wish: Wish, count: int, *, whole: bool) -> None:
    """Choose `count` more of the open jobs. Eight bytes each are held of all of them for it."""
    strata: dict[tuple[str, int], array[int]] = defaultdict(lambda: array("q"))
    for endpoint, variant, job_id in connection.execute(
        f"SELECT endpoint, {_VARIANT}, job_id FROM ({_open_jobs(whole=whole)}) ORDER BY endpoint, number", _facts(wish)
    ):
        strata[endpoint, variant].append(job_id)
    had = Counter((one.endpoint, one.variant) for one in _strata(connection, wish, whole=whole).values())
    ordered = sorted(strata)
    chosen = choose([strata[one] for one in ordered], [had[one] for one in ordered], count, Draws(wish.seed))
    connection.executemany("INSERT INTO canary VALUES (?)", ((job_id,) for job_id in chosen))


def _open_jobs(*, whole: bool) -> str:
    """Those that are still to be submitted, and are not in the canary."""
    if whole:
        return f"{_OF_WHOLE} AND state = 'planned' AND id NOT IN (SELECT job_id FROM canary)"
    return f"{_OF_PART} WHERE j.state = 'planned' AND j.id NOT IN (SELECT job_id FROM canary)"


def _facts(wish: Wish) -> dict[str, int]:
    return {"repeat": wish.repeat, "variants": wish.variants, "groups": wish.groups}


def _strata(connection: sqlite3.Connection, wish: Wish, *, whole: bool) -> dict[int, Stratum]:
    """The strata of the canary's jobs, by row number, in the manifest's order."""
    of = f"{_OF_WHOLE} AND id" if whole else f"{_OF_PART} WHERE j.id"
    rows = connection.execute(
        f"SELECT job_id, endpoint, {_VARIANT} FROM ({of} IN (SELECT job_id FROM canary)) ORDER BY number", _facts(wish)
    )
    return {job_id: Stratum(endpoint, variant) for job_id, endpoint, variant in rows}


def left(connection: sqlite3.Connection, wish: Wish, *, whole: bool) -> dict[Stratum, int]:
    """How many of the manifest's jobs are still to be submitted, those of the canary included, by stratum."""
    of = f"{_OF_WHOLE} AND state = 'planned'" if whole else f"{_OF_PART} WHERE j.state = 'planned'"
    rows = connection.execute(
        f"SELECT endpoint, {_VARIANT} AS variant, count(*) FROM ({of}) GROUP BY endpoint, variant", _facts(wish)
    )
    return {Stratum(endpoint, variant): count for endpoint, variant, count in rows}


_IS_TOLD: Final = "cost_nano IS NOT NULL AND (billable_units IS NOT NULL OR cost_nano = 0)"
"""Of a request: fal named what it bills, or it was a failure of fal's own, which is free (`core/money.py`)."""

_TRIED: Final = (
    "SELECT j.name, j.origin, j.mode, j.state, j.input, j.error_type, j.error, r.ended_at, r.inference_s, a.started_at,"
    " r.flagged, j.marked, a.seed,"
    f" (SELECT count(*) FROM requests o WHERE o.job_id = j.id AND NOT ({_IS_TOLD})),"
    " (SELECT coalesce(sum(o.cost_nano), 0) FROM requests o WHERE o.job_id = j.id),"
    " (SELECT sum(o.billable_units) FROM requests o WHERE o.job_id = j.id)"
    " FROM jobs j LEFT JOIN requests r ON r.request_id = j.request_id"
    " LEFT JOIN attempts a ON a.job_id = r.job_id AND a.attempt = r.attempt WHERE j.id = ?"
)


def jobs(connection: sqlite3.Connection, wish: Wish, *, whole: bool) -> list[TriedJob]:
    """The canary's jobs as they stand now, in the manifest's order."""
    begun = [at for (at,) in connection.execute("SELECT at FROM events WHERE event = 'run_started' ORDER BY at")]
    found = []
    for job_id, stratum in _strata(connection, wish, whole=whole).items():
        row = connection.execute(_TRIED, (job_id,)).fetchone()
        files = tuple(file for file in reader.files_of(connection, job_id) if file.stored)
        found.append(_tried_job(job_id, stratum, row, begun, files))
    return found


def _tried_job(job_id: int, stratum: Stratum, row: Any, begun: list[float], files: Any) -> TriedJob:
    name, origin, mode, word, given, error_type, error, ended_at, inference_s, started_at, *more = row
    seen, marked, sent_seed, untold, cost, units = more
    state = State(word)
    span, run = None, 0
    if ended_at is not None and started_at is not None:
        run = bisect_right(begun, started_at)
        # A direct call never waits at fal: it works from its first moment on.
        span = Span(started_at, ended_at, ended_at - started_at if Mode(mode).is_direct else inference_s)
    is_known = untold == 0 and state is not State.UNKNOWN
    return TriedJob(
        job_id=job_id,
        name=name,
        origin=origin,
        stratum=stratum,
        state=state,
        input_json=bytes(given),
        error_type=error_type,
        error=error,
        cost=cost if is_known else None,
        is_billed=state not in {State.PLANNED, State.SUBMITTING, State.SUBMITTED},
        units=units,
        span=span,
        run=run,
        is_torn=span is not None and run != bisect_right(begun, span.ended_at),
        files=files,
        flags=flagged.noticed(seen).flags,
        sent_seed=sent_seed,
        is_marked=marked is not None,
    )
