"""Direct calls of the sandbox over aiohttp, many at once where a test wants that."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.sandbox_process import SandboxProcess

KEY = {"Authorization": "Key me:secret"}
KITE = {"prompt": "a red kite", "image_size": {"width": 64, "height": 64}}
QUICK = "fal-ai/flux/schnell"
SLOW = "fal-ai/flux-pro"  # 4 s, 0.16 s at the speed of these tests
VERY_SLOW = "fal-ai/kling-video/v2.6/pro/text-to-video"  # 60 s, 2.4 s at the speed of these tests
WAIT_S = 10.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@asynccontextmanager
async def session(headers: dict[str, str] | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """A client with the key of `me`, one connection for each call."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(total=WAIT_S)
    async with aiohttp.ClientSession(
        headers=KEY if headers is None else headers, connector=connector, timeout=timeout
    ) as client:
        yield client


async def run(client: aiohttp.ClientSession, url: str, payload: object, **more: Any) -> Answer:
    """POST, whatever comes of it."""
    async with client.post(url, json=payload, **more) as reply:
        headers = {name.lower(): value for name, value in reply.headers.items()}
        return Answer(reply.status, headers, await reply.read())


def events_of(body: bytes) -> list[Any]:
    """The values of a stream's events, read as the standard says, comments left out."""
    blocks = body.decode().split("\n\n")
    assert blocks[-1] == "", "a stream ends after an event"
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-1] if not block.startswith(":")]


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until the sandbox shows something; fails after a while."""
    end = time.monotonic() + WAIT_S
    while not await asyncio.to_thread(is_so):
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def running(sandbox: SandboxProcess, account: str = "me") -> int:
    """How many requests of an account are IN_PROGRESS."""
    accounts = sandbox.stats()["accounts"]
    return int(accounts[account]["running"]) if account in accounts else 0
