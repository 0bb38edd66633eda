"""A manifest that makes the jobs on record is not expanded again, and nobody can tell by what is said."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections import Counter
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from falbatch.adapters.localfiles import TICK_NS
from falbatch.adapters.store import kept, stage
from falbatch.adapters.store.basis import basis_of
from falbatch.adapters.store.database import open_reader
from falbatch.adapters.store.store import Store
from falbatch.api import unchanged
from falbatch.api.again import RetryChoice, choose
from falbatch.api.offline import check_endpoint
from falbatch.api.planning import Planned, Selection, fill_stage, make_plan, settle_jobs, summarize
from falbatch.api.workspace import open_manifest
from falbatch.core.limits import OutputSpec
from falbatch.core.plan import Change
from falbatch.core.state import State
from falbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from falbatch.api.workspace import Workspace
    from falbatch.core.plan import Again, Plan, PlannedJob

AT: Final = 1_700_000_000.0
TERMS: Final = "https://v3.fal.media"

MANIFEST: Final = """
name: demo
endpoint: "fal-ai/{{ model }}"
rows: people.csv
matrix:
  model: [flux/dev, flux/schnell]
  seed: [1, 2, 2]
input:
  prompt: "a portrait of {{ row.name }}"
  seed: "{{ seed }}"
  image_url: {file: "{{ row.photo }}"}
output:
  dir: out
  name: "{{ row.name }}-{{ model | slug }}-{{ seed }}-{{ replica }}{{ index }}"
limits: {in_flight: 4}
"""

PEOPLE: Final = ("name,photo", "Ada,a.png", "Bo,b.png", "Cy,a.png", "Di,a.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A manifest over a file of rows and two files of inputs, all of which have rested for a while."""
    write(tmp_path / "m.yaml", MANIFEST)
    write(tmp_path / "people.csv", "\n".join(PEOPLE))
    write(tmp_path / "a.png", "a")
    write(tmp_path / "b.png", "b")
    rest()
    return tmp_path


def write(path: Path, text: str) -> None:
    path.write_text(text)


def rest() -> None:
    time.sleep(1.2 * TICK_NS / 1e9)


def adopt(folder: Path, selection: Selection | None = None, again: Again | None = None) -> bool:
    """Make the manifest's plan the state's, as a run does. True when it was not made anew."""
    selection = selection or Selection()
    workspace = open_manifest(folder / "m.yaml")
    (folder / "out").mkdir(exist_ok=True)
    with Store.open(workspace.state) as store:
        planned = settle_jobs(store.connection, workspace, selection, check_endpoint)
        store.begin(
            name="demo",
            target="sandbox",
            manifest=str(folder / "m.yaml"),
            at=AT,
            whole=selection.is_whole,
            again=again,
            jobs=planned.jobs,
            basis=planned.basis,
        )
        return planned.jobs is kept


@contextmanager
def state_of(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(folder / "out" / "falbatch.db", isolation_level=None)) as connection:
        yield connection


def look(folder: Path, *, anew: bool) -> list[tuple[Any, ...]]:
    """All that a run says and asks before its work, for each choice; made anew or told from the state."""
    workspace = open_manifest(folder / "m.yaml")
    with closing(open_reader(workspace.state)) as connection:
        if anew:
            fill_stage(connection, workspace, Selection(), check_endpoint)
            planned = Planned(stage, None)
        else:
            planned = settle_jobs(connection, workspace, Selection(), check_endpoint)
            assert planned.jobs is kept
        return [said(connection, workspace, planned, choice, unknown=unknown) for choice, unknown in CHOICES]


def said(
    connection: sqlite3.Connection, workspace: Workspace, planned: Planned, choice: RetryChoice | None, *, unknown: bool
) -> tuple[Any, ...]:
    jobs = planned.jobs
    try:
        again = choose(
            connection,
            choice,
            jobs=jobs,
            resubmit_unknown=unknown,
            folder=workspace.output,
            output=OutputSpec(dir="out"),
        )
    except UsageError as error:  # no failed job has the type that was asked for
        return str(error), error.advice
    each: list[PlannedJob] = []
    plan = summarize(connection, workspace, Selection(), planned, again, terms=TERMS, each=each.append)
    assert {action: count for action, count in plan.actions.items() if count} == counted(
        job.decision.action for job in each
    )
    assert {change: count for change, count in plan.changes.items() if count} == counted(job.change for job in each)
    reasons = counted(job.decision.reason.partition(": request ")[0] for job in each)
    assert list(plan.reasons.items()) == list(reasons.items())
    assert plan.first == tuple(each[: len(plan.first)])
    assert plan.changed == tuple([job for job in each if job.change is Change.CHANGED][: len(plan.changed)])
    has_orphans = jobs.has_paid_orphans(connection, whole=True)
    return again, plan, list(plan.reasons), each, jobs.endpoints(connection), has_orphans, [*jobs.orphans(connection)]


def counted(things: Iterable[Any]) -> dict[Any, int]:
    """In the order in which they came first."""
    return dict(Counter(things))


def scatter(folder: Path, draw: random.Random, states: tuple[State, ...]) -> None:
    """Bring the jobs into states as a long life would."""
    with state_of(folder) as connection:
        for (job_id,) in connection.execute("SELECT id FROM jobs").fetchall():
            state = draw.choice(states)
            error_type = draw.choice([None, "bad_input", "file_gone", "odd: request"])
            request_id = f"r{job_id}" if state in {State.SUBMITTED, State.DONE, State.FAILED} else None
            connection.execute(
                "INSERT OR IGNORE INTO requests (request_id, job_id, attempt, status_url, response_url, cancel_url,"
                " status, accepted_at) VALUES (?, ?, 1, '', '', '', 'failed', ?)",
                (f"r{job_id}", job_id, AT),
            )
            connection.execute(
                "UPDATE jobs SET state = ?, error_type = ?, error = ?, request_id = ? WHERE id = ?",
                (state, error_type, error_type, request_id, job_id),
            )


CHOICES: Final[tuple[tuple[RetryChoice | None, bool], ...]] = (
    (None, False),
    (None, True),
    (RetryChoice(), False),
    (RetryChoice(error_types=("bad_input",)), True),
    (RetryChoice(names=("*Ada*", "Bo-flux-dev-?-*")), False),
    (RetryChoice(missing_files=True), False),
)

LIVES: Final[dict[str, tuple[State, ...]]] = {
    "any": tuple(State),
    "nearly done": (State.DONE,) * 12 + (State.PLANNED, State.FAILED),
    "all done": (State.DONE,),
    "all planned": (State.PLANNED,),
    "done or failed": (State.DONE, State.FAILED, State.CANCELLED),
    "under way": (State.PLANNED, State.SUBMITTED, State.COMPLETED, State.DONE),
}


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("past", ["first", "rows left", "rows moved"])
def test_both_ways_say_the_same(folder: Path, life: str, past: str) -> None:
    if past != "first":
        more = (
            [*PEOPLE[:1], "Eve,b.png", *PEOPLE[1:], "Flo,a.png"] if past == "rows left" else PEOPLE[:1] + PEOPLE[:1:-1]
        )
        write(folder / "people.csv", "\n".join(more))
        assert not adopt(folder)
        write(folder / "people.csv", "\n".join(PEOPLE))
        rest()
    assert not adopt(folder)
    draw = random.Random(f"{life} {past}")
    for _ in range(2):
        scatter(folder, draw, LIVES[life])
        assert look(folder, anew=False) == look(folder, anew=True)
    assert adopt(folder)


def test_what_a_run_leaves_in_the_state_is_the_same(folder: Path) -> None:
    adopt(folder)
    scatter(folder, random.Random(1), tuple(State))
    again = look(folder, anew=False)[CHOICES.index((RetryChoice(), False))][0]
    with state_of(folder) as connection, closing(sqlite3.connect(folder / "copy.db")) as copy:
        connection.backup(copy)
    left = []
    for is_fast in (True, False):
        if not is_fast:
            (folder / "out" / "falbatch.db").unlink()
            (folder / "copy.db").rename(folder / "out" / "falbatch.db")
            with state_of(folder) as connection:
                connection.execute("UPDATE batch SET sources = NULL")
        assert adopt(folder, again=again) is is_fast
        with state_of(folder) as connection:
            tables = ("jobs", "selection", "local_files", "attempts")
            left.append([connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in tables])
            basis = basis_of(connection)
            assert basis is not None
            left[-1].append([(basis.digest, basis.jobs, basis.endpoints, basis.first)])
    assert left[0] == left[1]


def touched(path: Path) -> None:
    os.utime(path)


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    write(path, text.replace(old, new))


SAME: Final[dict[str, Callable[[Path], None]]] = {
    "nothing": lambda _: None,
    "rows with another time": lambda folder: touched(folder / "people.csv"),
    "limits": lambda folder: replaced(folder / "m.yaml", "in_flight: 4", "in_flight: 40"),
    "a comment": lambda folder: replaced(folder / "m.yaml", "name: demo", "name: demo  # a comment"),
}

OTHER: Final[dict[str, Callable[[Path], None]]] = {
    "a cell": lambda folder: replaced(folder / "people.csv", "Ada", "Eva"),
    "a cell of an unused column": lambda folder: replaced(folder / "people.csv", "photo", "photo "),
    "the input": lambda folder: replaced(folder / "m.yaml", "a portrait", "A portrait"),
    "an order": lambda folder: replaced(folder / "m.yaml", "[flux/dev, flux/schnell]", "[flux/schnell, flux/dev]"),
    "a type": lambda folder: replaced(folder / "m.yaml", "[1, 2, 2]", "[1.0, 2, 2]"),
    "a name": lambda folder: replaced(folder / "m.yaml", "{{ row.name }}-{{", "{{ row.name }}_{{"),
    "a mode": lambda folder: replaced(folder / "m.yaml", "rows:", "mode: run\nrows:"),
    "a choice of rows": lambda folder: replaced(folder / "m.yaml", "people.csv", "{file: people.csv, limit: 3}"),
    "a file of an input": lambda folder: write(folder / "a.png", "A"),
    "the time of a file of an input": lambda folder: touched(folder / "b.png"),
}


@pytest.mark.parametrize("what", SAME)
def test_what_decides_nothing_does_not_expand_anew(folder: Path, what: str) -> None:
    adopt(folder)
    SAME[what](folder)
    rest()
    assert adopt(folder)
    assert adopt(folder)


@pytest.mark.parametrize("what", OTHER)
def test_what_may_decide_expands_anew_once(folder: Path, what: str) -> None:
    adopt(folder)
    OTHER[what](folder)
    rest()
    before = look_anew(folder)
    assert make_plan(open_manifest(folder / "m.yaml"), Selection(), check_endpoint) == before
    assert not adopt(folder)
    assert adopt(folder)


def look_anew(folder: Path) -> Plan:
    with state_of(folder) as connection:
        (sources,) = connection.execute("SELECT sources FROM batch").fetchone()
        connection.execute("UPDATE batch SET sources = NULL")
        plan = make_plan(open_manifest(folder / "m.yaml"), Selection(), check_endpoint)
        connection.execute("UPDATE batch SET sources = ?", (sources,))
    return plan


def test_another_falbatch_and_another_library_expand_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adopt(folder)
    monkeypatch.setattr("falbatch.core.expand.EXPANSION", -1)
    assert not adopt(folder)
    assert adopt(folder)
    versions = unchanged._versions()
    monkeypatch.setattr(unchanged, "_versions", lambda: (*versions[:-1], "pyyaml 1"))
    assert not adopt(folder)


def test_new_files_of_a_pattern_expand_anew(folder: Path) -> None:
    replaced(folder / "m.yaml", "rows: people.csv", 'rows: {glob: "*.png"}')
    replaced(folder / "m.yaml", "{{ row.photo }}", "{{ row.path }}")
    assert (adopt(folder), adopt(folder)) == (False, True)
    write(folder / "c.png", "c")
    rest()
    assert (adopt(folder), adopt(folder)) == (False, True)
    (folder / "c.png").unlink()
    assert (adopt(folder), adopt(folder)) == (False, True)


def test_a_part_of_the_manifest_is_always_expanded_and_the_whole_after_it(folder: Path) -> None:
    adopt(folder)
    assert not adopt(folder, Selection(limit=3))
    assert not adopt(folder)
    assert adopt(folder)


def test_a_job_that_keeps_its_old_name_is_expanded_anew(folder: Path) -> None:
    """The plan shows the name that the manifest gives now; the state file has the one under which its file lies."""
    adopt(folder)
    scatter(folder, random.Random(1), (State.DONE,))
    OTHER["a name"](folder)
    assert (adopt(folder), adopt(folder)) == (False, False)


def test_rows_that_change_while_they_are_read_are_not_known_again(folder: Path) -> None:
    workspace = open_manifest(folder / "m.yaml")
    (folder / "out").mkdir()
    with Store.open(workspace.state) as store:
        manifest = workspace.manifest
        assert manifest is not None
        sources = unchanged.sources_of(manifest, workspace, None)
        assert sources is not None
        assert sources.still_hold()
        write(folder / "people.csv", "\n".join((*PEOPLE, "Eve,a.png")))
        assert not sources.still_hold()
        (folder / "people.csv").unlink()
        assert not sources.still_hold()
        assert unchanged.sources_of(manifest, workspace, None) is None
        assert basis_of(store.connection) is None


DAMAGE: Final = {
    "garbled": "UPDATE batch SET sources = CAST(substr(sources, 1, 20) || 'x' || substr(sources, 22) AS BLOB)",
    "cut": "UPDATE batch SET sources = substr(sources, 1, 30)",
    "empty": "UPDATE batch SET sources = x''",
    "gone": "UPDATE batch SET sources = NULL",
    "a job without a place": "UPDATE jobs SET seq = NULL WHERE id = 3",
    "a job more": "INSERT INTO jobs (key, seq, name, endpoint, mode, input, replica, origin, state, updated_at)"
    " SELECT x'00', 99, name, endpoint, mode, input, replica, origin, state, updated_at FROM jobs WHERE id = 1",
    "a note of a file": "UPDATE local_files SET size_bytes = size_bytes + 1",
    "a note of a file's content": "UPDATE local_files SET sha256 = x'00'",
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_doubt_expands_anew(folder: Path, what: str) -> None:
    adopt(folder)
    with state_of(folder) as connection:
        assert connection.execute(DAMAGE[what]).rowcount
    workspace = open_manifest(folder / "m.yaml")
    with closing(sqlite3.connect(folder / "out" / "falbatch.db", isolation_level=None)) as connection:
        assert settle_jobs(connection, workspace, Selection(), check_endpoint).jobs is stage
