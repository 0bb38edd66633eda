"""What was uploaded, and where it lies: bytes in files of a folder, what is known of them on a shelf.

The bytes of a call come first, as a `Spool`: a file that no document names yet. Whatever takes it puts its name on
the shelf, in one transaction. A file that no document names is left over from a crash and goes at the next start.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import shutil
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from falbatch.errors import UsageError
from falbatch.sandbox.deposits import Part, Spool, StoredFile, Upload, file_from, name_in_url, upload_from
from falbatch.sandbox.ids import digest
from falbatch.sandbox.lifecycle import Acl, Lifecycle, parse_acl, parse_lifecycle
from falbatch.sandbox.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable, Sequence

    from falbatch.sandbox.shelf import Place

BUFFER_BYTES: Final = 1024 * 1024
"""Of an arriving body, or of a file being copied, that are in memory at once."""

_ORDINAL: Final = ("meta", "ordinal")


class TooLarge(Exception):
    """Raised when a body is longer than a call may be."""


class Storage:
    """All uploads of a sandbox. One event loop owns it; a change is on disk when the call that makes it returns."""

    def __init__(self, data: Path | None, seed: int) -> None:
        """Keep all in the folder `data`; with None in one that is made when needed and removed by `close`.

        Raises UsageError when what lies in `data` cannot be used.
        """
        self._seed = seed
        self._files: dict[str, StoredFile] = {}
        self._uploads: dict[str, Upload] = {}
        self._acls: dict[str, Acl] = {}
        """By path, of files that requests made, where somebody changed them."""
        self._settings: dict[str, list[tuple[float, Lifecycle]]] = {}
        """By account: (since, defaults), oldest first."""
        self._ordinal = 0
        """Uploads begun so far; part of their ids, so that none comes twice."""
        self._completing = asyncio.Lock()
        self._temporary: Path | None = None
        self._folder = None if data is None else data / "uploads"
        self._shelf: Shelf | None = None
        if self._folder is not None:
            self._shelf = _open_shelf(self._folder)
            self._load(self._shelf, self._folder)

    async def receive(self, chunks: AsyncIterable[bytes], most: int) -> Spool:
        """Write an arriving body to a file. Raises TooLarge when it is longer than `most` bytes."""
        path = self.folder / uuid.uuid4().hex
        hasher, size, buffer = hashlib.sha256(), 0, bytearray()

        def flush() -> None:
            with path.open("ab") as file:
                file.write(buffer)
            hasher.update(buffer)
            buffer.clear()

        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > most:
                    raise TooLarge
                buffer += chunk
                if len(buffer) >= BUFFER_BYTES:
                    await asyncio.to_thread(flush)
            await asyncio.to_thread(flush)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Spool(path.name, size, hasher.hexdigest())

    def discard(self, spool: Spool) -> None:
        """Remove the bytes of a call that nothing took; does nothing when something did."""
        if not spool.is_taken:
            self._remove([spool.blob])

    def begin(self, owner: str, content_type: str, file_name: str, lifecycle: Lifecycle, *, in_parts: bool) -> Upload:
        """A new upload, known to nobody until it is `open`ed, or `keep` makes a file of it."""
        first = digest("upload", self._seed, self._ordinal)
        self._ordinal += 1
        folder, word = first[:4].hex(), base64.urlsafe_b64encode(first[4:]).decode()
        path = f"files/b/{folder}/{word}_{name_in_url(file_name, content_type)}"
        return Upload(first.hex(), path, owner, content_type or "application/octet-stream", lifecycle, in_parts)

    def open(self, upload: Upload) -> None:
        """Let bytes be sent to it by later calls."""
        self._uploads[upload.id] = upload
        self._write({("upload", upload.id): upload.page(), _ORDINAL: self._ordinal})

    def upload(self, id_: str) -> Upload | None:
        """The upload of that id, complete or not, when it was opened."""
        return self._uploads.get(id_)

    def keep(self, upload: Upload, spool: Spool, now: float) -> StoredFile:
        """Make `spool` the file of an upload at once; the one of an earlier call is replaced."""
        upload.sent += 1
        return self._finish(upload, spool, 1, now)

    def keep_part(self, upload: Upload, number: int, spool: Spool) -> Part:
        """Make `spool` part `number` of an upload; the one of an earlier call is replaced."""
        part = Part(spool.blob, spool.size, spool.sha256)
        upload.sent += 1
        self._write({("part", f"{upload.id}/{number}"): part.page(), ("upload", upload.id): upload.page()})
        spool.is_taken = True
        before = upload.parts.get(number)
        upload.parts[number] = part
        self._remove([] if before is None else [before.blob])
        return part

    async def complete(self, upload: Upload, numbers: Sequence[int], now: float) -> StoredFile | None:
        """Join the parts of those numbers to a file; the file of an earlier call stays. None after a reset."""
        async with self._completing:
            if upload.etags or self._uploads.get(upload.id) is not upload:
                return self._files.get(upload.path)
            parts = [upload.parts[number] for number in numbers]
            upload.is_closing = True
            try:
                spool = await asyncio.to_thread(_join, self.folder, [part.blob for part in parts])
            except FileNotFoundError:
                if self._uploads.get(upload.id) is upload:
                    raise
                return None
            finally:
                upload.is_closing = False
            if self._uploads.get(upload.id) is not upload:
                self.discard(spool)
                return None
            return self._finish(upload, spool, len(parts), now, [part.etag for part in parts])

    def find(self, path: str, now: float) -> StoredFile | None:
        """The uploaded file at `path` (behind the host prefix); one that expired is deleted for good."""
        file = self._files.get(path)
        if file is None or file.expires_at is None or now < file.expires_at:
            return file
        del self._files[path]
        self._write({}, [("file", path)])
        self._remove([file.blob])
        return None

    def files(self, now: float) -> list[StoredFile]:
        """All files that have not expired, in the order of their upload."""
        found = [self.find(path, now) for path in list(self._files)]
        return sorted((file for file in found if file is not None), key=lambda file: file.uploaded_at)

    def unfinished(self) -> int:
        """Uploads that were opened and have no file yet."""
        return sum(upload.sent == 0 or bool(upload.parts) for upload in self._uploads.values())

    def place_of(self, file: StoredFile) -> Path:
        """Where its bytes lie."""
        return self.folder / file.blob

    def acl_at(self, path: str) -> Acl | None:
        """The ACL that somebody gave to a file that a request made; None when nobody did."""
        return self._acls.get(path)

    def set_acl(self, path: str, acl: Acl) -> None:
        """Replace the ACL of the file at `path`, uploaded or made by a request."""
        file = self._files.get(path)
        if file is None:
            self._acls[path] = acl
            self._write({("acl", path): acl.page()})
        else:
            self._files[path] = replace(file, acl=acl)
            self._write({("file", path): self._files[path].page()})

    def settings_of(self, account: str, at: float) -> Lifecycle:
        """What an account wanted for its new files at the time `at`, where their calls say nothing."""
        return next((wanted for since, wanted in reversed(self._settings.get(account, ())) if since <= at), Lifecycle())

    def set_settings(self, account: str, wanted: Lifecycle, now: float) -> None:
        """Replace an account's defaults for files from now on."""
        history = self._settings.setdefault(account, [])
        history.append((now, wanted))
        self._write({("settings", account): [[since, entry.page()] for since, entry in history]})

    def reset(self) -> None:
        """Forget everything; ids go on, so that no URL comes twice."""
        blobs = [file.blob for file in self._files.values()]
        places = [("file", path) for path in self._files]
        for upload in self._uploads.values():
            places.append(("upload", upload.id))
            places += [("part", f"{upload.id}/{number}") for number in upload.parts]
            blobs += [part.blob for part in upload.parts.values()]
        places += [("acl", path) for path in self._acls] + [("settings", account) for account in self._settings]
        for kept in (self._files, self._uploads, self._acls, self._settings):
            kept.clear()
        self._write({_ORDINAL: self._ordinal}, places)
        self._remove(blobs)

    def close(self) -> None:
        """Close the shelf, and remove the folder where it was only for this run."""
        if self._shelf is not None:
            self._shelf.close()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    @property
    def folder(self) -> Path:
        """Where the bytes lie."""
        if self._folder is None:
            self._folder = self._temporary = Path(tempfile.mkdtemp(prefix="falbatch-sandbox-"))
        return self._folder

    def _finish(self, upload: Upload, spool: Spool, parts: int, now: float, etags: Iterable[str] = ()) -> StoredFile:
        """Make a file of an upload's bytes, in one transaction with all that it changes."""
        wanted = upload.lifecycle
        file = StoredFile(
            path=upload.path,
            owner=upload.owner,
            content_type=upload.content_type,
            blob=spool.blob,
            size=spool.size,
            sha256=spool.sha256,
            uploaded_at=now,
            parts=parts,
            sent=upload.sent,
            expires_at=None if wanted.expiration_s is None else now + wanted.expiration_s,
            acl=wanted.acl or Acl(),
        )
        put: dict[Place, object] = {("file", file.path): file.page(), _ORDINAL: self._ordinal}
        if upload.id in self._uploads:
            put["upload", upload.id] = upload.page() | {"etags": [*etags]}
        self._write(put, [("part", f"{upload.id}/{number}") for number in upload.parts])
        before = self._files.get(file.path)
        gone = [part.blob for part in upload.parts.values()] + ([] if before is None else [before.blob])
        self._files[file.path], spool.is_taken = file, True
        upload.etags, upload.parts = [*etags], {}
        self._remove(gone)
        return file

    def _write(self, put: dict[Place, object], drop: Iterable[Place] = ()) -> None:
        if self._shelf is not None:
            self._shelf.change(put, drop)

    def _remove(self, blobs: Iterable[str]) -> None:
        for blob in blobs:
            (self.folder / blob).unlink(missing_ok=True)

    def _load(self, shelf: Shelf, folder: Path) -> None:
        """Take up what an earlier process left, and remove what belongs to nothing."""
        self._ordinal = shelf.all("meta").get("ordinal", 0)
        self._files = {path: file_from(page) for path, page in shelf.all("file").items()}
        self._uploads = {id_: upload_from(id_, page) for id_, page in shelf.all("upload").items()}
        for name, page in shelf.all("part").items():
            id_, _, number = name.partition("/")
            self._uploads[id_].parts[int(number)] = Part(**page)
        self._acls = {path: parse_acl(page) for path, page in shelf.all("acl").items()}
        self._settings = {
            account: [(since, parse_lifecycle(page)) for since, page in history]
            for account, history in shelf.all("settings").items()
        }
        named = {file.blob for file in self._files.values()}
        named |= {part.blob for upload in self._uploads.values() for part in upload.parts.values()}
        for path in folder.iterdir():
            if path.name not in named:
                path.unlink()


def _open_shelf(folder: Path) -> Shelf:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot keep uploads in {folder}: {error}", advice="Give --data another folder.") from error
    return Shelf(folder.with_suffix(".db"))


def _join(folder: Path, blobs: Sequence[str]) -> Spool:
    """One file of several, in their order."""
    path = folder / uuid.uuid4().hex
    hasher, size = hashlib.sha256(), 0
    try:
        with path.open("xb") as joined:
            for blob in blobs:
                with (folder / blob).open("rb") as file:
                    while chunk := file.read(BUFFER_BYTES):
                        joined.write(chunk)
                        hasher.update(chunk)
                        size += len(chunk)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Spool(path.name, size, hasher.hexdigest())
