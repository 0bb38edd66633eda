"""Safe downloads: a URL from a result becomes bytes under a temporary name, whole or not at all.

A small body waits in memory until it is whole. A larger one goes to a part file as it comes, and so does a small one
that broke off: when the server can prove (ETag and If-Range) that its file is still the same, a later try goes on
there; otherwise the download starts over. Nothing secret is ever sent: the opener it gets knows no key, and a URL with
a user in it is refused.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urljoin, urlsplit

import anyio.to_thread

from falbatch.adapters.hops import Batch, Hops
from falbatch.adapters.limits import FetchLimits, Pace
from falbatch.adapters.partfile import (
    URL_MOST,
    Claims,
    Fetched,
    finish,
    forget,
    is_strong,
    keep_whole,
    leave_room,
    noted_etag,
    open_for_writing,
    plain,
    remember,
    resumable_bytes,
    write_all,
)
from falbatch.errors import HttpError, ReplyError, TransportError
from falbatch.faultpoints import fault_point

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

REDIRECTS_MOST: Final = 5
"""Redirects followed for one file; each target is checked like the first URL."""

REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})

LONG_BYTES: Final = 128 * 1024
"""A file from this size on is written in a thread of its own: others need not wait until it is hashed and synced."""

LOOK_EVERY_BYTES: Final = 256 * 1024
"""Between two looks at the room on the disk, which cost 2 µs each."""

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


class Fetcher:
    """Fetches files over `opener`. `allow_http` lets plain http through: for the sandbox on this machine only."""

    def __init__(
        self,
        opener: Opener,
        *,
        allow_http: bool,
        limits: FetchLimits = FetchLimits(),  # noqa: B008  (frozen)
        hops: Hops | None = None,
    ) -> None:
        self._opener = opener
        self._allow_http = allow_http
        self._limits = limits
        self.hops = hops or Hops()

    async def fetch(
        self,
        claims: Claims,
        part: Path,
        *,
        prepare: Callable[[Batch], None] = lambda _: None,
        is_new: bool = False,
    ) -> Fetched:
        """Bring the file whole to `part`. Raises `WireError`; what came of it stays for a later try to go on with,
        unless there is nothing in it that another try could use. `prepare` checks and makes the folder of `part`
        before anything there is read, written or thrown away; `is_new`: nothing can lie at `part`, so that nothing but
        writing needs it."""
        url = claims.url
        if not is_new:
            prepare(Batch())
        end_s = time.monotonic() + self._limits.total_s
        for _ in range(REDIRECTS_MOST + 1):
            self._check(url)
            have = 0 if is_new else resumable_bytes(part, url)
            headers = _range_headers(part, url) if have else {}
            async with self._open(url, headers, end_s - time.monotonic()) as reply:
                target = reply.headers.get("location")
                if reply.status in REDIRECT_STATUSES and target:
                    url = _joined(url, target)
                    continue
                body = _Body(part, url, have, self._limits, prepare)
                served = await self._receive(reply, claims, body)
            if not body.is_in_memory:
                return await anyio.to_thread.run_sync(finish, part, claims, served)
            return await self.keep(part, body.whole(), claims, served, prepare=prepare)
        raise TransportError(
            f"more than {REDIRECTS_MOST} redirects from {plain(claims.url)}", sent=True, kind="protocol"
        )

    async def keep(
        self, part: Path, body: bytes, claims: Claims, served_type: str | None, *, prepare: Callable[[Batch], None]
    ) -> Fetched:
        """Write a whole body to `part`. Raises `ReplyError` when it is not what was promised."""
        least = self._limits.free_least_bytes

        def work(batch: Batch) -> Fetched:
            prepare(batch)
            return keep_whole(part, body, claims, served_type, free_least_bytes=least)

        return await self.hops.do(work, is_long=len(body) > LONG_BYTES)

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
        idle_s = self._limits.silent_s
        try:
            async with self._opener.stream(
                url, headers=headers, timeout_s=max(timeout_s, 0.001), idle_s=idle_s
            ) as reply:
                yield reply
        except UnicodeError as error:  # a host name that looks like IDNA and is none
            raise _refused(url, "no usable URL") from error
        except TransportError as error:
            if error.kind == "protocol" and not error.sent:  # so it is about the URL: no try will be better
                raise _refused(url, "no usable URL") from error
            raise

    async def _receive(self, reply: Reply, claims: Claims, body: _Body) -> str | None:
        """Take the reply's body. Returns the content type that the server named."""
        url, part = body.url, body.part
        if reply.status == 416 or (reply.status == 206 and not _continues(reply, body.start, noted_etag(part, url))):
            if body.had:
                forget(part)
            raise ReplyError(f"{plain(url)}: cannot be gone on with; it starts over")
        if reply.status not in {200, 206}:
            raise HttpError(f"{plain(url)}: HTTP {reply.status}", status=reply.status)
        if reply.status == 200:
            body.start = 0
        expected = _length(reply)
        most = self._limits.bytes_most
        if expected is None:
            most = min(most, self._limits.unannounced_most(claims.size_bytes))
        if body.start + (expected or 0) > most:
            if body.had:
                forget(part)
            raise TransportError(f"{plain(url)}: {expected} bytes are too many", sent=True, kind="refused_size")
        body.etag = reply.headers.get("etag")
        with body:
            await self._fill(body, reply, expected, most)
            if expected is not None and body.received != expected:
                if body.received > expected:
                    body.is_worthless = True
                announced = f"{body.start + expected} were announced"
                raise ReplyError(f"{plain(url)}: {body.start + body.received} bytes came, {announced}")
        return reply.headers.get("content-type")

    async def _fill(self, body: _Body, reply: Reply, expected: int | None, most: int) -> None:
        pace = Pace(self._limits, time.monotonic())
        looked_at = -LOOK_EVERY_BYTES
        async for chunk in reply.chunks():
            body.take(chunk)
            if not body.is_in_memory and body.received - looked_at >= LOOK_EVERY_BYTES:
                looked_at = body.received
                leave_room(body.descriptor, self._limits.free_least_bytes)
            if body.start + body.received > most:
                body.is_worthless = True  # whoever sends without end will do so again
                raise TransportError(f"{plain(body.url)}: more than {most} bytes", sent=True, kind="refused_size")
            speed = pace.too_slow(len(chunk), time.monotonic())
            if speed is not None and body.received != expected:
                raise TransportError(
                    f"{plain(body.url)}: too slow, {speed:.0f} bytes/s over {self._limits.slow_for_s:g} s",
                    sent=True,
                    kind="timeout",
                )


class _Body:
    """The bytes of one reply: in memory while they are few, else in the part file. A block around their coming; one
    that ends badly leaves what another try can go on with, and nothing else."""

    def __init__(self, part: Path, url: str, start: int, limits: FetchLimits, prepare: Callable[[Batch], None]) -> None:
        self.part = part
        self.url = url
        self.start = start
        """Bytes that are in the part file already, and are gone on with."""
        self.had = start > 0
        """True when there was something to go on with, whatever the server says to that."""
        self.etag: str | None = None
        self.received = 0
        self.descriptor = -1
        self.is_worthless = False
        """True when no other try could use what came."""
        self._limits = limits
        self._prepare = prepare
        self._chunks: list[bytes] = []

    @property
    def is_in_memory(self) -> bool:
        """True while nothing of it was written."""
        return self.descriptor < 0

    def __enter__(self) -> None:
        if self.start:
            self._open()

    def take(self, chunk: bytes) -> None:
        """Plain writes: a chunk costs 2 µs this way and 50 with a thread's hop (measured)."""
        self.received += len(chunk)
        if self.is_in_memory and self.received <= self._limits.in_memory_most:
            self._chunks.append(chunk)
            return
        if self.is_in_memory:
            self._open()
        write_all(self.descriptor, chunk)
        if self.received == len(chunk):
            fault_point("download.half")

    def whole(self) -> bytes:
        """All of it, while it is in memory."""
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            is_of_use = is_strong(self.etag) and not self.is_worthless
            if kind is not None and self.is_in_memory and self._chunks and is_of_use:
                self._open()
        finally:
            if not self.is_in_memory:
                os.close(self.descriptor)
            if self.is_worthless and (self.had or not self.is_in_memory):
                forget(self.part)

    def _open(self) -> None:
        self._prepare(Batch())
        self.descriptor = open_for_writing(self.part, self.start)
        if self.start == 0:
            remember(self.part, self.url, self.etag)
        fault_point("download.begun")
        if self._chunks:
            leave_room(self.descriptor, self._limits.free_least_bytes + self.received)
        for chunk in self._chunks:
            write_all(self.descriptor, chunk)
            fault_point("download.half")
        self._chunks.clear()


def _refused(url: str, why: str) -> TransportError:
    return TransportError(f"{plain(url)}: {why}", sent=False, kind="refused_url")


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError as error:
        raise TransportError(f"{plain(url)}: redirects to no URL", sent=True, kind="refused_url") from error


def _range_headers(part: Path, url: str) -> dict[str, str]:
    etag, have = noted_etag(part, url), resumable_bytes(part, url)
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
