"""Files of 1 MB and 20 MB: falbatch beside plain transports that write the same files to the same disk."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

from tests.bench.children import ChildFailed, Used, run_child
from tests.bench.fal_line import Settings
from tests.bench.plain_downloads import installed
from tests.bench.row import Row, medians
from tests.bench.setting import count_pictures, last_json

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.setting import Bench

MB: Final = 1_000_000
AT_ONCE: Final = 8
"""Files at a time, on every side."""
TICK_S: Final = 0.004
"""Of the clock of file times."""

NOTE: Final = (
    "From the first file's request until the last file is in its place; CPU less that of a run that fetches one small"
    " file. All sides sync each file; falbatch also hashes and checks it, renames it and records it."
)


@dataclass(frozen=True, slots=True)
class _Ours:
    """One run of falbatch that only fetched files."""

    fetch_s: float
    """From when fal was asked for the first file until the last one stood in its place."""
    cpu_s: float
    """Of the whole process."""
    peak_mib: float


def small(bench: Bench) -> list[Row]:
    """Files of 1 MB."""
    return _measure(bench, 1, bench.scale.small_files)


def large(bench: Bench) -> list[Row]:
    """Files of 20 MB, and whether memory grows with them."""
    return _measure(bench, 20, bench.scale.large_files)


def _measure(bench: Bench, size_mb: int, files: int) -> list[Row]:
    runs: list[dict[str, float]] = []
    with bench.folder() as folder, bench.folder() as idle:
        _prepare(bench, idle, 1, 20_480)
        few = [_fetch_again(bench, idle, 1) for _ in range(bench.scale.runs)]
        start_cpu_s, idle_mib = median(one.cpu_s for one in few), median(one.peak_mib for one in few)
        _prepare(bench, folder, files, size_mb * MB)
        for _ in range(bench.scale.runs):
            ours = _fetch_again(bench, folder, files)
            volume = files * size_mb
            run = {
                "falbatch MB/s": volume / ours.fetch_s,
                "falbatch CPU ms/MB": 1000 * max(ours.cpu_s - start_cpu_s, 0.0) / volume,
                "peak": ours.peak_mib,
            }
            for kind in installed():
                wall_s, cpu_s = _plain(bench, kind, files)
                run |= {f"{kind} MB/s": volume / wall_s, f"{kind} CPU ms/MB": 1000 * cpu_s / volume}
            runs.append(run)
    found = medians(runs)
    peak = found.pop("peak")
    best = max(found[f"{kind} MB/s"] for kind in installed())
    time_row = Row(
        f"download-{size_mb}mb",
        f"{files} files of {size_mb} MB, {AT_ONCE} at a time: falbatch's time over that of the best plain transport",
        "×",
        best / found["falbatch MB/s"],
        must=1.5,
        stretch=1.1,
        sides=found,
        runs=len(runs),
        note=NOTE,
    )
    # Chunks, queues and the library's own buffers for AT_ONCE files; a file held in memory would be more.
    flat = Row(
        f"download-{size_mb}mb-memory",
        f"peak memory while fetching files of {size_mb} MB, less that for one of 20 KB",
        "MiB",
        peak - idle_mib,
        must=32,
        sides={"peak MiB": peak, "one small file MiB": idle_mib},
        runs=len(runs),
    )
    return [time_row, flat]


def _prepare(bench: Bench, folder: Path, files: int, size_bytes: int) -> None:
    """A finished batch, whose files can be fetched again and again."""
    bench.batch(folder, files, files, settings=Settings(file_bytes=size_bytes), downloads=AT_ONCE)


def _fetch_again(bench: Bench, folder: Path, files: int) -> _Ours:
    """Lose the files, and let `falbatch retry --missing-files` bring them back."""
    out = folder / "out"
    for path in out.rglob("*.jpg"):
        path.unlink()
    bench.fal.reset()
    used: Used = bench.falbatch("retry", str(folder / "bench.yaml"), "--missing-files", "--json")
    stats = bench.fal.stats()
    if stats["submits"] or count_pictures(out) != files:
        raise ChildFailed(f"falbatch fetched {count_pictures(out)} of {files} files, with {stats['submits']} submits")
    # A rename sets ctime, on the other clock.
    ended = max(path.stat().st_ctime for path in out.rglob("*.jpg")) - (time.time() - time.monotonic())
    return _Ours(max(ended - stats["first_file"], TICK_S), used.cpu_s, used.peak_mib)


def _plain(bench: Bench, kind: str, files: int) -> tuple[float, float]:
    """Seconds and CPU seconds of a plain transport."""
    with bench.folder() as folder:
        words = [sys.executable, "-m", "tests.bench.plain_downloads", kind, bench.fal.origin, str(files), str(AT_ONCE)]
        figures = last_json(run_child([*words, str(folder)]).out)
        if count_pictures(folder) != files:
            raise ChildFailed(f"{kind} wrote {count_pictures(folder)} of {files} files")
    return figures["wall_s"], figures["cpu_s"]
