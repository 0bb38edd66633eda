"""The client's connections: made when first needed, for each event loop its own, closed when that loop ends.

call ─▶ session of this loop ─▶ fal's clients over it ─▶ repeated where §13.1 allows ─▶ value, or FalClientError
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from falbatch.client.errors import MissingCredentialsError, client_error
from falbatch.errors import CredentialsError, WireError
from falbatch.fal.again import Repeats, may_read_again, repeat
from falbatch.fal.auth import Credentials, find_credentials
from falbatch.fal.exchange import Reply, StreamReply, TransportSettings
from falbatch.fal.hosts import Hosts
from falbatch.fal.queue import QueueClient
from falbatch.fal.storage import StorageClient, UploadLimits
from falbatch.fal.transport import Transport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping

    from falbatch.fal.queue import RequestRef
    from falbatch.fal.wire import Progress

T = TypeVar("T")

USER_AGENT: Final = "falbatch (python)"

AT_ONCE: Final = 128
"""Calls under way at once: a direct run holds its connection for as long as the model works."""

MAX_ERROR_BYTES: Final = 4 * 1024 * 1024
"""Of an error's body in a stream, kept for `response.content`."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Decided once for the life of a client."""

    transport: TransportSettings = field(default_factory=lambda: TransportSettings(gate=AT_ONCE, connections=AT_ONCE))
    repeats: Repeats = field(default_factory=Repeats)
    """For reads and uploads, and for paid calls that fal provably did not take."""
    uploads: UploadLimits = field(default_factory=UploadLimits)
    hosts: Hosts | None = None
    """Which fal; None for the one that the environment names."""
    credentials: Credentials | None = None
    """In place of `key` and the environment."""


class Watched:
    """A transport that remembers its last reply, for the error that may be made of it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.reply: Reply | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
        max_bytes: int,
        once: bool = False,
    ) -> Reply:
        """As the transport's."""
        self.reply = None
        self.reply = await self._transport.request(
            method, url, headers=headers, body=body, timeout_s=timeout_s, max_bytes=max_bytes, once=once
        )
        return self.reply

    @asynccontextmanager
    async def stream(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout_s: float | None,
        method: str = "GET",
        body: bytes | None = None,
        idle_s: float = 60.0,
    ) -> AsyncIterator[StreamReply]:
        """As the transport's; of an error the body is remembered as it is read."""
        opened = self._transport.stream(
            url, headers=headers, timeout_s=timeout_s, method=method, body=body, idle_s=idle_s
        )
        async with opened as reply:
            self.reply = Reply(reply.status, reply.headers, b"")
            ok = 200 <= reply.status < 300
            yield reply if ok else StreamReply(reply.status, reply.headers, lambda: self._remembered(reply))

    async def _remembered(self, reply: StreamReply) -> AsyncIterator[bytes]:
        body = b""
        async for chunk in reply.chunks():
            body = (body + chunk)[:MAX_ERROR_BYTES]
            self.reply = Reply(reply.status, reply.headers, body)
            yield chunk


@dataclass(frozen=True, slots=True)
class Session:
    """What one event loop has open."""

    transport: Transport
    hosts: Hosts
    credentials: Credentials
    storage: StorageClient


class _Place:
    """A loop's session, or the wait for it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.session: Session | None = None
        self.life: AsyncGenerator[Session, None] | None = None


class Connections:
    """All sessions of a client."""

    def __init__(self, key: str | None, settings: ClientSettings) -> None:
        self._key = key
        self.settings = settings
        self._places: dict[asyncio.AbstractEventLoop, _Place] = {}
        self._hosts: Hosts | None = settings.hosts
        self._credentials: Credentials | None = settings.credentials

    def hosts(self) -> Hosts:
        """Which fal the environment names, read once. Raises UsageError."""
        if self._hosts is None:
            self._hosts = Hosts.resolve(os.environ)
        return self._hosts

    def credentials(self) -> Credentials:
        """The key, looked for once. Raises MissingCredentialsError."""
        if self._credentials is None:
            self._credentials = _given(self._key) if self._key is not None else _found(os.environ)
        return self._credentials

    async def here(self) -> Session:
        """The session of the running loop."""
        loop = asyncio.get_running_loop()
        place = self._places.get(loop)
        if place is None:
            for old in [one for one in self._places if one.is_closed()]:
                del self._places[old]
            place = self._places[loop] = _Place()
        if place.session is None:
            async with place.lock:
                if place.session is None:
                    # A loop that ends closes the generators that are under way in it, and so our connections too,
                    # when nobody calls aclose(): the module's own functions have nobody who could.
                    place.life = self._life(loop)
                    place.session = await anext(place.life)
        return place.session

    async def aclose(self) -> None:
        """Close the running loop's connections. The next call makes new ones."""
        place = self._places.get(asyncio.get_running_loop())
        if place is not None and place.life is not None:
            await place.life.aclose()

    async def _life(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[Session, None]:
        hosts, credentials = self.hosts(), self.credentials()
        async with Transport(settings=self.settings.transport) as transport:
            storage = StorageClient(
                transport,
                hosts,
                credentials,
                user_agent=USER_AGENT,
                limits=self.settings.uploads,
                repeats=self.settings.repeats,
            )
            try:
                yield Session(transport, hosts, credentials, storage)
            finally:
                self._places.pop(loop, None)

    async def read(
        self,
        call: Callable[[QueueClient], Awaitable[T]],
        request_id: str,
        *,
        if_: Callable[[WireError], bool] = may_read_again,
    ) -> T:
        """A call of the queue's that costs nothing, repeated. Raises FalClientError."""
        session = await self.here()
        watched = Watched(session.transport)
        queue = QueueClient(watched, session.hosts, session.credentials, user_agent=USER_AGENT)
        try:
            return await repeat(lambda: call(queue), self.settings.repeats, if_=if_)
        except WireError as error:
            raise client_error(error, watched.reply, session.credentials.redact, request_id=request_id) from error

    @asynccontextmanager
    async def watching(self, request: RequestRef, *, with_logs: bool) -> AsyncIterator[AsyncIterator[Progress]]:
        """fal's own account of a request's changes. Raises FalClientError when it breaks off."""
        session = await self.here()
        watched = Watched(session.transport)
        queue = QueueClient(watched, session.hosts, session.credentials, user_agent=USER_AGENT)
        try:
            async with queue.status_stream(request, with_logs) as changes:
                yield changes
        except WireError as error:
            known = request.request_id
            raise client_error(error, watched.reply, session.credentials.redact, request_id=known) from error

    async def store(self, call: Callable[[StorageClient], Awaitable[T]]) -> T:
        """A call of the storage's, which repeats by itself."""
        session = await self.here()
        try:
            return await call(session.storage)
        except WireError as error:
            raise client_error(error, None, session.credentials.redact) from error


def _given(key: str) -> Credentials:
    """The credentials of a `key=` argument, which must look like a key."""
    if not key.strip():
        raise MissingCredentialsError("the key= argument is empty", advice="Leave it out to use FAL_KEY.")
    try:
        found = find_credentials({"FAL_KEY": key}, key_file=None, home=Path())
    except CredentialsError as error:
        raise MissingCredentialsError(str(error).replace("FAL_KEY", "the key= argument"), advice=_HOW) from None
    scheme, _, secret = found.header().partition(" ")
    return Credentials(scheme, secret, source="the key= argument")


def _found(env: Mapping[str, str]) -> Credentials:
    try:
        return find_credentials(env, key_file=None, home=Path.home())
    except CredentialsError as error:
        raise MissingCredentialsError(str(error), advice=error.advice) from None


_HOW: Final = "Keys are made at https://fal.ai/dashboard/keys."
