"""A run takes the state file for its own batch, learns what an earlier run left, and may open jobs again."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.store import reader, stage
from falbatch.adapters.store.store import Store
from falbatch.core.changes import FilesGone, RequestEnded, SubmitStarted
from falbatch.core.classify import Failure
from falbatch.core.state import Event, IllegalTransition, State
from falbatch.errors import ExitCode, StateError
from tests.adapters.conftest import AT, accepted, finished, item, planned, planned_after, recording, reopen, want_files

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

FAILURE = Failure("http_500", "broken", 500)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "falbatch.db"


def _claim(store: Store, *, name: str = "demo", target: str = "sandbox", at: float = AT) -> None:
    store.check(name=name, target=target)
    stage.fill(store.connection, [])
    store.begin(name=name, target=target, manifest="/home/me/demo.yaml", at=at, whole=False)


async def test_a_claim_says_whose_file_it_is_and_who_runs(state: Path) -> None:
    with Store.open(state) as store:
        assert reader.batch_row(store.reading) is None
        _claim(store)
        row = reader.batch_row(store.reading)
    assert row is not None
    assert (row.name, row.target, row.manifest, row.created_at) == ("demo", "sandbox", "/home/me/demo.yaml", AT)
    assert json.loads(row.runner)["pid"] == os.getpid()


async def test_claiming_again_keeps_when_it_began(state: Path) -> None:
    with Store.open(state) as store:
        _claim(store)
    with Store.open(state) as store:
        _claim(store, at=AT + 100)
        row = reader.batch_row(store.reading)
    assert row is not None
    assert row.created_at == AT
    assert json.loads(row.runner)["since"] == AT + 100


@pytest.mark.parametrize(
    ("other", "said", "advised"),
    [
        ({"name": "flowers"}, 'belongs to the batch "demo" .*not to "flowers"', "output.dir"),
        ({"target": "fal"}, "done against the built-in sandbox; this run would go to fal", "--output DIR"),
        ({"target": "loopback"}, "this run would go to a server on this machine", "--output DIR"),
    ],
)
async def test_a_claim_for_another_batch_or_another_fal_is_refused_and_changes_nothing(
    state: Path, other: dict[str, str], said: str, advised: str
) -> None:
    with planned(state, [item(0)]) as store:
        store.connection.execute("UPDATE jobs SET state = 'submitting'")
        before = reader.batch_row(store.reading)
        with pytest.raises(StateError, match=said) as caught:
            _claim(store, name=other.get("name", "demo"), target=other.get("target", "sandbox"))
        assert caught.value.exit_code is ExitCode.STATE
        assert advised in caught.value.advice
        assert reader.batch_row(store.reading) == before
        assert store.connection.execute("SELECT state FROM jobs").fetchone() == ("submitting",)


async def test_a_submit_that_the_last_run_left_open_becomes_unknown(state: Path) -> None:
    with planned(state, [item(0), item(1), item(2)]) as store:
        async with recording(store):
            await store.record(SubmitStarted(1, 1, AT + 1))
            await store.record(*accepted(2))
    with Store.open(state) as store:
        _claim(store)
        states = store.connection.execute("SELECT state, error_type FROM jobs ORDER BY id").fetchall()
        assert states == [("unknown", "no_answer"), ("submitted", None), ("planned", None)]
        assert [job.submitted_at for job in store.status().unknown] == [AT + 1]
        assert [job.job_id for job in planned_after(store.reading, -1, 10)] == [3]
        _claim(store)
        told = store.connection.execute("SELECT detail FROM events WHERE event = 'no_answer'").fetchall()
        assert told == [("1 jobs have submits without an answer",)]


async def test_failed_jobs_are_opened_again_with_a_clean_slate(state: Path) -> None:
    with planned(state, [item(seq) for seq in range(4)]) as store:
        async with recording(store):
            await store.record(*accepted(1), RequestEnded(1, "r-1-1", AT, Event.REQUEST_FAILED, FAILURE))
            await store.record(*accepted(2), RequestEnded(2, "r-2-1", AT, Event.REQUEST_CANCELLED, FAILURE))
            await store.record(*accepted(3), finished(3)[0], FilesGone(3, AT, FAILURE))
        reopen(store, 1, 2, 3)
        jobs = planned_after(store.reading, -1, 10)
        assert [(job.job_id, job.failures, job.attempts) for job in jobs] == [
            (1, 0, 1),
            (2, 0, 1),
            (3, 0, 1),
            (4, 0, 0),
        ]
        assert store.status().failures == ()
        assert store.result_of(3) is None, "the old result is not the new job's"


async def test_an_orphan_is_not_opened_again_by_its_state(state: Path) -> None:
    with planned(state, [item(0)]) as store:
        async with recording(store):
            await store.record(*accepted(1), RequestEnded(1, "r-1-1", AT, Event.REQUEST_FAILED, FAILURE))
    with planned(state, [item(0, "another")]) as store:
        assert stage.in_states(store.connection, (State.FAILED,)) == []


async def test_lost_files_are_wanted_again_without_a_new_charge(state: Path) -> None:
    with planned(state, [item(0)]) as store:
        async with recording(store):
            await store.record(*accepted(1), *finished(1))
        want_files(store, 1)
        (job,) = store.paid_jobs()
        assert job.state is State.COMPLETED
        assert store.result_of(1) is not None
        assert [file.path for file in store.files_of(1)] == ["1.png"]


async def test_opening_again_what_cannot_be_is_refused_as_a_whole(state: Path) -> None:
    with planned(state, [item(0), item(1)]) as store:
        store.connection.execute("UPDATE jobs SET state = 'failed' WHERE id = 1")
        with pytest.raises(IllegalTransition):
            reopen(store, 1, 2)
        assert store.connection.execute("SELECT state FROM jobs WHERE id = 1").fetchone() == ("failed",)
        assert not store.connection.in_transaction


async def test_what_is_written_outside_the_writer_is_read_at_once(state: Path) -> None:
    with planned(state, [item(0)]) as store:
        assert store.status().count(State.PLANNED) == 1
        assert store.path_owner("a.png") is None
        assert store.result_of(1) is None
        assert store.files_of(1) == []


async def test_leaving_closes_the_file_whole(state: Path) -> None:
    with planned(state, [item(0)]):
        assert state.with_name("falbatch.db-wal").exists()
    assert [each.name for each in state.parent.iterdir()] == ["falbatch.db"]


async def test_leaving_by_an_error_closes_the_file_too(state: Path) -> None:
    with pytest.raises(KeyboardInterrupt), planned(state, [item(0)]):
        raise KeyboardInterrupt
    assert [each.name for each in state.parent.iterdir()] == ["falbatch.db"]
