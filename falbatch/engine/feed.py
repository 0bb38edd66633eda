"""What is submitted next: the planned jobs of every endpoint in the manifest's order, and the endpoints side by side.

A slow endpoint whose jobs come first would otherwise fill the window, and a fast one behind it would wait for hours.
The next slot goes to the endpoint that has the fewest; so all that have enough work have equal shares, and what one
cannot use goes to the others. Jobs are read from the state file in chunks: a million of them begin as soon as ten.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from falbatch.core.record import OpenJob
    from falbatch.engine.gate import SubmitGate
    from falbatch.engine.ports import Store

CHUNK: Final = 256
"""Planned jobs read from the state file at a time, over all endpoints."""

CHUNK_LEAST: Final = 16
"""The same for one endpoint of many."""


@dataclass(slots=True)
class _Line:
    """The planned jobs of one endpoint."""

    last: int = -1
    """Place in the manifest of the last one that was read."""
    ahead: deque[OpenJob] = field(default_factory=deque)


class Feeder:
    """The planned jobs of one run, each handed out once."""

    def __init__(self, store: Store, gate: SubmitGate, *, is_alive: Callable[[int], bool]) -> None:
        """`is_alive` tells, by job id, whether a coroutine goes on with a job already."""
        self._store = store
        self._gate = gate
        self._is_alive = is_alive
        self._lines = {endpoint: _Line() for endpoint in store.planned_endpoints()}
        self._chunk = max(CHUNK_LEAST, CHUNK // max(1, len(self._lines)))

    async def next(self) -> OpenJob | None:
        """Wait for a slot; the job that it was taken for. None when nothing is left, or nothing more is submitted."""
        while True:
            for endpoint in list(self._lines):
                self._read(endpoint)
            if not self._lines:
                return None
            chosen = await self._gate.slot(self._choose)
            if chosen is None:
                return None
            job = self._lines[chosen].ahead.popleft()
            if not self._is_alive(job.job_id):
                return job
            self._gate.give_back(chosen)  # found at fal while we waited for the slot: another goes on with it

    def _choose(self) -> str | None:
        """The endpoint with the fewest slots; of equals, the one whose next job comes first in the manifest."""
        best: tuple[int, int] | None = None
        chosen = None
        for endpoint, line in self._lines.items():
            rank = (self._gate.slots_of(endpoint), line.ahead[0].seq or 0)
            if (best is None or rank < best) and self._gate.may_have_more(endpoint):
                best, chosen = rank, endpoint
        return chosen

    def _read(self, endpoint: str) -> None:
        """Have the next job of an endpoint at hand, or let go of the endpoint."""
        line = self._lines[endpoint]
        while True:
            # A failed attempt makes a job `planned` again: its own coroutine goes on with it, not another.
            while line.ahead and self._is_alive(line.ahead[0].job_id):
                line.ahead.popleft()
            if line.ahead:
                return
            chunk = self._store.planned_of(endpoint, line.last, self._chunk)
            if not chunk:
                del self._lines[endpoint]
                self._gate.over(endpoint)
                return
            line.ahead.extend(chunk)
            last = chunk[-1].seq
            line.last = line.last if last is None else last
