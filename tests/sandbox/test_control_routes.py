"""The sandbox's own routes: ledger, stats, faults, account, reset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from tests.sandbox.conftest import Fal
    from tests.sandbox_process import SandboxProcess

KITE = {"prompt": "a red kite", "seed": 10**30}


def test_the_ledger_has_an_entry_per_execution_from_its_start(fal: Fal, sandbox: SandboxProcess) -> None:
    assert sandbox.ledger() == {"count": 0, "total_cost": 0, "executions": []}
    request = fal.submit(KITE, "fal-ai/flux-pro")
    (running,) = sandbox.ledger()["executions"]
    assert (running["ended_at"], running["status_code"], running["cost"]) == (None, None, 0.0)
    fal.until(request, "COMPLETED")
    ledger = sandbox.ledger()
    (entry,) = ledger["executions"]
    assert entry == {
        "request_id": request["request_id"],
        "endpoint": "fal-ai/flux-pro",
        "input": KITE,
        "submitted_at": entry["submitted_at"],
        "started_at": running["started_at"],
        "ended_at": entry["ended_at"],
        "status_code": 200,
        "billable_units": 1.0,
        "cost": 0.05,
    }
    assert entry["submitted_at"] <= entry["started_at"] < entry["ended_at"]
    assert (ledger["count"], ledger["total_cost"]) == (1, 0.05)


def test_an_execution_is_billed_whether_or_not_anybody_asks(fal: Fal, sandbox: SandboxProcess) -> None:
    fal.submit(KITE, "fal-ai/flux/schnell")
    for _ in range(2000):
        if sandbox.ledger()["total_cost"]:
            break
    assert sandbox.ledger()["total_cost"] == 0.003


def test_stats_count_calls_by_route_and_outcome(fal: Fal, sandbox: SandboxProcess) -> None:
    fal.run(KITE)
    fal.post(KITE, headers={"Authorization": "no"})
    fal.get(f"{fal.origin}/nowhere")
    requests = sandbox.stats()["requests"]
    assert requests["submit"] == {"200": 1}
    assert requests["queue"] == {"401": 1}
    assert requests["result"] == {"200": 1}
    assert requests["unknown"] == {"404": 1}
    assert requests["status"]["200"] == 1


def test_faults_are_listed_with_counters_and_cleared(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "submit", "do": "status:429", "nth": 2}])
    fal.post(KITE)
    fal.post(KITE)
    (rule,) = sandbox.faults()
    assert (rule["on"], rule["do"], rule["seen"], rule["fired"]) == ("submit", "status:429", 2, 1)
    sandbox.clear_faults()
    assert sandbox.faults() == []
    assert fal.post(KITE).status_code == 200


def test_a_single_rule_may_be_posted_alone(sandbox: SandboxProcess) -> None:
    reply = httpx.post(f"{sandbox.origin}/sandbox/faults", json={"on": "file", "do": "truncate"})
    assert [rule["do"] for rule in reply.json()["faults"]] == ["truncate"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "not JSON"),
        (b"3", "expected a rule"),
        (b'{"on":"submit","do":"status:429","nht":1}', "did you mean 'nth'"),
        (b'{"faults":[{"on":"submit","do":"hang"},{"on":"webhooks","do":"hang"}]}', "'webhooks' is not a call"),
    ],
)
def test_a_bad_rule_is_refused_and_none_of_its_list_is_kept(sandbox: SandboxProcess, body: bytes, text: str) -> None:
    reply = httpx.post(f"{sandbox.origin}/sandbox/faults", content=body)
    assert reply.status_code == 400
    assert text in reply.json()["detail"]
    assert sandbox.faults() == []


@pytest.mark.parametrize(
    "body", [{}, {"locked": "yes"}, {"locked": True, "who": "me"}, {"locked": True, "key_id": 3}, []]
)
def test_a_bad_lock_is_refused(sandbox: SandboxProcess, body: Any) -> None:
    assert httpx.post(f"{sandbox.origin}/sandbox/account", json=body).status_code == 400


def test_a_reset_forgets_everything_but_never_reuses_an_id(fal: Fal, sandbox: SandboxProcess) -> None:
    request = fal.submit(KITE)
    sandbox.lock()
    sandbox.add_faults([{"on": "submit", "do": "hang"}])
    sandbox.reset()
    assert fal.get(request["status_url"]).status_code == 404
    assert sandbox.ledger()["count"] == 0
    assert "submit" not in sandbox.stats()["requests"]
    assert fal.submit(KITE)["request_id"] != request["request_id"]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "reset", 405),
        ("POST", "ledger", 405),
        ("DELETE", "requests/x", 405),
        ("GET", "requests/x", 404),
        ("GET", "nothing", 404),
        ("GET", "", 404),
    ],
)
def test_other_control_routes_do_not_exist(sandbox: SandboxProcess, method: str, path: str, code: int) -> None:
    assert httpx.request(method, f"{sandbox.origin}/sandbox/{path}").status_code == code
