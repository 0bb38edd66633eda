"""WebSockets over real sockets: messages both ways, refusals with fal's words, and every kind of end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import WSCloseCode, WSMsgType, web

from falbatch.errors import HttpError, ReplyError, TransportError, UsageError, WireError
from falbatch.fal.exchange import SocketClosed
from falbatch.fal.transport import Socket, Transport, TransportSettings
from tests.fal.app_server import CREDENTIALS, AppServer, app_server
from tests.fal.conditions import OPENSSL, context
from tests.fal.raw_server import Peer, served

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

Talk = Callable[[web.WebSocketResponse], Awaitable[None]]


@asynccontextmanager
async def talking(talk: Talk) -> AsyncIterator[AppServer]:
    """A server that holds `talk` on each socket, then closes it."""

    async def handle(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(timeout=0.5)
        socket.headers["X-Fal-Request-Id"] = "R"
        await socket.prepare(request)
        await talk(socket)
        await socket.close()
        return socket

    async with app_server(handle) as server:
        yield server


async def echoes(socket: web.WebSocketResponse) -> None:
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        else:
            await socket.send_bytes(message.data)


async def nothing(socket: web.WebSocketResponse) -> None:
    pass


@asynccontextmanager
async def opened(transport: Transport, origin: str, **more: int) -> AsyncIterator[Socket]:
    headers = {"authorization": CREDENTIALS.header(), "user-agent": "me/1"}
    async with transport.socket(
        f"{origin}/run/a/b?token=s3cr3t", headers=headers, timeout_s=5, redact=CREDENTIALS.redact, **more
    ) as socket:
        yield socket


async def end_of(socket: Socket) -> TransportError | ReplyError:
    with pytest.raises(WireError) as caught:
        await socket.receive()
    assert isinstance(caught.value, TransportError | ReplyError)
    assert "s3cr3t" not in str(caught.value)
    return caught.value


async def test_messages_go_both_ways(transport: Transport) -> None:
    big = bytes(range(256)) * 4000
    async with talking(echoes) as server, opened(transport, server.origin) as socket:
        for message in (b"\x80\x00", "text é", b"", "", big):
            await socket.send(message)
        assert [await socket.receive() for _ in range(5)] == [b"\x80\x00", "text é", b"", "", big]
        assert socket.headers["x-fal-request-id"] == "R"
        assert not socket.is_ended
    [seen] = server.seen
    assert seen.path == "/run/a/b?token=s3cr3t"
    assert (seen.headers["authorization"], seen.headers["user-agent"]) == (CREDENTIALS.header(), "me/1")
    names = {name for name in seen.headers if not name.startswith("sec-websocket-")}
    assert names == {"host", "authorization", "user-agent", "upgrade", "connection"}


async def test_a_goodbye_has_its_code_and_reason(transport: Transport) -> None:
    async def leaves(socket: web.WebSocketResponse) -> None:
        await socket.send_str("last")
        await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"not\x07 you, kid-0001:ksecret-0002")

    async with talking(leaves) as server, opened(transport, server.origin) as socket:
        assert await socket.receive() == "last"
        for _ in range(2):
            error = await end_of(socket)
            assert isinstance(error, SocketClosed)
            assert (error.code, error.is_clean, error.sent) == (1008, False, True)
            assert error.reason == "not you, ***"
        assert socket.is_ended
        with pytest.raises(TransportError) as caught:
            await socket.send(b"late")
        assert not caught.value.sent


async def test_an_end_in_peace_is_known_as_one(transport: Transport) -> None:
    async with talking(nothing) as server, opened(transport, server.origin) as socket:
        error = await end_of(socket)
    assert isinstance(error, SocketClosed)
    assert (error.code, error.is_clean) == (1000, True)


@pytest.mark.parametrize("hard", [False, True])
async def test_a_connection_that_breaks_has_no_code(transport: Transport, hard: bool) -> None:
    async def breaks(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        stream = socket._req.transport if socket._req else None
        assert stream is not None
        stream.abort() if hard else stream.close()

    async with talking(breaks) as server, opened(transport, server.origin) as socket:
        await socket.send("x")
        error = await end_of(socket)
    assert isinstance(error, SocketClosed)
    assert (error.code, error.is_clean, error.sent) == (None, False, True)


async def test_looking_waits_for_nothing_and_notices_an_end(transport: Transport) -> None:
    go, gone = asyncio.Event(), asyncio.Event()

    async def says(socket: web.WebSocketResponse) -> None:
        await go.wait()
        await socket.send_str("one")
        await socket.send_bytes(b"two")
        await socket.close()
        gone.set()

    async with talking(says) as server, opened(transport, server.origin) as socket:
        assert await socket.look() == []
        go.set()
        heard: list[bytes | str] = []
        async with asyncio.timeout(5):
            while not socket.is_ended:
                heard += await socket.look()
                await asyncio.sleep(0.005)
        assert heard == ["one", b"two"]
        assert isinstance(await end_of(socket), SocketClosed)
        await asyncio.wait_for(gone.wait(), 5)


async def test_looking_leaves_a_receiver_alone(transport: Transport) -> None:
    async with talking(echoes) as server, opened(transport, server.origin) as socket:
        receiver = asyncio.create_task(socket.receive())
        await asyncio.sleep(0)
        assert await socket.look() == []
        await socket.send("x")
        assert await receiver == "x"


async def test_a_message_beyond_the_bound_is_a_reply_error(transport: Transport) -> None:
    async with talking(echoes) as server, opened(transport, server.origin, max_bytes=1000) as socket:
        await socket.send(bytes(5000))
        assert isinstance(await end_of(socket), ReplyError)


@pytest.mark.parametrize(
    ("status", "headers"), [(401, {}), (403, {}), (429, {"X-Fal-Needs-Retry": "1"}), (502, {}), (200, {})]
)
async def test_a_refused_handshake_is_an_http_error_with_fals_words(
    transport: Transport, status: int, headers: dict[str, str]
) -> None:
    async def refuses(request: web.Request) -> web.StreamResponse:
        return web.json_response({"detail": "no kid-0001:ksecret-0002 here"}, status=status, headers=headers)

    async with app_server(refuses) as server:
        with pytest.raises(HttpError) as caught:
            await opened(transport, server.origin).__aenter__()
    error = caught.value
    assert (error.status, error.from_fal, error.retryable) == (status, True, True if headers else None)
    assert str(error).endswith(f"/run/a/b: HTTP {status}: no *** here")
    assert error.__cause__ is None
    assert error.__context__ is None


async def test_a_redirected_handshake_takes_no_secret_elsewhere(transport: Transport) -> None:
    async def redirects(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": f"{other.origin}/x"})

    async with talking(echoes) as other, app_server(redirects) as server:
        with pytest.raises(HttpError) as caught:
            await opened(transport, server.origin).__aenter__()
        assert caught.value.status == 302
        assert other.seen == []


async def failure(transport: Transport, url: str, *, timeout_s: float = 5.0) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await transport.socket(url, headers={}, timeout_s=timeout_s).__aenter__()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


async def test_handshakes_fail_in_the_words_of_requests(transport: Transport) -> None:
    async def says_nothing(peer: Peer) -> None:
        await peer.reader.read()

    async def closes(peer: Peer) -> None:
        await peer.request()

    async def babbles(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"220 smtp ready\r\n\r\n")

    async def accepts_wrongly(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")

    kinds, gone = [], ""
    for script in (says_nothing, closes, babbles, accepts_wrongly):
        async with served(script) as server:
            error = await failure(transport, server.origin, timeout_s=0.2 if script is says_nothing else 5)
            kinds.append((error.kind, error.sent))
            gone = server.origin
    # A GET without an answer may be sent once more by the library: it carries nothing.
    assert kinds == [("timeout", True), ("reset", True), ("protocol", True), ("protocol", True)]
    unsent = [await failure(transport, url) for url in (gone, "http://nonexistent.invalid", "ws://h", "x")]
    assert [(error.kind, error.sent) for error in unsent] == [
        ("connect", False),
        ("dns", False),
        ("protocol", False),
        ("protocol", False),
    ]


async def test_an_open_socket_holds_no_place_at_the_gate() -> None:
    async with (
        Transport(settings=TransportSettings(gate=1, trust_env=False)) as transport,
        talking(echoes) as server,
        opened(transport, server.origin) as one,
        opened(transport, server.origin) as other,
    ):
        for socket in (one, other):
            await socket.send("x")
            assert await socket.receive() == "x"


async def test_private_addresses_are_refused_to_sockets_too() -> None:
    settings = TransportSettings(public_only=True, trust_env=False)
    async with Transport(settings=settings) as transport, talking(echoes) as server:
        for url in (server.origin, server.origin.replace("127.0.0.1", "localhost")):
            error = await failure(transport, url)
            assert (error.kind, error.sent) == ("refused_address", False)
        assert server.seen == []


async def test_cancelling_a_receiver_leaves_the_socket_usable_and_the_block_clean(transport: Transport) -> None:
    async with talking(echoes) as server, opened(transport, server.origin) as socket:
        receiver = asyncio.create_task(socket.receive())
        await asyncio.sleep(0)
        receiver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiver
        await socket.send("x")
        assert await socket.receive() == "x"
    await socket.close()


async def test_a_cancelled_block_says_goodbye(transport: Transport) -> None:
    codes: list[int | None] = []
    left = asyncio.Event()

    async def listens(socket: web.WebSocketResponse) -> None:
        await echoes(socket)
        codes.append(socket.close_code)
        left.set()

    async with talking(listens) as server:

        async def works() -> None:
            async with opened(transport, server.origin) as socket:
                await socket.send("x")
                await socket.receive()
                inside.set()
                await socket.receive()

        inside = asyncio.Event()
        task = asyncio.create_task(works())
        await asyncio.wait_for(inside.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(left.wait(), 5)
    assert codes == [1000]


@pytest.mark.skipif(OPENSSL is None, reason="makes a certificate with openssl")
async def test_sockets_go_over_the_transports_own_tls(tmp_path: Path) -> None:
    async def shakes_hands(peer: Peer) -> None:
        heard.append(await peer.request())
        await peer.answer(b'{"detail":"later"}', status="429 Too Many Requests")

    heard: list[bytes] = []
    tls = context(tmp_path, "good")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "good.pem"))
    async with served(shakes_hands, tls) as server:
        async with Transport(settings=TransportSettings(ssl_context=trusting, trust_env=False)) as transport:
            with pytest.raises(HttpError, match="later"):
                await opened(transport, server.origin).__aenter__()
        async with Transport(settings=TransportSettings(trust_env=False)) as transport:
            error = await failure(transport, server.origin)
            assert (error.kind, error.sent) == ("tls", False)
    assert len(heard) == 1


async def test_sockets_take_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuses(peer: Peer) -> None:
        proxy.requests.append(await peer.request())
        await peer.answer(b"", status="407 Proxy Authentication Required")

    async with served(refuses) as proxy:
        monkeypatch.setenv("https_proxy", proxy.origin.replace("//", "//user:pass@"))
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        async with Transport() as transport:
            error = await failure(transport, "https://fal.invalid/a?token=s3cr3t")
    assert (error.sent, error.kind) == (False, "connect")
    assert proxy.requests[0].startswith(b"CONNECT fal.invalid:443 HTTP/1.1\r\n")
    assert b"s3cr3t" not in proxy.requests[0]


async def test_a_socks_proxy_is_told_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1080")
    with pytest.raises(UsageError):
        await Transport().__aenter__()
