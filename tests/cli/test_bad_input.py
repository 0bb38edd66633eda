"""Bad input gets one clear message and its exit code; nothing is submitted, nothing is lost, no traceback."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import MANIFEST, SMALL_DISK

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Ran, Shell

ROWS = MANIFEST.replace("matrix: {seed: {range: [0, 4]}}", "rows: rows.csv").replace("{{ seed }}", "{{ row.n }}")


def refused(shell: Shell, ran: Ran, code: int, *words: str) -> None:
    """`ran` ended with `code` and one clear message holding `words`, and fal heard nothing."""
    assert ran.code == code, ran.err
    for word in words:
        assert word in ran.err
    assert "Traceback" not in ran.err + ran.out
    assert shell.submits() == 0


MANIFESTS = {
    "empty": (b"", "empty"),
    "only a comment": (b"# nothing\n", "empty"),
    "binary": (b"\x00\x01\x02PNG\xff", "binary"),
    "not UTF-8": ("name: caf\u00e9\n".encode("latin-1"), "UTF-8"),
    "circular": (b"version: 1\nendpoint: a/b\ninput: &loop {again: *loop}\n", "itself"),
    "a list": (b"- 1\n- 2\n", "mapping"),
    "broken YAML": (b"version: 1\ninput: {prompt: [}\n", "bad.yaml:2"),
    "an unknown key": (MANIFEST.replace("endpoint:", "endpont:").encode(), '"endpoint"'),
    "an endpoint without owner": (MANIFEST.replace("fal-ai/flux/schnell", "flux").encode(), "flux"),
    "an endpoint that is a URL": (
        MANIFEST.replace("fal-ai/flux/schnell", '"https://fal.run/fal-ai/flux"').encode(),
        "fal-ai/flux",
    ),
    "a template naming nothing": (MANIFEST.replace("a kite", "{{ sed }} kites").encode(), '"seed"'),
    "a template with a syntax error": (MANIFEST.replace("a kite", "{{ seed").encode(), "bad.yaml:5"),
    "one name for two jobs": (MANIFEST.replace("kite-{{ seed }}", "kite").encode(), "kite"),
    "a name outside the folder": (MANIFEST.replace("kite-{{ seed }}", "../kite-{{ seed }}").encode(), ".."),
    "a later capability": (MANIFEST.replace("version: 1", "version: 1\nsteps: []").encode(), "not supported"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_wrong_manifest_is_refused(shell: Shell, case: str) -> None:
    text, word = MANIFESTS[case]
    shell.write("bad.yaml", text)
    for command in ("plan", "run"):
        refused(shell, shell.falbatch(command, "bad.yaml"), 2, "bad.yaml", word)


def test_a_missing_manifest_is_refused(shell: Shell) -> None:
    refused(shell, shell.falbatch("run", "nowhere.yaml"), 2, "nowhere.yaml", "no such file")


def test_a_huge_manifest_is_refused_without_being_read(shell: Shell) -> None:
    with shell.write("huge.yaml", "").open("wb") as file:
        file.truncate(300 * 1024 * 1024)
    refused(shell, shell.falbatch("run", "huge.yaml"), 2, "huge.yaml", "256 MB")


def test_a_manifest_that_explodes_by_aliases_is_refused(shell: Shell) -> None:
    layers = "\n".join(f"  l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 9))
    shell.write("bomb.yaml", MANIFEST + f"vars:\n  l0: &l0 [x]\n{layers}\n")
    refused(shell, shell.falbatch("run", "bomb.yaml"), 2, "bomb.yaml")


def test_all_mistakes_are_reported_at_once_with_their_places(shell: Shell) -> None:
    text = MANIFEST.replace("version: 1", "version: 1\nlimts: {}").replace("a kite", "{{ sed }}")
    shell.write("two.yaml", text + "retry: {attempts: many}\n")
    ran = shell.falbatch("run", "two.yaml")
    refused(shell, ran, 2, "two.yaml:2:1", '"limits"', "two.yaml:6", '"seed"', "retry.attempts", "3 problems")


CSVS = {
    "ragged": (b"n,name\n1,anna\n2\n", "rows.csv:3"),
    "with a wrong encoding": ("n,name\n1,Ren\u00e9\n".encode("latin-1"), "UTF-8"),
    "with a header twice": (b"n,n\n1,2\n", "rows.csv:1"),
    "without rows": (b"n\n", "rows.yaml:4"),
    "without the column": (b"m\n1\n", "rows.csv:2"),
}


@pytest.mark.parametrize("case", CSVS)
def test_a_wrong_csv_is_refused(shell: Shell, case: str) -> None:
    text, word = CSVS[case]
    shell.write("rows.csv", text)
    shell.write("rows.yaml", ROWS)
    refused(shell, shell.falbatch("run", "rows.yaml"), 2, word)


def test_a_missing_source_is_refused_at_its_line(shell: Shell) -> None:
    shell.write("rows.yaml", ROWS)
    refused(shell, shell.falbatch("run", "rows.yaml"), 2, "rows.yaml:4", "rows.csv")


def test_an_output_folder_that_cannot_be_written_is_refused(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    shell.write("out", "a file where the folder should be")
    refused(shell, shell.falbatch("run", "small.yaml"), 2, "out", "cannot be written")


def test_a_full_output_folder_is_refused(shell: Shell, small_disk: Path) -> None:
    shell.write("small.yaml", MANIFEST)
    (small_disk / "ballast").write_bytes(b"\0" * SMALL_DISK)
    refused(shell, shell.falbatch("run", "small.yaml", "--output", str(small_disk)), 8, "no space left")


def test_without_a_key_nothing_begins(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    ran = shell.falbatch("run", "small.yaml", FAL_KEY=None)
    refused(shell, ran, 4, "FAL_KEY")
    assert not (shell.folder / "out").exists()


def test_a_malformed_key_is_refused_without_being_shown(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    ran = shell.falbatch("run", "small.yaml", FAL_KEY="no-colon-in-this-secret")
    refused(shell, ran, 4, "FAL_KEY")
    assert "no-colon-in-this-secret" not in ran.err + ran.out


def test_a_key_that_fal_refuses_stops_the_run_and_marks_nothing_failed(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    shell.sandbox.add_faults([{"on": "submit", "do": "status:401", "body": {"detail": "invalid key credentials"}}])
    ran = shell.falbatch("run", "small.yaml", "--json")
    shell.sandbox.clear_faults()
    report = ran.objects()[-1]

    assert ran.code == 4
    assert "401" in report["run"]["stopped_by"]
    assert report["states"]["planned"] == 4
    assert report["states"]["failed"] == 0
    assert "secret-of-shell" not in ran.out + ran.err
    assert shell.falbatch("run", "small.yaml").code == 0, "the same command goes on"


def test_a_locked_account_stops_the_run_and_marks_nothing_failed(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    shell.sandbox.lock()
    ran = shell.falbatch("run", "small.yaml", "--json")
    shell.sandbox.lock(locked=False)

    assert ran.code == 4
    assert ran.objects()[-1]["states"]["planned"] == 4
    assert "dashboard" in ran.objects()[-1]["advice"]


def test_a_fal_that_is_not_there_ends_the_run(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST + "retry: {first_s: 0.1, cap_s: 1}\n")
    ran = shell.falbatch("run", "small.yaml", "--json", FALBATCH_ORIGIN="http://127.0.0.1:9")
    assert ran.code == 5
    assert ran.objects()[-1]["states"]["planned"] == 4


def test_the_state_file_of_another_manifest_is_refused(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    assert shell.falbatch("run", "small.yaml", "--limit", "1").code == 0
    shell.sandbox.reset()
    shell.write("other.yaml", MANIFEST.replace("name: small", "name: other"))
    refused(shell, shell.falbatch("run", "other.yaml"), 6, '"small"', '"other"')


def test_a_rehearsal_and_real_work_never_share_a_folder(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    assert shell.falbatch("run", "small.yaml", "--sandbox", "--limit", "1", FALBATCH_ORIGIN=None).code == 0
    refused(shell, shell.falbatch("run", "small.yaml"), 6, "sandbox", "--output")


def test_a_plan_over_a_rehearsal_says_that_nothing_was_paid(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    assert shell.falbatch("run", "small.yaml", "--sandbox", "--limit", "1").code == 0
    words = "this batch is a rehearsal: the built-in sandbox did what is on record, and nothing of it was paid"
    planned = shell.falbatch("plan", "small.yaml", "--offline", FALBATCH_ORIGIN=None)
    assert planned.code == 0
    assert words in planned.out
    assert "`falbatch run` goes on with --sandbox" in planned.out
    assert words not in shell.falbatch("plan", "small.yaml", "--sandbox").out
    assert shell.falbatch("run", "small.yaml", "--limit", "1", "--output", "here").code == 0
    told = shell.falbatch("plan", "small.yaml", "--output", "here", "--offline", FALBATCH_ORIGIN=None).out
    assert "this batch is a rehearsal: a server on this machine did what is on record" in told
    assert "rehearsal" not in shell.falbatch("plan", "small.yaml", "--output", "here").out


def test_a_state_file_of_a_newer_version_is_refused_and_untouched(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    assert shell.falbatch("run", "small.yaml", "--limit", "1").code == 0
    shell.sandbox.reset()
    state = shell.folder / "out" / "falbatch.db"
    with closing(sqlite3.connect(state)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = state.read_bytes()
    refused(shell, shell.falbatch("run", "small.yaml"), 6, "newer")
    refused(shell, shell.falbatch("status", "small.yaml"), 6, "newer")
    assert state.read_bytes() == before


DAMAGES = pytest.mark.parametrize("damage", ["garbage", "a hole in the middle", "cut in half"])


def damaged_state(shell: Shell, damage: str) -> bytes:
    """A batch of four jobs that are done, whose state file is damaged; what is in it now."""
    shell.write("small.yaml", MANIFEST)
    assert shell.falbatch("run", "small.yaml").code == 0
    shell.sandbox.reset()
    state = shell.folder / "out" / "falbatch.db"
    content = bytearray(state.read_bytes())
    match damage:
        case "garbage":
            content = bytearray(b"not a database " * 300)
        case "cut in half":
            del content[len(content) // 2 :]
        case _:
            content[4096:12288] = os.urandom(8192)
    state.write_bytes(content)
    return bytes(content)


@DAMAGES
def test_a_damaged_state_file_without_a_good_copy_is_refused(shell: Shell, damage: str) -> None:
    content = damaged_state(shell, damage)
    state = shell.folder / "out" / "falbatch.db"
    state.with_name("falbatch.db.copy").unlink()
    state.with_name("falbatch.journal").unlink(missing_ok=True)
    refused(shell, shell.falbatch("run", "small.yaml"), 6, "damaged")
    assert state.read_bytes() == content


@DAMAGES
def test_the_good_copy_takes_the_place_of_a_damaged_state_file_and_nothing_is_paid_twice(
    shell: Shell, damage: str
) -> None:
    content = damaged_state(shell, damage)
    ran = shell.falbatch("run", "small.yaml")
    assert ran.code == 0
    assert "the state file is damaged" in ran.err
    assert "took its place" in ran.err
    assert "4 of 4 jobs are done" in ran.out
    assert shell.submits() == 0
    kept = [path.read_bytes() for path in (shell.folder / "out").iterdir() if "set-aside" in path.name]
    assert content in kept


def test_a_second_runner_is_refused_and_told_by_whom(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    shell.sandbox.add_faults([{"on": "status", "do": "delay:20"}])
    command = [sys.executable, "-m", "falbatch", "run", "small.yaml"]
    with subprocess.Popen(
        command, cwd=shell.folder, env=shell.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as first:
        try:
            assert first.stderr is not None
            assert b"4 jobs" in first.stderr.readline()
            second = shell.falbatch("run", "small.yaml")
        finally:
            shell.sandbox.clear_faults()
            first.send_signal(signal.SIGKILL)
    assert second.code == 6
    assert "in use" in second.err
    assert f"process {first.pid}" in second.err


def test_a_lock_left_by_a_dead_process_is_no_lock(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    lock = shell.write("out/falbatch.lock", "")
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    assert shell.falbatch("run", "small.yaml").code == 0


USAGE = {
    "no command": [],
    "an unknown command": ["rn", "small.yaml"],
    "an unknown flag": ["run", "small.yaml", "--fast"],
    "a limit that is no number": ["run", "small.yaml", "--limit", "many"],
    "an unknown state": ["export", "small.yaml", "--state", "dnoe"],
    "a where that is no expression": ["run", "small.yaml", "--where", "seed =="],
    "a where that leaves nothing": ["run", "small.yaml", "--where", "seed > 100"],
}


@pytest.mark.parametrize("case", USAGE)
def test_a_wrong_command_line_is_refused(shell: Shell, case: str) -> None:
    shell.write("small.yaml", MANIFEST)
    refused(shell, shell.falbatch(*USAGE[case]), 2)


def test_status_of_a_batch_whose_only_run_was_refused_says_so(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST + "rows: rows.csv\n")
    shell.write("rows.csv", "a,b\n1,2,3\n")
    refused(shell, shell.falbatch("run", "small.yaml"), 2, "rows.csv")
    told = shell.falbatch("status", "small.yaml")
    assert told.code == 0
    assert told.out.startswith("nothing was planned or submitted yet")
    (status,) = shell.falbatch("status", "small.yaml", "--json").objects()
    assert status["total"] == 0


def test_status_of_a_batch_that_never_ran_says_so(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    refused(shell, shell.falbatch("status", "small.yaml"), 6, "no state file")
