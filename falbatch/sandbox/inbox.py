"""Messages of a WebSocket, taken in while others are worked on: so a client that goes is seen to go."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

    from falbatch.sandbox.replies import Wire

Message = bytes | str

_WAITING: Final = 60
"""Messages read ahead when none may be lost; then the client has to wait."""


class Inbox:
    """What came in on `wire`, as long as this context is open.

    `drops_beyond` messages may wait, then the oldest gives way to the newest; None for none lost.
    """

    def __init__(self, wire: Wire, drops_beyond: int | None = None) -> None:
        self._wire = wire
        self._drops = drops_beyond is not None
        self._waiting: asyncio.Queue[Message | None] = asyncio.Queue(drops_beyond or _WAITING)
        self._is_closed = False
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader

    def has_left(self) -> bool:
        """Whether the client is gone, or has said that it goes."""
        return self._is_closed or self._wire.has_left()

    async def next(self, timeout_s: float | None = None) -> Message | None:
        """The next message; None when there will be none. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            return await self._waiting.get()

    async def _read(self) -> None:
        while (message := await self._wire.receive()) is not None:
            if self._drops and self._waiting.full():
                self._waiting.get_nowait()
            await self._waiting.put(message)
        self._is_closed = True
        await self._waiting.put(None)
