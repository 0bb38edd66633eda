"""Group commit over real SQLite, also when the disk refuses."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from falbatch.sandbox.endpoints import profile_of
from falbatch.sandbox.journal import Journal, request_from
from falbatch.sandbox.requests import Request
from falbatch.sandbox.states import Status
from falbatch.sandbox.store import Row, Store
from falbatch.sandbox.verdict import EXPIRED_VERDICT, Verdict, decide

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

RAW = b'{"prompt":"x","seed":123456789012345678901234567890}'


def a_request(ordinal: int, verdict: Verdict | None = None, **life: Any) -> Request:
    return Request(
        id=f"id-{ordinal}",
        ordinal=ordinal,
        account="me",
        endpoint="fal-ai/flux/dev",
        query={"a": "1"},
        headers={"x-custom": "b"},
        raw=RAW,
        submitted_at=1.5,
        low=True,
        deadline=9.0,
        verdict=verdict or decide(profile_of("fal-ai/flux/dev"), {"prompt": "x"}, None),
        **life,
    )


class FullDisk(Store):
    """Refuses its first commit."""

    refusals = 1

    def commit(self, new: Sequence[Row], changed: Sequence[Row], meta: Mapping[str, Any], *, wipe: bool) -> None:
        if self.refusals:
            self.refusals -= 1
            raise sqlite3.OperationalError("database or disk is full")
        super().commit(new, changed, meta, wipe=wipe)


def kept(folder: Path) -> tuple[list[Request], dict[str, Any]]:
    store = Store(folder)
    try:
        return [request_from(row) for row in store.rows()], store.meta()
    finally:
        store.close()


def fields(request: Request) -> dict[str, Any]:
    return {name: getattr(request, name) for name in Request.__slots__ if name != "is_kept"}


def test_every_field_comes_back_as_it_was(tmp_path: Path) -> None:
    requests = [
        a_request(0),
        a_request(1, status=Status.IN_PROGRESS, attempt=2, started_at=2.0, finishes_at=4.0),
        a_request(2, EXPIRED_VERDICT, status=Status.COMPLETED, ended_at=9.0),
        a_request(3, decide(profile_of("fal-ai/flux/dev"), {"prompt": "x"}, "content_policy_violation")),
    ]

    async def write() -> None:
        journal = Journal(Store(tmp_path), dict)
        for request in requests:
            journal.note(request)
        await journal.settled()
        await journal.close()

    asyncio.run(write())
    assert [fields(request) for request in kept(tmp_path)[0]] == [fields(request) for request in requests]


def test_later_changes_update_the_row(tmp_path: Path) -> None:
    async def write() -> None:
        journal, request = Journal(Store(tmp_path), dict), a_request(0)
        journal.note(request)
        await journal.settled()
        request.status, request.ended_at = Status.COMPLETED, 7.0
        journal.note(request)
        await journal.close()

    asyncio.run(write())
    (request,) = kept(tmp_path)[0]
    assert (request.status, request.ended_at) == (Status.COMPLETED, 7.0)


def test_a_refused_commit_is_reported_and_its_work_is_in_the_next_one(tmp_path: Path) -> None:
    facts = iter([{"locks": 1}, {}])

    async def write() -> None:
        journal = Journal(FullDisk(tmp_path), lambda: next(facts))
        journal.note(a_request(0))
        with pytest.raises(sqlite3.OperationalError, match="full"):
            await journal.settled()
        journal.note(a_request(1))
        await journal.settled()
        await journal.close()

    asyncio.run(write())
    requests, meta = kept(tmp_path)
    assert [request.id for request in requests] == ["id-0", "id-1"]
    assert meta == {"locks": 1}


def test_a_wipe_deletes_what_was_noted_before_it_only(tmp_path: Path) -> None:
    async def write() -> None:
        journal = Journal(Store(tmp_path), dict)
        journal.note(a_request(0))
        await journal.settled()
        journal.note(a_request(1))
        journal.wipe()
        journal.note(a_request(2))
        await journal.close()

    asyncio.run(write())
    assert [request.id for request in kept(tmp_path)[0]] == ["id-2"]
