"""The journal says again what left and what came of it; what cannot be read of it is known to be missing."""

from __future__ import annotations

import json
import os
import resource
import signal
from typing import TYPE_CHECKING, Any

import pytest

from falbatch.adapters.store import journal
from falbatch.adapters.store.database import open_writer
from falbatch.adapters.store.journal import Age, Journal, journal_path
from falbatch.core.changes import RequestFound, Stuck, SubmitNotAccepted, SubmitStarted
from falbatch.core.classify import Failure
from falbatch.core.identity import KEY_VERSION, canonical_json
from falbatch.core.state import Event
from tests.adapters.conftest import AT, accepted, finished, item, planned, recording

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

AGE = Age(AT, 7, 3)
FAILURE = Failure("http_500", "brökén", 500)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "falbatch.db"


def submit(number: int) -> bytes:
    """A line about a submit."""
    return journal.sealed({"key": f"{number:064x}", "attempt": 1, "at": AT, "event": "accepted", "request_id": "r"})


def numbers(state: Path) -> list[int]:
    """The submits that can be read, as `submit` numbered them."""
    return [int(facts["key"], 16) for facts in journal.submits(state)]


async def test_each_submit_and_its_outcome_is_a_line_and_nothing_else_is(state: Path) -> None:
    with planned(state, [item(seq) for seq in range(3)]) as store:
        async with recording(store):
            await store.record(*accepted(1), *finished(1))
            await store.record(SubmitStarted(2, 1, AT, reserved=5))
            await store.record(SubmitNotAccepted(2, 1, AT + 1, Event.NO_ANSWER, FAILURE, "named"))
            await store.record(RequestFound(2, 1, AT + 9, "r-2", AT + 3), Stuck(2, AT, FAILURE))
        told: list[dict[str, Any]] = list(journal.submits(state))
        read = journal.read(state)
    assert [facts["event"] for facts in told] == ["started", "accepted", "started", "no_answer", "found"]
    assert [facts.get("request_id") for facts in told] == [None, "r-1-1", None, None, "r-2"]
    assert told[2]["reserved"] == 5
    assert (told[3]["named_id"], told[3]["why"]) == ("named", ["http_500", "brökén", 500])
    assert told[4]["since"] == AT + 3
    # What stands alone after a copy says itself what job it is about.
    assert [facts.get("input", {}).get("prompt") for facts in told] == ["prompt 0", None, "prompt 1", None, "prompt 1"]
    assert read is not None
    assert (read.batch, read.bad_lines, read.base) == (("demo", "sandbox", AT), [], Age(0.0, 0, 0))


@pytest.mark.parametrize("value", [2**70, -(2**64), 1e-7, 1.0, "ä\u2028\\\n", {"b": [None, True], "a": {}}])
async def test_an_input_comes_back_to_the_byte(state: Path, value: object) -> None:
    with planned(state, [item(0, prompt=value)]) as store:  # type: ignore[arg-type]  # any JSON value will do
        async with recording(store):
            await store.record(SubmitStarted(1, 1, AT))
        (facts,) = journal.submits(state)
        (given,) = store.connection.execute("SELECT input FROM jobs").fetchone()
    assert canonical_json(facts["input"]) == given


def test_a_journal_begins_with_where_it_goes_on_from(state: Path) -> None:
    assert journal.read(state) is None
    journal.begin(state, AGE)
    journal.append(state, [submit(1)])
    journal.note_copy(state, Age(AT, 9, 4))
    journal.note_doubt(state)
    assert journal.read(state) == Journal(AGE, [Age(AT, 9, 4)], is_doubted=True)
    assert journal_path(state).stat().st_mode & 0o777 == 0o600
    journal.begin(state, Age(AT, 9, 4))
    assert journal.read(state) == Journal(Age(AT, 9, 4))
    assert numbers(state) == []
    assert [each.name for each in state.parent.iterdir()] == ["falbatch.journal"]


@pytest.mark.parametrize("cut", [2, 30, 100])
def test_a_torn_last_line_is_missed_and_does_not_take_the_next_one_with_it(state: Path, cut: int) -> None:
    journal.begin(state, AGE)
    journal.append(state, [submit(1), submit(2)])
    os.truncate(journal_path(state), journal_path(state).stat().st_size - cut)
    journal.append(state, [submit(3)])
    assert numbers(state) == [1, 3]
    read = journal.read(state)
    assert read is not None
    assert read.bad_lines == [3]


def test_every_flipped_bit_is_noticed(state: Path) -> None:
    journal.begin(state, AGE)
    journal.append(state, [submit(1), submit(2)])
    good = journal_path(state).read_bytes()
    for place in range(len(good)):
        journal_path(state).write_bytes(good[:place] + bytes([good[place] ^ (1 << place % 8)]) + good[place + 1 :])
        read = journal.read(state)
        assert read is not None
        assert read.bad_lines, place
        assert set(numbers(state)) <= {1, 2}, place


@pytest.mark.parametrize("garbage", [b"\n", b"\0" * 50 + b"\n", b"{}\n", b"00000000 {}\n", b"\xff\xfe\n", b"x" * 9000])
def test_garbage_lines_are_numbered_and_the_others_are_read(state: Path, garbage: bytes) -> None:
    journal.begin(state, AGE)
    journal.append(state, [submit(1)])
    with journal_path(state).open("ab") as file:
        file.write(garbage)
    journal.append(state, [submit(2)])
    read = journal.read(state)
    assert read is not None
    assert (read.base, read.bad_lines, numbers(state)) == (AGE, [3], [1, 2])


@pytest.mark.parametrize("facts", [{"event": "begun", "age": [1, 2, 3]}, {"event": "begun"}, {"event": "?"}, {}, [1]])
def test_a_sealed_line_that_makes_no_sense_there_is_a_bad_one(state: Path, facts: Any) -> None:
    journal.begin(state, AGE)
    journal.append(state, [journal.sealed(facts)])
    read = journal.read(state)
    assert read is not None
    assert (read.base, read.bad_lines) == (AGE, [2])


def test_a_journal_that_was_emptied_or_lost_its_first_line_has_no_beginning(state: Path) -> None:
    journal_path(state).touch()
    assert journal.read(state) == Journal(None)
    journal.append(state, [submit(1)])
    assert journal.read(state) == Journal(None)
    assert numbers(state) == [1]


def test_what_cannot_be_written_whole_leaves_nothing_half(state: Path) -> None:
    journal.begin(state, AGE)
    journal.append(state, [submit(1)])
    size = journal_path(state).stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            journal.append(state, [submit(2), submit(3)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert journal_path(state).stat().st_size == size
    journal.append(state, [submit(2)])
    assert numbers(state) == [1, 2]


async def test_a_run_that_submitted_nothing_leaves_no_journal_and_one_that_did_leaves_its_beginning(
    state: Path,
) -> None:
    with planned(state, [item(0)]):
        assert journal_path(state).exists()
    assert not journal_path(state).exists()
    with planned(state, [item(0)]) as store:
        async with recording(store):
            await store.record(*accepted(1))
        assert journal.tells(state)
    assert not journal.tells(state)
    read = journal.read(state)
    assert read is not None
    assert read.base is not None
    assert read.base.submits == 1


def test_the_age_of_a_file_grows_with_what_happens(state: Path) -> None:
    connection = open_writer(state)
    young = journal.age_of(connection)
    connection.execute("INSERT INTO attempts (job_id, attempt, started_at) VALUES (1, 1, 1.0)")
    older = journal.age_of(connection)
    connection.execute("INSERT INTO events (at, event) VALUES (1.0, 'x')")
    oldest = journal.age_of(connection)
    connection.close()
    assert young < older < oldest
    assert json.loads(json.dumps(oldest)) == list(oldest)


def test_keys_are_still_made_as_they_were_when_whole_files_are_told_by_them() -> None:
    """`store/whole.py` makes the key of each job anew: with another recipe it must know both."""
    assert KEY_VERSION == 1
