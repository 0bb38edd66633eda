"""What is asked about a manifest's jobs before a run, whoever answers: `stage.py` or `kept.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from falbatch.core.plan import Action, Again, Change, Record, decide

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from falbatch.adapters.store.basis import Basis
    from falbatch.core.plan import Orphan, PlannedJob, ToSubmit
    from falbatch.core.state import State


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A staged job that is on record, as a choice among them sees it."""

    job_id: int
    name: str
    state: State
    error_type: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs of the manifest about which the same is done, for the same reason."""

    action: Action
    reason: str
    """Request ids are left open in it."""
    change: Change
    count: int
    first: int
    """Place of the first one."""

    @classmethod
    def of(cls, record: Record | None, change: Change, count: int, first: int) -> Self:
        """What is decided about jobs with this record."""
        decision = decide(record)
        return cls(decision.action, decision.reason, change, count, first)


class ManifestJobs(Protocol):
    """The manifest's jobs beside what is on record of them: `stage.py` where they were made anew,
    `kept.py` where they are those on record. Both answer alike."""

    def groups(self, connection: sqlite3.Connection, again: Again) -> list[Group]: ...

    def planned_jobs(self, connection: sqlite3.Connection, again: Again) -> Iterator[PlannedJob]: ...

    def first_jobs(self, connection: sqlite3.Connection, again: Again, count: int) -> list[PlannedJob]: ...

    def changed_jobs(self, connection: sqlite3.Connection, count: int) -> list[PlannedJob]: ...

    def to_submit(self, connection: sqlite3.Connection, again: Again) -> Iterator[ToSubmit]: ...

    def in_states(self, connection: sqlite3.Connection, states: tuple[State, ...]) -> list[EndedJob]: ...

    def endpoints(self, connection: sqlite3.Connection) -> list[str]: ...

    def orphan_count(self, connection: sqlite3.Connection) -> int: ...

    def orphans(self, connection: sqlite3.Connection) -> Iterator[Orphan]: ...

    def has_paid_orphans(self, connection: sqlite3.Connection, *, whole: bool) -> bool: ...

    def adopt(self, connection: sqlite3.Connection, *, whole: bool, at: float, basis: Basis | None) -> None: ...


def note_again(connection: sqlite3.Connection, again: Again) -> None:
    """What the user wants again, as a table beside the jobs."""
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS again (job_id INTEGER PRIMARY KEY, is_files INTEGER)")
    connection.execute("DELETE FROM temp.again")
    noted = [*((job_id, True) for job_id in again.files), *((job_id, False) for job_id in again.submit)]
    connection.executemany("INSERT OR REPLACE INTO temp.again VALUES (?, ?)", noted)
