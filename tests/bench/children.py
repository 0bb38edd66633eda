"""Processes of a benchmark, each on a core of its own, and what they used."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CORES: Final = sorted(os.sched_getaffinity(0))
CLIENT_CORE: Final = CORES[0]
SERVER_CORE: Final = CORES[-1]
"""The same one on a machine with one core: then the two sides get in each other's way equally."""

LONGEST_S: Final = 3600.0
"""No single process of a benchmark takes longer."""

TOLD: Final = 800
"""Characters of a failed process's last words that a message repeats."""


class ChildFailed(Exception):
    """A process of a benchmark did not end as it should."""


@dataclass(frozen=True, slots=True)
class Used:
    """What a process needed from start to end."""

    wall_s: float
    cpu_s: float
    """User and system, all its threads."""
    peak_mib: float
    """At least what the process that started it had in memory: Linux counts that in. So the benchmarks stay small."""
    began: float
    """On the monotonic clock, which all processes share."""
    out: bytes = field(repr=False)
    """Its stdout."""
    memory: tuple[float, ...] = field(default=(), repr=False)
    """MiB in memory, once in each `sample_s`."""


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started inside stays on `core`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run_child(
    words: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    core: int = CLIENT_CORE,
    codes: tuple[int, ...] = (0,),
    sample_s: float | None = None,
    keep_output: bool = True,
) -> Used:
    """Run `words` to their end. Raises ChildFailed for an exit code that is not in `codes`, with its last words."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        began = time.monotonic()
        with on_core(core):
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=out if keep_output else subprocess.DEVNULL,
                stderr=errors,
                env={**os.environ, **(environment or {})},
            )
        with _killed_after(process, LONGEST_S), _sampled(process.pid, sample_s) as memory:
            _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        if process.returncode not in codes:
            told = errors.read().decode(errors="replace")[-TOLD:].strip()
            raise ChildFailed(f"{' '.join(words[:6])} …: exit code {process.returncode}\n{told}")
        cpu_s = usage.ru_utime + usage.ru_stime
        return Used(wall_s, cpu_s, usage.ru_maxrss / 1024, began, out.read(), tuple(memory))


@contextmanager
def _killed_after(process: subprocess.Popen[bytes], limit_s: float) -> Iterator[None]:
    """Not `process.kill`: it would reap the process, whose usage is then lost."""
    timer = threading.Timer(limit_s, os.kill, (process.pid, signal.SIGKILL))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _sampled(pid: int, every_s: float | None) -> Iterator[list[float]]:
    memory: list[float] = []
    ended = threading.Event()

    def look(every_s: float) -> None:
        while not ended.wait(every_s):
            try:
                pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
            except (OSError, IndexError):
                return
            memory.append(pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20))

    thread = threading.Thread(target=look, args=(every_s,)) if every_s is not None else None
    if thread:
        thread.start()
    try:
        yield memory
    finally:
        ended.set()
        if thread:
            thread.join()
