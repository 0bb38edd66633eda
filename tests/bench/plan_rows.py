"""A manifest of a million jobs, planned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.bench.children import ChildFailed
from tests.bench.manifests import grid_manifest
from tests.bench.row import Row, medians

if TYPE_CHECKING:
    from tests.bench.setting import Bench

VALUES: Final = 10
"""Of the matrix: so many jobs for each line of the CSV file."""

RUNS_MOST: Final = 3
"""Each takes more than a minute."""


def plan(bench: Bench) -> list[Row]:
    """`falbatch plan` of CSV × matrix: expanded, checked, each job's key and name made, compared with what is known."""
    jobs, runs = bench.scale.plan_rows * VALUES, []
    with bench.folder() as folder:
        manifest = grid_manifest(folder, bench.scale.plan_rows, VALUES)
        for _ in range(min(RUNS_MOST, bench.scale.runs)):
            used = bench.falbatch("plan", str(manifest))
            if f"{jobs:,}".encode() not in used.out:
                raise ChildFailed(f"falbatch plan does not speak of {jobs:,} jobs: {used.out[:200].decode()}")
            runs.append(
                {"s": used.wall_s, "MiB": used.peak_mib, "CPU s": used.cpu_s, "µs/job": 1e6 * used.cpu_s / jobs}
            )
    found = medians(runs)
    what = f"plan {jobs:,} jobs from a CSV file × a matrix of {VALUES}"
    sides = {"CPU s": found["CPU s"], "CPU µs/job": found["µs/job"]}
    return [
        Row("plan", what, "s", found["s"], must=90, stretch=30, sides=sides, runs=len(runs)),
        Row("plan-memory", f"peak memory: {what}", "MiB", found["MiB"], must=300, stretch=150, runs=len(runs)),
    ]
