"""The URLs of requests come back as fal gave them, though their forms are kept once; and where a group is written."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.adapters.store import addresses, writer
from falbatch.adapters.store.addresses import Addresses
from falbatch.adapters.store.database import open_empty
from falbatch.core.changes import ResultStored, SubmitAccepted, SubmitStarted
from falbatch.core.state import IllegalTransition
from tests.adapters.conftest import AT, item, planned, recording

if TYPE_CHECKING:
    from pathlib import Path

    from falbatch.adapters.store.store import Store

pytestmark = pytest.mark.anyio

ID = "019a5f4e-0000-7000-8000-00000000000"
BASE = "https://queue.fal.run/fal-ai/flux/requests/"
ODD = [
    ("", "", ""),
    (f"{BASE}x{{}}y/status", BASE, f"{BASE}{{}}"),
    (f"{BASE}other/status", f"{BASE}other", ""),
    ("https://elsewhere.test/?a=1&sig={abc}", "u", "c"),
]


def accepted(job_id: int, request_id: str, urls: tuple[str, str, str]) -> tuple[SubmitStarted, SubmitAccepted]:
    return SubmitStarted(job_id, 1, AT), SubmitAccepted(job_id, 1, AT, request_id, *urls)


def usual(request_id: str) -> tuple[str, str, str]:
    return f"{BASE}{request_id}/status", f"{BASE}{request_id}", f"{BASE}{request_id}/cancel"


def urls_of(store: Store) -> list[tuple[str, str, str]]:
    requests = [job.request for job in store.paid_jobs()]
    return [(one.status_url, one.response_url, one.cancel_url) for one in requests if one is not None]


async def test_urls_come_back_as_they_were_and_the_usual_ones_are_kept_once(tmp_path: Path) -> None:
    given_urls = [*(usual(f"{ID}{number}") for number in range(1, 6)), *ODD]
    with planned(tmp_path / "falbatch.db", map(item, range(len(given_urls)))) as store:
        async with recording(store):
            for number, urls in enumerate(given_urls, 1):
                await store.record(*accepted(number, f"{ID}{number}", urls))
        assert urls_of(store) == given_urls
        assert store.connection.execute("SELECT count(*) FROM addresses").fetchone()[0] <= 1 + len(ODD)
        assert store.connection.execute("SELECT count(DISTINCT address) FROM requests WHERE job_id < 6").fetchone() == (
            1,
        )
    with planned(tmp_path / "falbatch.db", map(item, range(len(given_urls)))) as store:
        assert urls_of(store) == given_urls


@given(
    st.lists(
        st.tuples(
            st.text("ab{}-/", min_size=1, max_size=4), st.tuples(*[st.text("ab{}-/%?", max_size=12) for _ in range(3)])
        ),
        max_size=8,
        unique_by=lambda one: one[0],
    )
)
def test_any_urls_come_back_whatever_the_id_looks_like(requests: list[tuple[str, tuple[str, str, str]]]) -> None:
    connection = open_empty()
    kept = Addresses(connection)
    for request_id, urls in requests:
        connection.execute(
            "INSERT INTO requests (request_id, job_id, attempt, status, accepted_at, address, status_url, response_url,"
            " cancel_url) VALUES (?, 1, 1, 'accepted', 1.0, ?, ?, ?, ?)",
            (request_id, *kept.kept(request_id, urls)),
        )
    for request_id, urls in requests:
        found = connection.execute(
            f"SELECT {addresses.URLS} FROM requests r {addresses.JOIN_FORM} WHERE r.request_id = ?", (request_id,)
        )
        assert found.fetchone() == urls
    connection.close()


async def test_forms_without_end_are_kept_with_their_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """URLs with a signature are all different: a table of forms would be the larger one."""
    monkeypatch.setattr(addresses, "MOST", 3)
    signed = [(f"{BASE}{ID}{number}?sig={number}", "u", "c") for number in range(1, 7)]
    with planned(tmp_path / "falbatch.db", map(item, range(6))) as store:
        async with recording(store):
            for number, urls in enumerate(signed, 1):
                await store.record(*accepted(number, f"{ID}{number}", urls))
        assert store.connection.execute("SELECT count(*) FROM addresses").fetchone() == (3,)
        assert urls_of(store) == signed


async def test_a_form_that_was_rolled_back_is_written_again(tmp_path: Path) -> None:
    """The first request of an endpoint shares its commit with a change that is refused."""
    refused: list[int] = []

    async def record(job_id: int) -> None:
        try:
            await store.record(*accepted(job_id, f"{ID}{job_id}", usual(f"{ID}{job_id}")))
        except IllegalTransition:
            refused.append(job_id)

    with planned(tmp_path / "falbatch.db", map(item, range(2))) as store:
        async with recording(store), anyio.create_task_group() as callers:
            for job_id in (1, 77, 2):
                callers.start_soon(record, job_id)
        assert refused == [77]
        assert urls_of(store) == [usual(f"{ID}1"), usual(f"{ID}2")]


@pytest.mark.parametrize(("size", "is_ours"), [(10, True), (2_000, False)])
async def test_a_group_is_written_on_the_loop_and_large_results_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, *, is_ours: bool
) -> None:
    """The commit, which waits for the disk, never holds the loop up."""
    monkeypatch.setattr(writer, "HEAVY_BYTES", 1_000)
    threads: dict[str, int] = {}
    with planned(tmp_path / "falbatch.db", [item(0)]) as store:
        async with recording(store):
            await store.record(*accepted(1, f"{ID}1", usual(f"{ID}1")))
            store.connection.set_trace_callback(
                lambda sql: threads.__setitem__(sql.split(" ")[0], threading.get_ident())
            )
            await store.record(ResultStored(1, f"{ID}1", AT, b"x" * size, "text/plain"))
        stored = store.result_of(1)
    assert stored is not None
    assert len(stored.body) == size
    assert (threads["INSERT"] == threading.get_ident()) is is_ours
    assert threads["COMMIT"] != threading.get_ident()
