"""Carrying a run out: its parts put together, the store's writer beside it, and the report at its end."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import anyio

from falbatch.adapters import signals
from falbatch.adapters.clock import SystemClock
from falbatch.adapters.garbage import looked_for_rarely
from falbatch.api import connect
from falbatch.api.pricing import open_spending
from falbatch.api.uploading import open_storage
from falbatch.core.backoff import BackoffPolicy
from falbatch.core.money import to_nano
from falbatch.core.pacing import CONNECTIONS
from falbatch.core.report import Report, exit_code_of
from falbatch.engine.execute import Deps, Execution
from falbatch.engine.settings import ExecuteSettings, failure_limit
from falbatch.engine.stop import Stop
from falbatch.errors import DiskFull, ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from falbatch.adapters.store.store import Store
    from falbatch.api.profiling import Profiler
    from falbatch.api.webhooks import Door
    from falbatch.core.events import Listener
    from falbatch.core.manifest import Manifest
    from falbatch.core.money import Price
    from falbatch.core.report import BatchStatus, RunTally
    from falbatch.errors import FalbatchError


def make_report(
    status: BatchStatus,
    tally: RunTally,
    error: FalbatchError | None,
    *,
    output: Path,
    whole_run: bool,
    unchanged: bool = False,
) -> Report:
    """What a run came to: its exit code is that of what ended it, else what the batch's states say."""
    exit_code = exit_code_of(status, whole_run=whole_run)
    if error is not None:
        exit_code = error.exit_code
    elif tally.stopped_by:
        exit_code = ExitCode.INCOMPLETE if unchanged else ExitCode.STOPPED
    advice = error.advice if error else ""
    return Report(status, tally, str(output), exit_code, advice=advice, unchanged=unchanged)


async def execute(
    store: Store,
    target: connect.Target,
    fal: connect.Fal,
    settings: ExecuteSettings,
    prices: Mapping[str, Price],
    *,
    defaults: Mapping[str, Mapping[str, Any] | None] | None = None,
    output: Path,
    listen: Listener,
    watch_signals: bool,
    door: Door | None = None,
    profiler: Profiler | None = None,
) -> tuple[FalbatchError | None, str]:
    """Put the parts together and do all that is open. Returns what ended it early, and why it was told to stop.

    `defaults` are those of the endpoints' inputs, where a limit on cost is to reckon with them.
    """
    stop = Stop()
    spending = open_spending(store, prices, settings.max_cost_nano, defaults)
    async with (
        connect.open_output(target, output, downloads=settings.downloads) as files,
        open_storage(target, settings) as storage,
    ):
        urls = None if door is None else door.urls
        deps = Deps(store, fal.queue, fal.platform, files, SystemClock(), listen, spending, fal.direct, storage, urls)
        execution = Execution(deps if profiler is None else profiler.around(deps), settings, stop)
        with contextlib.nullcontext() if door is None else door.attached(execution):
            await perform(execution, store, watch_signals=watch_signals)
    # The next run does the same; on a full disk the report matters more.
    with contextlib.suppress(DiskFull):
        store.resume(at=SystemClock().unix_s())
    return execution.ended_by, stop.reason


async def perform(execution: Execution, store: Store, *, watch_signals: bool) -> None:
    """Run `execution` with the store's writer beside it, so that what was handed over is written whatever happens.

    Cancelling it is a stop: calls that are paid for get their moment, not all the time that they may take.
    """
    writer = store.new_writer()
    is_over = False

    async def stop_when_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            if not is_over:
                execution.stop("the caller was cancelled")

    with looked_for_rarely():
        async with anyio.create_task_group() as helpers:
            helpers.start_soon(writer.run)
            helpers.start_soon(stop_when_cancelled)
            if watch_signals:
                helpers.start_soon(signals.watch, execution.stop)
            try:
                await execution.run()
            finally:
                is_over = True
                writer.close()
                with anyio.CancelScope(shield=True):
                    await writer.closed.wait()
                helpers.cancel_scope.cancel()


def execute_settings(manifest: Manifest, total: int) -> ExecuteSettings:
    """The manifest's limits as the engine's settings; `total` jobs turn shares into counts."""
    failures = manifest.budget.max_failures
    return ExecuteSettings(
        mode=manifest.mode,
        in_flight=manifest.limits.in_flight,
        connections=manifest.limits.connections or CONNECTIONS,
        submits_per_s=manifest.limits.submits_per_s,
        polls_per_s=manifest.limits.polls_per_s,
        downloads=manifest.limits.downloads,
        uploads=manifest.limits.uploads,
        uploads_expire=manifest.uploads.expires_in,
        attempts=manifest.retry.attempts,
        retry_ratio=manifest.retry.budget,
        backoff=BackoffPolicy(manifest.retry.first_s, manifest.retry.cap_s),
        max_failures=failure_limit(failures.count, failures.share, total) if failures else None,
        max_equal_failures=manifest.budget.max_equal_failures,
        max_cost_nano=None if manifest.budget.max_cost is None else to_nano(manifest.budget.max_cost),
        sidecar=manifest.output.sidecar,
        flagged=manifest.output.flagged,
        lacking=manifest.output.lacking,
    )
