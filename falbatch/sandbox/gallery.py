"""Makes files when they are asked for, in a thread of its own, and keeps the last ones."""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from falbatch.sandbox.media import Clip, Document, Picture, Sound, Weights
from falbatch.sandbox.recording.speech import record_speech
from falbatch.sandbox.recording.weights import make_weights

if TYPE_CHECKING:
    from falbatch.sandbox.media import Medium

CACHE_BYTES: Final = 64 * 1024 * 1024
"""Enough for the parts of a resumed download to come from one drawing."""


class Gallery:
    """Files by what they show. Belongs to one event loop; one thread draws, so the queue stays quick."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Medium, bytes] = OrderedDict()
        self._bytes = 0
        self._under_way: dict[Medium, asyncio.Future[bytes]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sandbox-gallery")

    async def draw(self, medium: Medium) -> bytes:
        """The file."""
        kept = self._kept.get(medium)
        if kept is not None:
            self._kept.move_to_end(medium)
            return kept
        drawing = self._under_way.get(medium)
        if drawing is None:
            drawing = asyncio.get_running_loop().run_in_executor(self._thread, _draw, medium)
            self._under_way[medium] = drawing
            drawing.add_done_callback(lambda done: self._keep(medium, done))
        return await asyncio.shield(drawing)

    async def data_uri(self, medium: Medium) -> str:
        """The file as a data URI, for `sync_mode` (fal-protocol §7.1)."""
        body = await self.draw(medium)
        return f"data:{medium.content_type};base64,{base64.b64encode(body).decode()}"

    def close(self) -> None:
        """Draw no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _keep(self, medium: Medium, drawing: asyncio.Future[bytes]) -> None:
        del self._under_way[medium]
        if drawing.cancelled() or drawing.exception():
            return
        body = drawing.result()
        self._kept[medium] = body
        self._bytes += len(body)
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            self._bytes -= len(self._kept.popitem(last=False)[1])


def _draw(medium: Medium) -> bytes:
    """The bytes of a file. Pillow and PyAV are imported when the first one needs them."""
    match medium:
        case Picture():
            from falbatch.sandbox.painting.frame import draw_file

            return draw_file(medium)
        case Clip():
            from falbatch.sandbox.recording.film import shoot

            return shoot(medium)
        case Sound():
            return record_speech(medium.text, medium.voice, medium.speed)
        case Weights():
            return make_weights(medium.seed, medium.trigger, medium.steps)
        case Document():
            return medium.text.encode("utf-8", "replace")
        case _:
            raise TypeError(f"nothing makes a {type(medium).__name__}")
