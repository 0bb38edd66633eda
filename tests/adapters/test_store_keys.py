"""Seeds that follow from what a job is: stable, its own among equals, whatever stands around it in the manifest."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from falbatch.adapters.store import keys, stage
from falbatch.adapters.store.database import open_empty
from falbatch.core.identity import input_of, job_key
from falbatch.core.model import Mode
from falbatch.core.plan import Again
from falbatch.core.seeds import MARK, seed_of
from tests.adapters.conftest import item

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

    from falbatch.core.model import Item, JobKey
    from falbatch.core.plan import PlannedJob


def derived(seq: int, prompt: str, **more: Any) -> Item:
    return replace(item(seq, prompt), input={"prompt": prompt, "seed": dict(MARK), **more})


def staged(items: Iterable[Item]) -> list[PlannedJob]:
    with closing(open_empty()) as connection:
        stage.fill(connection, items)
        return list(stage.planned_jobs(connection, Again()))


def seeds(items: Iterable[Item]) -> list[int]:
    return [input_of(job.input_json)["seed"] for job in staged(items)]


def test_every_job_has_a_seed_of_its_own_and_equals_have_different_ones() -> None:
    jobs = staged(derived(seq, prompt) for seq, prompt in enumerate("aabaca"))
    found = [input_of(job.input_json)["seed"] for job in jobs]
    assert len(set(found)) == len({job.key for job in jobs}) == len({job.name for job in jobs}) == 6
    assert all(0 <= seed < 2**31 for seed in found)
    assert [job.replica for job in jobs] == [0] * 6
    for job in jobs:
        assert job.key == job_key(job.endpoint, Mode.QUEUE, job.input_json, 0)


def test_a_seed_follows_from_the_job_alone_whatever_stands_around_it() -> None:
    one = seeds([derived(0, "a"), derived(1, "b"), derived(2, "a")])
    other = seeds([derived(0, "z"), derived(1, "a"), derived(2, "a"), derived(3, "b")])
    assert one[0] == other[1]
    assert one[2] == other[2]
    assert one[1] == other[3]
    assert seeds([derived(0, "a", steps=2)]) != [one[0]]


def test_a_seed_is_put_wherever_it_is_asked_for() -> None:
    (job,) = staged([derived(0, "a", inner={"seeds": [dict(MARK), 3]})])
    given = input_of(job.input_json)
    assert given["inner"]["seeds"] == [given["seed"], 3]


def test_text_that_looks_like_the_mark_stays_text() -> None:
    text = '{"falbatch:derive":true}'
    (job,) = staged([derived(0, text)])
    assert input_of(job.input_json)["prompt"] == text


def test_very_many_equal_jobs_have_keys_of_their_own_though_seeds_are_drawn_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def few(input_json: bytes, key: JobKey) -> bytes:
        return input_json.replace(b'{"falbatch:derive":true}', b"%d" % (seed_of(key, 0) % 700))

    monkeypatch.setattr(keys, "with_derived_seed", few)  # 31 bits would take a hundred thousand jobs to clash
    jobs = staged(derived(seq, "a") for seq in range(keys.CHUNK + 500))
    assert len({job.key for job in jobs}) == len(jobs)
    assert {job.replica for job in jobs} > {0, 1}


def test_derived_seeds_beside_jobs_without() -> None:
    jobs = staged([item(0, "a"), derived(1, "a"), item(2, "a")])
    assert [job.replica for job in jobs] == [0, 0, 1]


def test_the_rule_of_seeds_does_not_change() -> None:
    """Another rule would make every seeded job a new one, to be paid for again."""
    key = job_key("a/b", Mode.QUEUE, b"{}", 0)
    assert [seed_of(key, turn) for turn in (0, 1, 2**20)] == [1975160682, 563493492, 1427148302]
