"""Doing a call again: the one place where tenacity is used. What may be repeated is decided in `core/classify.py`,
how long to wait in `core/backoff.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, stop_never

from falbatch.core.backoff import BackoffPolicy, delay_s
from falbatch.errors import HttpError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from falbatch.engine.ports import Clock

T = TypeVar("T")


def pause_s(failures: int, error: BaseException, policy: BackoffPolicy, clock: Clock) -> float:
    """Seconds to wait after failure number `failures` (1-based), at least what the server asked for with it."""
    asked_s = error.retry_after_s if isinstance(error, HttpError) else None
    return delay_s(failures, policy, clock.jitter(), retry_after_s=asked_s)


async def repeat(
    call: Callable[[], Awaitable[T]],
    *,
    if_: Callable[[BaseException], bool],
    wait_s: Callable[[int, BaseException], float],
    sleep: Callable[[float], Awaitable[None]],
    attempts: int | None = None,
) -> T:
    """The value of `call()`, called again after each exception for which `if_` holds.

    `wait_s(failures, error)` gives the pause after failure number `failures` (1-based). With `attempts`, that many
    calls in all; None means until `if_` says no. The last exception is raised as it is.
    """
    try:
        return await call()
    except Exception as error:
        if not if_(error) or attempts == 1:
            raise
        first: list[Exception] = [error]

    # tenacity costs 20 µs an entry, so the call that succeeds at once never enters it. The first failure is played
    # back to it, which keeps its count of attempts and its first wait right.
    async def call_again() -> T:
        if first:
            raise first.pop()
        return await call()

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return wait_s(state.attempt_number, error) if error else 0.0

    retrying = AsyncRetrying(
        retry=retry_if_exception(if_),
        wait=wait,
        stop=stop_never if attempts is None else stop_after_attempt(attempts),
        sleep=sleep,
        reraise=True,
    )
    return await retrying(call_again)
