"""The command line: words in, one library call, one exit code out. The only place that turns errors into text."""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import TYPE_CHECKING, Final

from falbatch.cli.options import build_parser
from falbatch.errors import ExitCode, FalbatchError, ManifestError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

ISSUES: Final = "This is a bug in falbatch. What is on disk is safe; please report the lines above."


def run_command(arguments: Sequence[str]) -> int:
    """Parse `arguments`, do what they say, return the exit code. Never raises for what a user can cause."""
    parser = build_parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as leave:  # argparse has written its message
        return int(leave.code or 0)
    return guarded(lambda: _handler(options.command)(options), is_json=getattr(options, "json", False))


def _handler(command: str) -> Callable[[argparse.Namespace], int]:
    """Commands import what they need when they run: `--help` stays fast."""
    from falbatch.cli import commands

    return commands.HANDLERS[command]


def guarded(work: Callable[[], int], *, is_json: bool) -> int:
    """Run `work`; turn what it raises into a message on stderr and an exit code."""
    try:
        return work()
    except FalbatchError as error:
        tell(error, is_json=is_json)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return int(ExitCode.STOPPED)
    except BrokenPipeError:
        # The reader of our output has gone; nothing is left to say, and Python must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.OK)
    except Exception:  # noqa: BLE001  (the last resort: our bug, shown as one)
        traceback.print_exc()
        print(ISSUES, file=sys.stderr)
        return int(ExitCode.BUG)


def tell(error: FalbatchError, *, is_json: bool) -> None:
    """Write `error` and its advice to stderr."""
    if is_json:
        problems = getattr(error, "problems", ())
        record = {
            "event": "error",
            "error": type(error).__name__,
            "exit_code": int(error.exit_code),
            "message": str(error),
            "advice": error.advice,
            "problems": [
                {"file": p.file, "line": p.line, "column": p.column, "what": p.what, "hint": p.hint} for p in problems
            ],
        }
        print(json.dumps(record, ensure_ascii=False), file=sys.stderr)
        return
    if isinstance(error, ManifestError):
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        count = len(error.problems)
        print(f"{count} {'problem' if count == 1 else 'problems'}; nothing was submitted", file=sys.stderr)
    else:
        print(f"error: {error}", file=sys.stderr)
    if error.advice:
        print(f"  try: {error.advice}", file=sys.stderr)
