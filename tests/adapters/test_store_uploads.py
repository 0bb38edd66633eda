"""Files of inputs in the state file: contents that are remembered, URLs that are kept, a plan's count of them."""

from __future__ import annotations

import hashlib
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.localfiles import Content, Stamp
from falbatch.adapters.store import stage, uploads
from falbatch.adapters.store.database import open_empty
from falbatch.adapters.store.store import Store
from falbatch.core.changes import InputFailed, Stuck, SubmitNotAccepted, SubmitStarted, UploadStored
from falbatch.core.classify import Failure
from falbatch.core.fileinputs import FileMark, Travel, Upload
from falbatch.core.identity import canonical_json
from falbatch.core.state import Event, State
from tests.adapters.conftest import AT, adopt, item, planned, recording

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

pytestmark = pytest.mark.anyio

SHA = hashlib.sha256(b"a").digest()
CONTENT = Content(Stamp(7, 123_456_789, 123_456_790), 1_123_456_789, SHA)
MARK = FileMark(SHA)
INPUT = canonical_json({"image_url": MARK.as_json()})


def staged(connection: sqlite3.Connection, *found: tuple[str, str, Content]) -> None:
    stage.fill(connection, [item(0)])
    uploads.stage_files(connection, found)


def stored(url: str, *, at: float = AT, terms: str = "here", content_type: str = "") -> UploadStored:
    return UploadStored(1, at, SHA, content_type, terms, url, 7, at + 100)


def test_what_a_plan_found_is_kept_with_the_plan_and_forgotten_when_no_plan_names_it(tmp_path: Path) -> None:
    with planned(tmp_path / "falbatch.db", [item(0)]) as store:
        staged(store.connection, ("/a", "a", CONTENT), ("/b", "b", CONTENT))
        assert uploads.staged_content(store.connection, "/a") == CONTENT
        assert uploads.known_content(store.connection, "/a") is None, "nothing is written before the plan is agreed to"
        adopt(store)
        assert uploads.known_content(store.connection, "/a") == CONTENT
        assert store.paths_of(SHA) == ["/a", "/b"]
        staged(store.connection, ("/b", "b", CONTENT))
        adopt(store, whole=False)
        assert store.paths_of(SHA) == ["/a", "/b"], "a part of the manifest says nothing of the rest"
        staged(store.connection, ("/b", "b", CONTENT))
        adopt(store)
        assert store.paths_of(SHA) == ["/b"]


def test_a_garbled_note_is_not_believed(tmp_path: Path) -> None:
    with planned(tmp_path / "falbatch.db", [item(0)]) as store:
        staged(store.connection, ("/a", "a", CONTENT))
        adopt(store)
        store.connection.execute("UPDATE local_files SET sha256 = ?", (bytes(32),))
        assert uploads.known_content(store.connection, "/a") is None


async def test_every_url_is_kept_and_the_latest_on_the_same_terms_is_used(tmp_path: Path) -> None:
    with planned(tmp_path / "falbatch.db", [item(0)]) as store:
        async with recording(store):
            await store.record(stored("u1"), stored("u2", at=AT + 5), stored("u3", at=AT + 9, terms="there"))
            await store.record(stored("u4", at=AT + 9, content_type="image/png"))
        assert store.upload_of(MARK, "here") == Upload("u2", AT + 5, AT + 105)
        assert store.upload_of(FileMark(SHA, content_type="image/png"), "here") == Upload("u4", AT + 9, AT + 109)
        assert store.upload_of(MARK, "nowhere") is None
        assert sorted(store.urls_of(SHA)) == ["u1", "u2", "u3", "u4"]


async def test_an_input_that_cannot_be_sent_ends_its_job(tmp_path: Path) -> None:
    with planned(tmp_path / "falbatch.db", [item(0)]) as store:
        async with recording(store):
            await store.record(InputFailed(1, AT, Failure("file_changed", "it did")))
        assert store.job(1).state is State.FAILED
        assert [group.error_type for group in store.status().failures] == ["file_changed"]


async def test_a_job_is_left_open_until_a_later_submit_has_an_answer(tmp_path: Path) -> None:
    """`InputFailed` must not end it: its first submit may have run."""
    failure = Failure("no_answer", "none")
    with planned(tmp_path / "falbatch.db", [item(0), item(1)]) as store:
        async with recording(store):
            await store.record(SubmitStarted(1, 1, AT), SubmitNotAccepted(1, 1, AT, Event.NO_ANSWER, failure))
            assert store.is_left_open(1)
            assert not store.is_left_open(2)
            store._open_again([1], Event.REOPENED, AT)
            await store.record(SubmitStarted(1, 2, AT), SubmitNotAccepted(1, 2, AT, Event.REFUSED, failure))
            assert store.is_left_open(1)
            await store.record(Stuck(1, AT, Failure("file_missing", "it is")))
        assert store.job(1).state is State.PLANNED
        store.resume(at=AT)
        assert store.job(1).state is State.UNKNOWN
        store._open_again([1], Event.REOPENED, AT)
        store.new_writer()
        async with recording(store):
            await store.record(SubmitStarted(1, 3, AT), SubmitNotAccepted(1, 3, AT, Event.REJECTED, failure))
        assert not store.is_left_open(1)


async def test_what_left_is_known_by_its_hash(tmp_path: Path) -> None:
    sent = hashlib.sha256(b"sent").digest()
    with planned(tmp_path / "falbatch.db", [item(0), item(1)]) as store:
        async with recording(store):
            await store.record(SubmitStarted(1, 1, AT, sent_sha256=sent), SubmitStarted(2, 1, AT))
        store.resume(at=AT + 1)
        first, second = store.lost_submits()
    assert (first.sha256, second.sent_sha256) == (sent, None)
    assert second.sha256 == hashlib.sha256(second.input_json).digest()


def test_a_plan_counts_each_content_once() -> None:
    with closing(open_empty()) as connection:
        other = Content(Stamp(5, 1, 1), 2, hashlib.sha256(b"b").digest())
        staged(connection, ("/a", "a", CONTENT), ("/b", "b", CONTENT), ("/c", "c", other))
        wanted = uploads.Wanted(connection)
        for _ in range(3):
            wanted.add(INPUT)
        wanted.add(canonical_json({"x": [FileMark(other.sha256).as_json(), FileMark(SHA, Travel.DATA).as_json()]}))
        assert wanted.count("here", AT) == (2, 12, 0)
        uploads.keep(connection, stored("u"))
        assert wanted.count("here", AT) == (1, 5, 1)
        assert wanted.count("here", AT + 99) == (2, 12, 0), "what is about to end is uploaded again"
        assert wanted.count(None, AT) == (2, 12, 0)


def test_people_see_paths_else_urls_else_hashes() -> None:
    with closing(open_empty()) as connection:
        staged(connection)
        assert uploads.named(connection, INPUT) == canonical_json({"image_url": f"sha256:{SHA.hex()}"})
        uploads.keep(connection, stored("https://u"))
        assert uploads.named(connection, INPUT) == b'{"image_url":"https://u"}'
        staged(connection, ("/x/a.png", "a.png", CONTENT))
        assert uploads.named(connection, INPUT, staged=True) == b'{"image_url":"a.png"}'
        uploads.adopt_files(connection, whole=True)
        assert uploads.named(connection, INPUT) == b'{"image_url":"a.png"}'
        assert uploads.named(connection, b'{"a":1}') == b'{"a":1}'


def test_the_journal_brings_the_hash_back_when_the_state_file_is_lost(tmp_path: Path) -> None:
    import anyio

    state = tmp_path / "falbatch.db"
    sent = hashlib.sha256(b"sent").digest()

    async def submit() -> None:
        with planned(state, [item(0)]) as store:
            async with recording(store):
                await store.record(SubmitStarted(1, 1, AT, sent_sha256=sent))
            (tmp_path / "kept").write_bytes(state.with_suffix(".journal").read_bytes())

    anyio.run(submit)
    for name in ("falbatch.db", "falbatch.db.copy"):
        (tmp_path / name).unlink()
    (tmp_path / "kept").rename(state.with_suffix(".journal"))
    with Store.open(state) as store:
        store.resume(at=AT + 1)
        assert [submit.sent_sha256 for submit in store.lost_submits()] == [sent]
