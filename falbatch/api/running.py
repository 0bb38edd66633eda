"""One run: claim the state, plan, submit, wait, download, report (ARCHITECTURE.md, "Pipeline")."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from falbatch.adapters import lock, signals
from falbatch.adapters.clock import SystemClock
from falbatch.adapters.files import make_folder
from falbatch.adapters.sandbox_process import sandbox
from falbatch.adapters.store import reader
from falbatch.adapters.store.database import open_reader
from falbatch.adapters.store.store import Store
from falbatch.api import connect
from falbatch.api.again import RetryChoice, choose
from falbatch.api.planning import Selection, fill_stage, summarize
from falbatch.api.workspace import Workspace, open_manifest
from falbatch.core.backoff import BackoffPolicy
from falbatch.core.events import Counter, Listener, RunEvent
from falbatch.core.plan import Action, Again, Plan
from falbatch.core.report import Report, exit_code_of
from falbatch.core.state import State
from falbatch.engine.execute import Deps, ExecuteSettings, Execution, failure_limit
from falbatch.engine.submit import Stop
from falbatch.errors import ExitCode, FalbatchError
from falbatch.fal.endpoint import EndpointId

if TYPE_CHECKING:
    from falbatch.core.manifest import Manifest

SANDBOX_DATA: Final = ".sandbox"
"""Folder in the output folder where the built-in sandbox keeps its queue and its ledger."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What may be asked of one run, beyond the manifest."""

    selection: Selection = field(default_factory=Selection)
    output: Path | None = None
    """In place of the manifest's `output.dir`."""
    key_file: Path | None = None
    sandbox: bool = False
    """Run against the built-in sandbox instead of fal."""
    sandbox_arguments: tuple[str, ...] = ()
    retry: RetryChoice | None = None
    """Failed and cancelled jobs to do again."""
    resubmit_unknown: bool = False
    """Submit unknown jobs again, although they may have run and been charged."""
    watch_signals: bool = False
    """Stop gently on SIGINT and SIGTERM; for a program that is the run."""


Confirm = Callable[[Plan], bool]
"""Asked before anything billable is submitted; False leaves everything as it is."""

OnPlan = Callable[[Plan, Counter], None]
"""Told what will be done, and the counter that will count it, just before the work begins."""


async def arun(
    manifest: str | Path,
    options: RunOptions | None = None,
    *,
    listen: Listener | None = None,
    confirm: Confirm | None = None,
    on_plan: OnPlan | None = None,
) -> Report:
    """Run a manifest to its end and report. Goes on where an earlier run stopped.

    Failed jobs are in the report, not raised. Raises `FalbatchError` when the run cannot begin: a wrong manifest,
    no key, a state file that is in use or not ours.
    """
    options = options or RunOptions()
    workspace = await anyio.to_thread.run_sync(lambda: open_manifest(Path(manifest), output=options.output))
    run = _Run(workspace, options, listen or _nobody, confirm, on_plan)
    if not options.sandbox:
        connect.find_target(key_file=options.key_file, origin=None)  # no key: said before a folder is made
    make_folder(workspace.output)
    with lock.held(workspace.state, holder=lambda: holder_of(workspace.state)), Store.open(workspace.state) as store:
        return await run.over(store)


def _nobody(_event: RunEvent) -> None:
    """The listener of a run that nobody listens to."""


class _Run:
    """One invocation over a claimed state file."""

    def __init__(
        self,
        workspace: Workspace,
        options: RunOptions,
        listen: Listener,
        confirm: Confirm | None,
        on_plan: OnPlan | None,
    ) -> None:
        self._workspace = workspace
        self._options = options
        self._listen = listen
        self._confirm = confirm
        self._on_plan = on_plan
        self._counter = Counter()
        self._clock = SystemClock()

    async def over(self, store: Store) -> Report:
        plan, again = await anyio.to_thread.run_sync(self._look, store)
        orphans = [job for job in store.paid_jobs() if job.seq is None]
        is_idle = plan.actions[Action.SKIP] == plan.total and not orphans
        with contextlib.nullcontext(None) if is_idle else self._origin() as origin:
            target = None if is_idle else connect.find_target(key_file=self._options.key_file, origin=origin)
            if target and plan.actions[Action.SUBMIT] and target.costs and self._confirm and not self._confirm(plan):
                return self._report(store, None, 0.0, "not confirmed", unchanged=True)
            self._begin(store, again)
            if target is None:
                return self._report(store, None, 0.0, "", unchanged=True)
            return await self._execute(store, plan, target)

    def _look(self, store: Store) -> tuple[Plan, Again]:
        """What there is to do. Nothing is written before all is checked, and agreed to where it costs."""
        workspace, options = self._workspace, self._options
        store.check(name=manifest_of(workspace).name, target=target_kind_of(sandbox=options.sandbox))
        fill_stage(store.connection, workspace, options.selection, check_endpoint)
        again = choose(
            store.connection, options.retry, resubmit_unknown=options.resubmit_unknown, folder=workspace.output
        )
        return summarize(store.connection, workspace, options.selection, again), again

    def _begin(self, store: Store, again: Again) -> None:
        store.begin(
            name=manifest_of(self._workspace).name,
            target=target_kind_of(sandbox=self._options.sandbox),
            manifest=str(self._workspace.manifest_path or ""),
            at=self._clock.unix_s(),
            whole=self._options.selection.is_whole,
            again=again,
        )

    @contextlib.contextmanager
    def _origin(self) -> Iterator[str | None]:
        if not self._options.sandbox:
            yield None
            return
        data = self._workspace.output / SANDBOX_DATA
        with sandbox(data, arguments=self._options.sandbox_arguments) as origin:
            yield origin

    async def _execute(self, store: Store, plan: Plan, target: connect.Target) -> Report:
        manifest = manifest_of(self._workspace)
        settings = replace(execute_settings(manifest, plan.total), with_submits=not self._fetches_only)
        self._counter.total = plan.total
        self._counter.done_before = store.status().count(State.DONE) if self._options.selection.is_whole else 0
        if self._on_plan is not None:
            self._on_plan(plan, self._counter)
        stop = Stop()
        began_s = time.monotonic()
        async with (
            connect.open_queue(target, connect.submit_options(manifest)) as queue,
            connect.open_output(target, self._workspace.output, downloads=settings.downloads) as files,
        ):
            execution = Execution(Deps(store, queue, files, self._clock, self._heard), settings, stop)
            await perform(execution, store, watch_signals=self._options.watch_signals)
        return self._report(store, execution.ended_by, time.monotonic() - began_s, stop.reason)

    @property
    def _fetches_only(self) -> bool:
        return self._options.retry is not None and self._options.retry.missing_files

    def _heard(self, event: RunEvent) -> None:
        self._counter(event)
        self._listen(event)

    def _report(
        self, store: Store, error: FalbatchError | None, seconds: float, stopped_by: str, *, unchanged: bool = False
    ) -> Report:
        status = store.status()
        is_whole = self._options.selection.is_whole and not self._fetches_only
        exit_code = exit_code_of(status, whole_run=is_whole)
        if error is not None:
            exit_code = error.exit_code
        elif stopped_by:
            exit_code = ExitCode.INCOMPLETE if unchanged else ExitCode.STOPPED
        return Report(
            status=status,
            tally=self._counter.tally(seconds=seconds, stopped_by=str(error) if error else stopped_by),
            output_dir=str(self._workspace.output),
            exit_code=exit_code,
            advice=error.advice if error else "",
            unchanged=unchanged,
        )


async def perform(execution: Execution, store: Store, *, watch_signals: bool) -> None:
    """Run `execution` with the store's writer beside it, so that what was handed over is written whatever happens."""
    async with anyio.create_task_group() as helpers:
        helpers.start_soon(store.writer.run)
        if watch_signals:
            helpers.start_soon(signals.watch, execution.stop)
        try:
            await execution.run()
        finally:
            store.writer.close()
            with anyio.CancelScope(shield=True):
                await store.writer.closed.wait()
            helpers.cancel_scope.cancel()


def target_kind_of(*, sandbox: bool) -> str:
    """What the state file remembers of the fal that this process would talk to."""
    return connect.target_kind(os.environ, sandbox=sandbox)


def manifest_of(workspace: Workspace) -> Manifest:
    """The manifest of a workspace that was opened from one."""
    if workspace.manifest is None:
        raise AssertionError("open_manifest always gives a manifest")
    return workspace.manifest


def execute_settings(manifest: Manifest, total: int) -> ExecuteSettings:
    """The manifest's limits as the engine's settings; `total` jobs turn shares into counts."""
    failures = manifest.budget.max_failures
    return ExecuteSettings(
        in_flight=manifest.limits.in_flight,
        submits_per_s=manifest.limits.submits_per_s,
        polls_per_s=manifest.limits.polls_per_s,
        downloads=manifest.limits.downloads,
        attempts=manifest.retry.attempts,
        retry_ratio=manifest.retry.budget,
        backoff=BackoffPolicy(manifest.retry.first_s, manifest.retry.cap_s),
        max_failures=failure_limit(failures.count, failures.share, total) if failures else None,
        sidecar=manifest.output.sidecar,
    )


def check_endpoint(text: str) -> str | None:
    """What is wrong with an endpoint id, None when nothing is."""
    try:
        EndpointId.parse(text)
    except ValueError as error:
        return str(error)
    return None


def holder_of(state: Path) -> str:
    """Who is on record as the runner of a state file, in words that follow "in use by another run"."""
    try:
        with contextlib.closing(open_reader(state)) as connection:
            row = reader.batch_row(connection)
        runner = json.loads(row.runner) if row else {}
        since = time.strftime("%H:%M:%S", time.localtime(runner["since"]))
        return f" (process {runner['pid']} on {runner['host']}, since {since})"
    except (FalbatchError, KeyError, ValueError):
        return ""
