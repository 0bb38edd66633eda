"""One runner per state file: the second is told who the first is, and a dead one holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.lock import held, is_held
from falbatch.errors import ExitCode, OutputError, StateError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HOLDING = """
import sys
from pathlib import Path
from falbatch.adapters.lock import held
with held(Path(sys.argv[1]), holder=str):
    print("held", flush=True)
    sys.stdin.read()
print("released", flush=True)
"""

_ASKING = """
import sys
from pathlib import Path
from falbatch.adapters.lock import is_held
print(is_held(Path(sys.argv[1])))
"""

_ASKING_FOR_EVER = """
import sys
from pathlib import Path
from falbatch.adapters.lock import is_held
print("asking", flush=True)
while True:
    is_held(Path(sys.argv[1]))
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "falbatch.db"


@contextmanager
def _child(program: str, state: Path, first_line: str) -> Iterator[subprocess.Popen[str]]:
    """`program` in a process of its own, once it has said its first line; killed at the end if need be."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program, str(state)], stdin=pipe, stdout=pipe, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == first_line
            yield child
        finally:
            child.kill()


def _nobody() -> str:
    return ""


def test_a_second_process_is_refused_and_told_who_runs(state: Path) -> None:
    with _child(_HOLDING, state, "held\n") as child:
        with pytest.raises(StateError, match=rf"falbatch\.db: in use by another run \(pid {child.pid}\)") as caught:
            held(state, holder=lambda: f" (pid {child.pid})").__enter__()
        assert caught.value.exit_code is ExitCode.STATE
        assert "falbatch status" in caught.value.advice
        assert is_held(state)

        child.communicate("", timeout=20)
        assert child.returncode == 0
        assert not is_held(state)
        with held(state, holder=_nobody):
            pass


def test_the_holder_is_asked_for_only_when_there_is_one(state: Path) -> None:
    def ask() -> str:
        raise AssertionError("nobody holds it")

    with held(state, holder=ask):
        assert is_held(state)


def test_a_process_that_was_killed_holds_nothing(state: Path) -> None:
    with _child(_HOLDING, state, "held\n") as child:
        os.kill(child.pid, signal.SIGKILL)
        child.wait(20)
        assert not is_held(state)
        with held(state, holder=_nobody):
            assert is_held(state)


def test_another_process_sees_that_we_hold_it(state: Path) -> None:
    def ask() -> str:
        return subprocess.run(
            [sys.executable, "-c", _ASKING, str(state)], capture_output=True, text=True, check=True
        ).stdout

    with held(state, holder=_nobody):
        assert ask() == "True\n"
    assert ask() == "False\n"


def test_asking_takes_nothing_away_from_who_holds_it(state: Path) -> None:
    with held(state, holder=_nobody):
        assert is_held(state)
        with _child(_HOLDING, state, "") as refused:
            assert refused.wait(20) != 0


def test_whoever_only_asks_never_makes_a_run_be_refused(state: Path) -> None:
    with held(state, holder=_nobody):
        pass
    with _child(_ASKING_FOR_EVER, state, "asking\n"):
        for _ in range(300):
            with held(state, holder=_nobody):
                pass


def test_it_is_released_when_the_run_fails(state: Path) -> None:
    with pytest.raises(KeyboardInterrupt), held(state, holder=_nobody):
        raise KeyboardInterrupt
    assert not is_held(state)


def test_asking_about_a_batch_that_never_ran_makes_no_file(state: Path) -> None:
    assert not is_held(state)
    assert list(state.parent.iterdir()) == []


def test_two_batches_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with held(tmp_path / "a" / "falbatch.db", holder=_nobody), held(tmp_path / "b" / "falbatch.db", holder=_nobody):
        assert is_held(tmp_path / "a" / "falbatch.db")


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written") as caught:
        held(tmp_path / "file" / "falbatch.db", holder=_nobody).__enter__()
    assert caught.value.advice
