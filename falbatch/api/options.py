"""What may be asked of one run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from falbatch.api.planning import Selection

if TYPE_CHECKING:
    from decimal import Decimal
    from pathlib import Path

    from falbatch.api.again import RetryChoice


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
    canary: int | None = None
    """Submit no more than so many jobs, spread over all that is left, and say what they tell of the rest."""
    retry: RetryChoice | None = None
    """Failed and cancelled jobs to do again."""
    resubmit_unknown: bool = False
    """Submit unknown jobs again, although they may have run and been charged; after looking for them at fal."""
    validate: bool = True
    """Check inputs against the endpoints' own schemas before anything is submitted."""
    ask_above: Decimal | None = None
    """US dollars that a run may be expected to cost without asking for a yes, in place of the manifest's
    `budget.ask_above`."""
    max_cost: Decimal | None = None
    """US dollars that the batch may cost over all its runs, in place of the manifest's `budget.max_cost`."""
    reconcile_s: float | None = None
    """How long submits without an answer are looked for in fal's request list, in seconds; None: by how long such
    jobs take."""
    webhook_listen: str | None = None
    """HOST:PORT at which to listen for fal's webhooks, so that next to nothing need be asked. With `webhook_url`."""
    webhook_url: str | None = None
    """What fal shall call to get there: a public https URL (a tunnel, a proxy), whose path stays as it is."""
    watch_signals: bool = False
    """Stop gently on SIGINT, SIGTERM and SIGHUP; for a program that is the run."""
    profile: bool = False
    """Measure where the time goes: `Report.profile`."""
