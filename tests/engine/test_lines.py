"""What a run learns of durations is in the state file afterwards, and the next run begins with it."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio
import pytest

from falbatch.core import changes
from falbatch.core.sketch import Sketch
from falbatch.core.state import State
from falbatch.engine.lines import KEPT_EACH_S, Lines
from falbatch.errors import DiskFull
from tests.engine.fakes import FakeClock, FakeStore
from tests.engine.runs import Run, settings_with

pytestmark = pytest.mark.anyio

ENDPOINT = "fal-ai/x"


class CountingStore(FakeStore):
    """Counts what was written about durations."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    async def record(self, *happened: changes.Change) -> None:
        self.written += [change.endpoint for change in happened if isinstance(change, changes.DurationsLearned)]
        await super().record(*happened)


@dataclass
class Stage:
    """Lines over a store that counts."""

    store: CountingStore = field(default_factory=CountingStore)

    def __post_init__(self) -> None:
        self.lines = Lines(self.store, FakeClock())


async def test_a_run_leaves_what_it_learned_and_the_next_one_asks_less() -> None:
    first = Run(30, settings=settings_with(in_flight=5))
    first.queue.service_s = 20.0
    await first.run()
    assert Sketch.from_bytes(first.store.learned[ENDPOINT]).quantile(0.5) == pytest.approx(20.0, rel=0.15)
    second = Run(30, settings=settings_with(in_flight=5))
    second.queue.service_s = 20.0
    second.store.learned = dict(first.store.learned)
    await second.run()
    assert second.store.states() == [State.DONE] * 30
    assert len(second.queue.polls) <= 30 * 2.5
    assert len(second.queue.polls) < len(first.queue.polls)
    assert second.execution._polls.usual_s(ENDPOINT) == pytest.approx(20.0, rel=0.15)


async def test_a_run_that_is_stopped_leaves_it_too() -> None:
    run = Run(30, settings=settings_with(in_flight=5))
    run.queue.service_s = 2.0
    async with anyio.create_task_group() as group:
        group.start_soon(run.run)
        await anyio.sleep(9.0)
        run.execution.stop("SIGINT")
    assert ENDPOINT in run.store.learned


async def test_a_damaged_or_foreign_sketch_is_as_none() -> None:
    for data in (b"", b"fbq9 from next year", bytes(200)):
        run = Run(10)
        run.store.learned = {ENDPOINT: data}
        await run.run()
        assert run.store.states() == [State.DONE] * 10
        assert Sketch.from_bytes(run.store.learned[ENDPOINT]).count == 10


async def test_only_what_is_new_is_written() -> None:
    stage = Stage()
    stage.lines.of("a/quiet")
    stage.lines.of("a/busy").took(3.0)
    await stage.lines.keep()
    await stage.lines.keep()
    assert stage.store.written == ["a/busy"]
    stage.lines.of("a/busy").took(3.0)
    await stage.lines.keep()
    assert stage.store.written == ["a/busy", "a/busy"]


async def test_it_is_written_about_each_minute() -> None:
    stage = Stage()
    assert not stage.lines.is_due
    await anyio.sleep(KEPT_EACH_S)
    assert stage.lines.is_due
    await stage.lines.keep()
    assert not stage.lines.is_due


async def test_a_long_run_is_not_robbed_of_what_it_learned_by_a_kill() -> None:
    run = Run(200, settings=settings_with(in_flight=2))
    run.queue.service_s = 2.0
    async with anyio.create_task_group() as group:
        group.start_soon(run.run)
        await anyio.sleep(KEPT_EACH_S + 10.0)
        assert ENDPOINT in run.store.learned, "the run still goes on"
        group.cancel_scope.cancel()


async def test_what_cannot_be_written_ends_nothing() -> None:
    stage = Stage()
    stage.lines.of("a/b").took(3.0)
    stage.store.fails.append(DiskFull("no room"))
    await stage.lines.keep()


async def test_without_a_store_nothing_is_remembered() -> None:
    lines = Lines(None, FakeClock())
    lines.of("a/b").took(3.0)
    await lines.keep()
