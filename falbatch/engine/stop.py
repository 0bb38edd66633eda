"""The run's stop signal, as calls that cost money see it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterator

GRACE_S: Final = 10.0
"""How long a submit under way may take after the run was told to stop, to get its request id recorded."""


class Stop:
    """Told once; every call under way gets a bounded moment to finish."""

    def __init__(self) -> None:
        self.reason = ""
        self._graces: dict[anyio.CancelScope, float] = {}
        """Of each call under way: the seconds that it is given."""

    def now(self, reason: str) -> None:
        """Give every call under way its grace from now. Idempotent; the first reason stays."""
        if self.reason:
            return
        self.reason = reason
        for scope, grace_s in self._graces.items():
            scope.deadline = anyio.current_time() + grace_s

    def waits_for(self, grace_s: float) -> int:
        """How many of the calls under way are given `grace_s` or more."""
        return sum(given_s >= grace_s for given_s in self._graces.values())

    @contextmanager
    def shield(self, grace_s: float = GRACE_S) -> Iterator[None]:
        """Protect a paid call from cancellation until its answer is on record, for `grace_s` at most after a stop."""
        with anyio.CancelScope(shield=True) as scope:
            if self.reason:
                scope.deadline = anyio.current_time() + grace_s
            self._graces[scope] = grace_s
            try:
                yield
            finally:
                del self._graces[scope]
