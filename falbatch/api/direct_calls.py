"""The engine's direct calls over fal's clients: run, stream and realtime, each as one call with one answer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.identity import canonical_json
from falbatch.core.model import Mode
from falbatch.errors import HttpError, ReplyError, TransportError

if TYPE_CHECKING:
    from falbatch.api.realtime_pool import RealtimePool
    from falbatch.fal.direct import DirectClient, EventStream, StreamEvent
    from falbatch.fal.options import SubmitOptions

MAX_EVENTS_BYTES: Final = 256 * 1024 * 1024
"""All events of one stream together, as they are kept: as much as one result may have."""

STREAM_TIMEOUT_S: Final = 3600.0
"""A stream that goes on for longer than a run may take has lost its way."""


@dataclass(frozen=True, slots=True)
class DirectAnswer:
    """What a direct call answered."""

    body: bytes = field(repr=False)
    content_type: str
    billable_units: float | None
    request_id: str
    events: bytes | None = field(default=None, repr=False)


class FalDirect:
    """The engine's port for direct calls: the manifest's options, and one answer per call whatever the mode."""

    def __init__(self, client: DirectClient, options: SubmitOptions, pool: RealtimePool) -> None:
        self._client = client
        self._options = options
        self._pool = pool

    async def call(self, mode: Mode, endpoint: str, body: bytes) -> DirectAnswer:
        """Run one job and wait for its answer. Raises `WireError`."""
        match mode:
            case Mode.STREAM:
                return await self._stream(endpoint, body)
            case Mode.REALTIME:
                value, request_id = await self._pool.exchange(endpoint, body)
                return DirectAnswer(canonical_json(value), "application/json", None, request_id)
            case _:
                answer = await self._client.run(endpoint, body, self._options)
                return DirectAnswer(answer.body, answer.content_type, answer.billable_units, answer.request_id)

    async def _stream(self, endpoint: str, body: bytes) -> DirectAnswer:
        heard = _Heard(endpoint)
        async with self._client.stream(endpoint, body, self._options, timeout_s=STREAM_TIMEOUT_S) as events:
            async for event in events:
                heard.take(event)
            return heard.answer(events)


class _Heard:
    """The events of one stream so far."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._datas: list[bytes] = []
        self._last: StreamEvent | None = None
        self._size = 0

    def take(self, event: StreamEvent) -> None:
        """Keep one event. Raises `ReplyError` when the stream becomes larger than any result may be."""
        self._size += len(event.data)
        if self._size > MAX_EVENTS_BYTES:
            raise ReplyError(f"the stream of {self._endpoint} is larger than {MAX_EVENTS_BYTES:,} bytes")
        self._datas.append(event.data)
        if event.value is not None:
            self._last = event

    def answer(self, stream: EventStream) -> DirectAnswer:
        """The last event as the result. Raises `HttpError` for a stream that ends with an error, `TransportError` for
        one that ends without any event, or too early: it was paid for, and its answer is lost."""
        if not self._datas:
            raise TransportError(
                f"the stream of {self._endpoint} ended without an event", sent=True, kind="empty_stream"
            )
        known = (stream.billable_units, stream.request_id)
        if stream.content_type != "text/event-stream":
            return DirectAnswer(b"".join(self._datas), stream.content_type, *known)
        lines = b"".join(_line(data) + b"\n" for data in self._datas)
        if self._last is None:  # text without any JSON: all of it is the result
            return DirectAnswer(b"\n".join(self._datas), "text/plain", *known, events=lines)
        error = _error_in(self._last.value)
        if error is not None:
            raise _failed(error, stream)
        if _goes_on(self._last.value):
            message = f"the stream of {self._endpoint} ended after an event that is not its last"
            raise TransportError(message, sent=True, kind="cut_stream")
        return DirectAnswer(self._last.data, "application/json", *known, events=lines)


def _line(data: bytes) -> bytes:
    """An event as one line of JSON. Line ends in JSON stand between its parts only."""
    try:
        json.loads(data)
    except ValueError:
        return canonical_json(data.decode("utf-8", "replace"))
    return data.replace(b"\r", b" ").replace(b"\n", b" ")


def _error_in(value: Any) -> dict[str, Any] | None:
    """The error that an event tells of (fal-protocol §5.2), None for any other event."""
    return value if isinstance(value, dict) and value.get("type") == "error" else None


def _goes_on(value: Any) -> bool:
    """Does an event say of itself that others follow? HTTP cannot tell a stream that was cut between two events from a
    whole one, and a preview must not pass for the result."""
    if not isinstance(value, dict):
        return False
    progress = value.get("progress")
    is_underway = isinstance(progress, int | float) and not isinstance(progress, bool) and 0 <= progress < 1
    is_of_a_node = value.get("type") in {"submit", "completion"} and "node_id" in value
    return value.get("partial") is True or is_underway or is_of_a_node


_NEVER_BEGAN: Final = frozenset({401, 402, 403, 408, 429, 499})
"""Statuses that say of a call that it was not carried out, or not to its end. A stream that began was: from one of its
parts (a node of a workflow) they say nothing of the kind."""


def _status_of(said: Any, stream: EventStream) -> int:
    """The status of an error that came as an event, such that it is taken for an outcome, never for a refusal."""
    if not isinstance(said, int) or not 400 <= said < 600:
        return 500
    is_plain = said >= 500 or (bool(stream.request_id) and said not in _NEVER_BEGAN)
    return said if is_plain else 422


def _failed(event: dict[str, Any], stream: EventStream) -> HttpError:
    inner = event.get("error")
    inner = inner if isinstance(inner, dict) else {}
    body = inner.get("body")
    body = body if isinstance(body, dict) else {}
    kind = body.get("error_type")
    words = event.get("message") or body.get("detail") or "no reason is given"
    node = f" in {event['node_id']}" if isinstance(event.get("node_id"), str) else ""
    return HttpError(
        f"the stream ended with an error{node}: {str(words)[:500]}",
        status=_status_of(inner.get("status"), stream),
        error_type=kind if isinstance(kind, str) and kind else "stream_error",
        from_fal=True,
        request_id=stream.request_id,
        billable_units=stream.billable_units,
    )
