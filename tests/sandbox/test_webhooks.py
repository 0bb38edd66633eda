"""Webhooks as a receiver sees them: what comes, signed by whom, how often, and what faults make of it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from falbatch.sandbox.faults import ALLOWED, Do, Where
from falbatch.sandbox.webhooks import FIRST_PAUSE_S, MAX_RETRIES, State, is_on_this_machine, pause_s, state_after
from tests.sandbox.conftest import WAIT_S, Fal
from tests.sandbox.receiver import Receiver
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KITE = {"prompt": "a red kite", "image_size": {"width": 64, "height": 64}}


@pytest.fixture(scope="module")
def _fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    scenario = tmp_path_factory.mktemp("scenario") / "s.yaml"
    scenario.write_text("seed: 7\nspeed: 0\nwebhook_timeout_s: [0.3, 0.6]\n")
    with SandboxProcess("--scenario", str(scenario)) as process:
        yield process
        process.stop()
        assert process.errors == ""


@pytest.fixture
def fast(_fast: SandboxProcess) -> SandboxProcess:
    """Everything takes no time, a receiver has 0.3 s; empty."""
    _fast.reset()
    return _fast


@pytest.fixture
def fal(fast: SandboxProcess) -> Iterator[Fal]:
    client = Fal(fast.origin)
    yield client
    client.close()


def told(fal: Fal, receiver: Receiver, payload: object = KITE, endpoint: str = "fal-ai/flux/dev") -> dict[str, Any]:
    """Submit with a webhook."""
    return fal.submit(payload, endpoint, params={"fal_webhook": receiver.url})


def keys(fal: Fal) -> list[dict[str, str]]:
    """What the REST host publishes."""
    reply = fal.public.get(f"{fal.origin}/rest/.well-known/jwks.json")
    assert reply.status_code == 200
    found: list[dict[str, str]] = reply.json()["keys"]
    return found


def page(fal: Fal) -> list[dict[str, Any]]:
    deliveries: list[dict[str, Any]] = fal.public.get(f"{fal.origin}/sandbox/webhooks").json()["deliveries"]
    return deliveries


def settled(fal: Fal) -> dict[str, Any]:
    """The only delivery, once it is over."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        (one,) = page(fal)
        if one["state"] != "waiting":
            return one
        time.sleep(0.01)
    raise AssertionError(f"still open: {page(fal)}")


def outcomes(delivery: dict[str, Any]) -> list[Any]:
    return [attempt["outcome"] for attempt in delivery["attempts"]]


def until(fal: Fal, expected: dict[str, list[Any]]) -> None:
    """Wait until the deliveries, by request id, have had these outcomes."""
    end, seen = time.monotonic() + WAIT_S, dict[str, list[Any]]()
    while seen != expected:
        assert time.monotonic() < end, seen
        time.sleep(0.01)
        seen = {one["request_id"]: outcomes(one) for one in page(fal)}


def test_a_success_is_told_as_the_result_stands_signed_by_the_newer_key(fal: Fal) -> None:
    with Receiver() as receiver:
        request = told(fal, receiver, {**KITE, "seed": 10**20})
        (got,) = receiver.wait()
        assert settled(fal)["state"] == "acknowledged"
    result = fal.result(request)
    assert got.path == "/hook/abc?a=b%20c"
    assert got.page == {
        "request_id": request["request_id"],
        "gateway_request_id": request["request_id"],
        "status": "OK",
        "payload": result.json(),
    }
    assert got.page["payload"]["seed"] == 10**20
    assert got.body.endswith(b'"payload":' + result.content + b"}")
    assert fal.file(got.page["payload"]["images"][0]["url"]).status_code == 200
    assert got.headers["X-Fal-Webhook-Request-Id"] == request["request_id"]
    assert got.headers["X-Fal-Webhook-User-Id"] == "me"
    assert abs(int(got.headers["X-Fal-Webhook-Timestamp"]) - got.at) <= 2
    assert got.headers["Content-Type"] == "application/json"
    older, newer = keys(fal)
    assert (got.is_signed_by(older), got.is_signed_by(newer)) == (False, True)
    assert all(key.keys() == {"kty", "crv", "x"} and len(key["x"]) == 43 for key in (older, newer))


def test_a_failure_is_told_with_the_body_of_the_error(fal: Fal, fast: SandboxProcess) -> None:
    with Receiver() as receiver:
        refused = told(fal, receiver, {"num_images": 1})
        (got,) = receiver.wait()
        assert {**got.page, "payload": fal.result(refused).json()} == got.page
        assert (got.page["status"], got.page["error"]) == ("ERROR", "Invalid status code: 422")
        fast.add_faults([{"on": "submit", "do": "fail:runner_disconnected"}])
        told(fal, receiver)
        got = receiver.wait(2)[1]
        assert got.page["error"] == "Invalid status code: 503"
        assert got.page["payload"]["error_type"] == "runner_disconnected"


def test_it_comes_though_nobody_asks(sandbox: SandboxProcess) -> None:
    fal = Fal(sandbox.origin)
    with Receiver() as receiver:
        requests = [told(fal, receiver, {**KITE, "seed": n}) for n in range(7)]
        got = receiver.wait(7)
    assert {one.page["request_id"] for one in got} == {request["request_id"] for request in requests}
    fal.close()


def test_a_retried_request_names_its_last_attempt(sandbox: SandboxProcess) -> None:
    fal = Fal(sandbox.origin)
    with Receiver() as receiver:
        sandbox.add_faults([{"on": "status", "do": "requeue", "times": 1}])
        request = told(fal, receiver)
        fal.until(request, "COMPLETED")
        (got,) = receiver.wait()
    assert got.page["request_id"] == request["request_id"] != got.page["gateway_request_id"]
    fal.close()


def test_a_receiver_in_trouble_is_told_again_until_it_takes_it(fal: Fal) -> None:
    with Receiver(500, 404, 0, 204) as receiver:
        told(fal, receiver)
        got = receiver.wait(4)
        assert outcomes(settled(fal)) == [500, 404, "timeout", 204]
    assert len({one.body for one in got}) == 1
    assert all(one.is_signed_by(keys(fal)[1]) for one in got)


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_is_the_end(fal: Fal, status: int) -> None:
    with Receiver(status) as receiver:
        told(fal, receiver)
        assert settled(fal)["state"] == "failed"
        assert len(receiver.got) == 1


def test_after_ten_retries_it_is_over(fal: Fal) -> None:
    with Receiver(503) as receiver:
        told(fal, receiver)
        delivery = settled(fal)
    assert (delivery["state"], outcomes(delivery)) == ("failed", [503] * 11)


def test_nobody_listening_is_a_failed_attempt(fal: Fal) -> None:
    with Receiver() as receiver:
        url = receiver.url
    fal.submit(KITE, params={"fal_webhook": url})
    assert outcomes(settled(fal)) == ["connection"] * 11


@pytest.mark.parametrize(
    "url", ["https://example.org/hook", "http://10.0.0.1/", "http://localhost@example.org/", "ftp://127.0.0.1/", "hook"]
)
def test_only_this_machine_is_told(fal: Fal, url: str) -> None:
    request = fal.submit(KITE, params={"fal_webhook": url})
    fal.until(request, "COMPLETED")
    (delivery,) = page(fal)
    assert (delivery["url"], delivery["state"], delivery["attempts"]) == (url, "refused", [])


def test_what_is_on_this_machine() -> None:
    for url in ("http://127.0.0.1", "https://LOCALHOST:8443/x?y", "http://[::1]:80/", "http://127.8.8.8?x"):
        assert is_on_this_machine(url)
    for url in (
        "http://localhost.example.org/",
        "http://127.0.0.1.nip.io/",
        "http://127.0.0.1\\@example.org/",
        "http://127.0.0.1 /",
        "http://2130706433/",
        "http://[::ffff:8.8.8.8]/",
        "http://",
    ):
        assert not is_on_this_machine(url)


def test_pauses_grow_and_retries_end() -> None:
    pauses = [pause_s(attempts, 1.0) for attempts in range(1, MAX_RETRIES + 1)]
    assert pauses[0] == FIRST_PAUSE_S
    assert 7000 < sum(pauses) < 7200
    assert pause_s(1, 0) > 0
    assert [state_after(outcome, 1) for outcome in (200, 299, 301, 400)] == [
        *[State.ACKNOWLEDGED] * 2,
        State.FAILED,
        State.WAITING,
    ]
    assert (state_after(500, MAX_RETRIES), state_after(500, MAX_RETRIES + 1)) == (State.WAITING, State.FAILED)


@pytest.mark.parametrize(
    ("rule", "came", "seen"),
    [
        ({"do": "status:200"}, 0, [200]),
        ({"do": "status:500", "times": 1}, 1, [500, 200]),
        ({"do": "status:500", "accepted": True, "times": 1}, 2, [500, 200]),
        ({"do": "drop_before"}, 0, ["connection"] * 11),
        ({"do": "drop_after", "times": 1}, 2, ["connection", 200]),
        ({"do": "hang", "times": 1}, 2, ["timeout", 200]),
        ({"do": "duplicate"}, 2, [200]),
    ],
)
def test_faults_lose_and_repeat(
    fal: Fal, fast: SandboxProcess, rule: dict[str, Any], came: int, seen: list[object]
) -> None:
    fast.add_faults([{"on": "webhook", **rule}])
    with Receiver() as receiver:
        told(fal, receiver)
        assert outcomes(settled(fal)) == seen
        assert len(receiver.got) == came
        assert len({one.body for one in receiver.got}) <= 1
        if rule["do"] == "duplicate":
            assert len({one.headers["X-Fal-Webhook-Signature"] for one in receiver.got}) == 1


@pytest.mark.parametrize("do", ["corrupt", "truncate", "wrong_type", "no_payload", "types", "deep"])
def test_faults_spoil_what_is_said_before_or_after_it_is_signed(fal: Fal, fast: SandboxProcess, do: str) -> None:
    fast.add_faults([{"on": "webhook", "do": do}])
    with Receiver() as receiver:
        request = told(fal, receiver)
        (got,) = receiver.wait()
    assert got.is_signed_by(keys(fal)[1]) == (do not in {"corrupt", "truncate"})
    if do == "no_payload":
        assert got.page["payload"] is None
        assert got.page["payload_error"]
        assert got.page["status"] == "OK"
    elif do == "types":
        assert got.page["request_id"] is None
    else:
        with pytest.raises((ValueError, RecursionError)):
            json.loads(got.body)
    assert fal.result(request).status_code == 200


def test_a_late_delivery_comes_late(fal: Fal, fast: SandboxProcess) -> None:
    fast.add_faults([{"on": "webhook", "do": "late:0.4"}])
    with Receiver() as receiver:
        request = told(fal, receiver)
        (got,) = receiver.wait()
    ended_at = fast.request(request["request_id"])["ended_at"]
    assert got.at - ended_at >= 0.39


def test_a_new_key_signs_from_then_on(fal: Fal) -> None:
    first, second = keys(fal)
    assert fal.public.post(f"{fal.origin}/sandbox/webhooks/rotate").json()["keys"] == keys(fal)
    assert keys(fal)[0] == second
    assert keys(fal)[1] not in (first, second)
    with Receiver() as receiver:
        told(fal, receiver)
        (got,) = receiver.wait()
    assert [got.is_signed_by(key) for key in (first, second, keys(fal)[1])] == [False, False, True]


def test_the_page_of_keys_is_there_and_nothing_else(fal: Fal) -> None:
    base = f"{fal.origin}/rest/.well-known"
    assert fal.public.post(f"{base}/jwks.json").status_code == 405
    assert fal.public.get(f"{base}/other").status_code == 404


def test_a_reset_forgets_what_is_open(fal: Fal, fast: SandboxProcess) -> None:
    fast.add_faults([{"on": "webhook", "do": "late:0.3"}])
    with Receiver() as receiver:
        told(fal, receiver)
        fast.reset()
        assert page(fal) == []
        told(fal, receiver)
        (got,) = receiver.wait()
        assert got.page["request_id"] == settled(fal)["request_id"]
        assert len(receiver.got) == 1


def test_what_was_not_acknowledged_comes_again_after_a_kill(tmp_path: Path) -> None:
    scenario = tmp_path / "s.yaml"
    scenario.write_text('durations: {"*": 0}\n')  # no time for the work, seconds between two attempts
    args = ("--data", str(tmp_path / "data"), "--scenario", str(scenario))
    with Receiver() as receiver:
        with SandboxProcess(*args) as process:
            fal = Fal(process.origin)
            taken = told(fal, receiver)["request_id"]
            settled(fal)
            fal.public.post(f"{fal.origin}/sandbox/webhooks/rotate")
            process.add_faults([{"on": "webhook", "do": "hang", "times": 1}])
            lost = told(fal, receiver)["request_id"]
            until(fal, {taken: [200], lost: ["timeout"]})
            signing = keys(fal)
            process.kill()
        with SandboxProcess(*args):
            got = receiver.wait(3)[2]
            assert got.page["request_id"] == lost
            assert keys(fal) == signing
            assert got.is_signed_by(signing[1])
            until(fal, {taken: [200], lost: ["timeout", 200]})
        assert len(receiver.got) == 3
        fal.close()


def test_what_ends_while_nobody_runs_is_told_at_the_next_start(tmp_path: Path) -> None:
    args = ("--data", str(tmp_path), "--speed", "10")
    with Receiver() as receiver:
        with SandboxProcess(*args) as process:
            fal = Fal(process.origin)
            request = told(fal, receiver)
            process.kill()
        with SandboxProcess(*args):
            (got,) = receiver.wait()
            assert got.page["request_id"] == request["request_id"]
        fal.close()


@pytest.mark.parametrize("setting", ["[15]", "x", "[-1, 2]", "[1, 2, 3]"])
def test_a_timeout_that_is_none_is_refused(tmp_path: Path, setting: str) -> None:
    scenario = tmp_path / "s.yaml"
    scenario.write_text(f"webhook_timeout_s: {setting}\n")
    with pytest.raises(RuntimeError, match="webhook_timeout_s"):
        SandboxProcess("--scenario", str(scenario)).start()


def test_a_result_that_is_gone_is_not_told_of(tmp_path: Path) -> None:
    scenario = tmp_path / "s.yaml"
    scenario.write_text("speed: 0\nresult_window_s: 0.1\n")
    with SandboxProcess("--scenario", str(scenario)) as process, Receiver(500) as receiver:
        fal = Fal(process.origin)
        told(fal, receiver)
        delivery = settled(fal)
        assert delivery["state"] == "failed"
        assert 1 <= len(delivery["attempts"]) < 11
        fal.close()


def test_the_key_stays_out_of_the_pages(fal: Fal) -> None:
    text = httpx.get(f"{fal.origin}/sandbox/webhooks", trust_env=False).text
    assert "secret" not in text


def test_over_tls_the_payload_has_the_urls_of_the_result(tmp_path: Path) -> None:
    with SandboxProcess("--speed", "0", "--tls", str(tmp_path)) as process, Receiver() as receiver:
        fal = Fal(process.origin)
        request = told(fal, receiver)
        (got,) = receiver.wait()
        assert got.page["payload"]["images"][0]["url"].startswith("https://127.0.0.1:")
        assert got.page["payload"] == fal.result(request).json()
        fal.close()


def test_only_faults_that_a_delivery_can_have_are_taken() -> None:
    able = {do for do, places in ALLOWED.items() if Where.WEBHOOK in places}
    spoiling = {Do.CORRUPT, Do.TRUNCATE, Do.WRONG_TYPE, Do.NO_PAYLOAD, Do.TYPES, Do.DEEP}
    assert able == {Do.STATUS, Do.DROP_BEFORE, Do.DROP_AFTER, Do.HANG, Do.LATE, Do.DUPLICATE} | spoiling
