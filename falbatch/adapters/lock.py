"""One runner per output folder: an OS lock that a crash releases by itself."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from falbatch.errors import OutputError, StateError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_NAME = "falbatch.lock"


@contextlib.contextmanager
def held(folder: Path, *, holder: str) -> Iterator[None]:
    """Hold the lock of `folder`, which exists. Raises `StateError` at once when another process has it.

    `holder` describes, for that message, who is on record as the runner ("" when nobody is).
    """
    lock = FileLock(folder / LOCK_NAME, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise StateError(
            f"{folder}: another falbatch is working here{f' ({holder})' if holder else ''}",
            advice="Wait for it or stop it; `falbatch status` shows how far it is.",
        ) from None
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error})",
            advice="Check the folder's permissions.",
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_held(folder: Path) -> bool:
    """True while some process holds the lock of `folder`."""
    if not (folder / LOCK_NAME).exists():
        return False
    lock = FileLock(folder / LOCK_NAME, timeout=0)
    try:
        lock.acquire()
    except (Timeout, OSError):
        return True
    lock.release()
    return False
