"""What bodies mean: exact numbers, lenient shapes, strict ids."""

from __future__ import annotations

import json
from typing import Any

import pytest

from falbatch.errors import ReplyError
from falbatch.exactjson import parse_json
from falbatch.fal.wire import (
    CancelAnswer,
    Phase,
    is_request_id,
    parse_accepted,
    parse_cancel,
    parse_progress,
    parse_result,
)
from tests.fal.raw_server import RID

CALL = "GET https://queue.fal.run/x"
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "number",
    [0, 2**53 + 1, 2**63, 2**64, 10**19, 12345678901234567890123, -(2**63) - 1, 123456789012345678],
)
def test_integers_stay_exact_whatever_their_size(number: int) -> None:
    assert parse_json(f'{{"seed":{number}}}'.encode()) == {"seed": number}
    assert type(parse_json(str(number).encode())) is int


def test_what_python_apps_write_is_read() -> None:
    assert parse_json(b'{"a": Infinity, "b": 1}') == {"a": float("inf"), "b": 1}
    assert parse_json(b"\xef\xbb\xbf{}") == {}
    assert parse_json(b'["\\ud83d", {"\\udc00": 1}]') == ["\ufffd", {"\ufffd": 1}]
    assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.parametrize("body", [b"", b"{", b"<html>", b"\xff", b"[" * 100_000, b"9" * 5000])
def test_what_is_no_json_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(body)


def rebuilt(request_id: str, what: str, given: str) -> str:
    return given or f"rebuilt/{request_id}/{what}"


def accepted(document: Any, **headers: str) -> Any:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_accepted(headers, body, call=CALL, url_for=rebuilt)


def test_an_acceptance_has_id_urls_and_position() -> None:
    document = {
        "status": "IN_QUEUE",
        "request_id": RID.upper(),
        "queue_position": 3,
        "status_url": "s",
        "response_url": "r",
        "cancel_url": None,
    }
    one = accepted(document)
    assert (one.request_id, one.queue_position) == (RID, 3)
    assert (one.status_url, one.response_url, one.cancel_url) == ("s", "r", f"rebuilt/{RID}/cancel")
    assert accepted({"request_id": RID}).queue_position is None
    assert accepted({"request_id": RID, "queue_position": True}).queue_position is None


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", {}, {"request_id": None}, {"request_id": "../../x"}, {"request_id": RID + "\n"}]
)
def test_an_acceptance_without_a_valid_id_hands_on_the_headers(body: Any) -> None:
    with pytest.raises(ReplyError) as caught:
        accepted(body, **{"x-fal-request-id": RID.upper()})
    assert caught.value.request_id == RID
    with pytest.raises(ReplyError) as caught:
        accepted(body, **{"x-fal-request-id": "../x"})
    assert caught.value.request_id == ""


def progress(document: Any) -> Any:
    return parse_progress({}, json.dumps(document).encode(), call=CALL)


@pytest.mark.parametrize(
    ("word", "phase"),
    [
        ("IN_QUEUE", Phase.IN_QUEUE),
        ("IN_PROGRESS", Phase.IN_PROGRESS),
        ("COMPLETED", Phase.COMPLETED),
        ("FAILED", Phase.UNKNOWN_WORD),
        ("completed", Phase.UNKNOWN_WORD),
        ("UNKNOWN_WORD", Phase.UNKNOWN_WORD),
    ],
)
def test_a_phase_is_one_of_fals_three_words_or_unknown(word: str, phase: Phase) -> None:
    assert progress({"status": word}).phase is phase


def test_progress_tells_what_there_is() -> None:
    document = {"status": "COMPLETED", "error": "E", "error_type": "t", "metrics": {"inference_time": 2.41}}
    one = progress(document)
    assert (one.error, one.error_type, one.inference_time_s, one.queue_position) == ("E", "t", 2.41, None)
    assert progress({"status": "IN_QUEUE", "queue_position": 7}).queue_position == 7
    metrics: Any
    for metrics in (None, {}, {"inference_time": None}, {"inference_time": "2"}, [], {"inference_time": -1}):
        assert progress({"status": "COMPLETED", "metrics": metrics}).inference_time_s is None


def test_logs_and_metrics_come_as_fal_gave_them() -> None:
    line = {"message": "step 3/28", "level": "INFO", "labels": {}}
    one = progress({"status": "IN_PROGRESS", "logs": [line, {"level": "INFO"}, "x", None], "metrics": {"a": 1}})
    assert (one.logs, one.metrics) == ((line,), {"a": 1})
    assert "step" not in repr(one)
    for logs, known in ((None, None), ([], ()), ({}, None)):
        assert progress({"status": "IN_PROGRESS", "logs": logs}).logs == known


@pytest.mark.parametrize("document", [{}, [], {"status": 3}, {"status": ""}])
def test_progress_without_a_word_is_a_reply_error(document: Any) -> None:
    with pytest.raises(ReplyError):
        progress(document)


def test_a_result_keeps_the_body_and_reads_it_when_it_is_json() -> None:
    headers = {
        "content-type": "application/json; charset=utf-8",
        "x-fal-billable-units": "2.5",
        "x-fal-served-from": "runner-1",
    }
    one = parse_result(200, headers, b'{"seed": 18446744073709551616}', call=CALL)
    assert one.output == {"seed": 2**64}
    assert (one.body, one.content_type) == (b'{"seed": 18446744073709551616}', "application/json")
    assert (one.billable_units, one.served_from, one.status) == (2.5, "runner-1", 200)
    assert "18446744073709551616" not in repr(one)


@pytest.mark.parametrize(
    ("content_type", "body", "output"),
    [
        ("audio/mpeg", b"ID3", None),
        ("text/plain", b'{"a":1}', None),
        ("", b'{"a":1}', {"a": 1}),
        ("", b"ID3", None),
        ("application/problem+json", b"[1]", [1]),
    ],
)
def test_a_result_of_another_type_has_no_output(content_type: str, body: bytes, output: Any) -> None:
    headers = {"content-type": content_type} if content_type else {}
    assert parse_result(200, headers, body, call=CALL).output == output


def test_a_result_that_claims_to_be_json_and_is_not_is_a_reply_error() -> None:
    with pytest.raises(ReplyError) as caught:
        parse_result(200, {**JSON, "x-fal-request-id": RID}, b'{"images": [', call=CALL)
    assert caught.value.request_id == RID
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("status", "body", "answer"),
    [
        (202, b'{"status":"CANCELLATION_REQUESTED"}', CancelAnswer.ACCEPTED),
        (200, b'{"status":"OK"}', CancelAnswer.ACCEPTED),
        (200, b'{"success":true}', CancelAnswer.ACCEPTED),
        (204, b"", CancelAnswer.ACCEPTED),
        (400, b'{"status":"ALREADY_COMPLETED"}', CancelAnswer.ALREADY_COMPLETED),
        (400, b"", CancelAnswer.ALREADY_COMPLETED),
        (404, b'{"status":"NOT_FOUND"}', CancelAnswer.NOT_FOUND),
        (404, b"<html>nginx</html>", None),
        (400, b"[]", None),
        (405, b"{}", None),
        (500, b"", None),
        (302, b"", None),
    ],
)
def test_every_2xx_accepts_a_cancel_and_fals_own_400_and_404_end_it(
    status: int, body: bytes, answer: CancelAnswer | None
) -> None:
    assert parse_cancel(status, body) is answer


def test_request_ids_are_uuids_and_nothing_else() -> None:
    assert is_request_id(RID)
    for other in (RID + "\n", RID[:-1], "", None, 3, "../" + RID, RID.replace("-", "")):
        assert not is_request_id(other)
