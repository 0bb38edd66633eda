"""SIGINT, SIGTERM, SIGHUP: the first stops gently, a second SIGINT or SIGTERM leaves at once."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final

import anyio

from falbatch.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""SIGHUP: the terminal was closed, or the line to it is lost."""


async def watch(on_first: Callable[[str], None]) -> None:
    """Call `on_first(name)` on the first signal; on the second end the process: what is on disk is enough to go on.

    SIGHUP is never the second and never counts as the first of two: a lost terminal sends it twice (the kernel and the
    shell), and a session manager adds SIGTERM; nobody was impatient, and calls in flight are worth their moment.
    A signal that was ignored when the process began (`nohup`, `&` in a script) stays ignored.
    """
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    is_told = is_asked = is_hung_up = False
    try:
        with anyio.open_signal_receiver(*heard) as received:
            async for number in received:
                if is_asked and number != signal.SIGHUP:
                    os._exit(ExitCode.STOPPED)
                is_asked |= number != signal.SIGHUP
                is_hung_up |= number == signal.SIGHUP
                if not is_told:
                    is_told = True
                    on_first(signal.Signals(number).name)
    finally:
        if is_hung_up:
            # The second one may come while the report is written: it must not end what is left of the way out.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
