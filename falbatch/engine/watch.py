"""One request that a job waits for, as the poll scheduler keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from falbatch.core.line import Course, Line
    from falbatch.core.record import RequestOnRecord
    from falbatch.engine.ports import Progress


@dataclass(slots=True)
class Watch:
    """One request that a job waits for."""

    name: str
    request: RequestOnRecord
    line: Line
    course: Course
    is_called: bool = False
    """fal was told where to call about it."""
    is_planned: bool = False
    """Its date is the line's plan, to be looked at again when it comes; else something else fixed it."""
    is_asked: bool = False
    """A status call is under way."""
    polls: int = 0
    misses: int = 0
    phase: str = ""
    completed: anyio.Event = field(default_factory=anyio.Event)
    progress: Progress | None = None
    error: Exception | None = None
