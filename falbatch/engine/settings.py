"""What a run is to do and within which limits, as the engine takes it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum, auto

from falbatch.core.backoff import BackoffPolicy
from falbatch.core.flags import FlagPolicy, LackPolicy
from falbatch.core.model import Mode
from falbatch.core.pacing import AUTO_CEILING, CONNECTIONS, DIRECT_AT_ONCE, Window
from falbatch.core.plateau import Plateau


class Scope(Enum):
    """What a run is to do."""

    ALL = auto()
    PAID = auto()
    """Bring home what was paid for; submit nothing."""
    FILES = auto()
    """Fetch files of stored results; ask fal nothing."""


@dataclass(frozen=True, slots=True)
class ExecuteSettings:
    """The limits of a run, from the manifest and the flags."""

    mode: Mode = Mode.QUEUE
    """How the jobs that this run submits are called; others may only come home."""
    in_flight: int | None = None
    """Jobs between submit and result; None finds its own."""
    connections: int = CONNECTIONS
    """Connections of realtime calls, one job each."""
    submits_per_s: float = 200.0
    polls_per_s: float = 200.0
    downloads: int = 16
    """Files fetched at a time."""
    uploads: int = 8
    """Files of inputs uploaded at a time."""
    uploads_expire: str | int | None = None
    """How long fal keeps them, in fal's words or seconds; None leaves it to the account's setting."""
    attempts: int = 4
    """Requests per job, the first included."""
    retry_ratio: float = 0.2
    """Further attempts per submitted job, over the whole run."""
    backoff: BackoffPolicy = field(default_factory=BackoffPolicy)
    max_failures: int | None = None
    """Failed jobs in this run above which nothing more is submitted; None: no limit."""
    max_equal_failures: int | None = 20
    """Equal failures in a row on one endpoint after which nothing more is submitted; None: no limit."""
    max_cost_nano: int | None = None
    """Nano-dollars that the batch may cost over all its runs; None: no limit."""
    sidecar: bool = False
    """Write the whole result beside the files."""
    flagged: FlagPolicy = FlagPolicy.MARK
    """What follows when a result is flagged."""
    lacking: LackPolicy = LackPolicy.FAIL
    """What follows when a result has less than was asked for."""
    scope: Scope = Scope.ALL
    with_files: bool = True
    """False leaves results in the state file and fetches nothing."""
    reconcile_s: float | None = None
    """How long submits without an answer are looked for, in seconds; None: by how long such jobs take."""


def window_for(settings: ExecuteSettings) -> Window:
    """How many jobs may be between submit and result, and direct calls under way."""
    most = {Mode.QUEUE: AUTO_CEILING, Mode.REALTIME: settings.connections}.get(settings.mode, DIRECT_AT_ONCE)
    if settings.in_flight is None:
        return Window.auto(most)
    return Window.fixed_at(settings.in_flight if settings.mode is Mode.QUEUE else min(settings.in_flight, most))


def plateau_for(settings: ExecuteSettings) -> Plateau | None:
    """What finds the window's size from what fal runs at once; None where it is fixed, or where fal says "too many" by
    itself: direct calls never wait at fal, they are refused (fal-protocol §9.1)."""
    return Plateau() if settings.in_flight is None and settings.mode is Mode.QUEUE else None


def failure_limit(count: int | None, share: float | None, total: int) -> int | None:
    """`budget.max_failures` in jobs: a count as it is, a share of all `total` jobs of the manifest rounded down."""
    if count is not None:
        return count
    return None if share is None else math.floor(round(share * total, 6))
