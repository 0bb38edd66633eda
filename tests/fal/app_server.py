"""A small aiohttp server that does what a test says, and keeps what came."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from falbatch.fal.auth import Credentials
from falbatch.fal.hosts import Hosts
from tests.fal.raw_server import KEY

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CREDENTIALS = Credentials("Key", KEY, source="FAL_KEY")


@dataclass
class Seen:
    """One request that came."""

    method: str
    path: str
    """With its query, as it came."""
    headers: dict[str, str]
    body: bytes


@dataclass
class AppServer:
    origin: str = ""
    seen: list[Seen] = field(default_factory=list)

    @property
    def hosts(self) -> Hosts:
        """Everything under this server."""
        return Hosts.resolve({}, origin=self.origin)


@asynccontextmanager
async def app_server(handler: Handler) -> AsyncIterator[AppServer]:
    """Answer every request with `handler`."""
    server = AppServer()

    async def handle(request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        server.seen.append(Seen(request.method, request.raw_path, headers, await request.read()))
        return await handler(request)

    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


def events(*chunks: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Handler:
    """A handler that sends an event stream in just these chunks."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Type": "text/event-stream", **(headers or {})})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        return response

    return handle
