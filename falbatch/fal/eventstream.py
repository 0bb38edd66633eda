"""A reply of server-sent events while it comes: the head is judged first, then events are handed over one by one.

An end that is no end is told: a connection that breaks (the transport's TransportError), an event cut in two.
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from falbatch.errors import ReplyError, TransportError
from falbatch.exactjson import parse_json
from falbatch.fal.events import EventDecoder, OversizeEvent, ServerSentEvent
from falbatch.fal.exchange import OversizeReply, Reply, StreamReply, read_whole
from falbatch.fal.wire import header_request_id, media_type

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from falbatch.fal.calls import Caller

MAX_ERROR_BYTES: Final = 16 * 1024 * 1024
"""Of the body of a reply that is no success: fal echoes inputs."""


@dataclass(frozen=True, slots=True)
class OpenEvents:
    """An open reply with a success status. Its body can be read once, in one of three ways."""

    reply: StreamReply
    call: str
    """Its name, for messages."""

    @property
    def is_stream(self) -> bool:
        """True when the body is events."""
        return media_type(self.reply.headers) == "text/event-stream"

    @property
    def request_id(self) -> str:
        """fal's id of the call, a UUID; "" when unsaid."""
        return header_request_id(self.reply.headers)

    async def events(self) -> AsyncGenerator[ServerSentEvent, None]:
        """The events. Raises TransportError when the stream breaks off, ReplyError for an event too big to read."""
        decoder = EventDecoder()
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                for event in self._fed(decoder, chunk):
                    yield event
        last = decoder.rest()
        if last is None:
            return
        if not _is_whole(last.data):
            raise TransportError(f"{self.call}: the stream ended in the middle of an event", sent=True, kind="reset")
        yield last

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes."""
        if self.reply.headers.get("content-encoding", "identity").lower() != "identity":
            raise ReplyError(f"{self.call}: the reply is packed, which was not asked for", request_id=self.request_id)
        async for chunk in self.reply.chunks():
            yield chunk

    async def whole(self, max_bytes: int) -> Reply:
        """The reply read to its end; OversizeReply beyond `max_bytes`."""
        return await read_whole(self.chunks(), self.reply.status, self.reply.headers, max_bytes, self.call)

    def _fed(self, decoder: EventDecoder, chunk: bytes) -> list[ServerSentEvent]:
        try:
            return decoder.feed(chunk)
        except OversizeEvent as error:
            raise ReplyError(f"{self.call}: {error}", request_id=self.request_id) from None


@asynccontextmanager
async def open_events(
    opening: AbstractAsyncContextManager[StreamReply], caller: Caller, call: str
) -> AsyncIterator[OpenEvents]:
    """The reply that `opening` gives; HttpError, with fal's words, when it is no success."""
    async with opening as reply:
        if not 200 <= reply.status < 300:
            try:
                whole = await read_whole(reply.chunks(), reply.status, reply.headers, MAX_ERROR_BYTES, call)
            except OversizeReply as error:
                whole = error.head
            raise caller.error(whole, call)
        yield OpenEvents(reply, call)


def _is_whole(data: bytes) -> bool:
    """May `data`, after which the stream ended, be a whole event? No JSON object or list is another's beginning."""
    try:
        return isinstance(parse_json(data), dict | list)
    except ValueError:
        return False
