"""fal's queue: submit, status, its stream, result, cancel (fal-protocol §3). One exchange each, nothing repeated.

    submit ─▶ Accepted ─▶ status … status ─▶ result          whether a call may be repeated: §13.1, the
                 └──────▶ cancel                             caller's business; what was sent: TransportError

The key goes only to URLs that `Hosts` trusts: a forged URL, in a reply or in a state file, is replaced by the
one made from endpoint and id.
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urljoin

from falbatch.errors import ReplyError, TransportError
from falbatch.fal.calls import Caller, call_path, endpoint_of
from falbatch.fal.eventstream import open_events
from falbatch.fal.exchange import CutReply, Exchange, OversizeReply, Reply, StreamExchange, label_of
from falbatch.fal.options import SubmitOptions
from falbatch.fal.wire import (
    Accepted,
    CancelAnswer,
    Phase,
    Progress,
    Result,
    is_request_id,
    parse_accepted,
    parse_cancel,
    parse_progress,
    parse_result,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from falbatch.fal.auth import Credentials
    from falbatch.fal.endpoint import EndpointId
    from falbatch.fal.eventstream import OpenEvents
    from falbatch.fal.hosts import Hosts

__all__ = ["CancelAnswer", "Exchange", "QueueClient", "RequestRef", "SubmitOptions"]

SUBMIT_TIMEOUT_S: Final = 60.0
"""A submit stores a payload and answers; longer than this and its fate is unknown anyway (SDKs: 120)."""
STATUS_TIMEOUT_S: Final = 30.0
"""A small lookup; a late answer is stale."""
STREAM_IDLE_S: Final = 45.0
"""Silence in a status stream that means that it died: fal pings every 15 s (§3.3)."""
RESULT_TIMEOUT_S: Final = 120.0
"""Results may be megabytes over slow lines, and short-lived (§3.6): be patient."""

MAX_RESULT_BYTES: Final = 256 * 1024 * 1024
"""Inline media (`sync_mode`) reach tens of MB; more than this in memory is somebody's mistake."""
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""For all other replies: hundreds of bytes, but for logs and echoed inputs."""
MAX_REDIRECTS: Final = 3

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PATHS: Final[Mapping[str, str]] = {"status": "/status", "response": "", "cancel": "/cancel"}
_NO_OPTIONS: Final = SubmitOptions()


class RequestLike(Protocol):
    """How a request is named; `RequestRef` is one, and so may be a record of the caller's."""

    @property
    def request_id(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def status_url(self) -> str | None: ...
    @property
    def response_url(self) -> str | None: ...
    @property
    def cancel_url(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class RequestRef:
    """A request at fal. URLs that are missing or not trusted are rebuilt from endpoint and id."""

    request_id: str
    """A UUID."""
    endpoint: str
    """The id it was submitted to, in full."""
    status_url: str | None = None
    response_url: str | None = None
    cancel_url: str | None = None


class QueueClient:
    """Calls fal's queue through `transport`. Stateless but for its settings; safe to share between tasks.

    Failures: TransportError (no reply), HttpError (a status that is no success), ReplyError (a success that
    makes no sense), ValueError (an endpoint or request id that is none; nothing was sent).
    """

    def __init__(
        self,
        transport: StreamExchange,
        hosts: Hosts,
        credentials: Credentials,
        *,
        user_agent: str = "falbatch",
    ) -> None:
        self._transport = transport
        self._hosts = hosts
        self._caller = Caller(credentials, user_agent)

    async def submit(
        self,
        endpoint: str,
        body: bytes,
        options: SubmitOptions = _NO_OPTIONS,
        *,
        path: str = "",
        webhook_url: str | None = None,
        timeout_s: float = SUBMIT_TIMEOUT_S,
    ) -> Accepted:
        """POST `body` (the model's input: a JSON object, encoded) to `endpoint`. This call costs money.

        `path` goes after the endpoint's id; `webhook_url` in place of the options' (ValueError when it is no
        URL). Any 2xx is an acceptance (§15). ReplyError.request_id names the request when the body broke but
        the reply's header survived. A redirect is an HttpError: a redirected POST may run twice.
        """
        if webhook_url is not None:
            options = replace(options, webhook_url=webhook_url)
        target = endpoint_of(endpoint)
        url = f"{self._hosts.queue}/{call_path(endpoint, path)}"
        call = label_of("POST", url)
        if query := options.query():
            url += f"?{query}"
        headers = {**self._caller.headers, "content-type": "application/json", **options.render()}
        try:
            reply = await self._transport.request(
                "POST", url, headers=headers, body=body, timeout_s=timeout_s, max_bytes=MAX_ANSWER_BYTES
            )
        except CutReply as error:
            if 200 <= error.status < 300 and is_request_id(error.request_id):
                raise ReplyError(str(error), request_id=error.request_id.lower()) from error
            raise
        except OversizeReply as error:
            self._caller.raise_for_status(error.head, call)
            if is_request_id(error.request_id):
                raise
            raise ReplyError(str(error)) from error
        self._caller.raise_for_status(reply, call)

        def url_for(request_id: str, what: str, given: str) -> str:
            return given if self._hosts.trusts(given) else self._rebuilt(target, request_id, what)

        return parse_accepted(reply.headers, reply.body, call=call, url_for=url_for)

    async def status(
        self, request: RequestLike, *, with_logs: bool = False, timeout_s: float = STATUS_TIMEOUT_S
    ) -> Progress:
        """How far `request` is; `with_logs` with all that its app wrote. 404 (unknown or expired) is an HttpError."""
        url = self._address(request, "status", request.status_url)
        if with_logs:
            url = _with_query(url, "logs=1")
        reply, call = await self._get(url, timeout_s, MAX_ANSWER_BYTES)
        return parse_progress(reply.headers, reply.body, call=call)

    def status_stream(
        self,
        request: RequestLike,
        with_logs: bool = False,
        *,
        timeout_s: float | None = None,
        idle_s: float = STREAM_IDLE_S,
    ) -> AbstractAsyncContextManager[AsyncIterator[Progress]]:
        """The changes of `request` as fal tells them, until COMPLETED (§3.3); `with_logs` with what is new in them.

        A block that gives an iterator. The same state may come twice. A stream that ends before COMPLETED raises
        TransportError, a reply that is no stream ReplyError, a redirect HttpError: polling is always possible.
        `timeout_s` bounds the whole, None leaves it open; `idle_s` bounds each silence.
        """
        url, _, query = self._address(request, "status", request.status_url).partition("?")
        url = f"{url.rstrip('/')}/stream" + (f"?{query}" if query else "")
        return self._streamed(_with_query(url, "logs=1") if with_logs else url, timeout_s, idle_s)

    @asynccontextmanager
    async def _streamed(
        self, url: str, timeout_s: float | None, idle_s: float
    ) -> AsyncIterator[AsyncIterator[Progress]]:
        call = label_of("GET", url)
        headers = {**self._caller.headers, "accept": "text/event-stream"}
        opening = self._transport.stream(url, headers=headers, timeout_s=timeout_s, idle_s=idle_s)
        async with open_events(opening, self._caller, call) as opened:
            if not opened.is_stream:
                raise ReplyError(f"{call}: the reply is no event stream")
            async with aclosing(_changes(opened)) as changes:
                yield changes

    async def result(self, request: RequestLike, *, timeout_s: float = RESULT_TIMEOUT_S) -> Result:
        """What the model answered. A failed request answers here with its own status: an HttpError (§3.4)."""
        url = self._address(request, "response", request.response_url)
        reply, call = await self._get(url, timeout_s, MAX_RESULT_BYTES)
        return parse_result(reply.status, reply.headers, reply.body, call=call)

    async def cancel(self, request: RequestLike, *, timeout_s: float = STATUS_TIMEOUT_S) -> CancelAnswer:
        """Ask fal to drop `request`. Idempotent; ACCEPTED is a wish, the status tells what came of it."""
        url = self._address(request, "cancel", request.cancel_url)
        reply = await self._transport.request(
            "PUT", url, headers=self._caller.headers, body=None, timeout_s=timeout_s, max_bytes=MAX_ANSWER_BYTES
        )
        answer = parse_cancel(reply.status, reply.body)
        if answer is None:
            raise self._caller.error(reply, label_of("PUT", url))
        return answer

    async def _get(self, url: str, timeout_s: float, max_bytes: int) -> tuple[Reply, str]:
        """GET, following a few redirects that stay where the key may go. The reply is a success."""
        redirects = 0
        while True:
            reply = await self._transport.request(
                "GET", url, headers=self._caller.headers, body=None, timeout_s=timeout_s, max_bytes=max_bytes
            )
            target = _joined(url, reply.headers.get("location", ""))
            may_follow = reply.status in _REDIRECTS and target != url and self._hosts.trusts(target)
            if not may_follow or redirects == MAX_REDIRECTS:
                break
            redirects += 1
            url = target
        call = label_of("GET", url)
        self._caller.raise_for_status(reply, call)
        return reply, call

    def _address(self, request: RequestLike, what: str, given: str | None) -> str:
        if given and self._hosts.trusts(given):
            return given
        if not is_request_id(request.request_id):
            raise ValueError(f"{request.request_id!r} is not a request id: fal's are UUIDs")
        return self._rebuilt(endpoint_of(request.endpoint), request.request_id, what)

    def _rebuilt(self, endpoint: EndpointId, request_id: str, what: str) -> str:
        """The app-only form (§2): full ids in these paths answer 405."""
        return f"{self._hosts.queue}/{endpoint.app_path}/requests/{request_id}{_PATHS[what]}"


async def _changes(opened: OpenEvents) -> AsyncGenerator[Progress, None]:
    """The states of a status stream, up to COMPLETED; TransportError when it ends before."""
    async with aclosing(opened.events()) as events:
        async for event in events:
            progress = parse_progress(opened.reply.headers, event.data, call=opened.call)
            yield progress
            if progress.phase is Phase.COMPLETED:
                return
    raise TransportError(f"{opened.call}: the stream ended before the request did", sent=True, kind="reset")


def _with_query(url: str, query: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{query}"


def _joined(url: str, location: str) -> str:
    """Where a redirect points; `url` itself, which is not followed, when that is no URL."""
    try:
        return urljoin(url, location)
    except ValueError:
        return url
