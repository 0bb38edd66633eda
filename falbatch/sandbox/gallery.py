"""Draws pictures when they are asked for, in a thread of its own, and keeps the last ones."""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from falbatch.sandbox.outputs import Picture

CACHE_BYTES: Final = 64 * 1024 * 1024
"""Enough for the parts of a resumed download to come from one drawing."""


class Gallery:
    """Encoded pictures by what they show. Belongs to one event loop; one thread draws, so the queue stays quick."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Picture, bytes] = OrderedDict()
        self._bytes = 0
        self._under_way: dict[Picture, asyncio.Future[bytes]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sandbox-gallery")

    async def draw(self, picture: Picture) -> bytes:
        """The encoded image file."""
        kept = self._kept.get(picture)
        if kept is not None:
            self._kept.move_to_end(picture)
            return kept
        drawing = self._under_way.get(picture)
        if drawing is None:
            drawing = asyncio.get_running_loop().run_in_executor(self._thread, _draw, picture)
            self._under_way[picture] = drawing
            drawing.add_done_callback(lambda done: self._keep(picture, done))
        return await asyncio.shield(drawing)

    async def data_uri(self, picture: Picture) -> str:
        """The image as a data URI, for `sync_mode` (fal-protocol §7.1)."""
        body = await self.draw(picture)
        return f"data:{picture.content_type};base64,{base64.b64encode(body).decode()}"

    def close(self) -> None:
        """Draw no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _keep(self, picture: Picture, drawing: asyncio.Future[bytes]) -> None:
        del self._under_way[picture]
        if drawing.cancelled() or drawing.exception():
            return
        body = drawing.result()
        self._kept[picture] = body
        self._bytes += len(body)
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            self._bytes -= len(self._kept.popitem(last=False)[1])


def _draw(picture: Picture) -> bytes:
    from falbatch.sandbox.painting.frame import draw_file

    return draw_file(picture)
