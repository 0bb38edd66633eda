"""`python -m tests.bench`: how fast, how big and how frugal falbatch is, beside its targets and beside its peers.

Every row names its target, what was measured, both sides of a ratio, and whether the target is reached. The client runs
on one core, a fal that costs next to nothing (`tests/bench/fal.py`) on another; the sides of a ratio take turns within
one run, and figures are medians. Needs the extra `bench`. A whole run takes 45 minutes, `--quick` a minute: that
shows only that it works. Exit code 1 when a measurement failed; targets that are not reached are no failure.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.bench import download_rows, jobs_rows, plan_rows, poll_rows, start_rows, state_rows
from tests.bench.children import CLIENT_CORE, SERVER_CORE, ChildFailed
from tests.bench.fal_process import FalProcess
from tests.bench.row import Row, table
from tests.bench.setting import FULL, QUICK, Bench, Scale

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Measure = Callable[[Bench], list[Row]]

FAILURES: Final = (ChildFailed, OSError, ValueError, LookupError, ImportError)
"""What a measurement may end with; the others are made all the same."""


def measures(bench: Bench) -> dict[str, Measure]:
    """Name → what makes its rows, in the order of the table."""
    return {
        "ceiling": jobs_rows.ceiling,
        "jobs-512": jobs_rows.jobs_512,
        "jobs-64": jobs_rows.jobs_64,
        "growth": jobs_rows.growth,
        **poll_rows.cases(bench),
        "plan": plan_rows.plan,
        "big-state": start_rows.big_state,
        "memory": state_rows.memory,
        "state-size": state_rows.state_size,
        "download-1mb": download_rows.small,
        "download-20mb": download_rows.large,
        "help": start_rows.show_help,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    options = _parser().parse_args(arguments)
    scale: Scale = QUICK if options.quick else FULL
    if options.runs:
        scale = dataclasses.replace(scale, runs=options.runs)
    transports = None if options.transports is None else tuple(filter(None, options.transports.split(",")))
    with FalProcess() as fal:
        bench = Bench(fal, scale, transports)
        wanted = _chosen(measures(bench), options.only)
        rows, failed = _measure(bench, wanted, is_quick=options.quick)
    document = {
        "machine": _machine(),
        "quick": options.quick,
        "rows": [row.as_json() for row in rows],
        "failed": failed,
    }
    if options.json != "-":
        if options.quick:
            print(
                "A quick run shows that the benchmarks work; its figures mean little, and no target is held to them.\n"
            )
        print(table(rows))
    if options.json:
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        if options.json == "-":
            sys.stdout.write(text)
        else:
            Path(options.json).write_text(text, encoding="utf-8")
    for name, why in failed.items():
        print(f"failed: {name}: {why.splitlines()[0]}", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="ROW[,ROW]", default="", help="only these, or all whose names begin so")
    parser.add_argument("--runs", type=int, metavar="N", help="runs of each side (5; with --quick 1)")
    parser.add_argument(
        "--transports",
        metavar="NAME[,NAME]",
        help="values of FALBATCH_TRANSPORT to measure besides the default ('' for none; else those that there are)",
    )
    parser.add_argument("--quick", action="store_true", help="a small version of everything")
    parser.add_argument(
        "--json", metavar="FILE", help="write the rows as JSON too; - for stdout, in place of the table"
    )
    return parser


def _chosen(every: dict[str, Measure], only: str) -> dict[str, Measure]:
    """Those whose name is given or begins with what is given; ends the program for a name that fits none."""
    if not only:
        return every
    chosen: dict[str, Measure] = {}
    for given in only.split(","):
        found = {given: every[given]} if given in every else {n: m for n, m in every.items() if n.startswith(given)}
        if not found:
            raise SystemExit(f"no row is called {given!r}; there are: {', '.join(every)}")
        chosen |= found
    return chosen


def _measure(bench: Bench, wanted: dict[str, Measure], *, is_quick: bool = False) -> tuple[list[Row], dict[str, str]]:
    """All rows, those of a quick look without targets, and name → why of the measurements that failed."""
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for name, measure in wanted.items():
        began = time.monotonic()
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            made = measure(bench)
        except FAILURES as error:
            failed[name] = f"{type(error).__name__}: {error}"
            print(f"{name} failed: {failed[name]}", file=sys.stderr, flush=True)
            continue
        if is_quick:
            made = [dataclasses.replace(row, must=None, stretch=None) for row in made]
        rows += made
        for row in made:
            print(f"  {row.name}: {row.value:.3g} {row.unit}, {row.verdict}", file=sys.stderr)
        print(f"  in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return rows, failed


def _machine() -> dict[str, Any]:
    """What was measured on."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "client_core": CLIENT_CORE,
        "server_core": SERVER_CORE,
    }


if __name__ == "__main__":
    sys.exit(main())
