"""Realtime connections of a batch: a few, kept open, one message in flight on each."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import anyio

from falbatch.core.inline import with_file_objects
from falbatch.errors import HttpError, ReplyError, TransportError, WireError
from falbatch.exactjson import parse_json
from falbatch.fal.realtime import RealtimeError

if TYPE_CHECKING:
    from falbatch.fal.realtime import RealtimeClient, RealtimeSocket

ANSWER_S: Final = 3600.0
"""For the answer to one message, as long as for a direct run: the first may start a runner."""

_STATUS: Final = {"Unauthorized": 401, "concurrent_requests_limit": 429, "rate_limited": 429}
"""What an error on an open connection would be as an answer to a direct run; anything else is the input's failure."""

REFUSED_INPUT: Final = 422


class RealtimePool:
    """Connections by endpoint: made when a call finds none idle, made anew when they broke. There are never more of
    them than there were calls at once: one to another endpoint gives way.

    A message that was in flight when its connection broke may have run: its failure says so, and it is not sent again.
    """

    def __init__(self, client: RealtimeClient) -> None:
        self._client = client
        self._idle: list[_Line] = []

    async def exchange(self, endpoint: str, body: bytes) -> tuple[Any, str]:
        """The answer to the JSON object `body`, bytes in it as file objects, and the request id that it names ("" for
        none). Raises `WireError`."""
        line = await self._sent(endpoint, parse_json(body))
        try:
            answer = await line.answer()
            request_id = answer.get("request_id")
            output = with_file_objects(answer)
        except HttpError as error:
            if error.status == 429:
                self._idle.append(line)
            else:
                await line.close()
            raise
        except ValueError as error:
            await line.close()
            raise ReplyError(f"{endpoint}: the answer makes no sense: {error}") from None
        except BaseException:
            await line.close()
            raise
        self._idle.append(line)
        return output, request_id if isinstance(request_id, str) else ""

    async def _sent(self, endpoint: str, value: Any) -> _Line:
        """The connection over which `value` left."""
        while (line := self._take(endpoint)) is not None:
            try:
                await line.send(value)
            except TransportError as error:
                await line.close()
                if error.sent:
                    raise
                continue  # it was closed while it was idle, and nothing left: the next, or a new one
            except BaseException:
                await line.close()
                raise
            return line
        if self._idle:
            await self._idle.pop(0).close()
        line = await _Line.open(self._client, endpoint)
        try:
            await line.send(value)
        except BaseException:
            await line.close()
            raise
        return line

    def _take(self, endpoint: str) -> _Line | None:
        for line in reversed(self._idle):  # the one that was idle for the shortest time
            if line.endpoint == endpoint:
                self._idle.remove(line)
                return line
        return None

    async def aclose(self) -> None:
        """Close what is idle; connections in use are closed by their callers' failures."""
        while self._idle:
            await self._idle.pop().close()


class _Line:
    """One open connection."""

    def __init__(self, endpoint: str, socket: RealtimeSocket, resources: AsyncExitStack) -> None:
        self.endpoint = endpoint
        self._socket = socket
        self._resources = resources

    @classmethod
    async def open(cls, client: RealtimeClient, endpoint: str) -> _Line:
        """A new connection, the key in its handshake's header. No message has left when this fails, whatever fails."""
        resources = AsyncExitStack()
        try:
            socket = await resources.enter_async_context(client.connect(endpoint, use_jwt=False))
        except HttpError as error:
            if error.status == 408 or error.status >= 500:
                raise TransportError(str(error), sent=False, kind="handshake") from error
            raise
        except ReplyError as error:
            raise TransportError(str(error), sent=False, kind="handshake") from error
        return cls(endpoint, socket, resources)

    async def send(self, value: Any) -> None:
        """Send one message. `TransportError` tells whether it left."""
        try:
            await self._socket.send(value)
        except ValueError as error:
            raise HttpError(str(error), status=400, error_type="bad_input") from error

    async def answer(self) -> dict[str, Any]:
        """The answer to the message that was sent. Raises `WireError`: without one, it may have run."""
        with anyio.move_on_after(ANSWER_S):
            try:
                answer = await self._socket.receive()
            except RealtimeError as error:
                raise _as_http(error, self.endpoint) from error
            if not isinstance(answer, dict):
                raise TransportError(f"{self.endpoint}: the connection ended", sent=True, kind="reset")
            return answer
        raise TransportError(f"{self.endpoint}: no answer in {ANSWER_S:.0f} s", sent=True, kind="timeout")

    async def close(self) -> None:
        """End the connection."""
        with anyio.CancelScope(shield=True):
            await self._resources.aclose()


def _as_http(error: RealtimeError, endpoint: str) -> WireError:
    """An error on the open connection as the answer to a direct run would be (fal-protocol §5.3)."""
    status = _STATUS.get(error.error, REFUSED_INPUT)
    has_type = status == REFUSED_INPUT
    return HttpError(
        f"{endpoint}: {error}",
        status=status,
        error_type=_type_word(error.error) if has_type else "",
        from_fal=has_type,
    )


def _type_word(text: str) -> str:
    """fal's word as an error type; ours where it is a sentence."""
    is_word = text.replace("_", "").isalnum() and text.isascii() and len(text) <= 100
    return text.lower() if is_word else "realtime_error"
