"""falbatch: big, resumable batches against fal.ai's generative-media endpoints.

Entry points: `run`, `arun`, `plan`, `map`; what is done with a batch beside running it: `status`, `reconcile`,
`cancel`, `export`.
Everything is loaded when it is first used, so that importing falbatch costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from falbatch.api import (
        CancelReport,
        Outcome,
        RetryChoice,
        RunOptions,
        Selection,
        arun,
        cancel,
        export,
        plan,
        reconcile,
        run,
        status,
    )
    from falbatch.api import map_inputs as map  # noqa: A004  (the design's word; reads well as falbatch.map)
    from falbatch.core.plan import Plan, PlannedJob
    from falbatch.core.report import BatchStatus, Report
    from falbatch.core.state import State
    from falbatch.engine.execute import ExecuteSettings as Limits
    from falbatch.errors import (
        CredentialsError,
        DiskFull,
        ExitCode,
        FalbatchError,
        FalUnreachable,
        LimitReached,
        ManifestError,
        OutputError,
        StateError,
        UsageError,
    )

_HOMES = {
    "falbatch.api": (
        "CancelReport",
        "Outcome",
        "RetryChoice",
        "RunOptions",
        "Selection",
        "arun",
        "cancel",
        "export",
        "plan",
        "reconcile",
        "run",
        "status",
    ),
    "falbatch.core.plan": ("Plan", "PlannedJob"),
    "falbatch.core.report": ("BatchStatus", "Report"),
    "falbatch.core.state": ("State",),
    "falbatch.errors": (
        "CredentialsError",
        "DiskFull",
        "ExitCode",
        "FalUnreachable",
        "FalbatchError",
        "LimitReached",
        "ManifestError",
        "OutputError",
        "StateError",
        "UsageError",
    ),
}
_RENAMED = {"map": ("falbatch.api", "map_inputs"), "Limits": ("falbatch.engine.execute", "ExecuteSettings")}

__all__ = [
    "BatchStatus",
    "CancelReport",
    "CredentialsError",
    "DiskFull",
    "ExitCode",
    "FalUnreachable",
    "FalbatchError",
    "LimitReached",
    "Limits",
    "ManifestError",
    "Outcome",
    "OutputError",
    "Plan",
    "PlannedJob",
    "Report",
    "RetryChoice",
    "RunOptions",
    "Selection",
    "State",
    "StateError",
    "UsageError",
    "arun",
    "cancel",
    "export",
    "map",
    "plan",
    "reconcile",
    "run",
    "status",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its home (PEP 562)."""
    if name in _RENAMED:
        home, there = _RENAMED[name]
        return getattr(import_module(home), there)
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'falbatch' has no attribute {name!r}")
