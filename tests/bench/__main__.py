"""`python -m tests.bench`: whole jobs through falbatch beside fal's official client, against one sandbox, in turn.

The clients run on one core, the sandbox on the other. Medians and ratios are printed as a table, and as JSON with
`--json`. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.sandbox_process import SandboxProcess

RUN_S = 1200.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    results: dict[str, list[dict[str, Any]]] = {"falbatch": [], "official": []}
    os.sched_setaffinity(0, {cores[-1]})
    with SandboxProcess("--seed", "1", "--concurrency", str(options.in_flight)) as sandbox:
        for _ in range(options.runs):
            for side, measured in results.items():
                measured.append(one_run(side, sandbox, options.jobs, options.in_flight, cores[0]))
                print(f"{side}: {measured[-1]['jobs_per_s']:.1f} jobs/s", file=sys.stderr)
    medians = {
        side: {name: statistics.median(run[name] for run in runs) for name in runs[0]} for side, runs in results.items()
    }
    if options.json:
        print(json.dumps({"jobs": options.jobs, "in_flight": options.in_flight, "median": medians, "runs": results}))
    else:
        show(medians, options)


def one_run(side: str, sandbox: SandboxProcess, jobs: int, in_flight: int, core: int) -> dict[str, Any]:
    """One side's figures, with fal's own count of status calls."""
    sandbox.reset()
    before = status_calls(sandbox)
    words = [sys.executable, "-m", "tests.bench.workers", side, sandbox.origin, str(jobs), str(in_flight)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["taskset", "-c", str(core), *words, folder], check=True, capture_output=True, text=True, timeout=RUN_S
        )
        pictures = len(list(Path(folder).rglob("*.jpg")))
    executions = sandbox.ledger()["count"]
    if pictures != jobs or executions != jobs:
        raise SystemExit(f"{side}: {pictures} pictures and {executions} executions for {jobs} jobs")
    figures = json.loads(done.stdout)
    return {
        "jobs_per_s": jobs / figures["wall_s"],
        "cpu_ms_per_job": 1000 * figures["cpu_s"] / jobs,
        "status_calls_per_job": (status_calls(sandbox) - before) / jobs,
        "peak_mib": figures["peak_mib"],
    }


def status_calls(sandbox: SandboxProcess) -> int:
    """Status calls that the sandbox has answered so far."""
    counts: dict[str, int] = sandbox.stats()["requests"].get("status", {})
    return sum(counts.values())


def show(medians: dict[str, dict[str, float]], options: argparse.Namespace) -> None:
    """The table."""
    print(f"{options.jobs} jobs, {options.in_flight} in flight, medians of {options.runs}")
    print(f"{'':24}{'falbatch':>12}{'official':>12}{'ratio':>10}")
    for name, ours in medians["falbatch"].items():
        theirs = medians["official"][name]
        print(f"{name:24}{ours:>12.2f}{theirs:>12.2f}{ours / theirs:>10.2f}")


if __name__ == "__main__":
    main()
