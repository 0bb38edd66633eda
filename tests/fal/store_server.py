"""A storage of fal's in a few lines, over real sockets: it keeps what it is sent and fails when told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from aiohttp import web

from falbatch.fal.auth import Credentials
from falbatch.fal.hosts import Hosts

KEY = Credentials("Key", "kid-0001:ksecret-0002", source="test")
MAX_BODY = 64 * 1024 * 1024

Fault = Callable[["Heard"], web.Response | None]
"""What to answer in place of the usual, or None; asked before anything is kept."""


@dataclass
class Heard:
    """One request."""

    method: str
    path: str
    """With the query."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = field(repr=False)


@dataclass
class Store:
    """The server's side."""

    origin: str = ""
    heard: list[Heard] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    """By path, complete ones."""
    parts: dict[int, bytes] = field(default_factory=dict)
    peers: set[object] = field(default_factory=set)
    """The other ends of all connections."""
    faults: list[Fault] = field(default_factory=list)
    expires_at: str = "2999-01-01T00:00:00+00:00"
    token: str = "cdn-token-1"
    base: str = ""
    """base_url of the token reply; "" for the right one."""
    under_way: int = 0
    most_under_way: int = 0
    slow: Callable[[Heard], float] = lambda _: 0.0
    """Seconds that a request takes."""

    @property
    def hosts(self) -> Hosts:
        """Everything here."""
        return Hosts.resolve({}, origin=self.origin)

    def paths(self, method: str) -> list[str]:
        """Of all requests with that method."""
        return [one.path for one in self.heard if one.method == method]

    def to(self, part: str) -> list[Heard]:
        """All requests whose path holds `part`."""
        return [one for one in self.heard if part in one.path]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        if request.transport is not None:
            self.peers.add(request.transport.get_extra_info("peername"))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            one = Heard(request.method, request.path_qs, headers, await request.read())
            self.heard.append(one)
            await asyncio.sleep(self.slow(one))
            for fault in self.faults:
                if (answer := fault(one)) is not None:
                    return answer
            return self.answer(one)
        finally:
            self.under_way -= 1

    def answer(self, one: Heard) -> web.Response:
        """As fal-protocol §6 says."""
        path = one.path.partition("?")[0]
        number = path.rpartition("/")[2]
        if path == "/rest/storage/auth/token":
            base = self.base or f"{self.origin}/cdn"
            page = {"token": self.token, "token_type": "Bearer", "base_url": base, "expires_at": self.expires_at}
            return web.json_response(page)
        if path in {"/rest/storage/upload/initiate", "/rest/storage/upload/initiate-multipart"}:
            name = json.loads(one.body)["file_name"]
            page = {
                "upload_url": f"{self.origin}/signed/{name}?sig=a%2Cb",
                "file_url": f"{self.origin}/cdn/files/{name}",
            }
            return web.json_response(page)
        if path.startswith("/cdn") and one.headers.get("authorization") != f"Bearer {self.token}":
            return web.json_response({"detail": "bad token"}, status=401)
        if path == "/cdn/files/upload":
            name = one.headers.get("x-fal-file-name", "unnamed")
            self.files[name] = one.body
            return web.json_response({"access_url": f"{self.origin}/cdn/files/{quote(name)}"})
        if path == "/cdn/files/upload/multipart":
            return web.json_response({"access_url": f"{self.origin}/cdn/files/big", "uploadId": "up/1"})
        if number == "complete":
            return self.complete(one)
        if number.isdigit():
            self.parts[int(number)] = one.body
            etag = f'"etag-{number}"'
            if path.startswith("/signed"):
                return web.json_response({"partNumber": int(number), "etag": etag})
            return web.Response(headers={"ETag": etag})
        self.files[path.rpartition("/")[2]] = one.body
        return web.Response()

    def complete(self, one: Heard) -> web.Response:
        """Put the parts together, if the receipt is right."""
        right = [{"partNumber": number, "etag": f'"etag-{number}"'} for number in sorted(self.parts)]
        if json.loads(one.body) != {"parts": right}:
            return web.json_response({"detail": "bad receipt"}, status=400)
        self.files["big"] = b"".join(self.parts[number] for number in sorted(self.parts))
        return web.json_response({})


def answer_times(status: int, times: int, part: str = "", **headers: str) -> Fault:
    """Answer the first `times` requests whose path holds `part` with `status`."""
    left = [times]

    def fault(one: Heard) -> web.Response | None:
        if part not in one.path or left[0] == 0:
            return None
        left[0] -= 1
        return web.json_response({"detail": f"refused on purpose {KEY.header()}"}, status=status, headers=headers)

    return fault


@asynccontextmanager
async def stored(store: Store | None = None) -> AsyncIterator[Store]:
    """A running store."""
    store = store or Store()
    app = web.Application(client_max_size=MAX_BODY)
    app.router.add_route("*", "/{tail:.*}", store.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    store.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield store
    finally:
        await runner.cleanup()
