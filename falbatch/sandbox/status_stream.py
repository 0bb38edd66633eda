"""`GET …/status/stream`: the status as server-sent events until COMPLETED (fal-protocol §3.3)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox.replies import Stream, dumps
from falbatch.sandbox.states import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from falbatch.sandbox.requests import Request
    from falbatch.sandbox.world import World

PING_S: Final = 15.0
"""Between keep-alive comments."""

PING: Final = b": ping\n\n"

_LOOK_S: Final = 0.1
"""At most so long until something that another call did (a cancel) is noticed."""

_HEADERS: Final = {"Cache-Control": "no-store"}


def status_stream(world: World, request: Request, page: Callable[[], dict[str, Any]]) -> Stream:
    """A stream of `page()`, one event per change, each with only the log lines that are new."""
    feed = _Feed(world, request, page)
    return Stream(feed.next_chunk, {**_HEADERS, "x-fal-request-id": request.id})


class _Feed:
    def __init__(self, world: World, request: Request, page: Callable[[], dict[str, Any]]) -> None:
        self._world = world
        self._request = request
        self._page = page
        self._last: tuple[object, ...] = ()
        self._logs_sent = 0
        self._is_over = False

    async def next_chunk(self) -> bytes | None:
        """Wait for the next change, at most until the next ping. None after COMPLETED was sent, and after a reset."""
        silent_since = self._world.now()
        while not self._is_over and self._world.knows(self._request):
            if chunk := self._change():
                return chunk
            now = self._world.now()
            if now - silent_since >= PING_S:
                return PING
            due = self._world.engine.next_alarm()
            await asyncio.sleep(min(_LOOK_S, max(0.001, (due or now + _LOOK_S) - now)))
        return None

    def _change(self) -> bytes | None:
        page = self._page()
        logs = page["logs"]
        state = (page["status"], page.get("queue_position"), len(logs or ()))
        if state == self._last:
            return None
        self._last = state
        if logs is not None:
            # A requeued attempt starts its log anew.
            self._logs_sent = min(self._logs_sent, len(logs))
            page["logs"], self._logs_sent = logs[self._logs_sent :], len(logs)
        self._is_over = page["status"] == Status.COMPLETED
        return b"data: " + dumps(page) + b"\n\n"
