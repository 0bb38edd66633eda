"""What the client for threads hands out: requests and sockets. Doors to their asynchronous selves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from falbatch.client.door import drawn
from falbatch.client.handles import AsyncRequestHandle, RequestHandle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from falbatch.client.door import Door
    from falbatch.client.realtime import AsyncRealtimeConnection, AsyncWebSocket
    from falbatch.client.statuses import Status
    from falbatch.client.synchronous import SyncClient


@dataclass(frozen=True)
class SyncRequestHandle(RequestHandle):
    """A request, for threads. As AsyncRequestHandle."""

    client: SyncClient = field(repr=False)

    @classmethod
    def from_request_id(cls, client: SyncClient, application: str, request_id: str) -> Self:
        """The handle of a request whose id is known. Nothing is asked: fal may not know it any more."""
        return cls.of(client, AsyncRequestHandle.from_request_id(client.asynchronous, application, request_id))

    @classmethod
    def of(cls, client: SyncClient, handle: AsyncRequestHandle) -> Self:
        """`handle`, for threads."""
        urls = handle.response_url, handle.status_url, handle.cancel_url
        return cls(handle.request_id, *urls, client=client, application=handle.application)

    @property
    def asynchronous(self) -> AsyncRequestHandle:
        """The same, for coroutines of the client's own loop."""
        urls = self.response_url, self.status_url, self.cancel_url
        client = self.client.asynchronous
        return AsyncRequestHandle(self.request_id, *urls, client=client, application=self.application)

    def status(self, *, with_logs: bool = False) -> Status:
        """Where the request is now."""
        return self.client.door.call(lambda: self.asynchronous.status(with_logs=with_logs))

    def iter_events(self, *, with_logs: bool = False, interval: float | None = None) -> Iterator[Status]:
        """Poll, and give what each poll says, up to Completed. `interval` as in AsyncRequestHandle."""
        return drawn(self.client.door, lambda: self.asynchronous.iter_events(with_logs=with_logs, interval=interval))

    def stream_status(self, *, with_logs: bool = False, interval: float | None = None) -> Iterator[Status]:
        """As `iter_events`, but fal tells by itself what changes."""
        return drawn(self.client.door, lambda: self.asynchronous.stream_status(with_logs=with_logs, interval=interval))

    def get(self, *, interval: float | None = None) -> Any:
        """Wait until the request is over and give its output; FalClientHTTPError when it failed."""
        return self.client.door.call(lambda: self.asynchronous.get(interval=interval))

    def result(self) -> Any:
        """The output of a request that is over; FalClientHTTPError (400) for one that is not."""
        return self.client.door.call(self.asynchronous.result)

    def cancel(self) -> None:
        """Ask fal to drop the request; FalClientHTTPError for one that is over or unknown."""
        self.client.door.call(self.asynchronous.cancel)


class RealtimeConnection:
    """An open realtime connection. One thread may send while another receives."""

    def __init__(self, connection: AsyncRealtimeConnection, door: Door) -> None:
        self._connection = connection
        self._door = door

    def send(self, arguments: Mapping[str, Any]) -> None:
        """Send one input. This may cost money; it is never sent again by itself."""
        self._door.call(lambda: self._connection.send(arguments))

    def recv(self) -> Any:
        """The next output; None when the connection has been closed in peace."""
        return self._door.call(self._connection.recv)

    def close(self) -> None:
        """Close the connection; the end of its block does so too."""
        self._door.call(self._connection.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class WebSocket:
    """An open socket: frames as they are, bytes or text."""

    def __init__(self, socket: AsyncWebSocket, door: Door) -> None:
        self._socket = socket
        self._door = door

    def send(self, message: bytes | str) -> None:
        """Send one frame. This may cost money."""
        self._door.call(lambda: self._socket.send(message))

    def recv(self) -> bytes | str:
        """The next frame; FalClientConnectionError when the other side has closed."""
        return self._door.call(self._socket.recv)

    def __iter__(self) -> Iterator[bytes | str]:
        """Frames, until the other side closes in peace."""
        return drawn(self._door, self._socket.__aiter__)
