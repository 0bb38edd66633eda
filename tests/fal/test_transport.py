"""What a transport gives back, what it sends, and where it refuses to go."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
from typing import TYPE_CHECKING

import httpx
import pytest

from falbatch.errors import TransportError, UsageError
from falbatch.fal.proxies import environment_proxies, proxy_for
from falbatch.fal.transport import CutReply, Transport, TransportSettings
from tests.fal.raw_server import Peer, Script, Server, served

if TYPE_CHECKING:
    from aiohttp.abc import ResolveResult

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("carrier")]

MANY = 1_000_000


async def get(transport: Transport, url: str, **headers: str) -> bytes:
    reply = await transport.request("GET", url, headers=headers, body=None, timeout_s=5, max_bytes=MANY)
    return reply.body


def recording(server_of: list[Server], answer: bytes = b"{}", headers: str = "", status: str = "200 OK") -> Script:
    """A server that keeps each request (in `server_of[0]`) and gives them all the same answer."""

    async def script(peer: Peer) -> None:
        while request := await peer.request():
            server_of[0].requests.append(request)
            await peer.answer(answer, headers=headers, status=status)

    return script


async def test_a_reply_has_its_status_headers_in_lower_case_and_its_body(transport: Transport) -> None:
    here: list[Server] = []
    async with served(recording(here, b'{"a":1}', "X-Fal-Request-Id: R\r\n", "202 Accepted")) as server:
        here.append(server)
        reply = await transport.request(
            "POST",
            f"{server.origin}/fal-ai/x?fal_webhook=https%3A%2F%2Fe.org%2Fh",
            headers={"authorization": "Key a:b", "content-type": "application/json", "user-agent": "me/1"},
            body=b'{"p":2}',
            timeout_s=5,
            max_bytes=MANY,
        )
    assert (reply.status, reply.body) == (202, b'{"a":1}')
    assert reply.headers["x-fal-request-id"] == "R"
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"post /fal-ai/x?fal_webhook=https%3a%2f%2fe.org%2fh http/1.1"
    assert body == b'{"p":2}'
    names = sorted(line.partition(b":")[0] for line in lines[1:])
    # Nothing but what we asked for: no cookies, no library's name.
    assert names == sorted(
        [b"host", b"accept", b"accept-encoding", b"authorization", b"content-type", b"user-agent", b"content-length"]
    )
    assert b"user-agent: me/1" in lines


async def test_urls_travel_as_they_were_given(transport: Transport) -> None:
    here: list[Server] = []
    path = "/b/a%2Cb%7E%20c?X-Sig=a%2Bb%2F%3D&x=%2c+y"
    async with served(recording(here)) as server:
        here.append(server)
        await get(transport, server.origin + path)
    assert server.requests[0].startswith(f"GET {path} HTTP/1.1\r\n".encode())


async def test_a_big_body_arrives_whole(transport: Transport) -> None:
    here: list[Server] = []
    body = bytes(range(256)) * 12_000
    async with served(recording(here)) as server:
        here.append(server)
        await transport.request("POST", server.origin, headers={}, body=body, timeout_s=5, max_bytes=MANY)
    head, _, got = server.requests[0].partition(b"\r\n\r\n")
    assert got == body
    assert b"transfer-encoding" not in head.lower()


@pytest.mark.parametrize(
    ("given", "travels"),
    [
        ('/a"b<c>{d}`e', "/a%22b%3Cc%3E%7Bd%7D%60e"),
        ("/a/../b/./c", "/b/c"),
        ("/a%2F..b/...c", "/a%2F..b/...c"),
    ],
)
async def test_what_must_not_stand_in_a_url_is_quoted_alike(transport: Transport, given: str, travels: str) -> None:
    here: list[Server] = []
    async with served(recording(here)) as server:
        here.append(server)
        await get(transport, server.origin + given)
    assert server.requests[0].split(b" ")[1] == travels.encode()


async def test_connections_are_kept_and_gzip_is_undone(transport: Transport) -> None:
    here: list[Server] = []
    async with served(recording(here, gzip.compress(b'{"z":1}' * 100), "Content-Encoding: gzip\r\n")) as server:
        here.append(server)
        for _ in range(3):
            assert await get(transport, server.origin) == b'{"z":1}' * 100
    assert server.connections == 1


async def test_a_small_reply_that_unpacks_to_a_big_one_is_stopped(transport: Transport) -> None:
    from falbatch.errors import ReplyError

    here: list[Server] = []
    async with served(recording(here, gzip.compress(bytes(5 * MANY)), "Content-Encoding: gzip\r\n")) as server:
        here.append(server)
        with pytest.raises(ReplyError, match="larger"):
            await get(transport, server.origin)


async def test_redirects_are_handed_over_not_followed(transport: Transport) -> None:
    here: list[Server] = []
    async with served(recording(here, b"", "Location: http://127.0.0.1:1/\r\n", "302 Found")) as server:
        here.append(server)
        reply = await transport.request("GET", server.origin, headers={}, body=None, timeout_s=5, max_bytes=MANY)
    assert (reply.status, reply.headers["location"]) == (302, "http://127.0.0.1:1/")


async def test_the_gate_bounds_requests_under_way() -> None:
    under_way = most = 0

    async def counts(peer: Peer) -> None:
        nonlocal under_way, most
        while await peer.request():
            under_way += 1
            most = max(most, under_way)
            for _ in range(5):
                await asyncio.sleep(0)
            under_way -= 1
            await peer.answer(b"{}")

    async with Transport(settings=TransportSettings(gate=4)) as transport, served(counts) as server:
        await asyncio.gather(*(get(transport, server.origin) for _ in range(60)))
    assert most <= 4
    assert server.connections <= 4


async def test_a_client_at_the_door_sees_every_call_and_logs_no_urls() -> None:
    here: list[Server] = []
    seen: list[str] = []

    async def hook(request: httpx.Request) -> None:
        seen.append(request.method)
        request.headers["x-traced"] = "1"

    def door(inner: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=inner, event_hooks={"request": [hook]})

    logger = logging.getLogger("httpx")
    before = logger.level
    try:
        logger.setLevel(logging.NOTSET)
        async with served(recording(here)) as server, Transport(client_factory=door) as transport:
            here.append(server)
            assert await get(transport, server.origin) == b"{}"
            async with transport.stream(server.origin, headers={}, timeout_s=5) as reply:
                assert b"".join([chunk async for chunk in reply.chunks()]) == b"{}"
            assert logger.level == logging.WARNING
    finally:
        logger.setLevel(before)
    assert seen == ["GET", "GET"]
    assert all(b"x-traced: 1" in request.lower() for request in server.requests)


async def test_failures_behind_a_client_at_the_door_are_told_alike() -> None:
    async def reads_and_closes(peer: Peer) -> None:
        await peer.request()

    def door(inner: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=inner)

    async with served(reads_and_closes) as server, Transport(client_factory=door) as transport:
        with pytest.raises(TransportError) as caught:
            await transport.request("POST", server.origin, headers={}, body=b"{}", timeout_s=5, max_bytes=MANY)
    assert (caught.value.sent, caught.value.kind) == (True, "reset")


async def test_a_word_that_names_no_carrier_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FALBATCH_TRANSPORT", "pigeon")
    with pytest.raises(UsageError, match="FALBATCH_TRANSPORT=pigeon") as caught:
        async with Transport():
            pass
    assert "aiohttp or httpx" in caught.value.advice


async def test_using_a_transport_outside_its_context_is_a_bug() -> None:
    with pytest.raises(RuntimeError):
        await get(Transport(), "http://127.0.0.1:9/")


# --- streams ---------------------------------------------------------------------------------------------


async def drain(transport: Transport, url: str, got: list[bytes], *, timeout_s: float = 5, idle_s: float = 5) -> None:
    """Read a stream to its end, or until it fails."""
    async with transport.stream(url, headers={}, timeout_s=timeout_s, idle_s=idle_s) as reply:
        async for chunk in reply.chunks():
            got += [chunk]  # not `extend`: what came before a failure must be there


async def test_a_stream_gives_raw_bytes_and_asks_for_identity(transport: Transport) -> None:
    here: list[Server] = []
    packed = gzip.compress(b"x" * 1000)
    async with served(recording(here, packed, "Content-Encoding: gzip\r\n")) as server:
        here.append(server)
        async with transport.stream(server.origin, headers={"range": "bytes=5-"}, timeout_s=5) as reply:
            assert reply.status == 200
            assert reply.headers["content-encoding"] == "gzip"
            assert b"".join([chunk async for chunk in reply.chunks()]) == packed
    assert b"accept-encoding: identity" in server.requests[0].lower()
    assert b"range: bytes=5-" in server.requests[0].lower()
    assert b"authorization" not in server.requests[0].lower()


async def test_a_stream_that_breaks_off_says_so(transport: Transport) -> None:
    async def truncates(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"x" * 1000, length=5000)

    got: list[bytes] = []
    async with served(truncates) as server:
        with pytest.raises(CutReply) as caught:
            await drain(transport, server.origin, got)
    assert (caught.value.kind, len(b"".join(got))) == ("reset", 1000)


async def stalls(peer: Peer) -> None:
    await peer.request()
    await peer.answer(b"x", length=5000)
    await peer.reader.read()


async def test_a_silent_stream_ends_at_its_idle_limit(transport: Transport) -> None:
    async with served(stalls) as server:
        with pytest.raises(TransportError) as caught:
            await drain(transport, server.origin, [], timeout_s=30, idle_s=0.1)
    assert caught.value.kind == "timeout"


async def test_a_stream_ends_at_its_total_limit(transport: Transport) -> None:
    stop = asyncio.Event()

    async def floods(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 900000000000\r\n\r\n")
        while not stop.is_set():
            await peer.send(b"x" * 65536)

    async with served(floods) as server:
        with pytest.raises(TransportError) as caught:
            await drain(transport, server.origin, [], timeout_s=0.2)
        stop.set()
    assert caught.value.kind == "timeout"


async def test_leaving_a_stream_early_frees_its_place() -> None:
    here: list[Server] = []
    async with served(recording(here, b"y" * 500_000)) as server:
        here.append(server)
        async with Transport(settings=TransportSettings(gate=1)) as transport:
            for _ in range(3):
                async with transport.stream(server.origin, headers={}, timeout_s=5) as reply:
                    assert reply.status == 200
    assert server.connections == 3


# --- public addresses only -------------------------------------------------------------------------------


async def refused(url: str, *, allow_loopback: bool) -> TransportError:
    settings = TransportSettings(public_only=True, allow_loopback=allow_loopback, trust_env=False)
    async with Transport(settings=settings) as transport:
        with pytest.raises(TransportError) as caught:
            async with transport.stream(url, headers={}, timeout_s=5):
                pass
    return caught.value


@pytest.mark.parametrize("allow_loopback", [False, True])
@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/x",
        "https://169.254.169.254/latest/meta-data",
        "http://[::ffff:10.0.0.1]/x",
        "http://[fd00::1]/x",
        "http://0.0.0.0/x",
        "http://0x0a000001/x",
        "http://167772161/x",
    ],
)
async def test_private_addresses_are_refused_before_anything_is_sent(url: str, allow_loopback: bool) -> None:
    error = await refused(url, allow_loopback=allow_loopback)
    assert (error.sent, error.kind) == (False, "refused_address")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_loopback_is_refused_unless_allowed(host: str) -> None:
    here: list[Server] = []
    async with served(recording(here)) as server:
        here.append(server)
        url = server.origin.replace("127.0.0.1", host)
        error = await refused(url, allow_loopback=False)
        assert (error.sent, error.kind) == (False, "refused_address")
        assert server.connections == 0
        settings = TransportSettings(public_only=True, allow_loopback=True, trust_env=False)
        async with (
            Transport(settings=settings) as transport,
            transport.stream(url, headers={}, timeout_s=5) as reply,
        ):
            assert reply.status == 200


@pytest.mark.parametrize("allow_loopback", [False, True])
@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "0x7f000001", "017700000001"])
async def test_addresses_in_odd_spellings_are_always_refused(host: str, allow_loopback: bool) -> None:
    async with served(stalls) as server:
        error = await refused(server.origin.replace("127.0.0.1", host), allow_loopback=allow_loopback)
        assert server.connections == 0
    assert (error.sent, error.kind) == (False, "refused_address")


async def test_a_name_with_public_and_private_addresses_is_reached_at_the_public_ones_only() -> None:

    from falbatch.fal.connections import PublicResolver

    def found(host: str) -> ResolveResult:
        return {
            "hostname": "mixed.example",
            "host": host,
            "port": 443,
            "family": socket.AF_INET,
            "proto": 0,
            "flags": 0,
        }

    class Mixed:
        async def resolve(self, host: str, port: int, family: object) -> list[ResolveResult]:
            return [found("10.0.0.1"), found("1.1.1.1"), found("127.0.0.1")]

        async def close(self) -> None:
            pass

    resolver = PublicResolver(False, set())
    await resolver.close()
    resolver._inner = Mixed()  # type: ignore[assignment]  # a stand-in for DNS
    assert [one["host"] for one in await resolver.resolve("mixed.example")] == ["1.1.1.1"]


# --- proxies ---------------------------------------------------------------------------------------------


async def test_the_environments_proxy_is_used_but_never_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    here: list[Server] = []
    async with served(recording(here, status="407 Proxy Authentication Required")) as proxy:
        here.append(proxy)
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy.origin.replace("//", "//user:p%40ss@"))
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        direct: list[Server] = []
        settings = TransportSettings(public_only=True, allow_loopback=True)
        async with Transport(settings=settings) as transport, served(recording(direct, b"direct")) as server:
            direct.append(server)
            with pytest.raises(TransportError) as caught:
                await get(transport, "https://models.invalid/a?b=c", authorization="Key a:b")
            assert await get(transport, server.origin) == b"direct"
    assert (caught.value.sent, caught.value.kind) == (False, "connect")
    head = proxy.requests[0]
    assert head.startswith(b"CONNECT models.invalid:443 HTTP/1.1\r\n")
    assert b"proxy-authorization: basic dxnlcjpwqhnz" in head.lower()
    assert b"Key" not in head


def test_a_proxy_is_found_by_scheme_and_passed_by_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("no_proxy", "inside.example")
    proxies = {"https": "http://u:secret@proxy:3128", "http": "proxy:80"}
    found = proxy_for("https", "queue.fal.run", proxies)
    assert found is not None
    assert (found.url, found.host) == ("http://proxy:3128", "proxy")
    assert "secret" not in repr(found)
    plain = proxy_for("http", "x.example", proxies)
    assert plain is not None
    assert plain.url == "http://proxy:80"
    assert proxy_for("https", "inside.example", proxies) is None
    assert proxy_for("https", "127.0.0.1", proxies) is None
    assert proxy_for("https", "x.example", {}) is None


def test_a_socks_proxy_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://user:secret@127.0.0.1:1080")
    with pytest.raises(UsageError) as caught:
        environment_proxies()
    assert "secret" not in str(caught.value) + caught.value.advice
