"""Time and chance, for real."""

from __future__ import annotations

import random
import time

import anyio


class SystemClock:
    """The machine's clocks and a random source."""

    def now_s(self) -> float:
        """Monotonic seconds: never set back, for waits."""
        return time.monotonic()

    def unix_s(self) -> float:
        """Unix seconds: may jump, for records only."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds`; a cancelled task wakes at once."""
        await anyio.sleep(seconds)

    def jitter(self) -> float:
        """A uniform draw in [0, 1)."""
        return random.random()  # noqa: S311  (spreads retries, guards nothing)
