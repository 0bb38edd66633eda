"""Safe downloads: a URL from a result becomes bytes under a temporary name, whole or not at all.

A part file is gone on with when the server can prove (ETag and If-Range) that its file is still the same; otherwise
the download starts over. Nothing secret is ever sent: the opener it gets knows no key, and a URL with a user in it is
refused. What lies at the part's place is never followed: a link, a pipe or a second name of a file is replaced.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urljoin, urlsplit

import anyio.to_thread

from falbatch.adapters.limits import FetchLimits, Pace
from falbatch.core.media import HEAD_BYTES, TAIL_BYTES, Kind, contradiction, defect, extension_of, sniff
from falbatch.errors import HttpError, ReplyError, TransportError
from falbatch.faultpoints import fault_point

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

REDIRECTS_MOST: Final = 5
"""Redirects followed for one file; each target is checked like the first URL."""

URL_MOST: Final = 8192
"""Characters of a URL: what servers take (Apache and nginx: 8 KB); signed URLs have one or two thousand."""

REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})

_USER: Final = re.compile(r"^([^/?#]*//)[^/?#]*@")
"""The beginning of a URL up to the end of its user and password."""

_STRONG_ETAG: Final = re.compile(r"(?!W/)[!-~]{1,500}")
"""Weak ETags prove nothing, and what is not plain ASCII cannot be sent back."""

_CONTENT_RANGE: Final = re.compile(
    r"bytes (?P<first>[0-9]{1,18})-(?P<last>[0-9]{1,18})/(?P<total>[0-9]{1,18}|\*)", re.ASCII
)


class Reply(Protocol):
    """The head of a download, and its body as it comes."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case."""
        ...

    def chunks(self) -> AsyncIterator[bytes]: ...


class Opener(Protocol):
    """Opens URLs for reading, without credentials, following no redirect."""

    def stream(
        self, url: str, *, headers: Mapping[str, str], timeout_s: float, idle_s: float
    ) -> AbstractAsyncContextManager[Reply]:
        """`timeout_s` bounds the whole, `idle_s` each silence in it. Raises `TransportError`."""
        ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that lies complete under its temporary name."""

    size_bytes: int
    sha256: bytes
    content_type: str
    extension: str


@dataclass(frozen=True, slots=True)
class Claims:
    """What a result says of a file; may be missing or wrong."""

    url: str
    content_type: str | None
    size_bytes: int | None


class Fetcher:
    """Fetches files over `opener`. `allow_http` lets plain http through: for the sandbox on this machine only."""

    def __init__(self, opener: Opener, *, allow_http: bool, limits: FetchLimits = FetchLimits()) -> None:  # noqa: B008  (frozen)
        self._opener = opener
        self._allow_http = allow_http
        self._limits = limits

    async def fetch(self, claims: Claims, part: Path) -> Fetched:
        """Bring the file whole to `part`. Raises `WireError`; the part file stays for a later try to go on with,
        unless there is nothing in it that another try could use."""
        url = claims.url
        end_s = time.monotonic() + self._limits.total_s
        for _ in range(REDIRECTS_MOST + 1):
            self._check(url)
            have = resumable_bytes(part, url)
            async with self._open(url, _range_headers(part, url, have), end_s - time.monotonic()) as reply:
                target = reply.headers.get("location")
                if reply.status in REDIRECT_STATUSES and target:
                    url = _joined(url, target)
                    continue
                served = await self._receive(reply, url, claims, part, have)
            return await anyio.to_thread.run_sync(finish, part, claims, served)
        raise TransportError(
            f"more than {REDIRECTS_MOST} redirects from {plain(claims.url)}", sent=True, kind="protocol"
        )

    def _check(self, url: str) -> None:
        """Refuse what is not plainly a URL of the web. The opener checks the address behind its name."""
        try:
            parts = urlsplit(url)
            scheme, _ = parts.scheme.lower(), parts.port
        except ValueError as error:
            raise _refused(url, f"no usable URL ({error})") from error
        if scheme != "https" and not (scheme == "http" and self._allow_http):
            raise _refused(url, "only https is fetched")
        if "@" in parts.netloc:
            raise _refused(url, "a URL with a user or a password is not fetched")
        labels = (parts.hostname or "").removesuffix(".").split(".")
        is_host = "\\" not in parts.netloc and all(0 < len(label) < 64 for label in labels)  # RFC 1035, 2.3.4
        if not is_host or not url.isprintable() or len(url) > URL_MOST:
            raise _refused(url, "no usable URL")

    @asynccontextmanager
    async def _open(self, url: str, headers: Mapping[str, str], timeout_s: float) -> AsyncIterator[Reply]:
        async with AsyncExitStack() as stack:
            try:
                reply = await stack.enter_async_context(
                    self._opener.stream(
                        url, headers=headers, timeout_s=max(timeout_s, 0.001), idle_s=self._limits.silent_s
                    )
                )
            except UnicodeError as error:  # a host name that looks like IDNA and is none
                raise _refused(url, "no usable URL") from error
            except TransportError as error:
                if error.kind == "protocol" and not error.sent:  # so it is about the URL: no try will be better
                    raise _refused(url, "no usable URL") from error
                raise
            yield reply

    async def _receive(self, reply: Reply, url: str, claims: Claims, part: Path, have: int) -> str | None:
        """Write the body to `part`. Returns the content type that the server named."""
        if reply.status == 416 or (reply.status == 206 and not _continues(reply, have, _noted_etag(part, url))):
            forget(part)
            raise ReplyError(f"{plain(url)}: cannot be gone on with; it starts over")
        if reply.status not in {200, 206}:
            raise HttpError(f"{plain(url)}: HTTP {reply.status}", status=reply.status)
        start = have if reply.status == 206 else 0
        expected = _length(reply)
        most = self._limits.bytes_most
        if expected is None:
            most = min(most, self._limits.unannounced_most(claims.size_bytes))
        if start + (expected or 0) > most:
            forget(part)
            raise TransportError(f"{plain(url)}: {expected} bytes are too many", sent=True, kind="refused_size")
        if start == 0:
            _remember(part, url, reply.headers.get("etag"))
        received = await self._write_body(reply, part, _Span(start, expected, most), url)
        if expected is not None and received != expected:
            if received > expected:
                forget(part)
            raise ReplyError(f"{plain(url)}: {start + received} bytes came, {start + expected} were announced")
        return reply.headers.get("content-type")

    async def _write_body(self, reply: Reply, part: Path, span: _Span, url: str) -> int:
        """Plain writes: a chunk costs 2 µs this way and 50 with a thread's hop (measured). Returns bytes received."""
        received = 0
        looked_at = -LOOK_EVERY_BYTES
        descriptor = _open_for_writing(part, span.start)
        try:
            fault_point("download.begun")
            pace = Pace(self._limits, time.monotonic())
            async for chunk in reply.chunks():
                if received - looked_at >= LOOK_EVERY_BYTES:
                    looked_at = received
                    _leave_room(descriptor, self._limits.free_least_bytes)
                view = memoryview(chunk)
                while view:
                    view = view[os.write(descriptor, view) :]
                if received == 0:
                    fault_point("download.half")
                received += len(chunk)
                if span.start + received > span.most:
                    forget(part)  # whoever sends without end will do so again
                    raise TransportError(f"{plain(url)}: more than {span.most} bytes", sent=True, kind="refused_size")
                speed = pace.too_slow(len(chunk), time.monotonic())
                if speed is not None and received != span.expected:
                    raise TransportError(
                        f"{plain(url)}: too slow, {speed:.0f} bytes/s over {self._limits.slow_for_s:g} s",
                        sent=True,
                        kind="timeout",
                    )
        finally:
            os.close(descriptor)
        return received


@dataclass(frozen=True, slots=True)
class _Span:
    """The bytes of a file that one reply brings."""

    start: int
    """Bytes that are there already."""
    expected: int | None
    """Bytes announced from there on; None without an announcement."""
    most: int
    """Bytes that the whole file may have."""


LOOK_EVERY_BYTES: Final = 256 * 1024
"""Between two looks at the room on the disk, which cost 2 µs each."""


def _leave_room(descriptor: int, least: int) -> None:
    """Raises the system's "no space left" when less than `least` bytes are free on the disk of a file."""
    disk = os.fstatvfs(descriptor)
    if disk.f_bavail * disk.f_frsize < least:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _refused(url: str, why: str) -> TransportError:
    return TransportError(f"{plain(url)}: {why}", sent=False, kind="refused_url")


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError as error:
        raise TransportError(f"{plain(url)}: redirects to no URL", sent=True, kind="refused_url") from error


def _open_for_writing(part: Path, start: int) -> int:
    """A descriptor of `part` at byte `start`. What has to be gone on with is opened as it is, all else made new."""
    if start == 0:
        return os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
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
        kind = sniff(head)
        problem = _problem(kind, head, tail, size, claims, served_type)
        if problem is None:
            os.fsync(file.fileno())
    if problem is not None:
        forget(part)
        raise ReplyError(f"{plain(claims.url)}: {problem}")
    fault_point("download.whole")
    meta_path(part).unlink(missing_ok=True)
    content_type = kind.content_type if kind else (served_type or claims.content_type or "application/octet-stream")
    return Fetched(
        size, digest.digest(), content_type, extension_of(kind, claims.content_type or served_type, claims.url)
    )


def _problem(
    kind: Kind | None, head: bytes, tail: bytes, size: int, claims: Claims, served_type: str | None
) -> str | None:
    if size == 0:
        return "the file is empty"
    if claims.size_bytes is not None and size < claims.size_bytes:
        return f"{size} bytes came, the result speaks of {claims.size_bytes}"
    return contradiction(kind, (claims.content_type, served_type)) or defect(kind, head, tail, size)


def meta_path(part: Path) -> Path:
    """Beside a part file: whose bytes it holds."""
    return part.with_name(part.name + ".etag")


def forget(part: Path) -> None:
    """Throw a part file away: the next try starts over."""
    part.unlink(missing_ok=True)
    meta_path(part).unlink(missing_ok=True)


def _remember(part: Path, url: str, etag: str | None) -> None:
    """Note whose bytes `part` will hold, before the first of them is written."""
    forget(part)
    if etag and _STRONG_ETAG.fullmatch(etag):
        descriptor = os.open(meta_path(part), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"url": url, "etag": etag}, file)


def _noted_etag(part: Path, url: str) -> str | None:
    """The ETag that was noted beside `part`, if that was for `url`."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        with os.fdopen(open_plain(meta_path(part), os.O_RDONLY), encoding="utf-8") as file:
            note = json.load(file)
        if note["url"] == url and _STRONG_ETAG.fullmatch(note["etag"]):
            return str(note["etag"])
    return None


def resumable_bytes(part: Path, url: str) -> int:
    """How many bytes of `url` lie in `part` and may be gone on with; 0 when it has to start over."""
    with suppress(OSError):
        found = part.lstat()
        # A second name (a hard link) may be of a file outside the folder.
        if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1 and _noted_etag(part, url):
            return found.st_size
    return 0


def _range_headers(part: Path, url: str, have: int) -> dict[str, str]:
    etag = _noted_etag(part, url)
    return {"range": f"bytes={have}-", "if-range": etag} if have and etag else {}


def _continues(reply: Reply, have: int, etag: str | None) -> bool:
    """True for a 206 with all that is missing of the same file: from the byte after ours to the file's last."""
    match = _CONTENT_RANGE.fullmatch(reply.headers.get("content-range", "").strip())
    if match is None or have == 0 or int(match["first"]) != have:
        return False
    if reply.headers.get("etag", etag) != etag:
        return False  # If-Range was not heeded: the rest of another file
    return match["total"] == "*" or int(match["last"]) + 1 == int(match["total"])


def _length(reply: Reply) -> int | None:
    """Bytes announced for this body: by its range, when it is a rest, else by Content-Length."""
    match = _CONTENT_RANGE.fullmatch(reply.headers.get("content-range", "").strip())
    if reply.status == 206 and match is not None:
        return int(match["last"]) + 1 - int(match["first"])
    text = reply.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def plain(url: str) -> str:
    """`url` for a message: not endless, and without what may be secret (user, query, fragment) or move a cursor."""
    text = _USER.sub(r"\1", url[: 2 * URL_MOST].partition("?")[0].partition("#")[0])[:200]
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
