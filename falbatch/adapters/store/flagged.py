"""Questions about flagged results: which jobs are marked, and which request came of which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.flags import Noticed
from falbatch.core.report import FlaggedGroup
from falbatch.core.seeds import asked_seed, named_seed
from falbatch.exactjson import parse_json

if TYPE_CHECKING:
    import sqlite3

SHOWN: Final = 1_000
"""Names in one group of a report."""


@dataclass(frozen=True, slots=True)
class Ancestor:
    """One request of a job that has had several."""

    attempt: int
    request_id: str
    seed: int | None
    """What was sent; where the input has none, what the result named."""
    flags: tuple[str, ...]
    files: tuple[str, ...]
    """Its files, also where they are kept though its result was not taken."""


def groups(connection: sqlite3.Connection) -> tuple[FlaggedGroup, ...]:
    """The manifest's marked jobs by their flags, counted in an index."""
    marked = "marked IS NOT NULL AND seq IS NOT NULL"
    counts = connection.execute(f"SELECT marked, count(*) FROM jobs WHERE {marked} GROUP BY marked").fetchall()
    names = f"SELECT name FROM jobs WHERE {marked} AND marked = ? ORDER BY seq LIMIT ?"
    return tuple(
        FlaggedGroup(
            tuple(flags.split(",")), count, tuple(name for (name,) in connection.execute(names, (flags, SHOWN)))
        )
        for flags, count in counts
    )


def noticed(text: str | None) -> Noticed:
    """What is on record of one request's result; without flags where that is nothing."""
    said: Any = parse_json(text.encode()) if text else {"flags": (), "seed": None, "files": ()}
    return Noticed(tuple(said["flags"]), said["seed"], tuple(said["files"]))


def lineage(
    connection: sqlite3.Connection, job_id: int, given: Any, output: Any, paths: tuple[str, ...]
) -> tuple[Ancestor, ...]:
    """The requests of a job in their order, each made in the place of the one before.

    `given` is its input, `output` its own result, where it is on record, `paths` are those of its own files.
    """
    rows = connection.execute(
        "SELECT r.attempt, r.request_id, a.seed, r.flagged, r.request_id = j.request_id FROM requests r"
        " JOIN jobs j ON j.id = r.job_id LEFT JOIN attempts a ON a.job_id = r.job_id AND a.attempt = r.attempt"
        " WHERE r.job_id = ? ORDER BY r.attempt",
        (job_id,),
    ).fetchall()
    found = []
    for attempt, request_id, sent, text, is_latest in rows:
        seen = noticed(text)
        told = seen.seed if text else named_seed(output) if is_latest else None
        seed = next((one for one in (sent, asked_seed(given), told) if one is not None), None)
        found.append(Ancestor(attempt, request_id, seed, seen.flags, paths if is_latest else seen.files))
    return tuple(found)
