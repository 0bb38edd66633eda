"""Calling fal again: how often, after how long, and for which failures (fal-protocol §13.1).

The batch has its own rules for jobs (in the core); these are for single calls of the storage and of the client.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from falbatch.errors import HttpError, ReplyError, TransportError, WireError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

ASKED_MOST_S: Final = 300.0
"""A server's Retry-After is honoured up to this."""

_HOPELESS: Final = frozenset({"tls", "protocol", "refused_address", "refused_url", "no_platform"})
"""Kinds of TransportError that the next try meets again, when nothing was sent: a bad certificate, a bad URL."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """Exponential back-off with full jitter."""

    attempts: int = 8
    """Calls in all; 1 means never again."""
    first_s: float = 0.5
    """Upper end of the pause after the first failure, in seconds; doubled after each one more."""
    cap_s: float = 20.0
    """No pause is longer, in seconds, unless the server asks for more."""

    def pause_s(self, failures: int, error: WireError) -> float:
        """Seconds to wait after failure number `failures` (1-based): what the server asked for comes on top."""
        wait_s = random.random() * min(self.cap_s, self.first_s * 2.0 ** min(failures - 1, 60))  # noqa: S311
        asked_s = error.retry_after_s if isinstance(error, HttpError) else None
        return wait_s if asked_s is None else min(ASKED_MOST_S, asked_s) + min(wait_s, self.first_s)


def may_read_again(error: WireError) -> bool:
    """For calls that cost nothing and change nothing when they come twice: reads, cancels, tokens, uploads."""
    match error:
        case TransportError():
            return error.sent or error.kind not in _HOPELESS
        case HttpError():
            return error.status in {408, 409, 429} or error.status >= 500
        case _:
            return isinstance(error, ReplyError)


def may_read_result_again(error: WireError) -> bool:
    """For the result of a request that is over: what bears fal's marks is its outcome and stays the same (§3.4)."""
    if isinstance(error, HttpError) and error.from_fal:
        bare = not error.error_type and error.retryable is None
        return error.status in {408, 409} or (error.status == 429 and bare)
    return may_read_again(error)


def may_pay_again(error: WireError) -> bool:
    """For submit, run and stream: only when fal provably did not take the first one."""
    match error:
        case TransportError():
            return not error.sent and error.kind not in _HOPELESS
        case HttpError():  # an app's own 429 may have been billed, and says so
            return error.status == 429 and not error.billable_units
        case _:
            return False


async def repeat(call: Callable[[], Awaitable[T]], repeats: Repeats, *, if_: Callable[[WireError], bool]) -> T:
    """The value of `call()`, called again after each WireError for which `if_` holds. The last one is raised."""
    failures = 0
    while True:
        try:
            return await call()
        except WireError as error:
            failures += 1
            if failures >= repeats.attempts or not if_(error):
                raise
            pause_s = repeats.pause_s(failures, error)
        await anyio.sleep(pause_s)
