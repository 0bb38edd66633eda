"""Work in batches: everybody gets what is theirs, nothing is lost, folders are synced once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import anyio
import pytest

from falbatch.adapters import hops as module
from falbatch.adapters.hops import BATCH_MOST, PATIENCE_S, THREADS, Batch, Hops

pytestmark = pytest.mark.anyio


async def test_each_caller_gets_its_own_value_or_its_own_error() -> None:
    hops = Hops()
    got: dict[int, object] = {}

    def work(number: int) -> int:
        if number % 3 == 0:
            raise ValueError(number)
        return number * 10

    async def call(number: int) -> None:
        try:
            got[number] = await hops.do(lambda _: work(number))
        except ValueError as error:
            got[number] = error.args[0]

    async with anyio.create_task_group() as group:
        for number in range(500):
            group.start_soon(call, number)
    assert got == {number: number if number % 3 == 0 else number * 10 for number in range(500)}


async def test_what_comes_while_the_threads_are_busy_goes_together() -> None:
    hops, gate = Hops(), threading.Event()
    batches: list[Batch] = []

    def waits(batch: Batch) -> None:
        batches.append(batch)
        gate.wait(10)

    async with anyio.create_task_group() as group:
        for _ in range(THREADS):
            group.start_soon(hops.do, waits)
            await anyio.sleep(2 * PATIENCE_S)
        for _ in range(BATCH_MOST):
            group.start_soon(hops.do, batches.append)
        await anyio.wait_all_tasks_blocked()
        assert len(batches) == len({id(batch) for batch in batches}) == THREADS
        gate.set()
    assert len(batches) == THREADS + BATCH_MOST
    assert len({id(batch) for batch in batches}) == THREADS + 1


async def test_a_batch_that_takes_long_gets_company_and_a_short_one_does_not() -> None:
    hops, gate, done = Hops(), threading.Event(), threading.Event()
    threads: list[str] = []

    def waits(_: Batch) -> None:
        threads.append(threading.current_thread().name)
        gate.wait(10)

    def ends(_: Batch) -> None:
        threads.append(threading.current_thread().name)
        done.set()

    async with anyio.create_task_group() as group:
        group.start_soon(hops.do, waits)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(hops.do, ends)
        await anyio.wait_all_tasks_blocked()
        assert not done.is_set()
        with anyio.fail_after(5):
            while not done.is_set():
                await anyio.sleep(0.005)
        assert not gate.is_set()
        gate.set()
    assert len(set(threads)) == 2


async def test_long_work_has_threads_of_its_own_while_there_are_any() -> None:
    hops, gate = Hops(), threading.Event()
    began: list[str] = []

    def waits(_: Batch) -> None:
        began.append(threading.current_thread().name)
        gate.wait(10)

    async with anyio.create_task_group() as group:
        for _ in range(THREADS + 1):
            group.start_soon(partial(hops.do, waits, is_long=True))
        with anyio.fail_after(5):
            while len(began) < THREADS:
                await anyio.sleep(0.001)
        await anyio.sleep(2 * PATIENCE_S)
        assert len(set(began)) == len(began) == THREADS
        gate.set()
    assert len(began) == THREADS + 1


async def test_no_thread_is_left() -> None:
    before = set(threading.enumerate())
    with Hops() as hops:
        await hops.do(lambda _: None)
        assert set(threading.enumerate()) - before
    assert not set(threading.enumerate()) - before


async def test_where_no_thread_is_to_be_had_the_work_is_done_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    hops = Hops()
    monkeypatch.setattr(ThreadPoolExecutor, "submit", refused)
    with anyio.fail_after(5):
        for _ in range(3):
            assert await hops.do(lambda _: "done") == "done"


async def test_cancelling_a_caller_does_not_stop_its_work() -> None:
    hops, gate = Hops(), threading.Event()
    done: list[str] = []

    def works(_: Batch) -> None:
        gate.wait(10)
        done.append("written")

    async with anyio.create_task_group() as group:
        group.start_soon(hops.do, works)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
        gate.set()
    assert done == ["written"]


async def test_a_folder_is_synced_once_a_batch_and_its_trouble_is_that_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    real = module.sync_folder

    def counted(folder: Path) -> None:
        synced.append(folder)
        real(folder)

    monkeypatch.setattr(module, "sync_folder", counted)
    hops, gate = Hops(), threading.Event()
    gone = tmp_path / "gone"
    errors: list[OSError] = []

    async def call(folder: Path) -> None:
        try:
            await hops.do(lambda batch: batch.sync_later(folder))
        except OSError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(THREADS):
            group.start_soon(hops.do, lambda _: gate.wait(10))
            await anyio.sleep(2 * PATIENCE_S)
        for folder in (tmp_path, gone, tmp_path, tmp_path):
            group.start_soon(call, folder)
        await anyio.wait_all_tasks_blocked()
        gate.set()
    assert sorted(synced) == [tmp_path, gone]
    assert [Path(error.filename) for error in errors] == [gone]


def test_once_means_once_unless_it_failed() -> None:
    batch = Batch()
    seen: list[str] = []

    def fails() -> None:
        seen.append("failed")
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        batch.once("a", fails)
    for _ in range(3):
        batch.once("a", lambda: seen.append("a"))
        batch.once("b", lambda: seen.append("b"))
    assert seen == ["failed", "a", "b"]
