"""One row of the benchmarks' table: what was measured, what it should be, and whether it is."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Sense = Literal["at least", "at most"]


@dataclass(frozen=True, slots=True)
class Row:
    """A measured value beside its targets."""

    name: str
    """Short, without spaces."""
    what: str
    """One line for people."""
    unit: str
    """Of `value`; "×" for a ratio of two sides."""
    value: float
    must: float | None = None
    """None for a row that only informs."""
    stretch: float | None = None
    sense: Sense = "at most"
    sides: Mapping[str, float] = field(default_factory=dict)
    """Name with its unit → number: what the value was taken from, and what else was seen."""
    runs: int = 1
    """How many were made of each side; value and sides are their medians."""
    note: str = ""
    """What one must know to read it."""

    @property
    def verdict(self) -> str:
        """`stretch reached`, `reached`, `not reached`, or `for information`."""
        if self.must is None:
            return "for information"
        if self.stretch is not None and self._reaches(self.stretch):
            return "stretch reached"
        return "reached" if self._reaches(self.must) else "not reached"

    def _reaches(self, target: float) -> bool:
        return self.value >= target if self.sense == "at least" else self.value <= target

    def as_json(self) -> dict[str, Any]:
        """All of it, for `--json`."""
        return {
            "name": self.name,
            "what": self.what,
            "value": self.value,
            "unit": self.unit,
            "sense": self.sense,
            "must": self.must,
            "stretch": self.stretch,
            "verdict": self.verdict,
            "sides": dict(self.sides),
            "runs": self.runs,
            "note": self.note,
        }


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over several runs of one side."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def table(rows: Iterable[Row]) -> str:
    """The rows as text, each with its sides below."""
    lines = [f"{'row':<24}{'measured':>16}{'must':>15}{'stretch':>15}  verdict", "-" * 92]
    for row in rows:
        must, stretch = _target(row, row.must), _target(row, row.stretch)
        lines.append(f"{row.name:<24}{_number(row.value, row.unit):>16}{must:>15}{stretch:>15}  {row.verdict}")
        lines.append(f"    {row.what} (median of {row.runs})" if row.runs > 1 else f"    {row.what}")
        if row.sides:
            lines.append("    " + " · ".join(f"{name} {_plain(value)}" for name, value in row.sides.items()))
        if row.note:
            lines.append(f"    {row.note}")
    return "\n".join(lines)


def _target(row: Row, target: float | None) -> str:
    return "" if target is None else f"{'≥' if row.sense == 'at least' else '≤'} {_number(target, row.unit)}"


def _number(value: float, unit: str) -> str:
    return f"{_plain(value)} {unit}".rstrip()


def _plain(value: float) -> str:
    """Three digits that count, without powers of ten."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"
