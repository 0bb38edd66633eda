"""The tables of fal-protocol §8.2, §8.3, §8.4 and §13.1, row by row, for submits, results and downloads."""

from __future__ import annotations

import pytest

from falbatch.core.classify import (
    DownloadVerdict,
    Failure,
    ResultVerdict,
    SubmitVerdict,
    download_verdict,
    failure_of,
    is_account_trouble,
    is_worth_another,
    is_worth_reading_again,
    result_verdict,
    submit_verdict,
)
from falbatch.errors import HttpError, ReplyError, TransportError, WireError

S = SubmitVerdict
R = ResultVerdict
D = DownloadVerdict


def http(
    status: int,
    error_type: str = "",
    *,
    from_fal: bool = True,
    retryable: bool | None = None,
    timeout_type: str = "",
) -> HttpError:
    return HttpError(
        f"POST x: {status}",
        status=status,
        error_type=error_type,
        from_fal=from_fal,
        retryable=retryable,
        timeout_type=timeout_type,
    )


def gateway(status: int) -> HttpError:
    """An nginx page: no mark of fal."""
    return http(status, from_fal=False)


def unsent(kind: str) -> TransportError:
    return TransportError(f"{kind} failed", sent=False, kind=kind)


def sent(kind: str) -> TransportError:
    return TransportError(f"{kind} after sending", sent=True, kind=kind)


@pytest.mark.parametrize("kind", ["dns", "connect", "tls", "pool"])
def test_a_submit_of_which_nothing_left_may_be_repeated(kind: str) -> None:
    assert submit_verdict(unsent(kind)) is S.UNREACHED


@pytest.mark.parametrize(
    "error",
    [
        sent("timeout"),
        sent("reset"),
        sent("protocol"),
        ReplyError("cut"),
        ReplyError("cut", request_id="6a5f1e8a-0000-4000-8000-000000000000"),
        WireError("anything new"),
        http(101),
        http(303),
        http(304),
        http(408),
        http(500),
        http(500, "internal_error"),
        http(503, "runner_scheduling_failure", retryable=True),
        http(504, "request_timeout"),
        gateway(500),
        gateway(502),
        gateway(503),
        gateway(504),
    ],
    ids=str,
)
def test_a_submit_that_may_have_been_accepted_is_never_repeated(error: WireError) -> None:
    assert submit_verdict(error) is S.UNKNOWN


@pytest.mark.parametrize("error", [http(429), gateway(429), http(429, "concurrent_requests_limit", retryable=True)])
def test_a_submit_answered_429_was_refused_for_now(error: HttpError) -> None:
    assert submit_verdict(error) is S.REFUSED


@pytest.mark.parametrize("status", [401, 402, 403])
@pytest.mark.parametrize("from_fal", [True, False])
def test_a_refused_account_is_no_fault_of_the_job(status: int, from_fal: bool) -> None:
    assert submit_verdict(http(status, from_fal=from_fal)) is S.ACCOUNT
    assert is_account_trouble(http(status, from_fal=from_fal))


@pytest.mark.parametrize("error", [http(404), http(422), http(500), gateway(502), sent("reset"), ReplyError("cut")])
def test_other_errors_are_no_account_trouble(error: WireError) -> None:
    assert not is_account_trouble(error)


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 404, 405, 409, 413, 422])
def test_a_submit_that_fal_will_never_take_is_rejected(status: int) -> None:
    assert submit_verdict(http(status)) is S.REJECTED


REQUEST_TYPES = [
    ("request_timeout", 504, R.WORTH_ANOTHER),
    ("startup_timeout", 504, R.WORTH_ANOTHER),
    ("runner_scheduling_failure", 503, R.WORTH_ANOTHER),
    ("runner_connection_timeout", 503, R.WORTH_ANOTHER),
    ("runner_disconnected", 503, R.WORTH_ANOTHER),
    ("runner_connection_refused", 503, R.WORTH_ANOTHER),
    ("runner_connection_error", 503, R.WORTH_ANOTHER),
    ("runner_incomplete_response", 502, R.WORTH_ANOTHER),
    ("runner_server_error", 500, R.WORTH_ANOTHER),
    ("internal_error", 500, R.WORTH_ANOTHER),
    ("client_disconnected", 499, R.CANCELLED),
    ("client_cancelled", 499, R.CANCELLED),
    ("bad_request", 400, R.FAILED),
]
"""§8.2."""

MODEL_TYPES_BY_HEADER = [
    ("internal_server_error", 500),
    ("generation_timeout", 504),
    ("downstream_service_error", 400),
    ("downstream_service_error", 500),
    ("downstream_service_unavailable", 500),
]
"""§8.3, "per header"."""

MODEL_TYPES_FINAL = [
    "content_policy_violation",
    "no_media_generated",
    "image_too_small",
    "image_too_large",
    "image_load_error",
    "file_download_error",
    "face_detection_error",
    "feature_not_supported",
    "file_too_large",
    "greater_than",
    "greater_than_equal",
    "less_than",
    "less_than_equal",
    "multiple_of",
    "sequence_too_short",
    "sequence_too_long",
    "one_of",
    "invalid_archive",
    "archive_file_count_below_minimum",
    "archive_file_count_exceeds_maximum",
    "audio_duration_too_long",
    "audio_duration_too_short",
    "video_duration_too_long",
    "video_duration_too_short",
    "unsupported_audio_format",
    "unsupported_image_format",
    "unsupported_video_format",
    "value_error.missing",
    "missing",
    "int_parsing",
    "a_type_of_next_year",
    "",
]
"""§8.3: no, and 422."""


@pytest.mark.parametrize(("error_type", "status", "verdict"), REQUEST_TYPES)
def test_each_request_error_type_has_its_verdict(error_type: str, status: int, verdict: ResultVerdict) -> None:
    assert result_verdict(http(status, error_type)) is verdict


@pytest.mark.parametrize(("error_type", "status"), MODEL_TYPES_BY_HEADER)
@pytest.mark.parametrize(
    ("retryable", "verdict"), [(None, R.WORTH_ANOTHER), (True, R.WORTH_ANOTHER), (False, R.FAILED)]
)
def test_fals_retry_header_decides_before_the_type(
    error_type: str, status: int, retryable: bool | None, verdict: ResultVerdict
) -> None:
    assert result_verdict(http(status, error_type, retryable=retryable)) is verdict


@pytest.mark.parametrize("error_type", MODEL_TYPES_FINAL)
def test_a_422_is_final(error_type: str) -> None:
    assert result_verdict(http(422, error_type)) is R.FAILED
    assert result_verdict(http(422, error_type, retryable=False)) is R.FAILED


def test_a_422_is_worth_another_only_if_fal_says_so() -> None:
    assert result_verdict(http(422, "no_media_generated", retryable=True)) is R.WORTH_ANOTHER


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_type_that_is_new_to_us_is_judged_by_its_status(status: int) -> None:
    assert result_verdict(http(status, "a_type_of_next_year")) is R.WORTH_ANOTHER


@pytest.mark.parametrize("retryable", [None, True])
def test_our_own_start_deadline_is_a_choice_and_not_repeated(retryable: bool | None) -> None:
    error = http(504, "request_timeout", timeout_type="user", retryable=retryable)
    assert result_verdict(error) is R.FAILED
    assert not is_worth_another(error)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (http(400), R.NOT_YET),
        (http(400, retryable=False), R.FAILED),
        (http(400, retryable=True), R.WORTH_ANOTHER),
        (http(401), R.ACCOUNT),
        (http(403), R.ACCOUNT),
        (http(403, "forbidden_by_the_app"), R.FAILED),
        (gateway(401), R.ACCOUNT),
        (gateway(403), R.ACCOUNT),
        (http(404), R.GONE),
        (gateway(404), R.GONE),
        (http(404, "not_in_my_gallery"), R.FAILED),
        (http(405), R.FAILED),
        (http(408), R.ASK_AGAIN),
        (http(409), R.ASK_AGAIN),
        (gateway(408), R.ASK_AGAIN),
        (gateway(409), R.ASK_AGAIN),
        (http(413), R.FAILED),
        (http(422), R.FAILED),
        (http(429), R.ASK_AGAIN),
        (gateway(429), R.ASK_AGAIN),
        (http(429, "concurrent_requests_limit"), R.WORTH_ANOTHER),
        (http(429, retryable=True), R.WORTH_ANOTHER),
        (http(499), R.CANCELLED),
        (gateway(499), R.CANCELLED),
        (http(500), R.WORTH_ANOTHER),
        (http(500, retryable=False), R.FAILED),
        (http(502), R.WORTH_ANOTHER),
        (http(503), R.WORTH_ANOTHER),
        (http(504), R.WORTH_ANOTHER),
        (gateway(500), R.ASK_AGAIN),
        (gateway(502), R.ASK_AGAIN),
        (gateway(503), R.ASK_AGAIN),
        (gateway(504), R.ASK_AGAIN),
    ],
    ids=lambda value: f"{value.status}-{value.from_fal}-{value.error_type}" if isinstance(value, HttpError) else None,
)
def test_each_status_of_a_result_has_its_verdict(error: HttpError, verdict: ResultVerdict) -> None:
    assert result_verdict(error) is verdict


@pytest.mark.parametrize(
    "error", [unsent("dns"), unsent("connect"), sent("timeout"), sent("reset"), ReplyError("cut")], ids=str
)
def test_a_result_that_did_not_come_whole_is_asked_for_again(error: WireError) -> None:
    assert result_verdict(error) is R.ASK_AGAIN
    assert is_worth_reading_again(error)


@pytest.mark.parametrize(
    ("status", "again"),
    [
        (400, False),
        (401, False),
        (403, False),
        (404, False),
        (405, False),
        (408, True),
        (409, True),
        (422, False),
        (429, True),
        (499, False),
        (500, True),
        (502, True),
        (503, True),
        (504, True),
    ],
)
@pytest.mark.parametrize("from_fal", [True, False])
def test_reads_are_repeated_by_the_table(status: int, again: bool, from_fal: bool) -> None:
    assert is_worth_reading_again(http(status, from_fal=from_fal)) is again


def test_a_wire_error_of_no_known_kind_is_not_read_again() -> None:
    assert not is_worth_reading_again(WireError("?"))


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (unsent("dns"), D.AGAIN),
        (sent("timeout"), D.AGAIN),
        (sent("reset"), D.AGAIN),
        (ReplyError("the PNG ends before its end mark"), D.AGAIN),
        (unsent("refused_address"), D.REFUSED),
        (unsent("refused_url"), D.REFUSED),
        (sent("refused_size"), D.REFUSED),
        (gateway(400), D.REFUSED),
        (gateway(401), D.GONE),
        (gateway(403), D.GONE),
        (gateway(404), D.GONE),
        (gateway(405), D.REFUSED),
        (gateway(408), D.AGAIN),
        (gateway(409), D.AGAIN),
        (gateway(410), D.GONE),
        (gateway(416), D.AGAIN),
        (gateway(429), D.AGAIN),
        (gateway(500), D.AGAIN),
        (gateway(502), D.AGAIN),
        (gateway(503), D.AGAIN),
        (gateway(504), D.AGAIN),
    ],
    ids=lambda value: str(value) if isinstance(value, WireError) else None,
)
def test_each_failed_download_has_its_verdict(error: WireError, verdict: DownloadVerdict) -> None:
    assert download_verdict(error) is verdict


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (http(422, "missing"), Failure("missing", "POST x: 422", 422)),
        (http(500), Failure("http_500", "POST x: 500", 500)),
        (sent("timeout"), Failure("transport_timeout", "timeout after sending")),
        (ReplyError("cut"), Failure("bad_reply", "cut")),
    ],
)
def test_a_failure_is_stored_with_its_type_message_and_status(error: WireError, failure: Failure) -> None:
    assert failure_of(error) == failure
