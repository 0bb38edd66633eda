"""How soon falbatch is there: its help, and the state of a batch with a million finished jobs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.children import ChildFailed, run_child
from tests.bench.fal_line import Settings
from tests.bench.row import Row, medians

if TYPE_CHECKING:
    from tests.bench.setting import Bench

RUNS_MOST: Final = 3
"""Whole runs over the open jobs, each after the state of before was put back."""


def show_help(bench: Bench) -> list[Row]:
    """`falbatch --help`."""
    runs = []
    for _ in range(bench.scale.runs):
        used = bench.falbatch("--help")
        runs.append({"s": used.wall_s, "CPU s": used.cpu_s})
    found = medians(runs)
    value = found.pop("s")
    return [Row("help", "falbatch --help", "s", value, must=0.25, stretch=0.1, sides=found, runs=len(runs))]


def big_state(bench: Bench) -> list[Row]:
    """`falbatch status`, and the first thing that `falbatch run` gives fal to do, on a big state file."""
    with bench.folder() as folder:
        manifest = _big_state(bench, folder)
        looks = [_look(bench, manifest) for _ in range(bench.scale.runs)]
        shutil.copytree(folder / "out", folder / "kept")
        starts = [_start(bench, manifest) for _ in range(min(RUNS_MOST, bench.scale.runs))]
    seen, begun = medians(looks), medians(starts)
    size = f"{bench.scale.finished:,} finished jobs"
    what = f"falbatch run, from its start to its first submit, {size}, some open"
    note = "The manifest is the one that made the state; the whole run does the open jobs."
    return [
        Row("status", f"falbatch status, {size}", "s", seen.pop("s"), must=1, stretch=0.3, sides=seen, runs=len(looks)),
        Row("first-action", what, "s", begun.pop("s"), must=5, stretch=1, sides=begun, runs=len(starts), note=note),
    ]


def _big_state(bench: Bench, folder: Path) -> Path:
    """The manifest of a batch with that many finished jobs, and a thousandth of them still open."""
    finished = bench.scale.finished
    # A process of its own: what this one holds in memory would count as its children's (`Used.peak_mib`).
    words = [sys.executable, "-m", "tests.bench.bigstate", str(folder), str(finished), str(max(1, finished // 1000))]
    return Path(run_child(words).out.decode().strip())


def _look(bench: Bench, manifest: Path) -> dict[str, float]:
    """Seconds of one `falbatch status`."""
    used = bench.falbatch("status", str(manifest), "--json")
    return {"s": used.wall_s, "CPU s": used.cpu_s, "peak MiB": used.peak_mib}


def _start(bench: Bench, manifest: Path) -> dict[str, float]:
    """Seconds until fal is given the first open job. A run does all of them: the state of before is put back first."""
    shutil.rmtree(manifest.parent / "out")
    shutil.copytree(manifest.parent / "kept", manifest.parent / "out")
    bench.fal.set(Settings())
    used = bench.falbatch("run", str(manifest), "--json")
    stats = bench.fal.stats()
    if not stats["first_call"]:
        raise ChildFailed("the run ended without a question to fal's queue")
    return {
        "s": stats["first_call"] - used.began,
        "whole run s": used.wall_s,
        "CPU s": used.cpu_s,
        "peak MiB": used.peak_mib,
        "submits": stats["submits"],
    }
