"""The feeder: every planned job once, endpoints side by side, each in the manifest's order."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falbatch.core.backoff import BackoffPolicy
from falbatch.core.pacing import Rate, RetryBudget, Window
from falbatch.core.plateau import SLOW_START_SIZE, Plateau
from falbatch.engine import feed
from falbatch.engine.feed import CHUNK, Feeder
from falbatch.engine.gate import SubmitGate
from falbatch.errors import LimitReached
from tests.engine.fakes import FakeClock, FakeStore, VirtualLoop, planned

if TYPE_CHECKING:
    from falbatch.core.record import OpenJob

pytestmark = pytest.mark.anyio


def jobs_to(*endpoints: str) -> list[OpenJob]:
    """One job to each, in this order."""
    return [planned(number, endpoint=endpoint) for number, endpoint in enumerate(endpoints, start=1)]


class Feeding:
    """A feeder over a store in memory. Nothing is begun; jobs end when the test says so."""

    def __init__(self, *jobs: OpenJob, size: int = 10**6, plateau: Plateau | None = None) -> None:
        self.store = FakeStore(*jobs)
        self.reads: list[tuple[str, int, int]] = []
        original = self.store.planned_of

        def planned_of(endpoint: str, seq: int, limit: int) -> list[OpenJob]:
            self.reads.append((endpoint, seq, limit))
            return original(endpoint, seq, limit)

        self.store.planned_of = planned_of  # type: ignore[method-assign]  # counts what is read
        self.gate = SubmitGate(
            FakeClock(),
            window=Window(size=size, ceiling=size),
            rate=Rate(1000.0),
            backoff=BackoffPolicy(1.0, 60.0),
            budget=RetryBudget(0.2),
            plateau=plateau,
        )
        self.alive: set[int] = set()
        self.feeder = Feeder(self.store, self.gate, is_alive=self.alive.__contains__)

    async def take(self, most: int) -> list[OpenJob]:
        """The next jobs, until the feeder waits."""
        taken: list[OpenJob] = []
        with anyio.move_on_after(1):
            while len(taken) < most and (job := await self.feeder.next()) is not None:
                taken.append(job)
        return taken


async def test_one_endpoint_goes_in_the_manifests_order_and_is_read_in_chunks() -> None:
    feeding = Feeding(*jobs_to(*["x"] * 600))
    taken = await feeding.take(1000)
    assert [job.seq for job in taken] == list(range(600))
    assert feeding.reads == [("x", -1, CHUNK), ("x", 255, CHUNK), ("x", 511, CHUNK), ("x", 599, CHUNK)]


async def test_nothing_planned_is_nothing_to_wait_for() -> None:
    assert await Feeding().feeder.next() is None


async def test_a_slow_endpoint_that_comes_first_leaves_half_the_window_to_the_fast_one() -> None:
    feeding = Feeding(*jobs_to(*["slow"] * 100, *["fast"] * 100), size=20)
    taken = await feeding.take(1000)
    assert Counter(job.endpoint for job in taken) == {"slow": 10, "fast": 10}
    begun = len(taken)
    for _ in range(30):  # the fast ones end, one after the other
        feeding.gate.give_back("fast")
        (job,) = await feeding.take(1)
        assert job.endpoint == "fast"
    assert begun == 20


async def test_what_one_cannot_use_goes_to_the_others() -> None:
    feeding = Feeding(*jobs_to("a", "a", *["b"] * 50, *["c"] * 50), size=20)
    assert Counter(job.endpoint for job in await feeding.take(1000)) == {"a": 2, "b": 9, "c": 9}


async def test_of_equals_the_one_that_comes_first_in_the_manifest_goes_first() -> None:
    feeding = Feeding(*jobs_to("z", "y", "x", "y", "z"))
    assert [job.job_id for job in await feeding.take(9)] == [1, 2, 3, 4, 5]


async def test_what_goes_on_by_itself_is_not_begun_again() -> None:
    feeding = Feeding(*jobs_to("x", "x", "x", "y"))
    feeding.alive |= {1, 3, 4}
    assert [job.job_id for job in await feeding.take(9)] == [2]


async def test_an_endpoint_whose_runners_start_takes_no_more_than_the_first_window() -> None:
    plateau = Plateau()
    feeding = Feeding(*jobs_to(*["x"] * 50), plateau=plateau)
    assert len(await feeding.take(1000)) == SLOW_START_SIZE


async def test_a_closed_gate_ends_the_feeding() -> None:
    feeding = Feeding(*jobs_to("x", "x"), size=1)
    await feeding.feeder.next()
    feeding.gate.close(LimitReached("enough"))
    assert await feeding.feeder.next() is None


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from("abc"), max_size=60),
    st.integers(1, 9),
    st.lists(st.integers(0, 10), max_size=80),
    st.integers(1, 5),
)
def test_every_job_comes_once_and_shares_are_as_equal_as_the_work_allows(
    endpoints: list[str], size: int, ends: list[int], chunk: int
) -> None:
    async def run() -> None:
        feeding = Feeding(*jobs_to(*endpoints), size=size)
        feeding.feeder._chunk = chunk
        taken: list[OpenJob] = []
        at_work: list[OpenJob] = []
        for end in [*ends, *[0] * len(endpoints)]:
            new = await feeding.take(1000)
            taken += new
            at_work += new
            left = Counter(endpoints)
            left.subtract(job.endpoint for job in taken)
            assert len(at_work) == min(size, len(at_work) + left.total()), "work waits for no reason"
            if at_work:
                feeding.gate.give_back(at_work.pop(end % len(at_work)).endpoint)
        assert sorted(job.job_id for job in taken) == list(range(1, len(endpoints) + 1))
        for endpoint in "abc":
            order = [job.seq for job in taken if job.endpoint == endpoint]
            assert order == sorted(order, key=lambda seq: seq or 0)

    anyio.run(run, backend_options={"loop_factory": VirtualLoop})


def test_chunks_are_small_where_endpoints_are_many() -> None:
    async def run() -> None:
        feeding = Feeding(*jobs_to(*(f"e{number}" for number in range(100))))
        assert feeding.feeder._chunk == feed.CHUNK_LEAST
        assert len(await feeding.take(1000)) == 100

    anyio.run(run, backend_options={"loop_factory": VirtualLoop})
