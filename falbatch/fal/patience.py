"""A deadline that knows when nobody was there to keep it.

    the server answers ──▶ [process stopped, or its loop blocked] ──▶ the timer fires late
                                                                     the answer lies in the socket, unread

Whoever gives up there makes a paid submit's fate unknown for nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import TracebackType

LATE_S: Final = 1.0
"""A timer this late means that the loop did not run; a busy one is late by milliseconds."""

PATIENCE_S: Final = 5.0
"""Given once to what was missed meanwhile: ample for what has arrived, and for a packet sent again."""


def deadline(timeout_s: float) -> _Deadline:
    """As `asyncio.timeout(timeout_s)`, but a timer that fires over `LATE_S` late gives `PATIENCE_S` more, once."""
    return _Deadline(timeout_s)


class _Deadline:
    """An asyncio.timeout without a time of its own, which our timer ends."""

    __slots__ = ("_due", "_limit", "_patient", "_timeout_s", "_timer")

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._limit = asyncio.timeout(None)
        self._patient = True

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()
        self._set(self._timeout_s)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._limit.__aexit__(kind, error, trace)

    def _set(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + max(0.0, delay_s)  # a deadline already past is not a late one
        self._timer = loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._patient and now - self._due > LATE_S:
            self._patient = False
            self._set(PATIENCE_S)
        else:
            # Ends the wait one turn of the loop later: what was read in this turn is still handed over.
            self._limit.reschedule(now)
