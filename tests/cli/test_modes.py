"""Batches of direct calls, as a user runs them: the same plan, state, limits, downloads and report as the queue's."""

from __future__ import annotations

import json
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.cli.conftest import Shell, started, states
from tests.faults.harness import wait_until
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODES = ("run", "stream", "realtime")
PLATFORM_DOWN = {"on": "platform", "do": "status:503"}
AT_ONCE = ("--reconcile-wait", "0")


def manifest(mode: str, jobs: int = 40, more: str = "", name: str = "kite-{{ seed }}") -> str:
    limits = "connections: 6" if mode == "realtime" else "in_flight: 6"
    return f"""\
version: 1
name: small
endpoint: fal-ai/flux/schnell
mode: {mode}
matrix: {{seed: {{range: [0, {jobs}]}}}}
input: {{prompt: "a kite", image_size: {{width: 64, height: 48}}, output_format: png, seed: "{{{{ seed }}}}"}}
output: {{dir: out, name: "{name}"}}
limits: {{{limits}, submits_per_s: 400}}
retry: {{first_s: 0.02, cap_s: 0.05}}
{more}
"""


@pytest.fixture(scope="module")
def busy() -> Iterator[SandboxProcess]:
    """A fal that runs three at a time and refuses the fourth."""
    with SandboxProcess("--seed", "5", "--speed", "40", "--concurrency", "3") as sandbox:
        yield sandbox


@pytest.fixture
def shell(tmp_path: Path, busy: SandboxProcess) -> Shell:
    """An empty folder, and a fal that has seen nothing."""
    busy.reset()
    busy.clear_faults()
    return Shell(tmp_path, busy)


def seeds(shell: Shell) -> Counter[int]:
    """The inputs that fal has run, each as often as it did."""
    return Counter(execution["input"]["seed"] for execution in shell.sandbox.ledger()["executions"])


def report_of(shell: Shell, *words: str, code: int = 0) -> dict[str, Any]:
    ran = shell.falbatch("run", "small.yaml", "--json", *words)
    assert ran.code == code, ran.out + ran.err
    return ran.objects()[-1]


def count(report: dict[str, Any]) -> dict[str, int]:
    return {state: count for state, count in report["states"].items() if count}


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_is_done_through_refusals_and_lost_answers_each_paid_for_once(shell: Shell, mode: str) -> None:
    """fal takes three at a time of six, and loses three answers while its list is down; later the list has them."""
    shell.write("small.yaml", manifest(mode))
    shell.sandbox.add_faults([{"on": mode, "do": "drop_after", "times": 3}, PLATFORM_DOWN])
    report = report_of(shell, *AT_ONCE, code=3)
    assert count(report) == {"done": 37, "unknown": 3}
    assert len(report["unknown"]) == 3
    assert report["run"]["refusals"] > 0
    assert report["run"]["status_calls"] == 0
    assert max(seeds(shell).values()) == 1, "nothing is repeated by itself"
    shell.sandbox.clear_faults()
    wait_until(lambda: seeds(shell).total() == 40, seconds=10, what="fal runs what it took")
    report = report_of(shell, "--reconcile-wait", "4")
    assert (count(report), report["run"]["found"], report["mode"]) == ({"done": 40}, 3, mode)
    assert (report["executions"], shell.submits()) == (40, 0)
    assert seeds(shell) == Counter(range(40))
    look_at_files(shell, mode)


def look_at_files(shell: Shell, mode: str) -> None:
    """40 whole pictures; for streams all events beside them, the last one the result; ids as fal has them."""
    exported = shell.falbatch("export", "small.yaml").objects()
    ids = {execution["request_id"] for execution in shell.sandbox.ledger()["executions"]}
    assert {job["request_id"] for job in exported} == ids
    told = 0
    for job in exported:
        paths = [shell.folder / "out" / file["path"] for file in job["files"]]
        assert paths[0].name == f"kite-{job['input']['seed']}.png"
        with Image.open(paths[0]) as picture:
            picture.load()
            assert picture.size == (64, 48)
        if len(paths) > 1:
            assert paths[1].name == f"kite-{job['input']['seed']}.events.jsonl"
            events = [json.loads(line) for line in paths[1].read_bytes().splitlines()]
            assert len(events) > 1
            assert events[-1] == job["result"]
            told += 1
    assert told == (37 if mode == "stream" else 0), "what came from fal's list has no events"


def test_without_an_output_in_the_list_a_job_stays_unknown_until_the_user_s_word(shell: Shell) -> None:
    shell.write("small.yaml", manifest("run", 4, "request: {store_io: false}\n"))
    shell.sandbox.add_faults([{"on": "run", "do": "drop_after", "nth": 2}])
    assert count(report_of(shell, *AT_ONCE, code=3)) == {"done": 3, "unknown": 1}
    shell.sandbox.clear_faults()
    assert count(report_of(shell, "--resubmit-unknown", "--yes", *AT_ONCE)) == {"done": 4}
    assert sorted(seeds(shell).values()) == [1, 1, 1, 2]


@pytest.mark.parametrize("mode", MODES)
def test_failures_of_every_kind_are_told_apart(shell: Shell, mode: str) -> None:
    """A door in trouble before anything is carried out, and an outcome of the job's own."""
    shell.write("small.yaml", manifest(mode, 6))
    never_sent = {"on": mode, "do": "status:503" if mode == "realtime" else "status:429", "times": 2}
    own = {"on": mode, "do": "fail:content_policy_violation", "endpoint": "*", "p": 1.0, "times": 1}
    shell.sandbox.add_faults([never_sent, own])
    report = report_of(shell, code=3)
    assert count(report) == {"done": 5, "failed": 1}
    (group,) = report["failures"]
    assert group["error_type"] == ("internal_error" if mode == "realtime" else "content_policy_violation")
    assert seeds(shell) == Counter(range(6))


def test_a_locked_account_stops_the_run_and_marks_nothing_failed(shell: Shell) -> None:
    shell.write("small.yaml", manifest("realtime", 5))
    shell.sandbox.lock()
    assert count(report_of(shell, code=4)) == {"planned": 5}
    shell.write("small.yaml", manifest("run", 5))
    assert count(report_of(shell, code=4)) == {"planned": 5}
    shell.sandbox.lock(locked=False)
    assert seeds(shell).total() == 0


def test_a_stopped_run_waits_for_answers_until_the_second_signal(shell: Shell) -> None:
    shell.write("small.yaml", manifest("run", 30).replace("in_flight: 6", "in_flight: 3"))
    shell.sandbox.add_faults([{"on": "run", "do": "delay:0.5", "times": 2}, {"on": "run", "do": "hang"}])
    with started(shell, "run", "small.yaml") as process:
        wait_until(lambda: seeds(shell).total() == 3, seconds=20, what="calls are under way")
        process.send_signal(signal.SIGINT)
        wait_until(lambda: states(shell).get("completed") == 2, seconds=20, what="two answers are home")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"3 direct calls are under way and paid for" in errors
    assert states(shell) == {"completed": 2, "unknown": 1, "planned": 27}
    assert "mode: run" in shell.falbatch("status", "small.yaml").out
    assert "direct calls cannot be cancelled" in shell.falbatch("cancel", "small.yaml").out


def test_a_fal_without_a_host_for_direct_calls_is_refused_before_anything_is_on_record(shell: Shell) -> None:
    shell.write("small.yaml", manifest("run", 2))
    queue = "https://queue.example.com"
    ran = shell.falbatch("run", "small.yaml", "--yes", FALBATCH_ORIGIN=None, FALBATCH_QUEUE_URL=queue)
    assert ran.code == 2, ran.err
    assert "host for direct calls" in ran.err or "FALBATCH_RUN_URL" in ran.err
    assert states(shell) == {}


def test_money_is_bounded_as_for_the_queue(shell: Shell) -> None:
    shell.write("small.yaml", manifest("run", 10, "budget: {max_cost: 0.012, unit_price: 0.003}\n"))
    report = report_of(shell, code=7)
    assert count(report) == {"done": 4, "planned": 6}
    assert report["spent"] == pytest.approx(0.012)
