"""A plan beside the state: keys, replicas and names are settled over all jobs, and the state follows the plan."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.store import reader, stage
from falbatch.adapters.store.database import open_empty
from falbatch.adapters.store.keys import CHUNK
from falbatch.core.identity import canonical_json, job_key
from falbatch.core.model import Mode
from falbatch.core.plan import Action, Again, Change
from falbatch.core.state import State
from tests.adapters.conftest import AT, accepted, adopt, finished, item, planned, planned_after, recording, want_files

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from falbatch.adapters.store.store import Store
    from falbatch.core.model import Item
    from falbatch.core.plan import PlannedJob


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """The state of a batch that never ran."""
    with closing(open_empty()) as one:
        yield one


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "falbatch.db"


def _staged(connection: sqlite3.Connection, items: Iterable[Item]) -> list[PlannedJob]:
    stage.fill(connection, items)
    return list(stage.planned_jobs(connection, Again()))


def _key(prompt: str, replica: int = 0) -> bytes:
    return job_key("fal-ai/flux/dev", Mode.QUEUE, canonical_json({"prompt": prompt}), replica)


def _clashes(connection: sqlite3.Connection, items: Iterable[Item]) -> list[str]:
    stage.fill(connection, items)
    return [str(problem) for problem in stage.clashes(connection, file="m.yaml", line=9, column=3)]


def _records(store: Store) -> list[tuple[object, ...]]:
    """What the state file says of each job: place, name, state, origin; in the order in which it learned of them."""
    return store.connection.execute("SELECT seq, name, state, origin FROM jobs ORDER BY id").fetchall()


def test_jobs_come_in_the_manifests_order_with_key_input_and_origin(connection: sqlite3.Connection) -> None:
    assert stage.fill(connection, [item(2, "c"), item(0, "a"), item(1, "b")]) == 3
    jobs = list(stage.planned_jobs(connection, Again()))
    assert [(job.seq, job.key, job.input_json, job.replica, job.origin, job.endpoint) for job in jobs] == [
        (0, _key("a"), b'{"prompt":"a"}', 0, "m.yaml:0", "fal-ai/flux/dev"),
        (1, _key("b"), b'{"prompt":"b"}', 0, "m.yaml:1", "fal-ai/flux/dev"),
        (2, _key("c"), b'{"prompt":"c"}', 0, "m.yaml:2", "fal-ai/flux/dev"),
    ]


def test_items_that_are_alike_are_replicas_in_the_manifests_order(connection: sqlite3.Connection) -> None:
    jobs = _staged(connection, [item(0, "a"), item(1, "b"), item(2, "a"), item(3, "a"), item(4, "b")])
    assert [job.replica for job in jobs] == [0, 0, 1, 2, 1]
    assert [job.key for job in jobs] == [_key("a"), _key("b"), _key("a", 1), _key("a", 2), _key("b", 1)]


def test_many_replicas_are_numbered_without_a_gap(connection: sqlite3.Connection) -> None:
    jobs = _staged(connection, (item(seq, "a", name="n" if seq == 7 else None) for seq in range(2 * CHUNK + 3)))
    assert [job.replica for job in jobs] == list(range(2 * CHUNK + 3))
    assert len({job.key for job in jobs}) == len({job.name for job in jobs}) == len(jobs)
    assert jobs[7].name == "n"


def test_the_same_prompt_to_another_endpoint_is_another_job(connection: sqlite3.Connection) -> None:
    jobs = _staged(connection, [item(0, "a"), item(1, "a", endpoint="fal-ai/sana")])
    assert [job.replica for job in jobs] == [0, 0]
    assert jobs[0].key != jobs[1].key


def test_a_default_name_is_the_label_and_the_start_of_the_key(connection: sqlite3.Connection) -> None:
    jobs = _staged(connection, [item(0, "a"), item(1, "a", label="oil-3"), item(2, "b", name="hand/made")])
    assert [job.name for job in jobs] == [_key("a").hex()[:12], f"oil-3-{_key('a', 1).hex()[:12]}", "hand/made"]


def test_filling_again_starts_from_nothing(connection: sqlite3.Connection) -> None:
    stage.fill(connection, [item(0, "a"), item(1, "a")])
    assert [job.replica for job in _staged(connection, [item(0, "a")])] == [0]
    assert stage.fill(connection, []) == 0


def test_names_that_differ_only_in_case_clash_and_the_place_is_told(connection: sqlite3.Connection) -> None:
    items = [item(0, name="Anna"), item(1, name="bob"), item(2, name="anna"), item(3, name="ANNA")]
    (problem,) = _clashes(connection, items)
    assert problem.startswith("m.yaml:9:3: 3 jobs would write the file name")
    assert "m.yaml:0" in problem
    assert "m.yaml:3" in problem
    assert "{{ index }}" in problem


def test_named_replicas_clash_too(connection: sqlite3.Connection) -> None:
    (problem,) = _clashes(connection, [item(0, "a", name="x"), item(1, "a", name="x")])
    assert '2 jobs would write the file name "x"' in problem


def test_a_default_name_may_clash_with_a_given_one(connection: sqlite3.Connection) -> None:
    assert len(_clashes(connection, [item(0, "a"), item(1, "b", name=_key("a").hex()[:12].upper())])) == 1


def test_different_names_do_not_clash_and_many_clashes_are_cut(connection: sqlite3.Connection) -> None:
    assert _clashes(connection, (item(seq) for seq in range(50))) == []
    many = _clashes(connection, (item(seq, name=f"n{seq // 2}") for seq in range(100)))
    assert len(many) == stage.MAX_CLASHES
    assert '"n0"' in many[0]


def test_what_was_never_seen_is_added_and_submitted(connection: sqlite3.Connection) -> None:
    (job,) = _staged(connection, [item(0)])
    assert (job.decision.action, job.decision.reason, job.change) == (Action.SUBMIT, "new", Change.ADDED)


@pytest.mark.anyio
async def test_each_job_is_planned_by_what_is_on_record(state: Path) -> None:
    with planned(state, (item(seq) for seq in range(4))) as store:
        async with recording(store):
            await store.record(*accepted(2))
            await store.record(*accepted(3), *finished(3))
        want_files(store, 3)
        jobs = _staged(store.connection, (item(seq) for seq in range(5)))
    assert [(job.decision.action, job.decision.reason) for job in jobs] == [
        (Action.SUBMIT, "not submitted yet"),
        (Action.WAIT, "at fal: request r-2-1"),
        (Action.DOWNLOAD, "its result is stored, files are missing"),
        (Action.SUBMIT, "not submitted yet"),
        (Action.SUBMIT, "new"),
    ]
    assert [job.change for job in jobs] == [Change.UNCHANGED] * 4 + [Change.ADDED]


def test_a_job_under_the_name_of_one_that_left_is_changed(state: Path) -> None:
    with planned(state, [item(0, "a", name="anna"), item(1, "b", name="bob")]) as store:
        jobs = _staged(store.connection, [item(0, "A", name="anna"), item(1, "b", name="bob"), item(2, "c", name="c")])
        assert [job.change for job in jobs] == [Change.CHANGED, Change.UNCHANGED, Change.ADDED]
        (orphan,) = stage.orphans(store.connection)
        assert (orphan.name, orphan.state, orphan.decision.action) == ("anna", State.PLANNED, Action.SKIP)
        # The next plan starts afresh: "anna" is nobody's old name any more.
        again = _staged(store.connection, [item(0, "a", name="anna"), item(1, "x", name="anna2")])
        assert [job.change for job in again] == [Change.UNCHANGED, Change.ADDED]


@pytest.mark.anyio
async def test_an_orphan_is_still_brought_home(state: Path) -> None:
    with planned(state, [item(0), item(1)]) as store:
        async with recording(store):
            await store.record(*accepted(1))
        stage.fill(store.connection, [])
        orphans = list(stage.orphans(store.connection))
    assert [each.decision.action for each in orphans] == [Action.WAIT, Action.SKIP]
    assert "r-1-1" in orphans[0].decision.reason


def test_adopting_the_whole_plan_adds_moves_renames_and_lets_go(state: Path) -> None:
    with planned(state, [item(0, "a", name="a"), item(1, "b", name="b"), item(2, "c", name="c")]) as store:
        stage.fill(store.connection, [item(0, "new", name="d"), item(1, "c", name="c2"), item(2, "a", name="a")])
        adopt(store, whole=True, at=AT)
        assert _records(store) == [
            (2, "a", "planned", "m.yaml:2"),
            (None, "b", "planned", "m.yaml:1"),
            (1, "c2", "planned", "m.yaml:1"),
            (0, "d", "planned", "m.yaml:0"),
        ]
        assert [job.name for job in planned_after(store.reading, -1, 10)] == ["d", "c2", "a"]


@pytest.mark.anyio
async def test_a_job_whose_files_have_a_name_keeps_it(state: Path) -> None:
    with planned(state, [item(0, "a", name="old"), item(1, "b", name="old-b")]) as store:
        async with recording(store):
            await store.record(*accepted(1), *finished(1), *accepted(2))
        stage.fill(store.connection, [item(0, "a", name="new"), item(1, "b", name="new-b")])
        adopt(store, whole=True, at=AT)
        assert [name for _, name, *_ in _records(store)] == ["old", "new-b"]


def test_adopting_the_same_plan_again_changes_nothing(state: Path) -> None:
    items = [item(seq, str(seq // 2)) for seq in range(6)]
    with planned(state, items) as store:
        before = store.connection.execute("SELECT * FROM jobs").fetchall()
        stage.fill(store.connection, items)
        adopt(store, whole=True, at=AT + 99)
        assert store.connection.execute("SELECT * FROM jobs").fetchall() == before


def test_adopting_a_part_leaves_the_others_alone_and_runs_only_the_part(state: Path) -> None:
    with planned(state, [item(0, "a", name="a"), item(1, "b", name="b")]) as store:
        stage.fill(store.connection, [item(0, "b", name="b"), item(1, "c", name="c")])
        adopt(store, whole=False, at=AT)
        assert [(seq, name) for seq, name, *_ in _records(store)] == [(0, "a"), (1, "b"), (1, "c")]
        assert sorted(job.name for job in planned_after(store.reading, -1, 10)) == ["b", "c"]
        stage.fill(store.connection, [item(0, "a", name="a"), item(1, "b", name="b"), item(2, "c", name="c")])
        adopt(store, whole=True, at=AT)
        assert [job.name for job in planned_after(store.reading, -1, 10)] == ["a", "b", "c"]


def test_jobs_that_share_a_place_are_all_given_out_once(state: Path) -> None:
    """Two partial runs each count their own jobs from 0; a third run is over both."""
    with planned(state, [item(seq, f"a{seq}") for seq in range(5)], whole=False) as store:
        stage.fill(store.connection, [item(seq, f"b{seq}") for seq in range(5)])
        adopt(store, whole=False, at=AT)
        both = [item(seq, f"{'ab'[seq % 2]}{seq // 2}") for seq in range(10)]
        stage.fill(store.connection, both)
        adopt(store, whole=False, at=AT)
        seen: list[bytes] = []
        last = -1
        while jobs := planned_after(store.reading, last, 3):
            assert len(jobs) <= 4
            seen += [job.input_json for job in jobs]
            last = jobs[-1].seq or 0
        assert sorted(seen) == sorted(canonical_json(each.input) for each in both)


def test_a_job_that_is_back_in_the_manifest_runs_in_a_partial_run_too(state: Path) -> None:
    with planned(state, [item(0, "a"), item(1, "b")]) as store:
        stage.fill(store.connection, [item(0, "b")])
        adopt(store, whole=True, at=AT)
        assert store.status().orphaned == 1
        stage.fill(store.connection, [item(0, "a")])
        adopt(store, whole=False, at=AT)
        assert [job.input_json for job in planned_after(store.reading, -1, 10)] == [b'{"prompt":"a"}']
        assert store.status().orphaned == 0


def test_an_orphan_that_comes_back_is_the_same_job(state: Path) -> None:
    with planned(state, [item(0, "a"), item(1, "b")]) as store:
        for items in ([item(0, "b")], [item(0, "b"), item(1, "a")]):
            stage.fill(store.connection, items)
            adopt(store, whole=True, at=AT)
        assert [seq for seq, *_ in _records(store)] == [1, 0]


def test_a_plan_beside_a_reading_connection_writes_nothing_to_the_file(state: Path) -> None:
    from falbatch.adapters.store.database import open_reader

    with planned(state, [item(0, "a")]):
        pass
    before = state.read_bytes()
    with contextlib.closing(open_reader(state)) as connection:
        jobs = _staged(connection, [item(0, "a"), item(1, "b"), item(2, "b")])
        assert [job.change for job in jobs] == [Change.UNCHANGED, Change.ADDED, Change.ADDED]
        assert reader.status(connection, running=False).total == 1
    assert state.read_bytes() == before


_BIG = """
import re, sys, time
from pathlib import Path
from falbatch.adapters.store import stage
from falbatch.adapters.store.store import Store
from falbatch.core.model import Item, Mode
from falbatch.core.plan import Again

def items(count):
    for seq in range(count):
        # Every other item is a replica of the first.
        value = {"prompt": f"{seq % 2 and seq} " + "x" * 1000}
        yield Item(seq, "fal-ai/flux/dev", Mode.QUEUE, value, None, "", f"m.yaml:{seq}")

def peak_kib():
    return int(re.search("VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

def go(count):
    stage.fill(store.connection, items(count))
    planned = sum(1 for _ in stage.planned_jobs(store.connection, Again()))
    store.begin(name="demo", target="sandbox", manifest="", at=1.0)
    return planned

with Store.open(Path(sys.argv[1])) as store:
    go(2_000)
    before = peak_kib()
    began = time.perf_counter()
    count = go(100_000)
    took = time.perf_counter() - began
    print(count, peak_kib() - before, f"{took:.1f}")
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a process's peak is read from Linux's /proc")
def test_a_hundred_thousand_jobs_are_planned_in_flat_memory(state: Path) -> None:
    """Held at once, their inputs alone would be 100 MB; a process of its own, so that its peak is theirs."""
    child = subprocess.run([sys.executable, "-c", _BIG, str(state)], capture_output=True, text=True, check=False)
    assert child.stderr == ""
    count, grown_kib, seconds = child.stdout.split()
    sys.stdout.write(f"100,000 jobs staged, planned, adopted: {seconds} s, {int(grown_kib) / 1024:.1f} MiB more\n")
    assert int(count) == 100_000
    assert int(grown_kib) < 32 * 1024 - stage.CACHE_KIB  # SQLite's, which is bounded too
