"""What the processor works at: looks at every thread a hundred times a second, and at how long each has run.

Costs about one percent of a core. The share of a thread that waits for the disk is nothing, whatever it waits in.
"""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

EVERY_S: Final = 0.01


class Sampler:
    """A block whose processor time is told apart. `stage_of` names the stage of a source file's path, None for none."""

    def __init__(self, stage_of: Callable[[str], str | None], *, rest: str) -> None:
        """`rest`: the stage of what belongs to no other."""
        self._stage_of = stage_of
        self._rest = rest
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._before: dict[int, int] = {}
        self._stages: dict[str, str | None] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_again, name="falbatch-sampler", daemon=True)

    @property
    def seconds(self) -> dict[str, float] | None:
        """Processor seconds by stage; None where the system does not tell (it is Linux's to)."""
        return dict(self._seconds) if self._before else None

    def __enter__(self) -> None:
        self._look()
        self._seconds.clear()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _look_again(self) -> None:
        while not self._over.wait(EVERY_S):
            self._look()

    def _look(self) -> None:
        frames = sys._current_frames()  # noqa: SLF001  (documented for debuggers and profilers)
        for thread in threading.enumerate():
            if thread is self._thread or thread.native_id is None or thread.ident not in frames:
                continue
            ran_ns = _ran_ns(thread.native_id)
            if ran_ns is None:
                continue
            used_ns = ran_ns - self._before.get(thread.native_id, 0)
            self._before[thread.native_id] = ran_ns
            if used_ns > 0:
                self._seconds[self._stage(frames[thread.ident])] += used_ns / 1e9

    def _stage(self, frame: FrameType) -> str:
        """Of the innermost file on the stack that has one."""
        looked_at: FrameType | None = frame
        while looked_at is not None:
            path = looked_at.f_code.co_filename
            if path not in self._stages:
                self._stages[path] = self._stage_of(path)
            stage = self._stages[path]
            if stage is not None:
                return stage
            looked_at = looked_at.f_back
        return self._rest


def _ran_ns(native_id: int) -> int | None:
    """Nanoseconds that a thread of this process has run."""
    try:
        return int(Path(f"/proc/self/task/{native_id}/schedstat").read_bytes().split()[0])
    except (OSError, ValueError, IndexError):
        return None
