"""What is uploaded, piece by piece, and the two ways to send pieces (fal-protocol §6.2, §6.3)."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self
from urllib.parse import quote, urlsplit

import anyio
import anyio.to_thread

from falbatch.errors import ReplyError
from falbatch.fal.cdn import json_object

if TYPE_CHECKING:
    from falbatch.fal.exchange import Reply


class Source(Protocol):
    """Bytes that can be read again, from anywhere."""

    @property
    def size(self) -> int: ...
    @property
    def in_memory(self) -> bool: ...
    async def read(self, offset: int, length: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class BytesSource:
    """What the caller holds in memory."""

    data: bytes
    in_memory: bool = True

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    async def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; a copy, unless it is all."""
        return self.data if length == len(self.data) else self.data[offset : offset + length]


class FileSource:
    """A file on disk, open once for all of its readers. OSError when it changes while it is uploaded."""

    in_memory = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not stat.S_ISREG(self.path.stat().st_mode):  # opening a pipe would wait for its writer
            raise OSError(errno.EINVAL, "not a file, and only files have a size to upload", str(path))
        self._file = self.path.open("rb")
        self._known = self._now()
        self.size = self._known[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    async def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, read in a thread."""
        # Not abandoned when cancelled: the file must not be closed, and its number given away, under a read.
        return await anyio.to_thread.run_sync(self._read, offset, length)

    def _read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._file.fileno(), length, offset)
        while len(data) < length and (more := os.pread(self._file.fileno(), length - len(data), offset + len(data))):
            data += more
        if len(data) < length or self._now() != self._known:
            raise OSError(f"{self.path} changed while it was uploaded; upload it again")
        return data

    def _now(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns


class Memory:
    """At most `limit` bytes of files in memory at once, over all uploads. First come, first served."""

    def __init__(self, limit: int) -> None:
        self._limit = self._free = limit
        self._turn = anyio.Lock()
        self._changed = anyio.Event()

    async def take(self, size: int) -> int:
        """Wait until there is room for `size` bytes; `give_back` what this returns. More than all is all."""
        share = min(size, self._limit)
        async with self._turn:  # a large file is not passed by for ever
            while self._free < share:
                self._changed = anyio.Event()
                await self._changed.wait()
            self._free -= share
        return share

    def give_back(self, share: int) -> None:
        """There is room again."""
        self._free += share
        self._changed.set()


@dataclass(frozen=True, slots=True)
class PartsPlace:
    """Where the parts of one upload go."""

    url: str
    """The file's address, once it is complete."""
    base: str
    """Parts go to `base/n`, the last word to `base/complete`."""
    query: str
    """Belongs to each of these URLs; "" for none."""
    with_token: bool
    """True: the CDN's own way, a token and etags in headers. False: signed URLs, etags in JSON."""

    def at(self, last: str) -> str:
        """The URL of a part's number, or of `complete`."""
        return f"{self.base}/{last}" + (f"?{self.query}" if self.query else "")

    def etag_of(self, reply: Reply, call: str) -> str:
        """The receipt for a part, its quotes kept; ReplyError without one."""
        etag = reply.headers.get("etag") if self.with_token else json_object(reply, call).get("etag")
        if not isinstance(etag, str) or not etag:
            raise ReplyError(f"{call}: the reply names no etag")
        return etag


def cdn_place(access_url: str, upload_id: str) -> PartsPlace:
    """The place that the CDN's own multipart upload opens (§6.2)."""
    return PartsPlace(access_url, f"{access_url}/multipart/{quote(upload_id, safe='')}", "", with_token=True)


def signed_place(file_url: str, upload_url: str) -> PartsPlace:
    """The place that `initiate-multipart` opens (§6.3)."""
    parts = urlsplit(upload_url)
    base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    return PartsPlace(file_url, base, parts.query, with_token=False)


def spans(size: int, part_bytes: int) -> list[tuple[int, int]]:
    """(offset, length) of each part; part n of fal's is entry n - 1."""
    return [(offset, min(part_bytes, size - offset)) for offset in range(0, size, part_bytes)]
