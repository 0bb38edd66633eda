"""How long to wait before trying again. Time and chance are arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ASKED_MOST_S: Final = 300.0
"""A server's Retry-After is honoured up to this: a mistaken or hostile one must not park a night's batch."""

MAX_DOUBLINGS: Final = 60
"""2.0 ** 60 is far above any cap; beyond about 1,000 the power would overflow a float."""


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """Exponential back-off with full jitter."""

    first_s: float = 1.0
    """Upper end of the wait after the first failure, in seconds (fal's docs suggest 1, 2, 4, 8)."""
    cap_s: float = 60.0
    """No wait is longer, in seconds, unless the server asks for more."""


def delay_s(failures: int, policy: BackoffPolicy, jitter: float, *, retry_after_s: float | None = None) -> float:
    """Seconds to wait after failure number `failures` (1-based).

    `jitter` is a uniform draw in [0, 1) made by the caller. Formula: jitter * min(cap_s, first_s *
    2 ** (failures - 1)), "full jitter", AWS architecture blog, 2015. A delay that the server asked for is the
    least that is waited: the jitter comes on top of it, so that waiters do not return all at once.
    """
    if failures < 1:
        raise ValueError("failures are counted from 1")
    doublings = min(failures - 1, MAX_DOUBLINGS)
    wait_s = jitter * min(policy.cap_s, policy.first_s * 2.0**doublings)
    if retry_after_s is None:
        return wait_s
    return min(ASKED_MOST_S, max(0.0, retry_after_s)) + min(wait_s, policy.first_s)
