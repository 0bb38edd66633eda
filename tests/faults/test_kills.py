"""The same command again: nothing to do, one thing to do, and who does it. Kills are in the files beside this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.harness import (
    Client,
    assert_nothing_charged_twice,
    wait_until,
)
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from pathlib import Path


def calls(fal: SandboxProcess) -> dict[str, object]:
    """Every call that a client made so far, by route and status."""
    return {route: count for route, count in fal.stats()["requests"].items() if route != "sandbox"}


def submits(fal: SandboxProcess) -> int:
    """Submits that fal answered so far."""
    return int(sum(fal.stats()["requests"].get("submit", {}).values()))


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
        with client.start("--where", "row.value >= 360") as process:
            wait_until(lambda: submits(fal) >= 16, seconds=30, what="requests are at fal")
            process.kill()
        at_fal = client.query("SELECT count(*) FROM jobs WHERE state = 'submitted'")[0][0]
        code, report = client.run()
        ledger = fal.ledger()

    assert at_fal >= 8, "the first run had requests at fal when it was killed"
    assert report["states"]["done"] + report["states"]["unknown"] + report["states"]["failed"] == 400
    assert code in {0, 3}
    failed = sum(execution["status_code"] != 200 for execution in ledger["executions"])
    assert ledger["count"] - failed == report["states"]["done"]
