"""Direct calls: answered on their own connection, never more at once than the account may run (fal-protocol §5.1)."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import pytest

from tests.sandbox.conftest import Fal
from tests.sandbox.direct import KITE, QUICK, SLOW, VERY_SLOW, run, running, session, until
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 3


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def direct(fal: Fal, payload: object, endpoint: str = QUICK, **more: Any) -> httpx.Response:
    return fal.http.post(f"{fal.origin}/run/{endpoint}", json=payload, **more)


def test_a_direct_call_gives_the_bare_output_with_fals_headers(fal: Fal, sandbox: SandboxProcess) -> None:
    reply = direct(fal, {**KITE, "seed": 10**25 + 7}, headers={"X-Fal-Request-Start-Timeout": "5"})
    assert reply.status_code == 200, reply.text
    output = reply.json()
    assert output["seed"] == 10**25 + 7
    assert fal.file(output["images"][0]["url"]).headers["content-type"] == "image/jpeg"
    assert reply.headers["x-fal-billable-units"] == "1"
    request_id = reply.headers["x-fal-request-id"]
    ledger = sandbox.ledger()
    assert [entry["request_id"] for entry in ledger["executions"]] == [request_id]
    assert ledger["total_cost"] == 0.003
    recorded = sandbox.request(request_id)
    assert (recorded["via"], recorded["headers"]["x-fal-request-start-timeout"]) == ("run", "5")


def test_it_answers_as_the_queue_does(fal: Fal) -> None:
    queued, at_once = fal.run({**KITE, "seed": 3}), direct(fal, {**KITE, "seed": 3}).json()
    assert at_once.keys() == queued.keys()
    pictures = [fal.file(output["images"][0]["url"]).content for output in (queued, at_once)]
    assert pictures[0] == pictures[1]


def test_it_is_in_the_platforms_list_and_not_in_the_queue(fal: Fal) -> None:
    request_id = direct(fal, KITE).headers["x-fal-request-id"]
    url = f"{fal.origin}/api/v1/models/requests/by-endpoint"
    items = fal.get(url, params={"endpoint_id": QUICK}).json()["items"]
    assert [item["request_id"] for item in items] == [request_id]
    for tail in ("", "/status", "/status/stream"):
        assert fal.get(f"{fal.origin}/queue/fal-ai/flux/requests/{request_id}{tail}").status_code == 404


def test_the_query_of_a_get_is_its_input(fal: Fal, sandbox: SandboxProcess) -> None:
    query = [("prompt", "a kite"), ("num_images", "2"), ("tags", "a"), ("tags", "b")]
    reply = fal.get(f"{fal.origin}/run/{QUICK}", params=query)
    assert len(reply.json()["images"]) == 2
    assert sandbox.ledger()["executions"][0]["input"] == {"prompt": "a kite", "num_images": "2", "tags": ["a", "b"]}


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_other_methods_carry_their_input_in_the_body(fal: Fal, method: str) -> None:
    assert fal.http.request(method, f"{fal.origin}/run/{QUICK}", json=KITE).status_code == 200


def test_a_path_behind_the_id_is_part_of_what_is_called(fal: Fal, sandbox: SandboxProcess) -> None:
    assert direct(fal, KITE, f"{QUICK}/turbo").status_code == 200
    assert sandbox.ledger()["executions"][0]["endpoint"] == f"{QUICK}/turbo"


def test_an_input_that_the_schema_refuses_is_a_free_422(fal: Fal, sandbox: SandboxProcess) -> None:
    reply = direct(fal, {**KITE, "num_images": 9})
    assert reply.status_code == 422
    assert reply.json()["detail"][0]["loc"] == ["body", "num_images"]
    assert (reply.headers["x-fal-billable-units"], reply.headers["x-fal-needs-retry"]) == ("0", "0")
    ledger = sandbox.ledger()
    assert (ledger["count"], ledger["total_cost"]) == (1, 0.0)


@pytest.mark.parametrize(
    ("body", "endpoint", "key", "code"),
    [
        (b"[1]", QUICK, "Key me:s", 400),
        (b"{", QUICK, "Key me:s", 400),
        (b"{}", "fal-ai/does-not-exist", "Key me:s", 404),
        (b"{}", "one-segment", "Key me:s", 404),
        (b"{}", QUICK, "Bearer x", 401),
        (b"{}", QUICK, "", 401),
        (b"{}", f"{QUICK}/realtime", "Key me:s", 426),
    ],
)
def test_what_is_refused_is_not_in_the_ledger(
    fal: Fal, sandbox: SandboxProcess, body: bytes, endpoint: str, key: str, code: int
) -> None:
    headers = {"Authorization": key} if key else {}
    assert httpx.post(f"{fal.origin}/run/{endpoint}", content=body, headers=headers).status_code == code
    assert sandbox.ledger()["count"] == 0


def test_a_locked_account_and_a_strange_method_are_refused(fal: Fal, sandbox: SandboxProcess) -> None:
    assert fal.http.options(f"{fal.origin}/run/{QUICK}").status_code == 405
    sandbox.lock(key_id="me")
    assert direct(fal, KITE).status_code == 403
    assert sandbox.ledger()["count"] == 0


@pytest.mark.anyio
async def test_of_many_at_once_no_more_run_than_the_account_may(sandbox: SandboxProcess) -> None:
    async with session() as client:
        calls = [run(client, f"{sandbox.origin}/run/{SLOW}", {**KITE, "seed": seed}) for seed in range(40)]
        answers = await asyncio.gather(*calls)
    counts = Counter(answer.status for answer in answers)
    assert counts.keys() == {200, 429}
    assert sandbox.ledger()["count"] == counts[200] >= LIMIT
    assert sandbox.stats()["accounts"]["me"]["peak_running"] == LIMIT
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.json()["error_type"] == "concurrent_requests_limit" == refused.headers["x-fal-error-type"]
    assert str(LIMIT) in refused.json()["detail"]
    assert refused.headers["x-fal-needs-retry"] == "1"
    assert "x-fal-request-id" in refused.headers


@pytest.mark.anyio
async def test_whoever_tries_again_after_429_gets_everything_once_beside_a_busy_queue(
    fal: Fal, sandbox: SandboxProcess
) -> None:
    queued = [fal.submit({**KITE, "seed": 1000 + n}, QUICK) for n in range(20)]

    async def insist(client: aiohttp.ClientSession, seed: int) -> int:
        for tries in range(1, 1000):
            answer = await run(client, f"{sandbox.origin}/run/{QUICK}", {**KITE, "seed": seed})
            if answer.status == 200:
                assert answer.json()["seed"] == seed
                return tries
            assert answer.status == 429
            await asyncio.sleep(0.02)
        raise AssertionError("never had its turn")

    async with session() as client:
        tries = await asyncio.gather(*(insist(client, seed) for seed in range(30)))
    assert max(tries) > 1
    for request in queued:
        fal.until(request, "COMPLETED")
    ledger = sandbox.ledger()
    assert Counter(entry["input"]["seed"] for entry in ledger["executions"]) == Counter(
        [*range(30), *range(1000, 1020)]
    )
    assert sandbox.stats()["accounts"]["me"]["peak_running"] <= LIMIT


@pytest.mark.anyio
async def test_the_running_calls_of_another_account_take_no_place(sandbox: SandboxProcess) -> None:
    async with session() as mine, session({"Authorization": "Key you:secret"}) as yours:
        calls = [run(client, f"{sandbox.origin}/run/{SLOW}", KITE) for client in (mine, yours) for _ in range(LIMIT)]
        answers = await asyncio.gather(*calls)
    assert [answer.status for answer in answers] == [200] * 2 * LIMIT


@pytest.mark.anyio
async def test_a_caller_that_leaves_pays_where_apps_do_not_stop(sandbox: SandboxProcess) -> None:
    async with session() as client:
        with pytest.raises(TimeoutError):
            await run(client, f"{sandbox.origin}/run/{SLOW}", KITE, timeout=aiohttp.ClientTimeout(total=0.05))
    await until(lambda: sandbox.ledger()["executions"][0]["ended_at"] is not None)
    entry = sandbox.ledger()["executions"][0]
    assert (entry["status_code"], entry["cost"]) == (200, 0.05)


@pytest.mark.anyio
@pytest.mark.parametrize("tail", ["", "/stream"])
async def test_a_caller_that_leaves_stops_the_apps_that_do(tmp_path: Path, tail: str) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text("cancel_running: stop\nconcurrency: 1\n")
    with SandboxProcess("--scenario", str(scenario)) as sandbox:
        url = f"{sandbox.origin}/run/{VERY_SLOW}{tail}"
        async with session() as client:
            with pytest.raises(TimeoutError):
                await run(client, url, KITE, timeout=aiohttp.ClientTimeout(total=0.1))
            await until(lambda: running(sandbox) == 0)
            entry = sandbox.ledger()["executions"][0]
            assert (entry["status_code"], entry["cost"]) == (499, 0.0)
            assert (await run(client, f"{sandbox.origin}/run/{QUICK}", KITE)).status == 200
        sandbox.stop()
        assert sandbox.errors == ""


@pytest.mark.anyio
async def test_a_reset_of_the_sandbox_ends_calls_that_wait(sandbox: SandboxProcess) -> None:
    async with session() as client:
        waiting = asyncio.create_task(run(client, f"{sandbox.origin}/run/{VERY_SLOW}", KITE))
        await until(lambda: running(sandbox) == 1)
        await asyncio.to_thread(sandbox.reset)
        answer = await waiting
    assert (answer.status, answer.json()["error_type"]) == (503, "runner_disconnected")


def test_an_answered_call_survives_a_kill_and_one_under_way_runs_on(tmp_path: Path) -> None:
    with SandboxProcess("--data", str(tmp_path), "--speed", "25") as sandbox:
        fal = Fal(sandbox.origin)
        answered = direct(fal, KITE).headers["x-fal-request-id"]
        with pytest.raises(httpx.ReadTimeout):
            direct(fal, KITE, SLOW, timeout=0.05)
        sandbox.kill()
        sandbox.start()
        executions = sandbox.ledger()["executions"]
        assert [entry["request_id"] for entry in executions][:1] == [answered]
        assert len(executions) == 2
        assert sandbox.request(answered)["via"] == "run"
        fal.close()


def test_a_fault_decides_how_the_execution_ends(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "run", "do": "fail:runner_disconnected", "nth": 2}])
    assert [direct(fal, KITE).status_code for _ in range(3)] == [200, 503, 200]
    assert fal.result(fal.submit(KITE, QUICK)).status_code == 200
    assert [entry["status_code"] for entry in sandbox.ledger()["executions"]] == [200, 503, 200, 200]


@pytest.mark.parametrize(
    ("rule", "code", "executions"),
    [
        ({"do": "status:503"}, 503, 0),
        ({"do": "status:504", "accepted": True, "nginx": True}, 504, 1),
        ({"do": "status:429", "retry_after": 2}, 429, 0),
        ({"do": "lock"}, 403, 0),
        ({"do": "delay:0.1"}, 200, 1),
        ({"do": "redirect:/elsewhere"}, 307, 0),
    ],
)
def test_a_fault_may_answer_instead(
    fal: Fal, sandbox: SandboxProcess, rule: dict[str, Any], code: int, executions: int
) -> None:
    sandbox.add_faults([{"on": "run", **rule}])
    reply = direct(fal, KITE)
    assert reply.status_code == code
    assert reply.headers.get("retry-after") == ("2" if code == 429 else None)
    assert sandbox.ledger()["count"] == executions


@pytest.mark.parametrize(("do", "executions"), [("drop_before", 0), ("drop_after", 1), ("hang", 1), ("truncate", 1)])
def test_a_fault_may_lose_the_answer(fal: Fal, sandbox: SandboxProcess, do: str, executions: int) -> None:
    sandbox.add_faults([{"on": "run", "do": do}])
    with pytest.raises(httpx.TransportError):
        direct(fal, KITE, timeout=0.5)
    assert sandbox.ledger()["count"] == executions


@pytest.mark.parametrize("do", ["corrupt", "wrong_type"])
def test_a_fault_may_spoil_the_answer(fal: Fal, sandbox: SandboxProcess, do: str) -> None:
    sandbox.add_faults([{"on": "run", "do": do}])
    with pytest.raises(ValueError, match=r"Expecting|Extra|line"):
        direct(fal, KITE).json()


def test_files_of_a_direct_call_get_the_names_of_its_own_place(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "run", "do": "names"}])
    names = [direct(fal, KITE).json()["images"][0]["file_name"] for _ in range(3)]
    assert len(set(names)) == 3
