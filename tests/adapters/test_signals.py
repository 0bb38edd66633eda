"""The first signal asks a run to stop, the second ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

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
"""


@contextmanager
def _watching() -> Iterator[subprocess.Popen[str]]:
    """A process that watches for signals until something comes on its stdin."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _WATCHING], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "watching\n"
            yield child
        finally:
            child.kill()


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_told_and_the_process_goes_on(number: signal.Signals) -> None:
    with _watching() as child:
        os.kill(child.pid, number)
        assert _line(child) == number.name
        rest, errors = child.communicate("x", timeout=20)
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
        assert child.communicate("x", timeout=20) == ("left in peace\n", "")
