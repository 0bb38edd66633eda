"""A request at fal, as whoever submitted it holds it: asked about, waited for, cancelled."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Self

import anyio

from falbatch.client.encoding import output_of
from falbatch.client.errors import FalClientError, FalClientHTTPError
from falbatch.client.response import Response
from falbatch.client.statuses import Completed, InProgress, Status, status_of
from falbatch.errors import UsageError
from falbatch.fal.again import may_read_result_again
from falbatch.fal.calls import endpoint_of
from falbatch.fal.queue import RequestRef
from falbatch.fal.wire import CancelAnswer, is_request_id

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from falbatch.client.asynchronous import AsyncClient
    from falbatch.fal.hosts import Hosts
    from falbatch.fal.wire import Accepted

FIRST_PAUSE_S: Final = 0.1
"""Between the first polls, as in the official client."""
LAST_PAUSE_S: Final = 2.0
"""Between the polls of a request that runs for long."""
PART_OF_AGE: Final = 0.1
"""Of the time waited so far: whoever waits a minute does not mind a few seconds, and fal is asked 30 times, not 600."""


def pause_s(waited_s: float) -> float:
    """Seconds until the next poll of a request that was waited for `waited_s` seconds."""
    return min(LAST_PAUSE_S, max(FIRST_PAUSE_S, waited_s * PART_OF_AGE))


@dataclass(frozen=True)
class RequestHandle:
    """What names a request. Two handles of the same request are equal, however they were come by."""

    request_id: str
    response_url: str = field(repr=False)
    status_url: str = field(repr=False)
    cancel_url: str = field(repr=False)
    application: str = field(repr=False, compare=False, default="", kw_only=True)
    """The endpoint it was submitted to; from it URLs are rebuilt that the key must not go to."""

    def ref(self) -> RequestRef:
        """In the wire client's form."""
        urls = self.status_url, self.response_url, self.cancel_url
        return RequestRef(self.request_id, self.application, *urls)


def handle_urls(hosts: Hosts, application: str, request_id: str) -> tuple[str, str, str]:
    """Response, status and cancel URL of a request known by its id alone. Raises ValueError, UsageError."""
    if not is_request_id(request_id):
        raise ValueError(f"{request_id!r} is not a request id: fal's are UUIDs")
    base = f"{hosts.need('queue')}/{endpoint_of(application).app_path}/requests/{request_id}"
    return base, f"{base}/status", f"{base}/cancel"


@dataclass(frozen=True)
class AsyncRequestHandle(RequestHandle):
    """A request, for coroutines. Failures are FalClientErrors; they name the request."""

    client: AsyncClient = field(repr=False)

    @classmethod
    def from_request_id(cls, client: AsyncClient, application: str, request_id: str) -> Self:
        """The handle of a request whose id is known. Nothing is asked: fal may not know it any more."""
        urls = handle_urls(client.connections.hosts(), application, request_id)
        return cls(request_id, *urls, client=client, application=application)

    @classmethod
    def of(cls, client: AsyncClient, application: str, accepted: Accepted) -> Self:
        """The handle of a request that fal has just taken."""
        urls = accepted.response_url, accepted.status_url, accepted.cancel_url
        return cls(accepted.request_id, *urls, client=client, application=application)

    async def status(self, *, with_logs: bool = False) -> Status:
        """Where the request is now."""
        progress = await self.client.connections.read(
            lambda queue: queue.status(self.ref(), with_logs=with_logs), self.request_id
        )
        return status_of(progress)

    async def iter_events(
        self, *, with_logs: bool = False, interval: float | None = None
    ) -> AsyncGenerator[Status, None]:
        """Poll, and give what each poll says, up to Completed.

        `interval` seconds apart; without it 0.1 s at first, then a tenth of the time waited, 2 s at most.
        """
        began = time.monotonic()
        while True:
            status = await self.status(with_logs=with_logs)
            yield status
            if isinstance(status, Completed):
                return
            await anyio.sleep(pause_s(time.monotonic() - began) if interval is None else interval)

    async def stream_status(
        self, *, with_logs: bool = False, interval: float | None = None
    ) -> AsyncGenerator[Status, None]:
        """As `iter_events`, but fal tells by itself what changes (fal-protocol §3.3).

        Logs are all lines so far, as when polling. A stream that breaks off, or is not there, is followed by polls.
        """
        connections = self.client.connections
        lines: list[dict[str, Any]] = []
        try:
            async with connections.watching(self.ref(), with_logs=with_logs) as changes:
                async for progress in changes:
                    status = status_of(progress)
                    if isinstance(status, InProgress | Completed) and with_logs:
                        lines += status.logs or []
                        status = replace(status, logs=list(lines))
                    yield status
                    if isinstance(status, Completed):
                        return
        except FalClientError:
            pass  # polls tell more of what is wrong, if anything is
        async for status in self.iter_events(with_logs=with_logs, interval=interval):
            yield status

    async def get(self, *, interval: float | None = None) -> Any:
        """Wait until the request is over and give its output; bytes for one that is not JSON (audio, files).

        Raises FalClientHTTPError when the request failed or was cancelled.
        """
        async for _ in self.iter_events(interval=interval):
            pass
        return await self.result()

    async def result(self) -> Any:
        """The output of a request that is over; FalClientHTTPError (400) for one that is not."""
        result = await self.client.connections.read(
            lambda queue: queue.result(self.ref()), self.request_id, if_=may_read_result_again
        )
        return output_of(result)

    async def cancel(self) -> None:
        """Ask fal to drop the request: a wish, one that runs may still finish (and cost).

        Raises FalClientHTTPError for one that is over (400) or unknown (404).
        """
        answer = await self.client.connections.read(lambda queue: queue.cancel(self.ref()), self.request_id)
        if answer is not CancelAnswer.ACCEPTED:
            raise _too_late(answer, self.request_id)


_REFUSALS: Final = {
    CancelAnswer.ALREADY_COMPLETED: (400, "is over already"),
    CancelAnswer.NOT_FOUND: (404, "is unknown"),
}


def _too_late(answer: CancelAnswer, request_id: str) -> FalClientHTTPError:
    status, words = _REFUSALS[answer]
    body = f'{{"status":"{answer}"}}'
    response = Response(status, {"content-type": "application/json"}, body.encode())
    return FalClientHTTPError(
        body,
        status,
        dict(response.headers),
        response,
        words=f"request {request_id} cannot be cancelled: it {words}",
        request_id=request_id,
    )


async def cancel_quietly(handle: AsyncRequestHandle, timeout_s: float) -> None:
    """Cancel, whatever comes of it, and though the caller itself is being cancelled."""
    with anyio.move_on_after(timeout_s, shield=True):
        with contextlib.suppress(FalClientError, UsageError, ValueError):
            await handle.cancel()
