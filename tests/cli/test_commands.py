"""What each command does for a user who types it."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.cli.conftest import MANIFEST, SMALL_DISK, Shell, started, states
from tests.faults.harness import wait_until
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from pathlib import Path


def test_run_leaves_pictures_under_their_names(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    ran = shell.falbatch("run", "small.yaml")

    assert ran.code == 0
    assert "4 of 4 done" in ran.out
    assert "files: out" in ran.out
    assert "4/4 done" in ran.err, "without a terminal a plain line tells how it goes"
    for seed in range(4):
        with Image.open(shell.folder / "out" / f"kite-{seed}.jpg") as picture:
            picture.load()
            assert picture.size == (64, 64)


def test_run_twice_says_that_nothing_is_to_do(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    shell.falbatch("run", "small.yaml")
    ran = shell.falbatch("run", "small.yaml")
    assert ran.code == 0
    assert "nothing to do, 4 of 4 jobs are done" in ran.out
    assert shell.submits() == 4


def test_plan_shows_counts_reasons_and_first_jobs_and_submits_nothing(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    ran = shell.falbatch("plan", "small.yaml")

    assert ran.code == 0
    assert "4 jobs" in ran.out
    assert "new" in ran.out
    assert '"prompt": "a kite"' in ran.out
    assert not (shell.folder / "out").exists()
    assert shell.submits() == 0


def test_plan_after_an_edit_shows_added_changed_and_orphaned(shell: Shell) -> None:
    """The name kite-3 now means another job, kite-4 is new, seed 0 has left."""
    shell.write("small.yaml", MANIFEST)
    shell.falbatch("run", "small.yaml")
    edited = MANIFEST.replace("[0, 4]", "[1, 5]").replace('"a kite"', "\"a {{ 'red ' if seed == 3 else '' }}kite\"")
    shell.write("small.yaml", edited)
    *jobs, plan = shell.falbatch("plan", "small.yaml", "--json").objects()

    assert plan["changes"] == {"added": 1, "changed": 1, "unchanged": 2}
    assert plan["orphaned"] == 2
    assert plan["actions"] == {"submit": 2, "wait": 0, "download": 0, "skip": 2}
    assert [(job["name"], job["change"], job["reason"]) for job in jobs] == [
        ("kite-1", "unchanged", "done"),
        ("kite-2", "unchanged", "done"),
        ("kite-3", "changed", "new"),
        ("kite-4", "added", "new"),
    ]
    text = shell.falbatch("plan", "small.yaml").out
    assert "changed   kite-3" in text
    assert "orphaned  kite-0" in text


def test_an_edited_manifest_runs_exactly_what_changed_and_overwrites_nothing(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    shell.falbatch("run", "small.yaml")
    old = (shell.folder / "out" / "kite-3.jpg").read_bytes()
    shell.write("small.yaml", MANIFEST.replace('"a kite"', "\"a {{ 'red ' if seed == 3 else '' }}kite\""))
    ran = shell.falbatch("run", "small.yaml", "--json")

    assert ran.objects()[-1]["run"]["submitted"] == 1
    assert (shell.folder / "out" / "kite-3.jpg").read_bytes() == old
    assert len(list((shell.folder / "out").glob("kite-3-*.jpg"))) == 1


def test_a_part_of_the_manifest_can_be_run_and_the_rest_later(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    part = shell.falbatch("run", "small.yaml", "--where", "seed >= 2", "--limit", "1", "--json")
    assert part.code == 0
    assert part.objects()[-1]["run"]["submitted"] == 1
    assert (shell.folder / "out" / "kite-2.jpg").exists()

    rest = shell.falbatch("run", "small.yaml", "--json").objects()[-1]
    assert rest["run"]["submitted"] == 3
    assert rest["states"]["done"] == 4


def test_status_during_a_run_agrees_with_the_ledger(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    shell.sandbox.add_faults([{"on": "status", "do": "delay:30"}])
    with started(shell, "run", "small.yaml") as run:
        try:
            wait_until(lambda: shell.sandbox.ledger()["count"] == 4, seconds=20, what="four executions")
            wait_until(lambda: states(shell) == {"submitted": 4}, seconds=20, what="four requests on record")
            (status,) = shell.falbatch("status", "out", "--json").objects()
        finally:
            shell.sandbox.clear_faults()
            run.kill()
    assert status["executions"] == shell.sandbox.ledger()["count"]


def test_one_ctrl_c_stops_gently_and_the_same_command_goes_on(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    shell.sandbox.add_faults([{"on": "status", "do": "delay:30"}])
    with started(shell, "run", "small.yaml") as run:
        wait_until(lambda: shell.sandbox.ledger()["count"] == 4, seconds=20, what="four executions")
        wait_until(lambda: states(shell) == {"submitted": 4}, seconds=20, what="four requests on record")
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=20)
    shell.sandbox.clear_faults()

    assert run.returncode == 130
    assert "stopping: SIGINT" in err.decode()
    assert "4 requests go on at fal" in out.decode()
    assert shell.falbatch("run", "small.yaml").code == 0
    assert shell.sandbox.ledger()["count"] == 4


def test_ctrl_c_during_a_submit_waits_for_its_request_id(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    shell.sandbox.add_faults([{"on": "submit", "do": "delay:2", "times": 4}])
    with started(shell, "run", "small.yaml") as run:
        wait_until(lambda: _submitting(shell), seconds=20, what="submits under way")
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=20)
    shell.sandbox.clear_faults()

    assert run.returncode == 130
    (status,) = shell.falbatch("status", "small.yaml", "--json").objects()
    assert status["states"]["unknown"] == 0
    assert status["executions"] == shell.submits() > 0


def _submitting(shell: Shell) -> bool:
    return "submitting" in states(shell)


def test_cancel_asks_fal_and_the_next_run_reads_what_became_of_it(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    shell.sandbox.add_faults([{"on": "status", "do": "delay:30"}])
    with started(shell, "run", "small.yaml") as run:
        wait_until(lambda: states(shell) == {"submitted": 4}, seconds=20, what="four requests on record")
        run.kill()
    shell.sandbox.clear_faults()
    ran = shell.falbatch("cancel", "small.yaml", "--json")
    (report,) = ran.objects()
    assert ran.code == 0
    assert report["asked"] == 4
    assert report["accepted"] + report["too_late"] == 4

    shell.falbatch("run", "small.yaml")
    after = states(shell)
    assert after.get("done", 0) == report["too_late"]
    assert after.get("cancelled", 0) == report["accepted"]
    assert "nothing of this batch" in shell.falbatch("cancel", "small.yaml").out


def test_cancelled_requests_are_free_and_can_be_done_again(tmp_path: Path) -> None:
    """One request runs at a time, so most are still queued when they are cancelled."""
    with SandboxProcess("--seed", "6", "--concurrency", "1", "--speed", "0.05") as fal:
        shell = Shell(tmp_path, fal)
        shell.write("small.yaml", MANIFEST)
        with started(shell, "run", "small.yaml") as run:
            wait_until(lambda: states(shell) == {"submitted": 4}, seconds=20, what="four requests on record")
            run.kill()
        one = shell.falbatch("cancel", "small.yaml", "--name", "kite-3", "--json").objects()
        assert (one[0]["asked"], one[0]["accepted"]) == (1, 1)
        shell.falbatch("cancel", "small.yaml", "--name", "kite-2")

        shell.write("small.yaml", MANIFEST)
        with started(shell, "run", "small.yaml") as run:
            wait_until(lambda: states(shell).get("cancelled") == 2, seconds=20, what="two cancelled jobs")
            run.kill()
        assert fal.ledger()["count"] <= 2
        (report,) = shell.falbatch("status", "small.yaml", "--json").objects()
        assert report["states"]["cancelled"] == 2


def test_a_folder_or_a_state_file_stands_for_its_manifest(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    shell.falbatch("run", "small.yaml", "--limit", "1")
    assert shell.falbatch("run", "out").code == 0
    ran = shell.falbatch("run", "out/falbatch.db")
    assert "nothing to do, 4 of 4" in ran.out


def test_a_moved_folder_goes_on(shell: Shell) -> None:
    """The folder is all there is: state and files, with paths relative to it."""
    shell.write("small.yaml", MANIFEST)
    shell.falbatch("run", "small.yaml", "--limit", "2")
    (shell.folder / "out").rename(shell.folder / "elsewhere")
    ran = shell.falbatch("run", "small.yaml", "--output", "elsewhere", "--json")
    assert ran.objects()[-1]["run"]["submitted"] == 2
    assert len(list((shell.folder / "elsewhere").glob("*.jpg"))) == 4


def test_a_disk_that_fills_up_stops_the_run_which_goes_on_later(shell: Shell, small_disk: Path) -> None:
    shell.write(
        "small.yaml", MANIFEST.replace("[0, 4]", "[0, 12]").replace("width: 64, height: 64", "width: 900, height: 900")
    )
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (SMALL_DISK - 700 * 1024))
    ran = shell.falbatch("run", "small.yaml", "--output", str(small_disk), "--json")
    assert ran.code == 8
    ballast.unlink()
    again = shell.falbatch("run", "small.yaml", "--output", str(small_disk), "--json")
    counts = again.objects()[-1]["states"]
    assert counts["done"] + counts["unknown"] == 12
    assert counts["unknown"] == 0
    assert shell.sandbox.ledger()["count"] == 12


def test_export_joins_inputs_results_and_files(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST.replace("[0, 4]", "[18446744073709551616, 18446744073709551618]"))
    shell.falbatch("run", "small.yaml")
    records = shell.falbatch("export", "small.yaml").objects()
    assert [record["input"]["seed"] for record in records] == [2**64, 2**64 + 1], "exact beyond 64 bits"
    assert [record["result"]["seed"] for record in records] == [2**64, 2**64 + 1]
    for record in records:
        (file,) = record["files"]
        assert (shell.folder / "out" / file["path"]).stat().st_size == file["size_bytes"]

    rows = list(csv.DictReader(io.StringIO(shell.falbatch("export", "small.yaml", "--format", "csv").out)))
    assert [row["input.seed"] for row in rows] == [str(2**64), str(2**64 + 1)]
    assert shell.falbatch("export", "small.yaml", "--to", "results.csv").code == 0
    assert len((shell.folder / "results.csv").read_text().splitlines()) == 3


def test_sidecars_hold_the_whole_result(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST.replace("output: {", "output: {sidecar: true, "))
    assert shell.falbatch("run", "small.yaml").code == 0
    sidecar = json.loads((shell.folder / "out" / "kite-1.json").read_bytes())
    assert sidecar["seed"] == 1
    assert "images" in sidecar


def test_several_artifacts_and_data_uris_become_files(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST.replace("input: {", "input: {num_images: 3, sync_mode: true, "))
    assert shell.falbatch("run", "small.yaml", "--limit", "1").code == 0
    assert sorted(path.name for path in (shell.folder / "out").glob("*.jpg")) == [
        "kite-0-1.jpg",
        "kite-0-2.jpg",
        "kite-0-3.jpg",
    ]


def test_request_settings_travel_as_headers(shell: Shell) -> None:
    request = "{priority: low, hint: h, start_timeout_s: 600, tags: {team: art}, expires_in: 7d, store_io: false,"
    request += " fallback: false, headers: {X-Custom: a}}"
    shell.write("small.yaml", MANIFEST + f"request: {request}\n")
    shell.falbatch("run", "small.yaml", "--limit", "1")
    (record,) = shell.falbatch("export", "small.yaml").objects()
    sent = {name.lower(): value for name, value in shell.sandbox.request(record["request_id"])["headers"].items()}
    assert sent["x-fal-queue-priority"] == "low"
    assert sent["x-fal-runner-hint"] == "h"
    assert float(sent["x-fal-request-timeout"]) == 600
    assert sent["x-fal-tags"] == "team=art"
    assert json.loads(sent["x-fal-object-lifecycle-preference"]) == {"expiration_duration_seconds": 7 * 86400}
    assert sent["x-fal-store-io"] == "0"
    assert sent["x-app-fal-disable-fallback"] == "true"
    assert sent["x-custom"] == "a"


def test_the_key_never_reaches_the_file_server_the_state_or_the_output(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    ran = shell.falbatch("run", "small.yaml")
    assert shell.sandbox.stats()["leaked_keys"] == 0
    assert "secret-of-shell" not in ran.out + ran.err
    for path in (shell.folder / "out").rglob("*"):
        if path.is_file():
            assert b"secret-of-shell" not in path.read_bytes(), path


def test_a_run_against_fal_itself_wants_a_yes(shell: Shell) -> None:
    """Without a terminal to ask at, and without --yes, nothing billable begins."""
    shell.write("small.yaml", MANIFEST)
    ran = shell.falbatch("run", "small.yaml", FALBATCH_ORIGIN=None)
    assert ran.code == 2
    assert "--yes" in ran.err


def test_the_embedded_sandbox_survives_a_kill_with_its_client(shell: Shell, tmp_path: Path) -> None:
    shell.write("small.yaml", MANIFEST.replace("[0, 4]", "[0, 60]"))
    environment = shell.environment(FALBATCH_ORIGIN=None, FAL_KEY=None)
    command = [sys.executable, "-m", "falbatch", "run", "small.yaml", "--sandbox"]
    with subprocess.Popen(command, cwd=shell.folder, env=environment, stdout=subprocess.PIPE) as run:
        wait_until(lambda: any((tmp_path / "out").glob("*.jpg")), seconds=30, what="a first picture")
        run.kill()
    again = ("run", "small.yaml", "--sandbox", "--json", "--reconcile-wait", "2")
    ran = shell.falbatch(*again, FALBATCH_ORIGIN=None, FAL_KEY=None)
    counts = ran.objects()[-1]["states"]
    assert counts["done"] + counts["unknown"] == 60
    assert ran.code == (3 if counts["unknown"] else 0)


@pytest.mark.parametrize("command", ["run", "plan", "status", "retry", "cancel", "export", "sandbox"])
def test_help_has_examples_and_exit_codes(shell: Shell, command: str) -> None:
    ran = shell.falbatch(command, "--help")
    assert ran.code == 0
    assert ran.out.count(f"falbatch {command}") >= 3, "usage and two examples"
    assert "exit codes:" in ran.out


def test_status_of_a_manifest_needs_its_folder_only_until_it_has_run(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST + "nonsense: 1\n")
    assert "nonsense" in shell.falbatch("status", "small.yaml").err, "nothing has run: what is wrong is said"
    shell.write("small.yaml", MANIFEST)
    assert shell.falbatch("run", "small.yaml").code == 0
    shell.write("small.yaml", MANIFEST + "nonsense: 1\n")
    assert "4 of 4 jobs done" in shell.falbatch("status", "small.yaml").out
    assert shell.falbatch("plan", "small.yaml").code == 2
    shell.write("small.yaml", MANIFEST + "nonsense: [\n")
    assert shell.falbatch("status", "small.yaml").code == 2
    shell.write("small.yaml", MANIFEST.replace("dir: out", "dir: 7"))
    assert "output.dir must be a folder" in shell.falbatch("status", "small.yaml").err
