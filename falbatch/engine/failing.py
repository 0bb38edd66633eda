"""When jobs fail too often to go on: the gate closes, and what is at fal is brought home."""

from __future__ import annotations

from typing import TYPE_CHECKING

from falbatch.core.breaker import OWN_TROUBLE, Streak
from falbatch.core.flags import JUDGED
from falbatch.errors import LimitReached

if TYPE_CHECKING:
    from falbatch.core.classify import Failure
    from falbatch.engine.gate import SubmitGate
    from falbatch.engine.settings import ExecuteSettings


class Failing:
    """The failed jobs of one run, counted against its limits."""

    def __init__(self, gate: SubmitGate, settings: ExecuteSettings) -> None:
        self._gate = gate
        self._most = settings.max_failures
        self._most_equal = settings.max_equal_failures
        self._failed = 0
        self._streaks: dict[tuple[str, bool], Streak] = {}
        """By endpoint; those whose result failed apart, since each of them had a result."""

    def succeeded(self, endpoint: str) -> None:
        """A job has its result: what fails next on `endpoint` is the first in a row."""
        self._streaks.pop((endpoint, False), None)

    def taken(self, endpoint: str) -> None:
        """A job's result is what was asked for."""
        self._streaks.pop((endpoint, True), None)

    def failed(self, endpoint: str, failure: Failure) -> None:
        """A job failed for good. Closes the gate when that was one too many."""
        if self._gate.is_shut:
            return  # these limits are about what is submitted
        self._failed += 1
        if self._most is not None and self._failed > self._most:
            self._gate.close(
                LimitReached(
                    f"{self._failed} jobs failed in this run, more than budget.max_failures allows ({self._most})",
                    advice="What is at fal was brought home. Look at the failures, then run again or raise the limit.",
                )
            )
        if failure.error_type in OWN_TROUBLE:
            return
        line = endpoint, failure.error_type in JUDGED
        streak = self._streaks.get(line, Streak()).failed(failure)
        self._streaks[line] = streak
        if self._most_equal is not None and streak.length >= self._most_equal:
            self._gate.close(
                LimitReached(
                    f"the last {streak.length} jobs on {endpoint} all failed alike: {streak.error_type},"
                    f" {failure.message}",
                    advice="What is at fal was brought home. Fix the cause, then run again; budget.max_equal_failures"
                    " sets how many are too many.",
                )
            )
