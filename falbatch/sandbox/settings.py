"""What a start of the sandbox is told, and how flags and scenario are merged. Cheap to import, no effects."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from falbatch.sandbox.scenario import Scenario

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_PORT: Final = 8787
"""Free of well-known services."""

DEFAULT_CONCURRENCY: Final = 10
"""Requests IN_PROGRESS per account. fal gives 2 to new accounts and up to 40 by spend (fal-protocol §9.1)."""

KEPT_RESULT_S: Final = 30 * 86_400.0
"""How long a result is readable with payload storage on, the default (fal-protocol §3.6)."""

UNKEPT_RESULT_S: Final = 3_600.0
"""The same for a request sent with `X-Fal-Store-IO: 0` (fal-protocol §3.6)."""


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """One start of the sandbox. None means: as the scenario says, else the default."""

    host: str = "127.0.0.1"
    """A loopback name or address; anything else is refused."""
    port: int = DEFAULT_PORT
    """0 picks a free one, the one recorded in `data` by an earlier start if that is free."""
    data: Path | None = None
    """Folder that keeps queue, ledger, fault counters and uploads; None keeps them no longer than the process."""
    seed: int | None = None
    """Same seed, same ids, timings and faults. None: the one in `data`, else a new one at every start, so that
    two sandboxes never hand out the same request id by accident."""
    concurrency: int | None = None
    """Requests IN_PROGRESS at once per account, at least 1."""
    speed: float | None = None
    """Divides every service time; 0 and infinity both mean no service time at all."""
    scenario: Path | None = None
    """A YAML file, see `scenario`."""
    key: str | None = None
    """The only accepted `id:secret`; None makes every `id:secret` an account of its own."""
    tls: Path | None = None
    """Folder of a certificate authority of our own: https, with certificates that it signs. None: plain http."""
    stay_until_stdin_closes: bool = False
    """Also stop at the end of stdin, so that a killed parent takes the sandbox along."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How this sandbox behaves: the flags over the scenario over the defaults."""

    seed: int
    concurrency: int = DEFAULT_CONCURRENCY
    time_scale: float = 1.0
    """Factor on service times: 1 / speed, or 0 for none at all."""
    scenario: Scenario = field(default_factory=Scenario)
    key: str | None = None
    data: Path | None = None
    """Folder that keeps what is uploaded; None for one that goes with the process."""

    def window_s(self, *, stored: bool) -> float:
        """Seconds that a result stays readable after completion; `stored` is False for X-Fal-Store-IO: 0."""
        if self.scenario.result_window_s is not None:
            return self.scenario.result_window_s
        return KEPT_RESULT_S if stored else UNKEPT_RESULT_S


def behaviour(settings: SandboxSettings, scenario: Scenario, seed: int) -> Behaviour:
    """Merge flags over `scenario` over the defaults. `seed` is decided by the caller."""
    speed = next((speed for speed in (settings.speed, scenario.speed) if speed is not None), 1.0)
    return Behaviour(
        seed=seed,
        concurrency=settings.concurrency or scenario.concurrency or DEFAULT_CONCURRENCY,
        time_scale=0.0 if speed == 0 or math.isinf(speed) else 1.0 / speed,
        scenario=scenario,
        key=settings.key,
        data=settings.data,
    )
