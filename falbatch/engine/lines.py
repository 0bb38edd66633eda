"""What a run knows of how long each endpoint's requests take: from the state file, and back into it while it learns."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from falbatch.core.changes import DurationsLearned
from falbatch.core.durations import Durations
from falbatch.core.line import Line
from falbatch.errors import FalbatchError

if TYPE_CHECKING:
    from falbatch.engine.ports import Clock, Store

KEPT_EACH_S: Final = 60.0
"""What was learned is written about so often, and at the run's end."""


class Lines:
    """The line of each endpoint. Touched on the event loop only."""

    def __init__(self, store: Store | None, clock: Clock) -> None:
        """Without a store, nothing is remembered."""
        self._store = store
        self._clock = clock
        self._lines: dict[str, Line] = {}
        self._remembered: dict[str, bytes] | None = None
        """What earlier runs learned; None as long as nobody asked."""
        self._kept_at_s = clock.now_s()
        self._kept: dict[str, int] = {}
        """How much each endpoint's sketch had learned when it was written last."""

    def of(self, endpoint: str) -> Line:
        """The line of `endpoint`."""
        line = self._lines.get(endpoint)
        if line is None:
            line = self._lines[endpoint] = self._begun(endpoint)
        return line

    def _begun(self, endpoint: str) -> Line:
        if self._remembered is None:
            self._remembered = {} if self._store is None else self._store.sketches()
        data = self._remembered.get(endpoint)
        line = Line()
        if data is not None:
            with suppress(ValueError):  # damaged, or of another version: learned anew within some jobs
                line = Line(Durations.remembered(data), Durations.remembered(data))
        self._kept[endpoint] = line.durations.sketch.count
        return line

    @property
    def is_due(self) -> bool:
        """Something should be written."""
        return self._clock.now_s() >= self._kept_at_s + KEPT_EACH_S

    async def keep(self) -> None:
        """Write what was learned since the last time. What cannot be written is learned again."""
        self._kept_at_s = self._clock.now_s()
        if self._store is None:
            return
        news: list[DurationsLearned] = []
        for endpoint, line in self._lines.items():
            sketch = line.durations.sketch
            if sketch.count != self._kept[endpoint]:
                self._kept[endpoint] = sketch.count
                news.append(DurationsLearned(endpoint, sketch.to_bytes(), self._clock.unix_s()))
        if news:
            with suppress(FalbatchError):
                await self._store.record(*news)
