"""`falbatch sandbox`: the emulator of fal. It loads nothing of what talks to fal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from falbatch.errors import ExitCode
from falbatch.sandbox.flags import settings_from
from falbatch.sandbox.serve import serve

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


def do_sandbox(options: argparse.Namespace) -> int:
    """`falbatch sandbox`."""
    serve(settings_from(options))
    return int(ExitCode.OK)


HANDLERS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {"sandbox": do_sandbox}
