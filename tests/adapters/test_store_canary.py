"""A canary on record: chosen with the plan, kept while its manifest makes its jobs, and never an empty selection."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.store import canary, kept, stage
from falbatch.adapters.store.store import Store
from falbatch.core.canary import STRATA_MOST, Tried, Wish
from falbatch.core.projection import Stratum
from tests.adapters.conftest import AT, accepted, item, recording

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from falbatch.core.model import Item

pytestmark = pytest.mark.anyio

WISH = Wish(jobs=4, seed="demo", variants=2, repeat=2)


def items(count: int = 40, *, prompt: str = "prompt") -> list[Item]:
    """Rows of two combinations, two replicas each."""
    return [replace(item(seq, f"{prompt} {seq}"), number=seq) for seq in range(count)]


@contextmanager
def tried_with(path: Path, wish: Wish | None, made: Iterable[Item] | None, *, whole: bool = True) -> Iterator[Store]:
    """The state file after a run with this canary has begun; without `made`, over the plan on record."""
    with Store.open(path) as store:
        if made is not None:
            stage.fill(store.connection, made)
        store.begin(
            name="demo", target="sandbox", manifest="m.yaml", at=AT, whole=whole, jobs=kept if made is None else stage,
            wish=wish,
        )  # fmt: skip
        yield store


def chosen(store: Store) -> list[int]:
    return [job_id for (job_id,) in store.connection.execute("SELECT job_id FROM canary ORDER BY job_id")]


def given_out(store: Store) -> list[int]:
    return [job.job_id for endpoint in store.planned_endpoints() for job in store.planned_of(endpoint, -1, 100)]


async def test_only_the_chosen_are_given_out_and_each_stratum_has_its_share(tmp_path: Path) -> None:
    with tried_with(tmp_path / "falbatch.db", WISH, items()) as store:
        assert given_out(store) == chosen(store)
        assert Counter((job_id - 1) // 2 % 2 for job_id in chosen(store)) == {0: 2, 1: 2}
        assert canary.left(store.connection, WISH, whole=True) == {
            Stratum("fal-ai/flux/dev", 0): 20,
            Stratum("fal-ai/flux/dev", 1): 20,
        }
        assert [job.stratum.variant for job in canary.jobs(store.connection, WISH, whole=True)] == [
            (job_id - 1) // 2 % 2 for job_id in chosen(store)
        ]


async def test_the_choice_stays_over_the_plan_on_record_and_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "falbatch.db"
    with tried_with(path, WISH, items()) as store:
        first = chosen(store)
    with tried_with(path, WISH, None) as store:
        assert chosen(store) == first
    with tried_with(path, WISH, items()) as store:
        assert chosen(store) == first
        assert canary.tried(store.connection, stage) == Tried(open=4)


async def test_a_run_over_the_whole_ends_it(tmp_path: Path) -> None:
    path = tmp_path / "falbatch.db"
    with tried_with(path, WISH, items()):
        pass
    with tried_with(path, None, None) as store:
        assert chosen(store) == []
        assert len(given_out(store)) == 40


async def test_what_was_submitted_stays_in_it_and_what_left_the_manifest_does_not(tmp_path: Path) -> None:
    path = tmp_path / "falbatch.db"
    with tried_with(path, WISH, items()) as store:
        begun, *others = chosen(store)
        async with recording(store):
            await store.record(*accepted(begun))
    with tried_with(path, replace(WISH, jobs=2), None) as store:
        assert begun in chosen(store)
        assert len(chosen(store)) == 2
        assert canary.tried(store.connection, kept) == Tried(paid=1, open=1)
    edited = [one if one.seq == begun - 1 else items(prompt="better")[one.seq] for one in items()]
    with tried_with(path, WISH, edited) as store:
        assert begun in chosen(store)
        assert len(chosen(store)) == 4
        assert not set(chosen(store)) & set(others)


async def test_a_part_has_its_strata_by_the_places_in_the_whole(tmp_path: Path) -> None:
    part = [replace(one, seq=seq) for seq, one in enumerate(items()[3::3])]
    with tried_with(tmp_path / "falbatch.db", replace(WISH, jobs=6), part, whole=False) as store:
        numbers = dict(
            store.connection.execute("SELECT j.id, s.number FROM temp.stage s JOIN jobs j ON j.key = s.key").fetchall()
        )
        assert given_out(store) == chosen(store)
        assert Counter(numbers[job_id] // 2 % 2 for job_id in chosen(store)) == {0: 3, 1: 3}
        assert sum(canary.left(store.connection, WISH, whole=False).values()) == len(part)


async def test_a_canary_of_nothing_is_not_a_run_over_everything(tmp_path: Path) -> None:
    path = tmp_path / "falbatch.db"
    with tried_with(path, WISH, items(1)) as store:
        async with recording(store):
            await store.record(*accepted(1))
    with tried_with(path, None, None):
        pass
    with tried_with(path, WISH, None) as store:
        assert chosen(store) == []
        store.connection.execute("UPDATE jobs SET state = 'planned'")
        assert given_out(store) == []


async def test_of_very_many_combinations_neighbours_count_as_one(tmp_path: Path) -> None:
    wish = Wish(jobs=5, seed="demo", variants=10 * STRATA_MOST)
    apart = [replace(item(seq), number=seq * 1000) for seq in range(100)]
    with tried_with(tmp_path / "falbatch.db", wish, apart, whole=False) as store:
        assert len(chosen(store)) == 5
        strata = {job.stratum.variant for job in canary.jobs(store.connection, wish, whole=False)}
        assert strata <= {100 * seq for seq in range(100)}
