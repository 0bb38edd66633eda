"""Each fault, over a real socket: what the client sees, and what the sandbox did all the same."""

from __future__ import annotations

import socket
import time
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

if TYPE_CHECKING:
    from tests.sandbox.conftest import Fal
    from tests.sandbox_process import SandboxProcess

KITE = {"prompt": "a red kite", "image_size": {"width": 64, "height": 64}, "seed": 7}
SLOW = "fal-ai/kling-video/v2.6/pro/text-to-video"


def raw_exchange(origin: str, request: bytes) -> tuple[bytes, bool]:
    """Bytes received until the connection ended, and whether it ended by a reset."""
    address = urlsplit(origin)
    received = b""
    with socket.create_connection((str(address.hostname), address.port or 80), timeout=5) as connection:
        connection.sendall(request)
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            return received, True
    return received, False


def raw_submit(origin: str) -> bytes:
    body = b'{"prompt":"raw"}'
    head = f"POST /queue/fal-ai/flux/dev HTTP/1.1\r\nHost: {urlsplit(origin).netloc}\r\n"
    return f"{head}Authorization: Key me:s\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("code", "error_type"),
    [
        (500, "internal_error"),
        (502, "runner_incomplete_response"),
        (503, "runner_scheduling_failure"),
        (504, "request_timeout"),
    ],
)
def test_a_5xx_of_fals_own_carries_id_and_type_and_accepts_nothing(
    fal: Fal, sandbox: SandboxProcess, code: int, error_type: str
) -> None:
    sandbox.add_faults([{"on": "submit", "do": f"status:{code}"}])
    reply = fal.post(KITE)
    assert (reply.status_code, reply.json()["error_type"]) == (code, error_type)
    assert reply.headers["x-fal-error-type"] == error_type
    stray = reply.headers["x-fal-request-id"]
    assert fal.get(f"{fal.origin}/queue/fal-ai/flux/requests/{stray}/status").status_code == 404
    assert sandbox.ledger()["count"] == 0


def test_an_ingress_error_is_an_nginx_page_without_a_request_id(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "submit", "do": "status:502", "nginx": True}])
    reply = fal.post(KITE)
    assert reply.status_code == 502
    assert "nginx" in reply.text
    assert reply.headers["content-type"].startswith("text/html")
    assert "x-fal-request-id" not in reply.headers


def test_an_error_may_follow_an_accepted_submit(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "submit", "do": "status:504", "nginx": True, "accepted": True}])
    assert fal.post(KITE).status_code == 504
    assert sandbox.ledger()["count"] == 1


@pytest.mark.parametrize(("extra", "expected"), [({}, None), ({"retry_after": 2}, "2"), ({"retry_after": 0.5}, "0.5")])
def test_429_comes_with_and_without_retry_after(
    fal: Fal, sandbox: SandboxProcess, extra: dict[str, float], expected: str | None
) -> None:
    sandbox.add_faults([{"on": "submit", "do": "status:429", **extra}])
    reply = fal.post(KITE)
    assert (reply.status_code, reply.headers.get("retry-after")) == (429, expected)
    assert "detail" in reply.json()


@pytest.mark.parametrize(("body", "text"), [("plain", "plain"), ({"a": [1]}, '{"a":[1]}')])
def test_a_status_may_bring_its_own_body(fal: Fal, sandbox: SandboxProcess, body: object, text: str) -> None:
    sandbox.add_faults([{"on": "submit", "do": "status:418", "body": body}])
    reply = fal.post(KITE)
    assert (reply.status_code, reply.text) == (418, text)


@pytest.mark.parametrize(("do", "executions"), [("drop_before", 0), ("drop_after", 1)])
def test_a_drop_is_a_reset_before_or_after_the_submit_was_accepted(
    sandbox: SandboxProcess, do: str, executions: int
) -> None:
    sandbox.add_faults([{"on": "submit", "do": do}])
    assert raw_exchange(sandbox.origin, raw_submit(sandbox.origin)) == (b"", True)
    assert sandbox.ledger()["count"] == executions
    assert sandbox.stats()["requests"]["submit"] == {"reset": 1}


def test_a_slow_reply_comes_late_but_comes(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "submit", "do": "delay:0.3"}])
    begin = time.monotonic()
    request = fal.submit(KITE)
    assert 0.3 <= time.monotonic() - begin < 3
    assert sandbox.request(request["request_id"])["attempt"] == 1


def test_a_hanging_submit_is_accepted_and_never_answered(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "submit", "do": "hang"}])
    with pytest.raises(httpx.ReadTimeout):
        fal.post(KITE, timeout=0.3)
    assert sandbox.ledger()["count"] == 1


def test_a_cut_json_body_is_shorter_than_announced(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "submit", "do": "truncate"}])
    with pytest.raises(httpx.RemoteProtocolError):
        fal.post(KITE)
    assert sandbox.ledger()["count"] == 1


@pytest.mark.parametrize("do", ["corrupt", "wrong_type"])
@pytest.mark.parametrize("on", ["submit", "status", "result"])
def test_a_malformed_json_body_does_not_parse(fal: Fal, sandbox: SandboxProcess, on: str, do: str) -> None:
    before = fal.submit(KITE)
    fal.until(before, "COMPLETED")
    sandbox.add_faults([{"on": on, "do": do}])
    calls = {"submit": lambda: fal.post(KITE), "status": lambda: fal.get(before["status_url"])}
    reply = calls.get(on, lambda: fal.get(before["response_url"]))()
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    with pytest.raises(ValueError, match=r"JSON|line|Expecting|Extra"):
        reply.json()


def test_a_redirect_leads_where_the_rule_says(fal: Fal, sandbox: SandboxProcess) -> None:
    request = fal.submit(KITE)
    sandbox.add_faults([{"on": "status", "do": "redirect:http://127.0.0.1:9/x"}])
    reply = fal.get(request["status_url"])
    assert (reply.status_code, reply.headers["location"]) == (307, "http://127.0.0.1:9/x")


def test_a_running_request_goes_back_to_the_queue_and_is_billed_once(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "status", "do": "requeue", "times": 1}])
    request = fal.submit(KITE, "fal-ai/flux-pro")
    assert fal.status(request)["status"] == "IN_QUEUE"
    fal.until(request, "IN_PROGRESS")
    assert fal.result(request).status_code == 200
    assert sandbox.request(request["request_id"])["attempt"] == 2
    ledger = sandbox.ledger()
    assert (ledger["count"], ledger["total_cost"]) == (1, 0.05)


@pytest.mark.parametrize(
    ("type_", "code", "cost"),
    [
        ("runner_disconnected", 503, 0.0),
        ("internal_error", 500, 0.0),
        ("runner_incomplete_response", 502, 0.0),
        ("startup_timeout", 504, 0.0),
        ("internal_server_error", 500, 0.0),
        ("generation_timeout", 504, 0.0),
        ("downstream_service_error", 400, 0.0),
        ("content_policy_violation", 422, 0.025),
        ("image_too_small", 422, 0.025),
        ("less_than_equal", 422, 0.0),
    ],
)
@pytest.mark.parametrize("on", ["submit", "result"])
def test_an_execution_fails_as_the_family_of_its_type_does(
    fal: Fal, sandbox: SandboxProcess, on: str, type_: str, code: int, cost: float
) -> None:
    sandbox.add_faults([{"on": on, "do": f"fail:{type_}"}])
    request = fal.submit(KITE)
    reply = fal.result(request)
    assert reply.status_code == code
    assert reply.headers["x-fal-request-id"] == request["request_id"]
    assert reply.headers["x-fal-error-type"] == type_
    detail = reply.json()["detail"]
    if isinstance(detail, str):
        assert reply.json()["error_type"] == type_ == fal.status(request)["error_type"]
        assert "x-fal-retryable" not in reply.headers
    else:
        assert (detail[0]["type"], detail[0]["loc"]) == (type_, ["body", "prompt"])
        assert reply.headers["x-fal-retryable"] == str(code != 422).lower()
        assert reply.headers["x-fal-needs-retry"] == str(int(code != 422))
    assert sandbox.ledger()["total_cost"] == cost


def test_a_failure_with_context_carries_it(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "submit", "do": "fail:file_too_large"}])
    assert fal.result(fal.submit(KITE)).json()["detail"][0]["ctx"] == {"max_size": 10_485_760}


def test_a_lock_in_the_middle_of_a_batch_refuses_from_there_on(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "submit", "do": "lock", "nth": 3}])
    assert [fal.post(KITE).status_code for _ in range(4)] == [200, 200, 403, 403]
    assert sandbox.stats()["accounts"]["me"]["locked"] is True


def test_a_late_result_is_in_progress_for_a_while_after_completion(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "result", "do": "late:0.4"}])
    request = fal.submit(KITE)
    assert fal.result(request).status_code == 400
    end = time.monotonic() + 5
    while fal.get(request["response_url"]).status_code != 200:
        assert time.monotonic() < end


def test_a_late_file_is_not_found_for_a_while(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "file", "do": "late:0.4"}])
    url = fal.run(KITE)["images"][0]["url"]
    assert fal.file(url).status_code == 404
    end = time.monotonic() + 5
    while fal.file(url).status_code != 200:
        assert time.monotonic() < end


def get_raw(url: str) -> tuple[dict[str, str], bytes, bool]:
    """Headers, body and whether a reset ended it."""
    parts = urlsplit(url)
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode()
    received, was_reset = raw_exchange(url, request)
    head, _, body = received.partition(b"\r\n\r\n")
    lines = [line.partition(": ") for line in head.decode().split("\r\n")[1:]]
    return {name.lower(): value for name, _, value in lines}, body, was_reset


@pytest.mark.parametrize(
    ("rule", "is_announced_whole"),
    [({"do": "truncate"}, True), ({"do": "truncate", "quiet": True}, False)],
)
def test_a_short_file_is_announced_whole_or_quietly_short(
    fal: Fal, sandbox: SandboxProcess, rule: dict[str, Any], is_announced_whole: bool
) -> None:
    url = fal.run(KITE)["images"][0]["url"]
    whole = fal.file(url).content
    sandbox.add_faults([{"on": "file", **rule}])
    headers, body, was_reset = get_raw(url)
    assert body == whole[: len(whole) // 2]
    assert int(headers["content-length"]) == (len(whole) if is_announced_whole else len(body))
    assert not was_reset


def test_a_head_call_has_no_body_to_cut(fal: Fal, sandbox: SandboxProcess) -> None:
    url = fal.run(KITE)["images"][0]["url"]
    size = len(fal.file(url).content)
    sandbox.add_faults([{"on": "file", "do": "truncate"}])
    reply = fal.public.head(url)
    assert (reply.status_code, int(reply.headers["content-length"]), reply.content) == (200, size, b"")


def test_a_file_dropped_after_is_reset_in_its_middle(fal: Fal, sandbox: SandboxProcess) -> None:
    url = fal.run(KITE)["images"][0]["url"]
    size = len(fal.file(url).content)
    sandbox.add_faults([{"on": "file", "do": "drop_after"}])
    _, body, was_reset = get_raw(url)
    assert was_reset
    assert len(body) < size


def test_a_garbled_file_has_the_right_length_and_no_picture(fal: Fal, sandbox: SandboxProcess) -> None:
    url = fal.run(KITE)["images"][0]["url"]
    whole = fal.file(url).content
    sandbox.add_faults([{"on": "file", "do": "corrupt"}])
    reply = fal.file(url)
    assert (reply.status_code, len(reply.content)) == (200, len(whole))
    assert reply.content[:2] != b"\xff\xd8"
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(BytesIO(reply.content))


def test_a_file_of_the_wrong_type_is_html_under_an_image_type(fal: Fal, sandbox: SandboxProcess) -> None:
    url = fal.run(KITE)["images"][0]["url"]
    sandbox.add_faults([{"on": "file", "do": "wrong_type"}])
    reply = fal.file(url)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/jpeg")
    assert reply.content.startswith(b"<!doctype html>")


@pytest.mark.parametrize("code", [403, 404, 503])
def test_a_file_may_be_refused(fal: Fal, sandbox: SandboxProcess, code: int) -> None:
    url = fal.run(KITE)["images"][0]["url"]
    sandbox.add_faults([{"on": "file", "do": f"status:{code}", "times": 1}])
    assert [fal.file(url).status_code for _ in range(2)] == [code, 200]


def test_once_per_path_spoils_each_file_at_most_once(fal: Fal, sandbox: SandboxProcess) -> None:
    urls = [image["url"] for n in range(10) for image in fal.run({**KITE, "seed": n, "num_images": 4})["images"]]
    sandbox.add_faults([{"on": "file", "do": "status:503", "p": 0.3, "once": "path"}])
    first = [fal.file(url).status_code for url in urls]
    assert 3 <= first.count(503) <= 22
    assert [fal.file(url).status_code for url in urls] == [200] * len(urls)


def test_once_per_input_refuses_each_input_at_most_once(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "submit", "do": "status:429", "once": "input"}])
    codes = [fal.post({**KITE, "seed": seed}).status_code for seed in (1, 2, 1, 2, 1)]
    assert codes == [429, 429, 200, 200, 200]


def test_a_fault_on_cancel_and_on_the_stream_meets_those_calls_only(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "cancel", "do": "status:500"}, {"on": "status_stream", "do": "truncate"}])
    request = fal.submit(KITE, "fal-ai/flux-pro")
    assert fal.cancel(request).status_code == 500
    stream = fal.get(request["status_url"] + "/stream").text
    assert stream.count("data: ") == 1
    assert "COMPLETED" not in stream
    assert fal.result(request).status_code == 200
