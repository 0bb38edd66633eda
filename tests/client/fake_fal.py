"""A fal of a few lines, over real sockets, for answers that the sandbox does not give."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

RID = "0b7c1f3e-2a64-4a1c-9d0e-5f1f7f6f2b11"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def accepted(origin: str) -> dict[str, Any]:
    """What a submit to `owner/app` answers."""
    base = f"{origin}/queue/owner/app/requests/{RID}"
    return {
        "status": "IN_QUEUE",
        "request_id": RID,
        "queue_position": 0,
        "response_url": base,
        "status_url": f"{base}/status",
        "cancel_url": f"{base}/cancel",
    }


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """A server that answers everything with `handler`; its origin."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()
