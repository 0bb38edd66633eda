"""What the state file keeps of flagged results: marks by flags, requests in their order, and nothing of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.store import flagged, reader
from falbatch.core.changes import (
    FileReady,
    FilesStored,
    Rerolled,
    ResultFlagged,
    ResultRefused,
    ResultStored,
    SubmitStarted,
)
from falbatch.core.classify import Failure
from falbatch.core.flags import Noticed
from falbatch.core.plan import Again
from falbatch.core.report import FlaggedGroup
from falbatch.core.state import IllegalTransition, State
from tests.adapters.conftest import AT, accepted, adopt, finished, item, planned, recording, reopen, want_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from falbatch.adapters.store.store import Store

pytestmark = pytest.mark.anyio

NSFW = Noticed(("nsfw",), 12345678901234567890, ("1-rejected-1.png",))
BOTH = Noticed(("black", "nsfw"))
FLAGGED = Failure("flagged", "its result is flagged: nsfw", 200)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with planned(tmp_path / "falbatch.db", (item(seq) for seq in range(5))) as one:
        yield one


async def completed(store: Store, job_id: int, attempt: int = 1, *, roll: int = 0, seed: int | None = None) -> str:
    """Bring a job to its result; returns its request."""
    request_id = f"r-{job_id}-{attempt}"
    started = SubmitStarted(job_id, attempt, AT, 5, b"\7" * 32 if seed else None, roll=roll, seed=seed)
    await store.record(started, accepted(job_id, attempt=attempt)[1])
    await store.record(ResultStored(job_id, request_id, AT, b'{"seed": 9}', "application/json", 2.0, cost=5))
    return request_id


async def mark(store: Store, job_id: int, seen: Noticed) -> None:
    request_id = await completed(store, job_id)
    await store.record(ResultFlagged(job_id, request_id, AT, seen, True), FilesStored(job_id, AT))


def columns(store: Store, job_id: int) -> tuple[object, ...]:
    (row,) = store.connection.execute(
        "SELECT state, roll, failures, request_id, marked FROM jobs WHERE id = ?", (job_id,)
    ).fetchall()
    return tuple(row)


async def test_marked_jobs_are_grouped_by_their_flags_in_the_manifests_order(store: Store) -> None:
    async with recording(store):
        await mark(store, 3, NSFW)
        await mark(store, 1, NSFW)
        await mark(store, 2, BOTH)
        await store.record(*accepted(4), *finished(4))
    names = [row[0] for row in store.connection.execute("SELECT name FROM jobs ORDER BY id")]
    status = store.status()
    assert status.flagged == (
        FlaggedGroup(("black", "nsfw"), 1, (names[1],)),
        FlaggedGroup(("nsfw",), 2, (names[0], names[2])),
    )
    assert status.counts == {State.DONE: 4, State.PLANNED: 1}


async def test_groups_are_counted_in_an_index_and_name_the_first_ones_only(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flagged, "SHOWN", 1)
    async with recording(store):
        await mark(store, 1, NSFW)
        await mark(store, 2, NSFW)
    ((group),) = flagged.groups(store.connection)
    assert (group.count, len(group.jobs)) == (2, 1)
    asked: list[str] = []
    store.connection.set_trace_callback(asked.append)
    flagged.groups(store.connection)
    store.connection.set_trace_callback(None)
    for question in asked:
        plan = [row[3] for row in store.connection.execute(f"EXPLAIN QUERY PLAN {question}")]
        assert any("jobs_marked" in step for step in plan), plan


async def test_a_marked_job_that_leaves_the_manifest_or_is_done_again_is_marked_no_more(store: Store) -> None:
    async with recording(store):
        await mark(store, 1, NSFW)
        await mark(store, 2, NSFW)
    want_files(store, 1)
    assert columns(store, 1)[0::4] == ("completed", None)
    store.connection.execute("UPDATE jobs SET seq = NULL WHERE id = 2")
    assert flagged.groups(store.connection) == ()


async def test_a_reroll_lets_go_of_result_and_files_and_keeps_what_was_noticed(store: Store) -> None:
    async with recording(store):
        request_id = await completed(store, 1)
        await store.record(FileReady(1, 0, "", "1-rejected-1.png", 10, b"\1" * 32, "image/png", AT, True))
        assert store.files_of(1)[0].is_black
        await store.record(ResultFlagged(1, request_id, AT, NSFW), Rerolled(1, AT, 1))
        assert columns(store, 1) == ("planned", 1, 1, None, None)
        assert (store.result_of(1), store.files_of(1)) == (None, [])
        assert store.job(1).roll == 1
        assert [job.roll for job in store.planned_of("fal-ai/flux/dev", -1, 9)] == [1, 0, 0, 0, 0]
        with pytest.raises(IllegalTransition):
            await store.record(Rerolled(1, AT, 2))
        second = await completed(store, 1, 2, roll=1, seed=77)
        await store.record(FilesStored(1, AT))
    row = reader.export_row(store.connection, 1)
    assert (row.request_id, row.flags) == (second, ())
    assert [(one.attempt, one.request_id, one.seed, one.flags, one.files) for one in row.lineage] == [
        (1, request_id, NSFW.seed, ("nsfw",), ("1-rejected-1.png",)),
        (2, second, 77, (), ()),
    ]
    assert reader.export_row(store.connection, 2).lineage == ()


async def test_a_refused_result_keeps_its_files_and_says_why(store: Store) -> None:
    async with recording(store):
        request_id = await completed(store, 1)
        await store.record(FileReady(1, 0, "", "1-rejected-1.png", 10, b"\1" * 32, "image/png", AT))
        await store.record(ResultFlagged(1, request_id, AT, NSFW), ResultRefused(1, AT, FLAGGED))
    status = store.status()
    assert (status.counts[State.FAILED], status.files, status.flagged) == (1, 1, ())
    assert [(group.error_type, group.count) for group in status.failures] == [("flagged", 1)]
    assert reader.export_row(store.connection, 1).flags == ("nsfw",)


@pytest.mark.parametrize(
    ("has_rerolls", "roll"),
    [(True, 2), (False, 0)],
)
async def test_the_users_word_goes_on_with_the_next_seed_only_where_results_are_rolled_again(
    store: Store, has_rerolls: bool, roll: int
) -> None:
    async with recording(store):
        request_id = await completed(store, 1)
        await store.record(ResultFlagged(1, request_id, AT, NSFW), Rerolled(1, AT, 1))
        request_id = await completed(store, 1, 2, roll=1, seed=7)
        await store.record(ResultFlagged(1, request_id, AT, NSFW), ResultRefused(1, AT, FLAGGED))
    adopt(store, again=Again(submit=frozenset([1]), has_rerolls=has_rerolls))
    assert columns(store, 1)[:3] == ("planned", roll, 0)


async def test_an_unknown_reroll_is_submitted_again_as_it_was(store: Store) -> None:
    async with recording(store):
        request_id = await completed(store, 1)
        await store.record(ResultFlagged(1, request_id, AT, NSFW), Rerolled(1, AT, 1))
        await store.record(SubmitStarted(1, 2, AT, 5, b"\7" * 32, roll=1, seed=7))
    store.resume(at=AT)
    (lost,) = store.lost_submits()
    assert (lost.attempt, lost.sha256) == (2, b"\7" * 32)
    reopen(store, 1)
    assert columns(store, 1)[:2] == ("planned", 1)


async def test_the_seed_that_leaves_is_on_record_with_its_intent(store: Store) -> None:
    async with recording(store):
        await store.record(SubmitStarted(1, 1, AT, 5, b"\7" * 32, roll=1, seed=3))
        await store.record(SubmitStarted(2, 1, AT, 5))
    attempts = store.connection.execute("SELECT job_id, seed FROM attempts ORDER BY job_id").fetchall()
    assert attempts == [(1, 3), (2, None)]


async def test_a_result_that_is_set_aside_comes_back_whole_and_goes_when_another_is_taken(store: Store) -> None:
    def left() -> list[int]:
        (row,) = store.connection.execute("SELECT (SELECT count(*) FROM aside), (SELECT count(*) FROM aside_files)")
        return list(row)

    async with recording(store):
        for job_id in (1, 2):
            request_id = await completed(store, job_id)
            await store.record(FileReady(job_id, 0, "", f"{job_id}-rejected-1.png", 10, b"\1" * 32, "image/png", AT))
            await store.record(ResultFlagged(job_id, request_id, AT, NSFW), Rerolled(job_id, AT, 1))
        assert left() == [2, 2]
        await completed(store, 2, 2, roll=1, seed=77)
        assert left() == [2, 2], "it is not taken yet"
        await store.record(FilesStored(2, AT))
        assert left() == [1, 1]
    adopt(store, again=Again(files=frozenset([1]), aside=frozenset([1])))
    assert columns(store, 1)[::3] == ("completed", "r-1-1")
    result = store.result_of(1)
    assert result is not None
    assert result.body == b'{"seed": 9}'
    assert [(file.path, file.stored) for file in store.files_of(1)] == [("1-rejected-1.png", 0)]
    assert left() == [0, 0]
