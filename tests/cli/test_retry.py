"""Failures, further attempts, unknown jobs: what is done again, what is not, and what it costs."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import MANIFEST, started, states
from tests.faults.harness import wait_until

if TYPE_CHECKING:
    from tests.cli.conftest import Shell


AT_ONCE = ("--reconcile-wait", "0")
"""Look for submits without an answer once, instead of until they can be hoped for no more."""


def failing(shell: Shell, error_type: str, times: int = 1) -> dict[str, Any]:
    """Run the small manifest while `times` executions fail with `error_type`; the report."""
    shell.write("small.yaml", MANIFEST + "retry: {attempts: 2, first_s: 0.05}\n")
    shell.sandbox.add_faults([{"on": "submit", "do": f"fail:{error_type}", "times": times}])
    ran = shell.falbatch("run", "small.yaml", "--json")
    shell.sandbox.clear_faults()
    return {"code": ran.code, **ran.objects()[-1]}


def test_a_failed_job_is_a_result_with_a_reason_and_advice(shell: Shell) -> None:
    report = failing(shell, "content_policy_violation")
    assert report["code"] == 3
    assert report["states"]["done"] == 3
    (group,) = report["failures"]
    assert (group["error_type"], group["count"]) == ("content_policy_violation", 1)
    assert "prompt" in group["advice"]


def test_a_failure_worth_it_is_tried_again_and_only_then(shell: Shell) -> None:
    assert failing(shell, "runner_disconnected")["code"] == 0
    shell.sandbox.reset()
    shutil.rmtree(shell.folder / "out")
    report = failing(shell, "runner_disconnected", times=99)
    assert report["states"]["failed"] == 4
    assert report["executions"] == 8, "two attempts each"


def test_retry_does_failed_jobs_again(shell: Shell) -> None:
    failing(shell, "content_policy_violation", times=2)
    assert shell.falbatch("run", "small.yaml").code == 3, "run alone leaves failed jobs as they are"
    assert shell.submits() == 4
    by_other_name = shell.falbatch("retry", "small.yaml", "--name", "nobody-*")
    assert by_other_name.code == 3
    assert shell.submits() == 4
    again = shell.falbatch("retry", "small.yaml", "--type", "content_policy_violation", "--name", "kite-*")
    assert again.code == 0
    assert shell.submits() == 6


@pytest.mark.parametrize("more", [(), ("--missing-files",), ("--type", "content_policy_violation")])
def test_an_error_type_that_no_failed_job_has_is_questioned(more: tuple[str, ...], shell: Shell) -> None:
    failing(shell, "content_policy_violation", times=2)
    ran = shell.falbatch("retry", "small.yaml", "--type", "content_polcy", *more)
    assert (ran.code, shell.submits()) == (2, 4)
    assert (
        '--type content_polcy: no failed job has this error type (did you mean "content_policy_violation"?)' in ran.err
    )
    assert "On record are: content_policy_violation (2)." in ran.err


def test_where_nothing_failed_there_is_nothing_to_question(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    assert shell.falbatch("run", "small.yaml", "--limit", "2").code == 0
    ran = shell.falbatch("retry", "small.yaml", "--type", "runner_disconnected")
    assert (ran.code, shell.submits()) == (0, 4), "jobs that were never submitted are"


def test_run_retry_failed_does_the_same(shell: Shell) -> None:
    failing(shell, "content_policy_violation")
    assert shell.falbatch("run", "small.yaml", "--retry-failed").code == 0


def test_retry_missing_files_fetches_them_again_at_no_charge(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    shell.falbatch("run", "small.yaml")
    lost = shell.folder / "out" / "kite-2.jpg"
    content = lost.read_bytes()
    lost.unlink()
    ran = shell.falbatch("retry", "small.yaml", "--missing-files")
    assert ran.code == 0
    assert lost.read_bytes() == content
    assert shell.submits() == 4


def test_retry_missing_files_submits_nothing(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    shell.falbatch("run", "small.yaml", "--limit", "1")
    (shell.folder / "out" / "kite-0.jpg").unlink()
    ran = shell.falbatch("retry", "small.yaml", "--missing-files")
    assert ran.code == 0
    assert (shell.folder / "out" / "kite-0.jpg").exists()
    assert shell.submits() == 1


def test_retry_missing_files_asks_for_no_money_and_checks_nothing_that_it_would_not_send(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    assert shell.falbatch("run", "small.yaml", "--limit", "1").code == 0
    shell.write("small.yaml", MANIFEST.replace('kite"', 'kite", num_images: "{{ 99 if seed == 3 else omit }}"'))
    assert shell.falbatch("plan", "small.yaml").code == 2, "the last job would be refused"
    shell.sandbox.add_faults([{"on": "platform", "do": "status:500"}])
    for words in ((), ("--max-cost", "1.00")):
        (shell.folder / "out" / "kite-0.jpg").unlink()
        missing = ("retry", "small.yaml", "--missing-files", "--json", *words)
        ran = shell.falbatch(*missing)
        assert ran.code == 0, ran.err
        plan, *_ = ran.objects()
        assert (plan["actions"]["submit"], plan["actions"]["download"], plan["cost"]) == (0, 1, None)
        assert (shell.folder / "out" / "kite-0.jpg").exists()
    shell.sandbox.clear_faults()
    assert shell.submits() == 1
    # Nor at a fal that may cost.
    elsewhere = ("retry", "small.yaml", "--missing-files", "--output", "elsewhere")
    assert "billed" not in shell.falbatch(*elsewhere, FALBATCH_RUN_URL="https://run.fal.example").err


def test_a_link_that_was_dead_can_be_asked_for_again_at_no_charge(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST + "retry: {first_s: 0.05}\n")
    shell.sandbox.add_faults([{"on": "file", "do": "status:404"}])
    dead = shell.falbatch("run", "small.yaml", "--limit", "1")
    shell.sandbox.clear_faults()
    assert dead.code == 3
    assert "--missing-files" in dead.out
    assert shell.falbatch("retry", "small.yaml", "--missing-files").code == 0
    assert (shell.folder / "out" / "kite-0.jpg").exists()
    assert shell.submits() == 1


def test_a_passing_error_of_the_results_door_is_not_paid_for_twice(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    shell.sandbox.add_faults([{"on": "result", "do": "status:500", "times": 1}])
    ran = shell.falbatch("run", "small.yaml")
    shell.sandbox.clear_faults()
    assert ran.code == 0
    assert shell.submits() == 4


def test_a_retry_that_is_refused_leaves_everything_as_it_was(shell: Shell) -> None:
    failing(shell, "content_policy_violation")
    ran = shell.falbatch("retry", "small.yaml", "--sandbox")
    assert ran.code == 6, "the batch is not the built-in sandbox's"
    assert states(shell) == {"done": 3, "failed": 1}


def test_only_the_chosen_part_of_the_unknown_jobs_is_submitted_again(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    shell.sandbox.add_faults([{"on": "submit", "do": "drop_before"}])
    shell.falbatch("run", "small.yaml", *AT_ONCE)
    shell.sandbox.clear_faults()
    assert states(shell) == {"unknown": 4}
    shell.falbatch("run", "small.yaml", "--resubmit-unknown", "--limit", "1", *AT_ONCE)
    assert states(shell) == {"unknown": 3, "done": 1}
    shell.falbatch("run", "small.yaml", *AT_ONCE)
    assert shell.submits() == 5


def test_an_edited_job_and_its_namesake_that_comes_home_keep_their_own_files(shell: Shell) -> None:
    """Both download at the same time, under the same name."""
    shell.write("small.yaml", MANIFEST.replace("[0, 4]", "[0, 1]"))
    shell.sandbox.add_faults([{"on": "status", "do": "delay:30"}])
    with started(shell, "run", "small.yaml") as run:
        wait_until(lambda: states(shell) == {"submitted": 1}, seconds=20, what="a request on record")
        run.kill()
    shell.sandbox.clear_faults()
    shell.sandbox.add_faults([{"on": "file", "do": "delay:1"}])
    shell.write("small.yaml", MANIFEST.replace("[0, 4]", "[0, 1]").replace("a kite", "another kite"))
    ran = shell.falbatch("run", "small.yaml")
    shell.sandbox.clear_faults()
    assert ran.code == 0
    files = {path.read_bytes() for path in (shell.folder / "out").glob("kite-0*.jpg")}
    assert len(files) == 2


def test_a_reader_that_goes_away_does_not_stop_the_run(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST.replace("[0, 4]", "[0, 12]"))
    shell.sandbox.add_faults([{"on": "status", "do": "delay:1"}])
    with started(shell, "run", "small.yaml") as run:
        assert run.stderr is not None
        run.stderr.readline()
        run.stderr.close()
        assert run.wait(timeout=40) == 0
    shell.sandbox.clear_faults()
    assert states(shell) == {"done": 12}


def test_a_failure_limit_stops_feeding(shell: Shell) -> None:
    text = MANIFEST.replace("[0, 4]", "[0, 40]") + "limits: {in_flight: 1}\nbudget: {max_failures: 2}\n"
    shell.write("small.yaml", text)
    shell.sandbox.add_faults([{"on": "submit", "do": "fail:content_policy_violation"}])
    ran = shell.falbatch("run", "small.yaml", "--json")
    shell.sandbox.clear_faults()
    report = ran.objects()[-1]
    assert ran.code == 7
    assert "max_failures" in report["run"]["stopped_by"]
    assert report["states"]["failed"] == 3
    assert report["states"]["planned"] == 37


def test_an_unanswered_submit_is_unknown_and_repeated_only_when_told(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    shell.sandbox.add_faults([{"on": "submit", "do": "drop_before", "nth": 2}])
    first = shell.falbatch("run", "small.yaml", "--json", *AT_ONCE)
    shell.sandbox.clear_faults()
    report = first.objects()[-1]
    assert first.code == 3
    assert report["states"] == {**dict.fromkeys(report["states"], 0), "done": 3, "unknown": 1}
    assert json.loads(report["unknown"][0]["input_json"])["prompt"] == "a kite"
    assert shell.submits() == 4

    again = shell.falbatch("run", "small.yaml", *AT_ONCE)
    assert again.code == 3
    assert "may have run and been charged" in again.out
    assert shell.submits() == 4, "never by itself"

    assert shell.falbatch("run", "small.yaml", "--resubmit-unknown", *AT_ONCE).code == 0
    assert shell.submits() == 5
