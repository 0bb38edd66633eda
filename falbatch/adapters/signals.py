"""SIGINT and SIGTERM: the first stops gently, the second leaves at once."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final

import anyio

from falbatch.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


async def watch(on_first: Callable[[str], None]) -> None:
    """Call `on_first(name)` on the first signal; on the second end the process: what is on disk is enough to go on."""
    with anyio.open_signal_receiver(*SIGNALS) as received:
        seen = False
        async for number in received:
            if seen:
                os._exit(ExitCode.STOPPED)
            seen = True
            on_first(signal.Signals(number).name)
