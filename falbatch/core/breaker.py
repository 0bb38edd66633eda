"""When a run stops submitting because jobs keep failing: the user's limits, and a row of equal failures. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from falbatch.core.classify import Failure


@dataclass(frozen=True, slots=True)
class Streak:
    """Jobs of one endpoint that failed in the same way one after another, as their ends came in."""

    error_type: str = ""
    length: int = 0

    def failed(self, failure: Failure) -> Streak:
        """After a job failed for good."""
        if failure.error_type == self.error_type:
            return replace(self, length=self.length + 1)
        return Streak(failure.error_type, 1)


OWN_TROUBLE = (
    "file_gone",
    "file_refused",
    "result_gone",
    "file_missing",
    "file_changed",
    "file_too_large",
    "upload_failed",
)
"""Failures that say nothing about the endpoint: its work was done, or it was not asked."""
