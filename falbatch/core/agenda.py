"""Whose turn is it? A list of dates that is cheap to keep: nothing is sorted, nobody is looked through.

    put(due, likely) ─▶ later, by due date ─▶ ready, by likely date ─▶ next_ready()

Of all that are due, the one with the earliest likely date goes first. Likely dates are fixed and time goes on, so
whoever is put in later comes later in the end: nobody starves.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import Final, Generic, TypeVar

T = TypeVar("T")

STALE_LEAST: Final = 64
"""Entries that nobody waits for, up to which they are not worth clearing away."""


class Agenda(Generic[T]):
    """One date each for any number of things. Things are compared by identity."""

    def __init__(self) -> None:
        self._later: list[tuple[float, int, float, T]] = []
        """Due date, number, likely date, thing."""
        self._ready: list[tuple[float, int, T]] = []
        """Likely date, number, thing."""
        self._numbers: dict[int, int] = {}
        """Which entry of a thing counts, by the thing's `id`; all others are stale."""
        self._count = count()

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def entries(self) -> int:
        """Entries that are kept, stale ones included: less than twice as many as there are dates, but for a few."""
        return len(self._later) + len(self._ready)

    def put(self, thing: T, due_s: float, likely_s: float) -> None:
        """Give `thing` a date; one that it had is void."""
        number = self._numbers[id(thing)] = next(self._count)
        heapq.heappush(self._later, (due_s, number, likely_s, thing))
        if self.entries > 2 * len(self._numbers) + STALE_LEAST:
            self._clear()

    def drop(self, thing: T) -> None:
        """`thing` has no date any more."""
        self._numbers.pop(id(thing), None)

    def next_ready(self, now_s: float) -> T | None:
        """The thing whose turn it is at `now_s`, which then has no date any more; None when none is due."""
        later, ready = self._later, self._ready
        while later and later[0][0] <= now_s:
            _, number, likely_s, thing = heapq.heappop(later)
            if self._numbers.get(id(thing)) == number:
                heapq.heappush(ready, (likely_s, number, thing))
        while ready:
            _, number, thing = heapq.heappop(ready)
            if self._numbers.get(id(thing)) == number:
                del self._numbers[id(thing)]
                return thing
        return None

    def next_s(self) -> float | None:
        """When the next one is due: in the past where one is ready; None when nobody has a date."""
        if self._has_ready():
            return float("-inf")
        while self._later:
            due_s, number, _, thing = self._later[0]
            if self._is_current(number, thing):
                return due_s
            heapq.heappop(self._later)
        return None

    def _has_ready(self) -> bool:
        """Drop stale entries in front; True when a current one is left."""
        while self._ready and not self._is_current(self._ready[0][1], self._ready[0][2]):
            heapq.heappop(self._ready)
        return bool(self._ready)

    def _is_current(self, number: int, thing: T) -> bool:
        return self._numbers.get(id(thing)) == number

    def _clear(self) -> None:
        self._later = [entry for entry in self._later if self._is_current(entry[1], entry[3])]
        self._ready = [entry for entry in self._ready if self._is_current(entry[1], entry[2])]
        heapq.heapify(self._later)
        heapq.heapify(self._ready)
