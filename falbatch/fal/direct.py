"""Direct calls: run and stream, on one connection, without the queue (fal-protocol §5.1, §5.2).

    run ─▶ Answer            stream ─▶ EventStream: StreamEvent …

Nothing is repeated here, and nothing is redirected: a call that was sent may have run and been billed, and there
is no request to ask about afterwards. Whether it may be sent again: §13.1, `TransportError.sent`.
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, Self
from urllib.parse import urlencode

from falbatch.exactjson import parse_json
from falbatch.fal.calls import Caller, call_path, call_path_once
from falbatch.fal.eventstream import OpenEvents, open_events
from falbatch.fal.exchange import OversizeReply, Reply, StreamExchange, label_of
from falbatch.fal.options import SubmitOptions
from falbatch.fal.problems import billable_units
from falbatch.fal.wire import header_request_id, media_type, read_output

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from falbatch.fal.auth import Credentials
    from falbatch.fal.hosts import Hosts

__all__ = ["Answer", "DirectClient", "EventStream", "StreamEvent"]

RUN_TIMEOUT_S: Final = 3600.0
"""What fal itself gives an app to answer in (§3.7); the connection is held all the while."""
STREAM_IDLE_S: Final = 900.0
"""Silence in a stream that means that it died: an app may take 600 s to start (§3.7), and no pings are promised."""
MAX_RESULT_BYTES: Final = 256 * 1024 * 1024
"""Inline media (`sync_mode`) reach tens of MB; more than this in memory is somebody's mistake."""

METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
"""GET carries its input in the query, as fal's JavaScript client does."""

_NO_OPTIONS: Final = SubmitOptions()


class DirectExchange(StreamExchange, Protocol):
    """What this client needs of a transport; `falbatch.fal.transport.Transport` is one."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
        max_bytes: int,
        once: bool = ...,
    ) -> Reply:
        """`once`: not even the HTTP library may send it again."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered, with a success status."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case."""
    body: bytes = field(repr=False)
    """As fal gave it, decompressed."""
    output: Any = field(repr=False)
    """The body's JSON value with exact integers; None for bodies that are not JSON (audio, text)."""
    content_type: str
    """In lower case, without parameters; "" when unsaid."""
    request_id: str
    """A UUID; "" when unsaid."""
    billable_units: float | None
    """In the endpoint's unit; None when unsaid."""


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of a stream."""

    data: bytes = field(repr=False)
    """As it came."""
    value: Any = field(repr=False)
    """Its JSON value with exact integers; None for data that is not JSON."""
    event: str = ""
    """Its name; fal's have none."""
    id: str = ""
    """The last id so far; fal gives none."""


class EventStream:
    """An open stream: iterate over it once. The last event is the final output (§5.2)."""

    def __init__(self, opened: OpenEvents, events: AsyncIterator[StreamEvent]) -> None:
        self._events = events
        self.headers = opened.reply.headers
        """Names in lower case."""
        self.request_id = opened.request_id
        """A UUID; "" when unsaid."""
        self.billable_units = billable_units(opened.reply.headers)
        """In the endpoint's unit; None when the head did not say: fal may not know it yet."""
        self.content_type = media_type(opened.reply.headers)
        """`text/event-stream` for streams."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        return await anext(self._events)


class DirectClient:
    """Calls models on fal's direct host through `transport`. Stateless but for its settings; safe to share.

    A call in progress holds its place at the transport's gate, minutes perhaps: give it a transport whose gate
    has as many places as calls are wanted at once. Leaving a call drops its connection: fal cancels it where
    the app can be cancelled, and may charge it all the same (§9.3).

    Failures: TransportError (no reply, or one that broke off), HttpError (a status that is no success),
    ReplyError (a success that makes no sense), ValueError (an endpoint, path or input that cannot be sent),
    UsageError (no direct host is known for this fal; nothing was sent).
    """

    def __init__(
        self, transport: DirectExchange, hosts: Hosts, credentials: Credentials, *, user_agent: str = "falbatch"
    ) -> None:
        self._transport = transport
        self._hosts = hosts
        self._caller = Caller(credentials, user_agent)

    async def run(
        self,
        endpoint: str,
        body: bytes | None,
        options: SubmitOptions = _NO_OPTIONS,
        *,
        method: str = "POST",
        path: str = "",
        query: Mapping[str, str] | None = None,
        timeout_s: float = RUN_TIMEOUT_S,
    ) -> Answer:
        """Run `endpoint` (with `path` after its id) on `body`, a JSON object, encoded. This call costs money.

        With `method` GET, `body` becomes the query: lists repeat their name, null is left out, objects are a
        ValueError. `query` goes into the URL in any case. `timeout_s` bounds the whole.
        """
        if method not in METHODS:
            raise ValueError(f"{method!r} is no method of a direct call; it takes {', '.join(sorted(METHODS))}")
        pairs = list((query or {}).items())
        if method == "GET" and body is not None:
            pairs, body = [*pairs, *_as_query(body)], None
        url, call = self._url(method, call_path(endpoint, path), pairs)
        headers = {**self._caller.headers, **({} if body is None else _JSON), **options.render_direct()}
        try:
            reply = await self._transport.request(
                method, url, headers=headers, body=body, timeout_s=timeout_s, max_bytes=MAX_RESULT_BYTES, once=True
            )
        except OversizeReply as error:
            self._caller.raise_for_status(error.head, call)
            raise
        self._caller.raise_for_status(reply, call)
        return _answer(reply, call)

    def stream(
        self,
        endpoint: str,
        body: bytes,
        options: SubmitOptions = _NO_OPTIONS,
        *,
        path: str = "stream",
        timeout_s: float | None = None,
        idle_s: float = STREAM_IDLE_S,
    ) -> AbstractAsyncContextManager[EventStream]:
        """Run `endpoint` on `body` and read its events as they come. This call costs money.

        A block that gives the stream; leaving the block drops the call. `path` is not appended to an id that
        ends with it. `timeout_s` bounds the whole, None leaves it open; `idle_s` bounds each silence, the one
        before the first event too. An answer that is no event stream was paid for as well and is handed over:
        JSON as one event, any other body in pieces as it comes, without a value.
        """
        url, call = self._url("POST", call_path_once(endpoint, path), [])
        return self._streamed(url, call, body, options, timeout_s, idle_s)

    @asynccontextmanager
    async def _streamed(
        self, url: str, call: str, body: bytes, options: SubmitOptions, timeout_s: float | None, idle_s: float
    ) -> AsyncIterator[EventStream]:
        accept = {"accept": "text/event-stream, application/json;q=0.5, */*;q=0.1"}
        headers = {**self._caller.headers, **_JSON, **accept, **options.render_direct()}
        opening = self._transport.stream(
            url, method="POST", body=body, headers=headers, timeout_s=timeout_s, idle_s=idle_s
        )
        async with open_events(opening, self._caller, call) as opened, aclosing(_events(opened)) as events:
            yield EventStream(opened, events)

    def _url(self, method: str, path: str, pairs: Sequence[tuple[str, str]]) -> tuple[str, str]:
        """The URL of a call, and its name for messages."""
        url = f"{self._hosts.need('run')}/{path}" + (f"?{urlencode(pairs)}" if pairs else "")
        return url, label_of(method, url)


_JSON: Final = {"content-type": "application/json"}


async def _events(opened: OpenEvents) -> AsyncGenerator[StreamEvent, None]:
    if opened.is_stream:
        async with aclosing(opened.events()) as events:
            async for one in events:
                yield StreamEvent(one.data, _value(one.data), one.event, one.id)
    elif media_type(opened.reply.headers) in {"", "application/json"}:
        answer = _answer(await opened.whole(MAX_RESULT_BYTES), opened.call)
        yield StreamEvent(answer.body, answer.output)
    else:
        async with aclosing(opened.chunks()) as chunks:
            async for chunk in chunks:
                yield StreamEvent(chunk, None)


def _value(data: bytes) -> Any:
    try:
        return parse_json(data)
    except ValueError:
        return None


def _answer(reply: Reply, call: str) -> Answer:
    content_type, output = read_output(reply.headers, reply.body, call=call)
    return Answer(
        status=reply.status,
        headers=reply.headers,
        body=reply.body,
        output=output,
        content_type=content_type,
        request_id=header_request_id(reply.headers),
        billable_units=billable_units(reply.headers),
    )


def _as_query(body: bytes) -> list[tuple[str, str]]:
    """The JSON object `body` as names and values; ValueError for what a query has no form for."""
    value = parse_json(body)
    if not isinstance(value, dict):
        raise ValueError("the input of a GET is a JSON object")  # noqa: TRY004 - the caller's JSON, not a type
    pairs: list[tuple[str, str]] = []
    for name, given in value.items():
        for one in given if isinstance(given, list) else [given]:
            if isinstance(one, dict | list):
                raise ValueError(f"the input {name!r} is nested, which no query can carry; use POST")  # noqa: TRY004 - as above
            if one is not None:
                pairs.append((name, str(one).lower() if isinstance(one, bool) else str(one)))
    return pairs
