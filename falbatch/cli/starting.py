"""`falbatch init`: from nothing to a manifest that runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from falbatch.api import starting
from falbatch.errors import ExitCode, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


def do_init(options: argparse.Namespace) -> int:
    """`falbatch init`."""
    is_shown = options.stdout or options.file == Path("-")
    if options.stdout and options.file not in {None, Path("-")}:
        raise UsageError(f"--stdout writes no file: {options.file} makes no sense beside it")
    file = options.file or starting.default_file(options.endpoint)
    if not is_shown:
        starting.check_free(file, is_forced=options.force)
    begun = anyio.run(lambda: starting.begin(options.endpoint, is_sandbox=options.sandbox))
    if begun.is_deprecated:
        print(f"warning: fal calls {options.endpoint} deprecated", file=sys.stderr)
    made = starting.on_stdout(begun) if is_shown else starting.write(begun, file, is_forced=options.force)
    if options.json:
        told = {"endpoint": options.endpoint, "file": None if is_shown else str(file), "jobs": made.jobs}
        print(json.dumps(told | ({"text": made.text} if is_shown else {}), ensure_ascii=False))
    elif is_shown:
        print(made.text, end="")
    else:
        print(file)
        count = "one job" if made.jobs == 1 else f"{made.jobs} jobs"
        print(
            f"makes {count} as it stands; next: falbatch plan {file}{' --sandbox' if options.sandbox else ''}",
            file=sys.stderr,
        )
    return int(ExitCode.OK)


HANDLERS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {"init": do_init}
