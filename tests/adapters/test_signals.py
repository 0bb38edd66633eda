"""The first signal asks a run to stop, the second ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from falbatch.adapters import signals

if TYPE_CHECKING:
    from collections.abc import Iterator

_WATCHING = """
import os
import anyio
from falbatch.adapters import signals

async def main():
    async with anyio.create_task_group() as group:
        group.start_soon(signals.watch, lambda name: print(name, flush=True))
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        print("watching", flush=True)
        try:
            await anyio.to_thread.run_sync(os.read, 0, 1)
        finally:
            group.cancel_scope.cancel()
    print("left in peace", flush=True)

anyio.run(main)
os.read(0, 1)
"""


@contextmanager
def _watching(*, ignored: signal.Signals | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process that watches for signals until something comes on its stdin, and ends when more comes.

    `ignored` is a signal that it was started not to hear.
    """
    command = [sys.executable, "-c", _WATCHING]
    if ignored is not None:
        command = ["/bin/sh", "-c", f"trap '' {ignored.name.removeprefix('SIG')}; exec \"$@\"", "sh", *command]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "watching\n"
            yield child
        finally:
            child.kill()


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_the_first_signal_is_told_and_the_process_goes_on(number: signal.Signals) -> None:
    with _watching() as child:
        os.kill(child.pid, number)
        assert _line(child) == number.name
        rest, errors = child.communicate("xx", timeout=20)
        assert (rest, errors, child.returncode) == ("left in peace\n", "", 0)


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)],
)
def test_the_second_signal_ends_the_process_at_once(first: signal.Signals, second: signal.Signals) -> None:
    with _watching() as child:
        os.kill(child.pid, first)
        assert _line(child) == first.name
        os.kill(child.pid, second)
        assert child.wait(20) == 130
        assert _line(child) == ""


def test_without_a_signal_nothing_is_told() -> None:
    with _watching() as child:
        assert child.communicate("xx", timeout=20) == ("left in peace\n", "")


@pytest.mark.parametrize(
    "numbers",
    [
        [signal.SIGHUP, signal.SIGHUP, signal.SIGHUP],
        [signal.SIGHUP, signal.SIGTERM, signal.SIGHUP],
        [signal.SIGINT, signal.SIGHUP],
    ],
    ids=["kernel and shell", "a session's end", "stopping already"],
)
def test_a_lost_terminal_is_no_impatience(numbers: list[signal.Signals]) -> None:
    with _watching() as child:
        os.kill(child.pid, numbers[0])
        assert _line(child) == numbers[0].name
        for number in numbers[1:]:
            os.kill(child.pid, number)
        rest, errors = child.communicate("xx", timeout=20)
        assert (rest, errors, child.returncode) == ("left in peace\n", "", 0)


def test_after_a_lost_terminal_the_second_order_still_leaves_at_once() -> None:
    with _watching() as child:
        os.kill(child.pid, signal.SIGHUP)
        assert _line(child) == "SIGHUP"
        os.kill(child.pid, signal.SIGTERM)
        os.kill(child.pid, signal.SIGINT)
        assert child.wait(20) == 130


def test_a_hang_up_that_comes_on_the_way_out_ends_nothing() -> None:
    with _watching() as child:
        os.kill(child.pid, signal.SIGHUP)
        assert _line(child) == "SIGHUP"
        assert child.stdin is not None
        child.stdin.write("x")
        child.stdin.flush()
        assert _line(child) == "left in peace"
        os.kill(child.pid, signal.SIGHUP)
        assert child.communicate("x", timeout=20) == ("", "")
        assert child.returncode == 0


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_signal_that_was_ignored_from_the_start_stays_ignored(number: signal.Signals) -> None:
    """`nohup` for SIGHUP, `&` in a script for SIGINT."""
    with _watching(ignored=number) as child:
        os.kill(child.pid, number)
        os.kill(child.pid, number)
        others = [other for other in signals.SIGNALS if other != number]
        os.kill(child.pid, others[0])
        assert _line(child) == others[0].name
        rest, errors = child.communicate("xx", timeout=20)
        assert (rest, errors, child.returncode) == ("left in peace\n", "", 0)


_AT_A_TERMINAL = """
import os, sys
import anyio
from falbatch.adapters import signals
from falbatch.adapters.progress import ProgressDisplay
from falbatch.core.events import Counter, RunStopping

async def main(said):
    stop = anyio.Event()
    with ProgressDisplay(Counter(total=3)) as display:

        def stopping(name):
            display(RunStopping(name))
            said.write(name + "\\n")
            stop.set()

        async with anyio.create_task_group() as group:
            group.start_soon(signals.watch, stopping)
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
            said.write("watching\\n")
            await stop.wait()
            display(RunStopping("told to nobody"))
            group.cancel_scope.cancel()
    said.write("saved\\n")

with os.fdopen(int(sys.argv[1]), "w", buffering=1) as said:
    anyio.run(main, said)
"""


def test_a_terminal_that_is_closed_stops_gently_and_writing_to_it_is_no_crash() -> None:
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    heard, says = os.pipe()
    # The first terminal that the leader of a new session opens is its own.
    in_terminal = f'exec "$@" <>{os.ttyname(theirs)} >&0 2>&0'
    command = ["/bin/sh", "-c", in_terminal, "sh", sys.executable, "-c", _AT_A_TERMINAL, str(says)]
    with subprocess.Popen(command, pass_fds=[says], start_new_session=True) as child, os.fdopen(heard) as lines:
        os.close(theirs)
        os.close(says)
        assert lines.readline() == "watching\n"
        os.close(ours)
        assert lines.read() == "SIGHUP\nsaved\n"
        assert child.wait(20) == 0
