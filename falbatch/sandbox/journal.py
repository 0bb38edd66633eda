"""Group commit: collects what changed and writes it in the background, as often as the disk lets it."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from falbatch.sandbox.endpoints import profile_of
from falbatch.sandbox.requests import Request, Via
from falbatch.sandbox.states import Status
from falbatch.sandbox.verdict import CANCELLED_VERDICT, EXPIRED_VERDICT, decide

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from falbatch.sandbox.store import Row, Store

_ENDINGS = {verdict.failure: verdict for verdict in (CANCELLED_VERDICT, EXPIRED_VERDICT)}


class Journal:
    """Keeps requests and small facts in a store. Belongs to one event loop.

    What is noted between two commits goes into the next one together. `meta` is asked at each commit for the facts
    that changed since the last.
    """

    def __init__(self, store: Store, meta: Callable[[], Mapping[str, Any]]) -> None:
        self._store = store
        self._meta = meta
        self._noted: dict[int, Request] = {}
        self._wipe = False
        self._unsaved: dict[str, Any] = {}
        """Facts of a commit that failed."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sandbox-store")
        self._next: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def note(self, request: Request) -> None:
        """Have the present life of `request` written with the next commit."""
        self._noted[request.ordinal] = request
        self.wake()

    def wipe(self) -> None:
        """Have every request deleted with the next commit, before what is noted after this."""
        self._noted.clear()
        self._wipe = True
        self.wake()

    def wake(self) -> None:
        """Have a commit made soon."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            self._next.add_done_callback(_mark_retrieved)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write())

    async def settled(self) -> None:
        """Wait until everything noted so far is on disk. Raises what the store raised."""
        if self._next is not None:
            await asyncio.shield(self._next)

    async def close(self) -> None:
        """Write what is left and close the store."""
        while self._task is not None and not self._task.done():
            await self._task
        self._thread.shutdown()
        self._store.close()

    async def _write(self) -> None:
        while self._next is not None:
            waiting, self._next = self._next, None
            noted, self._noted = list(self._noted.values()), {}
            fresh = [request for request in noted if not request.is_kept]
            new = [insert_row(request) for request in fresh]
            changed = [update_row(request) for request in noted if request.is_kept]
            wipe, self._wipe = self._wipe, False
            meta = {**self._unsaved, **self._meta()}
            self._unsaved = {}
            for request in fresh:
                request.is_kept = True
            loop = asyncio.get_running_loop()
            try:
                await loop.run_in_executor(
                    self._thread, lambda *args: self._store.commit(*args[:3], wipe=args[3]), new, changed, meta, wipe
                )
            except Exception as error:  # noqa: BLE001 - whoever waits gets it as a 500
                self._take_back(noted, fresh, meta, wipe=wipe)
                waiting.set_exception(error)
            else:
                waiting.set_result(None)

    def _take_back(self, noted: list[Request], fresh: list[Request], meta: dict[str, Any], *, wipe: bool) -> None:
        """After a failed commit: its work is part of the next one."""
        for request in fresh:
            request.is_kept = False
        self._noted = {request.ordinal: request for request in noted} | self._noted
        self._unsaved = meta
        self._wipe = self._wipe or wipe


def _mark_retrieved(future: asyncio.Future[None]) -> None:
    """Nobody may be waiting: an exception must not be reported as lost a second time."""
    if not future.cancelled():
        future.exception()


def insert_row(request: Request) -> Row:
    """All columns, as in the store's schema."""
    return (
        request.ordinal,
        request.id,
        request.account,
        request.endpoint,
        json.dumps(dict(request.query)),
        json.dumps(dict(request.headers)),
        request.raw,
        request.submitted_at,
        int(request.low),
        request.deadline,
        *update_row(request)[:-1],
        str(request.via),
    )


def update_row(request: Request) -> Row:
    """The columns of a request's life, then its key."""
    return (
        request.verdict.ending,
        str(request.status),
        request.attempt,
        request.started_at,
        request.finishes_at,
        request.ended_at,
        request.ordinal,
    )


def request_from(row: Row) -> Request:
    """A request as `insert_row` wrote it; its verdict follows from the rest."""
    (ordinal, id_, account, endpoint, query, headers, raw, submitted_at, low, deadline, failure, *life) = row
    status, attempt, started_at, finishes_at, ended_at, via = life
    request = Request(
        id=id_,
        ordinal=ordinal,
        account=account,
        endpoint=endpoint,
        query=json.loads(query),
        headers=json.loads(headers),
        raw=raw,
        submitted_at=submitted_at,
        low=bool(low),
        deadline=deadline,
        verdict=CANCELLED_VERDICT,
        via=Via(via),
        status=Status(status),
        attempt=attempt,
        started_at=started_at,
        finishes_at=finishes_at,
        ended_at=ended_at,
        is_kept=True,
    )
    ended = _ENDINGS.get(failure) if request.status is Status.COMPLETED else None
    request.verdict = ended or decide(profile_of(endpoint), request.payload, failure)
    return request
