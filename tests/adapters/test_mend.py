"""Whatever is done to the files by hand: nothing that left is submitted again by itself, and no good file is lost."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import anyio
import pytest

from falbatch.adapters.store import journal
from falbatch.adapters.store.journal import copy_path, journal_path
from falbatch.adapters.store.mend import open_mended
from falbatch.adapters.store.store import Store
from falbatch.adapters.store.writer import reserve_path
from falbatch.core.changes import SubmitStarted
from falbatch.errors import ExitCode, StateError
from tests.adapters.conftest import AT, accepted, finished, item, planned, recording
from tests.adapters.damage import (
    DAMAGES,
    JOBS,
    PARTS,
    assert_nothing_forgotten,
    at,
    contents,
    emptied,
    garbled,
    gone,
    half,
    mended,
    rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.adapters.damage import Damage


@pytest.mark.parametrize(
    ("life", "part"), [("clean", part) for part in PARTS] + [("killed", part) for part in PARTS if part != "journal"]
)
@pytest.mark.parametrize("damage", DAMAGES)
def test_one_damaged_file_costs_nothing(
    lives: dict[str, Path], place: Callable[[Path], Path], life: str, part: str, damage: Damage
) -> None:
    state = place(lives[life])
    damage(at(state, part))
    said = mended(state)
    assert_nothing_forgotten(state, life)
    if part == "":
        assert "the copy of 20" in said
    if part == "" and damage is not gone:
        assert "is kept as falbatch.set-aside-" in said
    if part == "copy" and damage is garbled:
        return  # which shows when it is needed, or is replaced at the end of the next run
    # Whatever happens next finds a copy and a journal that fit together.
    garbled(state)
    mended(state)
    assert_nothing_forgotten(state, life)


@pytest.mark.parametrize("life", ["clean", "killed"])
def test_any_two_damaged_files_cost_nothing_or_the_run_is_refused(
    lives: dict[str, Path], place: Callable[[Path], Path], life: str
) -> None:
    refused, changed, codes = set(), set(), set()
    for one, two in itertools.combinations(("", "-wal", "copy", "journal"), 2):
        for first, second in itertools.product((gone, half, garbled), repeat=2):
            state = place(lives[life])
            first(at(state, one))
            second(at(state, two))
            before = contents(state)
            try:
                mended(state)
            except StateError as error:
                refused.add((one, two))
                after = contents(state)
                changed |= {name for name in before if after.get(name) != before[name]}
                codes.add((error.exit_code, bool(error.advice)))
            else:
                assert_nothing_forgotten(state, life)
    # A damaged state file needs its copy and its journal.
    assert {("", "copy"), ("", "journal")} <= refused
    assert codes == {(ExitCode.STATE, True)}
    assert not {name for name in changed if "copy" in name or "journal" in name}


@pytest.mark.parametrize("part", ["copy", "journal"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_refused_run_leaves_a_damaged_file_as_it_is_and_says_how_to_go_on(
    lives: dict[str, Path], place: Callable[[Path], Path], part: str, damage: Damage
) -> None:
    state = place(lives["killed"])
    garbled(state)
    damage(at(state, part))
    before = contents(state)
    for _ in range(2):
        with pytest.raises(StateError, match="not all that was submitted is known") as caught:
            open_mended(state)
        assert "look at your fal dashboard first" in caught.value.advice
        assert f"falbatch.{part.replace('copy', 'db.copy')})" in str(caught.value)
    after = contents(state)
    assert {name: after.get(name) for name in before if not name.endswith("-shm")} == {
        name: body for name, body in before.items() if not name.endswith("-shm")
    }
    assert "set-aside" not in " ".join(after)


def test_the_way_out_of_a_bad_line_is_to_delete_it(lives: dict[str, Path], place: Callable[[Path], Path]) -> None:
    state = place(lives["killed"])
    garbled(state)
    lines = journal_path(state).read_bytes().splitlines(keepends=True)
    journal_path(state).write_bytes(b"".join([*lines[:2], lines[2][:-9] + b"\n", *lines[3:], lines[0][:20]]))
    with pytest.raises(StateError, match=rf"cannot be read in line 3, {len(lines) + 1}") as caught:
        open_mended(state)
    assert "delete those lines of falbatch.journal" in caught.value.advice
    journal_path(state).write_bytes(b"".join([*lines[:2], *lines[3:]]))
    mended(state)
    assert rows(state)[5][0] == "unknown", "its acceptance was the line that is gone"
    assert rows(state)[9][0] == "submitted"


def test_the_way_out_without_a_journal_is_the_copy(lives: dict[str, Path], place: Callable[[Path], Path]) -> None:
    state = place(lives["killed"])
    garbled(state)
    journal_path(state).unlink()
    with pytest.raises(StateError, match=r"its journal \(falbatch.journal\) is gone") as caught:
        open_mended(state)
    assert "put falbatch.db.copy in the place of falbatch.db and remove" in caught.value.advice
    for ending in ("-wal", "-shm"):
        at(state, ending).unlink()
    copy_path(state).replace(state)
    reserve_path(state).unlink()
    assert mended(state) == ""
    assert_nothing_forgotten(state, "clean")


def test_after_a_clean_end_a_bad_journal_does_not_matter(lives: dict[str, Path], place: Callable[[Path], Path]) -> None:
    state = place(lives["clean"])
    journal_path(state).write_bytes(b"garbage\n")
    assert mended(state) == ""
    assert_nothing_forgotten(state, "clean")
    read = journal.read(state)
    assert read is not None
    assert (read.bad_lines, read.base is not None) == ([], True), "a copy was made, and a journal that fits it"


@pytest.mark.parametrize("wal", [gone, half, None])
@pytest.mark.parametrize("damage", [gone, half, emptied])
def test_after_a_kill_a_bad_journal_is_refused(
    lives: dict[str, Path], place: Callable[[Path], Path], wal: Damage | None, damage: Damage
) -> None:
    """What the -wal held last may be in no file at all; that a run was killed is told by the room that it kept."""
    state = place(lives["killed"])
    damage(journal_path(state))
    if wal is not None:
        wal(at(state, "-wal"))
    with pytest.raises(StateError, match=r"was cut short, and its journal|lacks what was written last") as caught:
        open_mended(state)
    assert "Nothing was submitted" in caught.value.advice


def test_a_file_that_lacks_what_a_torn_journal_tells_is_refused_also_where_nothing_tells_of_a_kill(
    lives: dict[str, Path], place: Callable[[Path], Path]
) -> None:
    state = place(lives["killed"])
    reserve_path(state).unlink()  # given up on a full disk
    shutil.copy(lives["clean"] / "falbatch.db", state)
    gone(at(state, "-wal"))
    with journal_path(state).open("ab") as file:
        file.write(b"torn")
    with pytest.raises(StateError, match="lacks what was written last, and its journal"):
        open_mended(state)
    assert rows(state)[5] == ("planned", None), "nothing is changed"


@pytest.mark.parametrize("journals", ["first", "twice"])
def test_lines_of_an_earlier_time_change_nothing(
    lives: dict[str, Path], place: Callable[[Path], Path], journals: str
) -> None:
    state = place(lives["killed"])
    now = journal_path(state).read_bytes()
    first = journal_path(lives["clean"] / "falbatch.db").read_bytes()
    texts = {"first": first, "twice": now + now.split(b"\n", 1)[1]}
    journal_path(state).write_bytes(texts[journals])
    assert mended(state) == ""
    assert_nothing_forgotten(state, "killed")


def test_a_journal_of_an_earlier_copy_is_not_believed(lives: dict[str, Path], place: Callable[[Path], Path]) -> None:
    state = place(lives["killed"])
    early = journal_path(state).read_bytes()
    mended(state)
    with Store.open(state):
        pass  # the copy of now, and a journal that goes on from there
    journal_path(state).write_bytes(early.split(b"\n")[0] + b"\n")
    garbled(state)
    with pytest.raises(StateError, match="is not the one that the journal goes on from"):
        open_mended(state)


def test_an_older_state_file_gives_way_to_its_copy(lives: dict[str, Path], place: Callable[[Path], Path]) -> None:
    state, older = place(lives["killed"]), place(lives["clean"])
    with Store.open(state):
        pass
    shutil.copy(older, state)
    said = mended(state)
    assert "was older than what is known of it; the copy of 20" in said
    assert_nothing_forgotten(state, "killed")
    (aside,) = state.parent.glob("falbatch.set-aside-*.db")
    assert aside.read_bytes() == older.read_bytes()


def test_the_branch_that_was_set_aside_is_older_whatever_it_held(
    lives: dict[str, Path], place: Callable[[Path], Path]
) -> None:
    """Somebody repairs the damaged file and puts it back: by then others were submitted, of which it knows nothing."""
    state, repaired = place(lives["killed"]), place(lives["killed"])
    garbled(state)

    async def submit_one_more() -> None:
        with Store.open(state) as store:
            async with recording(store):
                job = rows(state)[10]
                assert job[0] == "planned"
                await store.record(*accepted(10))

    anyio.run(submit_one_more)
    mended(repaired)
    with closing(sqlite3.connect(repaired)) as connection:
        connection.executescript("INSERT INTO events (at, event) SELECT 1.0, 'x' FROM jobs a, jobs b, jobs c")
    shutil.copy(repaired, state)
    mended(state)
    assert rows(state)[10] == ("submitted", "r-10-1")


def test_without_a_copy_yet_the_journal_alone_brings_all_back(tmp_path: Path) -> None:
    state = tmp_path / "a" / "falbatch.db"
    state.parent.mkdir()

    async def live() -> None:
        with planned(state, map(item, range(JOBS))) as store:
            async with recording(store):
                await store.record(*accepted(1), *finished(1))
                await store.record(SubmitStarted(2, 1, AT))
            for name in ("falbatch.journal", "falbatch.reserve"):
                shutil.copy(state.with_name(name), tmp_path / name)

    anyio.run(live)
    said = mended(tmp_path / "falbatch.db")
    assert "was gone; it was made anew; 2 jobs were brought up to date from the journal" in said
    assert rows(tmp_path / "falbatch.db") == {1: ("submitted", "r-1-1"), 2: ("unknown", None)}
    with Store.open(tmp_path / "falbatch.db") as store:
        store.check(name="demo", target="sandbox")
        with pytest.raises(StateError, match="belongs to the batch"):
            store.check(name="other", target="sandbox")
        with pytest.raises(StateError, match="this run would go to fal"):
            store.check(name="demo", target="fal")


def test_a_bad_copy_is_not_needed_while_the_journal_goes_back_to_the_beginning(tmp_path: Path) -> None:
    """The first copy had just got its name when the run was killed: the journal still knows it all."""
    state = tmp_path / "falbatch.db"

    async def live() -> None:
        with planned(state, map(item, range(JOBS))) as store:
            async with recording(store):
                await store.record(*accepted(1))
            kept = journal_path(state).read_bytes()
        read = journal.read(state)
        assert read is not None
        assert read.base is not None
        journal_path(state).write_bytes(kept)
        journal.note_copy(state, read.base)

    anyio.run(live)
    garbled(state)
    with closing(sqlite3.connect(copy_path(state), isolation_level=None)) as connection:
        connection.execute("UPDATE jobs SET state = 'p\u00e5anned' WHERE id = 2")
    assert "it was made anew" in mended(state)
    assert rows(state) == {1: ("submitted", "r-1-1")}


def test_a_file_with_a_past_but_without_a_journal_gets_a_copy_before_anything_is_submitted(
    lives: dict[str, Path], place: Callable[[Path], Path]
) -> None:
    state = place(lives["clean"])
    copy_path(state).unlink()
    journal_path(state).unlink()
    assert mended(state) == ""
    garbled(state)
    assert "the copy of 20" in mended(state)
    assert_nothing_forgotten(state, "clean")


def test_what_was_found_for_a_submit_of_an_earlier_run_is_followed(
    lives: dict[str, Path], place: Callable[[Path], Path]
) -> None:
    state = place(lives["killed"])
    gone(state)
    mended(state)
    assert rows(state)[3] == ("submitted", "found")
    with closing(sqlite3.connect(state)) as connection:
        attempt = connection.execute("SELECT outcome, reserved_nano, named_id FROM attempts WHERE job_id = 3")
        assert attempt.fetchall() == [("found", 7, "named")]
        failed = connection.execute("SELECT error_type, error, http_status FROM jobs WHERE id = 8").fetchone()
    assert failed == ("rejected", "no such size", 422)


def test_of_several_submits_of_a_job_the_latest_counts_and_the_others_are_reckoned(tmp_path: Path) -> None:
    state = tmp_path / "falbatch.db"

    async def live() -> None:
        with planned(state, [item(0)]) as store:
            async with recording(store):
                await store.record(SubmitStarted(1, 1, AT, 40), accepted(1)[1])
                store.connection.execute("UPDATE requests SET status = 'failed'")
                store.connection.execute("UPDATE jobs SET state = 'planned'")
                await store.record(SubmitStarted(1, 2, AT, 50), accepted(1, attempt=2)[1])
            shutil.copy(journal_path(state), tmp_path / "kept")

    anyio.run(live)
    for each in (state, copy_path(state)):
        each.unlink()
    shutil.copy(tmp_path / "kept", journal_path(state))
    mended(state)
    with closing(sqlite3.connect(state)) as connection:
        told = connection.execute("SELECT request_id, status, cost_nano FROM requests ORDER BY attempt").fetchall()
    assert told == [("r-1-1", "superseded", 40), ("r-1-2", "accepted", None)]
    assert rows(state) == {1: ("submitted", "r-1-2")}


def test_two_files_set_aside_within_a_second_are_both_kept(
    lives: dict[str, Path], place: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = place(lives["killed"])
    monkeypatch.setattr(time, "strftime", lambda *_: "20260101-000000")
    damaged = []
    for _ in range(3):
        garbled(state)
        damaged.append(state.read_bytes())
        mended(state)
    kept = sorted(state.parent.glob("falbatch.set-aside-*.db"), key=lambda path: (len(path.name), path.name))
    assert [path.read_bytes() for path in kept] == damaged
    assert (state.parent / "falbatch.set-aside-20260101-000000.db-wal").stat().st_size > 4096, "with its companion"
