"""A batch lives the same life whether its manifest is expanded for each run or told from the state file."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest

from falbatch.adapters.localfiles import TICK_NS
from falbatch.api import planning
from falbatch.api.again import RetryChoice
from falbatch.api.options import RunOptions
from falbatch.api.planning import Selection
from falbatch.api.running import arun
from falbatch.errors import StateError
from tests.cli.conftest import Shell
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from falbatch.core.plan import Plan
    from falbatch.core.pricing import EndpointCost

MANIFEST: Final = """
name: kites
endpoint: fal-ai/flux/schnell
rows: kites.csv
input: {prompt: "a {{ row.colour }} kite", image_size: {width: 16, height: 16}, seed: 7}
output: {dir: out, name: "{{ row.colour }}"}
limits: {in_flight: 1, submits_per_s: 1000, polls_per_s: 1000}
"""

COLOURS: Final = ("red", "blue", "green", "white", "black")


@pytest.fixture(scope="module")
def fal() -> Iterator[SandboxProcess]:
    """One fal for all of them, without service times."""
    with SandboxProcess("--seed", "5", "--speed", "0") as sandbox:
        yield sandbox


class World:
    """A folder with a batch, and all that its runs have said."""

    def __init__(self, folder: Path, fal: SandboxProcess, *, anew: bool) -> None:
        folder.mkdir()
        fal.reset()
        self.shell = Shell(folder, fal)
        self.anew = anew
        self.said: list[object] = []
        self.lay(*COLOURS)
        self.shell.write("m.yaml", MANIFEST)

    def lay(self, *colours: str) -> None:
        """Rows that have rested for a while."""
        self.shell.write("kites.csv", "\n".join(("colour", *colours)))
        time.sleep(1.2 * TICK_NS / 1e9)

    def run(self, options: RunOptions | None = None, *, unchanged: bool = True) -> dict[str, Any]:
        """One run. With `unchanged`, nothing may be expanded, unless this world always is."""

        def heard(plan: Plan, _counter: object) -> None:
            cost = plan.cost and replace(plan.cost, endpoints=tuple(_undated(line) for line in plan.cost.endpoints))
            said = replace(plan, cost=cost, output_dir="").as_json()
            self.said.append(said | {"reasons": dict(plan.reasons)})

        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.shell.folder)
            for name, value in self.shell.environment().items():
                patch.setenv(name, value)
            if self.anew and (self.shell.folder / "out" / "falbatch.db").exists():
                self.query("UPDATE batch SET sources = NULL")
            elif unchanged and not self.anew:
                patch.setattr(planning, "fill_stage", _never)
            report = anyio.run(lambda: arun("m.yaml", options, on_plan=heard)).as_json()
        told = {
            name: value for name, value in report.items() if name not in {"output_dir", "run", "failures", "unknown"}
        }
        self.said += [
            told,
            self.query("SELECT key, seq, name, state, origin, attempts, error_type FROM jobs ORDER BY id"),
        ]
        return report

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.shell.folder / "out" / "falbatch.db", isolation_level=None)) as connection:
            return connection.execute(sql).fetchall()


def _undated(line: EndpointCost) -> EndpointCost:
    """Each world hears prices at a moment of its own."""
    return replace(line, priced_at=None)


def _never(*_: object) -> None:
    raise AssertionError("an unchanged manifest was expanded")


def live(world: World) -> list[object]:
    """A batch with failures, retries, a lost file, rows that go and come, and parts."""
    fault = {"on": "submit", "do": "fail:content_policy_violation", "times": 2}
    world.shell.sandbox.add_faults([fault])
    assert world.run(RunOptions(selection=Selection(limit=1)), unchanged=False)["states"]["failed"] == 1
    assert world.run(unchanged=False)["states"]["failed"] == 2
    assert world.run()["states"]["failed"] == 2
    assert world.run(RunOptions(retry=RetryChoice(names=("red",))))["states"]["failed"] == 1
    (world.shell.folder / "out" / "white.jpg").unlink()
    world.run(RunOptions(retry=RetryChoice(missing_files=True)))
    assert (world.shell.folder / "out" / "white.jpg").exists()
    world.lay(*COLOURS[1:], "pink")
    world.run(unchanged=False)
    world.run()
    world.run(RunOptions(retry=RetryChoice()))
    world.lay(*COLOURS)
    world.run(unchanged=False)
    assert world.run()["states"]["done"] == 5
    return world.said


def test_a_life_is_the_same_both_ways(tmp_path: Path, fal: SandboxProcess) -> None:
    told = live(World(tmp_path / "told", fal, anew=False))
    submits = Shell(tmp_path, fal).submits()
    assert told == live(World(tmp_path / "anew", fal, anew=True))
    assert submits == Shell(tmp_path, fal).submits()


def test_an_unknown_job_is_unknown_and_submitted_again_only_when_told_to(tmp_path: Path, fal: SandboxProcess) -> None:
    said = []
    for anew in (False, True):
        world = World(tmp_path / f"anew {anew}", fal, anew=anew)
        fal.add_faults([{"on": "submit", "do": "drop_before", "times": 1}])
        assert world.run(RunOptions(reconcile_s=0.0), unchanged=False)["states"]["unknown"] == 1
        assert world.run(RunOptions(reconcile_s=0.0))["states"]["unknown"] == 1
        assert world.run(RunOptions(reconcile_s=0.0, resubmit_unknown=True))["states"]["done"] == 5
        said.append(world.said)
    assert said[0] == said[1]


def test_a_mended_state_is_planned_anew(tmp_path: Path, fal: SandboxProcess) -> None:
    world = World(tmp_path / "mended", fal, anew=False)
    world.run(unchanged=False)
    world.run()
    with (world.shell.folder / "out" / "falbatch.db").open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(4096))
    with pytest.raises((AssertionError, StateError), match="expanded"):
        world.run()
    world.run(unchanged=False)
    assert world.run()["states"]["done"] == 5
