"""A sandbox that keeps a folder: killed at any point, it loses no request id and no execution."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.sandbox.conftest import KEY, Fal
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from pathlib import Path

KITE = {"prompt": "a red kite", "image_size": {"width": 64, "height": 64}}


def test_a_killed_sandbox_goes_on_under_the_same_urls_with_nothing_lost(tmp_path: Path) -> None:
    args = ("--data", str(tmp_path), "--speed", "5", "--concurrency", "4")
    with SandboxProcess(*args) as process:
        fal = Fal(process.origin)
        done = fal.submit({**KITE, "seed": 0}, "fal-ai/flux/schnell")
        output = fal.result(done).json()
        bytes_before = fal.file(output["images"][0]["url"]).content
        others = [fal.submit({**KITE, "seed": n}) for n in range(1, 12)]
        cancelled = fal.submit(KITE)
        assert fal.cancel(cancelled).status_code == 200
        process.kill()
    with SandboxProcess(*args) as process:
        assert process.origin == fal.origin
        assert fal.get(done["response_url"]).json() == output
        assert fal.file(output["images"][0]["url"]).content == bytes_before
        assert fal.status(cancelled)["error_type"] == "client_cancelled"
        for request in others:
            assert fal.result(request).status_code == 200
        ledger = process.ledger()
        assert [entry["input"]["seed"] for entry in ledger["executions"]] == list(range(12))
        assert all(entry["status_code"] == 200 for entry in ledger["executions"])
        ids = {entry["request_id"] for entry in ledger["executions"]}
        assert ids == {request["request_id"] for request in [done, *others]}
        assert fal.submit(KITE)["request_id"] not in ids | {cancelled["request_id"]}
    fal.close()


def test_every_id_handed_out_under_load_survives_a_kill(tmp_path: Path) -> None:
    with SandboxProcess("--data", str(tmp_path), "--speed", "0") as process:
        accepted: list[list[str]] = [[] for _ in range(6)]

        def hammer(mine: list[str]) -> None:
            with httpx.Client(headers=KEY, verify=False, trust_env=False) as client:
                while True:
                    try:
                        reply = client.post(f"{process.origin}/queue/fal-ai/flux", json=KITE)
                        mine.append(reply.json()["request_id"])
                    except (httpx.HTTPError, ValueError):
                        return

        threads = [threading.Thread(target=hammer, args=(mine,)) for mine in accepted]
        for thread in threads:
            thread.start()
        while sum(map(len, accepted)) < 150:
            threads[0].join(0.005)
        process.kill()
        for thread in threads:
            thread.join(10)
    with SandboxProcess("--data", str(tmp_path)) as process:
        kept = {entry["request_id"] for entry in process.ledger()["executions"]}
    handed_out = [request_id for mine in accepted for request_id in mine]
    assert len(handed_out) == len(set(handed_out)) >= 150
    assert set(handed_out) <= kept


def test_planned_failures_faults_and_locks_survive_a_kill(tmp_path: Path) -> None:
    args = ("--data", str(tmp_path), "--speed", "4")
    with SandboxProcess(*args) as process:
        fal = Fal(process.origin)
        process.add_faults([{"on": "submit", "do": "fail:runner_disconnected", "nth": 1}])
        process.add_faults([{"on": "submit", "do": "status:503", "nth": 3}])
        process.lock(key_id="other")
        doomed = fal.submit(KITE)
        fal.submit(KITE)
        process.kill()
    with SandboxProcess(*args) as process:
        assert [(rule["seen"], rule["fired"]) for rule in process.faults()] == [(2, 1), (2, 0)]
        assert fal.post(KITE).status_code == 503
        assert fal.post(KITE, headers={"Authorization": "Key other:x"}).status_code == 403
        assert fal.result(doomed).status_code == 503
    fal.close()


def test_a_start_deadline_counts_while_the_sandbox_is_down(tmp_path: Path) -> None:
    args = ("--data", str(tmp_path), "--concurrency", "1")
    with SandboxProcess(*args) as process:
        fal = Fal(process.origin)
        fal.submit(KITE, "fal-ai/kling-video/x")
        request = fal.submit(KITE, headers={"X-Fal-Request-Timeout": "0.2"})
        process.kill()
    with SandboxProcess(*args) as process:
        fal.until(request, "COMPLETED")
        assert fal.get(request["response_url"]).headers["x-fal-request-timeout-type"] == "user"
    with SandboxProcess(*args) as process:  # after a proper stop as well
        assert fal.get(request["response_url"]).status_code == 504
    fal.close()


def test_a_reset_is_kept_and_ids_go_on(tmp_path: Path) -> None:
    args = ("--data", str(tmp_path), "--seed", "3", "--speed", "0")
    with SandboxProcess(*args) as process:
        fal = Fal(process.origin)
        first = fal.submit(KITE)["request_id"]
        process.reset()
        second = fal.submit(KITE)["request_id"]
        process.kill()
    with SandboxProcess(*args) as process:
        assert [entry["request_id"] for entry in process.ledger()["executions"]] == [second]
        assert len({first, second, fal.submit(KITE)["request_id"]}) == 3
    fal.close()


def test_the_key_is_in_no_file(tmp_path: Path) -> None:
    with SandboxProcess("--data", str(tmp_path), "--key", "me:verysecret") as process:
        fal = Fal(process.origin, {"Authorization": "Key me:verysecret"})
        fal.submit(KITE)
        fal.close()
        process.kill()
    assert all(b"verysecret" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_the_same_seed_gives_the_same_ids_faults_timings_and_seeds(tmp_path: Path) -> None:
    scenario = tmp_path / "s.yaml"
    scenario.write_text("seed: 11\nspeed: 100\nfaults: [{on: submit, do: 'status:429', p: 0.3}]")
    runs: list[list[Any]] = []
    for extra in ((), (), ("--seed", "12")):
        with SandboxProcess("--scenario", str(scenario), *extra) as process:
            fal = Fal(process.origin)
            replies = [fal.post({**KITE, "n": n}, "fal-ai/flux/schnell") for n in range(20)]
            outputs = [fal.result(reply.json()).json() for reply in replies if reply.status_code == 200]
            executions = process.ledger()["executions"]
            fal.close()
        lengths = [round(e["ended_at"] - e["started_at"], 4) for e in executions]
        ids = [e["request_id"] for e in executions]
        runs.append([[r.status_code for r in replies], ids, lengths, [output["seed"] for output in outputs]])
    assert runs[0] == runs[1]
    assert {200, 429} == set(runs[0][0])
    assert all(one != other for one, other in zip(runs[0], runs[2], strict=True))


def test_a_damaged_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "sandbox.db").write_bytes(b"not a database, by far" * 100)
    with pytest.raises(RuntimeError, match="damaged or no sandbox state"):
        SandboxProcess("--data", str(tmp_path)).start()
    assert (tmp_path / "sandbox.db").read_bytes().startswith(b"not a database")


def test_a_folder_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "sandbox.db") as db:
        db.execute("pragma user_version=99")
    db.close()
    with pytest.raises(RuntimeError, match="newer falbatch"):
        SandboxProcess("--data", str(tmp_path)).start()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with (
        SandboxProcess("--data", str(tmp_path)),
        pytest.raises(RuntimeError, match="another sandbox is using"),
    ):
        SandboxProcess("--data", str(tmp_path)).start()


def test_damage_deep_in_the_file_is_said_too(tmp_path: Path) -> None:
    with SandboxProcess("--data", str(tmp_path), "--speed", "0") as process:
        fal = Fal(process.origin)
        for seed in range(60):
            fal.submit({**KITE, "seed": seed, "filler": "x" * 400})
        fal.close()
    file = tmp_path / "sandbox.db"
    content = bytearray(file.read_bytes())
    assert len(content) > 20_000
    content[8192:] = b"\xa5" * (len(content) - 8192)
    file.write_bytes(content)
    with pytest.raises(RuntimeError, match="damaged or no sandbox state"):
        SandboxProcess("--data", str(tmp_path)).start()


def test_a_folder_from_before_direct_calls_is_brought_up_to_date(tmp_path: Path) -> None:
    with SandboxProcess("--data", str(tmp_path), "--speed", "0") as process:
        fal = Fal(process.origin)
        request = fal.submit(KITE)
        output = fal.result(request).json()
    with sqlite3.connect(tmp_path / "sandbox.db") as db:
        db.executescript("alter table requests drop column via; pragma user_version=1;")
    with SandboxProcess("--data", str(tmp_path), "--speed", "0") as process:
        assert fal.result(request).json() == output
        assert process.request(request["request_id"])["via"] == "queue"
        assert fal.http.post(f"{fal.origin}/run/fal-ai/flux/dev", json=KITE).status_code == 200
        assert process.ledger()["count"] == 2
        fal.close()


def test_a_direct_call_loses_its_caller_with_the_process_and_stops_where_apps_do(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text("cancel_running: stop\n")
    with SandboxProcess("--data", str(tmp_path / "data"), "--scenario", str(scenario)) as process:
        fal = Fal(process.origin)
        with fal.http.stream("POST", f"{fal.origin}/run/fal-ai/flux-pro/stream", json=KITE):
            process.kill()
        process.start()
        entry = process.ledger()["executions"][0]
        assert (entry["status_code"], entry["cost"]) == (499, 0.0)
        fal.close()
