"""Waking those who wait for a change, at no cost where nobody waits. Touched on the event loop only."""

from __future__ import annotations

from collections import deque

import anyio


class Bell:
    """Rung at every change; whoever waits looks again. Meant for one that waits, or a few: all of them wake."""

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    @property
    def is_awaited(self) -> bool:
        """Does anybody wait?"""
        return self._event is not None

    def ring(self) -> None:
        """Wake who waits."""
        event, self._event = self._event, None
        if event is not None:
            event.set()

    async def wait(self) -> None:
        """Return at the next ring."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()


class Places:
    """Places for calls under way. Who waits stands in line: as many wake as there is room for, not all of them.

    Who leaves its place counts `taken` down and calls `admit`.
    """

    def __init__(self) -> None:
        self.taken = 0
        """Places that are in use, or given to somebody who is waking up."""
        self._line: deque[anyio.Event] = deque()
        self._most = 0
        """How many places there are, as was said last."""

    async def take(self, most: int) -> None:
        """Return with a place, one of `most`: at once where one is free, else when `admit` gives one."""
        self._most = most
        if self.taken < most and not self._line:
            self.taken += 1
            return
        called = anyio.Event()
        self._line.append(called)
        try:
            await called.wait()
        except BaseException:
            # Cancelled just after it was called: the place that it was given goes to the next in line.
            if called.is_set():
                self.taken -= 1
                self.admit(self._most)
            else:
                self._line.remove(called)
            raise

    def admit(self, most: int) -> None:
        """Give free places to those at the head of the line, up to `most` taken in all."""
        self._most = most
        while self._line and self.taken < most:
            self.taken += 1
            self._line.popleft().set()

    def dismiss(self) -> None:
        """Wake all who wait, each with a place: there is nothing left to wait for."""
        self.admit(self.taken + len(self._line))
