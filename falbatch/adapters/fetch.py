"""Safe downloads: a URL from a result becomes bytes under a temporary name, whole or not at all.

A part file is gone on with when the server can prove (ETag and If-Range) that its file is still the same; otherwise
the download starts over. Nothing secret is ever sent: the opener it gets knows no key.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urljoin, urlsplit

import anyio.to_thread

from falbatch.core.media import HEAD_BYTES, TAIL_BYTES, Kind, contradiction, defect, extension_of, sniff
from falbatch.errors import HttpError, ReplyError, TransportError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

REDIRECTS_MOST: Final = 5
"""Redirects followed for one file; each target is checked like the first URL."""

TOTAL_S: Final = 3600.0
"""Longest time for one file, in seconds: a 10 GB file at 3 MB/s."""

BYTES_MOST: Final = 20 * 1024**3
"""Largest file fetched: far above any video that fal's models make, far below a disk."""

REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})

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
        self, url: str, *, headers: Mapping[str, str], timeout_s: float
    ) -> AbstractAsyncContextManager[Reply]: ...


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

    def __init__(self, opener: Opener, *, allow_http: bool) -> None:
        self._opener = opener
        self._allow_http = allow_http

    async def fetch(self, claims: Claims, part: Path) -> Fetched:
        """Bring the file whole to `part`. Raises `WireError`; the part file stays for a later try to go on with."""
        url = claims.url
        for _ in range(REDIRECTS_MOST + 1):
            self._check(url)
            have = resumable_bytes(part, url)
            async with self._opener.stream(url, headers=_range_headers(part, have), timeout_s=TOTAL_S) as reply:
                target = reply.headers.get("location")
                if reply.status in REDIRECT_STATUSES and target:
                    url = _joined(url, target)
                    continue
                served = await self._receive(reply, url, part, have)
                return await anyio.to_thread.run_sync(finish, part, claims, served)
        raise TransportError(
            f"more than {REDIRECTS_MOST} redirects from {plain(claims.url)}", sent=True, kind="protocol"
        )

    def _check(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            scheme, _ = parts.scheme.lower(), parts.port
        except ValueError as error:
            raise TransportError(f"{plain(url)}: no usable URL ({error})", sent=False, kind="refused_url") from error
        if scheme != "https" and not (scheme == "http" and self._allow_http):
            raise TransportError(f"{plain(url)}: only https is fetched", sent=False, kind="refused_url")

    async def _receive(self, reply: Reply, url: str, part: Path, have: int) -> str | None:
        """Write the body to `part`. Returns the content type that the server named."""
        if reply.status == 416 or (reply.status == 206 and not _continues(reply, have)):
            forget(part)
            raise ReplyError(f"{plain(url)}: cannot be gone on with; it starts over")
        if reply.status not in {200, 206}:
            raise HttpError(f"{plain(url)}: HTTP {reply.status}", status=reply.status)
        start = have if reply.status == 206 else 0
        expected = _length(reply)
        if start + (expected or 0) > BYTES_MOST:
            raise TransportError(f"{plain(url)}: {expected} bytes are too many", sent=True, kind="refused_size")
        if start == 0:
            _remember(part, url, reply.headers.get("etag"))
        received = await _write_body(reply, part, start, url)
        if expected is not None and received != expected:
            raise ReplyError(f"{plain(url)}: {start + received} bytes came, {start + expected} were announced")
        return reply.headers.get("content-type")


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError as error:
        raise TransportError(f"{plain(url)}: redirects to no URL", sent=True, kind="refused_url") from error


async def _write_body(reply: Reply, part: Path, start: int, url: str) -> int:
    """Plain writes: a chunk costs 2 µs this way and 50 with a thread's hop (measured). Returns bytes received."""
    received = 0
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.ftruncate(descriptor, start)
        os.lseek(descriptor, start, os.SEEK_SET)
        async for chunk in reply.chunks():
            view = memoryview(chunk)
            while view:
                view = view[os.write(descriptor, view) :]
            received += len(chunk)
            if start + received > BYTES_MOST:
                raise TransportError(f"{plain(url)}: more than {BYTES_MOST} bytes", sent=True, kind="refused_size")
    finally:
        os.close(descriptor)
    return received


def finish(part: Path, claims: Claims, served_type: str | None) -> Fetched:
    """Check a complete part file, hash it, make it durable. A file that is not what was promised is thrown away.

    Runs in a worker thread. Raises `ReplyError`.
    """
    digest = hashlib.sha256()
    with part.open("r+b") as file:
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
    """Note whose bytes `part` will hold, before the first of them is written. Weak ETags prove nothing."""
    forget(part)
    if etag and not etag.startswith("W/"):
        meta_path(part).write_text(json.dumps({"url": url, "etag": etag}), encoding="utf-8")


def resumable_bytes(part: Path, url: str) -> int:
    """How many bytes of `url` lie in `part` and may be gone on with; 0 when it has to start over."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads(meta_path(part).read_text(encoding="utf-8"))["url"] == url:
            return part.stat().st_size
    return 0


def _range_headers(part: Path, have: int) -> dict[str, str]:
    if have == 0:
        return {}
    etag = json.loads(meta_path(part).read_text(encoding="utf-8"))["etag"]
    return {"range": f"bytes={have}-", "if-range": etag}


def _continues(reply: Reply, have: int) -> bool:
    """True for a 206 with all that is missing: from the byte after ours to the file's last."""
    match = _CONTENT_RANGE.fullmatch(reply.headers.get("content-range", "").strip())
    if match is None or have == 0 or int(match["first"]) != have:
        return False
    return match["total"] == "*" or int(match["last"]) + 1 == int(match["total"])


def _length(reply: Reply) -> int | None:
    text = reply.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def plain(url: str) -> str:
    """`url` for a message: without its query, which may hold a signature, and not endless."""
    return url.partition("?")[0][:200]
