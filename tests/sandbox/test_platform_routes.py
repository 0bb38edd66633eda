"""The platform API: what was run, and what things cost. Over a real socket."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.sandbox.conftest import KEY, Fal
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from pathlib import Path

KITE = {"prompt": "a red kite", "image_size": {"width": 64, "height": 64}, "seed": 10**30}
QUICK = "fal-ai/flux/schnell"
SLOW = "fal-ai/kling-video/v2.6/pro/text-to-video"
LIST = "models/requests/by-endpoint"


def ask(fal: Fal, path: str, **query: Any) -> httpx.Response:
    return fal.get(f"{fal.origin}/api/v1/{path}", params=query)


def listed(fal: Fal, endpoint: str = QUICK, **query: Any) -> list[dict[str, Any]]:
    reply = ask(fal, LIST, endpoint_id=endpoint, **query)
    assert reply.status_code == 200, reply.text
    items: list[dict[str, Any]] = reply.json()["items"]
    return items


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [item["request_id"] for item in items]


def estimate(fal: Fal, body: object) -> httpx.Response:
    return fal.http.post(f"{fal.origin}/api/v1/models/pricing/estimate", json=body)


def assert_error(reply: httpx.Response, code: int, type_: str) -> None:
    assert (reply.status_code, reply.json()["error"]["type"]) == (code, type_)
    assert reply.json().keys() == {"error"}
    assert reply.json()["error"]["message"]


@pytest.mark.parametrize("key", ["", "nonsense", "Bearer a:b", "Key a"])
def test_a_call_without_a_good_key_is_refused_in_the_platforms_shape(fal: Fal, key: str) -> None:
    reply = fal.public.get(f"{fal.origin}/api/v1/{LIST}?endpoint_id={QUICK}", headers={"Authorization": key})
    assert_error(reply, 401, "authorization_error")


def test_all_else_is_not_found_in_the_platforms_shape(fal: Fal) -> None:
    for path in ("models/other", "", "models/pricing/x"):
        assert_error(ask(fal, path), 404, "not_found")
    assert_error(fal.get(f"{fal.origin}/api/models/pricing?endpoint_id={QUICK}"), 404, "not_found")
    assert_error(fal.http.post(f"{fal.origin}/api/v1/models/pricing"), 404, "not_found")


def test_a_locked_account_may_still_look(fal: Fal, sandbox: SandboxProcess) -> None:
    request = fal.submit(KITE, QUICK)
    fal.until(request, "COMPLETED")
    sandbox.lock()
    assert ids(listed(fal)) == [request["request_id"]]


def test_an_ended_request_is_listed_with_its_times(fal: Fal, sandbox: SandboxProcess) -> None:
    request = fal.submit(KITE, QUICK)
    fal.until(request, "COMPLETED")
    known = sandbox.request(request["request_id"])
    (item,) = listed(fal)
    times = [item.pop(name) for name in ("sent_at", "started_at", "ended_at")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text) for text in times)
    seconds = [datetime.fromisoformat(text).timestamp() for text in times]
    assert seconds == pytest.approx([known["submitted_at"], known["started_at"], known["ended_at"]], abs=1e-5)
    assert item == {
        "request_id": request["request_id"],
        "endpoint_id": QUICK,
        "status_code": 200,
        "duration": pytest.approx(seconds[2] - seconds[1], abs=1e-5),
    }


def test_payloads_come_when_asked_for_and_integers_stay_exact(fal: Fal) -> None:
    request = fal.submit(KITE, QUICK)
    output = fal.result(request).json()
    (item,) = listed(fal, expand="payloads")
    assert (item["json_input"], item["json_output"]) == (KITE, output)


def test_a_request_sent_without_keeping_io_is_listed_without_payloads(fal: Fal) -> None:
    fal.run(KITE, QUICK, headers={"X-Fal-Store-IO": "0"})
    (item,) = listed(fal, expand="payloads")
    assert not item.keys() & {"json_input", "json_output"}


def test_the_output_of_a_failure_and_of_sync_mode_is_null(fal: Fal, sandbox: SandboxProcess) -> None:
    fal.run({**KITE, "sync_mode": True}, QUICK)
    sandbox.add_faults([{"on": "submit", "do": "fail:internal_error"}])
    fal.result(fal.submit(KITE, QUICK))
    assert [item["json_output"] for item in listed(fal, expand="payloads")] == [None, None]


def test_what_waits_runs_or_was_cancelled_in_the_queue_is_not_listed(fal: Fal) -> None:
    running = [fal.submit(KITE, SLOW) for _ in range(3)]
    waiting = fal.submit(KITE, SLOW)
    cancelled = fal.submit(KITE, SLOW)
    fal.cancel(cancelled)
    assert fal.status(waiting)["status"] == "IN_QUEUE"
    assert listed(fal, SLOW) == []
    for request in running:
        fal.until(request, "COMPLETED")
    assert cancelled["request_id"] not in ids(listed(fal, SLOW))
    assert set(ids(listed(fal, SLOW))) >= {request["request_id"] for request in running}


def test_only_the_callers_own_requests_on_that_endpoint_are_listed(fal: Fal) -> None:
    fal.result(fal.submit(KITE, QUICK))
    other = Fal(fal.origin, {"Authorization": "Key other:secret"})
    assert listed(other) == []
    other.close()
    assert listed(fal, "fal-ai/flux") == []
    assert len(listed(fal, f"fal-ai/flux, {QUICK}")) == 1


def test_status_and_request_id_filter(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults(
        [
            {"on": "submit", "do": "fail:internal_error", "nth": 2},
            {"on": "submit", "do": "fail:content_policy_violation", "nth": 3},
        ]
    )
    requests = [fal.submit(KITE, QUICK) for _ in range(3)]
    for request in requests:
        fal.until(request, "COMPLETED")
    by_status = [ids(listed(fal, status=status)) for status in ("success", "error", "user_error")]
    assert by_status == [[request["request_id"]] for request in requests]
    assert ids(listed(fal, request_id=requests[1]["request_id"])) == [requests[1]["request_id"]]
    assert listed(fal, request_id="00000000-0000-0000-0000-000000000000") == []


def test_start_and_end_bound_the_time_of_the_start(fal: Fal, sandbox: SandboxProcess) -> None:
    requests = []
    for _ in range(2):
        both = [fal.submit(KITE, QUICK) for _ in range(2)]
        for request in both:
            fal.until(request, "COMPLETED")
        requests.append(both[0]["request_id"])
    first, second = (sandbox.request(request_id) for request_id in requests)
    after_submit = datetime.fromtimestamp(second["submitted_at"], UTC).isoformat()
    assert set(requests) & set(ids(listed(fal, start=after_submit))) == {second["request_id"]}
    before = ids(listed(fal, end=datetime.fromtimestamp(second["started_at"], UTC).isoformat()))
    assert set(requests) & set(before) == {first["request_id"]}
    assert len(listed(fal, start="2020-01-01")) == 4
    assert len(listed(fal, start="0001-01-01T00:00+14:00", end="9999-12-31T23:59-14:00")) == 4
    assert listed(fal, end="2020-01-01") == []
    assert listed(fal, start="2999-01-01T00:00:00") == []


def test_pages_follow_each_other_without_gap_or_repetition(fal: Fal) -> None:
    for number in range(7):
        fal.submit({**KITE, "seed": number}, QUICK)
    fal.until(fal.submit(KITE, QUICK), "COMPLETED")
    end = time.monotonic() + 5
    while len(listed(fal)) < 8:
        assert time.monotonic() < end
    for sort, member in (("ended_at", "ended_at"), ("duration", "duration")):
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        for expected in (3, 3, 2):
            page = ask(fal, LIST, endpoint_id=QUICK, limit=3, sort_by=sort, **cursor).json()
            assert len(page["items"]) == expected
            assert page["has_more"] is (page["next_cursor"] is not None) is (expected == 3)
            found += page["items"]
            cursor = {"cursor": page["next_cursor"]}
        assert found == listed(fal, sort_by=sort)
        assert [item[member] for item in found] == sorted((item[member] for item in found), reverse=True)
        assert len(set(ids(found))) == 8


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"endpoint_id": ""},
        {"endpoint_id": ",".join(f"a/{n}" for n in range(51))},
        {"endpoint_id": QUICK, "limit": "101"},
        {"endpoint_id": QUICK, "limit": "0"},
        {"endpoint_id": QUICK, "limit": "many"},
        {"endpoint_id": QUICK, "start": "yesterday"},
        {"endpoint_id": QUICK, "end": "2020-13-01"},
        {"endpoint_id": QUICK, "status": "failed"},
        {"endpoint_id": QUICK, "sort_by": "started_at"},
        {"endpoint_id": QUICK, "expand": "everything"},
        {"endpoint_id": QUICK, "cursor": "x"},
        {"endpoint_id": QUICK, "cursor": "WyJkdXJhdGlvbiIsIDEsIDJd"},  # made for sort_by=duration
    ],
)
def test_a_listing_that_makes_no_sense_is_refused(fal: Fal, query: dict[str, str]) -> None:
    assert_error(ask(fal, LIST, **query), 400, "validation_error")


def test_the_list_lags_behind_as_the_scenario_says(tmp_path: Path) -> None:
    scenario = tmp_path / "s.yaml"
    scenario.write_text("speed: 0\nlisting_lag_s: 0.4\nlisting_payloads: false\n")
    with SandboxProcess("--scenario", str(scenario)) as process:
        fal = Fal(process.origin)
        begin = time.time()
        request = fal.submit(KITE, QUICK)
        assert listed(fal) == []
        assert fal.status(request)["status"] == "COMPLETED"
        while not (items := listed(fal, expand="payloads")):
            assert time.time() < begin + 5
        assert time.time() >= begin + 0.4
        assert ids(items) == [request["request_id"]]
        assert not items[0].keys() & {"json_input", "json_output"}
        fal.close()


def test_the_list_survives_a_kill(tmp_path: Path) -> None:
    args = ("--data", str(tmp_path), "--speed", "0")
    with SandboxProcess(*args) as process:
        fal = Fal(process.origin)
        fal.submit(KITE, QUICK)
        before = listed(fal, expand="payloads")
        fal.http.put(f"{fal.origin}/queue/fal-ai/flux/requests/{before[0]['request_id']}/cancel")
        process.kill()
    with SandboxProcess(*args):
        assert listed(fal, expand="payloads") == before != []
    fal.close()


@pytest.mark.parametrize("line", ["listing_lag_s: -1", "listing_lag_s: soon", "listing_payloads: 1"])
def test_a_scenario_with_a_wrong_listing_key_is_refused(tmp_path: Path, line: str) -> None:
    scenario = tmp_path / "s.yaml"
    scenario.write_text(line)
    with pytest.raises(RuntimeError, match=line.partition(":")[0]):
        SandboxProcess("--scenario", str(scenario)).start()


def test_prices_are_those_of_the_ledger_in_fals_words(fal: Fal) -> None:
    reply = fal.get(f"{fal.origin}/api/v1/models/pricing?endpoint_id={QUICK},fal-ai/any-llm&endpoint_id=me/mine")
    prices = [
        {"endpoint_id": QUICK, "unit_price": 0.003, "unit": "megapixel", "currency": "USD"},
        {"endpoint_id": "fal-ai/any-llm", "unit_price": 0.001, "unit": "request", "currency": "USD"},
        {"endpoint_id": "me/mine", "unit_price": 0.01, "unit": "image", "currency": "USD"},
    ]
    assert (reply.status_code, reply.json()) == (200, {"prices": prices, "next_cursor": None, "has_more": False})


def test_prices_of_nothing_or_of_the_unknown_are_refused(fal: Fal) -> None:
    assert_error(ask(fal, "models/pricing"), 400, "validation_error")
    assert_error(ask(fal, "models/pricing", endpoint_id=[f"a/{n}" for n in range(51)]), 400, "validation_error")
    assert ask(fal, "models/pricing", endpoint_id=[f"a/{n}" for n in range(50)]).status_code == 200
    for wrong in ("fal-ai/does-not-exist", "flux", "a//b"):
        assert_error(ask(fal, "models/pricing", endpoint_id=f"{QUICK},{wrong}"), 404, "not_found")


def test_an_estimate_by_units_is_one_total(fal: Fal) -> None:
    endpoints = {QUICK: {"unit_quantity": 2.5}, "fal-ai/veo3": {"unit_quantity": 3}}
    reply = estimate(fal, {"estimate_type": "unit_price", "endpoints": endpoints})
    assert reply.json() == {
        "estimate_type": "unit_price",
        "total_cost": pytest.approx(2.5 * 0.003 + 3 * 1.6),
        "currency": "USD",
    }


def test_an_estimate_by_history_uses_what_was_billed_so_far(fal: Fal, sandbox: SandboxProcess) -> None:
    body = {"estimate_type": "historical_api_price", "endpoints": {QUICK: {"call_quantity": 10}}}
    assert estimate(fal, body).json()["total_cost"] == pytest.approx(10 * 0.003)
    fal.run({**KITE, "num_images": 4}, QUICK)
    fal.run({**KITE, "num_images": 1}, QUICK)
    fal.result(fal.submit({**KITE, "num_images": "no"}, QUICK))
    reply = estimate(fal, body).json()
    assert reply == {
        "estimate_type": "historical_api_price",
        "total_cost": pytest.approx(10 * 2.5 * 0.003),
        "currency": "USD",
    }
    assert reply["total_cost"] == pytest.approx(10 / 2 * sandbox.ledger()["total_cost"])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], 400),
        ({}, 400),
        ({"estimate_type": "guess", "endpoints": {QUICK: {"unit_quantity": 1}}}, 400),
        ({"estimate_type": ["unit_price"], "endpoints": {QUICK: {"unit_quantity": 1}}}, 400),
        ({"estimate_type": "unit_price"}, 400),
        ({"estimate_type": "unit_price", "endpoints": {}}, 400),
        ({"estimate_type": "unit_price", "endpoints": {QUICK: 3}}, 400),
        ({"estimate_type": "unit_price", "endpoints": {QUICK: {"unit_quantity": 0}}}, 400),
        ({"estimate_type": "unit_price", "endpoints": {QUICK: {"unit_quantity": True}}}, 400),
        ({"estimate_type": "unit_price", "endpoints": {QUICK: {"unit_quantity": 10**400}}}, 400),
        ({"estimate_type": "unit_price", "endpoints": {QUICK: {"call_quantity": 1}}}, 400),
        ({"estimate_type": "historical_api_price", "endpoints": {QUICK: {"call_quantity": 1.5}}}, 400),
        ({"estimate_type": "unit_price", "endpoints": {"fal-ai/does-not-exist": {"unit_quantity": 1}}}, 404),
        ({"estimate_type": "unit_price", "endpoints": {f"a/{n}": {"unit_quantity": 1} for n in range(51)}}, 400),
    ],
)
def test_an_estimate_of_nonsense_is_refused(fal: Fal, body: object, code: int) -> None:
    assert_error(estimate(fal, body), code, "validation_error" if code == 400 else "not_found")
    assert_error(fal.http.post(f"{fal.origin}/api/v1/models/pricing/estimate"), 400, "validation_error")


@pytest.mark.parametrize(
    ("code", "type_"),
    [
        (400, "validation_error"),
        (403, "authorization_error"),
        (404, "not_found"),
        (429, "rate_limited"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_a_fault_answers_in_the_platforms_shape(fal: Fal, sandbox: SandboxProcess, code: int, type_: str) -> None:
    sandbox.add_faults([{"on": "platform", "do": f"status:{code}", "retry_after": 2, "times": 1}])
    reply = ask(fal, LIST, endpoint_id=QUICK)
    assert_error(reply, code, type_)
    assert reply.headers["retry-after"] == "2"
    assert "x-fal-request-id" not in reply.headers
    assert listed(fal) == []


def test_faults_meet_the_platform_by_endpoint_and_with_their_own_bodies(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults(
        [
            {"on": "platform", "do": "status:502", "nginx": True, "endpoint": "fal-ai/*", "nth": 1},
            {"on": "platform", "do": "status:418", "body": {"a": 1}, "endpoint": "openai/*"},
            {"on": "platform", "do": "status:409", "endpoint": "one/x,two/y"},
            {"on": "platform", "do": "corrupt", "endpoint": "me/*"},
        ]
    )
    assert "nginx" in ask(fal, LIST, endpoint_id=QUICK).text
    assert ask(fal, "models/pricing", endpoint_id="openai/x").json() == {"a": 1}
    endpoints = {"one/x": {"unit_quantity": 1}, "two/y": {"unit_quantity": 1}}
    assert estimate(fal, {"estimate_type": "unit_price", "endpoints": endpoints}).status_code == 409
    with pytest.raises(ValueError, match=r"JSON|line|Expecting|Extra"):
        ask(fal, "models/pricing", endpoint_id="me/mine").json()
    assert sandbox.stats()["requests"]["platform"] == {"200": 1, "409": 1, "418": 1, "502": 1}


def test_the_platform_may_be_slow_drop_and_lock(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults(
        [{"on": "platform", "do": do, "nth": n} for n, do in enumerate(("drop_before", "delay:0.2", "lock"), 1)]
    )
    with pytest.raises(httpx.TransportError):
        ask(fal, LIST, endpoint_id=QUICK)
    begin = time.monotonic()
    assert ask(fal, LIST, endpoint_id=QUICK).status_code == 200
    assert time.monotonic() - begin >= 0.2
    assert ask(fal, LIST, endpoint_id=QUICK).status_code == 200
    assert fal.post(KITE).status_code == 403


def test_the_only_key_of_a_sandbox_holds_for_the_platform_too(tmp_path: Path) -> None:
    with SandboxProcess("--key", "me:right") as process:
        url = f"{process.origin}/api/v1/models/pricing?endpoint_id={QUICK}"
        fal = Fal(process.origin, {})
        assert_error(fal.get(url, headers=KEY), 401, "authorization_error")
        assert fal.get(url, headers={"Authorization": "Key me:right"}).status_code == 200
        fal.close()
