"""The client's uploads: bytes, a file or a picture in, a URL out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio.to_thread

from falbatch.client.asking import repositories_of
from falbatch.client.encoding import image_bytes

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from PIL import Image

    from falbatch.client.asking import UploadRepositoryId
    from falbatch.client.connections import Connections
    from falbatch.fal.lifecycle import StorageSettings


class Uploading:
    """Part of AsyncClient. Uploads cost nothing and are repeated; large ones go in parts (fal-protocol §6).

    `repository` is where to: `fal_v3` (the CDN) or `fal` (a signed URL). `fallback_repository` is tried after it, when
    it could not be used at all; none is, unless named: a second upload of a refused file helps nobody.
    """

    connections: Connections

    async def upload(
        self,
        data: str | bytes,
        content_type: str,
        file_name: str | None = None,
        *,
        repository: UploadRepositoryId | None = None,
        fallback_repository: UploadRepositoryId | Sequence[UploadRepositoryId] | None = None,
        lifecycle: StorageSettings | None = None,
    ) -> str:
        """Upload `data` and give its URL."""
        given = data.encode() if isinstance(data, str) else data
        first, others = repositories_of(repository, fallback_repository)
        stored = await self.connections.store(
            lambda storage: storage.upload(given, content_type, file_name, lifecycle, repository=first, fallback=others)
        )
        return stored.url

    async def upload_file(
        self,
        path: str | os.PathLike[str],
        *,
        repository: UploadRepositoryId | None = None,
        fallback_repository: UploadRepositoryId | Sequence[UploadRepositoryId] | None = None,
        lifecycle: StorageSettings | None = None,
    ) -> str:
        """Upload a file, with the type that its name tells, and give its URL."""
        first, others = repositories_of(repository, fallback_repository)
        stored = await self.connections.store(
            lambda storage: storage.upload_path(path, lifecycle=lifecycle, repository=first, fallback=others)
        )
        return stored.url

    async def upload_image(
        self,
        image: Image.Image,
        format: str = "jpeg",  # noqa: A002 - fal_client's word
        *,
        repository: UploadRepositoryId | None = None,
        fallback_repository: UploadRepositoryId | Sequence[UploadRepositoryId] | None = None,
        lifecycle: StorageSettings | None = None,
    ) -> str:
        """Upload a Pillow image and give its URL."""
        data = await anyio.to_thread.run_sync(image_bytes, image, format)
        return await self.upload(
            data,
            f"image/{format}",
            repository=repository,
            fallback_repository=fallback_repository,
            lifecycle=lifecycle,
        )
