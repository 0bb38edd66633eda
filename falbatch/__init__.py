"""falbatch: big, resumable batches against fal.ai's generative-media endpoints.

Entry points: `run`, `arun`, `plan`, `map`; what is done with a batch beside running it: `status`, `reconcile`,
`cancel`, `export`. Single calls, in fal_client's words: `Client`, `AsyncClient`, `submit`, `subscribe`, `upload` …; all
of them, `run`, `status` and `cancel` too, are in `falbatch.client`.
Everything is loaded when it is first used, so that importing falbatch costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from falbatch.api.again import RetryChoice
    from falbatch.api.batch import export, status
    from falbatch.api.cancelling import CancelReport, cancel
    from falbatch.api.library import plan, run
    from falbatch.api.options import RunOptions
    from falbatch.api.planning import Selection
    from falbatch.api.reconciling import reconcile
    from falbatch.api.running import arun
    from falbatch.api.stream import Outcome
    from falbatch.api.stream import map_inputs as map  # noqa: A004  (the design's word; reads well as falbatch.map)
    from falbatch.client import (
        AsyncClient,
        AsyncRealtimeConnection,
        AsyncRequestHandle,
        Client,
        Completed,
        FalClientConnectionError,
        FalClientError,
        FalClientHTTPError,
        FalClientLostRequestError,
        FalClientTimeoutError,
        InProgress,
        MissingCredentialsError,
        Queued,
        RealtimeConnection,
        RealtimeError,
        Status,
        StorageACL,
        StorageACLRule,
        StorageSettings,
        SyncClient,
        SyncRequestHandle,
        WebhookRefused,
        cancel_async,
        encode,
        encode_file,
        encode_image,
        realtime,
        realtime_async,
        result,
        result_async,
        run_async,
        status_async,
        stream,
        stream_async,
        submit,
        submit_async,
        subscribe,
        subscribe_async,
        upload,
        upload_async,
        upload_file,
        upload_file_async,
        upload_image,
        upload_image_async,
        verify_webhook,
        verify_webhook_async,
        ws_connect,
        ws_connect_async,
    )
    from falbatch.core.flags import FlagPolicy, LackPolicy
    from falbatch.core.plan import Plan, PlannedJob
    from falbatch.core.report import BatchStatus, Report
    from falbatch.core.state import State
    from falbatch.core.trial import CanaryReport
    from falbatch.engine.settings import ExecuteSettings as Limits
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
    "falbatch.api.again": ("RetryChoice",),
    "falbatch.api.batch": ("export", "status"),
    "falbatch.api.cancelling": ("CancelReport", "cancel"),
    "falbatch.api.library": ("plan", "run"),
    "falbatch.api.planning": ("Selection",),
    "falbatch.api.reconciling": ("reconcile",),
    "falbatch.api.options": ("RunOptions",),
    "falbatch.api.running": ("arun",),
    "falbatch.api.stream": ("Outcome",),
    "falbatch.client": (
        "AsyncClient",
        "AsyncRealtimeConnection",
        "AsyncRequestHandle",
        "Client",
        "Completed",
        "FalClientConnectionError",
        "FalClientError",
        "FalClientHTTPError",
        "FalClientLostRequestError",
        "FalClientTimeoutError",
        "InProgress",
        "MissingCredentialsError",
        "Queued",
        "RealtimeConnection",
        "RealtimeError",
        "Status",
        "StorageACL",
        "StorageACLRule",
        "StorageSettings",
        "SyncClient",
        "SyncRequestHandle",
        "WebhookRefused",
        "cancel_async",
        "encode",
        "encode_file",
        "encode_image",
        "realtime",
        "realtime_async",
        "result",
        "result_async",
        "run_async",
        "status_async",
        "stream",
        "stream_async",
        "submit",
        "submit_async",
        "subscribe",
        "subscribe_async",
        "upload",
        "upload_async",
        "upload_file",
        "upload_file_async",
        "upload_image",
        "upload_image_async",
        "verify_webhook",
        "verify_webhook_async",
        "ws_connect",
        "ws_connect_async",
    ),
    "falbatch.core.flags": ("FlagPolicy", "LackPolicy"),
    "falbatch.core.plan": ("Plan", "PlannedJob"),
    "falbatch.core.report": ("BatchStatus", "Report"),
    "falbatch.core.trial": ("CanaryReport",),
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
_RENAMED = {"map": ("falbatch.api.stream", "map_inputs"), "Limits": ("falbatch.engine.settings", "ExecuteSettings")}

__all__ = [
    "AsyncClient",
    "AsyncRealtimeConnection",
    "AsyncRequestHandle",
    "BatchStatus",
    "CanaryReport",
    "CancelReport",
    "Client",
    "Completed",
    "CredentialsError",
    "DiskFull",
    "ExitCode",
    "FalClientConnectionError",
    "FalClientError",
    "FalClientHTTPError",
    "FalClientLostRequestError",
    "FalClientTimeoutError",
    "FalUnreachable",
    "FalbatchError",
    "FlagPolicy",
    "InProgress",
    "LackPolicy",
    "LimitReached",
    "Limits",
    "ManifestError",
    "MissingCredentialsError",
    "Outcome",
    "OutputError",
    "Plan",
    "PlannedJob",
    "Queued",
    "RealtimeConnection",
    "RealtimeError",
    "Report",
    "RetryChoice",
    "RunOptions",
    "Selection",
    "State",
    "StateError",
    "Status",
    "StorageACL",
    "StorageACLRule",
    "StorageSettings",
    "SyncClient",
    "SyncRequestHandle",
    "UsageError",
    "WebhookRefused",
    "arun",
    "cancel",
    "cancel_async",
    "encode",
    "encode_file",
    "encode_image",
    "export",
    "map",
    "plan",
    "realtime",
    "realtime_async",
    "reconcile",
    "result",
    "result_async",
    "run",
    "run_async",
    "status",
    "status_async",
    "stream",
    "stream_async",
    "submit",
    "submit_async",
    "subscribe",
    "subscribe_async",
    "upload",
    "upload_async",
    "upload_file",
    "upload_file_async",
    "upload_image",
    "upload_image_async",
    "verify_webhook",
    "verify_webhook_async",
    "ws_connect",
    "ws_connect_async",
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
