"""The output folder: files appear in it whole, under safe names, and stay inside it."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import anyio.to_thread

from falbatch.adapters.hops import Batch, sync_folder
from falbatch.adapters.partfile import Claims, Fetched
from falbatch.core.artifacts import decode_data_uri
from falbatch.errors import DiskFull, OutputError, ReplyError, TransportError
from falbatch.faultpoints import fault_point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from falbatch.adapters.fetch import Fetcher

HASH_CHUNK = 1 << 20


class OutputFolder:
    """Paths are relative to `root`, with POSIX slashes; a symlink inside `root` is never followed out of it.

    That is looked at before each batch of files, for a link may come at any time. Whoever may write into the folder can
    still win a race against the look; such a one may as well write where the link leads.
    """

    def __init__(self, root: Path, fetcher: Fetcher) -> None:
        self._root = root.resolve()
        self._fetcher = fetcher

    async def fetch(
        self, url: str, part: str, *, size_bytes: int | None, content_type: str | None, is_new: bool = False
    ) -> Fetched:
        """Bring `url`, or a data URI, whole to `part`; `is_new`: nothing of it can be there.

        Raises `WireError`, `OutputError`, `DiskFull`.
        """
        if url[:5].lower() == "data:":
            try:
                body, named_type = decode_data_uri(url)
            except ValueError as error:
                raise TransportError(str(error), sent=False, kind="refused_content") from error
            return await self.keep(body, part, content_type=named_type or content_type)
        with self._translated(part):
            return await self._fetcher.fetch(
                Claims(url, content_type, size_bytes), self._inside(part), prepare=self._prepared(part), is_new=is_new
            )

    async def keep(self, body: bytes, part: str, *, content_type: str | None) -> Fetched:
        """Write `body` whole to `part`. Raises `OutputError`, `DiskFull`, and `TransportError` (`refused_content`)
        when it is not what `content_type` says: it came with the result, so no other try will bring a better one."""
        claims = Claims("data:", content_type, None)
        with self._translated(part):
            try:
                return await self._fetcher.keep(
                    self._inside(part), body, claims, content_type, prepare=self._prepared(part)
                )
            except ReplyError as error:
                raise TransportError(str(error), sent=False, kind="refused_content") from error

    async def publish(self, part: str, path: str) -> None:
        """Rename `part` to `path`; the name is durable on return. Raises `OutputError`, `DiskFull`."""

        def rename(batch: Batch) -> None:
            source, target = self._ready(part, batch), self._ready(path, batch)
            if not stat.S_ISREG(source.lstat().st_mode):
                raise OutputError(f"{source}: is not the file that was written there", advice="Remove it.")
            fault_point("file.renaming")
            source.replace(target)
            fault_point("file.renamed")
            batch.sync_later(target.parent)

        with self._translated(path):
            await self._fetcher.hops.do(rename)

    async def holds(self, path: str, *, size_bytes: int, sha256: bytes) -> bool:
        """True when the file at `path` is there with exactly these contents."""

        def look() -> bool:
            with suppress(OSError):
                place = self._inside(path)
                found = place.stat()
                return stat.S_ISREG(found.st_mode) and found.st_size == size_bytes and _hash(place) == sha256
            return False

        return await anyio.to_thread.run_sync(look)

    def is_taken(self, path: str) -> bool:
        """True when something stands at `path` already, be it a broken link."""
        return os.path.lexists(self._inside(path))

    def _prepared(self, relative: str) -> Callable[[Batch], None]:
        def prepare(batch: Batch) -> None:
            with self._translated(relative):
                self._ready(relative, batch)

        return prepare

    def _ready(self, relative: str, batch: Batch) -> Path:
        """The place of `relative`, its folder made."""
        place = self._inside(relative)

        def look() -> None:
            # Not Path.resolve: it calls a circle of links a RuntimeError (Python < 3.13).
            if not Path(os.path.realpath(place.parent)).is_relative_to(self._root):
                raise OutputError(
                    f"{place.parent}: a link leads out of the output folder", advice="Remove the link, or the folder."
                )
            _make_durably(place.parent)

        batch.once(place.parent, look)
        return place

    def _inside(self, relative: str) -> Path:
        """`relative` under the root. Names are made safe when planned; this is the last check before the disk."""
        place = self._root / relative
        if relative.startswith("/") or "\\" in relative or ".." in place.parts or not relative:
            raise OutputError(f"{relative!r} is not a place inside the output folder")
        return place

    def _translated(self, relative: str) -> _Translated:
        return _Translated(self._root, relative)


def translated(place: Path) -> _Translated:
    """A block in which the system's errors about `place` become ours."""
    return _Translated(place, "")


@contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """A text to write that becomes `path` when the block ends well; until then the old file stays as it was."""
    temporary = path.with_name(path.name + ".part")
    with translated(path):
        try:
            with temporary.open("w", encoding="utf-8", newline="") as stream:
                yield stream
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


class _Translated:
    """The same for `relative` in `root`; no generator, since each file needs three."""

    __slots__ = ("_relative", "_root")

    def __init__(self, root: Path, relative: str) -> None:
        self._root = root
        self._relative = relative

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if not isinstance(error, OSError):
            return
        place = self._root / self._relative if self._relative else self._root
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull(
                f"{place}: no space left on the disk", advice="Free some space; the same command goes on."
            ) from error
        raise OutputError(
            f"{place}: cannot be written ({error.strerror or error})", advice="Check the folder and its permissions."
        ) from error


def make_folder(folder: Path) -> None:
    """Make the output folder, and find out at once when it cannot be written. Raises `OutputError`, `DiskFull`."""
    probe = folder / f".falbatch-{os.getpid()}.probe"
    with translated(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.unlink(missing_ok=True)
            # One page: an empty file can be made on a full disk.
            _write_new(probe, b"\0" * 4096)
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)


def write_whole(place: Path, body: bytes) -> None:
    """Write a file that appears whole, in place of what stands there. Raises `OutputError`, `DiskFull`."""
    temporary = place.with_name(f".{place.name}.part")
    with translated(place):
        try:
            temporary.unlink(missing_ok=True)
            _write_new(temporary, body)
            fault_point("page.written")
            temporary.replace(place)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _write_new(place: Path, body: bytes) -> None:
    """Write a file that is not there yet; through a link that came in between nothing is written."""
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(body)


def _hash(place: Path) -> bytes:
    digest = hashlib.sha256()
    with place.open("rb") as file:
        while chunk := file.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.digest()


def _make_durably(folder: Path) -> None:
    """Make `folder` and what is missing above it; the new names survive a power cut."""
    if folder.is_dir():
        return
    _make_durably(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)
