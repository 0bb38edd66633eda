"""Realtime over real sockets: msgpack and JSON, errors in both forms, ends in peace and others, reconnecting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import ormsgpack
import pytest
from aiohttp import WSMsgType, web

from falbatch.errors import HttpError, ReplyError, TransportError
from falbatch.fal.exchange import SocketClosed
from falbatch.fal.realtime import RealtimeClient, RealtimeError, RealtimeSocket, pack
from tests.fal.app_server import CREDENTIALS, AppServer, app_server

if TYPE_CHECKING:
    from falbatch.fal.transport import Transport

pytestmark = pytest.mark.anyio

APP = "fal-ai/fast-lcm-diffusion"
TIMEOUT = json.dumps({"type": "x-fal-error", "error": "TIMEOUT", "reason": "TIMEOUT"})

Talk = Callable[[web.WebSocketResponse], Awaitable[None]]


@asynccontextmanager
async def fal(*talks: Talk) -> AsyncIterator[AppServer]:
    """fal, which gives tokens T0, T1 … and holds the next of `talks` (the last again and again) on each socket."""
    sockets = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal sockets
        if request.path.startswith("/rest/"):
            return web.json_response(f"T{sum(seen.method == 'POST' for seen in server.seen) - 1}")
        socket = web.WebSocketResponse(timeout=0.5)
        await socket.prepare(request)
        talk = talks[min(sockets, len(talks) - 1)]
        sockets += 1
        await talk(socket)
        await socket.close()
        return socket

    async with app_server(handle) as server:
        yield server


@asynccontextmanager
async def connected(transport: Transport, server: AppServer, **more: Any) -> AsyncIterator[RealtimeSocket]:
    client = RealtimeClient(transport, server.hosts, CREDENTIALS, user_agent="me/1")
    async with client.connect(APP, timeout_s=5, **more) as socket:
        yield socket


async def answers(socket: web.WebSocketResponse) -> None:
    """Give each input back, packed."""
    async for message in socket:
        await socket.send_bytes(ormsgpack.packb({"got": ormsgpack.unpackb(message.data)}))


def answers_then(count: int, *texts: str, breaks: bool = False) -> Talk:
    """Answer `count` inputs, say `texts`, and leave."""

    async def talk(socket: web.WebSocketResponse) -> None:
        for _ in range(count):
            message = await socket.receive()
            await socket.send_bytes(ormsgpack.packb({"got": ormsgpack.unpackb(message.data)}))
        for text in texts:
            await socket.send_str(text)
        if breaks and socket._req is not None and socket._req.transport is not None:
            socket._req.transport.abort()

    return talk


def reads_then_leaves(*texts: str, breaks: bool = False) -> Talk:
    """Read one input, answer with `texts` alone, and leave."""

    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        await answers_then(0, *texts, breaks=breaks)(socket)

    return talk


def urls(server: AppServer) -> list[str]:
    return [seen.path for seen in server.seen if seen.method == "GET"]


async def test_dicts_go_both_ways_with_bytes_as_bytes(transport: Transport) -> None:
    given = {"prompt": "é", "image": b"\xff\xd8\x00", "seed": 2**64 - 1, "low": -(2**63), "deep": [{"x": 1.5}, None]}
    async with fal(answers) as server, connected(transport, server) as socket:
        await socket.send(given)
        assert await socket.receive() == {"got": given}
    token, handshake = server.seen
    assert json.loads(token.body) == {"allowed_apps": ["fast-lcm-diffusion"], "token_expiration": 120}
    assert handshake.path == f"/run/{APP}/realtime?fal_jwt_token=T0"
    # The token stands in for the key.
    assert "authorization" not in handshake.headers
    assert handshake.headers["user-agent"] == "me/1"


@pytest.mark.parametrize(
    ("more", "url"),
    [
        ({"use_jwt": False}, f"/run/{APP}/realtime"),
        ({"use_jwt": False, "path": "/ws/x", "max_buffering": 60}, f"/run/{APP}/ws/x?max_buffering=60"),
        ({"max_buffering": 1, "path": ""}, f"/run/{APP}?fal_jwt_token=T0&max_buffering=1"),
    ],
)
async def test_the_handshake_says_what_is_wanted(transport: Transport, more: dict[str, Any], url: str) -> None:
    async with fal(answers) as server, connected(transport, server, **more) as socket:
        await socket.send({})
        assert await socket.receive() == {"got": {}}
    assert urls(server) == [url]
    uses_key = server.seen[-1].headers.get("authorization") == CREDENTIALS.header()
    assert uses_key is (more.get("use_jwt") is False)
    assert len(server.seen) == (1 if uses_key else 2)


@pytest.mark.parametrize("most", [0, 61])
async def test_what_fal_would_not_take_is_refused_unsent(transport: Transport, most: int) -> None:
    async with fal(answers) as server:
        with pytest.raises(ValueError, match="max_buffering"):
            await connected(transport, server, max_buffering=most).__aenter__()
        assert server.seen == []


def test_what_msgpack_cannot_carry_is_named() -> None:
    with pytest.raises(ValueError, match=r"'a\.1\.seed' is an integer beyond 64 bits.*as text"):
        pack({"ok": 1, "a": [2, {"seed": 2**64}]})
    with pytest.raises(ValueError, match="'low'"):
        pack({"low": -(2**63) - 1})
    with pytest.raises(ValueError, match="msgpack"):
        pack({"what": object()})


async def test_text_is_json_and_what_is_not_for_the_caller_is_passed_over(transport: Transport) -> None:
    texts = ['{"type":"x-fal-message","action":"metadata"}', '{"seed":18446744073709551617}', "plain", "[1]"]
    async with fal(answers_then(0, *texts)) as server, connected(transport, server) as socket:
        got = [await socket.receive() for _ in range(3)]
        assert await socket.receive() is None
    assert got == [
        {"seed": 2**64 + 1},
        {"type": "text", "payload": "plain"},
        {"type": "text", "payload": "[1]"},
    ]


async def test_values_that_are_no_objects_and_names_that_are_no_text_are_kept(transport: Transport) -> None:
    async def says(socket: web.WebSocketResponse) -> None:
        for value in ([1], {1: 2}):
            await socket.send_bytes(ormsgpack.packb(value, option=ormsgpack.OPT_NON_STR_KEYS))
        await socket.send_bytes(b"\xc1")

    async with fal(says) as server, connected(transport, server) as socket:
        assert [await socket.receive() for _ in range(2)] == [{"payload": [1]}, {1: 2}]
        with pytest.raises(ReplyError, match="msgpack"):
            await socket.receive()
        assert await socket.receive() is None


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        ({"type": "x-fal-error", "error": "INVALID_INPUT", "reason": "no prompt"}, "INVALID_INPUT", "no prompt"),
        ({"type": "x-fal-error"}, "UNKNOWN_ERROR", ""),
        ({"status": "error", "error": "Unauthorized"}, "Unauthorized", ""),
    ],
)
async def test_both_forms_of_an_error_are_raised(
    transport: Transport, text: dict[str, str], error: str, reason: str
) -> None:
    async def says(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        await socket.send_str(json.dumps(text))
        await answers(socket)

    async with fal(says) as server, connected(transport, server) as socket:
        await socket.send({})
        with pytest.raises(RealtimeError) as caught:
            await socket.receive()
        assert (caught.value.error, caught.value.reason, caught.value.payload) == (error, reason, text)
        assert str(caught.value) == (f"{error}: {reason}" if reason else error)
        await socket.send({"again": 1})
        assert await socket.receive() == {"got": {"again": 1}}


async def test_encoders_of_the_callers_own(transport: Transport) -> None:
    async def echoes(socket: web.WebSocketResponse) -> None:
        async for message in socket:
            for data in (b"-", b"+" + str(message.data).encode()):
                await socket.send_bytes(data)

    def decode(data: bytes) -> Any:
        return None if data == b"-" else data.decode()

    async with fal(echoes) as server, connected(transport, server, encode=json.dumps, decode=decode) as socket:
        await socket.send({"n": 2**70})
        assert await socket.receive() == '+{"n": 1180591620717411303424}'


async def test_a_timeout_of_fals_is_an_end_in_peace(transport: Transport) -> None:
    async with fal(answers_then(1, TIMEOUT)) as server, connected(transport, server) as socket:
        await socket.send({"a": 1})
        assert await socket.receive() == {"got": {"a": 1}}
        assert await socket.receive() is None
        assert await socket.receive() is None
        with pytest.raises(TransportError) as caught:
            await socket.send({"a": 2})
    assert not caught.value.sent
    assert len(urls(server)) == 1


@pytest.mark.parametrize("talk", [reads_then_leaves(), reads_then_leaves(TIMEOUT), reads_then_leaves(breaks=True)])
@pytest.mark.parametrize("reconnect", [False, True])
async def test_an_input_without_an_answer_is_told_and_never_sent_again(
    transport: Transport, talk: Talk, reconnect: bool
) -> None:
    async with fal(talk, answers) as server, connected(transport, server, reconnect=reconnect) as socket:
        await socket.send({"paid": 1})
        with pytest.raises(TransportError, match="without an answer") as caught:
            await socket.receive()
        assert caught.value.sent
        assert await socket.receive() is None
        if reconnect:
            await socket.send({"new": 1})
            assert await socket.receive() == {"got": {"new": 1}}
    assert len(urls(server)) == (2 if reconnect else 1)


async def test_a_break_with_nothing_under_way_is_told_too(transport: Transport) -> None:
    async with fal(answers_then(1, breaks=True)) as server, connected(transport, server) as socket:
        await socket.send({})
        await socket.receive()
        with pytest.raises(SocketClosed) as caught:
            await socket.receive()
    assert caught.value.code is None


async def until_noticed(socket: RealtimeSocket) -> None:
    """Let the loop read what the server did."""
    inner = socket._socket
    assert inner is not None
    async with asyncio.timeout(5):
        while not (inner.is_ended or socket._is_timed_out):
            for message in await inner.look():
                socket._take(message)
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("texts", [[], [TIMEOUT]])
async def test_a_send_after_an_idle_close_reconnects_with_the_same_token(
    transport: Transport, texts: list[str]
) -> None:
    async with fal(answers_then(1, *texts), answers) as server, connected(transport, server, reconnect=True) as socket:
        await socket.send({"n": 1})
        await until_noticed(socket)
        await socket.send({"n": 2})
        # What the first connection answered is not lost.
        assert [await socket.receive() for _ in range(2)] == [{"got": {"n": 1}}, {"got": {"n": 2}}]
    assert urls(server) == [f"/run/{APP}/realtime?fal_jwt_token=T0"] * 2


async def test_a_token_near_its_end_is_replaced(transport: Transport) -> None:
    async with (
        fal(answers_then(1, TIMEOUT)) as server,
        connected(transport, server, reconnect=True, token_expiration=100) as socket,
    ):
        for older_s in (80, 15, 0):
            await socket.send({})
            assert await socket.receive() == {"got": {}}
            assert await socket.receive() is None
            socket._dialler._renew_at_s -= older_s  # as if that much time had passed
    assert [url.rpartition("=")[2] for url in urls(server)] == ["T0", "T0", "T1"]


async def test_inputs_without_an_answer_are_told_before_anything_new_is_sent(transport: Transport) -> None:
    async with fal(reads_then_leaves(), answers) as server, connected(transport, server, reconnect=True) as socket:
        await socket.send({"paid": 1})
        await until_noticed(socket)
        with pytest.raises(TransportError, match="was not sent") as caught:
            await socket.send({"n": 2})
        assert caught.value.sent
        await socket.send({"n": 2})
        assert await socket.receive() == {"got": {"n": 2}}
    assert len(urls(server)) == 2


async def test_dropped_inputs_need_no_answer_of_their_own(transport: Transport) -> None:
    async def answers_the_last(socket: web.WebSocketResponse) -> None:
        heard = [await socket.receive() for _ in range(3)]
        await socket.send_bytes(ormsgpack.packb({"got": ormsgpack.unpackb(heard[-1].data)}))

    for more, is_lost in (({"max_buffering": 1}, False), ({}, True)):
        async with fal(answers_the_last) as server, connected(transport, server, **more) as socket:
            for n in range(3):
                await socket.send({"n": n})
            assert await socket.receive() == {"got": {"n": 2}}
            if is_lost:
                with pytest.raises(TransportError, match="2 inputs were without"):
                    await socket.receive()
            assert await socket.receive() is None


async def test_a_reconnect_that_fails_sent_nothing(transport: Transport) -> None:
    refusing = False

    async def handle(request: web.Request) -> web.StreamResponse:
        if refusing:
            return web.json_response({"detail": f"locked, {request.query_string}"}, status=403)
        socket = web.WebSocketResponse(timeout=0.5)
        await socket.prepare(request)
        await socket.send_str(TIMEOUT)
        await socket.close()
        return socket

    async with app_server(handle) as server, connected(transport, server, reconnect=True, use_jwt=False) as socket:
        assert await socket.receive() is None
        refusing = True
        with pytest.raises(HttpError) as caught:
            await socket.send({})
        assert caught.value.status == 403
        assert await socket.receive() is None
        refusing = False
        await socket.send({})
    assert len(server.seen) == 3


async def test_a_refusal_never_shows_the_token(transport: Transport) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return web.json_response("s3cr3t-token")
        return web.json_response({"detail": f"bad token {request.query['fal_jwt_token']}"}, status=401)

    async with app_server(handle) as server:
        with pytest.raises(HttpError) as caught:
            await connected(transport, server).__aenter__()
    assert (caught.value.status, "s3cr3t" in str(caught.value)) == (401, False)


async def test_one_task_sends_while_another_receives(transport: Transport) -> None:
    got: list[int] = []

    async with fal(answers) as server, connected(transport, server, reconnect=True) as socket:

        async def receives() -> None:
            while len(got) < 200:
                got.append((await socket.receive())["got"]["n"])

        receiver = asyncio.create_task(receives())
        for n in range(200):
            await socket.send({"n": n, "pad": bytes(2000)})
        await asyncio.wait_for(receiver, 10)
    assert got == list(range(200))


async def test_a_sender_that_never_receives_is_bounded(transport: Transport) -> None:
    async with fal(answers) as server, connected(transport, server) as socket:
        for n in range(300):
            await socket.send({"n": n})
            await asyncio.sleep(0)
        assert len(socket._inbox) <= 128
        assert [(await socket.receive())["got"]["n"] for _ in range(300)] == list(range(300))


async def test_raw_frames(transport: Transport) -> None:
    async def echoes(socket: web.WebSocketResponse) -> None:
        message = await socket.receive()
        assert message.type is WSMsgType.TEXT
        await socket.send_bytes(message.data.encode())

    async with fal(echoes) as server:
        client = RealtimeClient(transport, server.hosts, CREDENTIALS)
        async with client.connect_raw(APP, max_buffering=3) as socket:
            await socket.send("{}")
            assert await socket.receive() == b"{}"
            with pytest.raises(SocketClosed):
                await socket.receive()
    assert urls(server) == [f"/run/{APP}?fal_jwt_token=T0&max_buffering=3"]
