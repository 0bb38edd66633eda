"""One run: claim the state, plan, submit, wait, download, report (ARCHITECTURE.md, "Pipeline")."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from falbatch.adapters import lock
from falbatch.adapters.cache import Cache
from falbatch.adapters.clock import SystemClock
from falbatch.adapters.files import make_folder
from falbatch.adapters.sandbox_process import sandbox
from falbatch.adapters.store import canary, kept
from falbatch.adapters.store.store import Store
from falbatch.api import connect
from falbatch.api.again import choose, coming_home
from falbatch.api.canary import conclude, next_command, wish_of
from falbatch.api.executing import execute, execute_settings, make_report
from falbatch.api.library import plan as plan_of
from falbatch.api.offline import check_endpoint, planned_terms, target_kind, user_cache
from falbatch.api.options import RunOptions
from falbatch.api.planning import Planned, settle_jobs, summarize
from falbatch.api.preflight import WrongInputs
from falbatch.api.pricing import PriceBook
from falbatch.api.profiling import Profiler
from falbatch.api.quoting import Ahead, Told
from falbatch.api.webhooks import check_place, open_door, place_of
from falbatch.api.workspace import Workspace, holder_of, manifest_of, open_manifest
from falbatch.core.canary import narrowed
from falbatch.core.events import Counter, Listener, Notice, RunEvent
from falbatch.core.flags import FlagPolicy
from falbatch.core.money import to_nano
from falbatch.core.plan import Action, Again, Plan
from falbatch.engine.settings import ExecuteSettings, Scope
from falbatch.errors import FalbatchError, ManifestError

if TYPE_CHECKING:
    from falbatch.api.webhooks import Door
    from falbatch.core.report import Report

SANDBOX_DATA: Final = ".sandbox"
"""Folder in the output folder where the built-in sandbox keeps its queue and its ledger."""


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
    try:
        return await _run(manifest, options, listen, confirm, on_plan)
    except WrongInputs:
        raise
    except ManifestError:
        # Each check ends at its own mistakes; a plan looks on, writes nothing, and says all of them together.
        await anyio.to_thread.run_sync(
            lambda: plan_of(
                manifest,
                selection=options.selection,
                output=options.output,
                sandbox=options.sandbox,
                validate=options.validate,
            )
        )
        raise


async def _run(
    manifest: str | Path,
    options: RunOptions,
    listen: Listener | None,
    confirm: Confirm | None,
    on_plan: OnPlan | None,
) -> Report:
    workspace = await anyio.to_thread.run_sync(lambda: open_manifest(Path(manifest), output=options.output))
    run = _Run(workspace, options, listen or _nobody, confirm, on_plan)
    if not options.sandbox:
        run.check(connect.find_target(key_file=options.key_file, origin=None))  # said before a folder is made
    make_folder(workspace.output)
    with lock.held(workspace.state, holder=lambda: holder_of(workspace.state)), Store.open(workspace.state) as store:
        report = await run.over(store)
        if store.is_copy_due:
            await anyio.to_thread.run_sync(store.keep_copy)
        return report


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
        self._place = place_of(options.webhook_listen, options.webhook_url, manifest_of(workspace))
        self._profiler = Profiler() if options.profile else None
        self._wish = wish_of(options, manifest_of(workspace))

    def check(self, target: connect.Target) -> None:
        """Refuse a fal that could not call where it is to. Raises `UsageError`."""
        check_place(self._place, target)

    async def over(self, store: Store) -> Report:
        """Everything from here on. A profile of it, if one is wanted, is in the report."""
        if self._profiler is None:
            return await self._over(store)
        with self._profiler.running():
            store.timed = self._profiler.recorded
            report = await self._over(store)
        return replace(report, profile=self._profiler.table())

    async def _over(self, store: Store) -> Report:
        if store.mended:
            self._heard(Notice(store.mended))
        try:
            return await self._done(store)
        except ManifestError:
            if store.has_paid():
                self._heard(
                    Notice("the manifest has mistakes: nothing new is submitted; what is paid for comes home first")
                )
                await self._execute_paid(store)
            raise

    async def _done(self, store: Store) -> Report:
        if self._options.resubmit_unknown:
            report = await self._settle_first(store)
            if report is not None:
                return report
        with contextlib.nullcontext() if self._profiler is None else self._profiler.span("plan"):
            planned, plan, again = await anyio.to_thread.run_sync(self._look, store)
        has_orphans = planned.jobs.has_paid_orphans(store.connection, whole=self._is_whole)
        is_idle = plan.actions[Action.SKIP] == plan.total and not has_orphans and not store.has_unknown()
        with contextlib.nullcontext(None) if is_idle else self._origin() as origin:
            target = None if is_idle else connect.find_target(key_file=self._options.key_file, origin=origin)
            if target is None:
                self._begin(store, planned, again)
                return self._concluded(store, self._report(store, None, 0.0, "", unchanged=True))
            connect.check_mode(target, manifest_of(self._workspace).mode)
            self.check(target)
            async with (
                connect.open_fal(target, connect.submit_options(manifest_of(self._workspace))) as fal,
                open_door(self._place, target, store, self._heard) as door,
            ):
                plan, told = await self._checked(store, target, fal, planned, plan, again)
                if target.costs and self._must_ask(plan) and self._confirm and not self._confirm(plan):
                    return self._report(store, None, 0.0, "not confirmed", unchanged=True)
                self._begin(store, planned, again)
                if door is not None:
                    store.keep_callback_secret(door.urls.secret)
                if self._on_plan is not None:
                    self._count_from(store, plan)
                    self._on_plan(plan, self._counter)
                report = await self._execute(store, target, fal, self._settings(plan.total), told, door)
        return await anyio.to_thread.run_sync(self._concluded, store, report)

    def _count_from(self, store: Store, plan: Plan) -> None:
        """What the progress is of: the canary and what comes home beside it, else all of the plan."""
        if plan.canary is None:
            self._counter.total = plan.total
            self._counter.done_before = kept.count_done(store.connection) if self._is_whole else 0
            return
        self._counter.done_before = plan.canary.done
        to_do = sum(count for action, count in plan.actions.items() if action is not Action.SKIP)
        self._counter.total = plan.canary.done + to_do

    def _concluded(self, store: Store, report: Report) -> Report:
        """The report of a canary says what became of it, whatever else there is in the batch."""
        if self._wish is None:
            return report
        command = next_command(self._options, self._workspace, manifest_of(self._workspace).source)
        trial, trouble = conclude(
            store,
            self._wish,
            whole=self._is_whole,
            output=self._workspace.output,
            command=command,
            limit=self._settings(0).max_cost_nano,
        )
        if trouble:
            self._heard(Notice(f"the contact sheet could not be written: {trouble}"))
        says_itself = report.tally.stopped_by or not trial.jobs
        return replace(report, canary=trial, exit_code=report.exit_code if says_itself else trial.exit_code)

    async def _settle_first(self, store: Store) -> Report | None:
        """Before unknown jobs are submitted again: what fal knows of them is paid for and comes home. A report when the
        run ends with that."""
        store.check(name=manifest_of(self._workspace).name, target=target_kind_of(sandbox=self._options.sandbox))
        store.resume(at=self._clock.unix_s())
        if not store.has_unknown():
            return None
        report = await self._execute_paid(store)
        return report if report.tally.stopped_by else None

    async def _execute_paid(self, store: Store) -> Report:
        """Bring home what fal was paid for, and submit nothing: fal keeps results for minutes (fal-protocol §3.6)."""
        with self._origin() as origin:
            target = connect.find_target(key_file=self._options.key_file, origin=origin)
            async with (
                connect.open_fal(target, connect.submit_options(manifest_of(self._workspace))) as fal,
                open_door(self._place, target, store, self._heard) as door,
            ):
                settings = replace(self._settings(0), scope=Scope.PAID)
                return await self._execute(store, target, fal, settings, self._told_before(store), door)

    def _told_before(self, store: Store) -> Told:
        """The prices on record, for a run that submits nothing: what it waits for is settled by them."""
        book = PriceBook(manifest_of(self._workspace).budget, Cache(None), store.prices(), "")
        return Told(prices=book.known(store.unsettled_endpoints()))

    async def _checked(
        self, store: Store, target: connect.Target, fal: connect.Fal, planned: Planned, plan: Plan, again: Again
    ) -> tuple[Plan, Told]:
        """`plan` with what is worth knowing about its submits and what they will cost, and what fal says of their
        endpoints. Raises `ManifestError` where one will be refused, `UsageError` where a price is needed and lacks."""
        if self._fetches_only:
            return plan, self._told_before(store)
        manifest, options = manifest_of(self._workspace), self._options
        ahead = Ahead(
            store,
            fal,
            manifest,
            user_cache(os.environ, sandbox=options.sandbox),
            target.credentials.account,
            at=self._clock.unix_s(),
            validates=options.validate and manifest.validate.is_on,
            max_cost=self._settings(0).max_cost_nano,
        )
        return await ahead.look(planned.jobs, plan, again)

    def _must_ask(self, plan: Plan) -> bool:
        """Is a yes needed? Not where nothing is submitted and nothing rolled again, or for little money."""
        manifest, above = manifest_of(self._workspace), self._options.ask_above
        if above is None:
            above = manifest.budget.ask_above
        times = manifest.retry.attempts if manifest.output.flagged is FlagPolicy.REROLL else 1
        is_little = plan.resubmitted == 0 and plan.costs_at_most(to_nano(above or 0), times=times)
        return (plan.actions[Action.SUBMIT] > 0 or plan.rerolls > 0) and not is_little

    def _settings(self, total: int) -> ExecuteSettings:
        settings = execute_settings(manifest_of(self._workspace), total)
        scope = Scope.FILES if self._fetches_only else Scope.ALL
        if self._options.max_cost is not None:
            settings = replace(settings, max_cost_nano=to_nano(self._options.max_cost))
        return replace(settings, scope=scope, reconcile_s=self._options.reconcile_s)

    def _look(self, store: Store) -> tuple[Planned, Plan, Again]:
        """What there is to do. Nothing is written before all is checked, and agreed to where it costs."""
        workspace, options = self._workspace, self._options
        store.check(name=manifest_of(workspace).name, target=target_kind_of(sandbox=options.sandbox))
        store.resume(at=self._clock.unix_s())
        if store.mended:
            kept.forget_basis(store.connection)
        planned = settle_jobs(store.connection, workspace, options.selection, check_endpoint)
        again = choose(
            store.connection,
            options.retry,
            jobs=planned.jobs,
            resubmit_unknown=options.resubmit_unknown,
            folder=workspace.output,
            output=manifest_of(workspace).output,
        )
        rolls = again.has_rerolls and not self._fetches_only
        # The built-in sandbox has a new address each time: what was uploaded to the last one is not there.
        expires_in = manifest_of(workspace).uploads.expires_in
        terms = None if options.sandbox else planned_terms(os.environ, expires_in)
        if self._wish is not None:
            plan = summarize(store.connection, workspace, options.selection, planned, again, with_files=False)
            tried = canary.tried(store.connection, planned.jobs)
            plan = replace(narrowed(plan, self._wish.jobs, tried), rerolls=tried.paid + tried.lost if rolls else 0)
            return planned, plan, again
        plan = summarize(store.connection, workspace, options.selection, planned, again, terms=terms)
        at_risk = sum(submit.reserved for submit in store.lost_submits() if submit.job_id in again.submit)
        if self._fetches_only:
            return planned, plan.without_submits(), again
        home = coming_home(store.connection, planned.jobs, plan, again) if rolls else 0
        return planned, replace(plan, at_risk=at_risk, rerolls=home), again

    def _begin(self, store: Store, planned: Planned, again: Again) -> None:
        store.begin(
            name=manifest_of(self._workspace).name,
            target=target_kind_of(sandbox=self._options.sandbox),
            manifest=str(self._workspace.manifest_path or ""),
            at=self._clock.unix_s(),
            whole=self._is_whole,
            again=again,
            jobs=planned.jobs,
            basis=planned.basis,
            wish=self._wish,
            ends_canary=self._is_whole and not self._fetches_only,
        )

    @contextlib.contextmanager
    def _origin(self) -> Iterator[str | None]:
        if not self._options.sandbox:
            yield None
            return
        data = self._workspace.output / SANDBOX_DATA
        with sandbox(data, arguments=self._options.sandbox_arguments) as origin:
            yield origin

    async def _execute(
        self,
        store: Store,
        target: connect.Target,
        fal: connect.Fal,
        settings: ExecuteSettings,
        told: Told,
        door: Door | None,
    ) -> Report:
        began_s = time.monotonic()
        error, stopped_by = await execute(
            store,
            target,
            fal,
            settings,
            told.prices,
            defaults=told.defaults,
            output=self._workspace.output,
            listen=self._heard,
            watch_signals=self._options.watch_signals,
            door=door,
            profiler=self._profiler,
        )
        return self._report(store, error, time.monotonic() - began_s, stopped_by)

    @property
    def _is_whole(self) -> bool:
        return self._options.selection.is_whole

    @property
    def _fetches_only(self) -> bool:
        return self._options.retry is not None and self._options.retry.missing_files

    def _heard(self, event: RunEvent) -> None:
        self._counter(event)
        self._listen(event)
        if self._profiler is not None:
            self._profiler.heard(event)

    def _report(
        self, store: Store, error: FalbatchError | None, seconds: float, stopped_by: str, *, unchanged: bool = False
    ) -> Report:
        return make_report(
            store.status(),
            self._counter.tally(seconds=seconds, stopped_by=str(error) if error else stopped_by),
            error,
            output=self._workspace.output,
            whole_run=self._is_whole and not self._fetches_only,
            unchanged=unchanged,
        )


def target_kind_of(*, sandbox: bool) -> str:
    """What the state file remembers of the fal that this process would talk to."""
    return target_kind(os.environ, sandbox=sandbox)
