"""Each way a call can fail on real sockets, and whether anything was sent: what decides about paying twice."""

from __future__ import annotations

import asyncio
import socket
import ssl

import httpx
import pytest

from falbatch.errors import ReplyError, TransportError
from falbatch.fal.transport import CutReply, Reply, Transport, TransportSettings
from tests.fal.raw_server import KEY, RID, Peer, served

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("carrier")]

AUTH = {"authorization": f"Key {KEY}"}
BODY = b'{"prompt":"a red kite"}'


async def post(
    transport: Transport, url: str, *, timeout_s: float = 5.0, max_bytes: int = 1_000_000, method: str = "POST"
) -> Reply:
    return await transport.request(
        method, url, headers=AUTH, body=BODY if method == "POST" else None, timeout_s=timeout_s, max_bytes=max_bytes
    )


async def failure(transport: Transport, url: str, *, timeout_s: float = 5.0, method: str = "POST") -> TransportError:
    with pytest.raises(TransportError) as caught:
        await post(transport, url, timeout_s=timeout_s, method=method)
    assert "ksecret" not in repr(caught.value)
    assert "ksecret" not in str(caught.value)
    # The libraries' exceptions hold the request's headers: they may not hang on ours.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


async def test_a_refused_connection_sent_nothing(transport: Transport) -> None:
    error = await failure(transport, f"http://127.0.0.1:{closed_port()}/x?sig=private")
    assert (error.sent, error.kind) == (False, "connect")
    assert "private" not in str(error)


async def test_an_unknown_name_sent_nothing(transport: Transport) -> None:
    error = await failure(transport, "http://nonexistent.invalid/x")
    assert (error.sent, error.kind) == (False, "dns")


async def test_a_server_without_tls_sent_nothing(transport: Transport) -> None:
    async def speaks_plainly(peer: Peer) -> None:
        await peer.reader.read(100)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with served(speaks_plainly) as server:
        error = await failure(transport, server.origin.replace("http", "https"))
    assert (error.sent, error.kind) == (False, "tls")


async def test_a_server_that_hangs_up_during_the_handshake_sent_nothing(transport: Transport) -> None:
    async def hangs_up(peer: Peer) -> None:
        await peer.reader.read(100)
        peer.reset()

    async with served(hangs_up) as server:
        error = await failure(transport, server.origin.replace("http", "https"))
    assert (error.sent, error.kind) == (False, "connect")


async def test_a_handshake_that_hangs_sent_nothing(transport: Transport) -> None:
    async def hangs(peer: Peer) -> None:
        await peer.reader.read()

    async with served(hangs) as server:
        error = await failure(transport, server.origin.replace("http", "https"), timeout_s=0.2)
    assert (error.sent, error.kind) == (False, "connect")


async def test_a_connection_that_is_never_accepted_sent_nothing(transport: Transport) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        error = await failure(transport, f"http://127.0.0.1:{full.getsockname()[1]}/", timeout_s=0.2)
        for filler in fillers:
            filler.close()
    assert (error.sent, error.kind) == (False, "connect")


async def test_a_server_that_accepts_and_closes_may_have_read_something(transport: Transport) -> None:
    async def closes(peer: Peer) -> None:
        peer.writer.close()

    async with served(closes) as server:
        error = await failure(transport, server.origin)
    assert (error.sent, error.kind) == (True, "reset")


async def test_a_server_that_reads_and_closes_may_hold_the_job(transport: Transport) -> None:
    async def reads_and_closes(peer: Peer) -> None:
        server.requests.append(await peer.request())

    async with served(reads_and_closes) as server:
        error = await failure(transport, server.origin)
    assert (error.sent, error.kind) == (True, "reset")
    assert len(server.requests) == 1


async def test_a_reset_after_the_body_may_hold_the_job(transport: Transport) -> None:
    async def resets(peer: Peer) -> None:
        server.requests.append(await peer.request())
        peer.reset()

    async with served(resets) as server:
        error = await failure(transport, server.origin)
    assert (error.sent, error.kind) == (True, "reset")
    assert len(server.requests) == 1


async def test_no_answer_in_time_may_hold_the_job(transport: Transport) -> None:
    async def says_nothing(peer: Peer) -> None:
        server.requests.append(await peer.request())
        await peer.reader.read()

    async with served(says_nothing) as server:
        error = await failure(transport, server.origin, timeout_s=0.3)
    assert (error.sent, error.kind) == (True, "timeout")
    assert len(server.requests) == 1


async def test_a_dripping_answer_ends_at_the_deadline(transport: Transport) -> None:
    async def drips(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        ended = asyncio.get_running_loop().time() + 5
        while asyncio.get_running_loop().time() < ended:
            await peer.send(b"x")
            await asyncio.sleep(0.01)

    async with served(drips) as server:
        error = await failure(transport, server.origin, timeout_s=0.3)
    assert (error.sent, error.kind) == (True, "timeout")


async def test_a_reply_shorter_than_it_said_keeps_the_request_id_of_its_head(transport: Transport) -> None:
    async def truncates(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b'{"request_id"', headers=f"x-fal-request-id: {RID}\r\n", length=500)

    async with served(truncates) as server:
        error = await failure(transport, server.origin)
    assert isinstance(error, CutReply)
    assert (error.sent, error.kind, error.status, error.request_id) == (True, "reset", 200, RID)


@pytest.mark.parametrize("garbage", [b"\x15\x03\x01 nonsense\r\n\r\n", b"HTTP/9 what\r\n\r\n", b"220 smtp ready\r\n"])
async def test_garbage_for_a_reply_may_hold_the_job(transport: Transport, garbage: bytes) -> None:
    async def babbles(peer: Peer) -> None:
        await peer.request()
        await peer.send(garbage)

    async with served(babbles) as server:
        error = await failure(transport, server.origin)
    assert error.sent
    assert error.kind == "protocol"


async def test_a_body_that_does_not_decompress_is_a_protocol_failure(transport: Transport) -> None:
    async def corrupts(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"not gzip at all", headers="Content-Encoding: gzip\r\n")

    async with served(corrupts) as server:
        error = await failure(transport, server.origin)
    assert (error.sent, error.kind) == (True, "protocol")


async def test_a_post_on_a_connection_that_went_stale_is_never_sent_again(transport: Transport) -> None:
    async def answers_once(peer: Peer) -> None:
        server.requests.append(await peer.request())
        if peer.number == 0:
            await peer.answer(b"{}")
            server.requests.append(await peer.request())
            peer.reset()  # the second request meets a closing connection
        else:
            await peer.answer(b"{}")

    async with served(answers_once) as server:
        await post(transport, server.origin)
        error = await failure(transport, server.origin)
    assert (error.sent, error.kind) == (True, "reset")
    assert server.connections == 1
    assert len(server.requests) == 2


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_reads_and_cancels_on_a_stale_connection_are_repeated_by_the_library(
    transport: Transport, method: str
) -> None:
    async def answers_once(peer: Peer) -> None:
        await peer.request()
        if peer.number == 0:
            await peer.answer(b"{}")
            await peer.request()
            peer.reset()
        else:
            await peer.answer(b'{"again":1}')

    async with served(answers_once) as server:
        await post(transport, server.origin, method=method)
        reply = await post(transport, server.origin, method=method)
    assert reply.body == b'{"again":1}'
    assert server.connections == 2


async def test_a_connection_closed_while_idle_is_not_used_for_the_next_post(transport: Transport) -> None:
    closed = asyncio.Event()

    async def answers_and_closes(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"{}")
        closed.set()

    async with served(answers_and_closes) as server:
        await post(transport, server.origin)
        await closed.wait()
        for _ in range(20):  # let the client's loop see the end of the connection
            await asyncio.sleep(0)
        assert (await post(transport, server.origin)).status == 200
    assert server.connections == 2


async def test_waiting_at_the_gate_sent_nothing() -> None:
    arrived, release = asyncio.Event(), asyncio.Event()

    async def holds(peer: Peer) -> None:
        server.requests.append(await peer.request())
        arrived.set()
        await release.wait()
        await peer.answer(b"{}")

    async with Transport(settings=TransportSettings(gate=1)) as transport, served(holds) as server:
        first = asyncio.create_task(post(transport, server.origin))
        await arrived.wait()
        error = await failure_at_the_gate(transport, server.origin)
        assert (error.sent, error.kind) == (False, "pool")
        release.set()
        assert (await first).status == 200
        assert (await post(transport, server.origin)).status == 200
    assert len(server.requests) == 2


async def failure_at_the_gate(transport: Transport, url: str) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await post(transport, url, timeout_s=0.05)
    return caught.value


async def test_a_body_beyond_the_bound_is_a_reply_error_with_the_request_id(transport: Transport) -> None:
    async def floods(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"x" * 200_000, headers=f"x-fal-request-id: {RID}\r\n")

    async with served(floods) as server:
        with pytest.raises(ReplyError, match=r"larger than 1,000 bytes") as caught:
            await post(transport, server.origin, max_bytes=1000)
    assert caught.value.request_id == RID


async def test_an_address_that_is_no_url_sent_nothing(transport: Transport) -> None:
    for url in ("ftp://host/x", "http:///x", "http://[::1/x", "no url"):
        error = await failure(transport, url)
        assert (error.sent, error.kind) == (False, "protocol"), url


async def test_cancelling_a_call_gives_its_place_back() -> None:
    arrived = asyncio.Event()

    async def holds_the_first(peer: Peer) -> None:
        await peer.request()
        if peer.number == 0:
            arrived.set()
            await peer.reader.read()
        else:
            await peer.answer(b"{}")

    async with Transport(settings=TransportSettings(gate=1)) as transport, served(holds_the_first) as server:
        task = asyncio.create_task(post(transport, server.origin))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await post(transport, server.origin)).status == 200


@pytest.mark.parametrize(
    ("raised", "sent", "kind"),
    [
        (httpx.ConnectError("x"), False, "connect"),
        (httpx.ConnectTimeout("x"), False, "connect"),
        (httpx.PoolTimeout("x"), False, "pool"),
        (httpx.UnsupportedProtocol("x"), False, "protocol"),
        (httpx.ReadTimeout("x"), True, "timeout"),
        (httpx.WriteTimeout("x"), True, "timeout"),
        (httpx.ReadError("x"), True, "reset"),
        (httpx.WriteError("x"), True, "reset"),
        (httpx.ProxyError("x"), True, "reset"),
        (httpx.RemoteProtocolError("x"), True, "protocol"),
    ],
)
async def test_a_transport_of_the_callers_own_fails_in_httpx_words(raised: Exception, sent: bool, kind: str) -> None:
    def raises(request: httpx.Request) -> httpx.Response:
        raise raised

    async with Transport(transport=httpx.MockTransport(raises)) as transport:
        error = await failure(transport, "https://queue.fal.run/x")
    assert (error.sent, error.kind) == (sent, kind)


async def test_what_httpx_aiohttp_calls_a_connect_timeout_is_seen_for_what_it_is() -> None:
    from httpx_aiohttp import AiohttpTransport

    async def reads_and_closes(peer: Peer) -> None:
        await peer.request()

    async with served(reads_and_closes) as server:
        async with AiohttpTransport() as plain:
            with pytest.raises(httpx.ConnectTimeout):  # the day this fails, the note in transport.py is old
                await plain.handle_async_request(httpx.Request("POST", server.origin, content=BODY))
        async with Transport(transport=AiohttpTransport()) as transport:
            error = await failure(transport, server.origin)
    assert (error.sent, error.kind) == (True, "reset")


async def test_a_wrong_certificate_sent_nothing() -> None:
    """A context that trusts nobody refuses whatever certificate comes, so any TLS server will do."""
    settings = TransportSettings(ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    async with Transport(settings=settings) as transport, served(tls_alert) as server:
        error = await failure(transport, server.origin.replace("http", "https"))
    assert (error.sent, error.kind) == (False, "tls")


async def tls_alert(peer: Peer) -> None:
    """Answer the hello with a fatal handshake_failure alert."""
    await peer.reader.read(100)
    await peer.send(bytes([21, 3, 3, 0, 2, 2, 40]))


@pytest.mark.parametrize("closes", [False, True])
async def test_an_answer_before_the_whole_body_was_read_is_an_answer(transport: Transport, closes: bool) -> None:
    async def refuses_early(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.answer(b"{}", status="413 Content Too Large", headers="Connection: close\r\n")
        if not closes:
            await peer.reader.read()

    async with served(refuses_early) as server:
        reply = await transport.request(
            "POST", server.origin, headers=AUTH, body=bytes(30_000_000), timeout_s=5, max_bytes=1000
        )
    assert reply.status == 413
