"""Server-sent events out of bytes, however they were cut on their way (WHATWG HTML, "Server-sent events").

Works on bytes: line ends are ASCII, so no cut can garble a character of several bytes. Unlike a browser it keeps
an event that the stream's end left without its empty line: `rest()` tells it, and the caller decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
"""Of one event; those with pictures inside reach megabytes."""

_BOM: Final = b"\xef\xbb\xbf"


class OversizeEvent(ValueError):
    """Raised when an event is larger than its reader allows."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event."""

    data: bytes = field(repr=False)
    """The `data` lines, joined by a newline."""
    event: str = ""
    """The `event` field; "" when the event has none, which browsers call `message`."""
    id: str = ""
    """The last `id` field so far."""


class EventDecoder:
    """Takes chunks of a stream and gives the events that they complete. Not for use after an OversizeEvent."""

    def __init__(self, *, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._size = 0  # bytes of the event under way, its unfinished line included
        self._line: list[bytes] = []  # the unfinished line, in the pieces it came in
        self._after_cr = False  # a newline at the beginning of the next chunk belongs to this line end
        self._is_first = True  # a byte order mark may stand before the first line
        self._data: list[bytes] = []
        self._event = b""
        self._id = b""

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that `chunk` completes. Raises OversizeEvent."""
        if not chunk:
            return []
        if self._after_cr and chunk[:1] == b"\n":
            chunk = chunk[1:]
        self._after_cr = chunk[-1:] == b"\r"
        done: list[ServerSentEvent] = []
        for piece in chunk.splitlines(keepends=True):
            self._size += len(piece)
            if self._size > self._max_bytes:
                raise OversizeEvent(f"an event is larger than {self._max_bytes:,} bytes")
            self._line.append(piece)
            if piece[-1:] in {b"\r", b"\n"} and (event := self._take_line()):
                done.append(event)
        return done

    def rest(self) -> ServerSentEvent | None:
        """The event that the stream's end left open, or None. For use once, after the last chunk."""
        if self._line:
            self._take_line()
        return self._dispatch()

    def _take_line(self) -> ServerSentEvent | None:
        """Read the line that is there; the event, when it was the empty line at an event's end."""
        line = b"".join(self._line).rstrip(b"\r\n")
        self._line = []
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        self._take_field(name, value.removeprefix(b" "))
        if not self._data and not self._event:
            self._size = 0  # comments may come for ever
        return None

    def _take_field(self, name: bytes, value: bytes) -> None:
        match name:
            case b"data":
                self._data.append(value)
            case b"event":
                self._event = value
            case b"id" if b"\0" not in value:
                self._id = value
            case _:
                pass  # comments, `retry`, and what nobody knows

    def _dispatch(self) -> ServerSentEvent | None:
        data, event = self._data, self._event
        self._data, self._event, self._size = [], b"", 0
        if not data:
            return None
        return ServerSentEvent(b"\n".join(data), event.decode("utf-8", "replace"), self._id.decode("utf-8", "replace"))
