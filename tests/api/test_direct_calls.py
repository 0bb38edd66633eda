"""The port of direct calls over real sockets: what each way of answering is for a job."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import ormsgpack
import pytest
from aiohttp import WSMsgType, web

from falbatch.api.direct_calls import DirectAnswer, FalDirect
from falbatch.api.realtime_pool import RealtimePool
from falbatch.core.artifacts import decode_data_uri
from falbatch.core.classify import DirectVerdict, direct_verdict
from falbatch.core.model import Mode
from falbatch.errors import HttpError, TransportError, WireError
from falbatch.fal.direct import DirectClient
from falbatch.fal.options import SubmitOptions
from falbatch.fal.realtime import RealtimeClient
from falbatch.fal.transport import Transport, TransportSettings
from tests.fal.app_server import CREDENTIALS, AppServer, Handler, app_server, events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.anyio

APP = "fal-ai/x"
REQUEST = "6a5f1e8a-0000-4000-8000-000000000000"
V = DirectVerdict


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def calling(handler: Handler, options: SubmitOptions | None = None) -> AsyncIterator[tuple[FalDirect, AppServer]]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(app_server(handler))
        transport = await stack.enter_async_context(Transport(settings=TransportSettings(trust_env=False)))
        pool = RealtimePool(RealtimeClient(transport, server.hosts, CREDENTIALS))
        await stack.enter_async_context(aclosing(pool))
        client = DirectClient(transport, server.hosts, CREDENTIALS)
        yield FalDirect(client, options or SubmitOptions(), pool), server


async def answer_of(mode: Mode, handler: Handler, body: bytes = b'{"a":1}') -> DirectAnswer:
    async with calling(handler) as (direct, _):
        return await direct.call(mode, APP, body)


async def verdict_of(mode: Mode, handler: Handler, body: bytes = b'{"a":1}') -> DirectVerdict:
    with pytest.raises(WireError) as caught:
        await answer_of(mode, handler, body)
    return direct_verdict(caught.value)


async def test_a_run_is_its_body_with_the_options_in_headers() -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.json_response({"b": 2**70}, headers={"x-fal-request-id": REQUEST, "x-fal-billable-units": "1.5"})

    async with calling(handle, SubmitOptions(priority="low", start_timeout_s=7)) as (direct, server):
        answer = await direct.call(Mode.RUN, APP, b'{"a":1}')
    assert json.loads(answer.body) == {"b": 2**70}
    assert (answer.content_type, answer.billable_units, answer.request_id) == ("application/json", 1.5, REQUEST)
    (seen,) = server.seen
    assert (seen.path, seen.body, seen.headers["x-fal-request-timeout"]) == ("/run/fal-ai/x", b'{"a":1}', "7")
    assert "x-fal-queue-priority" not in seen.headers


async def test_the_last_event_is_the_result_and_all_are_lines() -> None:
    chunks = (b'data: {"progress":0.5}\n\n', b"data: word \xc3", b'\xa9\n\ndata: {"a":\ndata: "b"}\n\n')
    answer = await answer_of(Mode.STREAM, events(*chunks, headers={"x-fal-request-id": REQUEST}))
    assert json.loads(answer.body) == {"a": "b"}
    assert answer.request_id == REQUEST
    assert answer.events is not None
    assert [json.loads(line) for line in answer.events.splitlines()] == [{"progress": 0.5}, "word é", {"a": "b"}]


async def test_a_stream_without_any_json_is_its_text() -> None:
    answer = await answer_of(Mode.STREAM, events(b"data: one\n\n", b"data: two\n\n"))
    assert (answer.body, answer.content_type) == (b"one\ntwo", "text/plain")


async def test_a_mark_of_the_end_that_is_no_json_is_not_the_result() -> None:
    answer = await answer_of(Mode.STREAM, events(b'data: {"a":1}\n\n', b"data: [DONE]\n\n"))
    assert answer.body == b'{"a":1}'


async def test_an_answer_that_is_no_stream_is_the_result() -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=b"RIFFxxxxWAVE", content_type="audio/wav")

    answer = await answer_of(Mode.STREAM, handle)
    assert (answer.body, answer.content_type, answer.events) == (b"RIFFxxxxWAVE", "audio/wav", None)


@pytest.mark.parametrize(
    "chunks",
    [
        (),
        (b": ping\n\n",),
        (b'data: {"progress":0.25,"images":[]}\n\n',),
        (b'data: {"output":"a","partial":true}\n\n',),
        (b'data: {"type":"completion","node_id":"n","output":{}}\n\n',),
    ],
    ids=["nothing", "pings", "a preview", "half a text", "a node of a workflow"],
)
async def test_a_stream_that_ends_too_early_is_no_answer(chunks: tuple[bytes, ...]) -> None:
    assert await verdict_of(Mode.STREAM, events(*chunks)) is V.UNKNOWN


async def test_a_stream_that_breaks_off_is_no_answer() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"a":1}\n\n')
        assert request.transport is not None
        request.transport.abort()
        return response

    assert await verdict_of(Mode.STREAM, handle) is V.UNKNOWN


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        ({"status": 422, "body": {"detail": "no"}}, "stream_error", 422),
        ({"status": 503, "body": {"error_type": "runner_disconnected"}}, "runner_disconnected", 503),
        (None, "stream_error", 500),
        # A refusal of one node of a workflow: the nodes before it are paid for, and nothing is called again.
        *(({"status": status, "body": {"detail": "no"}}, "stream_error", 422) for status in (401, 403, 408, 429)),
    ],
)
async def test_an_error_as_the_last_event_is_the_job_s_own(error: Any, kind: str, status: int) -> None:
    last = {"type": "error", "node_id": "n1", "message": "it broke", "error": error}
    handler = events(b'data: {"type":"submit","node_id":"n1"}\n\n', b"data: " + json.dumps(last).encode() + b"\n\n")
    with pytest.raises(HttpError, match="error in n1: it broke") as caught:
        await answer_of(Mode.STREAM, handler)
    assert (caught.value.error_type, caught.value.status) == (kind, status)
    assert direct_verdict(caught.value) is V.FAILED


def talking(talk: Callable[[web.WebSocketResponse], Awaitable[None]]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(timeout=0.5)
        await socket.prepare(request)
        await talk(socket)
        await socket.close()
        return socket

    return handle


async def echo(socket: web.WebSocketResponse) -> None:
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            given = ormsgpack.unpackb(message.data)
            await socket.send_bytes(ormsgpack.packb({"given": given, "file": b"\xff\xd8\xff", "request_id": REQUEST}))
            await socket.send_str('{"type":"x-fal-message","action":"timings"}')


async def test_messages_share_a_connection_and_bytes_become_files() -> None:
    async with calling(talking(echo)) as (direct, server):
        answers = [await direct.call(Mode.REALTIME, APP, b'{"n":%d}' % number) for number in range(3)]
    assert len(server.seen) == 1
    assert server.seen[0].headers["authorization"].startswith("Key ")
    assert "fal_jwt_token" not in server.seen[0].path
    bodies = [json.loads(answer.body) for answer in answers]
    assert [body["given"] for body in bodies] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert decode_data_uri(bodies[0]["file"]["url"]) == (b"\xff\xd8\xff", "image/jpeg")
    assert {answer.request_id for answer in answers} == {REQUEST}


async def test_as_many_connections_as_calls_at_once_and_one_to_another_endpoint_gives_way() -> None:
    async with calling(talking(echo)) as (direct, server):
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(direct.call(Mode.REALTIME, APP, b'{"n":%d}' % number))
        assert len(server.seen) == 4
        await direct.call(Mode.REALTIME, APP, b"{}")
        await direct.call(Mode.REALTIME, "fal-ai/y", b"{}")
    assert [seen.path.split("/")[3] for seen in server.seen] == [*"xxxx", "y"]


async def test_a_connection_that_was_closed_while_idle_is_made_anew() -> None:
    async def once(socket: web.WebSocketResponse) -> None:
        message = await socket.receive()
        await socket.send_bytes(message.data)

    async with calling(talking(once)) as (direct, server):
        for _ in range(3):
            await direct.call(Mode.REALTIME, APP, b'{"a":1}')
            await asyncio.sleep(0.05)
    assert len(server.seen) == 3


async def test_a_message_in_flight_when_it_breaks_is_not_sent_again() -> None:
    heard = 0

    async def swallow(socket: web.WebSocketResponse) -> None:
        nonlocal heard
        await socket.receive()
        heard += 1

    assert await verdict_of(Mode.REALTIME, talking(swallow)) is V.UNKNOWN
    assert heard == 1


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ({"type": "x-fal-error", "error": "INVALID_INPUT", "reason": "no prompt"}, V.FAILED),
        ({"type": "x-fal-error", "error": "concurrent_requests_limit", "reason": "2 of 2"}, V.REFUSED),
        ({"type": "x-fal-error", "error": "TIMEOUT", "reason": "TIMEOUT"}, V.UNKNOWN),
        ({"status": "error", "error": "Unauthorized"}, V.ACCOUNT),
    ],
)
async def test_errors_on_an_open_connection(text: dict[str, str], verdict: DirectVerdict) -> None:
    async def refuse(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        await socket.send_str(json.dumps(text))

    assert await verdict_of(Mode.REALTIME, talking(refuse)) is verdict


@pytest.mark.parametrize(
    ("status", "verdict"), [(429, V.REFUSED), (403, V.ACCOUNT), (404, V.REJECTED), (502, V.UNREACHED)]
)
async def test_a_refused_handshake_carried_no_message(status: int, verdict: DirectVerdict) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(status=status, text="no")

    assert await verdict_of(Mode.REALTIME, handle) is verdict


async def test_an_input_that_msgpack_cannot_carry_is_refused_in_words() -> None:
    with pytest.raises(HttpError, match="'a' is an integer beyond 64 bits") as caught:
        await answer_of(Mode.REALTIME, talking(echo), b'{"a":%d}' % 2**70)
    assert direct_verdict(caught.value) is V.REJECTED


async def test_nobody_there_is_nothing_sent() -> None:
    async with calling(talking(echo)) as (_, server):
        hosts = server.hosts
    async with Transport(settings=TransportSettings(trust_env=False)) as transport:
        pool = RealtimePool(RealtimeClient(transport, hosts, CREDENTIALS))
        direct = FalDirect(DirectClient(transport, hosts, CREDENTIALS), SubmitOptions(), pool)
        for mode in (Mode.RUN, Mode.STREAM, Mode.REALTIME):
            with pytest.raises(TransportError) as caught:
                await direct.call(mode, APP, b"{}")
            assert direct_verdict(caught.value) is V.UNREACHED
