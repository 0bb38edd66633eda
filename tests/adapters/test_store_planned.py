"""Planned jobs by endpoint: found without looking at the others, in the manifest's order, the selected ones only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.store import reader
from falbatch.adapters.store.store import Store
from tests.adapters.conftest import accepted, item, planned, recording

if TYPE_CHECKING:
    from pathlib import Path

    from falbatch.core.model import Item

pytestmark = pytest.mark.anyio

ENDPOINTS = ("fal-ai/veo3", "fal-ai/flux/dev", "fal-ai/veo3", "fal-ai/flux/dev", "fal-ai/any")


def items() -> list[Item]:
    return [item(seq, endpoint=endpoint) for seq, endpoint in enumerate(ENDPOINTS)]


async def test_each_endpoint_has_its_own_pages_in_the_manifests_order(tmp_path: Path) -> None:
    with planned(tmp_path / "falbatch.db", items()) as store:
        assert store.planned_endpoints() == ["fal-ai/any", "fal-ai/flux/dev", "fal-ai/veo3"]
        assert [job.seq for job in store.planned_of("fal-ai/veo3", -1, 10)] == [0, 2]
        assert [job.seq for job in store.planned_of("fal-ai/veo3", -1, 1)] == [0]
        assert [job.seq for job in store.planned_of("fal-ai/veo3", 0, 1)] == [2]
        assert store.planned_of("fal-ai/veo3", 2, 1) == []
        assert store.planned_of("fal-ai/other", -1, 10) == []


async def test_what_was_submitted_is_planned_no_more(tmp_path: Path) -> None:
    path = tmp_path / "falbatch.db"
    with planned(path, items()) as store:
        async with recording(store):
            await store.record(*accepted(5), *accepted(1))
        assert store.planned_endpoints() == ["fal-ai/flux/dev", "fal-ai/veo3"]
        assert [job.seq for job in store.planned_of("fal-ai/veo3", -1, 10)] == [2]


async def test_a_state_without_planned_jobs_has_no_endpoints(tmp_path: Path) -> None:
    with planned(tmp_path / "falbatch.db", []) as store:
        assert store.planned_endpoints() == []


async def test_jobs_that_left_the_manifest_are_not_given_out(tmp_path: Path) -> None:
    path = tmp_path / "falbatch.db"
    with planned(path, items()) as store:
        async with recording(store):
            await store.record(*accepted(2))
    with planned(path, items()[:1]) as store:
        given = [job.seq for endpoint in store.planned_endpoints() for job in store.planned_of(endpoint, -1, 10)]
        assert given == [0]


async def test_in_a_partial_run_only_what_was_selected_comes_and_all_that_share_a_place(tmp_path: Path) -> None:
    path = tmp_path / "falbatch.db"
    with planned(path, items()):
        pass
    with planned(path, [item(0, "prompt 2", endpoint="fal-ai/veo3")], whole=False) as store:
        assert [job.job_id for job in store.planned_of("fal-ai/veo3", -1, 10)] == [3]
    with Store.open(path) as store:
        store.connection.execute("DELETE FROM selection")
        store.connection.execute("UPDATE jobs SET seq = 7 WHERE endpoint = 'fal-ai/flux/dev'")
        assert [job.job_id for job in store.planned_of("fal-ai/flux/dev", -1, 1)] == [2, 4]


async def test_no_question_looks_at_all_jobs(tmp_path: Path) -> None:
    with planned(tmp_path / "falbatch.db", items()) as store:
        asked: list[str] = []
        store.reading.set_trace_callback(asked.append)
        reader.planned_endpoints(store.reading)
        reader.planned_of(store.reading, "fal-ai/veo3", -1, 10)
        store.reading.set_trace_callback(None)
        assert len(asked) == 2
        for question in asked:
            steps = [row[3] for row in store.reading.execute(f"EXPLAIN QUERY PLAN {question}")]
            of_jobs = [step for step in steps if " jobs" in step or " j " in f"{step} "]
            assert of_jobs
            assert all("jobs_planned" in step for step in of_jobs), steps
            assert not any("SCAN" in step or "TEMP B-TREE" in step for step in of_jobs), steps
