"""The promise of the main job: whatever happens in the night, the same command goes on, and nothing is paid twice."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.faults.harness import (
    Client,
    assert_files_whole,
    assert_nothing_charged_twice,
)
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from pathlib import Path

JOBS = 300
KILLS = 10
SEED = 20_261_121


def calls(fal: SandboxProcess) -> dict[str, object]:
    """Every call that a client made so far, by route and status."""
    return {route: count for route, count in fal.stats()["requests"].items() if route != "sandbox"}


def test_ten_sigkills_over_one_batch_change_nothing(tmp_path: Path) -> None:
    """300 jobs, 20 % of the submits refused, 5 % of the files cut short once, ten SIGKILLs at random moments."""
    chance = random.Random(SEED)
    faults = [
        {"on": "submit", "do": "status:429", "p": 0.2},
        {"on": "file", "do": "truncate", "p": 0.05, "once": "path"},
    ]
    with SandboxProcess("--seed", "7", "--speed", "4", "--concurrency", "40", "--data", str(tmp_path / "fal")) as fal:
        fal.add_faults(faults)
        client = Client.with_jobs(tmp_path, fal, JOBS)
        kills = sum(client.kill_after(chance.uniform(0.6, 1.6)) for _ in range(KILLS))
        code, report = client.run()
        ledger = fal.ledger()

    assert kills >= KILLS // 2, "the batch was over too early to be killed ten times"
    states = report["states"]
    assert states["done"] + states["unknown"] == JOBS
    assert code == (3 if states["unknown"] else 0)
    assert len(report["unknown"]) == states["unknown"]
    assert_nothing_charged_twice(client, ledger)
    assert_files_whole(client)


def test_a_finished_batch_run_again_submits_nothing(tmp_path: Path) -> None:
    with SandboxProcess("--seed", "1", "--speed", "0") as fal:
        client = Client.with_jobs(tmp_path, fal, 20)
        first, _ = client.run()
        before = calls(fal)
        second, report = client.run()
        after = calls(fal)

    assert (first, second) == (0, 0)
    assert report["states"]["done"] == 20
    assert report["run"]["submitted"] == 0
    assert before == after, "not a single call was made"


def test_one_row_added_is_one_job_run(tmp_path: Path) -> None:
    with SandboxProcess("--seed", "1", "--speed", "0") as fal:
        Client.with_jobs(tmp_path, fal, 20).run()
        client = Client.with_jobs(tmp_path, fal, 21)
        code, report = client.run()
        ledger = fal.ledger()

    assert code == 0
    assert report["run"]["submitted"] == 1
    assert ledger["count"] == 21
    assert_nothing_charged_twice(client, ledger)


def test_a_request_of_an_earlier_run_that_fails_is_tried_again_by_one_coroutine(tmp_path: Path) -> None:
    """While it waits for its next attempt it is planned again; the feeder leaves it alone."""
    with SandboxProcess("--seed", "4", "--speed", "0.4", "--concurrency", "1000") as fal:
        client = Client.with_jobs(tmp_path, fal, 400)
        manifest = tmp_path / "kills.yaml"
        text = manifest.read_text().replace("first_s: 0.05, cap_s: 0.4", "first_s: 4, cap_s: 4")
        manifest.write_text(text + "budget: {max_equal_failures: null}\n")
        fal.add_faults([{"on": "submit", "do": "fail:runner_disconnected", "times": 40}])
        assert client.kill_after(1.3, "--where", "row.value >= 360")
        at_fal = client.query("SELECT count(*) FROM jobs WHERE state = 'submitted'")[0][0]
        code, report = client.run()
        ledger = fal.ledger()

    assert at_fal >= 8, "the first run had requests at fal when it was killed"
    assert report["states"]["done"] + report["states"]["unknown"] + report["states"]["failed"] == 400
    assert code in {0, 3}
    failed = sum(execution["status_code"] != 200 for execution in ledger["executions"])
    assert ledger["count"] - failed == report["states"]["done"]


def test_the_sandbox_may_die_as_well(tmp_path: Path) -> None:
    """fal going away for a moment is an interruption like any other: the run waits, and ends whole."""
    with SandboxProcess("--seed", "3", "--speed", "2", "--data", str(tmp_path / "fal")) as fal:
        client = Client.with_jobs(tmp_path, fal, 60)
        assert client.kill_after(1.2)
        fal.kill()
        fal.start()
        code, report = client.run()
        ledger = fal.ledger()

    states = report["states"]
    assert states["done"] + states["unknown"] == 60
    assert code == (3 if states["unknown"] else 0)
    assert_nothing_charged_twice(client, ledger)
    assert_files_whole(client)
