"""Where a run's time went: how often each stage was passed, how long it took, and what it cost of our own processor.

The times are of one job's or one call's passing, waiting included; hundreds go on side by side, so they do not add up.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.sketch import Sketch

if TYPE_CHECKING:
    from collections.abc import Mapping

STAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "plan": "reading the manifest, comparing it with the state",
        "submit": "one submit or direct call, until fal's answer",
        "at fal": "from the acceptance until the end was noticed",
        "status": "one question whether a request has ended",
        "result": "reading one result",
        "download": "fetching one file, checked and durable",
        "rename": "giving one file its name, durably",
        "state": "one entry of the state file, until it is durable",
        "loop": "connections and tasks: what belongs to no stage alone",
        "other": "progress, feeding, everything else",
    }
)
"""Every stage in the order of a job's life, with its meaning."""


@dataclass(frozen=True, slots=True)
class StageRow:
    """One line of the table."""

    stage: str
    meaning: str
    count: int
    p50_s: float | None
    """Median seconds; None where nothing was timed."""
    p95_s: float | None
    cpu_share: float | None
    """Of the processor time that falbatch used, 0 to 1; None where the system does not tell."""


@dataclass(frozen=True, slots=True)
class StageTable:
    """A whole run."""

    rows: tuple[StageRow, ...]
    wall_s: float
    cpu_s: float
    """Processor seconds of this process, all threads."""

    def as_json(self) -> dict[str, Any]:
        """One JSON object with stable field names."""
        rows = [asdict(row) for row in self.rows]
        return {"event": "profile", "wall_s": round(self.wall_s, 3), "cpu_s": round(self.cpu_s, 3), "stages": rows}


class StageTimes:
    """Counts what is timed. Touched by one thread."""

    def __init__(self) -> None:
        self._sketches: dict[str, Sketch] = {}

    def took(self, stage: str, seconds: float) -> None:
        """One passing of `stage`, one of `STAGES`."""
        sketch = self._sketches.get(stage)
        if sketch is None:
            sketch = self._sketches[stage] = Sketch()
        sketch.add(seconds)

    def table(self, *, wall_s: float, cpu_s: float, cpu_by_stage: Mapping[str, float] | None) -> StageTable:
        """The rows of all stages that were passed or cost anything; `cpu_by_stage` in seconds, None: unknown."""
        known = cpu_by_stage or {}
        total_s = sum(known.values())
        rows = []
        for stage, meaning in STAGES.items():
            sketch = self._sketches.get(stage)
            if sketch is None and not known.get(stage):
                continue
            share = None if cpu_by_stage is None else known.get(stage, 0.0) / total_s if total_s else 0.0
            p50_s, p95_s = (sketch.quantile(0.5), sketch.quantile(0.95)) if sketch else (None, None)
            rows.append(StageRow(stage, meaning, sketch.count if sketch else 0, p50_s, p95_s, share))
        return StageTable(tuple(rows), wall_s, cpu_s)
