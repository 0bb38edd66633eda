"""Mending meets trouble: files that are not ours, locks, full disks, its own death, chance; and it is careful then."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from falbatch.adapters.store import database, journal, reader, stage
from falbatch.adapters.store.database import DamagedState, open_reader, translated
from falbatch.adapters.store.journal import PAGE_BYTES, copy_path, journal_path
from falbatch.adapters.store.mend import open_mended
from falbatch.adapters.store.migrations import SCHEMA_VERSION
from falbatch.adapters.store.store import Store
from falbatch.adapters.store.whole import defect
from falbatch.adapters.store.writer import reserve_path
from falbatch.api.batch import export_object
from falbatch.core.identity import job_key
from falbatch.core.model import Mode
from falbatch.core.state import State
from falbatch.errors import DiskFull, FalbatchError, OutputError, StateError
from falbatch.faultpoints import POINTS, VARIABLE
from tests.adapters.conftest import AT, accepted, adopt, item, planned_after, recording
from tests.adapters.damage import (
    LEFT,
    assert_nothing_forgotten,
    at,
    contents,
    emptied,
    garbled,
    gone,
    mended,
    named,
    rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.adapters.conftest import TinyDisk
    from tests.adapters.damage import Damage


FOREIGN: Final = {
    "another program's": ("CREATE TABLE photos (id INTEGER); PRAGMA user_version = 2", "not a falbatch state file"),
    "a newer falbatch's": (None, "newer falbatch"),
}


@pytest.mark.parametrize("whose", sorted(FOREIGN))
def test_a_file_that_is_not_ours_is_refused_and_not_touched(
    lives: dict[str, Path], place: Callable[[Path], Path], whose: str
) -> None:
    state = place(lives["clean"])
    script, said = FOREIGN[whose]
    if script is not None:
        state.unlink()
    other = sqlite3.connect(state, isolation_level=None)
    other.execute("PRAGMA journal_mode = WAL")
    other.executescript(script or f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    snapshot = state.parent.with_name("theirs")
    shutil.copytree(state.parent, snapshot)
    other.close()
    place_of_theirs = snapshot / "falbatch.db"
    before = contents(place_of_theirs)
    assert len(before["falbatch.db-wal"]) > 0
    with pytest.raises(StateError, match=said) as caught:
        open_mended(place_of_theirs)
    assert "bring back yours" in caught.value.advice
    after = contents(place_of_theirs)
    assert {name: body for name, body in after.items() if name in before and not name.endswith("-shm")} == {
        name: body for name, body in before.items() if not name.endswith("-shm")
    }


def test_the_file_of_another_batch_takes_nothing_from_ours_and_costs_us_nothing(
    lives: dict[str, Path], place: Callable[[Path], Path], tmp_path: Path
) -> None:
    state, other = place(lives["killed"]), tmp_path / "other" / "falbatch.db"
    other.parent.mkdir()
    with Store.open(other) as store:
        stage.fill(store.connection, [item(0)])
        adopt(store, at=AT + 1)
    for ending in ("-wal", "-shm"):
        at(state, ending).unlink()
    shutil.copy(other, state)
    before = contents(state)
    with pytest.raises(StateError, match=r"another batch than falbatch\.db\.copy and falbatch\.journal beside it"):
        open_mended(state)
    after = contents(state)
    assert {name: after[name] for name in before} == before


def test_a_locked_file_is_not_taken_for_a_damaged_one(
    lives: dict[str, Path], place: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = place(lives["clean"])
    monkeypatch.setattr(database, "BUSY_MS", 0)
    with closing(sqlite3.connect(state, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StateError, match="in use by another program"):
            open_mended(state)
    assert not list(state.parent.glob("*set-aside*"))
    assert mended(state) == ""


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SQLITE_IOERR_READ", StateError),
        ("SQLITE_LOCKED", StateError),
        ("SQLITE_READONLY_ROLLBACK", StateError),
        ("SQLITE_CANTOPEN", OutputError),
        ("SQLITE_READONLY_DIRECTORY", OutputError),
        ("SQLITE_FULL", DiskFull),
    ],
)
def test_trouble_of_the_disk_is_no_damage_of_the_file(tmp_path: Path, name: str, kind: type[FalbatchError]) -> None:
    error = sqlite3.OperationalError("trouble")
    error.sqlite_errorname = name
    with pytest.raises(kind) as caught, translated(tmp_path):
        raise error
    assert not isinstance(caught.value, DamagedState)


def test_a_folder_that_cannot_be_written_is_said_and_nothing_is_mended(
    lives: dict[str, Path], place: Callable[[Path], Path]
) -> None:
    state = place(lives["killed"])
    garbled(state)
    (state.parent / "falbatch.db.mending").mkdir()
    before = state.read_bytes()
    with pytest.raises(OutputError):
        open_mended(state)
    assert state.read_bytes() == before
    assert not list(state.parent.glob("*set-aside*"))


def test_a_full_disk_stops_the_mending_before_anything_is_moved(lives: dict[str, Path], tiny_disk: TinyDisk) -> None:
    tiny_disk.resize(2048)
    for each in lives["killed"].iterdir():
        shutil.copy(each, tiny_disk.path)
    state = tiny_disk.path / "falbatch.db"
    garbled(state)
    reserve_path(state).unlink()
    used = sum(each.stat().st_size for each in tiny_disk.path.iterdir()) // 1024
    tiny_disk.resize(used + 60)
    before = state.read_bytes()
    with pytest.raises(DiskFull):
        open_mended(state)
    assert state.read_bytes() == before
    assert not list(tiny_disk.path.glob("*set-aside*"))
    tiny_disk.resize(4096)
    mended(state)
    assert_nothing_forgotten(state, "killed")


DIES: Final = """
import sys
from pathlib import Path
from falbatch.adapters.store.store import Store
with Store.open(Path(sys.argv[1])):
    pass
"""


@pytest.mark.parametrize("point", [one for one in POINTS if one.startswith(("mend.", "copy."))])
@pytest.mark.parametrize("next_damage", [None, garbled, gone])
def test_a_death_while_mending_or_copying_costs_nothing(
    lives: dict[str, Path], place: Callable[[Path], Path], point: str, next_damage: Damage | None
) -> None:
    state = place(lives["killed"])
    garbled(state)
    damaged = state.read_bytes()
    environment = {**os.environ, VARIABLE: point}
    died = subprocess.run([sys.executable, "-c", DIES, str(state)], env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    if next_damage is not None:
        next_damage(state)
    mended(state)
    assert_nothing_forgotten(state, "killed")
    kept = [each.read_bytes() for each in state.parent.glob("falbatch.set-aside-*.db")]
    assert damaged in kept or (point == "mend.built" and next_damage is not None)
    with Store.open(state):
        pass
    assert not list(state.parent.glob("*.part")) + list(state.parent.glob("*.mending*"))


def test_a_large_file_shows_its_damage_where_it_is_read_and_the_next_run_mends_it(
    lives: dict[str, Path], place: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "QUICK_CHECK_BYTES", 0)
    state = place(lives["clean"])
    with closing(sqlite3.connect(state, isolation_level=None)) as connection:
        connection.execute("UPDATE jobs SET name = CAST(x'ff61' AS TEXT) WHERE id = 2")
    with Store.open(state) as store, pytest.raises(DamagedState):
        store.paid_jobs()
    with Store.open(state) as store:
        assert "could not decode" in store.mended.lower()
        assert [job.name for job in store.paid_jobs()] == [rows_name(lives["clean"])]


def rows_name(folder: Path) -> str:
    with closing(open_reader(folder / "falbatch.db")) as connection:
        return str(connection.execute("SELECT name FROM jobs WHERE id = 2").fetchone()[0])


def test_a_damaged_file_never_replaces_the_good_copy(
    lives: dict[str, Path], place: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "QUICK_CHECK_BYTES", 0)
    state = place(lives["clean"])
    with closing(sqlite3.connect(state, isolation_level=None)) as connection:
        connection.execute("UPDATE jobs SET state = 'garbled' WHERE id = 10")
    good = copy_path(state).read_bytes()

    async def run() -> None:
        with Store.open(state) as store:
            async with recording(store):
                await store.record(*accepted(5))

    anyio.run(run)
    assert copy_path(state).read_bytes() == good
    assert "job 10 is garbled" in mended(state) or rows(state)[10][0] == "garbled"
    monkeypatch.undo()
    assert "garbled" in mended(state)
    assert rows(state)[5] == ("submitted", "r-5-1")


def test_an_index_that_disagrees_with_its_table_is_damage(
    lives: dict[str, Path], place: Callable[[Path], Path]
) -> None:
    """Each page is in order, and a job that is at fal would be given out as planned."""
    state = place(lives["clean"])
    hidden = "FROM sqlite_master WHERE name = 'jobs_open'"
    with closing(sqlite3.connect(state, isolation_level=None)) as connection:
        index = connection.execute(f"SELECT * {hidden}").fetchone()
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(f"DELETE {hidden}")
    with closing(sqlite3.connect(state, isolation_level=None)) as connection:
        connection.execute("UPDATE jobs SET state = 'done' WHERE id = 10")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", index)
    assert "jobs_open" in mended(state)
    assert rows(state)[10] == ("planned", None)


def test_an_idle_run_copies_nothing_and_a_healthy_file_is_checked_once(
    lives: dict[str, Path], place: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = place(lives["clean"])
    checks: list[str] = []

    def counted(connection: sqlite3.Connection, expected: sqlite3.Connection, **more: bool) -> str:
        checks.append("whole")
        return defect(connection, expected, **more)

    monkeypatch.setattr("falbatch.adapters.store.database.defect", counted)
    before = copy_path(state).stat()
    with Store.open(state):
        pass
    assert checks == ["whole"]
    after = copy_path(state).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("part", ["", "-wal"])
def test_a_reader_of_what_is_left_of_a_file_says_so_and_removes_nothing(
    lives: dict[str, Path], place: Callable[[Path], Path], part: str
) -> None:
    """SQLite deletes a -wal, and all that was committed in it, as soon as anybody opens an empty main file."""
    state = place(lives["killed"])
    emptied(state)
    if part:
        copy_path(state).unlink()
        journal_path(state).unlink()
    before = contents(state)
    for opener in (open_reader, open_mended) if part else (open_reader,):
        with pytest.raises(DamagedState, match="empty"):
            opener(state)
    assert contents(state) == before


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arena")


HURTS: Final = st.lists(
    st.tuples(
        st.sampled_from(["", "", "", "-wal", "-wal", "copy", "journal"]),
        st.sampled_from(["cut", "flip", "flip", "zero"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 7),
    ),
    min_size=1,
    max_size=4,
)


def _hurt(path: Path, how: str, where: float, bit: int) -> None:
    body = bytearray(path.read_bytes()) if path.exists() else bytearray()
    if not body:
        return
    offset = int(where * len(body))
    if how == "cut":
        del body[offset:]
    elif how == "flip":
        body[offset] ^= 1 << bit
    else:
        body[offset : offset + 64] = bytes(len(body[offset : offset + 64]))
    path.write_bytes(body)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(life=st.sampled_from(["clean", "killed"]), hurts=HURTS)
def test_random_damage_is_mended_or_refused_and_never_forgotten(
    lives: dict[str, Path], arena: Path, life: str, hurts: list[tuple[str, str, float, int]]
) -> None:
    shutil.rmtree(arena)
    state = shutil.copytree(lives[life], arena) / "falbatch.db"
    for part, how, where, bit in hurts:
        _hurt(at(state, part), how, where, bit)
    _look(state)
    if _is_past_knowing(state, lives[life]):
        return
    try:
        with Store.open(state) as store:
            jobs = {job.job_id: job for job in planned_after(store.reading, -1, 100)}
            said = store.mended
            store.paid_jobs()
            store.status()
            store.lost_submits()
    except StateError:
        assert named(state, "set-aside") == []
        return
    assert {int(job.input_json.split(b"prompt ")[1].split(b'"')[0]) + 1 for job in jobs.values()} & LEFT[life] == set()
    assert_nothing_forgotten(state, life)
    assert said or named(state, "set-aside") == []


def _is_past_knowing(state: Path, before: Path) -> bool:
    """A journal that was cut between two lines looks like a shorter one."""
    now, was = journal_path(state).read_bytes(), journal_path(before / "falbatch.db").read_bytes()
    return now != was and was.startswith(now) and now.endswith(b"\n")


def test_mending_a_file_of_many_jobs_takes_a_moment(lives: dict[str, Path], place: Callable[[Path], Path]) -> None:
    state = place(lives["clean"])
    line: dict[str, Any] = {"attempt": 1, "at": AT, "event": "started", "reserved": 0, "endpoint": "e/f"}
    line |= {"mode": "queue", "replica": 0, "name": "n", "origin": "o", "batch": ["demo", "sandbox", AT]}
    inputs = [b'{"n":%d}' % number for number in range(5_000)]
    keys = [job_key("e/f", Mode.QUEUE, given, 0).hex() for given in inputs]
    journal.append(
        state, [journal.sealed({"key": key, **line}, given) for key, given in zip(keys, inputs, strict=True)]
    )
    began = time.monotonic()
    assert "5000 jobs were brought up to date" in mended(state)
    assert time.monotonic() - began < 5


def _look(state: Path) -> None:
    """What the commands that only look would read: told with our own errors, if it cannot be."""
    with suppress(StateError), translated(state), closing(open_reader(state)) as connection:
        reader.status(connection, running=False)
        for row in reader.export_rows(connection, tuple(State)):
            export_object(row)


def test_a_last_line_that_a_kill_cut_at_a_page_is_no_damage(
    lives: dict[str, Path], place: Callable[[Path], Path]
) -> None:
    state = place(lives["killed"])
    path = journal_path(state)
    whole = path.read_bytes()
    torn = b'0123abcd {"key": "' + b"x" * 8192
    path.write_bytes(whole + torn[: PAGE_BYTES - len(whole) % PAGE_BYTES])
    assert mended(state) == ""
    assert_nothing_forgotten(state, "killed")
    path.write_bytes(whole + torn[: PAGE_BYTES - len(whole) % PAGE_BYTES + 1])
    with pytest.raises(StateError, match="cannot be read in line"):
        mended(place(state.parent))
