"""What one download may cost in time, space and patience, and when it is too slow to be waited for.

Pure: the clock's reading comes in as an argument.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

MEBIBYTE: Final = 1024**2
GIBIBYTE: Final = 1024**3

STEPS: Final = 30
"""Parts of a stretch: one is left behind this exactly, and this many marks are kept at most."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Bounds of one try to fetch one file, redirects included."""

    total_s: float = 3600.0
    """A 10 GB file at 3 MB/s."""
    bytes_most: int = 20 * GIBIBYTE
    """Far above any video that fal's models make, far below a disk."""
    unannounced_bytes_most: int = 2 * GIBIBYTE
    """Of a body without a length, which may be endless: every file of fal's own servers is announced, and what others
    make up as they send it is seldom so large."""
    free_least_bytes: int = MEBIBYTE
    """Room on the disk that downloads leave: what is paid for must still be recorded when they have filled the rest."""
    in_memory_most: int = MEBIBYTE
    """Bytes of a body that waits in memory until it is whole: a part file and a note beside it cost more than the file
    (0.3 ms). 16 downloads at once (the default) hold 16 MiB."""
    slowest_bytes_per_s: float = 1024.0
    """16 downloads at once (the default) have this much each on a line of 128 kbit/s; who sends less keeps us waiting
    on purpose or is broken."""
    slow_for_s: float = 30.0
    """Longer than the pauses of a line that recovers (TCP's first five retransmissions), shorter than anybody's
    patience."""

    @property
    def silent_s(self) -> float:
        """Longest silence, in seconds; twice a stretch, since one long gap is forgiven (see `Pace`)."""
        return 2 * self.slow_for_s

    def unannounced_most(self, claimed: int | None) -> int:
        """Bytes taken of a body without a length, when the result speaks of `claimed`.

        Claims are often a little wrong (the size before packing, a thumbnail's): twice as much and a bit is let in.
        """
        if claimed is None:
            return self.unannounced_bytes_most
        return min(self.unannounced_bytes_most, 2 * claimed + MEBIBYTE)


class Pace:
    """Watches how fast a body comes. Times are seconds of a monotonic clock.

    One gap that is longer than a stretch is forgiven: this program may have been stopped (Ctrl-Z and `fg`), or the
    machine asleep or its virtual processor paused, and that says nothing about the server. A second one is not: a
    server that drips on purpose would be forgiven for ever. So a sleep costs a download at most one try, and that only
    when there were two of them.
    """

    def __init__(self, limits: FetchLimits, now_s: float) -> None:
        self._limits = limits
        self._last_s = now_s
        self._bytes = 0
        self._is_patient = True
        self._marks = deque([(now_s, 0)])
        """When so many bytes had come; the first is the beginning of the stretch that is looked at."""

    def too_slow(self, count: int, now_s: float) -> float | None:
        """Take note of `count` bytes more. Returns bytes per second when they are too few, None when all is well."""
        gap_s = now_s - self._last_s
        self._last_s = now_s
        self._bytes += count
        stretch_s = self._limits.slow_for_s
        if gap_s > stretch_s and self._is_patient:
            self._is_patient = False
            self._marks = deque([(now_s, self._bytes)])
            return None
        marks = self._marks
        while len(marks) > 1 and now_s - marks[1][0] >= stretch_s:
            marks.popleft()
        began_s, bytes_then = marks[0]
        if now_s - marks[-1][0] >= stretch_s / STEPS:
            marks.append((now_s, self._bytes))
        if now_s - began_s < stretch_s:
            return None
        speed = (self._bytes - bytes_then) / (now_s - began_s)
        return speed if speed < self._limits.slowest_bytes_per_s else None
