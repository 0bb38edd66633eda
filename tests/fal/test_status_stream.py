"""The status stream: states until COMPLETED, and every other end told (fal-protocol §3.3)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from falbatch.errors import HttpError, ReplyError, TransportError
from falbatch.fal.queue import QueueClient, RequestRef
from falbatch.fal.wire import Phase, Progress
from tests.fal.app_server import CREDENTIALS, AppServer, app_server, events
from tests.fal.raw_server import RID, Peer, served

if TYPE_CHECKING:
    from falbatch.fal.transport import Transport

pytestmark = pytest.mark.anyio

REF = RequestRef(RID, "fal-ai/flux/dev")
QUEUED = {"status": "IN_QUEUE", "request_id": RID, "queue_position": 1}
RUNNING = {"status": "IN_PROGRESS", "request_id": RID, "logs": [{"message": "step 1"}], "metrics": {}}
DONE = {"status": "COMPLETED", "request_id": RID, "logs": [], "metrics": {"inference_time": 2.5}}


def data(*states: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(state).encode() + b"\n\n: ping\n\n" for state in states)


async def states(queue: QueueClient, got: list[Progress], request: RequestRef = REF, **more: Any) -> None:
    async with queue.status_stream(request, **more) as changes:
        async for progress in changes:
            got += [progress]  # not `extend`: what came before a failure must be there


def client(transport: Transport, server: AppServer) -> QueueClient:
    return QueueClient(transport, server.hosts, CREDENTIALS)


async def test_states_come_until_completed_and_no_longer(transport: Transport) -> None:
    got: list[Progress] = []
    async with app_server(events(data(QUEUED), data(RUNNING, RUNNING, DONE, RUNNING))) as server:
        await states(client(transport, server), got, with_logs=True)
    assert [one.phase for one in got] == [Phase.IN_QUEUE, Phase.IN_PROGRESS, Phase.IN_PROGRESS, Phase.COMPLETED]
    assert (got[0].queue_position, got[1].logs, got[3].inference_time_s) == (1, ({"message": "step 1"},), 2.5)
    [seen] = server.seen
    assert (seen.method, seen.path) == ("GET", f"/queue/fal-ai/flux/requests/{RID}/status/stream?logs=1")
    assert (seen.headers["accept"], seen.headers["authorization"]) == ("text/event-stream", CREDENTIALS.header())


@pytest.mark.parametrize(
    ("status_url", "path"),
    [
        ("{}/queue/fal-ai/x/requests/R/status", "/queue/fal-ai/x/requests/R/status/stream"),
        ("{}/queue/fal-ai/x/requests/R/status/?a=1", "/queue/fal-ai/x/requests/R/status/stream?a=1"),
        ("https://evil.example/queue/status", f"/queue/fal-ai/flux/requests/{RID}/status/stream"),
    ],
)
async def test_the_stream_lies_below_the_requests_own_status(transport: Transport, status_url: str, path: str) -> None:
    async with app_server(events(data(DONE))) as server:
        ref = RequestRef(RID, "fal-ai/flux/dev", status_url=status_url.format(server.origin))
        await states(client(transport, server), [], ref)
    assert server.seen[0].path == path


@pytest.mark.parametrize("end", [b"", b'data: {"status":"COMPL', b": ping\n\n"])
async def test_a_stream_that_ends_early_is_told(transport: Transport, end: bytes) -> None:
    got: list[Progress] = []
    async with app_server(events(data(QUEUED, RUNNING), end)) as server:
        with pytest.raises(TransportError) as caught:
            await states(client(transport, server), got)
    assert (len(got), caught.value.sent, caught.value.kind) == (2, True, "reset")


async def test_a_stream_that_falls_silent_is_told(transport: Transport) -> None:
    async def stalls(peer: Peer) -> None:
        await peer.request()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n"
        await peer.send(head + data(QUEUED))
        await peer.reader.read()

    got: list[Progress] = []
    async with served(stalls) as server:
        queue = QueueClient(transport, AppServer(server.origin).hosts, CREDENTIALS)
        with pytest.raises(TransportError) as caught:
            await states(queue, got, idle_s=0.1)
    assert (len(got), caught.value.kind) == (1, "timeout")


@pytest.mark.parametrize("body", [b"data: <html>\n\n", b"data: {}\n\n"])
async def test_an_event_that_is_no_state_is_a_reply_error(transport: Transport, body: bytes) -> None:
    async with app_server(events(body)) as server:
        with pytest.raises(ReplyError):
            await states(client(transport, server), [])


@pytest.mark.parametrize(
    ("reply", "raised"),
    [
        ({"status": 200, "text": "{}", "content_type": "application/json"}, ReplyError),
        ({"status": 404, "text": '{"status":"NOT_FOUND"}', "content_type": "application/json"}, HttpError),
        ({"status": 302, "headers": {"Location": "/queue/x"}}, HttpError),
    ],
)
async def test_what_is_no_stream_is_told(transport: Transport, reply: dict[str, Any], raised: type[Exception]) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(**reply)

    async with app_server(handle) as server:
        with pytest.raises(raised):
            await states(client(transport, server), [])
    assert len(server.seen) == 1
