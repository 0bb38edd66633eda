"""Submits without an answer: found in fal's own list and brought home, or said, and submitted again when told only."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import MANIFEST, Shell, started, states
from tests.faults.harness import wait_until
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Ran

AT_ONCE = ("--reconcile-wait", "0")
PLATFORM_DOWN = {"on": "platform", "do": "status:503"}


@contextmanager
def faults(shell: Shell, *rules: dict[str, Any]) -> Iterator[None]:
    """fal misbehaves for a while."""
    shell.sandbox.add_faults(rules)
    try:
        yield
    finally:
        shell.sandbox.clear_faults()


def inputs(shell: Shell) -> list[int]:
    """The seeds that fal has run, each as often as it did."""
    return sorted(execution["input"]["seed"] for execution in shell.sandbox.ledger()["executions"])


def report_of(ran: Ran) -> dict[str, Any]:
    return ran.objects()[-1]


def lose(shell: Shell, *rules: dict[str, Any]) -> None:
    """A run over four jobs that looks for its lost submits once, while fal's list is down."""
    shell.write("small.yaml", MANIFEST)
    with faults(shell, *rules, PLATFORM_DOWN):
        ran = shell.falbatch("run", "small.yaml", *AT_ONCE)
    assert ran.code == 3
    assert "fal's request list could not be read" in ran.out


SWALLOWED = {"on": "submit", "do": "drop_after", "nth": 2}
"""The second submit is accepted, its answer lost."""
NEVER_THERE = {"on": "submit", "do": "drop_before", "nth": 2}
"""The second submit does not arrive, and nobody can tell."""


@pytest.mark.parametrize("rule", [SWALLOWED, {"on": "submit", "do": "drop_after"}], ids=["one", "all"])
def test_a_run_finds_what_fal_accepted_without_an_answer_and_finishes(shell: Shell, rule: dict[str, Any]) -> None:
    shell.write("small.yaml", MANIFEST)
    with faults(shell, rule):
        ran = shell.falbatch("run", "small.yaml", "--json")
    assert ran.code == 0
    assert report_of(ran)["states"]["done"] == 4
    assert report_of(ran)["run"]["found"] == (1 if "nth" in rule else 4)
    assert "still unknown" in ran.err
    assert inputs(shell) == [0, 1, 2, 3]
    assert shell.submits() == 4


def test_replicas_of_one_input_are_found_as_many_as_there_are(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST.replace("[0, 4]", "[0, 1]").replace('"kite-{{ seed }}"', "null") + "repeat: 5\n")
    swallowed = {"on": "submit", "do": "drop_after", "times": 2}
    with faults(shell, swallowed, {"on": "submit", "do": "drop_before", "times": 1}):
        ran = shell.falbatch("run", "small.yaml", "--json", "--reconcile-wait", "1")
    assert ran.code == 3
    assert report_of(ran)["states"] | {"done": 4, "unknown": 1} == report_of(ran)["states"]
    assert shell.sandbox.ledger()["count"] == 4


def test_what_fal_does_not_list_stays_unknown_and_is_listed_with_its_input_and_time(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    with faults(shell, NEVER_THERE):
        ran = shell.falbatch("run", "small.yaml", *AT_ONCE)
    assert ran.code == 3
    assert "unknown: 1 (their submits got no answer" in ran.out
    assert re.search(r"kite-\d  20\d\d-\d\d-\d\d \d\d:\d\d:\d\d  \{.*\"prompt\":\"a kite\"", ran.out)
    assert "falbatch reconcile" in ran.out
    (told,) = shell.falbatch("status", "small.yaml", "--json").objects()
    assert json.loads(told["unknown"][0]["input_json"])["prompt"] == "a kite"


def test_unknown_jobs_are_submitted_again_when_told_with_a_warning(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST + "budget: {max_cost: 1}\n")
    with faults(shell, NEVER_THERE):
        shell.falbatch("run", "small.yaml", *AT_ONCE)
    assert shell.submits() == 4
    ran = shell.falbatch("run", "small.yaml", "--resubmit-unknown", "--yes", "--json", *AT_ONCE)
    assert ran.code == 0
    assert "warning: 1 of them are unknown jobs" in ran.err
    assert "charged a second time (up to $0.003 more)" in ran.err
    assert ran.objects()[0]["resubmitted_unknown"] == 1
    assert states(shell) == {"done": 4}
    assert inputs(shell) == [0, 1, 2, 3]


def test_before_unknown_jobs_are_submitted_again_they_are_looked_for(shell: Shell) -> None:
    lose(shell, SWALLOWED)
    ran = shell.falbatch("run", "small.yaml", "--resubmit-unknown", "--yes", *AT_ONCE)
    assert ran.code == 0
    assert "warning" not in ran.err
    assert inputs(shell) == [0, 1, 2, 3]
    assert shell.submits() == 4


def test_reconcile_settles_later_what_a_run_could_not(shell: Shell) -> None:
    lose(shell, SWALLOWED)
    assert states(shell) == {"done": 3, "unknown": 1}
    ran = shell.falbatch("reconcile", "small.yaml")
    assert ran.code == 0
    assert "1 submits without an answer were found in fal's request list" in ran.out
    assert states(shell) == {"done": 4}
    assert len(list((shell.folder / "out").glob("kite-*.jpg"))) == 4
    assert shell.submits() == 4
    assert shell.falbatch("reconcile", "small.yaml").code == 0, "and again, with nothing to look for"


def test_reconcile_takes_the_output_folder_and_says_it_in_json(shell: Shell) -> None:
    lose(shell, SWALLOWED)
    ran = shell.falbatch("reconcile", "out", "--json", "--wait", "5")
    assert ran.code == 0
    assert (report_of(ran)["event"], report_of(ran)["run"]["found"]) == ("report", 1)


def test_reconcile_submits_nothing(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST.replace("[0, 4]", "[0, 20]") + "limits: {in_flight: 1}\n")
    with faults(shell, SWALLOWED, PLATFORM_DOWN, {"on": "submit", "do": "lock", "nth": 5}):
        shell.falbatch("run", "small.yaml", *AT_ONCE)
    shell.sandbox.lock(locked=False)
    before = shell.submits()
    ran = shell.falbatch("reconcile", "small.yaml", "--wait", "1")
    assert ran.code == 0, "planned jobs are not missed: nobody asked for them"
    assert shell.submits() == before
    assert "planned" in states(shell)


def test_a_found_request_that_failed_is_a_failed_job_and_no_limit(shell: Shell) -> None:
    """A limit on failures is about what is submitted, and here nothing is."""
    shell.write("small.yaml", MANIFEST + 'budget: {max_failures: "50%"}\n')
    failing = {"on": "submit", "do": "fail:content_policy_violation", "times": 1}
    with faults(shell, failing, {**SWALLOWED, "nth": 1}, PLATFORM_DOWN):
        shell.falbatch("run", "small.yaml", "--limit", "1", *AT_ONCE)
    assert states(shell) == {"unknown": 1}
    ran = shell.falbatch("reconcile", "small.yaml", "--wait", "1")
    assert states(shell) == {"failed": 1}
    assert ran.code == 3
    assert "max_failures" not in ran.out


def test_what_fal_does_not_know_stays_unknown_after_reconcile(shell: Shell) -> None:
    lose(shell, NEVER_THERE)
    ran = shell.falbatch("reconcile", "small.yaml", "--wait", "0")
    assert ran.code == 3
    assert "unknown: 1" in ran.out
    assert shell.submits() == 4


def test_reconcile_needs_a_batch_that_has_run(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    assert shell.falbatch("reconcile", "small.yaml").code == 6


def test_reconcile_keeps_out_of_a_run_that_goes_on(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    with faults(shell, {"on": "status", "do": "delay:30"}), started(shell, "run", "small.yaml") as run:
        wait_until(lambda: "submitted" in states(shell), seconds=20, what="a request on record")
        ran = shell.falbatch("reconcile", "small.yaml")
        run.kill()
    assert ran.code == 6
    assert "in use" in ran.err


@pytest.mark.parametrize("wait", ["-1", "soon", "nan", "100000"])
def test_a_time_that_is_none_is_refused(shell: Shell, wait: str) -> None:
    assert shell.falbatch("reconcile", "small.yaml", f"--wait={wait}").code == 2


def test_a_list_that_is_down_for_a_moment_is_asked_again(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    with faults(shell, SWALLOWED, {**PLATFORM_DOWN, "times": 3}):
        ran = shell.falbatch("run", "small.yaml", "--json")
    assert ran.code == 0
    assert report_of(ran)["run"]["reconcile_trouble"] == ""
    assert inputs(shell) == [0, 1, 2, 3]


def test_a_list_that_is_down_for_good_leaves_the_job_unknown_with_the_reason(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    with faults(shell, SWALLOWED, PLATFORM_DOWN):
        ran = shell.falbatch("run", "small.yaml", "--json", "--reconcile-wait", "3")
    assert ran.code == 3
    assert "503" in report_of(ran)["run"]["reconcile_trouble"]
    assert report_of(ran)["states"]["unknown"] == 1
    assert shell.falbatch("run", "small.yaml").code == 0, "the next run finds it"
    assert inputs(shell) == [0, 1, 2, 3]


def test_a_key_that_may_not_read_the_list_is_said_and_not_tried_on(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    with faults(shell, SWALLOWED, {"on": "platform", "do": "status:403"}):
        ran = shell.falbatch("run", "small.yaml")
    assert ran.code == 3
    assert "403" in ran.out
    assert states(shell) == {"done": 3, "unknown": 1}


def test_a_submit_of_a_killed_run_is_found_by_the_next(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST.replace("[0, 4]", "[0, 1]"))
    with faults(shell, {"on": "submit", "do": "delay:30"}), started(shell, "run", "small.yaml") as run:
        wait_until(lambda: shell.sandbox.ledger()["count"] == 1, seconds=20, what="a request at fal")
        run.kill()
    assert states(shell) == {"unknown": 1}
    ran = shell.falbatch("run", "small.yaml")
    assert ran.code == 0
    assert states(shell) == {"done": 1}
    assert shell.sandbox.ledger()["count"] == 1


def test_without_kept_payloads_nothing_can_be_found_and_nothing_is_guessed(shell: Shell) -> None:
    shell.write("scenario.yaml", "listing_payloads: false\n")
    shell.write("small.yaml", MANIFEST)
    scenario = str(shell.folder / "scenario.yaml")
    with SandboxProcess("--seed", "5", "--speed", "0", "--scenario", scenario) as sandbox:
        own = Shell(shell.folder, sandbox)
        with faults(own, SWALLOWED):
            ran = own.falbatch("run", "small.yaml", "--reconcile-wait", "1")
        assert ran.code == 3
        assert states(own) == {"done": 3, "unknown": 1}
        assert inputs(own) == [0, 1, 2, 3]


def test_what_the_list_shows_late_is_found_within_the_run(shell: Shell) -> None:
    shell.write("scenario.yaml", "listing_lag_s: 4\n")
    shell.write("small.yaml", MANIFEST)
    scenario = str(shell.folder / "scenario.yaml")
    with SandboxProcess("--seed", "5", "--speed", "0", "--scenario", scenario) as sandbox:
        own = Shell(shell.folder, sandbox)
        with faults(own, SWALLOWED):
            ran = own.falbatch("run", "small.yaml")
        assert ran.code == 0
        assert inputs(own) == [0, 1, 2, 3]


def test_a_job_stays_unknown_until_its_new_submit_has_left(shell: Shell) -> None:
    """The user agreed to a second submit, which then could not be: another run does not take that for a yes."""
    shell.write("small.yaml", MANIFEST)
    with faults(shell, {"on": "submit", "do": "drop_before"}):
        shell.falbatch("run", "small.yaml", *AT_ONCE)
    assert states(shell) == {"unknown": 4}
    agreed = ("run", "small.yaml", "--resubmit-unknown", *AT_ONCE)
    stopped = shell.falbatch(*agreed, "--max-cost", "0")
    assert stopped.code == 7
    assert states(shell) == {"unknown": 4}
    assert shell.falbatch("run", "small.yaml", *AT_ONCE).code == 3
    assert shell.sandbox.ledger()["count"] == 0
    assert shell.falbatch(*agreed).code == 0
    assert inputs(shell) == [0, 1, 2, 3]
