"""The library: what the command line calls, and what a program may call (design §8)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from falbatch.api.again import RetryChoice
from falbatch.api.batch import CancelReport, cancel, export, status
from falbatch.api.planning import Selection, make_plan
from falbatch.api.reconciling import reconcile
from falbatch.api.running import RunOptions, arun, check_endpoint
from falbatch.api.stream import Outcome, map_inputs
from falbatch.api.workspace import open_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    from falbatch.core.events import Listener
    from falbatch.core.plan import Plan, PlannedJob
    from falbatch.core.report import Report

__all__ = [
    "CancelReport",
    "Outcome",
    "RetryChoice",
    "RunOptions",
    "Selection",
    "arun",
    "cancel",
    "export",
    "map_inputs",
    "plan",
    "reconcile",
    "run",
    "status",
]


def run(manifest: str | Path, options: RunOptions | None = None, *, listen: Listener | None = None) -> Report:
    """`arun` for programs without an event loop."""
    return anyio.run(lambda: arun(manifest, options, listen=listen))


def plan(
    manifest: str | Path,
    *,
    selection: Selection | None = None,
    output: Path | None = None,
    each: Callable[[PlannedJob], None] | None = None,
) -> Plan:
    """What `run` would do now, without doing it. `each` sees every job, in the manifest's order.

    Raises `ManifestError` with every problem found. Nothing is written.
    """
    workspace = open_manifest(Path(manifest), output=output)
    return make_plan(workspace, selection or Selection(), check_endpoint, each=each)
