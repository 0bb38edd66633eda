"""`reconcile`: settle submits without an answer from fal's own request list, and bring home what is found."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from falbatch.adapters import lock
from falbatch.adapters.cache import Cache
from falbatch.adapters.clock import SystemClock
from falbatch.adapters.store import reader
from falbatch.adapters.store.database import open_reader, translated
from falbatch.adapters.store.store import Store
from falbatch.api import connect
from falbatch.api.cancelling import fal_of
from falbatch.api.executing import execute, execute_settings, make_report
from falbatch.api.pricing import PriceBook
from falbatch.api.workspace import holder_of, open_manifest, open_state
from falbatch.core.events import Counter, Listener, Notice, RunEvent
from falbatch.engine.settings import ExecuteSettings, Scope
from falbatch.errors import FalbatchError

if TYPE_CHECKING:
    from falbatch.core.report import Report


async def reconcile(
    argument: str | Path,
    *,
    output: Path | None = None,
    key_file: Path | None = None,
    wait_s: float | None = None,
    listen: Listener | None = None,
    watch_signals: bool = False,
) -> Report:
    """Look for the requests of unknown jobs, wait for them, and fetch their results. Submits nothing.

    `wait_s` is how long each is looked for, in seconds; None goes by how long such jobs take. What stays unknown is in
    the report. Raises `StateError` when the batch never ran or runs just now, `CredentialsError`, `UsageError`.
    """
    place = open_state(Path(argument), output=output)
    with contextlib.closing(open_reader(place.state)) as connection, translated(place.state):
        row = reader.batch_row(connection)
    if place.manifest is None:  # what the last run was told, also about flags, holds for what comes home now
        with contextlib.suppress(FalbatchError):
            place = replace(place, manifest=open_manifest(Path(argument)).manifest)
    settings = execute_settings(place.manifest, 0) if place.manifest else ExecuteSettings()
    settings = replace(settings, scope=Scope.PAID, reconcile_s=wait_s)
    counter = Counter()

    def heard(event: RunEvent) -> None:
        counter(event)
        if listen is not None:
            listen(event)

    with lock.held(place.state, holder=lambda: holder_of(place.state)), Store.open(place.state) as store:
        if store.mended:
            heard(Notice(store.mended))
        store.resume(at=SystemClock().unix_s())
        began_s = time.monotonic()
        options = connect.submit_options(place.manifest)
        budget = place.manifest.budget if place.manifest else None
        prices = PriceBook(budget, Cache(None), store.prices(), "").known(store.unsettled_endpoints())
        with fal_of(place, row, key_file) as target:
            async with connect.open_fal(target, options) as fal:
                error, stopped_by = await execute(
                    store,
                    target,
                    fal,
                    settings,
                    prices,
                    output=place.output,
                    listen=heard,
                    watch_signals=watch_signals,
                )
        tally = counter.tally(seconds=time.monotonic() - began_s, stopped_by=str(error) if error else stopped_by)
        return make_report(store.status(), tally, error, output=place.output, whole_run=False)
