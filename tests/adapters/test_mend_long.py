"""A journal of a million jobs is not read whole at each start, and a file of a gigabyte not copied at each end; nothing
is forgotten for that."""

from __future__ import annotations

import itertools
import shutil
from typing import TYPE_CHECKING

import anyio
import pytest

from falbatch.adapters.store import journal, mend
from falbatch.adapters.store.journal import Journal, copy_path, journal_path
from falbatch.adapters.store.store import Store
from falbatch.adapters.store.writer import reserve_path
from falbatch.core.changes import SubmitStarted
from falbatch.errors import StateError
from tests.adapters.conftest import AT, accepted, finished, recording
from tests.adapters.damage import assert_nothing_forgotten, at, garbled, gone, half, mended, rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes the journals of the tests long ones. What it gives names each that was read whole."""
    monkeypatch.setattr(journal, "LONG_BYTES", 500)
    monkeypatch.setattr(journal, "END_BYTES", 400)
    read_whole: list[str] = []
    read = journal.read

    def counted(state: Path) -> Journal | None:
        read_whole.append(state.name)
        return read(state)

    monkeypatch.setattr(journal, "read", counted)
    return read_whole


def _spoil_line(state: Path, number: int) -> None:
    """Garble the line of this number, from 0; negative ones count from the end."""
    lines = journal_path(state).read_bytes().splitlines(keepends=True)
    lines[number] = lines[number].replace(b'"at":1', b'"at":2')
    journal_path(state).write_bytes(b"".join(lines))


def test_the_end_of_a_long_journal_is_enough_where_all_of_it_is_known(
    short: list[str], lives: dict[str, Path], place: Callable[[Path], Path]
) -> None:
    state = place(lives["killed"])
    assert journal.is_long(state)
    assert mended(state) == ""
    assert short == []
    assert_nothing_forgotten(state, "killed")


@pytest.mark.parametrize("wal", ["gone", "there"])
def test_what_a_state_file_lacks_has_all_of_the_journal_read(
    short: list[str], lives: dict[str, Path], place: Callable[[Path], Path], wal: str
) -> None:
    """The file of before the run: with the -wal gone nothing but the journal tells what it did."""
    state = place(lives["killed"])
    shutil.copy(lives["clean"] / "falbatch.db", state)
    at(state, "-wal").unlink()
    if wal == "there":
        at(state, "-wal").touch()
    assert "brought up to date from the journal" in mended(state)
    assert short != []
    assert_nothing_forgotten(state, "killed")


def test_a_bad_line_at_the_end_is_seen_and_one_further_up_when_it_matters(
    short: list[str], lives: dict[str, Path], place: Callable[[Path], Path]
) -> None:
    state = place(lives["killed"])
    _spoil_line(state, -1)
    with pytest.raises(StateError, match="was cut short, and its journal"):
        mended(state)
    state = place(lives["killed"])
    _spoil_line(state, 2)
    assert mended(state) == "", "the file has what comes after it"
    garbled(state)
    with pytest.raises(StateError, match="cannot be read in line 3"):
        mended(state)


@pytest.mark.parametrize("left", [gone, half])
def test_after_a_kill_that_left_no_wal_every_line_is_looked_at(
    short: list[str], lives: dict[str, Path], place: Callable[[Path], Path], left: Callable[[Path], None]
) -> None:
    state = place(lives["killed"])
    left(at(state, "-wal"))
    mended(state)
    assert short != []
    assert_nothing_forgotten(state, "killed")


def test_a_doubt_at_the_end_has_all_looked_at(
    short: list[str], lives: dict[str, Path], place: Callable[[Path], Path]
) -> None:
    state = place(lives["killed"])
    journal.note_doubt(state)
    assert mended(state) == ""
    assert short != []


def test_any_two_damaged_files_cost_nothing_or_the_run_is_refused_with_a_long_journal_too(
    short: list[str], lives: dict[str, Path], place: Callable[[Path], Path]
) -> None:
    for one, two in itertools.combinations(("", "-wal", "copy", "journal"), 2):
        for first, second in itertools.product((gone, half, garbled), repeat=2):
            state = place(lives["killed"])
            first(at(state, one))
            second(at(state, two))
            try:
                mended(state)
            except StateError:
                continue
            assert_nothing_forgotten(state, "killed")


def test_the_copy_of_a_large_file_waits_until_it_is_worth_its_while(
    lives: dict[str, Path], place: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mend, "ALWAYS_COPIED_BYTES", 4096)

    async def live(job_ids: tuple[int, ...]) -> None:
        with Store.open(state) as store:
            async with recording(store):
                for job_id in job_ids:
                    await store.record(*accepted(job_id), *finished(job_id))

    state = place(lives["clean"])
    before = copy_path(state).read_bytes()
    anyio.run(live, (5,))
    assert copy_path(state).read_bytes() == before
    assert journal.tells(state)
    assert mended(state) == "", "copy and journal still fit together"
    garbled(state)
    anyio.run(live, ())
    assert rows(state)[5] == ("submitted", "r-5-1")
    assert_nothing_forgotten(state, "clean")
    assert not journal.tells(state), "what was mended is copied at once"
    assert copy_path(state).read_bytes() != before
    monkeypatch.setattr(mend, "COPY_SHARE", 200)
    anyio.run(live, (6, 7, 8, 9))
    assert not journal.tells(state), "the journal had grown beyond its share"


def test_a_copy_that_was_kept_before_the_end_is_not_made_twice(
    lives: dict[str, Path], place: Callable[[Path], Path]
) -> None:
    state = place(lives["clean"])

    async def live() -> None:
        with Store.open(state) as store:
            assert not store.is_copy_due, "nothing happened"
            async with recording(store):
                await store.record(SubmitStarted(5, 1, AT))
            assert store.is_copy_due
            await anyio.to_thread.run_sync(store.keep_copy)
            made.append(copy_path(state).stat().st_ino)
            assert not store.is_copy_due

    made: list[int] = []
    anyio.run(live)
    assert copy_path(state).stat().st_ino == made[0]
    assert not reserve_path(state).exists()
