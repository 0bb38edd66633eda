"""One runner per state file: an OS lock that a crash releases by itself."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

from falbatch.errors import OutputError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RUN_WAITS_S: Final = 0.5
"""`is_held` holds the lock for a moment to find out: a run is not refused because somebody looked at its status."""

LOOK_WAITS_S: Final = 0.05
"""The same between two who only look."""

POLL_S: Final = 0.005


@contextlib.contextmanager
def held(state: Path, *, holder: Callable[[], str]) -> Iterator[None]:
    """Hold the lock of a state file. Raises `StateError` when another process keeps it for half a second.

    `holder()` describes, for that message, who is on record as the runner ("" when nobody is).
    """
    lock = FileLock(_lock_path(state), timeout=RUN_WAITS_S)
    try:
        lock.acquire(poll_interval=POLL_S)
    except Timeout:
        raise StateError(
            f"{state}: in use by another run{holder()}",
            advice="Wait for it or stop it; `falbatch status` shows how far it is.",
        ) from None
    except OSError as error:
        raise OutputError(
            f"{state.parent}: cannot be written ({error.strerror or error})",
            advice="Check the folder's permissions.",
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_held(state: Path) -> bool:
    """True while some process holds the lock of a state file."""
    if not _lock_path(state).exists():
        return False
    lock = FileLock(_lock_path(state), timeout=LOOK_WAITS_S)
    try:
        lock.acquire(poll_interval=POLL_S)
    except (Timeout, OSError):
        return True
    lock.release()
    return False


def _lock_path(state: Path) -> Path:
    return state.with_suffix(".lock")
