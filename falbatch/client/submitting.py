"""Submits of a client: sent once, and never left behind as an orphan.

POST ─▶ accepted ─▶ handle
  └─ the caller goes away meanwhile ─▶ the answer is waited for a while ─▶ its request is cancelled
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import anyio

from falbatch.client.connections import USER_AGENT, Watched
from falbatch.client.context import remember
from falbatch.client.errors import LOST_SUBMIT, client_error
from falbatch.client.handles import AsyncRequestHandle, cancel_quietly
from falbatch.errors import HttpError, ReplyError, WireError
from falbatch.fal.again import may_pay_again, repeat
from falbatch.fal.queue import QueueClient

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from falbatch.client.asynchronous import AsyncClient
    from falbatch.client.connections import Session
    from falbatch.fal.options import SubmitOptions

GRACE_S: Final = 10.0
"""A submit under way when its caller goes away is given so long to answer: fal's take under a second."""

CANCEL_S: Final = 5.0
"""For the cancel that follows."""


class Submission:
    """One submit: where to, what, and how."""

    def __init__(self, client: AsyncClient, application: str, path: str, body: bytes, options: SubmitOptions) -> None:
        self._client = client
        self._application = application
        self._path = path
        self._body = body
        self._options = options
        self.late: AsyncRequestHandle | None = None
        """The request that was accepted after the caller had gone, and cancelled."""

    async def send(self) -> AsyncRequestHandle:
        """Submit. Repeated only when fal provably did not take it (fal-protocol §13.1).

        Raises FalClientError; FalClientLostRequestError when it was sent and not answered.
        """
        session = await self._client.connections.here()
        watched = Watched(session.transport)
        try:
            return await repeat(
                lambda: self._unless_left(self._post(watched, session)),
                self._client.connections.settings.repeats,
                if_=self._may_send_again,
            )
        except WireError as error:
            raise client_error(error, watched.reply, session.credentials.redact, lost=LOST_SUBMIT) from error

    def _may_send_again(self, error: WireError) -> bool:
        # A limit on the queue's length asks for this very 429.
        asked_for = isinstance(error, HttpError) and self._options.max_queue_length is not None
        return may_pay_again(error) and not asked_for

    async def _post(self, watched: Watched, session: Session) -> AsyncRequestHandle:
        queue = QueueClient(watched, session.hosts, session.credentials, user_agent=USER_AGENT)
        try:
            accepted = await queue.submit(
                self._application,
                self._body,
                self._options,
                path=self._path,
                timeout_s=self._client.default_timeout,
            )
        except ReplyError as error:
            if not error.request_id:
                raise
            # The body was lost on its way, the header has told which request it is.
            return AsyncRequestHandle.from_request_id(self._client, self._application, error.request_id)
        if watched.reply is not None:
            remember(watched.reply.headers)
        return AsyncRequestHandle.of(self._client, self._application, accepted)

    async def _unless_left(self, post: Coroutine[Any, Any, AsyncRequestHandle]) -> AsyncRequestHandle:
        """The handle; when the caller is cancelled meanwhile, its request is too."""
        task = asyncio.ensure_future(post)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            await self._settle(task)
            raise
        return task.result()

    async def _settle(self, task: asyncio.Task[AsyncRequestHandle]) -> None:
        try:
            with anyio.move_on_after(GRACE_S, shield=True):
                await asyncio.wait({task})
        finally:
            answered = task.done() and not task.cancelled() and task.exception() is None
            task.cancel()
        if answered:
            self.late = task.result()
            await cancel_quietly(self.late, CANCEL_S)
        else:
            with anyio.CancelScope(shield=True):
                await asyncio.wait({task})
