"""Which jobs are done again, because the user said so. Chosen among the manifest's, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from falbatch.adapters.store import reader
from falbatch.core.flags import FLAGGED, JUDGED
from falbatch.core.plan import Again
from falbatch.core.state import State

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from falbatch.adapters.store.jobs import EndedJob, ManifestJobs

LINK_TROUBLE = ("file_gone", "file_refused")
"""Failures after which the result is on record, so that its files can be asked for again at no charge."""


@dataclass(frozen=True, slots=True)
class RetryChoice:
    """Which failed or cancelled jobs to do again; all of them when nothing is given."""

    error_types: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """Names, or patterns with `*` and `?`."""
    missing_files: bool = False
    """Instead: fetch lost files again, from the stored results, and judge flagged results again. Nothing is submitted
    in such a run."""


def choose(
    connection: sqlite3.Connection,
    choice: RetryChoice | None,
    *,
    jobs: ManifestJobs,
    resubmit_unknown: bool,
    folder: Path,
    has_rerolls: bool = False,
) -> Again:
    """Those of the manifest's `jobs` that `choice` and `resubmit_unknown` mean. `has_rerolls`: the manifest has flagged
    results rolled again."""
    submit: set[int] = set()
    files: set[int] = set()
    if resubmit_unknown:
        submit |= {job.job_id for job in jobs.in_states(connection, (State.UNKNOWN, State.SUBMITTING))}
    unknown = len(submit)
    if choice is not None and choice.missing_files:
        files = {
            job.job_id
            for job in jobs.in_states(connection, (State.DONE, State.FAILED))
            if _matches(job, choice) and _lacks_files(connection, job, folder)
        }
    elif choice is not None:
        ended = jobs.in_states(connection, (State.FAILED, State.CANCELLED))
        submit |= {job.job_id for job in ended if _matches(job, choice)}
    return Again(frozenset(submit), frozenset(files), unknown, has_rerolls)


def _matches(job: EndedJob, choice: RetryChoice) -> bool:
    by_type = not choice.error_types or job.error_type in choice.error_types
    return by_type and is_named(job.name, choice.names)


def is_named(name: str, patterns: tuple[str, ...]) -> bool:
    """True when a job's name is like one of `patterns`, or when there are none."""
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _lacks_files(connection: sqlite3.Connection, job: EndedJob, folder: Path) -> bool:
    if job.state is State.FAILED and job.error_type not in JUDGED:
        return job.error_type in LINK_TROUBLE
    if job.error_type == FLAGGED:
        return True  # also to be judged again, by what the manifest says of flags now
    return any(not (folder / file.path).is_file() for file in reader.files_of(connection, job.job_id))
