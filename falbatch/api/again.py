"""Which jobs are done again, because the user said so. Chosen among the manifest's, before anything is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from falbatch.adapters.store import aside, reader
from falbatch.core.flags import FLAGGED, JUDGED, LACKS, FlagPolicy, LackPolicy
from falbatch.core.plan import Action, Again
from falbatch.core.problems import nearest
from falbatch.core.state import State
from falbatch.errors import UsageError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable
    from pathlib import Path

    from falbatch.adapters.store.jobs import EndedJob, ManifestJobs
    from falbatch.core.limits import OutputSpec
    from falbatch.core.plan import Plan

LINK_TROUBLE = ("file_gone", "file_refused")
"""Failures after which the result is on record, so that its files can be asked for again at no charge."""


@dataclass(frozen=True, slots=True)
class RetryChoice:
    """Which failed or cancelled jobs to do again; all of them when nothing is given."""

    error_types: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """Names, or patterns with `*` and `?`."""
    missing_files: bool = False
    """Instead: fetch lost files again, from the stored results, and judge those again that were not taken. Nothing is
    submitted in such a run."""


def choose(
    connection: sqlite3.Connection,
    choice: RetryChoice | None,
    *,
    jobs: ManifestJobs,
    resubmit_unknown: bool,
    folder: Path,
    output: OutputSpec,
) -> Again:
    """Those of the manifest's `jobs` that `choice` and `resubmit_unknown` mean, and those whose re-roll has not left
    and is not wanted any more. `output` tells which results are taken.

    Raises `UsageError` for an error type that none of the failed jobs has.
    """
    submit: set[int] = set()
    files: set[int] = set()
    set_aside = _wanted_aside(connection, choice, jobs, output)
    if resubmit_unknown:
        submit |= {job.job_id for job in jobs.in_states(connection, (State.UNKNOWN, State.SUBMITTING))}
    unknown = len(submit)
    if choice is not None:
        states = (State.DONE, State.FAILED) if choice.missing_files else (State.FAILED, State.CANCELLED)
        ended = jobs.in_states(connection, states)
        _question_types(choice.error_types, ended)
        chosen = [job for job in ended if _matches(job, choice)]
        if choice.missing_files:
            files = {job.job_id for job in chosen if _lacks_files(connection, job, folder)}
        else:
            submit |= {job.job_id for job in chosen}
    has_rerolls = output.flagged is FlagPolicy.REROLL
    return Again(frozenset(submit), frozenset(files | set_aside), frozenset(set_aside), unknown, has_rerolls)


def _wanted_aside(
    connection: sqlite3.Connection, choice: RetryChoice | None, jobs: ManifestJobs, output: OutputSpec
) -> set[int]:
    """Jobs of which a result that was set aside would be taken now: their re-roll has not left, or they are to be
    judged again and nothing better came."""
    takes_flagged = output.flagged in {FlagPolicy.KEEP, FlagPolicy.MARK}
    takes_lacking = output.lacking is LackPolicy.KEEP
    there = aside.jobs(connection) if takes_flagged or takes_lacking else frozenset()
    found: set[int] = set()
    if there and takes_flagged and (waiting := aside.waiting(connection)):
        found |= {job.job_id for job in jobs.in_states(connection, (State.PLANNED,)) if job.job_id in waiting}
    if there and choice is not None and choice.missing_files:
        better = {*LINK_TROUBLE, *((FLAGGED,) if takes_flagged else ()), *(LACKS if takes_lacking else ())}
        ended = jobs.in_states(connection, (State.FAILED, State.CANCELLED))
        found |= {
            job.job_id
            for job in ended
            if job.job_id in there and job.error_type not in better and _matches(job, choice)
        }
    return found


def _question_types(given: Iterable[str], ended: Iterable[EndedJob]) -> None:
    """A type that is spelled wrongly must not look like a batch without failures. Where nothing failed, all are right:
    a command that is repeated after each run has nothing to do then."""
    on_record = Counter(job.error_type for job in ended if job.error_type)
    for word in given:
        if on_record and word not in on_record:
            types = ", ".join(f"{known} ({count:,})" for known, count in on_record.most_common())
            hint = nearest(word, on_record)
            raise UsageError(
                f"--type {word}: no failed job has this error type{f' ({hint})' if hint else ''}",
                advice=f"On record are: {types}.",
            )


def coming_home(connection: sqlite3.Connection, jobs: ManifestJobs, plan: Plan, again: Again) -> int:
    """How many of the manifest's `jobs` may have a result that this run judges, and that it did not submit."""
    lost = jobs.in_states(connection, (State.UNKNOWN, State.SUBMITTING))
    found = sum(job.job_id not in again.submit for job in lost)
    return plan.actions[Action.WAIT] + plan.actions[Action.DOWNLOAD] + found


def _matches(job: EndedJob, choice: RetryChoice) -> bool:
    by_type = not choice.error_types or job.error_type in choice.error_types
    return by_type and is_named(job.name, choice.names)


def is_named(name: str, patterns: tuple[str, ...]) -> bool:
    """True when a job's name is like one of `patterns`, or when there are none."""
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _lacks_files(connection: sqlite3.Connection, job: EndedJob, folder: Path) -> bool:
    if job.state is State.FAILED:  # also to be judged again, by what the manifest says of flags and lacks now
        return job.error_type in JUDGED or job.error_type in LINK_TROUBLE
    return any(not (folder / file.path).is_file() for file in reader.files_of(connection, job.job_id))
