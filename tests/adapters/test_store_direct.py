"""Direct jobs in the state file: acceptance and outcome in one entry, and what is left when the file is lost."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest

from falbatch.adapters.store import reader, spending
from falbatch.adapters.store.store import Store
from falbatch.core.changes import RequestFound, ResultStored, SubmitAccepted, SubmitNotAccepted, SubmitStarted
from falbatch.core.classify import Failure
from falbatch.core.model import Item, Mode
from falbatch.core.record import StoredResult
from falbatch.core.state import Event, IllegalTransition, State
from tests.adapters.conftest import AT, accepted, finished, item, planned, planned_after, recording
from tests.adapters.damage import mended, rows

if TYPE_CHECKING:
    from pathlib import Path

REQUEST = "6a5f1e8a-0000-4000-8000-000000000000"


def call(seq: int) -> Item:
    return replace(item(seq), mode=Mode.STREAM)


def answer(job_id: int) -> tuple[SubmitAccepted, ResultStored]:
    taken = SubmitAccepted(job_id, 1, AT + 2, f"{REQUEST[:-1]}{job_id}", "", "", "")
    return taken, ResultStored(job_id, taken.request_id, AT + 2, b"{}", "application/json", events=b"{}\n")


def test_acceptance_and_result_are_one_entry(tmp_path: Path) -> None:
    async def live() -> None:
        with planned(tmp_path / "falbatch.db", map(call, range(3))) as store:
            assert {job.mode for job in planned_after(store.reading, -1, 9)} == {Mode.STREAM}
            async with recording(store):
                await store.record(SubmitStarted(1, 1, AT))
                await store.record(*answer(1))
                assert store.job(1).state is State.COMPLETED
                assert store.result_of(1) == StoredResult(b"{}", "application/json", b"{}\n")
                with pytest.raises(IllegalTransition):
                    await store.record(*answer(2))  # without an intent neither half is taken
                assert store.job(2).state is State.PLANNED
                assert store.result_of(2) is None
            assert store.status().mode is Mode.STREAM

    anyio.run(live)


def test_a_lost_call_and_its_output_are_one_entry_too(tmp_path: Path) -> None:
    async def live() -> None:
        with planned(tmp_path / "falbatch.db", map(call, range(1))) as store:
            async with recording(store):
                await store.record(SubmitStarted(1, 1, AT))
                lost = SubmitNotAccepted(1, 1, AT, Event.NO_ANSWER, Failure("transport_reset", "cut"), REQUEST)
                await store.record(lost)
                (submit,) = store.lost_submits()
                assert (submit.mode, submit.named_id) == (Mode.STREAM, REQUEST)
                found = RequestFound(1, 1, AT, REQUEST, AT)
                await store.record(found, ResultStored(1, REQUEST, AT, b"{}", "application/json"))
                assert store.job(1).state is State.COMPLETED
                assert store.lost_submits() == []

    anyio.run(live)


def test_an_answer_that_is_lost_with_the_file_leaves_an_unknown_job_that_names_its_request(tmp_path: Path) -> None:
    """A queued request is waited for again; a direct call's answer came with its acceptance, and is only in fal's
    list."""
    state = tmp_path / "a" / "falbatch.db"
    state.parent.mkdir()

    async def live() -> None:
        with planned(state, (item(0), call(1), call(2))) as store:
            async with recording(store):
                await store.record(*accepted(1), *finished(1))
                await store.record(SubmitStarted(2, 1, AT, reserved=7))
                await store.record(*answer(2))
                await store.record(SubmitStarted(3, 1, AT))
            for name in ("falbatch.journal", "falbatch.reserve"):
                shutil.copy(state.with_name(name), tmp_path / name)

    anyio.run(live)
    mended(tmp_path / "falbatch.db")
    assert rows(tmp_path / "falbatch.db") == {1: ("submitted", "r-1-1"), 2: ("unknown", None), 3: ("unknown", None)}
    with Store.open(tmp_path / "falbatch.db") as store:
        lost = {submit.job_id: submit for submit in store.lost_submits()}
        assert (lost[2].named_id, lost[2].reserved, lost[2].mode) == (f"{REQUEST[:-1]}2", 7, Mode.STREAM)
        assert lost[3].named_id == ""
        assert spending.known_requests(store.reading, [f"{REQUEST[:-1]}2"]) == set()
        assert reader.job(store.reading, 2).state is State.UNKNOWN
