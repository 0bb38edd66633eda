"""Wiring: fal's storage for the files of inputs, and which one it is."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeVar, cast

import anyio.to_thread

from falbatch.adapters import localfiles
from falbatch.api.offline import terms_of
from falbatch.core.fileinputs import DATA_BYTES_MOST, FileUnusable
from falbatch.fal.again import Repeats
from falbatch.fal.data_uri import data_uri
from falbatch.fal.exchange import TransportSettings
from falbatch.fal.lifecycle import StorageSettings
from falbatch.fal.storage import StorageClient, UploadLimits
from falbatch.fal.transport import Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from falbatch.api.connect import Target
    from falbatch.core.fileinputs import UploadTerms
    from falbatch.engine.settings import ExecuteSettings

MEMORY_BYTES: Final = 8 * 1024 * 1024
"""Files up to this size are read once: what was compared is what leaves. Larger ones are compared, sent by their path,
and looked at again."""

TRIES: Final = 6
"""Tries of one call of an upload, before the file is left for the next run."""

LIMITS = UploadLimits()
"""How uploads are cut into parts; tests cut smaller ones."""

T = TypeVar("T")
Lifetime = Literal["never", "1h", "1d", "7d", "30d", "1y"] | int


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file at fal."""

    url: str
    size_bytes: int
    expires_at: float | None
    """Unix seconds; None when the account's setting decides."""


class FalStorage:
    """The engine's storage port over fal's client and the local disk."""

    def __init__(self, client: StorageClient, terms: UploadTerms) -> None:
        self._client = client
        self._terms = terms
        self._lifecycle = StorageSettings(expires_in=cast("Lifetime | None", terms.expires_in))

    @property
    def terms(self) -> UploadTerms:
        """Where uploads go, and for how long."""
        return self._terms

    async def upload(self, paths: Sequence[str], sha256: bytes, content_type: str) -> UploadedFile:
        """Upload a content from the first of `paths` that holds it. Raises `WireError`, `FileUnusable`."""
        return await _first(paths, lambda path: self._upload(path, sha256, content_type))

    async def data_uri(self, paths: Sequence[str], sha256: bytes, content_type: str) -> str:
        """A content as a data URI. Raises `FileUnusable`."""

        def made(path: str) -> str:
            size = localfiles.size_of(path)
            if size > DATA_BYTES_MOST:
                raise FileUnusable("file_too_large", f"{path}: {localfiles.too_large(size)}")
            body = localfiles.read_checked(path, sha256, size)
            return data_uri(body, content_type or localfiles.content_type_of(body, path))

        return await _first(paths, lambda path: anyio.to_thread.run_sync(made, path))

    async def _upload(self, path: str, sha256: bytes, content_type: str) -> UploadedFile:
        size = await anyio.to_thread.run_sync(localfiles.size_of, path)
        name = os.path.basename(path)  # noqa: PTH119
        if size <= MEMORY_BYTES:
            body = await anyio.to_thread.run_sync(localfiles.read_checked, path, sha256, size)
            kind = content_type or localfiles.content_type_of(body, path)
            uploaded = await self._client.upload(body, kind, name, self._lifecycle)
        else:
            checked = await anyio.to_thread.run_sync(localfiles.check, path, sha256)
            kind = content_type or localfiles.content_type_of(checked.head, path)
            try:
                uploaded = await self._client.upload_path(path, kind, name, self._lifecycle)
            except OSError as error:
                why = f"{path}: the file cannot be read: {error.strerror or error}"
                raise FileUnusable("file_changed", why) from error
            await anyio.to_thread.run_sync(localfiles.check_again, checked)
        return UploadedFile(uploaded.url, size, uploaded.expires_at)


async def _first(paths: Sequence[str], call: Callable[[str], Awaitable[T]]) -> T:
    """`call` of the first path that is as it was; what is wrong with the last one otherwise."""
    unusable = FileUnusable("file_missing", "the file that held this is gone, or holds something else now")
    for path in paths:
        try:
            return await call(path)
        except FileUnusable as error:
            unusable = error
    raise unusable


@contextlib.asynccontextmanager
async def open_storage(target: Target, settings: ExecuteSettings) -> AsyncIterator[FalStorage]:
    """fal's storage over connections of its own: a large file must not keep a submit waiting."""
    at_once = settings.uploads + LIMITS.parts_at_once
    transport_settings = TransportSettings(gate=at_once, connections=2 * at_once)
    repeats = Repeats(TRIES, settings.backoff.first_s, settings.backoff.cap_s)
    async with Transport(settings=transport_settings) as transport:
        client = StorageClient(transport, target.hosts, target.credentials, limits=LIMITS, repeats=repeats)
        yield FalStorage(client, terms_of(target.hosts, settings.uploads_expire))
