"""The client for coroutines: all that fal_client.AsyncClient does, with the same words.

run, stream        one connection, no queue: fast, and lost when the line breaks
submit ─▶ handle   the queue: status, result, cancel; by id as well
subscribe          submit, wait, result
"""

from __future__ import annotations

import inspect
import warnings
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import anyio

from falbatch.client.asking import Extras, Priority, SubmitExtras, options_of, seconds_of
from falbatch.client.connections import USER_AGENT, ClientSettings, Connections, Watched
from falbatch.client.context import remember
from falbatch.client.encoding import body_of, output_of
from falbatch.client.errors import CANCELLED, LOST_RUN, LOST_SUBMIT, FalClientError, FalClientTimeoutError, client_error
from falbatch.client.handles import AsyncRequestHandle, cancel_quietly
from falbatch.client.realtime import Sockets
from falbatch.client.submitting import CANCEL_S, Submission
from falbatch.client.uploading import Uploading
from falbatch.client.webhooks import Webhooks
from falbatch.errors import TransportError, WireError
from falbatch.fal.again import may_pay_again, repeat
from falbatch.fal.direct import RUN_TIMEOUT_S, STREAM_IDLE_S, DirectClient

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from typing import Unpack

    from falbatch.client.connections import Session
    from falbatch.client.statuses import Status
    from falbatch.fal.direct import Answer, EventStream

T = TypeVar("T")

Mode = Literal["polling", "streaming"]
"""How `subscribe` learns what becomes of a request."""


class AsyncClient(Uploading, Sockets, Webhooks):
    """fal, for coroutines. Usable at once, in any event loop; connections close with `aclose()` or with the loop.

    `key` is found as fal-protocol §1.2 says when it is not given, and not before the first call. Calls that cost are
    sent once; they are repeated only when fal provably did not take them. All others are, with growing pauses.
    """

    def __init__(
        self, key: str | None = None, default_timeout: float = 120.0, *, settings: ClientSettings | None = None
    ) -> None:
        self.key = key
        """The key that was given; None for the environment's."""
        self.default_timeout = default_timeout
        """Seconds for a submit to be answered."""
        self.connections = Connections(key, settings or ClientSettings())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of the running event loop. A later call makes new ones."""
        await self.connections.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(default_timeout={self.default_timeout!r})"

    async def run(
        self,
        application: str,
        arguments: Any,
        *,
        method: str = "POST",
        path: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - fal_client's word
        start_timeout: float | None = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
        **extras: Unpack[Extras],
    ) -> Any:
        """Run a model on one connection and give its output. Never repeated once it was sent.

        `timeout` bounds the call, in seconds; without it an hour, which is what fal gives an app. With `method` GET
        the arguments become the query. `extras`: see `falbatch.client.asking.Extras`.
        """
        body = body_of(application, arguments)
        options = options_of(headers=headers, hint=hint, start_timeout=start_timeout, extras=extras)
        limit_s = seconds_of("timeout", timeout, RUN_TIMEOUT_S)

        async def call(direct: DirectClient) -> Answer:
            return await direct.run(application, body, options, method=method.upper(), path=path, timeout_s=limit_s)

        session = await self.connections.here()
        watched = Watched(session.transport)
        direct = DirectClient(watched, session.hosts, session.credentials, user_agent=USER_AGENT)
        try:
            answer = await repeat(lambda: call(direct), self.connections.settings.repeats, if_=may_pay_again)
        except WireError as error:
            raise _lost_or_failed(error, watched, session, limit_s) from error
        remember(answer.headers)
        return output_of(answer)

    async def stream(
        self,
        application: str,
        arguments: Any,
        *,
        path: str = "/stream",
        timeout: float | None = None,  # noqa: ASYNC109 - fal_client's word
        headers: Mapping[str, str] | None = None,
        **extras: Unpack[Extras],
    ) -> AsyncGenerator[Any, None]:
        """Run a model that tells its progress, and give each event as it comes; the last is the output.

        `timeout` bounds each silence, in seconds; without it a quarter of an hour, in which an app can start. An
        event that is not JSON is given as bytes.
        """
        body, options = body_of(application, arguments), options_of(headers=headers, extras=extras)
        idle_s = seconds_of("timeout", timeout, STREAM_IDLE_S)
        session = await self.connections.here()
        watched = Watched(session.transport)
        direct = DirectClient(watched, session.hosts, session.credentials, user_agent=USER_AGENT)
        async with AsyncExitStack() as stack:

            async def opened() -> EventStream:
                events = direct.stream(application, body, options, path=path, idle_s=idle_s)
                return await stack.enter_async_context(events)

            try:
                events = await repeat(opened, self.connections.settings.repeats, if_=may_pay_again)
                remember(events.headers)
                is_empty = True
                async for event in events:
                    is_empty = False
                    yield event.data if event.value is None and event.data != b"null" else event.value
                if is_empty:  # an end in peace looks the same: but what was paid for has not come
                    words = f"the stream of {application} ended without an event"
                    raise TransportError(words, sent=True, kind="empty_stream")
            except WireError as error:
                raise _lost_or_failed(error, watched, session, idle_s) from error

    async def submit(
        self,
        application: str,
        arguments: Any,
        *,
        path: str = "",
        hint: str | None = None,
        webhook_url: str | None = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
        start_timeout: float | None = None,
        **extras: Unpack[SubmitExtras],
    ) -> AsyncRequestHandle:
        """Put a request into fal's queue and give its handle. This costs money, and is never repeated once sent.

        Whoever cancels this call while it is under way cancels its request too, as far as that can be had.
        Raises FalClientLostRequestError when fal did not answer: the request may exist.
        `start_timeout`: when the request has not started after so many seconds (> 1), fal gives it up.
        `extras`: see `falbatch.client.asking.SubmitExtras`.
        """
        options = options_of(
            headers=headers,
            hint=hint,
            priority=priority,
            start_timeout=start_timeout,
            webhook_url=webhook_url,
            extras=extras,
        )
        return await Submission(self, application, path, body_of(application, arguments), options).send()

    async def subscribe(
        self,
        application: str,
        arguments: Any,
        *,
        path: str = "",
        hint: str | None = None,
        with_logs: bool = False,
        interval: float | None = None,
        on_enqueue: Callable[[str], Awaitable[None] | None] | None = None,
        on_queue_update: Callable[[Status], Awaitable[None] | None] | None = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
        start_timeout: float | None = None,
        client_timeout: float | None = None,
        mode: Mode = "polling",
        **extras: Unpack[SubmitExtras],
    ) -> Any:
        """Submit, wait, and give the output.

        `interval`: seconds between polls; without it as in `AsyncRequestHandle.iter_events`. `mode` "streaming" lets
        fal tell what changes. After `client_timeout` seconds the request is cancelled, also one whose submit is still
        under way, and FalClientTimeoutError raised. Whoever cancels this call cancels the request too, unless
        `on_enqueue` was told its id: then it is theirs. What a callback raises ends the call and not the request,
        which is named in a note of the exception.
        """
        if mode not in {"polling", "streaming"}:
            raise ValueError(f"mode {mode!r} is unknown; give polling or streaming")
        options = options_of(
            headers=headers,
            hint=hint,
            priority=priority,
            start_timeout=_start_timeout(start_timeout, client_timeout),
            extras=extras,
        )
        submission = Submission(self, application, path, body_of(application, arguments), options)
        handle: AsyncRequestHandle | None = None
        is_told = False
        limit_s = None if client_timeout is None else seconds_of("client_timeout", client_timeout, 0.0)
        with anyio.move_on_after(limit_s) as limit:
            try:
                handle = await submission.send()
                if on_enqueue is not None:
                    is_told = True
                    await _heard(on_enqueue, handle.request_id, handle)
                told = handle.stream_status if mode == "streaming" else handle.iter_events
                async with aclosing(told(with_logs=with_logs, interval=interval)) as statuses:
                    async for status in statuses:
                        if on_queue_update is not None:
                            await _heard(on_queue_update, status, handle)
                return await handle.result()
            except anyio.get_cancelled_exc_class():
                if handle is not None and (limit.cancel_called or not is_told):
                    await cancel_quietly(handle, CANCEL_S)
                raise
        known = handle or submission.late
        raise FalClientTimeoutError(
            client_timeout or 0.0, known.request_id if known else None, advice=CANCELLED if known else LOST_SUBMIT
        )

    async def get_handle(self, application: str, request_id: str) -> AsyncRequestHandle:
        """The handle of a request whose id is known."""
        return AsyncRequestHandle.from_request_id(self, application, request_id)

    async def status(self, application: str, request_id: str, *, with_logs: bool = False) -> Status:
        """Where a request is now."""
        return await (await self.get_handle(application, request_id)).status(with_logs=with_logs)

    async def result(self, application: str, request_id: str) -> Any:
        """Wait until a request is over and give its output."""
        return await (await self.get_handle(application, request_id)).get()

    async def cancel(self, application: str, request_id: str) -> None:
        """Ask fal to drop a request; FalClientHTTPError for one that is over or unknown."""
        await (await self.get_handle(application, request_id)).cancel()


def _lost_or_failed(error: WireError, watched: Watched, session: Session, limit_s: float) -> FalClientError:
    """What a direct call's failure means; running into `limit_s` is a timeout."""
    if isinstance(error, TransportError) and error.kind == "timeout" and error.sent:
        return FalClientTimeoutError(limit_s, advice=LOST_RUN)
    return client_error(error, watched.reply, session.credentials.redact, lost=LOST_RUN)


def _start_timeout(start_timeout: float | None, client_timeout: float | None) -> float | None:
    """Nobody waits longer than `client_timeout`, so fal need not start later; it takes no limit of a second or less."""
    if client_timeout is None:
        return start_timeout
    if start_timeout is None:
        return client_timeout if client_timeout > 1 else None
    if start_timeout > client_timeout:
        warnings.warn(
            f"start_timeout ({start_timeout} s) is larger than client_timeout ({client_timeout} s): "
            "nobody may be waiting any more when the request starts",
            UserWarning,
            stacklevel=3,
        )
    return start_timeout


async def _heard(told: Callable[[T], Awaitable[None] | None], what: T, handle: AsyncRequestHandle) -> None:
    """Tell a callback, a function or a coroutine function. What it raises names the request: it goes on, and costs."""
    try:
        answer = told(what)
        if inspect.isawaitable(answer):
            await answer
    except Exception as error:
        error.add_note(f"fal goes on with request {handle.request_id}; result() or cancel() take this id")
        raise
