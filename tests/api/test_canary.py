"""A canary through the library: the same engine, and a plan on record that is not made anew."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
import pytest

from falbatch.adapters.localfiles import TICK_NS
from falbatch.api import planning
from falbatch.api.again import RetryChoice
from falbatch.api.options import RunOptions
from falbatch.api.running import arun
from falbatch.errors import ExitCode, UsageError
from tests.cli.conftest import Shell
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from falbatch.core.report import Report

MANIFEST = """
name: kites
endpoint: fal-ai/flux/schnell
rows: kites.csv
matrix: {size: [16, 32]}
input: {prompt: "a {{ row.colour }} kite", image_size: {width: "{{ size }}", height: 16}, seed: 7}
output: {dir: out}
"""


@pytest.fixture(scope="module")
def fal() -> Iterator[SandboxProcess]:
    with SandboxProcess("--seed", "5", "--speed", "0") as sandbox:
        yield sandbox


@pytest.fixture
def shell(tmp_path: Path, fal: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> Shell:
    fal.reset()
    shell = Shell(tmp_path, fal)
    shell.write("m.yaml", MANIFEST)
    shell.write("kites.csv", "colour\n" + "\n".join(f"blue {number}" for number in range(20)))
    monkeypatch.chdir(tmp_path)
    for name, value in shell.environment().items():
        monkeypatch.setenv(name, value)
    time.sleep(1.2 * TICK_NS / 1e9)
    return shell


def run(options: RunOptions) -> Report:
    return anyio.run(lambda: arun("m.yaml", options))


def _never(*_: object) -> None:
    raise AssertionError("an unchanged manifest was expanded")


def test_an_unchanged_manifest_is_not_expanded_again(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(RunOptions(canary=4)).canary
    assert first is not None
    monkeypatch.setattr(planning, "fill_stage", _never)
    again = run(RunOptions(canary=4))
    assert again.unchanged
    assert again.canary == first
    more = run(RunOptions(canary=8))
    assert more.canary is not None
    assert (more.exit_code, more.canary.done, more.canary.left) == (ExitCode.OK, 8, 32)
    assert sorted(job.stratum.variant for job in more.canary.jobs) == [0] * 4 + [1] * 4
    rest = run(RunOptions())
    assert rest.canary is None
    assert rest.exit_code is ExitCode.OK
    assert shell.sandbox.ledger()["count"] == 40


def test_the_rows_of_a_canary_are_spread_over_the_batch(shell: Shell) -> None:
    report = run(RunOptions(canary=8)).canary
    assert report is not None
    rows = sorted(int(job.origin.partition(":")[2].partition(",")[0]) - 2 for job in report.jobs)
    assert rows[0] < 5
    assert rows[-1] >= 15
    assert max(after - before for before, after in pairwise(rows)) <= 8


@pytest.mark.parametrize(
    "options",
    [RunOptions(canary=0), RunOptions(canary=10**6), RunOptions(canary=3, retry=RetryChoice())],
)
def test_what_makes_no_sense_is_refused_before_anything_is_done(shell: Shell, options: RunOptions) -> None:
    with pytest.raises(UsageError, match="canary"):
        run(options)
    assert not (shell.folder / "out").exists()
