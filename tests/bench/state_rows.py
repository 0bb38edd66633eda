"""What a long run needs: memory while it goes on, and room on disk when it is over."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

from tests.bench.children import ChildFailed
from tests.bench.fal_line import Settings
from tests.bench.row import Row, medians

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.setting import Bench

IN_FLIGHT: Final = 512
SMALL_FILE: Final = 2_048
"""Bytes of each file of the memory row: 200,000 files of 20 KB would fill a small disk."""
SAMPLE_S: Final = 1.0
STATE: Final = "falbatch.db"


def memory(bench: Bench) -> list[Row]:
    """Peak memory of a long run, and whether its second half needs more than its first. One run: it takes minutes."""
    jobs = bench.scale.memory_jobs
    with bench.folder() as folder:
        # A run of the quick scale is over before a second look.
        every_s = SAMPLE_S if jobs >= 10_000 else 0.05
        used = bench.batch(folder, jobs, IN_FLIGHT, settings=Settings(file_bytes=SMALL_FILE), sample_s=every_s)
    if len(used.memory) < 4:
        raise ChildFailed(f"a run of {jobs} jobs ended after {used.wall_s:.1f} s, too soon to watch its memory")
    middle = len(used.memory) // 2
    first, second = max(used.memory[:middle]), max(used.memory[middle:])
    what = f"a run of {jobs:,} jobs, {IN_FLIGHT} in flight"
    peak = Row(
        "memory",
        f"peak memory of {what}",
        "MiB",
        used.peak_mib,
        must=300,
        stretch=150,
        sides={"jobs/s": jobs / used.wall_s, "CPU ms/job": 1000 * used.cpu_s / jobs},
        note="Each job's file has 2 KB here.",
    )
    flat = Row(
        "memory-flat",
        f"highest memory of the second half of {what}, over that of the first half",
        "×",
        second / first,
        must=1.2,
        stretch=1.05,
        sides={"first half MiB": first, "second half MiB": second},
        note=f"Looked at every {every_s:g} s.",
    )
    return [peak, flat]


def state_size(bench: Bench) -> list[Row]:
    """Bytes that a finished job leaves in the state file, besides its result's JSON."""
    jobs, runs = bench.scale.state_jobs, []
    for _ in range(bench.scale.runs):
        with bench.folder() as folder:
            bench.batch(folder, jobs, IN_FLIGHT)
            results = bench.fal.stats()["result_bytes"]
            sizes = _sizes(folder / "out")
        runs.append(
            {
                "value": (sizes[STATE] - results) / jobs,
                "state file B/job": sizes[STATE] / jobs,
                "result JSON B/job": results / jobs,
                "copy B/job": sizes[f"{STATE}.copy"] / jobs,
                "journal B/job": sizes["falbatch.journal"] / jobs,
            }
        )
    found = medians(runs)
    value = found.pop("value")
    what = f"state file of {jobs:,} finished jobs after a checkpoint, less their results as fal sent them"
    note = "The copy is a second state file, written at the end of a run; the journal begins anew then."
    return [Row("state-size", what, "B/job", value, must=1024, sides=found, runs=len(runs), note=note)]


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file that begins with falbatch's name, what is missing as 0."""
    with closing(sqlite3.connect(folder / STATE)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    sizes = dict.fromkeys((STATE, f"{STATE}.copy", "falbatch.journal"), 0)
    return sizes | {path.name: path.stat().st_size for path in folder.glob("falbatch*")}
