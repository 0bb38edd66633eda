"""The state file is opened when it is ours and whole, brought up to date once, and never touched otherwise."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.store import database, reader
from falbatch.adapters.store.database import APPLICATION_ID, open_reader, open_writer, translated
from falbatch.adapters.store.migrations import MIGRATIONS, SCHEMA_VERSION
from falbatch.core.state import State
from falbatch.errors import DiskFull, ExitCode, OutputError, StateError
from tests.adapters.conftest import item, planned, planned_after

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.adapters.conftest import TinyDisk

    Opener = Callable[[Path], sqlite3.Connection]

BOTH = pytest.mark.parametrize("opener", [open_writer, open_reader])


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A whole state file of some forty pages, all in the main file."""
    path = tmp_path / "falbatch.db"
    with planned(path, (item(seq, f"a rather long prompt, number {seq}") for seq in range(400))):
        pass
    assert path.stat().st_size > 30 * 4096
    assert not path.with_name("falbatch.db-wal").exists()
    return path


def _one(connection: sqlite3.Connection, question: str) -> object:
    return connection.execute(question).fetchone()[0]


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _jobs(path: Path) -> object:
    with closing(sqlite3.connect(path)) as connection:
        return _one(connection, "SELECT count(*) FROM jobs")


def test_a_fresh_file_is_private_ours_versioned_and_in_wal_mode(tmp_path: Path) -> None:
    path = tmp_path / "falbatch.db"
    before = os.umask(0)
    try:
        connection = open_writer(path)
    finally:
        os.umask(before)
    with closing(connection):
        connection.execute("INSERT INTO selection VALUES (1)")
        assert _one(connection, "PRAGMA journal_mode") == "wal"
        assert _one(connection, "PRAGMA application_id") == APPLICATION_ID
        assert _one(connection, "PRAGMA user_version") == SCHEMA_VERSION
        assert _one(connection, "PRAGMA synchronous") == 2  # FULL
        assert _mode(path) == 0o600
        assert _mode(path.with_name("falbatch.db-wal")) == 0o600


@BOTH
def test_opening_again_finds_what_is_there(state: Path, opener: Opener) -> None:
    with closing(opener(state)) as connection:
        assert _one(connection, "SELECT count(*) FROM jobs") == 400
        assert reader.batch_row(connection) is not None


@BOTH
def test_a_file_of_a_newer_falbatch_is_refused_and_stays_as_it_is(state: Path, opener: Opener) -> None:
    with closing(sqlite3.connect(state)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = state.read_bytes()
    with pytest.raises(StateError, match=f"newer falbatch \\(format {SCHEMA_VERSION + 1}") as caught:
        opener(state)
    assert caught.value.exit_code is ExitCode.STATE
    assert "Upgrade falbatch" in caught.value.advice
    assert state.read_bytes() == before


def _not_sqlite(path: Path) -> None:
    path.write_bytes(b"name: portraits\nendpoint: fal-ai/flux/dev\n" * 100)


def _half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _one_page(path: Path) -> None:
    os.truncate(path, 4096)


def _less_than_a_page(path: Path) -> None:
    os.truncate(path, 700)


def _garbled(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 4096 // 2 * 4096)
        file.write(random.Random(7).randbytes(4096))


def _garbled_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 1000)


@BOTH
@pytest.mark.parametrize("damage", [_not_sqlite, _half, _one_page, _less_than_a_page, _garbled, _garbled_header])
def test_damage_is_found_at_open_and_said_with_advice(
    state: Path, damage: Callable[[Path], None], opener: Opener
) -> None:
    damage(state)
    before = state.read_bytes()
    with pytest.raises(StateError, match=r"falbatch\.db: the state file is damaged \(") as caught:
        opener(state)
    assert caught.value.exit_code is ExitCode.STATE
    assert "puts it together again" in caught.value.advice
    assert state.read_bytes() == before


@BOTH
def test_a_database_of_another_program_is_refused_and_stays_as_it_is(tmp_path: Path, opener: Opener) -> None:
    path = tmp_path / "falbatch.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE photos (id INTEGER)")
    before = path.read_bytes()
    with pytest.raises(StateError, match="not a falbatch state file") as caught:
        opener(path)
    assert "another output folder" in caught.value.advice
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["falbatch.db"]


@pytest.mark.parametrize("name", ["falbatch.db", "no/such/falbatch.db", ""])
def test_a_reader_needs_a_state_file_and_makes_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(StateError, match="there is no state file") as caught:
        open_reader(tmp_path / name)
    assert caught.value.advice
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "falbatch.db").mkdir()
    for path in (tmp_path / "file" / "falbatch.db", tmp_path / "no" / "falbatch.db", tmp_path / "falbatch.db"):
        with pytest.raises(OutputError) as caught:
            open_writer(path)
        assert str(path) in str(caught.value)
        assert caught.value.advice


@pytest.mark.parametrize("stage", ["touched", "wal set", "marked ours"])
def test_a_file_whose_making_was_cut_short_is_made_anew(tmp_path: Path, stage: str) -> None:
    path = tmp_path / "falbatch.db"
    path.touch()
    if stage != "touched":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            if stage == "marked ours":
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    with closing(open_reader(path)) as connection:
        assert reader.batch_row(connection) is None
        assert reader.status(connection, running=False).total == 0
    with closing(open_writer(path)) as connection:
        assert _one(connection, "PRAGMA user_version") == SCHEMA_VERSION
        assert _one(connection, "PRAGMA application_id") == APPLICATION_ID


@pytest.mark.parametrize("kib", [4, 8, 20, 36, 44, 60])
def test_a_disk_that_fills_up_while_the_file_is_made_is_said_and_can_be_mended(tiny_disk: TinyDisk, kib: int) -> None:
    tiny_disk.resize(kib)
    path = tiny_disk.path / "falbatch.db"
    with pytest.raises(DiskFull) as caught:
        open_writer(path).close()
    assert caught.value.exit_code is ExitCode.DISK_FULL
    tiny_disk.resize(2048)
    with closing(open_writer(path)) as connection:
        assert _one(connection, "PRAGMA user_version") == SCHEMA_VERSION


def test_no_room_for_the_shared_memory_file_is_a_full_disk_and_no_damage(tiny_disk: TinyDisk) -> None:
    tiny_disk.resize(512)  # the file, its -wal and that one all fit while it is made
    path = tiny_disk.path / "falbatch.db"
    open_writer(path).close()
    filler = tiny_disk.path / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
    with pytest.raises(DiskFull):
        open_writer(path)
    filler.unlink()
    open_writer(path).close()


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets a test pretend that falbatch has moved on by one migration."""

    def move_on(script: str) -> None:
        monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, script))
        monkeypatch.setattr(database, "SCHEMA_VERSION", SCHEMA_VERSION + 1)

    return move_on


def test_a_file_of_an_older_falbatch_is_brought_up_to_date_and_kept_as_it_was(
    state: Path, next_version: Callable[[str], None]
) -> None:
    next_version("ALTER TABLE jobs ADD COLUMN shoe_size INTEGER DEFAULT 44; CREATE TABLE hats (id INTEGER PRIMARY KEY)")
    with pytest.raises(StateError, match="older than this falbatch") as caught:
        open_reader(state)
    assert "Run the batch" in caught.value.advice

    with closing(open_writer(state)) as connection:
        assert _one(connection, "PRAGMA user_version") == SCHEMA_VERSION + 1
        assert _one(connection, "SELECT sum(shoe_size) FROM jobs") == 400 * 44
        assert _one(connection, "SELECT count(*) FROM hats") == 0
    open_reader(state).close()

    copy = state.with_name(f"falbatch.v{SCHEMA_VERSION}.bak")
    assert _mode(copy) == 0o600
    assert _jobs(copy) == 400
    with closing(sqlite3.connect(copy)) as connection:
        assert _one(connection, "PRAGMA user_version") == SCHEMA_VERSION
        with pytest.raises(sqlite3.OperationalError, match="shoe_size"):
            connection.execute("SELECT shoe_size FROM jobs")


def test_a_migration_that_fails_half_way_changes_nothing(state: Path, next_version: Callable[[str], None]) -> None:
    next_version("ALTER TABLE jobs ADD COLUMN shoe_size INTEGER; INSERT INTO nowhere VALUES (1)")
    with pytest.raises(StateError, match="nowhere"):
        open_writer(state)
    with closing(sqlite3.connect(state)) as connection:
        assert _one(connection, "PRAGMA user_version") == SCHEMA_VERSION
        assert _one(connection, "SELECT count(*) FROM jobs") == 400
        with pytest.raises(sqlite3.OperationalError, match="shoe_size"):
            connection.execute("SELECT shoe_size FROM jobs")


def test_a_new_file_needs_no_backup(tmp_path: Path) -> None:
    open_writer(tmp_path / "falbatch.db").close()
    assert [each.name for each in tmp_path.iterdir()] == ["falbatch.db"]


def test_a_file_that_another_program_locks_is_in_use_not_damaged(state: Path) -> None:
    with closing(open_writer(state)) as mine, closing(sqlite3.connect(state, isolation_level=None)) as other:
        mine.execute("PRAGMA busy_timeout = 0")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateError, match="in use by another program"), translated(state):
            mine.execute("BEGIN IMMEDIATE")


def test_writing_over_a_reading_connection_is_impossible(state: Path) -> None:
    with closing(open_reader(state)) as connection:
        connection.execute("CREATE TEMP TABLE mine (id INTEGER)")
        with pytest.raises(OutputError, match="cannot be written"), translated(state):
            connection.execute("DELETE FROM jobs")
    assert _jobs(state) == 400


def test_a_path_with_marks_of_a_url_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "100%?#&mode=rwc;ä" / "falbatch.db"
    path.parent.mkdir()
    with planned(path, [item(0)]), closing(open_reader(path)) as connection:
        assert reader.status(connection, running=True).count(State.PLANNED) == 1


def test_the_state_of_a_batch_that_never_ran_is_empty() -> None:
    with closing(database.open_empty()) as connection:
        assert reader.status(connection, running=False).total == 0
        assert planned_after(connection, -1, 10) == []
