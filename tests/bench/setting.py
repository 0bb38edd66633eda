"""What every measurement is given: how big it shall be, a fal, a folder, and ways to run the two sides."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.bench.children import ChildFailed, Used, run_child
from tests.bench.fal_line import Settings
from tests.bench.manifests import job_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.fal_process import FalProcess

TRANSPORTS: Final = ("httpx", "native")
"""Those with a target of their own."""

FALBATCH: Final = (sys.executable, "-m", "falbatch")


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything. Jobs of each measurement; `runs` of each side."""

    runs: int
    ceiling_jobs: int
    our_jobs: int
    """falbatch's side of the rates."""
    their_jobs: int
    """The official client's side, at least: it is slow, and rates are compared."""
    wide_jobs: int
    """Of each run that shows how costs grow."""
    wide: tuple[int, ...]
    """Numbers in flight between which the cost of a job may not grow, smallest first."""
    poll_in_flight: int
    poll_cases: tuple[tuple[float, int], ...]
    """Service time in seconds, and how many times `poll_in_flight` jobs."""
    plan_rows: int
    """Lines of CSV; each makes ten jobs."""
    finished: int
    """Jobs of the big state file that are done; a thousandth of them more are open."""
    memory_jobs: int
    state_jobs: int
    small_files: int
    """Files of 1 MB."""
    large_files: int
    """Files of 20 MB."""


FULL: Final = Scale(
    runs=5,
    ceiling_jobs=40_000,
    our_jobs=10_000,
    their_jobs=512,
    wide_jobs=8_192,
    wide=(32, 4_096),
    poll_in_flight=256,
    poll_cases=((0.5, 8), (5.0, 8), (60.0, 3)),
    plan_rows=100_000,
    finished=1_000_000,
    memory_jobs=200_000,
    state_jobs=5_000,
    small_files=256,
    large_files=24,
)

QUICK: Final = Scale(
    runs=1,
    ceiling_jobs=2_000,
    our_jobs=200,
    their_jobs=32,
    wide_jobs=256,
    wide=(8, 128),
    poll_in_flight=16,
    poll_cases=((0.2, 3), (1.0, 2)),
    plan_rows=500,
    finished=2_000,
    memory_jobs=600,
    state_jobs=200,
    small_files=8,
    large_files=2,
)


class Bench:
    """The surroundings of a measurement."""

    def __init__(self, fal: FalProcess, scale: Scale, transports: tuple[str, ...] | None = None) -> None:
        """`transports`: what to measure besides the default; None to find out."""
        self.fal = fal
        self.scale = scale
        self._transports = transports

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder for one run, gone afterwards."""
        path = Path(tempfile.mkdtemp(prefix="falbatch-bench-"))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def falbatch(self, *words: str, transport: str = "", **how: Any) -> Used:
        """The command line, against this fal. `how` goes to `run_child`."""
        environment = {"FALBATCH_ORIGIN": self.fal.origin, "FAL_KEY": "bench:ours"}
        if transport:
            environment["FALBATCH_TRANSPORT"] = transport
        return run_child([*FALBATCH, *words], environment=environment, **how)

    def batch(
        self,
        folder: Path,
        jobs: int,
        in_flight: int,
        *,
        settings: Settings | None = None,
        downloads: int | None = None,
        transport: str = "",
        sample_s: float | None = None,
    ) -> Used:
        """Run `jobs` jobs through `falbatch run … --json` into `folder`, with fal's counts begun anew.

        Raises ChildFailed unless each was submitted once and each has its file.
        """
        self.fal.set(settings or Settings())
        manifest = job_manifest(folder, jobs, in_flight, downloads=downloads)
        used = self.falbatch("run", str(manifest), "--json", transport=transport, sample_s=sample_s)
        self.check("falbatch", jobs, folder / "out")
        return used

    def official(self, folder: Path, jobs: int, in_flight: int) -> Used:
        """The same through fal's official client; its files go to `folder`."""
        self.fal.set(Settings())
        words = [sys.executable, "-m", "tests.bench.official", self.fal.origin, str(jobs), str(in_flight), str(folder)]
        used = run_child(words)
        self.check("the official client", jobs, folder)
        return used

    def check(self, side: str, jobs: int, files: Path) -> None:
        """Raises ChildFailed unless fal was given exactly these jobs, and all their files are there."""
        stats, pictures = self.fal.stats(), count_pictures(files)
        if not stats["submits"] == stats["executed"] == pictures == jobs:
            told = f"{stats['submits']} submits, {stats['executed']} executions and {pictures} files"
            raise ChildFailed(f"{side}: {told} for {jobs} jobs")

    @property
    def transports(self) -> tuple[str, ...]:
        """Names for FALBATCH_TRANSPORT to measure besides the default: unless told, those that this falbatch knows.

        A version that does not look at the variable takes nonsense too: then there is nothing to compare.
        """
        if self._transports is None:
            is_read = not self._takes("nonsense")
            self._transports = tuple(name for name in TRANSPORTS if is_read and self._takes(name))
        return self._transports

    def _takes(self, transport: str) -> bool:
        with self.folder() as folder:
            try:
                self.batch(folder, 1, 1, transport=transport)
            except ChildFailed:
                return False
        return True


def count_pictures(folder: Path) -> int:
    """Finished JPEGs anywhere below `folder`."""
    total = 0
    for _, _, names in os.walk(folder):
        total += sum(name.endswith(".jpg") for name in names)
    return total


def last_json(out: bytes) -> dict[str, Any]:
    """The last line of a process's stdout."""
    value: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return value
