"""Work for the disk, done in worker threads: what comes while they are busy goes together, one hop for many.

    do() ──▶ waiting ──▶ a batch in a thread ──▶ folders synced, once each ──▶ everybody in the batch goes on

A hop costs 25 to 35 µs, a synced folder as much as a small file; a lone caller waits for nobody.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

THREADS: Final = 4
"""Batches at once, on a slow disk: files that are synced side by side share its own commits."""

PATIENCE_S: Final = 0.025
"""A batch that takes longer gets company. A fast disk is through with one before that, and each thread more that wakes
beside a busy loop costs it time: with four at once a job cost 0.3 ms more (measured)."""

BATCH_MOST: Final = 32
"""Most pieces of work in one batch: the last of them waits for the first."""


class Batch:
    """What the pieces of work of one hop share."""

    def __init__(self) -> None:
        self._done: set[object] = set()
        self.folders: list[Path] = []
        """Those that the piece of work at hand wants synced before its caller goes on."""

    def once(self, what: object, work: Callable[[], object]) -> None:
        """Do `work` unless this batch did `what` already. Its exceptions are the caller's, and it is tried again."""
        if what not in self._done:
            work()
            self._done.add(what)

    def sync_later(self, folder: Path) -> None:
        """The names in `folder` are durable before the caller goes on."""
        self.folders.append(folder)


@dataclass(slots=True, eq=False)
class _Piece:
    """One piece of work, and what became of it."""

    work: Callable[[Batch], Any]
    done: anyio.Event = field(default_factory=anyio.Event)
    value: Any = None
    error: BaseException | None = None
    folders: tuple[Path, ...] = ()


class Hops:
    """Worker threads for short work on the disk, ended with its block. Touched on one event loop only."""

    def __init__(self) -> None:
        self._waiting: deque[_Piece] = deque()
        self._busy = 0
        self._patient_until_s = 0.0
        """Before this, by the loop's clock, a busy thread gets no company."""
        # Not anyio's threads: a hop to one of those costs a task's cancel scope, a limiter's turn and two checkpoints.
        self._threads = ThreadPoolExecutor(THREADS, "falbatch-disk")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()

    async def do(self, work: Callable[[Batch], T], *, is_long: bool = False) -> T:
        """The value of `work(batch)`, done in a thread; what `is_long` has one of its own if any is free.

        Cancelling the caller does not stop it: it is waited for.
        """
        piece = _Piece(work)
        loop = asyncio.get_running_loop()
        if is_long and self._busy < THREADS:
            self._begin([piece])
        else:
            if not self._waiting and (not self._busy or loop.time() >= self._patient_until_s):
                loop.call_soon(self._carry)  # with those who come in this turn of the loop
            self._waiting.append(piece)
        try:
            await piece.done.wait()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await piece.done.wait()
            raise
        if piece.error is not None:
            raise piece.error
        return cast("T", piece.value)

    def _carry(self) -> None:
        """Take what waits to a thread, and another one when that takes long."""
        if not self._waiting or self._busy == THREADS:
            return
        self._begin([self._waiting.popleft() for _ in range(min(BATCH_MOST, len(self._waiting)))])

    def _begin(self, batch: list[_Piece]) -> None:
        self._busy += 1
        loop = asyncio.get_running_loop()
        self._patient_until_s = loop.time() + PATIENCE_S
        impatience = loop.call_at(self._patient_until_s, self._carry)
        done = partial(self._done, batch, impatience)
        try:
            hop = self._threads.submit(_work_through, batch)
        except RuntimeError:  # no thread is to be had
            _work_through(batch)
            loop.call_soon(done)
        else:
            hop.add_done_callback(lambda _: loop.call_soon_threadsafe(done))

    def _done(self, batch: list[_Piece], impatience: asyncio.TimerHandle) -> None:
        impatience.cancel()
        self._busy -= 1
        self._carry()
        for piece in batch:
            piece.done.set()


def _work_through(pieces: list[_Piece]) -> None:
    """Runs in a worker thread."""
    batch = Batch()
    for piece in pieces:
        batch.folders = []
        try:
            piece.value = piece.work(batch)
        except Exception as error:  # noqa: BLE001  (it is the caller's, and raised there)
            piece.error = error
        else:
            piece.folders = tuple(batch.folders)
    synced = {folder: _synced(folder) for folder in {folder for piece in pieces for folder in piece.folders}}
    for piece in pieces:
        piece.error = piece.error or next(filter(None, map(synced.get, piece.folders)), None)


def _synced(folder: Path) -> OSError | None:
    """None when the names in `folder` are durable, else why not."""
    try:
        sync_folder(folder)
    except OSError as error:
        return error
    return None


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
