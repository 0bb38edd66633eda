"""Part files: what has come of a download, under its temporary name, until it is whole.

Beside one lies a note with the ETag of its bytes, so that a later try can go on where this one stopped. What lies at a
part's place is never followed: a link, a pipe or a second name of a file is replaced.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from falbatch.adapters.pictures import is_black
from falbatch.core.media import HEAD_BYTES, TAIL_BYTES, Kind, contradiction, defect, extension_of, sniff
from falbatch.core.pictures import FILE_BYTES_MOST
from falbatch.errors import ReplyError
from falbatch.faultpoints import fault_point

if TYPE_CHECKING:
    from pathlib import Path

URL_MOST: Final = 8192
"""Characters of a URL: what servers take (Apache and nginx: 8 KB); signed URLs have one or two thousand."""

_USER: Final = re.compile(r"^([^/?#]*//)[^/?#]*@")
"""The beginning of a URL up to the end of its user and password."""

_STRONG_ETAG: Final = re.compile(r"(?!W/)[!-~]{1,500}")
"""Weak ETags prove nothing, and what is not plain ASCII cannot be sent back."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that lies complete under its temporary name."""

    size_bytes: int
    sha256: bytes
    content_type: str
    extension: str
    is_black: bool = False
    """True for a picture that is all black."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a result says of a file; may be missing or wrong."""

    url: str
    content_type: str | None
    size_bytes: int | None


def keep_whole(part: Path, body: bytes, claims: Claims, served_type: str | None, *, free_least_bytes: int) -> Fetched:
    """Write the whole `body` to a new part file once it is what was promised, durably; nothing of it is on disk before.

    Runs in a worker thread. Raises `ReplyError`, and `OSError` where it cannot be written.
    """
    kind = _checked(part, body[:HEAD_BYTES], body[-TAIL_BYTES:], len(body), claims, served_type)
    descriptor = open_new(part)
    try:
        if free_least_bytes:
            leave_room(descriptor, free_least_bytes + len(body))
        write_all(descriptor, body)
        os.fsync(descriptor)
    except OSError:
        forget(part)
        raise
    finally:
        os.close(descriptor)
    fault_point("download.whole")
    digest = hashlib.sha256(body).digest()
    return _fetched(kind, len(body), digest, claims, served_type, is_black=_is_black(kind, body))


def finish(part: Path, claims: Claims, served_type: str | None) -> Fetched:
    """Check a complete part file, hash it, make it durable. A file that is not what was promised is thrown away.

    Runs in a worker thread. Raises `ReplyError`.
    """
    digest = hashlib.sha256()
    with os.fdopen(open_plain(part, os.O_RDONLY), "rb") as file:
        head = file.read(HEAD_BYTES)
        digest.update(head)
        tail = head
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            tail = (tail + chunk)[-TAIL_BYTES:]
        size = file.tell()
        kind = _checked(part, head, tail, size, claims, served_type)
        os.fsync(file.fileno())
    fault_point("download.whole")
    meta_path(part).unlink(missing_ok=True)
    looks_black = size <= FILE_BYTES_MOST and _is_black(kind, part.read_bytes())
    return _fetched(kind, size, digest.digest(), claims, served_type, is_black=looks_black)


def _checked(part: Path, head: bytes, tail: bytes, size: int, claims: Claims, served_type: str | None) -> Kind | None:
    """What kind of file it is, None for one unknown to us. Raises `ReplyError` for one that is not what was promised:
    what lies at `part` is thrown away then."""
    kind = sniff(head)
    problem = _problem(kind, head, tail, size, claims, served_type)
    if problem is not None:
        forget(part)
        raise ReplyError(f"{plain(claims.url)}: {problem}")
    return kind


def _is_black(kind: Kind | None, body: bytes) -> bool:
    return kind is not None and kind.family == "image" and is_black(body)


def _fetched(
    kind: Kind | None, size: int, sha256: bytes, claims: Claims, served_type: str | None, *, is_black: bool
) -> Fetched:
    content_type = kind.content_type if kind else (served_type or claims.content_type or "application/octet-stream")
    extension = extension_of(kind, claims.content_type or served_type, claims.url)
    return Fetched(size, sha256, content_type, extension, is_black)


def _problem(
    kind: Kind | None, head: bytes, tail: bytes, size: int, claims: Claims, served_type: str | None
) -> str | None:
    if size == 0:
        return "the file is empty"
    if claims.size_bytes is not None and size < claims.size_bytes:
        return f"{size} bytes came, the result speaks of {claims.size_bytes}"
    return contradiction(kind, (claims.content_type, served_type)) or defect(kind, head, tail, size)


def open_for_writing(part: Path, start: int) -> int:
    """A descriptor of `part` at byte `start`. What has to be gone on with is opened as it is, all else made new."""
    if start == 0:
        return open_new(part)
    descriptor = open_plain(part, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, start)
        os.lseek(descriptor, start, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def open_plain(place: Path, flags: int) -> int:
    """Open a file that is one: no link is followed, nobody waits for the other end of a pipe. Raises `OSError`."""
    descriptor = os.open(place, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file")
    return descriptor


def open_new(place: Path) -> int:
    """A descriptor of a new file; what is there already, be it a link, is replaced and not written through. A note that
    was left alone goes, too: it is about other bytes."""
    meta_path(place).unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(place, flags, 0o644)
    except FileExistsError:
        forget(place)
        return os.open(place, flags, 0o644)


def write_all(descriptor: int, body: bytes) -> None:
    """Write all of `body`; the system may take it in pieces."""
    view = memoryview(body)
    while view:
        view = view[os.write(descriptor, view) :]


def leave_room(descriptor: int, least: int) -> None:
    """Raises the system's "no space left" when less than `least` bytes are free on the disk of a file."""
    disk = os.fstatvfs(descriptor)
    if disk.f_bavail * disk.f_frsize < least:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def meta_path(part: Path) -> Path:
    """Beside a part file: whose bytes it holds."""
    return part.with_name(part.name + ".etag")


def forget(part: Path) -> None:
    """Throw a part file away, its note first: the next try starts over."""
    meta_path(part).unlink(missing_ok=True)
    part.unlink(missing_ok=True)


def remember(part: Path, url: str, etag: str | None) -> None:
    """Note whose bytes the new file `part` will hold, before the first of them is written."""
    if is_strong(etag):
        descriptor = os.open(meta_path(part), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"url": url, "etag": etag}, file)


def is_strong(etag: str | None) -> bool:
    """True for an ETag that proves that two bodies are the same."""
    return etag is not None and _STRONG_ETAG.fullmatch(etag) is not None


def noted_etag(part: Path, url: str) -> str | None:
    """The ETag that was noted beside `part`, if that was for `url`."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        with os.fdopen(open_plain(meta_path(part), os.O_RDONLY), encoding="utf-8") as file:
            note = json.load(file)
        if note["url"] == url and is_strong(note["etag"]):
            return str(note["etag"])
    return None


def resumable_bytes(part: Path, url: str) -> int:
    """How many bytes of `url` lie in `part` and may be gone on with; 0 when it has to start over."""
    with suppress(OSError):
        found = part.lstat()
        # A second name (a hard link) may be of a file outside the folder.
        if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1 and noted_etag(part, url):
            return found.st_size
    return 0


def plain(url: str) -> str:
    """`url` for a message: not endless, and without what may be secret (user, query, fragment) or move a cursor."""
    text = _USER.sub(r"\1", url[: 2 * URL_MOST].partition("?")[0].partition("#")[0])[:200]
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
