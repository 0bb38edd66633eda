"""The values that cross module borders before a job exists: rows and items. All frozen, all plain data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NewType

if TYPE_CHECKING:
    from collections.abc import Mapping

JobKey = NewType("JobKey", bytes)
"""SHA-256 (32 bytes) of what a job is; see `core/identity.py`."""

RequestId = NewType("RequestId", str)
"""fal's id of an accepted attempt (a UUID in lower case)."""

JsonObject = dict[str, Any]
"""A JSON object as Python holds it: the input of a job, the result of a request."""


class Mode(StrEnum):
    """How an endpoint is called (fal-protocol §3 and §5). The value is what a manifest says."""

    QUEUE = "queue"
    """Submitted, waited for, its result read: survives anything on our side."""
    RUN = "run"
    """One call that answers with the result."""
    STREAM = "stream"
    """One call that answers with events; the last one is the result."""
    REALTIME = "realtime"
    """One message over a WebSocket that is kept open, and its answer."""

    @property
    def is_direct(self) -> bool:
        """True where the answer comes on the call's own connection: a lost answer cannot be asked for again."""
        return self is not Mode.QUEUE


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source, and where it came from."""

    values: Mapping[str, Any]
    """Column → value. A scalar row is `{"value": x}`; a globbed file is `{"path", "name", "stem"}`."""
    file: str
    """The source as the user named it; the manifest itself for an inline list."""
    line: int
    """1-based line (or entry, for formats without lines) in that source."""


@dataclass(frozen=True, slots=True)
class Item:
    """One combination of row × matrix × zip × repeat, rendered: all that is known before keys are made."""

    seq: int
    """0-based place in the manifest's order, after where, sample and limit."""
    endpoint: str
    mode: Mode
    input: JsonObject
    """The rendered input: JSON values only."""
    name: str | None
    """Rendered and made safe `output.name`, without extension; None when the manifest gives none."""
    label: str
    """A short slug of the matrix and zip values, "" without any: the readable half of a default name."""
    origin: str
    """Where the item comes from, for people: `data/people.csv:14, style=oil painting, seed=3`."""
    number: int = 0
    """0-based place in the manifest's order before where, sample and limit: tells row, combination and replica."""
