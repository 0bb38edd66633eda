"""Forked programs are programs: what they say, how they end, what kills them."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from falbatch.faultpoints import VARIABLE
from tests import warm

if TYPE_CHECKING:
    from pathlib import Path

QUIET = {"PATH": os.environ["PATH"]}
MANIFEST = "endpoint: fal-ai/flux/dev\ninput: {prompt: a}\n"


def test_they_say_what_they_say_and_end_with_their_code(tmp_path: Path) -> None:
    shown = warm.run("--help", cwd=tmp_path, env=QUIET, timeout=60)
    assert (shown.returncode, shown.stdout[:15], shown.stderr) == (0, "usage: falbatch", "")
    wrong = warm.run("status", "none.yaml", cwd=tmp_path, env=QUIET, timeout=60)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "there is no such file" in wrong.stderr


def test_each_has_a_folder_an_environment_and_a_stdin_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(MANIFEST, encoding="utf-8")
    keyless = warm.run("run", "m.yaml", cwd=tmp_path, env=QUIET | {"HOME": str(tmp_path)}, timeout=60)
    assert keyless.returncode == 4
    keyed = warm.run(
        "run", "m.yaml", cwd=tmp_path, env=QUIET | {"FAL_KEY": "a:b"}, stdin="no\n", timeout=60
    )  # asked at no terminal
    assert keyed.returncode == 2
    assert "no terminal" in keyed.stderr
    assert os.environ.get("FAL_KEY") != "a:b"


def test_a_point_to_die_at_is_theirs_alone(tmp_path: Path) -> None:
    words = ("run", "m.yaml", "--sandbox")
    (tmp_path / "m.yaml").write_text(MANIFEST, encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if not name.startswith("FAL")}
    died = warm.run(*words, cwd=tmp_path, env=env | {VARIABLE: "before.SubmitStarted"}, timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert warm.run(*words, cwd=tmp_path, env=env, timeout=60).returncode == 0


def test_a_signal_reaches_them_and_waiting_has_an_end(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    standard = (reading, writing, writing)
    fork = warm.Fork("falbatch.sandbox", ["--port", "0"], cwd=tmp_path, env=QUIET, standard=standard)
    assert os.read(reading, 100).startswith(b"http://127.0.0.1:")
    assert fork.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        fork.wait(0.01)
    fork.terminate()
    assert fork.wait(20) == 0
    assert fork.poll() == 0
    os.close(reading)
    os.close(writing)
