"""State files with a past, and what may be done to them by hand."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

import anyio

from falbatch.adapters.store import journal, stage
from falbatch.adapters.store.journal import copy_path, journal_path
from falbatch.adapters.store.mend import open_mended
from falbatch.adapters.store.store import Store
from falbatch.core.changes import RequestFound, SubmitNotAccepted, SubmitStarted
from falbatch.core.classify import Failure
from falbatch.core.state import Event
from tests.adapters.conftest import AT, accepted, adopt, finished, item, planned, recording

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Damage = Callable[[Path], None]


JOBS: Final = 10


FAILURE: Final = Failure("rejected", "no such size", 422)


LEFT: Final = {"clean": {1, 2, 3, 4}, "killed": {1, 2, 3, 4, 5, 6, 8, 9}}
"""Jobs of which a submit left, by how the last run ended: none of them may be submitted again by itself."""


REQUESTS: Final = {"clean": {"r-1-1", "r-2-1"}, "killed": {"r-1-1", "r-2-1", "found", "r-5-1", "r-9-1"}}
"""What was paid for and is known."""


async def _first_run(folder: Path) -> None:
    with planned(folder / "falbatch.db", map(item, range(JOBS))) as store:
        async with recording(store):
            await store.record(*accepted(1), *finished(1))
            await store.record(*accepted(2))
            await store.record(
                SubmitStarted(3, 1, AT, 7), SubmitNotAccepted(3, 1, AT, Event.NO_ANSWER, FAILURE, "named")
            )
            await store.record(SubmitStarted(4, 1, AT), SubmitNotAccepted(4, 1, AT, Event.REJECTED, FAILURE))


async def _killed_run(folder: Path, at_death: Path) -> None:
    """A run of which `at_death` has what kill -9 leaves."""
    with Store.open(folder / "falbatch.db") as store:
        stage.fill(store.connection, map(item, range(JOBS)))
        adopt(store, at=AT + 50)
        async with recording(store):
            await store.record(*accepted(5))
            await store.record(SubmitStarted(6, 1, AT))
            await store.record(SubmitStarted(7, 1, AT), SubmitNotAccepted(7, 1, AT, Event.REFUSED, FAILURE))
            await store.record(SubmitStarted(8, 1, AT), SubmitNotAccepted(8, 1, AT, Event.REJECTED, FAILURE))
            store.connection.execute("PRAGMA wal_checkpoint")  # what comes now is in the -wal alone
            await store.record(RequestFound(3, 1, AT + 60, "found", AT))
            await store.record(*accepted(9), *finished(9))
        shutil.copytree(folder, at_death)


def live_through(base: Path) -> dict[str, Path]:
    """Folders as runs left them: `clean` after a clean end, `killed` in the middle of the run after that."""
    (base / "work").mkdir()
    anyio.run(_first_run, base / "work")
    shutil.copytree(base / "work", base / "clean")
    anyio.run(_killed_run, base / "work", base / "killed")
    assert (base / "killed" / "falbatch.db-wal").stat().st_size > 4096
    assert journal.tells(base / "killed" / "falbatch.db")
    assert not journal.tells(base / "clean" / "falbatch.db")
    return {"clean": base / "clean", "killed": base / "killed"}


def rows(state: Path) -> dict[int, tuple[str, str | None]]:
    """Each job's state and request, by the number in its prompt, from 1 on."""
    with closing(sqlite3.connect(state)) as connection:
        found = connection.execute("SELECT input, state, request_id FROM jobs").fetchall()
    return {int(given.split(b"prompt ")[1].split(b'"')[0]) + 1: (was, request) for given, was, request in found}


def requests(state: Path) -> set[str]:
    with closing(sqlite3.connect(state)) as connection:
        return {row[0] for row in connection.execute("SELECT request_id FROM requests")}


def mended(state: Path) -> str:
    """Open the file as a run does; what was said."""
    connection, said = open_mended(state)
    connection.close()
    return said


def assert_nothing_forgotten(state: Path, life: str) -> None:
    """No job that left is `planned`, and no request that is known is lost."""
    found = rows(state)
    assert {job for job in LEFT[life] if found.get(job, ("planned", ""))[0] == "planned"} == set()
    assert REQUESTS[life] <= requests(state)
    assert found[8 if life == "killed" else 4][0] == "failed"


def at(state: Path, ending: str) -> Path:
    return {"copy": copy_path(state), "journal": journal_path(state)}.get(ending, state.with_name(state.name + ending))


def contents(state: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in state.parent.iterdir()}


def named(state: Path, word: str) -> list[str]:
    return [each.name for each in state.parent.iterdir() if word in each.name]


def gone(path: Path) -> None:
    path.unlink(missing_ok=True)


def emptied(path: Path) -> None:
    if path.exists():
        os.truncate(path, 0)


def half(path: Path) -> None:
    if path.exists():
        os.truncate(path, path.stat().st_size // 2)


def garbled(path: Path) -> None:
    if path.exists():
        with path.open("r+b") as file:
            start = min(4096, path.stat().st_size // 3)
            file.seek(start)
            file.write(b"\xa5" * (path.stat().st_size - start - 1))


def not_sqlite(path: Path) -> None:
    if path.exists():
        path.write_bytes(b"name: portraits\n" * 200)


DAMAGES: Final = (gone, emptied, half, garbled, not_sqlite)


PARTS: Final = ("", "-wal", "-shm", "copy", "journal")
