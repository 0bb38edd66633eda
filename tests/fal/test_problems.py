"""Every family and every type of fal-protocol §8, and what must never be in a message."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from falbatch.fal.problems import MAX_MESSAGE, parse_error
from tests.fal.raw_server import RID

if TYPE_CHECKING:
    from falbatch.errors import HttpError

CALL = "GET https://queue.fal.run/x"

REQUEST_TYPES = [
    ("request_timeout", 504),
    ("startup_timeout", 504),
    ("runner_scheduling_failure", 503),
    ("runner_connection_timeout", 503),
    ("runner_disconnected", 503),
    ("runner_connection_refused", 503),
    ("runner_connection_error", 503),
    ("runner_incomplete_response", 502),
    ("runner_server_error", 500),
    ("internal_error", 500),
    ("client_disconnected", 499),
    ("client_cancelled", 499),
    ("bad_request", 400),
]
MODEL_TYPES = [
    ("internal_server_error", 500),
    ("generation_timeout", 504),
    ("downstream_service_error", 400),
    ("downstream_service_error", 500),
    ("downstream_service_unavailable", 500),
    *(
        (word, 422)
        for word in [
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
        ]
    ),
]


def error(status: int, body: Any, **headers: str) -> HttpError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_error(status, {k.replace("_", "-"): v for k, v in headers.items()}, raw, call=CALL)


@pytest.mark.parametrize(("kind", "status"), REQUEST_TYPES)
def test_request_errors_are_typed_by_body_or_header(kind: str, status: int) -> None:
    by_body = error(status, {"detail": "It broke", "error_type": kind})
    by_header = error(status, {"detail": "It broke"}, x_fal_error_type=kind)
    for one in (by_body, by_header):
        assert (one.status, one.error_type, one.from_fal, one.retryable) == (status, kind, True, None)
        assert str(one) == f"{CALL}: HTTP {status}: It broke"


def test_the_bodys_type_wins_over_the_headers() -> None:
    one = error(500, {"detail": "x", "error_type": "internal_error"}, x_fal_error_type="bad_request")
    assert one.error_type == "internal_error"


@pytest.mark.parametrize(("kind", "status"), MODEL_TYPES)
def test_model_errors_are_typed_by_their_first_detail(kind: str, status: int) -> None:
    detail = [{"loc": ["body", "num_images"], "msg": "Too much", "type": kind, "ctx": {"le": 4}, "input": 9}]
    one = error(status, {"detail": detail}, x_fal_retryable="false")
    assert (one.status, one.error_type, one.from_fal, one.retryable) == (status, kind, True, False)
    assert str(one) == f"{CALL}: HTTP {status}: body.num_images: Too much ({kind})"


def test_several_details_are_told_and_many_are_counted() -> None:
    entries = [{"loc": ["body", "list", i, "x"], "msg": "m", "type": "t"} for i in range(8)]
    text = str(error(422, {"detail": entries}))
    assert "body.list.0.x: m (t); body.list.1.x: m (t)" in text
    assert text.endswith("; and 3 more")


@pytest.mark.parametrize("body", [{"detail": "Old model says no"}, {"detail": {"msg": "Old model says no"}}])
def test_an_old_models_text_is_the_message(body: Any) -> None:
    one = error(422, body)
    assert (one.error_type, one.from_fal) == ("", True)
    assert "Old model says no" in str(one)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_an_ingress_page_is_not_from_fal(status: int) -> None:
    page = b"<html><head><title>502 Bad Gateway</title></head><body><hr>nginx/1.25</body></html>"
    one = error(status, page)
    assert (one.from_fal, one.error_type, one.request_id) == (False, "", "")
    assert str(one) == f"{CALL}: HTTP {status}: 502 Bad Gateway"


@pytest.mark.parametrize("body", [b"", b"upstream connect error", b"[1]", b'"x"', b"\xff\xfe", b'{"detail'])
def test_bodies_of_no_family_are_survived(body: bytes) -> None:
    one = error(503, body)
    assert (one.status, one.from_fal, one.error_type) == (503, False, "")


def test_the_platforms_family_is_read() -> None:
    one = error(401, {"error": {"type": "authorization_error", "message": "No key"}})
    assert (one.error_type, str(one)) == ("authorization_error", f"{CALL}: HTTP 401: No key")


def test_a_status_words_404_is_told() -> None:
    assert "NOT_FOUND" in str(error(404, {"status": "NOT_FOUND"}))


def test_any_mark_of_fals_makes_it_fals() -> None:
    assert error(500, b"oops", x_fal_request_id=RID).from_fal
    assert error(500, b"oops", x_fal_error_type="internal_error").from_fal
    assert not error(500, {"oops": 1}).from_fal


def test_the_headers_fields_are_kept() -> None:
    one = error(
        504,
        {"detail": "late", "error_type": "request_timeout"},
        x_fal_request_timeout_type="user",
        x_fal_request_id=RID,
        x_fal_billable_units="0.5",
    )
    assert (one.timeout_type, one.request_id, one.billable_units) == ("user", RID, 0.5)
    assert error(500, b"", x_fal_billable_units="nan").billable_units is None


@pytest.mark.parametrize(
    ("headers", "retryable"),
    [
        ({}, None),
        ({"x_fal_retryable": "true"}, True),
        ({"x_fal_retryable": "False"}, False),
        ({"x_fal_needs_retry": "1"}, True),
        ({"x_fal_needs_retry": "0"}, False),
        ({"x_fal_needs_retry": "0", "x_fal_retryable": "true"}, False),
        ({"x_fal_needs_retry": "maybe", "x_fal_retryable": "true"}, True),
        ({"x_fal_retryable": "maybe"}, None),
    ],
)
def test_both_retry_headers_are_read(headers: dict[str, str], retryable: bool | None) -> None:
    assert error(500, b"", **headers).retryable is retryable


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry_after": "7"}, {}, 7.0),
        ({"retry_after": "1.5"}, {"retry_after": 9}, 1.5),
        (
            {"retry_after": "Fri, 21 Nov 2025 10:00:30 GMT", "date": "Fri, 21 Nov 2025 10:00:00 GMT"},
            {},
            30.0,
        ),
        ({"retry_after": "Fri, 21 Nov 2025 10:00:00 GMT", "date": "Fri, 21 Nov 2025 10:01:00 GMT"}, {}, 0.0),
        ({"retry_after": "Fri, 21 Nov 2014 10:00:00 GMT"}, {}, 0.0),
        ({}, {"retry_after": 4}, 4.0),
        ({}, {"retry_after": "4"}, 4.0),
        ({}, {"retry_after": True}, None),
        ({}, {}, None),
        ({"retry_after": "-3"}, {}, None),
        ({"retry_after": "soon"}, {}, None),
        ({"retry_after": "inf"}, {}, None),
        ({"retry_after": "Fri, 21 Nov 2025 10:00:30"}, {}, None),
    ],
)
def test_a_pause_is_read_from_header_or_body(
    headers: dict[str, str], body: dict[str, Any], seconds: float | None
) -> None:
    assert error(429, body, **headers).retry_after_s == seconds


def test_echoed_inputs_stay_out_and_messages_are_one_short_printable_line() -> None:
    detail = [
        {
            "loc": ["body", "image_url"],
            "msg": "bad\n\x1b[31mred\x07 " + "long " * 1000,
            "type": "t",
            "input": "data:image/png;base64,PRIVATE",
            "ctx": {"given": "PRIVATE"},
        }
    ]
    text = str(error(422, {"detail": detail, "input": "PRIVATE"}))
    assert "PRIVATE" not in text
    assert text.isprintable()
    assert "bad [31mred long" in text
    assert len(text) <= MAX_MESSAGE + len(CALL) + 20
    assert text.endswith("…")


def test_secrets_are_taken_out_before_a_message_is_cut() -> None:
    detail = "x" * (MAX_MESSAGE - 5) + "s3cr3t"
    one = parse_error(
        401, {}, json.dumps({"detail": detail}).encode(), call=CALL, redact=lambda t: t.replace("s3cr3t", "*")
    )
    assert "s3c" not in str(one)


def test_type_words_that_are_no_words_are_dropped() -> None:
    assert error(422, {"detail": [{"type": "a b\nc"}]}).error_type == ""
    assert error(422, {"detail": [{"type": ["x"]}], "error_type": 7}).error_type == ""
    assert error(422, {"detail": [None, 3, "text"]}).status == 422
