"""How often falbatch asks about a job, and how soon after its end it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.bench.fal_line import Settings
from tests.bench.row import Row, medians

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.setting import Bench

SIGMA: Final = 0.5
"""Of the log-normal cases: two thirds of the jobs within a factor of 1.65 of the median."""

LONG_S: Final = 2.0
"""Cases with longer jobs are played once: a run takes minutes, and its medians are of hundreds of jobs."""

OFFICIAL_S: Final = 0.1
"""fal's Python client asks about each request so often (fal-protocol §10.1)."""

NOTE: Final = (
    "Told by fal itself, from when a job was over until an answer first said so; the first wave knows nothing yet."
)


def cases(bench: Bench) -> dict[str, Callable[[Bench], list[Row]]]:
    """Name → measurement, for each service time, steady and log-normal."""
    found: dict[str, Callable[[Bench], list[Row]]] = {}
    for service_s, waves in bench.scale.poll_cases:
        for word, sigma in (("steady", 0.0), ("spread", SIGMA)):
            found[f"polls-{service_s:g}s-{word}"] = _case(service_s, waves, word, sigma)
    return found


def _case(service_s: float, waves: int, word: str, sigma: float) -> Callable[[Bench], list[Row]]:
    def measure(bench: Bench) -> list[Row]:
        runs = 1 if service_s >= LONG_S else bench.scale.runs
        found = medians([_run(bench, Settings(service_s=service_s, sigma=sigma), waves) for _ in range(runs)])
        of = f"jobs of {service_s:g} s, {'all alike' if word == 'steady' else f'log-normal (sigma {sigma})'}"
        calls = Row(
            f"polls-{service_s:g}s-{word}",
            f"status calls of one job, {of}",
            "calls",
            found["calls"],
            must=4,
            stretch=2,
            sides={name: found[name] for name in ("mean", "first wave's median", "jobs/s", "ideal jobs/s")}
            | {"official client's, asking each 0.1 s": max(1.0, service_s / OFFICIAL_S)},
            runs=runs,
        )
        late = Row(
            f"late-{service_s:g}s-{word}",
            f"from a job's end to our noticing, as a share of its service time, {of}",
            "%",
            100 * found["share"],
            must=15,
            stretch=5,
            sides={name: found[name] for name in ("delay ms", "service ms", "first wave's %", "mean delay ms")},
            runs=runs,
            note=NOTE,
        )
        return [calls, late]

    return measure


def _run(bench: Bench, settings: Settings, waves: int) -> dict[str, float]:
    in_flight = bench.scale.poll_in_flight
    jobs = in_flight * waves
    with bench.folder() as folder:
        used = bench.batch(folder, jobs, in_flight, settings=settings)
    stats = bench.fal.stats(in_flight)
    every, first = stats["all"], stats["first_wave"]
    return {
        "calls": every["status_calls"],
        "mean": every["status_calls_mean"],
        "first wave's median": first["status_calls"],
        "jobs/s": jobs / used.wall_s,
        "ideal jobs/s": in_flight / settings.service_s,
        "share": every["delay_share"],
        "delay ms": 1000 * every["delay_s"],
        "mean delay ms": 1000 * every["delay_mean_s"],
        "service ms": 1000 * settings.service_s,
        "first wave's %": 100 * first["delay_share"],
    }
