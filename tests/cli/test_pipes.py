"""Whoever reads our output may leave at any time: a run goes on, and its exit code is its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import MANIFEST, SECONDS, started, states
from tests.faults.harness import wait_until

if TYPE_CHECKING:
    from tests.cli.conftest import Shell

ONE_FAILS = [{"on": "submit", "do": "fail:content_policy_violation", "times": 1}]


def _falbatch_into(shell: Shell, *words: str, out: int, err: int = subprocess.PIPE) -> tuple[int, str]:
    """Run `falbatch …` with stdout and stderr as given. Returns its exit code, and stderr when that is a pipe."""
    command = [sys.executable, "-m", "falbatch", *words]
    done = subprocess.run(
        command, cwd=shell.folder, env=shell.environment(), stdout=out, stderr=err, timeout=SECONDS, check=False
    )
    return done.returncode, (done.stderr or b"").decode()


def _in_shell(shell: Shell, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of sh, in which `falbatch` is ours."""
    line = f'falbatch() {{ "{sys.executable}" -m falbatch "$@"; }}; {line}'
    return subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=shell.folder,
        env=shell.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture
def nobody() -> int:
    """The writing end of a pipe that nobody reads."""
    ours, theirs = os.pipe()
    os.close(ours)
    return theirs


@pytest.fixture
def full() -> int:
    """A file on a disk without space."""
    return os.open("/dev/full", os.O_WRONLY)


def test_a_reader_that_leaves_in_the_middle_does_not_disturb_a_run(shell: Shell) -> None:
    """`falbatch run … --json | head -1`: the line comes at once, the rest of the run is nobody's to read."""
    shell.write("small.yaml", MANIFEST)
    shell.sandbox.add_faults([*ONE_FAILS, {"on": "status", "do": "delay:3"}])
    with started(shell, "run", "small.yaml", "--json") as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert json.loads(run.stdout.readline())["event"] == "plan"
        run.stdout.close()
        wait_until(lambda: states(shell).get("submitted") == 4, seconds=SECONDS, what="four requests on record")
        shell.sandbox.clear_faults()
        err = run.stderr.read().decode()
        assert run.wait(SECONDS) == 3
    assert "Traceback" not in err
    assert "BrokenPipe" not in err
    assert states(shell) == {"done": 3, "failed": 1}


def test_a_shell_sees_the_exit_code_of_the_run_and_not_that_of_a_broken_pipe(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    shell.sandbox.add_faults(ONE_FAILS)
    ran = _in_shell(shell, "{ falbatch run small.yaml --json; echo code $? >&2; } | head -1")
    assert json.loads(ran.stdout)["event"] == "plan"
    assert ran.stderr.splitlines()[-1] == "code 3"
    assert "BrokenPipe" not in ran.stderr
    assert states(shell) == {"done": 3, "failed": 1}


@pytest.mark.parametrize("words", [("run", "small.yaml"), ("run", "small.yaml", "--json")])
def test_a_run_that_nobody_listens_to_at_all_is_a_run(shell: Shell, nobody: int, words: tuple[str, ...]) -> None:
    shell.write("small.yaml", MANIFEST)
    assert _falbatch_into(shell, *words, out=nobody, err=nobody) == (0, "")
    assert states(shell) == {"done": 4}


def test_without_stderr_an_error_still_has_its_exit_code(shell: Shell, nobody: int) -> None:
    assert _falbatch_into(shell, "run", "missing.yaml", out=nobody, err=nobody) == (2, "")
    assert _falbatch_into(shell, "run", "--nonsense", out=nobody, err=nobody) == (2, "")


@pytest.mark.parametrize(
    "words",
    [
        ("export", "small.yaml"),
        ("export", "small.yaml", "--format", "csv"),
        ("status", "small.yaml"),
        ("status", "small.yaml", "--json"),
        ("plan", "small.yaml"),
        ("plan", "small.yaml", "--json"),
        ("run", "--help"),
    ],
)
def test_what_only_shows_ends_well_when_nobody_reads(shell: Shell, nobody: int, words: tuple[str, ...]) -> None:
    shell.write("small.yaml", MANIFEST)
    shell.falbatch("run", "small.yaml")
    code, err = _falbatch_into(shell, *words, out=nobody)
    assert code == 0
    assert err in ("", "4 jobs exported\n")


def test_what_only_shows_stops_when_its_reader_leaves(shell: Shell) -> None:
    """20,000 lines fit no pipe."""
    shell.write("small.yaml", MANIFEST.replace("[0, 4]", "[0, 20000]"))
    with started(shell, "plan", "small.yaml", "--json") as plan:
        assert plan.stdout is not None
        assert plan.stderr is not None
        assert json.loads(plan.stdout.readline())["name"] == "kite-0"
        plan.stdout.close()
        assert plan.stderr.read() == b""
        assert plan.wait(SECONDS) == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_what_was_closed_at_the_start_is_missed_by_nobody(shell: Shell, closed: str) -> None:
    """Above all, the state file must not become descriptor 1 or 2, into which anybody may print."""
    shell.write("small.yaml", MANIFEST)
    shell.sandbox.add_faults(ONE_FAILS)
    ran = _in_shell(shell, f"falbatch run small.yaml {closed}")
    assert ran.returncode == 3
    assert "Traceback" not in ran.stderr
    assert ("3 of 4 done" in ran.stdout) is (">&-" not in closed.replace("2>&-", ""))
    assert states(shell) == {"done": 3, "failed": 1}
    assert _in_shell(shell, f"falbatch plan missing.yaml {closed}").returncode == 2


def test_without_stdin_nobody_can_say_yes(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    ran = _in_shell(shell, "unset FALBATCH_ORIGIN; falbatch run small.yaml <&-")
    assert ran.returncode == 2
    assert "--yes" in ran.stderr


def test_a_report_that_finds_no_space_is_an_error_of_its_own(shell: Shell, full: int) -> None:
    """Unlike a reader who left, whoever has it written into a file wants it."""
    shell.write("small.yaml", MANIFEST)
    code, err = _falbatch_into(shell, "run", "small.yaml", out=full)
    assert code == 8
    assert "error: stdout cannot be written (No space left on device)" in err
    assert "Exception ignored" not in err
    assert states(shell) == {"done": 4}
    code, err = _falbatch_into(shell, "export", "small.yaml", out=full)
    assert code == 8
    assert "Traceback" not in err


def test_progress_that_finds_no_space_is_given_up(shell: Shell, full: int) -> None:
    shell.write("small.yaml", MANIFEST)
    assert _falbatch_into(shell, "run", "small.yaml", out=subprocess.DEVNULL, err=full) == (0, "")
    assert states(shell) == {"done": 4}


def test_a_terminal_without_the_letters_gets_them_spelled(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    ran = shell.falbatch("plan", "small.yaml", PYTHONIOENCODING="ascii")
    assert ran.code == 0
    assert "4 jobs \\u2192" in ran.out
    assert "Traceback" not in ran.err
