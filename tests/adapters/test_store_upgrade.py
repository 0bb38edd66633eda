"""A state file of an earlier version is brought up to date once, with all its rows, and the old one is kept."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from falbatch.adapters.store import stage
from falbatch.adapters.store.database import APPLICATION_ID, open_reader, open_writer
from falbatch.adapters.store.migrations import MIGRATIONS, SCHEMA_VERSION
from falbatch.adapters.store.store import Store
from falbatch.core.changes import (
    ResultStored,
)
from falbatch.core.identity import job_key
from falbatch.core.model import Mode
from falbatch.core.money import Purse
from falbatch.core.state import State
from falbatch.errors import StateError
from tests.adapters.conftest import AT, adopt, item, recording

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "falbatch.db"


OLD_ROWS: dict[str, dict[str, Any]] = {
    "batch": {
        "one": 1,
        "name": "demo",
        "target": "sandbox",
        "manifest": "demo.yaml",
        "created_at": AT,
        "runner": '{"pid": 1, "host": "h", "since": 1.0}',
    },
    "jobs": {
        "id": 1,
        "key": job_key("fal-ai/flux/dev", Mode.QUEUE, b'{"prompt":"prompt 0"}', 0),
        "seq": 0,
        "step": "",
        "name": "n1",
        "endpoint": "fal-ai/flux/dev",
        "mode": "queue",
        "input": b'{"prompt":"prompt 0"}',
        "replica": 0,
        "origin": "m.yaml:0",
        "state": "submitted",
        "attempts": 2,
        "failures": 1,
        "request_id": "r-1-2",
        "error_type": "old",
        "error": "old words",
        "http_status": 500,
        "updated_at": AT,
    },
    "attempts": {"job_id": 1, "attempt": 2, "started_at": AT, "ended_at": AT + 1, "outcome": "accepted", "error": "e"},
    "requests": {
        "request_id": "r-1-2",
        "job_id": 1,
        "attempt": 2,
        "status_url": "s",
        "response_url": "u",
        "cancel_url": "c",
        "status": "accepted",
        "queue_position": 3,
        "accepted_at": AT + 1,
        "ended_at": None,
        "http_status": 200,
        "error_type": "t",
        "inference_s": 0.5,
        "billable_units": 2.0,
    },
    "results": {"job_id": 1, "request_id": "r-1-2", "content_type": "application/json", "body": b"{}"},
    "artifacts": {
        "job_id": 1,
        "place": 0,
        "path": "N1.png",
        "path_fold": "n1.png",
        "url": "https://x.test/a.png",
        "size_bytes": 10,
        "sha256": b"\x01" * 32,
        "content_type": "image/png",
        "stored": 1,
    },
    "uploads": {"sha256": b"\x02" * 32, "url": "https://x.test/u", "uploaded_at": AT, "expires_at": AT + 9},
    "events": {"id": 1, "at": AT, "job_id": 1, "event": "accepted", "detail": "r-1-2"},
    "selection": {"job_id": 1},
}
"""A row for each table of version 1."""

GONE = {("results", "request_id"), ("artifacts", "url")}
"""Columns that there are no more: other tables tell it."""


def make_old(path: Path, version: int = 1) -> sqlite3.Connection:
    """A state file of an old version with a row in every table; open, so that its last writes are in the WAL."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.executescript(f"BEGIN; {MIGRATIONS[0]}; PRAGMA user_version = 1; COMMIT;")
    for table, row in OLD_ROWS.items():
        marks = ",".join("?" * len(row))
        connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
    for number in range(1, version):
        connection.executescript(f"BEGIN; {MIGRATIONS[number]}; PRAGMA user_version = {number + 1}; COMMIT;")
    return connection


def rows(connection: sqlite3.Connection) -> dict[str, list[dict[str, Any]]]:
    """What is in the tables, in the columns that version 1 had and there still are."""
    found = {}
    for table, row in EXPECTED.items():
        cursor = connection.execute(f"SELECT {', '.join(row[0])} FROM {table}")
        found[table] = [dict(zip(row[0], values, strict=True)) for values in cursor]
    return found


EXPECTED = {
    table: [{name: value for name, value in row.items() if (table, name) not in GONE}]
    for table, row in OLD_ROWS.items()
}


def test_the_old_rows_are_of_all_tables_that_version_1_had(state: Path) -> None:
    with closing(make_old(state)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        assert {name for (name,) in tables} == set(OLD_ROWS)


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_an_old_file_is_upgraded_with_all_its_rows_and_a_copy_of_the_old(state: Path, version: int) -> None:
    make_old(state, version).close()
    with closing(open_writer(state)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert rows(connection) == EXPECTED
        assert connection.execute("SELECT reserved_nano, named_id FROM attempts").fetchall() == [(0, None)]
        assert connection.execute("SELECT cost_nano FROM requests").fetchall() == [(None,)]
        assert connection.execute("SELECT * FROM prices").fetchall() == []
        assert connection.execute("SELECT roll, marked FROM jobs").fetchall() == [(0, None)]
        assert connection.execute("SELECT seed FROM attempts").fetchall() == [(None,)]
        assert connection.execute("SELECT flagged FROM requests").fetchall() == [(None,)]
        assert connection.execute("SELECT black FROM artifacts").fetchall() == [(0,)]
        totals = connection.execute("SELECT submits, executions, units, unpriced, files, bytes FROM totals")
        assert totals.fetchone() == (1, 1, 2.0, 0, 1, 10)
    copy = state.with_name(f"falbatch.v{version}.bak")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (version,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert rows(connection) == EXPECTED


def test_an_upgraded_file_is_not_upgraded_again(state: Path) -> None:
    make_old(state).close()
    open_writer(state).close()
    copy = state.with_name("falbatch.v1.bak")
    copy.write_bytes(b"mine")
    with closing(open_writer(state)) as connection:
        assert rows(connection) == EXPECTED
    assert copy.read_bytes() == b"mine"


def test_a_file_of_version_1_is_upgraded_with_the_last_writes_of_a_killed_run(state: Path, tmp_path: Path) -> None:
    open_still = make_old(tmp_path / "running.db")
    for name in ("", "-wal"):
        shutil.copy(tmp_path / f"running.db{name}", tmp_path / f"falbatch.db{name}")
    open_still.close()
    with closing(open_writer(state)) as connection:
        assert rows(connection) == EXPECTED
    with closing(sqlite3.connect(state.with_name("falbatch.v1.bak"))) as connection:
        assert rows(connection) == EXPECTED


async def test_a_run_goes_on_with_an_upgraded_file(state: Path) -> None:
    make_old(state).close()
    with Store.open(state) as store:
        (job,) = store.paid_jobs()
        assert (job.job_id, job.reserved, job.request and job.request.request_id) == (1, 0, "r-1-2")
        assert store.purse(5) == Purse(5)
        async with recording(store):
            await store.record(ResultStored(1, "r-1-2", AT, b"[]", "application/json", 2.0, cost=9))
        assert store.purse(5) == Purse(5, spent=9)
        stage.fill(store.connection, [item(0), item(1)])
        adopt(store)
        assert store.status().counts == {State.COMPLETED: 1, State.PLANNED: 1}


def test_a_reader_asks_for_the_upgrade_and_changes_nothing(state: Path) -> None:
    make_old(state).close()
    before = state.read_bytes()
    with pytest.raises(StateError, match="older than this falbatch") as caught:
        open_reader(state)
    assert "Run the batch once" in caught.value.advice
    assert state.read_bytes() == before
