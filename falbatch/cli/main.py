"""The command line: words in, one library call, one exit code out. The only place that turns errors into text.

A reader of our output who goes away (`| head -1`, a closed terminal) neither ends a run nor changes its exit code.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import traceback
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, TextIO

from falbatch.cli.options import parse
from falbatch.errors import DiskFull, ExitCode, FalbatchError, ManifestError, OutputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

ISSUES: Final = "This is a bug in falbatch. What is on disk is safe; please report the lines above."


SHOWS_ONLY: Final = frozenset({"plan", "status", "export", "models", "schema", "price"})
"""Commands that do nothing but write: when nobody reads any more they are done, and have done well."""

WINDOWS: Final = frozenset({"call", "upload", "models", "schema", "price"})
"""Commands that know nothing of batches."""

LOOKS: Final = SHOWS_ONLY - WINDOWS
"""Commands that read a batch and leave it as it is."""

GONE: Final = frozenset({errno.EPIPE, errno.EIO})
"""The pipe's reader has closed it; the terminal was closed."""


def run_command(arguments: Sequence[str]) -> int:
    """Parse `arguments`, do what they say, return the exit code. Never raises for what a user can cause."""
    with _lasting_streams() as stdout:
        try:
            options = parse(arguments)
        except SystemExit as leave:  # argparse has written its message
            code = int(leave.code or 0)
            return guarded(lambda: code, is_json=False)
        if stdout is not None:
            stdout.serves(options.command)
        return guarded(lambda: _handler(options.command)(options), is_json=getattr(options, "json", False))


def _handler(command: str) -> Callable[[argparse.Namespace], int]:
    """Commands import what they need when they run: `--help` stays fast."""
    if command in WINDOWS:
        from falbatch.cli import windows

        return windows.HANDLERS[command]
    if command in LOOKS:
        from falbatch.cli import looking

        return looking.HANDLERS[command]
    if command == "init":
        from falbatch.cli import starting

        return starting.HANDLERS[command]
    if command == "sandbox":
        from falbatch.cli import serving

        return serving.HANDLERS[command]
    from falbatch.cli import commands

    return commands.HANDLERS[command]


def guarded(work: Callable[[], int], *, is_json: bool) -> int:
    """Run `work`; turn what it raises into a message on stderr and an exit code."""
    try:
        code = work()
        sys.stdout.flush()  # here an error has a message and a code; at exit Python would make 120 of it
        return code
    except FalbatchError as error:
        tell(error, is_json=is_json)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return int(ExitCode.STOPPED)
    except _NobodyReadsError:
        return int(ExitCode.OK)
    except Exception:  # noqa: BLE001  (the last resort: our bug, shown as one)
        traceback.print_exc()
        print(ISSUES, file=sys.stderr)
        return int(ExitCode.BUG)


class _NobodyReadsError(Exception):
    """Raised by a write of a command that has nothing to do but to write."""


class _LastingFile(io.FileIO):
    """Descriptor 1 or 2. When a write to it fails, /dev/null takes its place, for us and for Python's flush at exit."""

    def __init__(self, descriptor: int, *, is_stdout: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._is_stdout = is_stdout
        self.ends_early = False

    def write(self, data: Any, /) -> int:
        """Write, or pretend to. Raises `FalbatchError` when stdout is a file that cannot take what belongs into it."""
        try:
            return super().write(data)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if self.ends_early and error.errno in GONE:
                raise _NobodyReadsError from None
            if self._is_stdout and error.errno not in GONE:
                kind = DiskFull if error.errno in {errno.ENOSPC, errno.EDQUOT} else OutputError
                raise kind(f"stdout cannot be written ({error.strerror})") from error
            return super().write(data)


class _LastingStream(io.TextIOWrapper):
    """Text over a `_LastingFile`."""

    def __init__(self, descriptor: int, *, encoding: str, is_stdout: bool) -> None:
        self._file = _LastingFile(descriptor, is_stdout=is_stdout)
        super().__init__(
            io.BufferedWriter(self._file),
            encoding=encoding,
            errors="backslashreplace",  # a name that the terminal has no letters for is no reason to fail
            line_buffering=not is_stdout or self._file.isatty(),
        )

    def serves(self, command: str) -> None:
        """From here on it is what `command` writes to."""
        self._file.ends_early = command in SHOWS_ONLY
        if command not in SHOWS_ONLY:
            self.reconfigure(line_buffering=True)  # its lines tell that something has happened: they come at once


@contextmanager
def _lasting_streams() -> Iterator[_LastingStream | None]:
    """Let sys.stdout and sys.stderr outlast their readers for a while, and put /dev/null in the place of what was
    closed at the start. Gives the new stdout; None when there is no descriptor under it (in somebody's test)."""
    before = sys.stdin, sys.stdout, sys.stderr
    _fill_gaps()
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    stdout, stderr = _lasting(sys.stdout, 1), _lasting(sys.stderr, 2)
    sys.stdout, sys.stderr = stdout or sys.stdout, stderr or sys.stderr
    try:
        yield stdout
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(_NobodyReadsError, FalbatchError):
                stream.flush()
        sys.stdin, sys.stdout, sys.stderr = before


def _fill_gaps() -> None:
    """Open what `>&-` has closed: the next file opened, the state file say, would else be everybody's stdout."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _lasting(stream: TextIO | None, standard: int) -> _LastingStream | None:
    """`stream` once more, to last; None when there is no descriptor under it. Without a stream, the standard one."""
    if stream is None:
        return _LastingStream(standard, encoding="utf-8", is_stdout=standard == 1)
    stream.flush()
    try:
        return _LastingStream(stream.fileno(), encoding=stream.encoding, is_stdout=standard == 1)
    except (OSError, ValueError):
        return None


def tell(error: FalbatchError, *, is_json: bool) -> None:
    """Write `error` and its advice to stderr."""
    if is_json:
        record = {
            "event": "error",
            "error": type(error).__name__,
            "exit_code": int(error.exit_code),
            "message": str(error),
            "advice": error.advice,
            "problems": [asdict(problem) for problem in getattr(error, "problems", ())],
            "warnings": [asdict(warning) for warning in getattr(error, "warnings", ())],
        }
        print(json.dumps(record, ensure_ascii=False), file=sys.stderr)
        return
    if isinstance(error, ManifestError):
        for warning in error.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        count = len(error.problems)
        print(f"{count} {'problem' if count == 1 else 'problems'}; nothing was submitted", file=sys.stderr)
    else:
        print(f"error: {error}", file=sys.stderr)
    if error.advice:
        print(f"  try: {error.advice}", file=sys.stderr)
