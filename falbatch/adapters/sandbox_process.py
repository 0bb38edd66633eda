"""The embedded sandbox: the emulator as a process of its own that ends when this one does, however that ends."""

from __future__ import annotations

import contextlib
import selectors
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from falbatch.adapters.files import translated
from falbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START_S: Final = 20.0
"""Longest wait for the sandbox's first line."""

STOP_S: Final = 5.0


@contextlib.contextmanager
def sandbox(data: Path, *, arguments: tuple[str, ...] = ()) -> Iterator[str]:
    """Run the sandbox over `data` and give its origin, e.g. `http://127.0.0.1:41234`.

    It reads its end from a pipe: when this process is killed, the pipe closes and the sandbox goes too.
    Raises `UsageError` when it does not come up or `data` cannot be written, `DiskFull`.
    """
    log = data / "sandbox.log"
    with translated(data):
        data.mkdir(parents=True, exist_ok=True)
        errors = log.open("wb")
    command = [sys.executable, "-m", "falbatch.sandbox", "--port", "0", "--data", str(data), *arguments]
    with (
        errors,
        subprocess.Popen(  # noqa: S603  (our own module, no shell)
            [*command, "--stay-until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # a Ctrl-C at the terminal is for the run, which still needs its fal
        ) as process,
    ):
        try:
            yield _origin_of(process, log)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _origin_of(process: subprocess.Popen[bytes], log: Path) -> str:
    if process.stdout is None:
        raise AssertionError("stdout is a pipe")
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        ready = selector.select(START_S)
    line = process.stdout.readline().decode().strip() if ready else ""
    if not line.startswith("http"):
        detail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise UsageError(
            f"the sandbox did not start{': ' + detail[-1] if detail else ''}",
            advice="Install it with `pip install 'falbatch[sandbox]'`, and look into " + str(log),
        )
    return line
