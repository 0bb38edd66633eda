"""Direct calls over real sockets: what is sent, what comes back, and what may have been billed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from falbatch.errors import HttpError, ReplyError, TransportError, UsageError
from falbatch.fal.direct import DirectClient, EventStream, StreamEvent
from falbatch.fal.hosts import Hosts
from falbatch.fal.options import SubmitOptions
from falbatch.fal.transport import Transport
from tests.fal.app_server import CREDENTIALS, Handler, app_server, events
from tests.fal.raw_server import RID, Peer, served

pytestmark = pytest.mark.anyio

FLUX = "fal-ai/flux/dev"
BODY = b'{"prompt":"a red kite"}'
HEADERS = {"x-fal-request-id": RID.upper(), "X-Fal-Billable-Units": "2.5"}


def client(transport: Transport, hosts: Hosts) -> DirectClient:
    return DirectClient(transport, hosts, CREDENTIALS, user_agent="falbatch/test")


def replying(**reply: Any) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(**reply)

    return handle


async def drained(stream: EventStream, got: list[StreamEvent]) -> None:
    async for event in stream:
        got += [event]  # not `extend`: what came before a failure must be there


# --- run -------------------------------------------------------------------------------------------------


async def test_a_run_posts_the_input_and_gives_the_answer(transport: Transport) -> None:
    body = b'{"seed":18446744073709551617}'
    async with app_server(replying(body=body, content_type="application/json", headers=HEADERS)) as server:
        options = SubmitOptions(priority="low", start_timeout_s=9, tags={"a": "b"}, webhook_url="https://e.org")
        answer = await client(transport, server.hosts).run(FLUX, BODY, options, path="/image-to-image")
    assert (answer.status, answer.output, answer.body) == (200, {"seed": 2**64 + 1}, body)
    assert (answer.content_type, answer.request_id, answer.billable_units) == ("application/json", RID, 2.5)
    [seen] = server.seen
    assert (seen.method, seen.path, seen.body) == ("POST", "/run/fal-ai/flux/dev/image-to-image", BODY)
    assert seen.headers["authorization"] == CREDENTIALS.header()
    assert (seen.headers["content-type"], seen.headers["user-agent"]) == ("application/json", "falbatch/test")
    assert (seen.headers["x-fal-request-timeout"], seen.headers["x-fal-tags"]) == ("9", "a=b")
    assert "x-fal-queue-priority" not in seen.headers
    assert "18446744073709551617" not in repr(answer)


async def test_bytes_are_an_answer_too(transport: Transport) -> None:
    async with app_server(replying(body=b"ID3", content_type="audio/mpeg")) as server:
        answer = await client(transport, server.hosts).run(FLUX, BODY)
    assert (answer.body, answer.output, answer.content_type, answer.request_id) == (b"ID3", None, "audio/mpeg", "")


async def test_a_get_carries_its_input_in_the_query(transport: Transport) -> None:
    given = {"q": "a b&c=é", "n": 2**70, "f": 0.5, "yes": True, "no": False, "gone": None, "list": ["x", 1]}
    async with app_server(replying(text="{}", content_type="application/json")) as server:
        direct = client(transport, server.hosts)
        await direct.run(FLUX, json.dumps(given).encode(), method="GET", query={"v": "1"})
        await direct.run(FLUX, None, method="GET")
        await direct.run(FLUX, BODY, method="PUT", query={"v": "1"})
        with pytest.raises(ValueError, match="nested"):
            await direct.run(FLUX, b'{"a":{"b":1}}', method="GET")
        with pytest.raises(ValueError, match="JSON object"):
            await direct.run(FLUX, b"[]", method="GET")
        with pytest.raises(ValueError, match="method"):
            await direct.run(FLUX, BODY, method="get")
    query = "v=1&q=a+b%26c%3D%C3%A9&n=1180591620717411303424&f=0.5&yes=true&no=false&list=x&list=1"
    assert [seen.path for seen in server.seen] == [
        f"/run/{FLUX}?{query}",
        f"/run/{FLUX}",
        f"/run/{FLUX}?v=1",
    ]
    assert [seen.body for seen in server.seen] == [b"", b"", BODY]
    assert "content-type" not in server.seen[0].headers


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "body", "error_type", "retryable"),
    [
        (429, {"detail": "no room", "error_type": "concurrent_requests_limit"}, "concurrent_requests_limit", True),
        (422, {"detail": [{"loc": ["body", "x"], "msg": "no", "type": "one_of"}]}, "one_of", None),
        (401, {"detail": f"not this: {CREDENTIALS.header()}"}, "", None),
    ],
)
async def test_a_refusal_is_an_http_error_of_fals(
    transport: Transport, stream: bool, status: int, body: Any, error_type: str, retryable: bool | None
) -> None:
    headers = {"X-Fal-Needs-Retry": "1"} if retryable else {}
    async with app_server(
        replying(status=status, text=json.dumps(body), content_type="application/json", headers=headers)
    ) as server:
        direct = client(transport, server.hosts)
        with pytest.raises(HttpError) as caught:
            await (direct.stream(FLUX, BODY).__aenter__() if stream else direct.run(FLUX, BODY))
    error = caught.value
    assert (error.status, error.error_type, error.retryable, error.from_fal) == (status, error_type, retryable, True)
    assert "ksecret" not in str(error)
    assert len(server.seen) == 1


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_no_method_of_a_run_is_ever_sent_twice(transport: Transport, method: str) -> None:
    async def answers_once(peer: Peer) -> None:
        for number in range(2):
            server.requests.append(await peer.request())
            if number == 0 and peer.number == 0:
                await peer.answer(b"{}", headers="Content-Type: application/json\r\n")
        peer.reset()  # the second call meets a connection that breaks

    async with served(answers_once) as server:
        direct = client(transport, Hosts(server.origin, run=server.origin))
        await direct.run(FLUX, b"{}", method=method)
        with pytest.raises(TransportError) as caught:
            await direct.run(FLUX, b"{}", method=method)
    assert (caught.value.sent, caught.value.kind) == (True, "reset")
    assert (server.connections, len(server.requests)) == (1, 2)


async def test_a_run_is_not_redirected(transport: Transport) -> None:
    async with app_server(replying(status=307, headers={"Location": "/run/elsewhere"})) as server:
        for method in ("GET", "POST"):
            with pytest.raises(HttpError) as caught:
                await client(transport, server.hosts).run(FLUX, b"{}", method=method)
            assert caught.value.status == 307
    assert len(server.seen) == 2


async def test_a_broken_answer_is_a_reply_error_with_its_request(transport: Transport) -> None:
    async with app_server(replying(body=b'{"a":', content_type="application/json", headers=HEADERS)) as server:
        with pytest.raises(ReplyError) as caught:
            await client(transport, server.hosts).run(FLUX, BODY)
    assert caught.value.request_id == RID


async def test_nothing_is_sent_where_no_direct_host_is_known(transport: Transport) -> None:
    hosts = Hosts.resolve({"FALBATCH_QUEUE_URL": "https://queue.example"})
    with pytest.raises(UsageError) as caught:
        await client(transport, hosts).run(FLUX, BODY)
    assert "FALBATCH_RUN_URL" in caught.value.advice
    for endpoint, path in (("no-endpoint", ""), (FLUX, "../x"), (FLUX, "a?b")):
        with pytest.raises(ValueError, match=r"endpoint id|segment|query"):
            await client(transport, Hosts("https://queue.fal.run")).run(endpoint, BODY, path=path)


async def test_many_runs_at_once_share_one_client(transport: Transport) -> None:
    async def echoes(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await request.read(), content_type="application/json")

    async with app_server(echoes) as server:
        direct = client(transport, server.hosts)
        answers = await asyncio.gather(*(direct.run(FLUX, b'{"n":%d}' % n) for n in range(200)))
    assert [answer.output["n"] for answer in answers] == list(range(200))


# --- stream ----------------------------------------------------------------------------------------------


async def test_a_stream_gives_its_events_as_they_come(transport: Transport) -> None:
    chunks = (
        b'data: {"text":"caf\xc3',
        b'\xa9","seed":18446744073709551617}\r',
        b"\n\r\n: ping\n\ndata: [DO",
        b"NE]\n\n",
    )
    got: list[StreamEvent] = []
    async with (
        app_server(events(*chunks, headers=HEADERS)) as server,
        client(transport, server.hosts).stream(FLUX, BODY, SubmitOptions(priority="low", hint="h")) as stream,
    ):
        assert (stream.request_id, stream.billable_units) == (RID, 2.5)
        assert stream.content_type == "text/event-stream"
        await drained(stream, got)
    assert [event.value for event in got] == [{"text": "café", "seed": 2**64 + 1}, None]
    assert got[1].data == b"[DONE]"
    [seen] = server.seen
    assert (seen.method, seen.path, seen.body) == ("POST", "/run/fal-ai/flux/dev/stream", BODY)
    assert seen.headers["accept"].startswith("text/event-stream")
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.headers["x-fal-runner-hint"] == "h"
    assert "x-fal-queue-priority" not in seen.headers


@pytest.mark.parametrize(
    ("endpoint", "path", "sent"),
    [
        (FLUX, "/stream", "fal-ai/flux/dev/stream"),
        ("fal-ai/x/stream", "stream", "fal-ai/x/stream"),
        ("workflows/me/mine", "", "workflows/me/mine"),
        ("110602490-x", "a/b", "110602490/x/a/b"),
    ],
)
async def test_the_streams_path_is_appended_once(transport: Transport, endpoint: str, path: str, sent: str) -> None:
    async with (
        app_server(events()) as server,
        client(transport, server.hosts).stream(endpoint, b"{}", path=path) as stream,
    ):
        assert [event async for event in stream] == []
    assert server.seen[0].path == f"/run/{sent}"


async def test_an_answer_that_is_no_stream_is_handed_over_all_the_same(transport: Transport) -> None:
    for kind, body, value in (("application/json", b'{"a":1}', {"a": 1}), ("audio/mpeg", b"ID3", None)):
        async with (
            app_server(replying(body=body, content_type=kind)) as server,
            client(transport, server.hosts).stream(FLUX, BODY) as stream,
        ):
            assert [(event.data, event.value) async for event in stream] == [(body, value)]


@pytest.mark.parametrize("last", [b'data: {"final":true}', b'data: {"final":true}\n'])
async def test_a_last_event_without_its_empty_line_counts_when_it_is_whole(transport: Transport, last: bytes) -> None:
    async with (
        app_server(events(b"data: {}\n\n", last)) as server,
        client(transport, server.hosts).stream(FLUX, BODY) as stream,
    ):
        assert [event.value async for event in stream] == [{}, {"final": True}]


@pytest.mark.parametrize("cut", [b'data: {"final":tr', b"data: 12", b"data: {}\ndata: x"])
async def test_an_event_that_was_cut_in_two_is_a_broken_stream(transport: Transport, cut: bytes) -> None:
    got: list[StreamEvent] = []
    async with (
        app_server(events(b"data: {}\n\n", cut)) as server,
        client(transport, server.hosts).stream(FLUX, BODY) as stream,
    ):
        with pytest.raises(TransportError, match="middle of an event") as caught:
            await drained(stream, got)
    assert (caught.value.sent, len(got)) == (True, 1)


async def test_a_stream_that_breaks_off_may_have_been_billed(transport: Transport) -> None:
    async def breaks_off(peer: Peer) -> None:
        server.requests.append(await peer.request())
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await peer.send(b"a\r\ndata: 1\n\n\n\r\n")

    got: list[StreamEvent] = []
    async with (
        served(breaks_off) as server,
        client(transport, Hosts(server.origin, run=server.origin)).stream(FLUX, BODY) as stream,
    ):
        with pytest.raises(TransportError) as caught:
            await drained(stream, got)
    assert (caught.value.sent, caught.value.kind) == (True, "reset")
    assert [event.value for event in got] == [1]
    assert len(server.requests) == 1


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\ndata: 1\n\n")
    await peer.reader.read()


async def test_silence_ends_a_stream_without_a_bound_of_its_own(transport: Transport) -> None:
    got: list[StreamEvent] = []
    async with served(silent) as server:
        direct = client(transport, Hosts(server.origin, run=server.origin))
        async with direct.stream(FLUX, BODY, timeout_s=None, idle_s=0.1) as stream:
            with pytest.raises(TransportError) as caught:
                await drained(stream, got)
    assert (caught.value.sent, caught.value.kind, len(got)) == (True, "timeout", 1)


async def test_the_bound_of_a_whole_stream_ends_a_silence_too(transport: Transport) -> None:
    got: list[StreamEvent] = []
    async with served(silent) as server:
        direct = client(transport, Hosts.resolve({}, origin=server.origin))
        async with direct.stream(FLUX, BODY, timeout_s=0.2, idle_s=20) as stream:
            with pytest.raises(TransportError) as caught:
                await drained(stream, got)
    assert (caught.value.kind, caught.value.sent, len(got)) == ("timeout", True, 1)


async def test_a_head_that_never_comes_ends_with_the_silence_too(transport: Transport) -> None:
    async def says_nothing(peer: Peer) -> None:
        await peer.request()
        await peer.reader.read()

    async with served(says_nothing) as server:
        direct = client(transport, Hosts(server.origin, run=server.origin))
        with pytest.raises(TransportError) as caught:
            await direct.stream(FLUX, BODY, idle_s=0.1).__aenter__()
    assert (caught.value.sent, caught.value.kind) == (True, "timeout")


async def test_leaving_a_stream_early_drops_the_call(transport: Transport) -> None:
    gone = asyncio.Event()

    async def drips(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\ndata: 1\n\n")
        await peer.reader.read()
        gone.set()

    async with served(drips) as server:
        async with client(transport, Hosts(server.origin, run=server.origin)).stream(FLUX, BODY) as stream:
            assert (await anext(stream)).value == 1
        await asyncio.wait_for(gone.wait(), 5)


async def test_an_answer_that_was_packed_unasked_is_told(transport: Transport) -> None:
    async with (
        app_server(events(b"data: 1\n\n", headers={"Content-Encoding": "x-strange", **HEADERS})) as server,
        client(transport, server.hosts).stream(FLUX, BODY) as stream,
    ):
        with pytest.raises(ReplyError, match="packed") as caught:
            await anext(stream)
    assert caught.value.request_id == RID


async def test_a_transport_that_has_ended_sends_nothing(transport: Transport) -> None:
    async with app_server(replying(body=b"{}")) as server:
        async with Transport() as brief:
            direct = client(brief, server.hosts)
        with pytest.raises(RuntimeError, match="outside its context"):
            await direct.run(FLUX, BODY)
        assert server.seen == []
