"""The table of fal-protocol §13.1, row "direct run POST": what a failed direct call means for its job."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.classify import DirectVerdict, direct_verdict
from falbatch.errors import HttpError, ReplyError, TransportError, WireError

V = DirectVerdict
REQUEST = "6a5f1e8a-0000-4000-8000-000000000000"


def fal(status: int, error_type: str = "", *, request_id: str = REQUEST, **more: Any) -> HttpError:
    """An answer with fal's marks."""
    return HttpError(
        f"POST x: {status}", status=status, error_type=error_type, from_fal=True, request_id=request_id, **more
    )


def gateway(status: int) -> HttpError:
    """An nginx page: no mark of fal."""
    return HttpError(f"POST x: {status}", status=status)


ROWS = [
    *((TransportError(kind, sent=False, kind=kind), V.UNREACHED) for kind in ("dns", "connect", "tls", "pool")),
    *((TransportError(kind, sent=True, kind=kind), V.UNKNOWN) for kind in ("timeout", "reset", "protocol")),
    (ReplyError("cut"), V.UNKNOWN),
    (ReplyError("cut", request_id=REQUEST), V.UNKNOWN),
    (WireError("anything new"), V.UNKNOWN),
    (fal(429, "concurrent_requests_limit", retryable=True), V.REFUSED),
    (gateway(429), V.REFUSED),
    (fal(429, "rate_limited", billable_units=0.0), V.REFUSED),
    (fal(429, "rate_limited", billable_units=1.0), V.FAILED),
    (fal(429, "rate_limited", billable_units=1.0, retryable=True), V.WORTH_ANOTHER),
    *((gateway(status), V.ACCOUNT) for status in (401, 402, 403)),
    *((fal(status, request_id=""), V.ACCOUNT) for status in (401, 402, 403)),
    *((fal(status, "model_not_allowed"), V.FAILED) for status in (401, 403)),
    (fal(499, "client_cancelled"), V.CANCELLED),
    (fal(499, "client_disconnected"), V.CANCELLED),
    *((gateway(status), V.UNKNOWN) for status in (408, 499, 500, 502, 503, 504)),
    (fal(408), V.UNKNOWN),
    (fal(500), V.FAILED),
    (fal(500, retryable=True), V.WORTH_ANOTHER),
    (fal(503, "runner_disconnected", retryable=True), V.WORTH_ANOTHER),
    (fal(503, "runner_disconnected"), V.FAILED),
    (fal(503, "runner_disconnected", request_id=""), V.FAILED),
    (fal(500, request_id=""), V.UNKNOWN),
    (fal(504, "request_timeout", retryable=True, timeout_type="user"), V.FAILED),
    (fal(422, "content_policy_violation"), V.FAILED),
    (fal(422, request_id=""), V.FAILED),
    (fal(400, "bad_request"), V.FAILED),
    (fal(404, request_id=""), V.REJECTED),
    *((gateway(status), V.REJECTED) for status in (400, 404, 405, 413, 422)),
    *((gateway(status), V.REJECTED) for status in (301, 302, 307, 308)),
    *((gateway(status), V.UNKNOWN) for status in (101, 303, 304)),
]


def name_of(value: object) -> str | None:
    if isinstance(value, HttpError):
        return f"{value.status}-{value.error_type}-{'fal' if value.from_fal else 'gateway'}-{bool(value.request_id)}"
    return None


@pytest.mark.parametrize(("error", "verdict"), ROWS, ids=name_of)
def test_each_failure_of_a_direct_call_has_its_verdict(error: WireError, verdict: DirectVerdict) -> None:
    assert direct_verdict(error) is verdict


ANY = st.builds(
    HttpError,
    st.just("x"),
    status=st.integers(100, 599),
    error_type=st.sampled_from(["", "runner_disconnected", "missing", "client_cancelled"]),
    from_fal=st.booleans(),
    retryable=st.none() | st.booleans(),
    timeout_type=st.sampled_from(["", "user"]),
    request_id=st.sampled_from(["", REQUEST]),
)


@given(ANY)
def test_what_may_have_run_is_repeated_only_where_fal_says_so(error: HttpError) -> None:
    """Planned again without a word of fal's: refusals that say that nothing ran, and nothing else."""
    verdict = direct_verdict(error)
    if verdict is V.WORTH_ANOTHER:
        assert error.retryable is True
        assert error.status >= 500
        assert error.request_id or error.error_type
    if verdict in {V.REFUSED, V.ACCOUNT}:
        assert error.status in {401, 402, 403, 429}
    if verdict is V.UNREACHED:
        raise AssertionError("an answer is no sign of nothing sent")


@given(ANY)
def test_a_gateway_is_never_the_job_s_own_outcome(error: HttpError) -> None:
    if error.status >= 500 and not (error.from_fal or error.request_id):
        assert direct_verdict(error) is V.UNKNOWN
