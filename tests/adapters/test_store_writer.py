"""What `record` returned for is on disk, whatever happens next; what the table of states forbids is not."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from falbatch.adapters.store import apply, reader, writer
from falbatch.adapters.store.database import open_reader, open_writer
from falbatch.core import changes
from falbatch.core.changes import (
    FileReady,
    RequestEnded,
    RequestFound,
    ResultStored,
    Stuck,
    SubmitNotAccepted,
    SubmitStarted,
)
from falbatch.core.classify import Failure
from falbatch.core.record import RequestOnRecord, StoredFile, StoredResult
from falbatch.core.state import TRANSITIONS, Event, IllegalTransition, State
from falbatch.errors import DiskFull, ExitCode, StateError
from tests.adapters.conftest import AT, accepted, finished, item, planned, planned_after, recording, reopen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from falbatch.adapters.store.store import Store
    from falbatch.core.changes import Change
    from tests.adapters.conftest import TinyDisk

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
FAILURE = Failure("content_policy_violation", "not allowed", 422)
OTHER = Failure("http_500", "broken", 500)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "falbatch.db"


@pytest.fixture
def store(state: Path) -> Iterator[Store]:
    """A state file with the planned jobs 1 to 40."""
    with planned(state, (item(seq) for seq in range(40))) as one:
        yield one


def _elsewhere(store: Store, question: str, *values: object) -> Any:
    """The answer as another program gets it."""
    with closing(sqlite3.connect(store.path)) as connection:
        row = connection.execute(question, values).fetchone()
        return row[0] if row is not None and len(row) == 1 else row


def _state_of(store: Store, job_id: int) -> str:
    return str(_elsewhere(store, "SELECT state FROM jobs WHERE id = ?", job_id))


async def test_a_change_is_on_disk_when_record_returns(store: Store) -> None:
    async with recording(store):
        assert _state_of(store, 1) == "planned"
        await store.record(SubmitStarted(1, 1, AT))
        assert _state_of(store, 1) == "submitting"


async def test_asyncios_own_cancelling_stops_the_writer_no_more_than_ours(store: Store) -> None:
    """`asyncio.run` cancels every task at its end, shields or not; who still records must get it done."""
    running = asyncio.create_task(store.writer.run())
    await anyio.sleep(0)
    for job_id in range(1, 21):
        callers = asyncio.create_task(store.writer.record(SubmitStarted(job_id, 1, AT)))
        await anyio.sleep(0.0005 * job_id)  # before the group, while it waits for company, and while it is committed
        running.cancel()
        with anyio.fail_after(5):
            await callers
        assert _state_of(store, job_id) == "submitting"
    store.writer.close()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_cancelling_in_the_very_turn_of_the_commit_loses_nothing(store: Store) -> None:
    loop = asyncio.get_running_loop()
    for job_id in range(1, 21):
        one = store.new_writer()
        running = asyncio.create_task(one.run())
        caller = asyncio.create_task(one.record(SubmitStarted(job_id, 1, AT)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        loop.call_later(writer.LINGER_S, partial(loop.call_soon, running.cancel))
        await caller
        assert _state_of(store, job_id) == "submitting"
        one.close()
        await asyncio.wait([running])
    assert not store.connection.in_transaction


async def test_while_another_program_writes_the_loop_goes_on(store: Store) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.sleep(0.005)

    async with recording(store), anyio.create_task_group() as group:
        with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            group.start_soon(turn)
            group.start_soon(store.record, SubmitStarted(1, 1, AT))
            await anyio.sleep(0.5)
            assert turns > 20
            assert _state_of(store, 1) == "planned"
            other.execute("ROLLBACK")
        with anyio.fail_after(10):
            while _state_of(store, 1) == "planned":
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()


async def test_what_the_loop_has_no_time_for_is_written_by_the_thread(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "LOOP_S", 0.0)
    threads: set[str] = set()
    real = apply.Applier.submit_started

    def seen(applier: Any, change: SubmitStarted) -> None:
        threads.add(threading.current_thread().name.partition("_")[0])
        real(applier, change)

    monkeypatch.setitem(apply._WRITE, SubmitStarted, seen)
    async with recording(store), anyio.create_task_group() as callers:
        for job_id in range(1, 41):
            callers.start_soon(store.record, SubmitStarted(job_id, 1, AT))
    assert _elsewhere(store, "SELECT count(*) FROM jobs WHERE state = 'submitting'") == 40
    assert threads == {"MainThread", "falbatch-writer"}
    lines = store.path.with_suffix(".journal").read_bytes().splitlines()
    assert sum(b'"started"' in line for line in lines) == 40


async def test_recording_nothing_returns(store: Store) -> None:
    async with recording(store):
        with anyio.fail_after(5):
            await store.record()


async def test_changes_of_many_jobs_share_a_commit(store: Store) -> None:
    commits: list[str] = []
    store.connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    async with recording(store), anyio.create_task_group() as callers:
        for job_id in range(1, 41):
            callers.start_soon(store.record, SubmitStarted(job_id, 1, AT))
    assert _elsewhere(store, "SELECT count(*) FROM jobs WHERE state = 'submitting'") == 40
    assert len(commits) == 1


async def test_a_group_of_more_changes_than_fit_one_commit_takes_several(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "GROUP_ENTRIES", 15)
    commits: list[str] = []
    store.connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    async with recording(store), anyio.create_task_group() as callers:
        for job_id in range(1, 41):
            callers.start_soon(store.record, SubmitStarted(job_id, 1, AT))
    assert _elsewhere(store, "SELECT count(*) FROM jobs WHERE state = 'submitting'") == 40
    assert len(commits) == 3


async def test_an_illegal_change_is_refused_alone_and_its_group_is_written(store: Store) -> None:
    refused: list[int] = []

    async def record(job_id: int, change: Change) -> None:
        try:
            await store.record(change)
        except IllegalTransition:
            refused.append(job_id)

    async with recording(store):
        async with anyio.create_task_group() as callers:
            callers.start_soon(record, 1, SubmitStarted(1, 1, AT))
            callers.start_soon(record, 2, changes.FilesStored(2, AT))
        assert refused == [2]
        assert [_state_of(store, job_id) for job_id in (1, 2)] == ["submitting", "planned"]
        assert _elsewhere(store, "SELECT count(*) FROM attempts") == 1


async def test_a_change_of_a_job_that_does_not_exist_is_refused(store: Store) -> None:
    async with recording(store):
        with pytest.raises(IllegalTransition, match="job 77"):
            await store.record(SubmitStarted(77, 1, AT))


FAILING: dict[Event, type[changes.FilesGone | changes.InputFailed | changes.ResultRefused]] = {
    Event.FILES_GONE: changes.FilesGone,
    Event.INPUT_FAILED: changes.InputFailed,
    Event.RESULT_REFUSED: changes.ResultRefused,
}


def _change(event: Event) -> Change | None:
    """A change of job 1 that carries `event`; None where the engine has none."""
    match event:
        case Event.SUBMIT_STARTED:
            return SubmitStarted(1, 1, AT)
        case Event.ACCEPTED:
            return accepted(1)[1]
        case Event.REFUSED | Event.REJECTED | Event.NO_ANSWER:
            return SubmitNotAccepted(1, 1, AT, event, FAILURE)
        case Event.FOUND:
            return changes.RequestFound(1, 1, AT, "f-1", AT)
        case Event.ATTEMPT_FAILED | Event.REQUEST_FAILED | Event.REQUEST_CANCELLED:
            return RequestEnded(1, "r-1-1", AT, event, FAILURE)
        case Event.RESULT_STORED:
            return finished(1)[0]
        case Event.FILES_STORED | Event.REROLLED:
            return changes.FilesStored(1, AT) if event is Event.FILES_STORED else changes.Rerolled(1, AT, 1)
        case Event.FILES_GONE | Event.INPUT_FAILED | Event.RESULT_REFUSED:
            return FAILING[event](1, AT, FAILURE)
        case Event.REOPENED | Event.FILES_WANTED:
            return None


@pytest.mark.parametrize("event", [event for event in Event if _change(event) is not None])
async def test_the_file_follows_the_table_of_states_and_nothing_else(store: Store, event: Event) -> None:
    change = _change(event)
    assert change is not None
    async with recording(store):
        for before in State:
            store.connection.execute("UPDATE jobs SET state = ? WHERE id = 1", (before,))
            store.connection.execute("DELETE FROM requests WHERE request_id = 'f-1'")
            after = TRANSITIONS.get((before, event))
            if after is None:
                with pytest.raises(IllegalTransition):
                    await store.record(change)
            else:
                await store.record(change)
            assert _state_of(store, 1) == (before if after is None else after)


async def test_a_change_is_written_though_its_caller_was_cancelled(store: Store) -> None:
    async with recording(store):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await store.record(*accepted(1))
        assert scope.cancelled_caught
        assert _state_of(store, 1) == "planned"
    assert _state_of(store, 1) == "submitted"


async def test_closing_writes_what_is_pending_first(store: Store) -> None:
    returned: list[int] = []

    async def record(job_id: int) -> None:
        await store.record(SubmitStarted(job_id, 1, AT))
        returned.append(job_id)

    async with anyio.create_task_group() as group:
        group.start_soon(store.writer.run)
        await anyio.lowlevel.checkpoint()
        group.start_soon(record, 1)
        group.start_soon(record, 2)
        await anyio.lowlevel.checkpoint()
        store.writer.close()
        assert not store.writer.closed.is_set()
        await store.writer.closed.wait()
    assert sorted(returned) == [1, 2]
    assert _state_of(store, 2) == "submitting"


async def test_a_cancelled_writer_goes_on_until_it_is_closed(store: Store) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(store.writer.run)
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await store.record(SubmitStarted(1, 1, AT))
        assert _state_of(store, 1) == "submitting"
        store.writer.close()
    assert store.writer.closed.is_set()


async def test_a_change_that_cannot_be_stored_is_told_to_its_caller_alone(store: Store) -> None:
    """Half a surrogate pair: no error that the writer expects. The acceptance beside it must not be lost."""
    told: list[BaseException] = []

    async def record(change: Change) -> None:
        try:
            await store.record(change)
        except ValueError as error:
            told.append(error)

    async with recording(store), anyio.create_task_group() as callers:
        callers.start_soon(record, SubmitStarted(1, 1, AT))
        callers.start_soon(record, Stuck(2, AT, Failure("x", "\ud800")))
    assert len(told) == 1
    assert _state_of(store, 1) == "submitting"


async def test_nothing_is_taken_for_recorded_after_the_writer_has_ended(store: Store) -> None:
    async with recording(store):
        pass
    with pytest.raises(RuntimeError, match="ended"):
        await store.record(SubmitStarted(1, 1, AT))


async def test_a_full_disk_is_told_to_the_callers_and_the_file_stays_good(tiny_disk: TinyDisk) -> None:
    tiny_disk.resize(2560)
    path = tiny_disk.path / "falbatch.db"
    stored = 0

    async def fill(store: Store) -> None:
        nonlocal stored
        for job_id in range(1, 41):
            await store.record(*accepted(job_id))
            await store.record(ResultStored(job_id, f"r-{job_id}-1", AT, b"x" * 100_000, "text/plain"))
            stored = job_id

    with planned(path, (item(seq) for seq in range(40))) as store:
        async with recording(store):
            with pytest.raises(DiskFull) as caught:
                await fill(store)
            assert caught.value.exit_code is ExitCode.DISK_FULL
            assert 0 < stored < 40
            assert not writer.reserve_path(path).exists(), "given up before anybody is told"
            # Some space is there again: the same run could go on.
            tiny_disk.resize(16 * 1024)
            last = stored + 1
            if store.paid_jobs()[0].job_id != last:
                await store.record(*accepted(last))
            await store.record(ResultStored(last, f"r-{last}-1", AT, b"x" * 100_000, "text/plain"))
    with closing(open_reader(path)) as connection:
        assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
        assert reader.status(connection, running=False).count(State.COMPLETED) == last


async def test_request_ids_find_room_on_a_disk_that_others_have_filled(tiny_disk: TinyDisk) -> None:
    tiny_disk.resize(2560)
    with planned(tiny_disk.path / "falbatch.db", (item(seq) for seq in range(40))) as store:
        ballast = tiny_disk.path / "ballast"
        ballast.write_bytes(b"\0" * shutil.disk_usage(tiny_disk.path).free)
        assert shutil.disk_usage(tiny_disk.path).free == 0
        async with recording(store), anyio.create_task_group() as callers:
            for job_id in range(1, 41):
                callers.start_soon(store.record, *accepted(job_id))
        assert len(store.paid_jobs()) == 40


async def test_a_state_file_that_may_not_grow_is_a_full_disk(store: Store) -> None:
    async with recording(store):
        await store.record(*accepted(1))
        pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
        store.connection.execute(f"PRAGMA max_page_count = {pages}")
        big = ResultStored(1, "r-1-1", AT, b"x" * 100_000, "text/plain")
        with pytest.raises(DiskFull):
            await store.record(big)
        assert _state_of(store, 1) == "submitted"
        store.connection.execute("PRAGMA max_page_count = 100000")
        await store.record(big)
    assert _state_of(store, 1) == "completed"


async def test_an_intent_is_known_with_its_time(store: Store) -> None:
    async with recording(store):
        await store.record(SubmitStarted(3, 1, AT + 7))
    assert _elsewhere(store, "SELECT attempts FROM jobs WHERE id = 3") == 1
    (unknown,) = store.status().unknown
    assert (unknown.name, unknown.submitted_at) == (_elsewhere(store, "SELECT name FROM jobs WHERE id = 3"), AT + 7)


@pytest.mark.parametrize(
    ("event", "blamed"), [(Event.REFUSED, None), (Event.REJECTED, "not allowed"), (Event.NO_ANSWER, "not allowed")]
)
async def test_a_submit_that_was_not_accepted_ends_its_attempt(store: Store, event: Event, blamed: str | None) -> None:
    async with recording(store):
        await store.record(SubmitStarted(1, 1, AT), SubmitNotAccepted(1, 1, AT + 1, event, FAILURE))
    assert _elsewhere(store, "SELECT ended_at, outcome, error FROM attempts") == (AT + 1, event, "not allowed")
    assert _elsewhere(store, "SELECT error FROM jobs WHERE id = 1") == blamed
    assert _elsewhere(store, "SELECT count(*) FROM requests") == 0
    assert store.paid_jobs() == []


async def test_an_accepted_job_comes_back_with_its_request(store: Store) -> None:
    async with recording(store):
        await store.record(*accepted(5))
    (job,) = store.paid_jobs()
    base = "https://queue.fal.run/fal-ai/flux/requests/r-5-1"
    assert (job.job_id, job.seq, job.state, job.attempts, job.failures) == (5, 4, State.SUBMITTED, 1, 0)
    assert (job.endpoint, job.input_json) == ("fal-ai/flux/dev", b'{"prompt":"prompt 4"}')
    assert job.request == RequestOnRecord("r-5-1", "fal-ai/flux/dev", f"{base}/status", base, f"{base}/cancel", AT + 2)
    assert _elsewhere(store, "SELECT queue_position FROM requests") == 5
    assert _elsewhere(store, "SELECT outcome, error FROM attempts") == (Event.ACCEPTED, None)


async def test_two_jobs_cannot_have_the_same_request(store: Store) -> None:
    async with recording(store):
        await store.record(*accepted(1))
        with pytest.raises(StateError, match="request_id"):
            await store.record(*accepted(2, request_id="r-1-1"))
    assert _state_of(store, 2) == "planned"


async def test_a_failed_attempt_is_counted_and_the_next_one_has_its_own_request(store: Store) -> None:
    async with recording(store):
        await store.record(*accepted(1), RequestEnded(1, "r-1-1", AT + 3, Event.ATTEMPT_FAILED, OTHER, 0.5))
        (job,) = [each for each in planned_after(store.reading, -1, 40) if each.job_id == 1]
        assert (job.attempts, job.failures, job.state) == (1, 1, State.PLANNED)
        assert _elsewhere(store, "SELECT error_type FROM jobs WHERE id = 1") == "http_500"
        await store.record(*accepted(1, attempt=2))
    (job,) = store.paid_jobs()
    assert (job.attempts, job.failures) == (2, 1)
    assert job.request is not None
    assert job.request.request_id == "r-1-2"
    assert _elsewhere(store, "SELECT error_type FROM jobs WHERE id = 1") is None
    asked = "SELECT status, ended_at, http_status, error_type, billable_units FROM requests WHERE request_id = 'r-1-1'"
    assert _elsewhere(store, asked) == ("failed", AT + 3, 500, "http_500", 0.5)
    assert store.status().executions == 2


@pytest.mark.parametrize(("event", "after"), [(Event.REQUEST_FAILED, "failed"), (Event.REQUEST_CANCELLED, "cancelled")])
async def test_a_request_that_ended_without_a_result_is_blamed(store: Store, event: Event, after: str) -> None:
    async with recording(store):
        await store.record(*accepted(1), RequestEnded(1, "r-1-1", AT + 3, event, FAILURE))
    asked = "SELECT state, error_type, error, http_status FROM jobs WHERE id = 1"
    assert _elsewhere(store, asked) == (after, "content_policy_violation", "not allowed", 422)
    assert _elsewhere(store, "SELECT status FROM requests") == after


async def test_a_result_is_kept_to_the_byte(store: Store) -> None:
    body = bytes(range(256)) * 300
    async with recording(store):
        await store.record(*accepted(1), ResultStored(1, "r-1-1", AT + 3, body, "image/png", 3.0, 1.25))
    assert store.result_of(1) == StoredResult(body, "image/png")
    assert store.result_of(2) is None
    asked = "SELECT status, inference_s, billable_units, ended_at FROM requests"
    assert _elsewhere(store, asked) == ("completed", 1.25, 3.0, AT + 3)


async def test_a_file_is_on_record_before_and_after_it_has_its_name(store: Store) -> None:
    result, ready, stored = finished(1)
    async with recording(store):
        await store.record(*accepted(1), result, ready)
        expected = StoredFile(0, "1.png", 10, b"\x01" * 32, "image/png", 0)
        assert store.files_of(1) == [expected]
        assert store.status().files == 0
        assert store.path_owner("1.PNG") == 1
        assert store.path_owner("2.png") is None
        again = FileReady(1, 0, "", "sub/Ä.jpg", 11, b"\x02" * 32, "image/jpeg", AT)
        await store.record(again, stored)
        assert store.files_of(1) == [StoredFile(0, "sub/Ä.jpg", 11, b"\x02" * 32, "image/jpeg", 1)]
        assert store.path_owner("1.png") is None
        assert store.path_owner("SUB/ä.JPG") == 1
        assert (store.status().files, store.status().bytes) == (1, 11)


async def test_a_new_result_forgets_the_files_of_the_old_one(store: Store) -> None:
    async with recording(store):
        await store.record(*accepted(1), *finished(1)[:2], changes.FilesGone(1, AT, FAILURE))
        assert _state_of(store, 1) == "failed"
        reopen(store, 1)
        await store.record(*accepted(1, attempt=2), ResultStored(1, "r-1-2", AT, b"new", "text/plain"))
    assert store.files_of(1) == []
    assert store.path_owner("1.png") is None
    assert store.result_of(1) == StoredResult(b"new", "text/plain")


async def test_a_stuck_job_says_why_until_it_gets_further(store: Store) -> None:
    async with recording(store):
        await store.record(*accepted(1), Stuck(1, AT, OTHER))
        assert _state_of(store, 1) == "submitted"
        assert [(group.error_type, group.example, group.count) for group in store.status().stuck] == [
            ("http_500", "broken", 1)
        ]
        await store.record(finished(1)[0])
        assert store.status().stuck == ()
        await store.record(Stuck(1, AT, FAILURE))
        assert [group.error_type for group in store.status().stuck] == ["content_policy_violation"]
        await store.record(*finished(1)[1:])
    assert store.status().stuck == ()
    assert _elsewhere(store, "SELECT error_type, error, http_status FROM jobs WHERE id = 1") == (None, None, None)


async def test_the_story_of_a_job_is_kept_in_order(store: Store) -> None:
    async with recording(store):
        await store.record(*accepted(1), Stuck(1, AT, OTHER), *finished(1))
        await store.record(SubmitStarted(2, 1, AT), SubmitNotAccepted(2, 1, AT, Event.REFUSED, OTHER))
        await store.record(RequestFound(2, 1, AT, "r-found", AT))
    events = store.connection.execute("SELECT event FROM events WHERE job_id > 0 ORDER BY id").fetchall()
    assert [event for (event,) in events] == ["stuck", "refused", "found"], "what goes as it should is told elsewhere"


_READING = """
import select, sys
from pathlib import Path
from falbatch.adapters.store import reader
from falbatch.adapters.store.database import open_reader
from falbatch.core.state import State

connection = open_reader(Path(sys.argv[1]))
seen, wrong = set(), []
while True:
    now = reader.status(connection, running=True)
    ended = now.count(State.COMPLETED, State.DONE)
    facts = (now.total, now.executions - now.count(State.SUBMITTED) - ended,
             now.billable_units - 2 * ended, now.files - now.count(State.DONE))
    if facts != (400, 0, 0.0, 0):
        wrong.append(facts)
    if not seen:
        print("reading", flush=True)
    seen.add(tuple(now.counts.items()))
    if select.select([sys.stdin], [], [], 0)[0]:
        break
print(len(seen), wrong[:3])
"""


async def test_another_process_sees_consistent_counts_while_we_write(state: Path) -> None:
    async def work(store: Store, job_ids: range) -> None:
        for job_id in job_ids:
            await store.record(*accepted(job_id))
            await store.record(*finished(job_id))

    pipe = subprocess.PIPE
    with (
        planned(state, (item(seq) for seq in range(400))) as store,
        subprocess.Popen([sys.executable, "-c", _READING, str(state)], stdin=pipe, stdout=pipe, text=True) as child,
    ):
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            assert child.stdout.readline() == "reading\n"
            async with recording(store), anyio.create_task_group() as workers:
                for first in range(1, 9):
                    workers.start_soon(work, store, range(first, 401, 8))
            child.stdin.close()
            moments, _, wrong = child.stdout.read().strip().partition(" ")
        finally:
            child.kill()
    assert wrong == "[]"
    assert int(moments) > 3, "the reader saw nothing of the work: the test proves nothing"


_WRITING = """
import os, sys
from pathlib import Path
import anyio
from falbatch.adapters.store import stage
from falbatch.adapters.store.store import Store
from tests.adapters.conftest import accepted, finished, planned_after

async def work(store, jobs):
    for job in jobs:
        started, answered = accepted(job.job_id)
        for mark, some in (("s", [started]), ("a", [answered]), ("d", finished(job.job_id))):
            await store.record(*some)
            os.write(1, f"{mark} {job.job_id}\\n".encode())

async def main():
    with Store.open(Path(sys.argv[1])) as store:
        stage.fill(store.connection, [])
        store.begin(name="demo", target="sandbox", manifest="demo.yaml", at=1.0, whole=False)
        jobs = planned_after(store.reading, -1, 100_000)
        async with anyio.create_task_group() as group:
            group.start_soon(store.writer.run)
            for first in range(8):
                group.start_soon(work, store, jobs[first::8])

anyio.run(main)
"""

_MEANS = {
    "s": {"submitting", "unknown", "submitted", "completed", "done"},
    "a": {"submitted", "completed", "done"},
    "d": {"done"},
}


def _killed_after(state: Path, lines: int) -> list[str]:
    """What a process said that it had recorded, until it was killed some time after that many lines."""
    child = subprocess.Popen([sys.executable, "-c", _WRITING, str(state)], stdout=subprocess.PIPE, cwd=ROOT)
    assert child.stdout is not None
    with child.stdout as said:
        first = [said.readline() for _ in range(lines)]
        os.kill(child.pid, signal.SIGKILL)
        rest = said.readlines()
    assert child.wait() == -signal.SIGKILL
    return [line.decode().strip() for line in first + rest]


async def test_what_was_recorded_survives_being_killed_at_any_moment(state: Path) -> None:
    with planned(state, (item(seq) for seq in range(4_000))):
        pass
    chance = random.Random(20)
    said: list[str] = []
    for _ in range(6):
        mine = _killed_after(state, chance.randrange(1, 300))
        assert mine
        said += mine
        with closing(open_writer(state)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            states = dict(connection.execute("SELECT id, state FROM jobs").fetchall())
            requests = {job_id for (job_id,) in connection.execute("SELECT job_id FROM requests")}
        for line in said:
            mark, job_id = line.split()
            assert states[int(job_id)] in _MEANS[mark]
            assert mark == "s" or int(job_id) in requests
        # One change of each of eight workers may be on disk and not yet said, no more.
        assert len(requests) <= sum(line[0] == "a" for line in said) + 8 * 6
