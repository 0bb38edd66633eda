"""What is called again, how often, and after how long (fal-protocol §13.1)."""

from __future__ import annotations

import pytest

from falbatch.errors import HttpError, ReplyError, TransportError, WireError
from falbatch.fal.again import Repeats, may_pay_again, may_read_again, may_read_result_again, repeat

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def unsent(kind: str) -> TransportError:
    return TransportError("x", sent=False, kind=kind)


def sent(kind: str = "reset") -> TransportError:
    return TransportError("x", sent=True, kind=kind)


def http(
    status: int,
    error_type: str = "",
    *,
    from_fal: bool = False,
    retryable: bool | None = None,
    units: float | None = None,
) -> HttpError:
    return HttpError(
        "x", status=status, error_type=error_type, from_fal=from_fal, retryable=retryable, billable_units=units
    )


@pytest.mark.parametrize(
    ("error", "read", "result", "paid"),
    [
        (unsent("connect"), True, True, True),
        (unsent("dns"), True, True, True),
        (unsent("pool"), True, True, True),
        (unsent("tls"), False, False, False),
        (unsent("protocol"), False, False, False),
        (sent(), True, True, False),
        (sent("timeout"), True, True, False),
        (sent("protocol"), True, True, False),
        (ReplyError("x"), True, True, False),
        (http(429), True, True, True),
        (http(429, from_fal=True), True, True, True),
        (http(429, "rate", from_fal=True), True, False, True),
        (http(429, units=0.0), True, True, True),
        (http(429, units=1.0), True, True, False),
        (http(408), True, True, False),
        (http(500, from_fal=True), True, False, False),
        (http(503, from_fal=True, retryable=True), True, False, False),
        (http(502), True, True, False),
        (http(401), False, False, False),
        (http(404), False, False, False),
        (http(422, from_fal=True), False, False, False),
    ],
)
def test_what_may_be_called_again(error: WireError, read: bool, result: bool, paid: bool) -> None:
    assert (may_read_again(error), may_read_result_again(error), may_pay_again(error)) == (read, result, paid)


def test_pauses_grow_to_a_cap_and_honour_the_server() -> None:
    repeats = Repeats(first_s=0.5, cap_s=4.0)
    for failures, most in ((1, 0.5), (2, 1.0), (4, 4.0), (5000, 4.0)):
        pauses = [repeats.pause_s(failures, sent()) for _ in range(200)]
        assert min(pauses) >= 0
        assert most * 0.8 < max(pauses) <= most
    asked = HttpError("x", status=429, retry_after_s=7.0)
    assert 7.0 <= repeats.pause_s(9, asked) <= 7.5
    assert repeats.pause_s(9, HttpError("x", status=429, retry_after_s=1e9)) <= 300.5


async def test_the_last_error_is_raised() -> None:
    errors = [sent(), http(503), http(404)]
    calls = iter(errors)

    async def call() -> None:
        raise next(calls)

    with pytest.raises(HttpError) as caught:
        await repeat(call, Repeats(attempts=9, first_s=0.001), if_=may_read_again)
    assert caught.value is errors[2]
