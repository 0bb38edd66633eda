"""What is made, told as it is made: every event over a real socket, and how a stream breaks (fal-protocol §5.2)."""

from __future__ import annotations

import json
import socket
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from falbatch.sandbox import event_stream
from falbatch.sandbox.direct import Caller
from falbatch.sandbox.endpoints import EndpointId
from falbatch.sandbox.faults import Where
from falbatch.sandbox.replies import Call, Stream
from falbatch.sandbox.settings import Behaviour
from falbatch.sandbox.world import World
from tests.sandbox.direct import KITE, QUICK, SLOW, events_of

if TYPE_CHECKING:
    from tests.sandbox.conftest import Fal
    from tests.sandbox_process import SandboxProcess

TEXT = "fal-ai/any-llm"
ASK = {"prompt": "why is the sky blue", "model": "x"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def stream(fal: Fal, payload: object, endpoint: str = QUICK) -> httpx.Response:
    """The whole stream, or the plain reply."""
    return fal.http.post(f"{fal.origin}/run/{endpoint}/stream", json=payload, headers={"Accept": "text/event-stream"})


def test_a_text_grows_until_the_last_event_is_the_output(fal: Fal, sandbox: SandboxProcess) -> None:
    reply = stream(fal, ASK, TEXT)
    assert reply.headers["content-type"] == "text/event-stream"
    events = events_of(reply.content)
    texts = [event["output"] for event in events]
    assert len(texts) > 2
    assert all(longer.startswith(shorter) and longer != shorter for shorter, longer in pairwise(texts))
    assert [event["partial"] for event in events] == [True] * (len(events) - 1) + [False]
    assert events[-1]["usage"]["total_tokens"] > 0
    entry = sandbox.ledger()["executions"][0]
    assert (entry["request_id"], entry["endpoint"]) == (reply.headers["x-fal-request-id"], TEXT)
    assert (entry["status_code"], entry["cost"]) == (200, 0.001)
    assert sandbox.request(entry["request_id"])["via"] == "stream"


def test_pictures_come_as_previews_first_and_at_last_for_good(fal: Fal) -> None:
    events = events_of(stream(fal, {**KITE, "image_size": {"width": 256, "height": 128}, "num_images": 2}).content)
    assert [event.get("progress") for event in events] == [0.25, 0.5, 0.75, None]
    for event in events[:-1]:
        assert [(image["width"], image["height"]) for image in event["images"]] == [(32, 16)] * 2
        assert all(image["url"].startswith("data:image/jpeg;base64,") for image in event["images"])
    assert len({event["images"][0]["url"] for event in events}) == 4
    assert fal.file(events[-1]["images"][1]["url"]).status_code == 200


def chunks_of(url: str, payload: object) -> list[bytes]:
    """The body as the server cut it into HTTP chunks."""
    address, body = urlsplit(url), json.dumps(payload).encode()
    head = f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Key me:s\r\n"
    received = b""
    with socket.create_connection((str(address.hostname), address.port or 80), timeout=5) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        while piece := connection.recv(65536):
            received += piece
    rest, chunks = received.partition(b"\r\n\r\n")[2], []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return chunks


def test_borders_of_chunks_fall_inside_characters(fal: Fal) -> None:
    chunks = chunks_of(f"{fal.origin}/run/{TEXT}/stream", {**ASK, "prompt": "größer als 漢字"})
    cut = [chunk for chunk in chunks if chunk.startswith(b"data: ") and "\ufffd" in chunk.decode(errors="replace")]
    assert cut
    assert events_of(b"".join(chunks))[-1]["partial"] is False


def test_a_workflow_tells_of_its_nodes(fal: Fal) -> None:
    events = events_of(stream(fal, KITE, "workflows/me/flow").content)
    assert [event["type"] for event in events] == ["submit", "completion", "output"]
    assert {"node_id", "app_id", "request_id"} <= events[0].keys()
    assert events[1]["node_id"] == events[0]["node_id"]
    assert events[2]["output"]["images"][0]["url"] == events[1]["output"]["images"][0]["url"]


def test_a_workflow_whose_node_fails_says_so_in_its_last_event(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "stream", "do": "fail:content_policy_violation"}])
    events = events_of(stream(fal, KITE, "workflows/me/flow").content)
    assert [event["type"] for event in events] == ["submit", "error"]
    assert (events[1]["error"]["status"], events[1]["node_id"]) == (422, events[0]["node_id"])
    assert events[1]["error"]["body"]["detail"][0]["type"] == "content_policy_violation"


@pytest.mark.parametrize(
    ("payload", "endpoint", "rules", "code"),
    [
        ({"prompt": 5}, QUICK, [], 422),
        ({"prompt": 5}, "workflows/me/flow", [], 422),
        (KITE, "fal-ai/does-not-exist", [], 404),
        (KITE, QUICK, [{"on": "stream", "do": "fail:runner_disconnected"}], 503),
        (KITE, QUICK, [{"on": "stream", "do": "status:502", "nginx": True}], 502),
        (KITE, QUICK, [{"on": "stream", "do": "lock"}], 403),
    ],
)
def test_what_fails_or_is_refused_is_a_plain_http_error(
    fal: Fal, sandbox: SandboxProcess, payload: object, endpoint: str, rules: list[dict[str, Any]], code: int
) -> None:
    sandbox.add_faults(rules)
    reply = stream(fal, payload, endpoint)
    assert reply.status_code == code
    assert reply.headers["content-type"] != "text/event-stream"
    assert sandbox.ledger()["total_cost"] == 0


def test_beyond_the_accounts_limit_a_stream_is_refused(fal: Fal, sandbox: SandboxProcess) -> None:
    for _ in range(3):
        fal.submit(KITE, SLOW)
    reply = stream(fal, KITE)
    assert (reply.status_code, reply.json()["error_type"]) == (429, "concurrent_requests_limit")
    assert sandbox.ledger()["count"] == 3


def test_whoever_leaves_a_stream_is_charged_all_the_same(fal: Fal, sandbox: SandboxProcess) -> None:
    with fal.http.stream("POST", f"{fal.origin}/run/{SLOW}/stream", json=KITE) as reply:
        next(reply.iter_raw())
    fal.result(fal.submit(KITE, "fal-ai/nano-banana"))  # twice as long
    assert sandbox.ledger()["executions"][0]["status_code"] == 200


def test_a_stream_may_break_off_after_one_event_or_before_any(fal: Fal, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "stream", "do": "truncate", "times": 1}, {"on": "stream", "do": "drop_after"}])
    assert len(events_of(stream(fal, ASK, TEXT).content)) == 1
    with pytest.raises(httpx.TransportError):
        stream(fal, ASK, TEXT)
    assert sandbox.ledger()["count"] == 2


@pytest.mark.parametrize("do", ["corrupt", "wrong_type"])
def test_events_may_be_no_json(fal: Fal, sandbox: SandboxProcess, do: str) -> None:
    sandbox.add_faults([{"on": "stream", "do": do}])
    reply = stream(fal, ASK, TEXT)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/event-stream")
    with pytest.raises((ValueError, AssertionError)):
        events_of(reply.content)


@pytest.mark.anyio
async def test_a_silent_stream_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "PING_S", 0.02)
    world = World(Behaviour(seed=1), None)
    call = Call("POST", f"/run/{SLOW}/stream", f"{SLOW}/stream", {}, {}, b"", "http://127.0.0.1:1")
    caller = Caller(call, "me", EndpointId(SLOW, "fal-ai/flux-pro"), Where.STREAM)
    found = await event_stream.stream(world, caller, json.dumps(KITE).encode())
    assert isinstance(found, Stream)
    assert [await found.next_chunk() for _ in range(2)] == [b": ping\n\n"] * 2
    world.reset()
    assert await found.next_chunk() is None, "a reset ends it"
    await world.close()
