"""Local files that inputs name: what they hold, and their bytes on the way out, checked against what was planned."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import stat
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from falbatch.core.faults import Fault
from falbatch.core.fileinputs import DATA_BYTES_MOST, FileUnusable, hint_for
from falbatch.core.media import HEAD_BYTES, sniff

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

CHUNK: Final = 1 << 20
"""Bytes read at a time."""

READS: Final = 3
"""Times that a file which changes while it is read is begun anew."""

TICK_NS: Final = 50_000_000
"""A file that changed so short a time before it was read may have changed again without a new time."""
COARSE_TICK_NS: Final = 2_000_000_000
"""The same where the disk keeps whole seconds (FAT: two of them)."""

NAMES_SEEN: Final = 10_000
"""Names of a folder among which a similar one is looked for."""

_FOLDER: Final = Fault("it is a folder", "name a file in it; a row for each: rows: {glob: …}")
_NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True, slots=True)
class Stamp:
    """How a file looks from outside."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    """Of its latest change of any kind: nobody can set it back, as copying programs do with the other one."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a file held when it was read."""

    stamp: Stamp
    hashed_ns: int
    """Unix nanoseconds at which the reading began."""
    sha256: bytes

    def holds_for(self, stamp: Stamp) -> bool:
        """True when a file that looks like `stamp` now holds the same."""
        latest_ns = max(stamp.mtime_ns, stamp.ctime_ns)
        is_coarse = latest_ns % 1_000_000_000 == 0
        age_ns = self.hashed_ns - latest_ns
        return self.stamp == stamp and age_ns > (COARSE_TICK_NS if is_coarse else TICK_NS)


def place_of(base: str, path: str) -> str:
    """The absolute path of what the manifest in the folder `base` calls `path`."""
    return os.path.abspath(os.path.join(base, path))  # noqa: PTH100, PTH118  (as text, and ".." without a look)


def look(place: str) -> Stamp | Fault:
    """A file from outside, or what is wrong with it."""
    try:
        return _stamp(os.stat(place))  # noqa: PTH116  (a Path costs as much again, ten thousand times)
    except (OSError, ValueError) as error:
        return _fault(place, error)


def content_of(place: str) -> Content | Fault:
    """Read a file and tell what it holds, or what is wrong with it. Blocks; the hashing lets other threads run."""
    try:
        for _ in range(READS):
            with _open(place) as file:
                hashed_ns = time.time_ns()
                before = _stamp(os.fstat(file.fileno()))
                if isinstance(before, Fault):
                    return before
                digest = hashlib.file_digest(file, "sha256").digest()
                if before == _stamp(os.fstat(file.fileno())):
                    return Content(before, hashed_ns, digest)
    except (OSError, ValueError) as error:
        return _fault(place, error)
    return Fault("the file changes while it is read", "wait until it is whole")


def _open(place: str) -> BufferedReader:
    """Not waiting for whoever might write into it, should it be a pipe now."""
    return open(place, "rb", opener=lambda path, flags: os.open(path, flags | _NO_WAIT))


def _stamp(found: os.stat_result) -> Stamp | Fault:
    if stat.S_ISDIR(found.st_mode):
        return _FOLDER
    if not stat.S_ISREG(found.st_mode):
        return Fault("it is no plain file")
    if found.st_size == 0:
        return Fault("the file is empty")
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _fault(place: str, error: Exception) -> Fault:
    match error:
        case FileNotFoundError() | NotADirectoryError():
            folder, name = os.path.split(place)
            return Fault("there is no such file", hint_for(name, _beside(folder)))
        case IsADirectoryError():
            return _FOLDER
        case OSError():
            return Fault(f"the file cannot be read: {error.strerror or error}")
        case _:
            return Fault("this is no path that the system takes")


def _beside(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for _, entry in zip(range(NAMES_SEEN), entries, strict=False)]
    except OSError:
        return []


def content_type_of(head: bytes, path: str) -> str:
    """By the first bytes, else by the name."""
    kind = sniff(head)
    return (kind.content_type if kind else None) or mimetypes.guess_type(path)[0] or "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Checked:
    """A file that holds what was planned."""

    place: str
    head: bytes
    outside: tuple[int, ...]


def check(place: str, sha256: bytes) -> Checked:
    """Read a file and compare. Blocks. Raises `FileUnusable`."""
    with _unusable(place), _open(place) as file:
        outside = _outside(os.fstat(file.fileno()))
        head = file.read(HEAD_BYTES)
        file.seek(0)
        if hashlib.file_digest(file, "sha256").digest() != sha256:
            raise _changed(place)
        return Checked(place, head, outside)


def check_again(checked: Checked) -> None:
    """After others have read the file by its path: it is the one that was checked. Raises `FileUnusable`."""
    with _unusable(checked.place):
        if checked.outside != _outside(os.stat(checked.place)):  # noqa: PTH116
            raise _changed(checked.place)


def _outside(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@contextmanager
def _unusable(place: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise FileUnusable("file_missing", f"{place}: the file is gone") from error
    except OSError as error:
        raise FileUnusable("file_missing", f"{place}: the file cannot be read: {error.strerror or error}") from error


def _changed(place: str) -> FileUnusable:
    return FileUnusable("file_changed", f"{place}: the file is not what it was when the run was planned")


def read_checked(place: str, sha256: bytes, size: int) -> bytes:
    """The bytes of a file of `size` bytes that holds what was planned. Blocks. Raises `FileUnusable`."""
    with _unusable(place), _open(place) as file:
        body = file.read(size + 1) or b""  # one that grew is another one; a pipe that took its place may say nothing
    if hashlib.sha256(body).digest() != sha256:
        raise _changed(place)
    return body


def size_of(place: str) -> int:
    """Bytes of a file. Raises `FileUnusable`."""
    with _unusable(place):
        return os.stat(place).st_size  # noqa: PTH116


def too_large(size: int) -> str:
    """What is said of a file of `size` bytes that was to travel inside its input."""
    return f"{size / 1e6:.1f} MB are too much for `as: data` (at most {DATA_BYTES_MOST / 1e6:.1f} MB); leave it out"
