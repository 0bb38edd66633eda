"""Has the machine slept? Its idle connections are then probably dead, though no clock of theirs moved."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

SLEPT_S: Final = 1.0
"""Growth that means sleep: the two clocks are read microseconds apart, and nobody suspends for less."""


def asleep_s() -> float:
    """Seconds that this machine has spent suspended since it started; always 0.0 where no clock tells."""
    boottime: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is None:
        return 0.0
    try:
        return time.clock_gettime(boottime) - time.clock_gettime(time.CLOCK_MONOTONIC)
    except OSError:  # a kernel or a cage that does not let us ask
        return 0.0


class Closable(Protocol):
    """What holds connections."""

    async def close(self) -> None: ...


S = TypeVar("S", bound=Closable)


class Sessions(Generic[S]):
    """One session for all requests, until the machine sleeps: then a new one, and the old one is left to run dry.

    A POST into a connection that died meanwhile has an unknown fate (fal-protocol §13 no. 1).
    """

    def __init__(self, make: Callable[[], S]) -> None:
        self._make = make
        self._asleep_s = 0.0
        self._current: S | None = None
        self._old: list[S] = []
        self._under_way: Counter[S] = Counter()

    @property
    def has_old(self) -> bool:
        """True when a session of before a sleep still has requests under way."""
        return bool(self._old)

    def take(self) -> S:
        """The session for one more request; `give_back` it, whatever happens, when its reply has been read."""
        before_s, self._asleep_s = self._asleep_s, asleep_s()
        if self._current is not None and self._asleep_s - before_s > SLEPT_S:
            self._old.append(self._current)
            self._current = None
        if self._current is None:
            self._current = self._make()
        self._under_way[self._current] += 1
        return self._current

    async def give_back(self, session: S) -> None:
        """One request of `session` is over."""
        self._under_way[session] -= 1
        if self._old:
            await self.sweep()

    async def sweep(self) -> None:
        """Close the old sessions that have no request under way, and with them their idle connections."""
        for session in [one for one in self._old if not self._under_way[one]]:
            self._old.remove(session)
            del self._under_way[session]
            await session.close()

    async def aclose(self) -> None:
        """Close whatever is open, and with it what is under way."""
        if self._current is not None:
            self._old.append(self._current)
            self._current = None
        self._under_way.clear()
        await self.sweep()
