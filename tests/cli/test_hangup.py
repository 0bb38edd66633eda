"""A run whose terminal goes away, and one that was told not to mind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.cli.conftest import MANIFEST, SECONDS
from tests.faults.harness import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Shell

JOBS = 40
RUN = [sys.executable, "-m", "falbatch", "run", "small.yaml", "--sandbox"]


def _begin(shell: Shell) -> dict[str, str]:
    """Write a manifest whose run takes some seconds. Returns the environment for it."""
    shell.write("small.yaml", MANIFEST.replace("[0, 4]", f"[0, {JOBS}]") + "limits: {submits_per_s: 10}\n")
    return shell.environment(FALBATCH_ORIGIN=None, FAL_KEY=None)


def _pictures(folder: Path) -> int:
    return len(list((folder / "out").glob("*.jpg")))


def _goes_on_to_its_end(shell: Shell) -> None:
    """The same command finds everything in order: no request without its id, nothing paid twice."""
    ran = shell.falbatch("run", "small.yaml", "--sandbox", "--json", FALBATCH_ORIGIN=None, FAL_KEY=None)
    report = ran.objects()[-1]
    assert ran.code == 0
    assert report["states"]["done"] == JOBS
    assert report["executions"] == JOBS
    assert 0 < report["run"]["submitted"] < JOBS
    assert list((shell.folder / "out").glob(".*.part*")) == [], "what was coming home has come"


def test_a_terminal_that_is_closed_stops_the_run_gently(shell: Shell) -> None:
    environment = _begin(shell)
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    os.set_blocking(ours, False)
    shown = bytearray()

    def is_under_way() -> bool:
        with suppress(BlockingIOError):
            shown.extend(os.read(ours, 65_536))
        return _pictures(shell.folder) > 0

    # The first terminal that the leader of a new session opens is its own.
    command = ["/bin/sh", "-c", f'exec "$@" <>{os.ttyname(theirs)} >&0 2>&0', "sh", *RUN]
    with subprocess.Popen(command, cwd=shell.folder, env=environment, start_new_session=True) as run:
        wait_until(is_under_way, seconds=SECONDS, what="a first picture")
        os.close(theirs)
        os.close(ours)
        assert run.wait(SECONDS) == 130
    assert b"/40" in shown, "the bar was at that terminal"
    assert _pictures(shell.folder) < JOBS
    _goes_on_to_its_end(shell)


def test_a_run_under_nohup_does_not_mind(shell: Shell) -> None:
    environment = _begin(shell)

    command = ["/bin/sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *RUN]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=shell.folder, env=environment, stdout=pipe, stderr=pipe) as run:
        wait_until(lambda: _pictures(shell.folder) > 0, seconds=SECONDS, what="a first picture")
        run.send_signal(signal.SIGHUP)
        out, err = run.communicate(timeout=SECONDS)
    assert run.returncode == 0
    assert f"{JOBS} of {JOBS} done" in out.decode()
    assert "stopping" not in err.decode()
