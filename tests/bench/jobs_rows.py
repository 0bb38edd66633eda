"""Whole jobs without service time: how many a second beside fal's official client, and what one costs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from tests.bench.children import run_child
from tests.bench.fal_line import Settings
from tests.bench.row import Row, medians
from tests.bench.setting import last_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.setting import Bench

WAVES: Final = 4
"""Jobs of the official client's side for each one in flight, at least."""

CONNECTIONS: Final = 64
"""Of the client that looks for the server's own limit."""

TARGETS_MS: Final[Mapping[str, tuple[float, float | None]]] = {
    "": (2.0, 0.5),
    "httpx": (2.0, None),
    "native": (0.5, None),
}
"""Transport ("" for the default) → what a job's CPU must be, and should be."""

NOTE: Final = (
    "Whole processes, start-up included. falbatch keeps its state durable, hashes and checks each file; the official"
    " client does neither."
)


def ceiling(bench: Bench) -> list[Row]:
    """The limit of the benchmarks' fal, so that nobody takes it for falbatch's."""
    jobs, runs = bench.scale.ceiling_jobs, []
    for _ in range(bench.scale.runs):
        bench.fal.set(Settings())
        before = bench.fal.stats()["cpu_s"]
        words = [sys.executable, "-m", "tests.bench.raw", bench.fal.origin, str(jobs), str(CONNECTIONS)]
        figures = last_json(run_child(words).out)
        fal_s = bench.fal.stats()["cpu_s"] - before
        runs.append(
            {
                "jobs/s": jobs / figures["wall_s"],
                "client CPU ms/job": 1000 * figures["cpu_s"] / jobs,
                "fal CPU ms/job": 1000 * fal_s / jobs,
            }
        )
    found = medians(runs)
    what = f"the benchmarks' fal itself: whole jobs over {CONNECTIONS} bare sockets, nothing kept"
    return [Row("ceiling", what, "jobs/s", found["jobs/s"], sides=found, runs=len(runs))]


def jobs_512(bench: Bench) -> list[Row]:
    """Rate and cost at 512 in flight."""
    in_flight, transports = 512, ("", *bench.transports)
    figures = _sides(bench, in_flight, transports)
    rows = [_rate(bench, in_flight, figures, must=20, stretch=100)]
    ours = {f"{side} ms": figures[side]["cpu_ms"] for side in figures if side != "official"}
    for transport in transports:
        name = _side(transport)
        must, stretch = TARGETS_MS.get(transport, TARGETS_MS[""])
        rows.append(
            Row(
                "cpu-512" + (transport and f"-{transport}"),
                f"CPU of one job at {in_flight} in flight, state durable, {name}",
                "ms",
                figures[name]["cpu_ms"],
                must=must,
                stretch=stretch,
                sides={**ours, "official ms": figures["official"]["cpu_ms"]},
                runs=bench.scale.runs,
                note="The process's user and system time, less that of a run of one job.",
            )
        )
    return rows


def jobs_64(bench: Bench) -> list[Row]:
    """Rate at 64 in flight."""
    return [_rate(bench, 64, _sides(bench, 64, ("",)), must=3, stretch=15)]


def growth(bench: Bench) -> list[Row]:
    """How the cost of a job grows with the number in flight."""
    few, many = bench.scale.wide
    runs = []
    for _ in range(bench.scale.runs):
        run = {
            f"{number:,} in flight ms": _our_run(bench, number, "", bench.scale.wide_jobs)["cpu_ms"]
            for number in (few, many)
        }
        run["growth"] = run[f"{many:,} in flight ms"] / run[f"{few:,} in flight ms"]
        runs.append(run)
    found = medians(runs)
    value = found.pop("growth")
    what = f"CPU of one job at {many:,} in flight over that at {few:,}"
    note = "Flat: within the scatter of 10 %."
    return [Row("growth", what, "×", value, must=1.5, stretch=1.1, sides=found, runs=len(runs), note=note)]


def _sides(bench: Bench, in_flight: int, transports: Sequence[str]) -> dict[str, dict[str, float]]:
    """Side → medians; the sides take turns."""
    runs: dict[str, list[dict[str, float]]] = {"official": []}
    for _ in range(bench.scale.runs):
        runs["official"].append(_their_run(bench, in_flight))
        for transport in transports:
            runs.setdefault(_side(transport), []).append(_our_run(bench, in_flight, transport, bench.scale.our_jobs))
    return {side: medians(of_side) for side, of_side in runs.items()}


def _side(transport: str) -> str:
    return f"falbatch, {transport}" if transport else "falbatch"


def _rate(bench: Bench, in_flight: int, figures: dict[str, dict[str, float]], *, must: float, stretch: float) -> Row:
    rates = {f"{side} jobs/s": found["rate"] for side, found in figures.items()}
    return Row(
        f"rate-{in_flight}",
        f"whole jobs a second at {in_flight} in flight: falbatch over the official client",
        "×",
        figures["falbatch"]["rate"] / figures["official"]["rate"],
        must=must,
        stretch=stretch,
        sense="at least",
        sides={
            **rates,
            "falbatch without start-up jobs/s": figures["falbatch"]["bare_rate"],
            "official without start-up jobs/s": figures["official"]["bare_rate"],
        },
        runs=bench.scale.runs,
        note=NOTE,
    )


def _their_run(bench: Bench, in_flight: int) -> dict[str, float]:
    """As `_our_run`; some waves of jobs, or opening the connections would be all there is to see."""
    jobs = max(bench.scale.their_jobs, WAVES * in_flight)
    with bench.folder() as folder:
        one = bench.official(folder, 1, in_flight)
    with bench.folder() as folder:
        used = bench.official(folder, jobs, in_flight)
    return {
        "rate": jobs / used.wall_s,
        "bare_rate": (jobs - 1) / (used.wall_s - one.wall_s),
        "cpu_ms": 1000 * (used.cpu_s - one.cpu_s) / (jobs - 1),
    }


def _our_run(bench: Bench, in_flight: int, transport: str, jobs: int) -> dict[str, float]:
    """Rate of the whole process, and rate and cost without what a run of one job takes."""
    with bench.folder() as folder:
        one = bench.batch(folder, 1, in_flight, transport=transport)
    with bench.folder() as folder:
        used = bench.batch(folder, jobs, in_flight, transport=transport)
    return {
        "rate": jobs / used.wall_s,
        "bare_rate": (jobs - 1) / (used.wall_s - one.wall_s),
        "cpu_ms": 1000 * (used.cpu_s - one.cpu_s) / (jobs - 1),
    }
