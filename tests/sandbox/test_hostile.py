"""Replies of a server that means harm, over a real socket."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from falbatch.sandbox.hostile import CHUNK_BYTES, DEPTH, HOSTILE_NAMES
from falbatch.sandbox.rules import FaultError, parse_rule
from tests.sandbox.conftest import Fal
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Callable


KITE = {"prompt": "a red kite", "image_size": {"width": 16, "height": 16}, "seed": 2**64 - 1}
QUICK = "fal-ai/flux/schnell"
METADATA = "http://169.254.169.254/latest/meta-data"


def list_url(fal: Fal) -> str:
    return f"{fal.origin}/api/v1/models/requests/by-endpoint?endpoint_id={QUICK}&expand=payloads"


def call(fal: Fal, on: str) -> Callable[[], httpx.Response]:
    """A call of that kind, on a request that has succeeded."""
    request = fal.submit(KITE, QUICK)
    fal.until(request, "COMPLETED")
    calls: dict[str, Callable[[], httpx.Response]] = {
        "submit": lambda: fal.post(KITE, QUICK),
        "status": lambda: fal.get(request["status_url"]),
        "result": lambda: fal.get(request["response_url"]),
        "platform": lambda: fal.get(list_url(fal)),
        "file": lambda: fal.file(fal.get(request["response_url"]).json()["images"][0]["url"]),
    }
    return calls[on]


def test_names_are_traps_in_turn_by_request_and_the_urls_stay_good(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "result", "do": "names"}])
    met, url = set(), ""
    for _ in range(len(HOSTILE_NAMES)):
        request = fal.submit({**KITE, "num_images": 2}, QUICK)
        output = fal.result(request).json()
        ordinal = sandbox.request(request["request_id"])["ordinal"]
        names = {image["file_name"] for image in output["images"]}
        assert names == {HOSTILE_NAMES[ordinal % len(HOSTILE_NAMES)]}
        met |= names
        assert output["seed"] == KITE["seed"]
        url = output["images"][1]["url"]
    assert met == set(HOSTILE_NAMES)
    assert fal.file(url).status_code == 200


def test_a_failed_result_has_no_files_to_name(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "result", "do": "names"}, {"on": "submit", "do": "fail:internal_error"}])
    reply = fal.result(fal.submit(KITE, QUICK))
    assert (reply.status_code, reply.json()["error_type"]) == (500, "internal_error")


def test_the_urls_of_a_submit_lead_to_a_foreign_host(fal: Fal, sandbox: SandboxProcess) -> None:
    true = fal.submit(KITE)
    sandbox.add_faults([{"on": "submit", "do": "foreign:https://evil.example:8443/x/"}])
    page = fal.submit(KITE)
    assert page.keys() == true.keys()
    base = f"https://evil.example:8443/x/queue/fal-ai/flux/requests/{page['request_id']}"
    assert [page[name] for name in ("response_url", "status_url", "cancel_url")] == [
        base,
        f"{base}/status",
        f"{base}/cancel",
    ]
    assert sandbox.request(page["request_id"])["input"] == KITE


def test_a_refused_submit_has_no_urls_to_lead_away(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "submit", "do": "foreign:https://evil.example"}])
    assert fal.post(KITE, "fal-ai/does-not-exist").json() == {"detail": "Application not found"}


@pytest.mark.parametrize("url", [METADATA, "file:///etc/passwd", "gopher://127.0.0.1:25/x"])
def test_the_files_of_a_result_lie_elsewhere(fal: Fal, sandbox: SandboxProcess, url: str) -> None:
    sandbox.add_faults([{"on": "result", "do": f"foreign_files:{url}"}])
    output = fal.run({**KITE, "num_images": 2}, QUICK)
    assert [image["url"] for image in output["images"]] == [url, url]
    assert output["images"][0]["content_type"] == "image/jpeg"


@pytest.mark.parametrize("on", ["file", "result"])
def test_an_endless_body_begins_well_and_goes_on_until_the_client_leaves(
    fal: Fal, sandbox: SandboxProcess, on: str
) -> None:
    request = fal.submit(KITE, QUICK)
    true = fal.result(request)
    url = request["response_url"]
    if on == "file":
        url = true.json()["images"][0]["url"]
        true = fal.file(url)
    sandbox.add_faults([{"on": on, "do": "endless"}])
    received = b""
    with fal.http.stream("GET", url, headers={"Range": "bytes=5-9"}) as reply:
        assert reply.status_code == 200
        assert "content-range" not in reply.headers
        assert reply.headers["content-type"] == true.headers["content-type"]
        assert "content-length" not in reply.headers
        for chunk in reply.iter_raw():
            received += chunk
            if len(received) > 40 * CHUNK_BYTES:
                break
    assert received.startswith(true.content[:-1] if on == "result" else true.content[5:10])
    sandbox.clear_faults()
    assert fal.get(url).content == fal.get(url).content != b""


def test_an_endless_body_ends_after_all_for_who_reads_on(fal: Fal, sandbox: SandboxProcess) -> None:
    request = fal.submit(KITE, QUICK)
    fal.until(request, "COMPLETED")
    sandbox.add_faults([{"on": "result", "do": "endless"}])
    size = 0
    with fal.http.stream("GET", request["response_url"]) as reply:
        for chunk in reply.iter_raw():
            size += len(chunk)
    assert 512 * 2**20 <= size < 513 * 2**20


def test_others_are_served_while_one_reads_without_end(fal: Fal, sandbox: SandboxProcess) -> None:
    request = fal.submit(KITE, QUICK)
    fal.until(request, "COMPLETED")
    sandbox.add_faults([{"on": "result", "do": "endless", "times": 1}])
    with fal.http.stream("GET", request["response_url"]) as reply:
        chunks = reply.iter_raw()
        for _ in range(20):
            next(chunks)
            assert fal.status(request)["status"] == "COMPLETED"


@pytest.mark.parametrize("on", ["submit", "status", "result", "file"])
def test_a_dripping_body_is_the_true_one_byte_by_byte(fal: Fal, sandbox: SandboxProcess, on: str) -> None:
    make = call(fal, on)
    true = make()
    sandbox.add_faults([{"on": on, "do": "drip:0.0005"}])
    begin = time.monotonic()
    reply = make()
    assert time.monotonic() - begin >= 0.0005 * (len(reply.content) - 1)
    assert reply.headers["content-length"] == str(len(reply.content)) == true.headers["content-length"]
    if on != "submit":
        assert reply.content == true.content
    else:
        assert reply.json().keys() == true.json().keys()


def test_a_slow_drip_can_be_left(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "submit", "do": "drip:60"}])
    begin = time.monotonic()
    with pytest.raises(httpx.ReadTimeout):
        fal.post(KITE, timeout=0.3)
    assert time.monotonic() - begin < 5
    assert sandbox.ledger()["count"] == 1


@pytest.mark.parametrize("do", ["drip:60", "endless"])
def test_a_body_under_way_does_not_keep_the_sandbox_from_stopping(do: str) -> None:
    with SandboxProcess("--speed", "0") as process:
        process.add_faults([{"on": "result", "do": do}])
        fal = Fal(process.origin)
        with fal.http.stream("GET", fal.submit(KITE)["response_url"]) as reply:
            assert reply.status_code == 200
            begin = time.monotonic()
            assert process.stop() == 0
            assert time.monotonic() - begin < 5
        assert process.errors == ""
        fal.close()


def test_a_head_call_has_no_body_to_drip(fal: Fal, sandbox: SandboxProcess) -> None:
    url = fal.run(KITE)["images"][0]["url"]
    size = len(fal.file(url).content)
    sandbox.add_faults([{"on": "file", "do": "drip:5"}])
    reply = fal.public.head(url)
    assert (int(reply.headers["content-length"]), reply.content) == (size, b"")


@pytest.mark.parametrize("on", ["submit", "status", "result", "platform"])
def test_a_huge_reply_is_the_true_one_with_a_long_text(fal: Fal, sandbox: SandboxProcess, on: str) -> None:
    make = call(fal, on)
    true = make().json()
    sandbox.add_faults([{"on": on, "do": "huge:2.5"}])
    reply = make()
    assert len(reply.content) == int(2.5 * 2**20) == int(reply.headers["content-length"])
    page = reply.json()
    assert set(page.pop("padding")) == {"x"}
    assert page.keys() == true.keys()
    if on in {"status", "result"}:
        assert page == true


@pytest.mark.parametrize("on", ["submit", "status", "result", "platform"])
def test_a_deep_reply_lies_within_arrays(fal: Fal, sandbox: SandboxProcess, on: str) -> None:
    make = call(fal, on)
    true = make()
    sandbox.add_faults([{"on": on, "do": "deep"}])
    reply = make()
    assert (reply.status_code, reply.headers["content-type"]) == (true.status_code, "application/json")
    assert reply.content.startswith(b"[" * DEPTH + b"{")
    assert reply.content.endswith(b"}" + b"]" * DEPTH)
    assert json.loads(reply.content[DEPTH:-DEPTH]).keys() == true.json().keys()
    with pytest.raises(RecursionError):
        json.loads(reply.content)


def kinds(value: Any) -> Any:
    """The types in a JSON value, by name."""
    if isinstance(value, dict) and value:
        return {key: kinds(member) for key, member in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [kinds(entry) for entry in value]
    return type(value).__name__


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        (
            "submit",
            {
                "status": "int",
                "request_id": "NoneType",
                "queue_position": "str",
                "response_url": "int",
                "status_url": "int",
                "cancel_url": "int",
                "logs": "dict",
                "metrics": "list",
            },
        ),
        (
            "status",
            {
                "status": "int",
                "request_id": "NoneType",
                "response_url": "int",
                "status_url": "int",
                "cancel_url": "int",
                "logs": "dict",
                "metrics": "list",
            },
        ),
        (
            "result",
            {
                "images": [{"url": "int", "width": "str", "height": "str", "content_type": "int"}],
                "timings": "list",
                "seed": "str",
                "has_nsfw_concepts": "list",
                "prompt": "int",
            },
        ),
        (
            "platform",
            {
                "items": [
                    {
                        "request_id": "NoneType",
                        "endpoint_id": "NoneType",
                        "sent_at": "int",
                        "started_at": "int",
                        "ended_at": "int",
                        "status_code": "str",
                        "duration": "str",
                        "json_input": "list",
                        "json_output": "list",
                    }
                ],
                "next_cursor": "dict",
                "has_more": "str",
            },
        ),
    ],
)
def test_types_are_absurd_under_the_right_keys(fal: Fal, sandbox: SandboxProcess, on: str, expected: object) -> None:
    make = call(fal, on)
    make()
    sandbox.add_faults([{"on": on, "do": "types"}])
    assert kinds(make().json()) == expected


@pytest.mark.parametrize(
    ("on", "do", "message"),
    [
        ("submit", "names", "only on result"),
        ("result", "names:x", "nothing after a colon"),
        ("result", "foreign:http://x", "only on submit"),
        ("submit", "foreign", "an http or https URL"),
        ("submit", "foreign:ftp://x", "an http or https URL"),
        ("submit", "foreign:http://x?q=1", "without a query"),
        ("submit", "foreign_files:http://x", "only on result"),
        ("result", "foreign_files:here", "expected a URL"),
        ("submit", "endless", "only on file, result"),
        ("platform", "drip:1", "only on file, result, run, status, submit"),
        ("file", "drip", "expected seconds"),
        ("file", "drip:-1", "expected seconds"),
        ("file", "huge:1", "only on platform, result, run, status, submit"),
        ("result", "huge", "megabytes, at most 1024"),
        ("result", "huge:0", "megabytes"),
        ("result", "huge:1025", "megabytes"),
        ("result", "huge:nan", "megabytes"),
        ("cancel", "deep", "only on platform, result, run, status, submit"),
        ("file", "types", "only on platform, result, run, status, submit"),
        ("platform", "late:1", "only on file, result"),
        ("platform", "requeue", "only on status, status_stream"),
        ("platform", "fail:internal_error", "only on realtime, result, run, stream, submit"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(on: str, do: str, message: str) -> None:
    with pytest.raises(FaultError, match=message):
        parse_rule({"on": on, "do": do}, 0)
