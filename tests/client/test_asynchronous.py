"""The client for coroutines, against the sandbox."""

from __future__ import annotations

import asyncio
import gc
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from PIL import Image

from falbatch.client import (
    AsyncClient,
    Completed,
    FalClientConnectionError,
    FalClientHTTPError,
    FalClientLostRequestError,
    FalClientTimeoutError,
    InProgress,
    MissingCredentialsError,
    Queued,
    RealtimeError,
    Status,
    StorageACL,
    StorageSettings,
    set_get_current_app,
)
from falbatch.client.handles import pause_s
from falbatch.errors import CredentialsError
from falbatch.fal.hosts import Hosts
from tests.client.conftest import KEY, SETTINGS, requests

if TYPE_CHECKING:
    from tests.sandbox_process import SandboxProcess

pytestmark = pytest.mark.anyio

FAST, SLOW = "fal-ai/flux/schnell", "fal-ai/kling-video/v2.6/pro/text-to-video"
ASKED = {"prompt": "a red kite"}


async def test_subscribe_waits_and_tells(client: AsyncClient) -> None:
    ids: list[str] = []
    heard: list[Status] = []

    async def on_update(status: Status) -> None:
        heard.append(status)

    output = await client.subscribe(
        FAST, {**ASKED, "seed": 2**70}, with_logs=True, on_enqueue=ids.append, on_queue_update=on_update
    )
    assert output["seed"] == 2**70 or isinstance(output["seed"], int)
    assert len(ids) == 1
    last = heard[-1]
    assert isinstance(last, Completed)
    assert last.logs
    assert last.metrics["inference_time"] > 0
    assert all(isinstance(one, Queued | InProgress) for one in heard[:-1])


async def test_integers_stay_exact_on_the_way_out(client: AsyncClient, sandbox: SandboxProcess) -> None:
    handle = await client.submit(FAST, {**ASKED, "seed": 2**70 + 1})
    assert sandbox.request(handle.request_id)["input"]["seed"] == 2**70 + 1


async def test_the_stream_of_states_ends_like_the_polls(client: AsyncClient, sandbox: SandboxProcess) -> None:
    heard: list[Status] = []
    await client.subscribe(FAST, ASKED, with_logs=True, mode="streaming", on_queue_update=heard.append)
    last = heard[-1]
    assert isinstance(last, Completed)
    assert last.logs
    assert len(last.logs) == 4
    assert set(requests(sandbox)) == {"submit", "status_stream", "result"}


async def test_a_broken_stream_of_states_is_followed_by_polls(client: AsyncClient, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "status_stream", "do": "status:503", "times": 9}])
    heard = [one async for one in (await client.submit(FAST, ASKED)).stream_status(with_logs=True)]
    assert isinstance(heard[-1], Completed)
    assert heard[-1].logs


async def test_a_handle_asks_waits_and_is_found_again(client: AsyncClient) -> None:
    handle = await client.submit("fal-ai/flux/dev", ASKED)
    assert handle == await client.get_handle("fal-ai/flux/dev", handle.request_id)
    assert isinstance(await handle.status(), Queued | InProgress)
    with pytest.raises(FalClientHTTPError) as caught:
        await handle.result()
    assert caught.value.status_code == 400
    assert "ksecret" not in repr(handle)
    output = await handle.get()
    assert output == await client.result("fal-ai/flux/dev", handle.request_id)
    assert isinstance(await client.status("fal-ai/flux/dev", handle.request_id), Completed)


async def test_what_is_asked_for_is_sent(client: AsyncClient, sandbox: SandboxProcess) -> None:
    settings = StorageSettings("7d", StorageACL("hide"))
    handle = await client.submit(
        "fal-ai/flux",
        ASKED,
        path="/dev",
        hint="lora-7",
        priority="low",
        start_timeout=30,
        headers={"X-Mine": "yes"},
        webhook_url="http://127.0.0.1:9/hook?a=1&b=2",
        tags={"team": "art"},
        object_lifecycle=settings,
        store_io=False,
        fallback=False,
        max_queue_length=50,
    )
    sent = sandbox.request(handle.request_id)
    assert sent["endpoint"] == "fal-ai/flux/dev"
    assert sent["query"] == {"fal_webhook": "http://127.0.0.1:9/hook?a=1&b=2", "fal_max_queue_length": "50"}
    wanted = {
        "x-fal-runner-hint": "lora-7",
        "x-fal-queue-priority": "low",
        "x-fal-request-timeout": "30",
        "x-mine": "yes",
        "x-fal-tags": "team=art",
        "x-fal-object-lifecycle-preference": json.dumps(
            {"expiration_duration_seconds": 604800, "initial_acl": {"default": "hide"}}
        ),
        "x-fal-store-io": "0",
        "x-app-fal-disable-fallback": "true",
    }
    assert wanted.items() <= sent["headers"].items()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"priority": "high"}, ValueError),
        ({"start_timeout": 1}, ValueError),
        ({"headers": {"Authorization": "x"}}, ValueError),
        ({"expires_in": 0}, ValueError),
        ({"expires_in": "1d", "object_lifecycle": StorageSettings("7d")}, ValueError),
        ({"priorty": "low"}, TypeError),
    ],
)
async def test_what_fal_would_ignore_is_an_error_before_anything_is_sent(
    client: AsyncClient, sandbox: SandboxProcess, wrong: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await client.submit(FAST, ASKED, **wrong)
    with pytest.raises(TypeError, match="cannot be sent as JSON"):
        await client.submit(FAST, {"image_url": Path("x.png")})
    with pytest.raises(ValueError, match="endpoint id"):
        await client.submit("nonsense", ASKED)
    assert requests(sandbox) == {}


async def test_a_failed_request_raises_what_its_result_says(client: AsyncClient, sandbox: SandboxProcess) -> None:
    handle = await client.submit(FAST, {"prompt": "x", "num_images": 99})
    with pytest.raises(FalClientHTTPError) as caught:
        await handle.get()
    error = caught.value
    assert (error.status_code, error.request_id) == (422, handle.request_id)
    assert error.error_type == error.message[0]["type"]
    assert error.response.json()["detail"] == error.message
    assert error.response.headers["X-Fal-Request-Id"] == error.response_headers["x-fal-request-id"]
    assert "HTTP 422" in str(error)
    assert "num_images" in str(error)
    assert requests(sandbox)["result"] == {"422": 1}


async def test_too_late_to_cancel(client: AsyncClient) -> None:
    handle = await client.submit(FAST, ASKED)
    await handle.get()
    with pytest.raises(FalClientHTTPError) as caught:
        await handle.cancel()
    assert (caught.value.status_code, caught.value.request_id) == (400, handle.request_id)
    assert caught.value.response.json() == {"status": "ALREADY_COMPLETED"}
    with pytest.raises(FalClientHTTPError) as caught:
        await client.cancel(FAST, "0b7c1f3e-2a64-4a1c-9d0e-5f1f7f6f2b11")
    assert caught.value.status_code == 404


@pytest.mark.parametrize("fault", [{"do": "status:503"}, {"do": "status:502", "nginx": True}, {"do": "drop_after"}])
async def test_reads_are_repeated(client: AsyncClient, sandbox: SandboxProcess, fault: dict[str, Any]) -> None:
    sandbox.add_faults([{"on": "status", "times": 2, **fault}])
    if fault["do"] == "drop_after":
        sandbox.add_faults([{"on": "result", "times": 1, **fault}])
    assert (await client.subscribe(FAST, ASKED))["images"]
    assert sandbox.ledger()["count"] == 1


async def test_a_submit_that_fal_refused_is_repeated(client: AsyncClient, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "submit", "do": "status:429", "times": 2}])
    await client.subscribe(FAST, ASKED)
    assert sandbox.ledger()["count"] == 1
    sandbox.add_faults([{"on": "submit", "do": "status:429", "times": 2}])
    with pytest.raises(FalClientHTTPError) as caught:
        await client.submit(FAST, ASKED, max_queue_length=3)
    assert caught.value.status_code == 429


async def test_run_and_stream_need_no_queue(client: AsyncClient, sandbox: SandboxProcess) -> None:
    assert (await client.run(FAST, ASKED, timeout=20))["images"]
    events = [event async for event in client.stream(FAST, ASKED)]
    assert events[-1]["images"]
    assert sandbox.ledger()["count"] == 2
    with pytest.raises(FalClientHTTPError) as caught:
        await client.run(FAST, {"prompt": "x", "num_images": 99})
    assert caught.value.status_code == 422
    with pytest.raises(FalClientHTTPError) as caught:
        async for _ in client.stream(FAST, {"prompt": "x", "num_images": 99}):
            pass
    assert caught.value.message[0]["loc"] == ["body", "num_images"]


async def test_a_run_whose_time_is_over_says_that_it_may_cost(client: AsyncClient, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "run", "do": "hang"}])
    with pytest.raises(FalClientTimeoutError, match="may have run"):
        await client.run(FAST, ASKED, timeout=0.2)
    assert sum(requests(sandbox).get("run", {}).values()) <= 1


async def test_a_stream_without_an_event_is_lost(client: AsyncClient, sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "stream", "do": "wrong_type"}])
    with pytest.raises(FalClientLostRequestError, match="without an event"):
        await anext(client.stream(FAST, ASKED))


async def test_uploads_arrive(client: AsyncClient, sandbox: SandboxProcess, tmp_path: Path) -> None:
    path = tmp_path / "größe.txt"
    path.write_text("from a file")
    image = Image.new("RGB", (8, 8), "red")
    urls = [
        await client.upload("text", "text/plain", "a.txt"),
        await client.upload(b"bytes", "text/plain", repository="fal", lifecycle=StorageSettings("1h")),
        await client.upload_file(path),
        await client.upload_image(image, "png"),
    ]
    session = await client.connections.here()
    bodies: list[bytes] = []
    for url in urls:
        reply = await session.transport.request("GET", url, headers={}, body=None, timeout_s=10, max_bytes=10**6)
        bodies.append(reply.body)
    assert bodies[:3] == [b"text", b"bytes", b"from a file"]
    assert Image.open(io.BytesIO(bodies[3])).getpixel((0, 0)) == (255, 0, 0)
    assert sandbox.stats()["leaked_keys"] == 0


async def test_realtime_answers(client: AsyncClient) -> None:
    for use_jwt in (True, False):
        async with client.realtime("fal-ai/fast-lcm-diffusion", use_jwt=use_jwt) as connection:
            await connection.send({"prompt": "a kite", "seed": 1})
            answer = await connection.recv()
            assert isinstance(answer["images"], list)
            await connection.close()
            assert await connection.recv() is None


async def test_an_apps_error_is_raised(client: AsyncClient) -> None:
    async with client.realtime("fal-ai/fast-lcm-diffusion") as connection:
        await connection.send({"prompt": "a kite", "num_images": 99})
        with pytest.raises(RealtimeError) as caught:
            await connection.recv()
        assert caught.value.error
        assert caught.value.payload


async def test_a_get_carries_its_arguments_in_the_query(client: AsyncClient, sandbox: SandboxProcess) -> None:
    assert (await client.run(FAST, ASKED, method="get"))["prompt"] == ASKED["prompt"]


async def test_calls_from_inside_an_app_pass_on_what_it_was_given(client: AsyncClient, sandbox: SandboxProcess) -> None:
    app = SimpleNamespace(current_request=SimpleNamespace(headers={"x-fal-cdn-token": "t0", "other": "x"}))
    set_get_current_app(lambda: app)
    try:
        handle = await client.submit(FAST, ASKED)
    finally:
        set_get_current_app(lambda: None)
    sent = sandbox.request(handle.request_id)["headers"]
    assert sent["x-fal-cdn-token"] == "t0"
    assert "other" not in sent


async def test_raw_frames(client: AsyncClient) -> None:
    async with client.ws_connect("fal-ai/fast-lcm-diffusion", path="/realtime") as socket:
        await socket.send('{"prompt": "a kite"}')
        frame = await socket.recv()
        assert isinstance(frame, bytes | str)


async def test_polls_become_rarer() -> None:
    assert [pause_s(waited) for waited in (0, 0.5, 5, 10, 1000)] == [0.1, 0.1, 0.5, 1.0, 2.0]


async def test_no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FAL_KEY", raising=False)
    monkeypatch.setenv("FAL_HOME_DIR", str(tmp_path))
    for client in (AsyncClient(), AsyncClient("not a key"), AsyncClient("")):
        with pytest.raises(MissingCredentialsError) as caught:
            await client.run(FAST, ASKED)
        assert isinstance(caught.value, CredentialsError)
        assert "not a key" not in str(caught.value)
    assert "ksecret" not in repr(AsyncClient(KEY))


async def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FALBATCH_ORIGIN", "http://127.0.0.1:9")
    async with AsyncClient(KEY, settings=SETTINGS) as client:
        with pytest.raises(FalClientConnectionError) as caught:
            await client.submit(FAST, ASKED)
    assert not isinstance(caught.value, FalClientLostRequestError)
    assert (caught.value.sent, caught.value.kind) == (False, "connect")
    assert isinstance(caught.value, ConnectionError)


async def test_each_loop_has_its_own_connections_which_end_with_it(sandbox: SandboxProcess) -> None:
    client = AsyncClient(settings=SETTINGS)

    async def use() -> None:
        await asyncio.gather(*(client.run(FAST, ASKED) for _ in range(3)))
        assert len(client.connections._places) == 1

    for _ in range(2):
        await anyio.to_thread.run_sync(asyncio.run, use())
        assert client.connections._places == {}
    gc.collect()  # what was left open would warn, and a warning is an error


async def test_the_hosts_are_those_of_the_environment(sandbox: SandboxProcess) -> None:
    assert AsyncClient().connections.hosts() == Hosts.resolve({"FALBATCH_ORIGIN": sandbox.origin})


async def test_what_a_callback_raises_names_the_request_which_goes_on(
    client: AsyncClient, sandbox: SandboxProcess
) -> None:
    def broken(status: Status) -> None:
        raise KeyError(status)

    for mode in ("polling", "streaming"):
        with pytest.raises(KeyError) as caught:
            await client.subscribe(SLOW, ASKED, on_queue_update=broken, mode=mode)
        [note] = caught.value.__notes__
        assert sandbox.request(note.split()[5].rstrip(";"))["endpoint"] == SLOW
    assert "cancel" not in requests(sandbox)


@pytest.mark.parametrize("wrong", [0, -1, float("nan")])
async def test_times_that_nobody_could_answer_in_cost_nothing(
    wrong: float, client: AsyncClient, sandbox: SandboxProcess
) -> None:
    with pytest.raises(ValueError, match="timeout"):
        await client.run(FAST, ASKED, timeout=wrong)
    with pytest.raises(ValueError, match="timeout"):
        await anext(client.stream(FAST, ASKED, timeout=wrong))
    with pytest.raises(ValueError, match="client_timeout"):
        await client.subscribe(FAST, ASKED, client_timeout=wrong)
    assert requests(sandbox) == {}


async def test_a_socket_that_does_not_open_has_cost_nothing(client: AsyncClient, sandbox: SandboxProcess) -> None:
    for fault in ("status:503", "drop_before"):
        sandbox.clear_faults()
        sandbox.add_faults([{"on": "realtime", "do": fault}])
        for opened in (client.realtime(FAST, use_jwt=False), client.ws_connect(FAST, path="realtime", use_jwt=False)):
            with pytest.raises((FalClientHTTPError, FalClientConnectionError)) as caught:
                async with opened:
                    pass
            assert not isinstance(caught.value, FalClientLostRequestError)
            assert "billed" not in str(caught.value)


async def test_a_connection_that_was_closed_stays_so(client: AsyncClient, sandbox: SandboxProcess) -> None:
    async with client.realtime("fal-ai/fast-lcm-diffusion", reconnect=True) as connection:
        answers: list[Any] = []

        async def wait() -> None:
            answers.append(await connection.recv())

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.sleep(0.05)
            await connection.close()
        with pytest.raises(FalClientConnectionError, match="nothing was sent"):
            await connection.send(ASKED)
    assert answers == [None]
    assert sandbox.ledger()["count"] == 0


async def test_what_is_no_text_or_id_is_refused_at_home(client: AsyncClient, sandbox: SandboxProcess) -> None:
    with pytest.raises(ValueError, match="cannot be sent as JSON"):
        await client.run(FAST, {"prompt": "\ud800"})
    with pytest.raises(ValueError, match="not a request id"):
        await client.status(FAST, "a/b?c")
    assert requests(sandbox) == {}
