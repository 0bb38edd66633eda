"""Notices that fal has not answered for so long that a run should end instead of waiting on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from falbatch.errors import FalUnreachable

if TYPE_CHECKING:
    from falbatch.engine.ports import Clock

PATIENCE_AT_START_S: Final = 20.0
"""Without a single answer: long enough for a slow DNS or a VPN to come up, short enough for a typing user."""

PATIENCE_S: Final = 15 * 60.0
"""Once fal has answered: a batch of a night survives a router's restart or a provider's hiccup."""


class Reach:
    """Shared by all stages of one run; touched on the event loop only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._missed_since_s: float | None = None
        """When the first call since fal's last answer got none; None when none failed. A run that asked nothing for an
        hour (it was downloading) has no reason to complain of silence."""
        self._ever = False

    def heard(self) -> None:
        """fal answered, whatever it said."""
        self._missed_since_s = None
        self._ever = True

    def missed(self, error: Exception) -> None:
        """A call got no answer. Raises `FalUnreachable` when that has gone on for too long."""
        now_s = self._clock.now_s()
        if self._missed_since_s is None:
            self._missed_since_s = now_s
        silent_s = now_s - self._missed_since_s
        if silent_s >= (PATIENCE_S if self._ever else PATIENCE_AT_START_S):
            raise FalUnreachable(
                f"fal has not answered for {silent_s:.0f} s: {error}",
                advice="Check the network (and FAL_RUN_HOST or FALBATCH_* if set); the same command goes on.",
            ) from error
