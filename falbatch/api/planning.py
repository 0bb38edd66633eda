"""From a manifest to a staged plan: rows are read, items expanded, keys and names settled, and all problems said at
once. Nothing is written but temporary tables."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from falbatch.adapters.sources import read_rows
from falbatch.adapters.store import kept, spending, stage
from falbatch.adapters.store.basis import FIRST, Basis
from falbatch.adapters.store.database import open_empty, open_reader, translated
from falbatch.adapters.store.journal import remains
from falbatch.adapters.store.reader import batch_row
from falbatch.adapters.store.uploads import Wanted
from falbatch.api.localinputs import has_files, named_files, planned_files, with_contents
from falbatch.api.offline import planned_terms
from falbatch.api.preflight import look_over
from falbatch.api.quoting import Told, open_quote
from falbatch.api.unchanged import on_record
from falbatch.api.workspace import manifest_of
from falbatch.core.expand import expand
from falbatch.core.money import to_nano
from falbatch.core.plan import Action, Again, Change, Plan, PlannedJob
from falbatch.core.problems import ProblemLog, shown
from falbatch.errors import ManifestError, Problem, UsageError

if TYPE_CHECKING:
    import sqlite3

    from falbatch.adapters.store.jobs import ManifestJobs
    from falbatch.adapters.store.reader import BatchRow
    from falbatch.api.workspace import Workspace
    from falbatch.core.faults import Fault
    from falbatch.core.fileinputs import FileInput
    from falbatch.core.manifest import Manifest
    from falbatch.core.model import Item
    from falbatch.core.money import Price

_REQUEST_ID = re.compile(r": request \S+")


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of the manifest that a run is about; empty means all of it."""

    where: str | None = None
    limit: int | None = None
    sample: int | None = None

    @property
    def is_whole(self) -> bool:
        """True when nothing is left out."""
        return self == Selection()


Learn = Callable[[Sequence[str], "Mapping[str, Price]", str | None], Told]
"""Tells what is known of endpoints; beside them, the prices on record and the fal that they are of."""

CheckEndpoint = Callable[[str], "str | None"]


def fill_stage(
    connection: sqlite3.Connection, workspace: Workspace, selection: Selection, check_endpoint: CheckEndpoint
) -> int:
    """Expand the manifest into the stage on `connection`. Returns the number of jobs.

    Raises `ManifestError` with every problem of the manifest, its rows, its templates and its names.
    """
    manifest = manifest_of(workspace)
    log = ProblemLog()
    rows = read_rows(manifest, base=workspace.base) if manifest.rows is not None else None

    def wrong(item: Item, file: FileInput | None, fault: Fault) -> None:
        """A missing file is said once, with the first item that names it, however many do."""
        place, path = (file.place, file.path) if file else (("input",), "")
        what = f"{shown(path)}: {fault.what}" if file else fault.what
        problem = manifest.problem(place, fault._replace(what=what), where=item.origin)
        log.add(problem, cause=(place, path, fault.what))

    items = expand(
        manifest,
        rows,
        check_endpoint=check_endpoint,
        where=selection.where,
        limit=selection.limit,
        sample=selection.sample,
        problems=log,
    )
    with translated(workspace.state):
        whole = with_contents(connection, items, base=str(workspace.base), wrong=wrong)
        count = stage.fill(connection, whole)
        line, column = manifest.line_of(("output", "name"))
        clashes = stage.clashes(connection, file=manifest.source, line=line, column=column)
    if log or clashes:
        raise _SomeWrongError([*(log.problems() if log else ()), *clashes])
    if count == 0:
        raise UsageError(f"{manifest.source}: no jobs are left", advice="Check `where`, --where, --limit and --sample.")
    return count


class _SomeWrongError(ManifestError):
    """Raised when the stage holds those items alone that are right so far."""


@dataclass(frozen=True, slots=True)
class Planned:
    """Where the manifest's jobs are to be looked at, now that they are known."""

    jobs: ManifestJobs
    """`stage`, or `kept` where they are those on record."""
    basis: Basis | None
    """What they were made from, to be kept with them; None where it could not be known again."""


def settle_jobs(
    connection: sqlite3.Connection,
    workspace: Workspace,
    selection: Selection,
    check_endpoint: CheckEndpoint,
    *,
    keeps: bool = True,
) -> Planned:
    """The jobs of the manifest: those on record where it would make the same, else made anew, in the stage. `keeps`:
    the plan may become the state's.

    Raises `ManifestError` with every problem found.
    """
    if not selection.is_whole:
        fill_stage(connection, workspace, selection, check_endpoint)
        return Planned(stage, None)
    with translated(workspace.state):
        sources, is_same = on_record(connection, manifest_of(workspace), workspace, keeps=keeps)
    if sources is not None and is_same:
        return Planned(kept, sources.basis)
    fill_stage(connection, workspace, selection, check_endpoint)
    return Planned(stage, sources.basis if sources is not None and sources.still_hold() else None)


def make_plan(
    workspace: Workspace,
    selection: Selection,
    check_endpoint: CheckEndpoint,
    *,
    each: Callable[[PlannedJob], None] | None = None,
    learn: Learn | None = None,
    validates: bool = True,
    here: str | None = None,
) -> Plan:
    """What a run would do now. `each` sees every job, in the manifest's order. Writes nothing to the state file.

    `learn` tells what fal says of endpoints; without it nothing is checked against their schemas. `here` is the fal
    that the plan is for, as state files name it; another one on record is said. Raises `ManifestError` with everything
    that is wrong.
    """
    with _state_or_empty(workspace) as connection:
        problems = workspace.problems
        try:
            planned = settle_jobs(connection, workspace, selection, check_endpoint, keeps=False)
        except _SomeWrongError as error:
            problems += error.problems
            planned = Planned(stage, None)
        terms = planned_terms(os.environ, manifest_of(workspace).uploads.expires_in)
        told = Told()
        if learn is not None:
            row = batch_row(connection)
            endpoints = planned.jobs.endpoints(connection)
            told = learn(endpoints, spending.prices(connection), row.target if row else None)
        connection.execute("BEGIN")  # a run may go on: all that is read now is of one moment
        if planned.jobs is kept and not kept.is_still(connection, planned.basis):
            connection.execute("COMMIT")
            fill_stage(connection, workspace, selection, check_endpoint)
            planned = Planned(stage, None)
        manifest = manifest_of(workspace)
        quote = None if learn is None else open_quote(connection, told)
        verdict = look_over(
            connection,
            planned.jobs,
            Again(),
            manifest,
            told.facts,
            validates=validates and manifest.validate.is_on,
            quote=quote,
        )
        verdict.raise_if_wrong(problems)
        plan = summarize(connection, workspace, selection, planned, terms=terms, each=each)
        warnings = (*_elsewhere(manifest, batch_row(connection), here), *verdict.warnings)
        most = None if manifest.budget.max_cost is None else to_nano(manifest.budget.max_cost)
        cost = None if quote is None else quote.cost()
        return replace(plan, warnings=warnings, cost=cost, max_cost=most)


_REAL: Final = "what is on record here was done by fal and paid for: a run elsewhere needs a folder of its own"
_REHEARSALS: Final[Mapping[str, tuple[str, str]]] = {
    "sandbox": ("the built-in sandbox", "`falbatch run` goes on with --sandbox; fal's own work needs another --output"),
    "loopback": (
        "a server on this machine",
        "`falbatch run` goes on where FALBATCH_ORIGIN names it; fal's own work needs another --output",
    ),
}


def _elsewhere(manifest: Manifest, row: BatchRow | None, here: str | None) -> tuple[Problem, ...]:
    """What to say where the work on record is of another fal than a run from here would go to, which is refused."""
    if row is None or here is None or row.target == here:
        return ()
    what, hint = _REAL, "--output DIR"
    if row.target in _REHEARSALS:
        whose, hint = _REHEARSALS[row.target]
        what = f"this batch is a rehearsal: {whose} did what is on record, and nothing of it was paid"
    return (Problem(manifest.source, *manifest.line_of(("name",)), what, hint),)


@contextlib.contextmanager
def _state_or_empty(workspace: Workspace) -> Iterator[sqlite3.Connection]:
    is_there = workspace.state.is_file() and workspace.state.stat().st_size > 0
    is_there = is_there or bool(remains(workspace.state))  # what is left of one is refused, with advice
    with contextlib.closing(open_reader(workspace.state) if is_there else open_empty()) as connection:
        yield connection


def summarize(
    connection: sqlite3.Connection,
    workspace: Workspace,
    selection: Selection,
    planned: Planned,
    again: Again | None = None,
    *,
    terms: str | None = None,
    with_files: bool = True,
    each: Callable[[PlannedJob], None] | None = None,
) -> Plan:
    """The plan against the state, counted; `again` is what the user asked to be done again, `terms` are those of
    uploads (`UploadTerms.text`; None: none serves this run). Without `with_files` nobody asks which those are."""
    again = again or Again()
    jobs = planned.jobs
    actions = Counter(dict.fromkeys(Action, 0))
    changes = Counter(dict.fromkeys(Change, 0))
    reasons: Counter[str] = Counter()
    for group in jobs.groups(connection, again):
        actions[group.action] += group.count
        changes[group.change] += group.count
        reasons[_REQUEST_ID.sub("", group.reason)] += group.count
    if each is not None:
        for job in jobs.planned_jobs(connection, again):
            each(named_files(connection, job))
    wanted = Wanted(connection)
    if with_files and actions[Action.SUBMIT] and has_files(connection):
        for one in jobs.to_submit(connection, again):
            wanted.add(one.input_json)
    first = jobs.first_jobs(connection, again, FIRST)
    return Plan(
        name=manifest_of(workspace).name,
        total=actions.total(),
        output_dir=str(workspace.output),
        actions=dict(actions),
        changes=dict(changes),
        reasons=dict(reasons),
        orphans=jobs.orphan_count(connection) if selection.is_whole else 0,
        first=tuple(named_files(connection, job) for job in first),
        changed=tuple(jobs.changed_jobs(connection, FIRST)) if changes[Change.CHANGED] else (),
        orphaned=tuple(islice(jobs.orphans(connection), FIRST)) if selection.is_whole else (),
        resubmitted=again.unknown,
        files=planned_files(wanted, terms, time.time()),
    )
