"""Each question to the state file gets the answer of one moment, and no job is counted twice or left out."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.store import reader, stage
from falbatch.adapters.store.database import open_reader
from falbatch.adapters.store.store import Store
from falbatch.core.changes import FileReady, FilesGone, RequestEnded, ResultStored, Stuck, SubmitNotAccepted
from falbatch.core.classify import Failure
from falbatch.core.record import AttemptOnRecord, StoredFile
from falbatch.core.report import UnknownJob
from falbatch.core.state import Event, State
from tests.adapters.conftest import AT, accepted, adopt, finished, item, planned, planned_after, recording

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

POLICY = Failure("content_policy_violation", "not allowed", 422)


@pytest.fixture
async def state(tmp_path: Path) -> Path:
    """A batch of twelve, in the middle of a run: at least one job in every state, one orphan that is done.

    Jobs are numbered from 1 and named n0 to n11; job 12 left the manifest when it was done.
    """
    path = tmp_path / "falbatch.db"
    items = [item(seq, name=f"n{seq}") for seq in range(12)]
    with planned(path, items) as store:
        async with recording(store):
            record = store.record
            await record(*accepted(1), *finished(1))
            await record(*accepted(2), finished(2)[0])
            await record(*accepted(3), Stuck(3, AT, Failure("timeout", "no answer", None)))
            await record(accepted(5)[0], SubmitNotAccepted(5, 1, AT + 9, Event.NO_ANSWER, Failure("no_answer", "cut")))
            for job_id in (6, 7):
                await record(*accepted(job_id), RequestEnded(job_id, f"r-{job_id}-1", AT, Event.REQUEST_FAILED, POLICY))
            await record(*accepted(8), finished(8)[0], FilesGone(8, AT, Failure("file_gone", "dead link", 404)))
            await record(*accepted(9), RequestEnded(9, "r-9-1", AT, Event.REQUEST_CANCELLED, Failure("x", "y"), 0.25))
            await record(*accepted(10), RequestEnded(10, "r-10-1", AT, Event.ATTEMPT_FAILED, POLICY))
            await record(*accepted(12), *finished(12))
        stage.fill(store.connection, items[:11])
        adopt(store, whole=True, at=AT)
    with Store.open(path) as store:
        async with recording(store):
            await store.record(accepted(4)[0])
    return path


@pytest.fixture
def connection(state: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_reader(state)) as one:
        yield one


COUNTS = {
    State.DONE: 1,
    State.COMPLETED: 1,
    State.SUBMITTED: 1,
    State.SUBMITTING: 1,
    State.UNKNOWN: 1,
    State.FAILED: 3,
    State.CANCELLED: 1,
    State.PLANNED: 2,
}


async def test_while_a_run_goes_on_every_state_is_counted_as_it_is(connection: sqlite3.Connection) -> None:
    status = reader.status(connection, running=True)
    assert status.name == "demo"
    assert status.counts == COUNTS
    assert status.total == 11
    assert [job.name for job in status.unknown] == ["n4"]


async def test_without_a_run_a_submit_under_way_is_unknown(connection: sqlite3.Connection) -> None:
    status = reader.status(connection, running=False)
    assert status.counts == {
        **{state: n for state, n in COUNTS.items() if state is not State.SUBMITTING},
        State.UNKNOWN: 2,
    }
    assert status.total == 11
    assert status.unknown == (
        UnknownJob("n3", '{"prompt":"prompt 3"}', AT + 1),
        UnknownJob("n4", '{"prompt":"prompt 4"}', AT + 1),
    )


async def test_executions_files_and_money_are_those_of_the_whole_file(connection: sqlite3.Connection) -> None:
    status = reader.status(connection, running=True)
    assert status.orphaned == 1
    assert status.executions == 9
    assert status.billable_units == 4 * 2.0 + 0.25
    assert (status.files, status.bytes) == (2, 20)


async def test_failures_are_grouped_by_their_type_the_most_frequent_first(connection: sqlite3.Connection) -> None:
    groups = reader.status(connection, running=True).failures
    assert [(each.error_type, each.count, each.example) for each in groups] == [
        ("content_policy_violation", 2, "not allowed"),
        ("file_gone", 1, "dead link"),
    ]
    assert groups[0].job in {"n5", "n6"}
    assert "change it" in groups[0].advice


async def test_open_jobs_that_got_stuck_are_told_apart_from_failures(connection: sqlite3.Connection) -> None:
    (group,) = reader.status(connection, running=True).stuck
    assert (group.error_type, group.count, group.job) == ("timeout", 1, "n2")


async def test_status_leaves_no_transaction_behind(connection: sqlite3.Connection) -> None:
    reader.status(connection, running=True)
    assert not connection.in_transaction


async def test_only_planned_jobs_are_given_out_in_pages(connection: sqlite3.Connection) -> None:
    assert [job.job_id for job in planned_after(connection, -1, 10)] == [10, 11]
    assert [job.job_id for job in planned_after(connection, -1, 1)] == [10]
    assert [job.job_id for job in planned_after(connection, 9, 1)] == [11]
    assert planned_after(connection, 10, 1) == []
    (tried, fresh) = planned_after(connection, -1, 10)
    assert (tried.attempts, tried.failures) == (1, 1)
    assert (fresh.attempts, fresh.failures, fresh.request) == (0, 0, None)


async def test_what_is_paid_comes_with_its_request_those_at_fal_first(connection: sqlite3.Connection) -> None:
    paid = reader.paid_jobs(connection)
    assert [(job.job_id, job.state) for job in paid] == [(3, State.SUBMITTED), (2, State.COMPLETED)]
    assert [job.request.request_id for job in paid if job.request] == ["r-3-1", "r-2-1"]
    assert [job.job_id for job in reader.at_fal(connection)] == [3]


async def test_an_orphan_that_is_paid_for_is_still_given_out(state: Path) -> None:
    with planned(state, []) as store:
        assert [(job.job_id, job.seq) for job in store.paid_jobs()] == [(3, None), (2, None)]
        assert planned_after(store.reading, -1, 10) == []


async def test_jobs_are_listed_by_state_without_orphans(connection: sqlite3.Connection) -> None:
    assert reader.ids_in(connection, (State.DONE, State.PLANNED)) == [1, 10, 11]


async def test_an_export_row_joins_input_result_and_files(connection: sqlite3.Connection) -> None:
    row = next(reader.export_rows(connection, (State.DONE,)))
    assert (row.seq, row.name, row.endpoint, row.origin, row.state) == (0, "n0", "fal-ai/flux/dev", "m.yaml:0", "done")
    assert (row.input_json, row.result) == (b'{"prompt":"prompt 0"}', b'{"ok": 1}')
    assert (row.request_id, row.inference_s, row.billable_units) == ("r-1-1", 0.5, 2.0)
    assert (row.error_type, row.error) == (None, None)
    assert row.files == (StoredFile(0, "1.png", 10, b"\x01" * 32, "image/png", 1),)
    assert len(bytes.fromhex(row.key)) == 32
    assert reader.export_row(connection, 1) == row


async def test_exports_come_in_the_manifests_order_with_orphans_last(connection: sqlite3.Connection) -> None:
    every = list(reader.export_rows(connection, tuple(State)))
    assert [row.seq for row in every] == [*range(11), None]
    failed = list(reader.export_rows(connection, (State.FAILED,)))
    assert [(row.name, row.error, row.files) for row in failed] == [
        ("n5", "not allowed", ()),
        ("n6", "not allowed", ()),
        ("n7", "dead link", ()),
    ]


async def test_files_without_their_name_are_not_exported(state: Path) -> None:
    with planned(state, [item(0, name="n0")]) as store:
        async with recording(store):
            await store.record(FileReady(2, 0, "", "2.png", 5, b"\x02" * 32, "image/png", AT))
        assert len(store.files_of(2)) == 1
        assert reader.export_row(store.reading, 2).files == ()


async def test_files_are_listed_in_their_places(state: Path) -> None:
    with planned(state, [item(0, name="n0")]) as store:
        async with recording(store):
            for place in (2, 0, 1):
                await store.record(FileReady(2, place, "", f"2-{place}.png", 5, b"\x02" * 32, "image/png", AT))
        assert [file.path for file in store.files_of(2)] == ["2-0.png", "2-1.png", "2-2.png"]


async def test_a_long_list_of_unknown_jobs_is_cut_but_counted(tmp_path: Path) -> None:
    count = reader.UNKNOWN_SHOWN + 20
    with planned(tmp_path / "falbatch.db", (item(seq) for seq in range(count))) as store:
        async with recording(store):
            await store.record(*(accepted(job_id)[0] for job_id in range(1, count + 1)))
        status = store.status()
    assert len(status.unknown) == reader.UNKNOWN_SHOWN
    assert status.count(State.UNKNOWN) == count


async def test_a_result_of_a_later_attempt_replaces_the_first_in_an_export(tmp_path: Path) -> None:
    with planned(tmp_path / "falbatch.db", [item(0)]) as store:
        async with recording(store):
            await store.record(*accepted(1), RequestEnded(1, "r-1-1", AT, Event.ATTEMPT_FAILED, POLICY, 1.0))
            await store.record(*accepted(1, attempt=2), ResultStored(1, "r-1-2", AT, b"two", "text/plain", 4.0))
        row = reader.export_row(store.reading, 1)
        assert (row.request_id, row.result, row.billable_units, row.error) == ("r-1-2", b"two", 4.0, None)
        assert store.status().billable_units == 5.0


async def test_a_submit_is_known_by_its_job_and_number(connection: sqlite3.Connection) -> None:
    assert reader.attempt(connection, 3, 1) == AttemptOnRecord(Event.ACCEPTED, "r-3-1", State.SUBMITTED, is_latest=True)
    assert reader.attempt(connection, 4, 1) == AttemptOnRecord(None, None, State.SUBMITTING, is_latest=True)
    assert reader.attempt(connection, 5, 1) == AttemptOnRecord(Event.NO_ANSWER, None, State.UNKNOWN, is_latest=True)
    assert reader.attempt(connection, 3, 2) is None
    assert reader.attempt(connection, 99, 1) is None


async def test_the_secret_of_callbacks_is_kept_once_and_told_to_nobody(state: Path) -> None:
    with Store.open(state) as store:
        assert store.callback_secret() is None
        store.keep_callback_secret(b"1" * 32)
        store.keep_callback_secret(b"2" * 32)
    with Store.open(state) as store:
        assert store.callback_secret() == b"1" * 32
        assert "1111" not in repr(reader.batch_row(store.connection))
        assert "1111" not in repr(store.status())
