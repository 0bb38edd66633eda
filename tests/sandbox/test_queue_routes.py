"""Every reply of the queue's routes, as fal-protocol §3 and §8 write it, over a real socket."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.sandbox.conftest import Fal
from tests.sandbox_process import SandboxProcess

KITE = {"prompt": "a red kite", "image_size": "square", "seed": 7}
SLOW = "fal-ai/kling-video/v2.6/pro/text-to-video"  # 60 s, 2.4 s at the speed of these tests


def test_a_submit_answers_with_every_field_and_app_only_urls(fal: Fal) -> None:
    reply = fal.post(KITE, "fal-ai/flux/dev")
    page = reply.json()
    base = f"{fal.origin}/queue/fal-ai/flux/requests/{page['request_id']}"
    assert str(UUID(page["request_id"])) == page["request_id"] == reply.headers["x-fal-request-id"]
    assert page == {
        "status": "IN_QUEUE",
        "request_id": page["request_id"],
        "queue_position": 0,
        "response_url": base,
        "status_url": f"{base}/status",
        "cancel_url": f"{base}/cancel",
        "logs": None,
        "metrics": {},
    }


@pytest.mark.parametrize(
    ("endpoint", "app"),
    [
        ("fal-ai/wan/v2.2-a14b/text-to-video/turbo", "fal-ai/wan"),
        ("workflows/me/flow", "workflows/me/flow"),
        ("comfy/me/graph/deep", "comfy/me/graph"),
        ("110602490-lcm", "110602490/lcm"),
        ("fal-ai/flux/", "fal-ai/flux"),
    ],
)
def test_urls_name_namespace_owner_and_alias_only(fal: Fal, endpoint: str, app: str) -> None:
    assert f"/queue/{app}/requests/" in fal.submit(KITE, endpoint)["status_url"]


def test_status_goes_from_queue_over_progress_to_completed(fal: Fal) -> None:
    running = [fal.submit(KITE, SLOW) for _ in range(3)]
    waiting = fal.submit(KITE)
    queued = fal.get(waiting["status_url"])
    assert (queued.status_code, queued.json()["status"]) == (202, "IN_QUEUE")
    assert queued.json()["queue_position"] == 0
    progress = fal.get(running[0]["status_url"])
    assert (progress.status_code, progress.json()["status"]) == (202, "IN_PROGRESS")
    assert "queue_position" not in progress.json()
    done = fal.until(waiting, "COMPLETED")
    assert fal.get(waiting["status_url"]).status_code == 200
    assert done["metrics"]["inference_time"] > 0
    assert done["logs"] is None
    assert {"response_url", "status_url", "cancel_url"} <= done.keys()
    assert "error" not in done


@pytest.mark.parametrize(("asked", "has_logs"), [("1", True), ("true", True), ("0", False), ("false", False)])
def test_logs_come_only_when_asked_for(fal: Fal, asked: str, has_logs: bool) -> None:
    request = fal.submit(KITE)
    fal.until(request, "COMPLETED")
    logs = fal.status(request, params={"logs": asked})["logs"]
    assert bool(logs) is has_logs
    if has_logs:
        assert {"message", "level", "source", "timestamp"} <= logs[0].keys()


def test_a_result_is_the_bare_output_with_fals_headers(fal: Fal) -> None:
    request = fal.submit({**KITE, "num_images": 2, "seed": 10**25 + 7})
    reply = fal.result(request)
    output = reply.json()
    assert reply.headers["x-fal-request-id"] == request["request_id"]
    assert reply.headers["x-fal-billable-units"] == "2"
    assert reply.headers["x-fal-served-from"]
    assert output["seed"] == 10**25 + 7
    assert output["prompt"] == "a red kite"
    assert output["has_nsfw_concepts"] == [False, False]
    assert output["timings"]["inference"] > 0
    assert [(i["width"], i["height"], i["content_type"]) for i in output["images"]] == [(512, 512, "image/jpeg")] * 2
    assert len({image["url"] for image in output["images"]}) == 2
    assert fal.result(request).json() == output


def test_a_text_endpoint_answers_with_text(fal: Fal) -> None:
    output = fal.run({"prompt": "why is the sky blue", "model": "x"}, "fal-ai/any-llm")
    assert "why is the sky blue" in output["output"]
    assert output["partial"] is False
    assert output["usage"]["total_tokens"] > 0


def test_a_result_asked_for_too_early_is_400(fal: Fal) -> None:
    reply = fal.get(fal.submit(KITE, SLOW)["response_url"])
    assert (reply.status_code, reply.json()) == (400, {"detail": "Request is still in progress"})


def test_the_full_id_a_trailing_slash_and_response_are_understood(fal: Fal) -> None:
    request = fal.submit(KITE, "fal-ai/flux/dev")
    expected = fal.result(request).json()
    long = f"{fal.origin}/queue/fal-ai/flux/dev/requests/{request['request_id']}"
    for url in (long, f"{long}/response", request["response_url"] + "/"):
        assert fal.get(url).json() == expected
    assert fal.get(f"{long}/status/").status_code == 200


@pytest.mark.parametrize("tail", ["", "/status", "/status/stream", "/response"])
def test_an_unknown_id_is_not_found(fal: Fal, tail: str) -> None:
    reply = fal.get(f"{fal.origin}/queue/fal-ai/flux/requests/00000000-0000-0000-0000-000000000000{tail}")
    assert (reply.status_code, reply.json()) == (404, {"status": "NOT_FOUND"})


def test_an_id_of_another_app_or_account_is_not_found(fal: Fal) -> None:
    request = fal.submit(KITE)
    assert fal.get(request["status_url"].replace("fal-ai/flux", "fal-ai/other")).status_code == 404
    stranger = Fal(fal.origin, {"Authorization": "Key you:secret"})
    for reply in (stranger.get(request["status_url"]), stranger.cancel(request)):
        assert (reply.status_code, reply.json()) == (404, {"status": "NOT_FOUND"})
    stranger.close()


@pytest.mark.parametrize("header", [None, "", "Key", "Key abc", "Key a:b:c", "Bearer a:b", "Key :b", "Key a:"])
def test_a_missing_or_malformed_key_is_401(fal: Fal, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    reply = httpx.post(f"{fal.origin}/queue/fal-ai/flux", json=KITE, headers=headers)
    assert (reply.status_code, reply.json()) == (401, {"detail": "invalid key credentials"})


def test_a_locked_account_may_look_but_not_submit(fal: Fal, sandbox: SandboxProcess) -> None:
    request = fal.submit(KITE)
    sandbox.lock(key_id="me")
    reply = fal.post(KITE)
    assert reply.status_code == 403
    assert reply.json()["detail"].startswith("User is locked. Reason: Exhausted balance.")
    assert "x-fal-request-id" not in reply.headers
    assert fal.result(request).status_code == 200
    sandbox.lock(locked=False, key_id="me")
    fal.submit(KITE)


def test_a_lock_of_all_accounts_holds_for_new_ones(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.lock()
    assert fal.post(KITE).status_code == 403


@pytest.mark.parametrize("body", [b"{", b"[1]", b"null", b'"x"', b'{"a": NaN}', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_a_bad_request(fal: Fal, body: bytes) -> None:
    reply = fal.http.post(f"{fal.origin}/queue/fal-ai/flux", content=body)
    assert reply.status_code == 400
    assert reply.json()["error_type"] == reply.headers["x-fal-error-type"] == "bad_request"


def test_an_empty_body_is_an_empty_input(fal: Fal) -> None:
    reply = fal.http.post(f"{fal.origin}/queue/fal-ai/flux")
    assert fal.result(reply.json()).json()["detail"][0]["type"] == "missing"


def test_an_unknown_app_is_404_at_submit(fal: Fal) -> None:
    assert fal.post(KITE, "fal-ai/does-not-exist").status_code == 404
    assert fal.post(KITE, "fal-ai/does-not-exist-either/x").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/queue/fal-ai/flux", 405),
        ("POST", "/queue/flux", 404),
        ("DELETE", "/queue/fal-ai/flux/requests/x", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/", 404),
    ],
)
def test_unknown_routes_and_methods_say_so_in_json(fal: Fal, method: str, path: str, code: int) -> None:
    reply = fal.http.request(method, fal.origin + path)
    assert reply.status_code == code
    assert "detail" in reply.json()


def test_a_refused_input_completes_with_fals_list_of_details_and_is_free(fal: Fal, sandbox: SandboxProcess) -> None:
    request = fal.submit({"num_images": 9, "prompt": "x"})
    done = fal.until(request, "COMPLETED")
    assert "error" not in done  # whether fal names a 422 there is unknown; the result decides
    reply = fal.result(request)
    assert reply.status_code == 422
    assert reply.headers["x-fal-billable-units"] == "0"
    assert reply.headers["x-fal-retryable"] == "false"
    assert reply.headers["x-fal-needs-retry"] == "0"
    assert reply.json() == {
        "detail": [
            {
                "loc": ["body", "num_images"],
                "msg": "Input should be less than or equal to 4",
                "type": "less_than_equal",
                "ctx": {"le": 4},
                "input": 9,
                "url": "https://docs.fal.ai/errors/#less_than_equal",
            }
        ]
    }
    (entry,) = sandbox.ledger()["executions"]
    assert (entry["status_code"], entry["billable_units"], entry["cost"]) == (422, 0.0, 0.0)


def test_a_queued_request_is_cancelled_at_once_and_never_runs(fal: Fal, sandbox: SandboxProcess) -> None:
    for _ in range(3):
        fal.submit(KITE, SLOW)
    request = fal.submit(KITE)
    reply = fal.cancel(request)
    assert (reply.status_code, reply.json()) == (200, {"status": "OK"})
    done = fal.status(request)
    assert (done["status"], done["error_type"]) == ("COMPLETED", "client_cancelled")
    result = fal.get(request["response_url"])
    assert (result.status_code, result.headers["x-fal-error-type"]) == (499, "client_cancelled")
    assert result.json() == {"detail": "Request cancelled by the client.", "error_type": "client_cancelled"}
    assert request["request_id"] not in {entry["request_id"] for entry in sandbox.ledger()["executions"]}


def test_a_running_request_hears_of_a_cancel_and_finishes(fal: Fal) -> None:
    request = fal.submit(KITE, "fal-ai/flux-pro")
    reply = fal.cancel(request)
    assert (reply.status_code, reply.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert fal.result(request).status_code == 200


def test_cancelling_what_is_done_is_400_and_what_is_unknown_404(fal: Fal) -> None:
    request = fal.submit(KITE)
    fal.until(request, "COMPLETED")
    reply = fal.cancel(request)
    assert (reply.status_code, reply.json()) == (400, {"status": "ALREADY_COMPLETED"})
    unknown = {"cancel_url": request["cancel_url"].replace(request["request_id"], str(UUID(int=0)))}
    reply = fal.cancel(unknown)
    assert (reply.status_code, reply.json()) == (404, {"status": "NOT_FOUND"})


@pytest.mark.parametrize("name", ["X-Fal-Request-Timeout", "X-Fal-Request-Start-Timeout"])
def test_a_start_timeout_ends_a_queued_request_as_504_by_the_user(fal: Fal, sandbox: SandboxProcess, name: str) -> None:
    for _ in range(3):
        fal.submit(KITE, SLOW)
    request = fal.submit(KITE, headers={name: "0.15"})
    done = fal.until(request, "COMPLETED")
    assert done["error_type"] == "request_timeout"
    reply = fal.get(request["response_url"])
    assert reply.status_code == 504
    assert reply.headers["x-fal-request-timeout-type"] == "user"
    assert reply.headers["x-fal-error-type"] == reply.json()["error_type"] == "request_timeout"
    assert sandbox.ledger()["count"] == 3


def test_low_priority_waits_behind_every_normal_request(fal: Fal) -> None:
    for _ in range(3):
        fal.submit(KITE, SLOW)
    low = fal.submit(KITE, headers={"X-Fal-Queue-Priority": "low"})
    normal = fal.submit(KITE)
    assert fal.status(low)["queue_position"] == 1
    assert fal.status(normal)["queue_position"] == 0


def test_a_queue_longer_than_allowed_refuses_with_429(fal: Fal, sandbox: SandboxProcess) -> None:
    for _ in range(3):
        fal.submit(KITE, SLOW)
    limit: dict[str, Any] = {"params": {"fal_max_queue_length": 1}}
    assert [fal.post(KITE, **limit).status_code for _ in range(3)] == [200, 200, 429]
    assert fal.post(KITE, "fal-ai/other", **limit).status_code == 200
    assert sandbox.stats()["requests"]["submit"] == {"200": 6, "429": 1}


def test_never_more_than_the_cap_run_at_once_in_one_account(fal: Fal, sandbox: SandboxProcess) -> None:
    requests = [fal.submit({**KITE, "seed": n}, "fal-ai/flux/schnell") for n in range(12)]
    other = Fal(fal.origin, {"Authorization": "Key you:secret"})
    assert other.status(other.submit(KITE, SLOW))["status"] == "IN_PROGRESS"
    other.close()
    for request in requests:
        fal.until(request, "COMPLETED")
    assert sandbox.stats()["accounts"]["me"]["peak_running"] == 3
    ends = [(e["started_at"], 1) for e in sandbox.ledger()["executions"] if "kling" not in e["endpoint"]]
    ends += [(e["ended_at"], -1) for e in sandbox.ledger()["executions"] if "kling" not in e["endpoint"]]
    running = 0
    for _, step in sorted(ends):
        running += step
        assert running <= 3


def test_what_was_sent_can_be_looked_up_without_the_key(fal: Fal, sandbox: SandboxProcess) -> None:
    headers = {"X-Fal-Store-IO": "0", "X-Fal-Runner-Hint": "near", "X-Custom": "a"}
    request = fal.submit({"prompt": "é", "seed": 2**70}, headers=headers, params={"fal_webhook": "https://e.org/h"})
    seen = sandbox.request(request["request_id"])
    assert seen["input"] == {"prompt": "é", "seed": 2**70}
    assert seen["endpoint"] == "fal-ai/flux/dev"
    assert seen["query"] == {"fal_webhook": "https://e.org/h"}
    assert {"x-fal-store-io": "0", "x-fal-runner-hint": "near", "x-custom": "a"}.items() <= seen["headers"].items()
    assert "authorization" not in seen["headers"]
    assert "secret" not in str(seen)


def test_the_status_stream_sends_each_change_once_and_closes_after_completed(fal: Fal) -> None:
    request = fal.submit(KITE, "fal-ai/flux-pro")
    with fal.http.stream("GET", request["status_url"] + "/stream", params={"logs": "1"}) as reply:
        assert reply.headers["content-type"] == "text/event-stream"
        lines = [line for line in reply.iter_lines() if line.startswith("data: ")]
    pages = [httpx.Response(200, content=line[6:]).json() for line in lines]
    assert pages[-1]["status"] == "COMPLETED"
    assert [page["status"] for page in pages[:-1]] == ["IN_PROGRESS"] * (len(pages) - 1)
    messages = [entry["message"] for page in pages for entry in page["logs"]]
    assert messages == ["step 1/4", "step 2/4", "step 3/4", "step 4/4"]


def test_leaving_a_status_stream_early_is_no_trouble_for_the_sandbox() -> None:
    with SandboxProcess() as process:
        fal = Fal(process.origin)
        request = fal.submit(KITE, "fal-ai/flux/schnell")
        with fal.http.stream("GET", request["status_url"] + "/stream") as reply:
            next(reply.iter_raw())
        assert fal.result(request).status_code == 200
        fal.close()
        process.stop()
        assert process.errors == ""
