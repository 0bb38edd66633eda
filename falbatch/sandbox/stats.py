"""Counts of what came in and what went out, for `GET /sandbox/stats`."""

from __future__ import annotations

from collections import Counter
from typing import Any


class Stats:
    """Counters since the start or the last reset; not kept over restarts."""

    def __init__(self) -> None:
        self._outcomes: Counter[tuple[str, str]] = Counter()
        self.leaked_keys = 0
        """CDN calls that carried an Authorization header: a key must never go there (fal-protocol §7.4)."""

    def count(self, route: str, outcome: str) -> None:
        """Note one call: `route` as in `Where` or a prefix, `outcome` an HTTP status, `reset` or `hang`."""
        self._outcomes[route, outcome] += 1

    def page(self) -> dict[str, Any]:
        """`{"requests": {route: {outcome: n}}, "leaked_keys": n}`."""
        routes: dict[str, dict[str, int]] = {}
        for (route, outcome), number in sorted(self._outcomes.items()):
            routes.setdefault(route, {})[outcome] = number
        return {"requests": routes, "leaked_keys": self.leaked_keys}
