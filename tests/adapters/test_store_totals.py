"""The sums that a status shows are kept as rows come and go; they must be what adding up all rows gives."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from falbatch.adapters.store import spending
from falbatch.adapters.store.apply import Applier
from falbatch.adapters.store.database import open_empty, open_writer
from falbatch.adapters.store.store import Store
from falbatch.adapters.store.whole import COUNTED, TOTALS, UNITS, defect
from falbatch.core.changes import (
    Change,
    FileReady,
    FilesGone,
    FilesStored,
    RequestEnded,
    RequestFound,
    ResultStored,
    SubmitNotAccepted,
    SubmitStarted,
)
from falbatch.core.classify import Failure
from falbatch.core.money import COST_MOST, Price
from falbatch.core.state import Event, IllegalTransition, State
from tests.adapters.conftest import AT, accepted, finished, item, planned, recording, reopen
from tests.adapters.damage import garbled, mended

if TYPE_CHECKING:
    from pathlib import Path

UNITS_MOST = 1e9
"""The most that a reply is believed to have billed (`fal/problems.py`)."""

FAILURE = Failure("http_500", "broken", 500)
JOBS = 3


def by_counting(connection: sqlite3.Connection) -> Counter[State]:
    """The manifest's jobs by state, row by row."""
    rows = connection.execute("SELECT state, count(*) FROM jobs WHERE seq IS NOT NULL GROUP BY state")
    return Counter({State(state): count for state, count in rows})


def assert_true(connection: sqlite3.Connection) -> None:
    assert connection.execute(TOTALS).fetchone() == connection.execute(COUNTED).fetchone()
    kept, counted = connection.execute(UNITS).fetchone()
    assert kept == pytest.approx(counted)


Make = Callable[[int, int, str, float, int | None], Change]

MAKERS: dict[str, Make] = {
    "submit": lambda job, attempt, _r, _a, _c: SubmitStarted(job, attempt, AT, 5),
    "accept": lambda job, attempt, _r, _a, _c: accepted(job, attempt=attempt)[1],
    "refuse": lambda job, attempt, _r, _a, _c: SubmitNotAccepted(job, attempt, AT, Event.REFUSED, FAILURE),
    "lose": lambda job, attempt, _r, _a, _c: SubmitNotAccepted(job, attempt, AT, Event.NO_ANSWER, FAILURE),
    "find": lambda job, attempt, request, _a, _c: RequestFound(job, attempt, AT, request, AT),
    "supersede": lambda job, attempt, request, _a, cost: RequestFound(
        job, attempt, AT, f"old-{request}", AT, None, cost
    ),
    "fail": lambda job, _n, request, amount, cost: RequestEnded(
        job, request, AT, Event.ATTEMPT_FAILED, FAILURE, amount, cost
    ),
    "result": lambda job, _n, request, amount, cost: ResultStored(
        job, request, AT, b"{}", "application/json", amount, 0.5, cost
    ),
    "file": lambda job, _n, _r, amount, _c: FileReady(
        job, int(amount), "", f"{job}-{int(amount)}.png", round(amount * 7), b"\1" * 32, "image/png", AT
    ),
    "done": lambda job, _n, _r, _a, _c: FilesStored(job, AT),
    "gone": lambda job, _n, _r, _a, _c: FilesGone(job, AT, FAILURE),
}
"""What may be said to have happened to a job, whatever its state: of job, attempt, request, an amount and a cost."""


@pytest.mark.parametrize("seed_state", ["planned", "submitted", "completed"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    happened=st.lists(
        st.tuples(
            st.sampled_from(sorted(MAKERS)),
            st.integers(1, JOBS),
            st.integers(1, 3),
            st.sampled_from([0.0, 0.1, 0.3, 1.0, 2.5]),
        ),
        max_size=40,
    ),
    price=st.integers(0, 30),
)
def test_the_totals_are_the_sum_of_all_rows_whatever_happened(
    seed_state: str, happened: list[tuple[str, int, int, float]], price: int
) -> None:
    with closing(open_empty()) as connection:
        connection.executemany(
            "INSERT INTO jobs (key, seq, name, endpoint, mode, input, replica, origin, state, updated_at)"
            " VALUES (?, ?, 'n', 'e', 'queue', x'7b7d', 0, 'o', ?, 1.0)",
            [(bytes([number]), number, seed_state) for number in range(JOBS)],
        )
        applier = Applier(connection)
        for kind, job_id, attempt, amount in happened:
            connection.execute("BEGIN")
            try:
                cost = round(amount * 1000) or None
                applier.apply([MAKERS[kind](job_id, attempt, f"r-{job_id}-{attempt}", amount, cost)])
                connection.execute("COMMIT")
            except (IllegalTransition, sqlite3.IntegrityError):
                connection.execute("ROLLBACK")
                applier.forget()
        spending.price_ended(connection, [("e", Price(price, "image", AT))])
        assert_true(connection)
        connection.execute("DELETE FROM artifacts WHERE place = 1")
        assert_true(connection)


def test_a_status_counts_what_is_there_through_runs_orphans_and_mending(
    tmp_path: Path, lives: dict[str, Path], place: Callable[[Path], Path]
) -> None:
    async def live() -> None:
        with planned(tmp_path / "falbatch.db", map(item, range(8))) as store:
            async with recording(store):
                for job_id in (1, 2, 3):
                    await store.record(*accepted(job_id), *finished(job_id))
                await store.record(*accepted(4), RequestEnded(4, "r-4-1", AT, Event.REQUEST_FAILED, FAILURE, 0.0, 0))
                await store.record(SubmitStarted(5, 1, AT), SubmitNotAccepted(5, 1, AT, Event.NO_ANSWER, FAILURE))
            reopen(store, 4)
            seen.append((store.status().counts, by_counting(store.connection)))
            assert_true(store.connection)
        # Two jobs leave the manifest, one of them done.
        with planned(tmp_path / "falbatch.db", map(item, range(2, 7))) as store:
            status = store.status()
            seen.append((status.counts, by_counting(store.connection)))
            assert (status.orphaned, status.files, status.bytes, status.executions) == (3, 3, 30, 4)

    seen: list[tuple[object, object]] = []
    anyio.run(live)
    assert [one for one, _ in seen] == [other for _, other in seen]
    state = place(lives["killed"])
    garbled(state)
    mended(state)
    with Store.open(state) as store:
        counted = by_counting(store.connection)
        # Nothing is being submitted any more: those are unknown.
        counted[State.UNKNOWN] += counted.pop(State.SUBMITTING, 0)
        assert store.status().counts == counted
        assert_true(store.connection)


def test_no_job_is_ever_taken_away(tmp_path: Path) -> None:
    """The highest row number counts them."""
    with planned(tmp_path / "falbatch.db", map(item, range(3))) as store:
        with pytest.raises(sqlite3.IntegrityError, match="a job is never forgotten"):
            store.connection.execute("DELETE FROM jobs WHERE id = 2")
        assert store.status().total == 3


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        ("UPDATE totals SET bytes = bytes + 1", "totals that are not the sum"),
        ("DROP TRIGGER jobs_stay; DELETE FROM jobs WHERE id = 7", "a job that is gone"),
        ("DELETE FROM totals", "totals that are not the sum"),
        ("DELETE FROM addresses", "a request whose URLs are gone"),
    ],
)
def test_totals_that_say_something_else_are_damage(
    lives: dict[str, Path], place: Callable[[Path], Path], harm: str, what: str
) -> None:
    with closing(open_writer(place(lives["clean"]))) as connection, closing(open_empty()) as expected:
        assert defect(connection, expected) == ""
        connection.executescript(harm)
        assert what in defect(connection, expected)


def test_the_dearest_bills_of_each_endpoint_are_kept_and_no_more(tmp_path: Path) -> None:
    units = [*range(1, 401), *([7.5] * 300), *range(900, 700, -1), 3]

    async def live() -> None:
        items = [item(number, endpoint=f"fal-ai/{'ab'[number % 2]}") for number in range(2 * len(units))]
        with planned(tmp_path / "falbatch.db", items) as store:
            async with recording(store):
                happened: list[Change] = []
                for job_id in range(1, 2 * len(units) + 1):
                    billed = float(units[(job_id - 1) // 2]) if job_id % 2 else 1.0
                    happened += accepted(job_id)
                    happened.append(ResultStored(job_id, f"r-{job_id}-1", AT, b"{}", "", billed))
                await store.record(*happened)
            told.append([billed for _, billed in store.bills("fal-ai/a")])
            told.append([billed for _, billed in store.bills("fal-ai/b")])

    told: list[list[float]] = []
    anyio.run(live)
    assert told[0] == sorted(map(float, units), reverse=True)[:500]
    assert told[1] == [1.0] * 500


def test_bills_beyond_all_reason_are_no_damage(tmp_path: Path) -> None:
    """What a server makes up must not cost the results that are stored beside it."""
    jobs = 100

    async def live(store: Store) -> None:
        async with recording(store):
            for job_id in range(1, jobs + 1):
                result = ResultStored(job_id, f"r-{job_id}-1", AT, b"{}", "", billable_units=UNITS_MOST, cost=COST_MOST)
                await store.record(*accepted(job_id), result)

    state = tmp_path / "falbatch.db"
    with planned(state, (item(number) for number in range(jobs))) as store:
        anyio.run(live, store)
        assert store.status().billable_units == jobs * UNITS_MOST
    with Store.open(state) as store, closing(open_empty()) as expected:
        assert store.mended == ""
        assert defect(store.connection, expected) == ""
        assert store.connection.execute("SELECT spent_nano FROM totals").fetchone() == (9 * 10**18,)
        assert store.status().counts[State.COMPLETED] == jobs
