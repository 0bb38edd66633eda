"""Quantiles of a stream of durations in little memory: how long do nine in ten take, lately?

Each value counts in a bucket 2 % wide, on a logarithmic scale (DDSketch, Masson et al., 2019), so a quantile is within
1 % of a value that was really seen. With a memory, old values fade: what came long ago weighs less than what comes now.
"""

from __future__ import annotations

import math
import struct
import zlib
from bisect import bisect_left
from itertools import pairwise
from typing import Final

WIDTH: Final = 1.02
"""Ratio of a bucket's borders."""

LEAST: Final = 1e-6
MOST: Final = 1e9
"""Values outside count as these: nothing that is measured in seconds is shorter than a microsecond or longer than 30
years. Together they bound the number of buckets to about 1,750."""

FADED: Final = 0.001
"""A bucket that holds less than this share of the newest value is forgotten."""

HEAVIEST: Final = 1e9
"""Weight of a value at which all are scaled down: far from where floats lose count."""

EARLY: Final = 0.1
LATE: Final = 0.9
"""The edges of what is usual, as shares."""

_LOG_WIDTH: Final = math.log(WIDTH)
_MIDDLE: Final = 2 / (1 + WIDTH)
"""A bucket's value as a share of its upper border: 1 % from either one, at most."""

_MAGIC: Final = b"fbq1"
_HEAD: Final = struct.Struct("<4sQdI")
"""Magic, values added, memory, buckets."""
_BUCKET: Final = struct.Struct("<hd")
"""Index and weight, the newest value's being 1."""
_CHECK: Final = struct.Struct("<I")


class Sketch:
    """Counts of values by size. `memory`: about how many of the latest values count; None: all, alike."""

    __slots__ = ("_buckets", "_latest", "_order", "_total", "count", "memory")

    def __init__(self, memory: float | None = None) -> None:
        if memory is not None and not 1 < memory <= HEAVIEST:
            raise ValueError(f"a memory of {memory} values")
        self.count = 0
        """Values added since it was made."""
        self.memory = memory
        """May be changed at any time, from one number to another."""
        self._buckets: dict[int, float] = {}
        """Weight by index; bucket i holds values in (WIDTH ** (i - 1), WIDTH ** i]."""
        self._latest = 1.0
        """Weight of the newest value."""
        self._total = 0.0
        self._order: list[int] | None = None
        """The indexes in order; None when it has to be made anew."""

    def add(self, value: float) -> None:
        """Count one value. Raises `ValueError` for what is no number."""
        if not math.isfinite(value):
            raise ValueError(f"{value} cannot be counted")
        index = math.ceil(math.log(min(MOST, max(LEAST, value))) / _LOG_WIDTH)
        if self.memory is not None:
            self._latest *= 1 + 1 / (self.memory - 1)
            if self._latest > HEAVIEST:
                self._scale(1 / self._latest)
        self.count += 1
        self._total += self._latest
        if index in self._buckets:
            self._buckets[index] += self._latest
        else:
            self._buckets[index] = self._latest
            self._order = None

    def quantile(self, share: float) -> float | None:
        """The value that `share` (0 to 1) of the others are not above; None when nothing was added."""
        if not self._buckets:
            return None
        indexes = self._indexes()
        # As a place among the values: the first has place 0, the last one `total - 1`.
        # A hair more, so that rounding makes no difference between a sketch and its copy.
        place = min(1.0, max(0.0, share)) * max(0.0, self._total - self._latest) + 1e-9 * self._total
        below = 0.0
        for index in indexes:
            below += self._buckets[index]
            if below > place:
                return _value(index)
        return _value(indexes[-1])

    def steps(self) -> tuple[list[float], list[float]]:
        """Borders of the buckets in order, two each, and the share of all that is below each border."""
        borders: list[float] = []
        shares: list[float] = []
        total, below = self._total or 1.0, 0.0
        for index in self._indexes():
            upper = WIDTH**index
            borders += (upper / WIDTH, upper)
            shares += (below / total, (below + self._buckets[index]) / total)
            below += self._buckets[index]
        return borders, shares

    @property
    def weight(self) -> float:
        """How many values its quantiles rest on: all of them, or less than the memory."""
        return self._total / self._latest

    def faded(self, weight: float) -> Sketch:
        """The same quantiles resting on `weight` values at most: new ones count for more."""
        faded = Sketch(self.memory)
        faded.count, faded._latest = self.count, self._latest
        factor = min(1.0, weight / self.weight) if self._buckets else 1.0
        faded._buckets = {index: one * factor for index, one in self._buckets.items()}
        faded._total = self._total * factor
        return faded

    def _indexes(self) -> list[int]:
        """The indexes in order; a good moment to forget what has faded."""
        if self._order is None:
            if self.memory is not None:
                least = FADED * self._latest
                self._buckets = {index: weight for index, weight in self._buckets.items() if weight >= least}
                self._total = sum(self._buckets.values())
            self._order = sorted(self._buckets)
        return self._order

    def _scale(self, factor: float) -> None:
        self._latest *= factor
        self._buckets = {index: weight * factor for index, weight in self._buckets.items()}
        self._total = sum(self._buckets.values())

    def to_bytes(self) -> bytes:
        """All of it, 10 bytes a bucket, behind a checksum at its end."""
        indexes = self._indexes()
        parts = [_HEAD.pack(_MAGIC, self.count, self.memory or 0.0, len(indexes))]
        parts += [_BUCKET.pack(index, self._buckets[index] / self._latest) for index in indexes]
        body = b"".join(parts)
        return body + _CHECK.pack(zlib.crc32(body))

    @classmethod
    def from_bytes(cls, data: bytes) -> Sketch:
        """What `to_bytes` gave. Raises `ValueError` for anything else."""
        if len(data) < _HEAD.size + _CHECK.size:
            raise ValueError("too short for a sketch")
        body, (check,) = data[: -_CHECK.size], _CHECK.unpack(data[-_CHECK.size :])
        magic, count, memory, buckets = _HEAD.unpack_from(body)
        if magic != _MAGIC or check != zlib.crc32(body) or len(body) != _HEAD.size + buckets * _BUCKET.size:
            raise ValueError("no sketch, or a damaged one")
        found = list(_BUCKET.iter_unpack(body[_HEAD.size :]))
        is_sound = all(before[0] < after[0] for before, after in pairwise(found)) and all(
            _FIRST <= index <= _LAST and math.isfinite(weight) and weight > 0 for index, weight in found
        )
        if not is_sound or count < bool(found):
            raise ValueError("a sketch with buckets that none has")
        sketch = cls(memory or None)
        sketch.count = count
        sketch._buckets = dict(found)
        sketch._total = sum(sketch._buckets.values())
        return sketch


_FIRST: Final = math.ceil(math.log(LEAST) / _LOG_WIDTH)
_LAST: Final = math.ceil(math.log(MOST) / _LOG_WIDTH)


def _value(index: int) -> float:
    return _MIDDLE * WIDTH**index


class Profile:
    """A sketch at one moment, made for being asked often: which share has ended at an age, and the way back.

    Within a bucket values are even; between buckets that are apart, there are none.
    """

    __slots__ = ("_ages", "_shares", "early", "late")

    def __init__(self, sketch: Sketch) -> None:
        """Of a sketch that is not empty."""
        self._ages, self._shares = sketch.steps()
        self.early = sketch.quantile(EARLY) or LEAST
        """10th percentile."""
        self.late = sketch.quantile(LATE) or LEAST
        """90th percentile."""

    def ended(self, age: float) -> float:
        """The share that is shorter than `age`."""
        place = bisect_left(self._ages, age)
        if place == 0:
            return 0.0
        if place == len(self._ages):
            return 1.0
        before, after = self._ages[place - 1], self._ages[place]
        low, high = self._shares[place - 1], self._shares[place]
        return low + (high - low) * (age - before) / (after - before)

    def age(self, share: float) -> float:
        """The age at which `share` has ended; of all, the longest that was seen."""
        place = bisect_left(self._shares, share)
        if place == 0:
            return self._ages[0]
        if place == len(self._shares):
            return self._ages[-1]
        before, after = self._shares[place - 1], self._shares[place]
        low, high = self._ages[place - 1], self._ages[place]
        return low + (high - low) * (share - before) / (after - before)
