"""Servers and networks that answer a submit in one certain way, each counting the POSTs that reached it."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.fal.raw_server import RID, Peer, served

if TYPE_CHECKING:
    from pathlib import Path

OPENSSL = shutil.which("openssl")


@dataclass
class Scene:
    """What happened on the server's side."""

    folder: Path
    """For certificates; with those that are made in it."""
    posts: list[bytes] = field(default_factory=list)
    """The head of every POST that was read."""
    peers: list[Peer] = field(default_factory=list)
    """Every connection."""
    elsewhere: list[bytes] = field(default_factory=list)
    """What reached the server that a redirect points to."""

    async def hear(self, peer: Peer, *, whole: bool = True) -> bool:
        """Read one request; False when the client has gone. `whole` False leaves the body unread."""
        try:
            head = await peer.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        if head.startswith(b"POST "):
            self.posts.append(head)
        for line in head.lower().split(b"\r\n"):
            if whole and line.startswith(b"content-length:"):
                await peer.reader.readexactly(int(line.partition(b":")[2]))
        return True


Act = Callable[[Scene, Peer], Awaitable[None]]
"""What a server does on one connection."""

Condition = Callable[[Scene], AbstractAsyncContextManager[str]]
"""Sets a server up for a scene and gives its origin."""


def acting(act: Act, *, certificate: str = "", asks_for_one: bool = False) -> Condition:
    """A server that does `act`, behind TLS when it has a `certificate` (see `context`)."""

    @asynccontextmanager
    async def condition(scene: Scene) -> AsyncIterator[str]:
        async def script(peer: Peer) -> None:
            scene.peers.append(peer)
            await act(scene, peer)

        tls = context(scene.folder, certificate) if certificate else None
        if tls and asks_for_one:
            tls.load_verify_locations(scene.folder / "good.pem")
            tls.verify_mode = ssl.CERT_REQUIRED
        async with served(script, tls) as server:
            yield server.origin

    return condition


def context(folder: Path, name: str) -> ssl.SSLContext:
    """A server's context with a new certificate: `good` for this host, `other` for another, else `stranger`."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    if not certificate.exists():
        host = "DNS:elsewhere.example" if name == "other" else "IP:127.0.0.1"
        command = f"{OPENSSL} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test"
        more = ["-addext", f"subjectAltName={host}", "-keyout", str(key), "-out", str(certificate)]
        subprocess.run([*command.split(), *more], check=True, capture_output=True)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate, key)
    return made


def message(status: str, body: bytes = b"", headers: str = "", *, length: int | None = None) -> bytes:
    """An HTTP reply as it stands on the wire. `headers` with a newline at the end of each."""
    lines = headers.replace("\n", "\r\n")
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n{lines}\r\n".encode() + body


def answers(*replies: bytes, then_closes: bool = False) -> Act:
    """Read each request whole and give it the next of `replies`, the last one again and again."""

    async def act(scene: Scene, peer: Peer) -> None:
        for number in range(100):
            if not await scene.hear(peer):
                return
            await peer.send(replies[min(number, len(replies) - 1)])
            if then_closes:
                return

    return act


def answers_and_babbles(reply: bytes, stray: bytes) -> Act:
    """Give each request `reply`, and say `stray` a moment later, when nobody has asked."""

    async def act(scene: Scene, peer: Peer) -> None:
        while await scene.hear(peer):
            await peer.send(reply)
            await asyncio.sleep(0.03)
            await peer.send(stray)

    return act


def sends_and_hangs(data: bytes) -> Act:
    """Read the request whole, say `data`, and nothing more."""

    async def act(scene: Scene, peer: Peer) -> None:
        await scene.hear(peer)
        await peer.send(data)
        await peer.reader.read()

    return act


async def resets_at_once(scene: Scene, peer: Peer) -> None:
    peer.reset_hard()


async def resets_after_the_head(scene: Scene, peer: Peer) -> None:
    await scene.hear(peer, whole=False)
    peer.reset_hard()


async def closes_after_the_head(scene: Scene, peer: Peer) -> None:
    await scene.hear(peer, whole=False)


async def resets_after_the_body(scene: Scene, peer: Peer) -> None:
    await scene.hear(peer)
    peer.reset_hard()


async def closes_without_an_answer(scene: Scene, peer: Peer) -> None:
    await scene.hear(peer)


async def never_reads(scene: Scene, peer: Peer) -> None:
    await asyncio.sleep(60)


async def is_no_tls_server(scene: Scene, peer: Peer) -> None:
    await peer.reader.read(100)
    await peer.send(message("400 Bad Request"))


def over_tls(condition: Condition) -> Condition:
    """`condition`'s server, addressed as if it spoke TLS."""

    @asynccontextmanager
    async def changed(scene: Scene) -> AsyncIterator[str]:
        async with condition(scene) as origin:
            yield origin.replace("http://", "https://")

    return changed


def redirects(status: str) -> Condition:
    """A server that answers with `status` and the address of another, which must stay alone."""

    @asynccontextmanager
    async def condition(scene: Scene) -> AsyncIterator[str]:
        async def target(peer: Peer) -> None:
            scene.elsewhere.append(await peer.request())
            await peer.send(accepted())

        async with served(target) as other:
            reply = message(status, b"", f"Location: {other.origin}/queue/fal-ai/flux/dev\n")
            async with acting(answers(reply))(scene) as origin:
                yield origin

    return condition


@asynccontextmanager
async def nobody_listens(scene: Scene) -> AsyncIterator[str]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def nobody_accepts(scene: Scene) -> AsyncIterator[str]:
    """A listener whose backlog is full: connecting hangs."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield f"http://127.0.0.1:{full.getsockname()[1]}"
        for filler in fillers:
            filler.close()


@asynccontextmanager
async def no_such_name(scene: Scene) -> AsyncIterator[str]:
    yield "http://queue.nonexistent.invalid"


def accepted(headers: str = "", request_id: str = RID) -> bytes:
    """A whole acceptance."""
    return message("200 OK", f'{{"status":"IN_QUEUE","request_id":"{request_id}"}}'.encode(), headers)
