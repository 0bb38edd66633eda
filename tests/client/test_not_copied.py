"""The official clients' bugs (fal-protocol §6.6), each with a test that ours does not have it, in the table's order."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiohttp import web

from falbatch.client import (
    AsyncClient,
    ClientSettings,
    FalClientHTTPError,
    FalClientLostRequestError,
    FalClientTimeoutError,
    StorageSettings,
    SyncClient,
    UploadLimits,
)
from falbatch.fal.direct import RUN_TIMEOUT_S
from falbatch.fal.storage import MIB
from tests.client.conftest import KEY, SETTINGS, requests
from tests.client.fake_fal import RID, accepted, serving
from tests.fal.store_server import answer_times, stored

if TYPE_CHECKING:
    from tests.sandbox_process import SandboxProcess

pytestmark = pytest.mark.anyio

FAST, SLOW = "fal-ai/flux/schnell", "fal-ai/kling-video/v2.6/pro/text-to-video"
ASKED = {"prompt": "a red kite"}
DATA = random.Random(3).randbytes(55_000)
IN_PARTS = ClientSettings(repeats=SETTINGS.repeats, uploads=UploadLimits(whole_bytes=10_000, part_bytes=10_000))


def to(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    monkeypatch.setenv("FALBATCH_ORIGIN", origin)


async def test_sync_bytes_in_parts_arrive_whole_and_parts_are_retried_and_sorted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with stored() as store:
        to(monkeypatch, store.origin)
        store.faults.append(answer_times(503, 2, "/3"))
        store.slow = lambda one: 0.05 if one.path.endswith("/1") else 0.0  # the first part comes last
        with SyncClient(KEY, settings=IN_PARTS) as client:
            url = await anyio.to_thread.run_sync(client.upload, DATA, "video/mp4")
        assert url.endswith("/cdn/files/big")
        assert store.files["big"] == DATA


async def test_uploads_share_connections_and_large_ones_get_the_time_they_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with stored() as store:
        to(monkeypatch, store.origin)
        with SyncClient(KEY, settings=SETTINGS) as client:
            for number in range(5):
                await anyio.to_thread.run_sync(client.upload, b"x", "text/plain", f"{number}.txt")
        assert len(store.files) == 5
        assert len(store.peers) == 1
    assert UploadLimits().timeout_s(100 * MIB) > 1800


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_reads_follow_redirects_in_both_clients(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        origin = f"http://{request.host}"
        if request.method == "POST":
            return web.json_response(accepted(origin))
        if request.path.endswith("/status"):
            return web.Response(status=307, headers={"Location": f"{request.path}/"})
        if request.path.endswith("/status/"):
            return web.json_response({"status": "COMPLETED", "logs": None, "metrics": {}})
        return web.json_response({"ok": True})

    async with serving(handle) as origin:
        to(monkeypatch, origin)
        if kind == "async":
            async with AsyncClient(KEY, settings=SETTINGS) as client:
                assert await client.subscribe("owner/app", {}) == {"ok": True}
        else:
            with SyncClient(KEY, settings=SETTINGS) as sync_client:
                assert await anyio.to_thread.run_sync(sync_client.subscribe, "owner/app", {}) == {"ok": True}


@pytest.mark.parametrize("call", ["run", "submit"])
async def test_a_paid_call_follows_no_redirect(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    heard: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        heard.append(request.path)
        return web.Response(status=307, headers={"Location": "/queue/owner/other"})

    async with serving(handle) as origin:
        to(monkeypatch, origin)
        async with AsyncClient(KEY, settings=SETTINGS) as client:
            with pytest.raises(FalClientHTTPError) as caught:
                await getattr(client, call)("owner/app", {})
    assert caught.value.status_code == 307
    assert len(heard) == 1


async def test_both_clients_pause_alike(sandbox: SandboxProcess) -> None:
    assert SyncClient().asynchronous.connections.settings.repeats == AsyncClient().connections.settings.repeats


async def test_a_run_without_timeout_has_one(monkeypatch: pytest.MonkeyPatch, sandbox: SandboxProcess) -> None:
    assert RUN_TIMEOUT_S == 3600
    monkeypatch.setattr("falbatch.client.asynchronous.RUN_TIMEOUT_S", 0.2)
    sandbox.add_faults([{"on": "run", "do": "hang"}])
    with SyncClient(settings=SETTINGS) as client, pytest.raises(FalClientTimeoutError) as caught:
        await anyio.to_thread.run_sync(client.run, FAST, ASKED)
    assert caught.value.timeout == 0.2


@pytest.mark.parametrize("status", [401, 403, 422])
async def test_a_refused_upload_is_not_sent_elsewhere(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    async with stored() as store:
        to(monkeypatch, store.origin)
        store.faults.append(answer_times(status, 99, "/files/upload"))
        async with AsyncClient(KEY, settings=SETTINGS) as client:
            with pytest.raises(FalClientHTTPError) as caught:
                await client.upload(b"x", "text/plain", fallback_repository="fal")
            assert caught.value.status_code == status
        assert store.to("initiate") == []


async def test_a_second_repository_is_asked_for_and_never_sees_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stored() as store:
        to(monkeypatch, store.origin)
        store.faults.append(answer_times(503, 99, "/files/upload"))
        async with AsyncClient(KEY, settings=SETTINGS) as client:
            with pytest.raises(FalClientHTTPError):
                await client.upload(b"x", "text/plain", "a")
            assert await client.upload(b"x", "text/plain", "a", fallback_repository="fal")
            with pytest.deprecated_call(match="fal_v3"), pytest.raises(FalClientHTTPError):
                await client.upload(b"x", "text/plain", "a", repository="cdn")
        assert store.files == {"a": b"x"}
        assert ["authorization" in one.headers for one in store.to("/signed")] == [False]


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_submit_under_way_when_time_is_over_leaves_no_orphan(sandbox: SandboxProcess, kind: str) -> None:
    sandbox.add_faults([{"on": "submit", "do": "delay:0.4"}])
    if kind == "async":
        async with AsyncClient(settings=SETTINGS) as client:
            with pytest.raises(FalClientTimeoutError) as caught:
                await client.subscribe(SLOW, ASKED, client_timeout=0.1)
    else:
        with SyncClient(settings=SETTINGS) as sync_client, pytest.raises(FalClientTimeoutError) as caught:
            sync_client.subscribe(SLOW, ASKED, client_timeout=0.1)
    assert caught.value.request_id
    assert requests(sandbox)["cancel"] == {"202": 1}
    assert sum(requests(sandbox)["submit"].values()) == 1


async def test_a_cancelled_submit_leaves_no_orphan_either(sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "submit", "do": "delay:0.3"}])
    async with AsyncClient(settings=SETTINGS) as client:
        task = asyncio.create_task(client.submit(SLOW, ASKED))
        await anyio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert requests(sandbox)["cancel"] == {"202": 1}


async def test_a_cancelled_pause_submits_nothing_more(sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "submit", "do": "status:429", "retry_after": 60}])
    async with AsyncClient(settings=SETTINGS) as client:
        with pytest.raises(FalClientTimeoutError):
            await client.subscribe(SLOW, ASKED, client_timeout=0.2)
    assert requests(sandbox) == {"submit": {"429": 1}}


@pytest.mark.parametrize("fault", ["drop_after", "status:502", "hang"])
async def test_a_submit_whose_answer_is_lost_is_not_sent_again(sandbox: SandboxProcess, fault: str) -> None:
    sandbox.add_faults([{"on": "submit", "do": fault}])
    async with AsyncClient(settings=SETTINGS, default_timeout=0.3) as client:
        with pytest.raises((FalClientLostRequestError, FalClientHTTPError), match="look for it in fal's dashboard"):
            await client.submit(FAST, ASKED)
    assert sandbox.ledger()["count"] <= 1
    assert sum(requests(sandbox).get("submit", {}).values()) <= 1


@pytest.mark.parametrize("fault", ["drop_after", "status:502", "status:503"])
async def test_a_run_or_stream_whose_answer_is_lost_is_not_sent_again(sandbox: SandboxProcess, fault: str) -> None:
    sandbox.add_faults([{"on": "run", "do": fault}, {"on": "stream", "do": fault}])
    async with AsyncClient(settings=SETTINGS) as client:
        with pytest.raises((FalClientLostRequestError, FalClientHTTPError), match="It may have run"):
            await client.run(FAST, ASKED)
        with pytest.raises((FalClientLostRequestError, FalClientHTTPError), match="It may have run"):
            await anext(client.stream(FAST, ASKED))
    assert sandbox.ledger()["count"] <= 2
    assert all(sum(requests(sandbox).get(kind, {}).values()) <= 1 for kind in ("run", "stream"))


async def test_a_parts_own_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stored() as store:
        to(monkeypatch, store.origin)
        store.faults.append(answer_times(500, 99, "/2"))
        async with AsyncClient(KEY, settings=IN_PARTS) as client:
            with pytest.raises(FalClientHTTPError, match=r"part 2 of 6: PUT .* HTTP 500: refused on purpose"):
                await client.upload(DATA, "video/mp4")
        assert len([one for one in store.heard if one.path.endswith("/2")]) == 4


async def test_characters_cut_by_chunks_and_silence_in_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await reply.prepare(request)
        for byte in 'data: {"text": "größe 日本"}\n\n'.encode():
            await reply.write(bytes([byte]))
            await asyncio.sleep(0)
        await asyncio.sleep(30)
        return reply

    async with serving(handle) as origin:
        to(monkeypatch, origin)
        async with AsyncClient(KEY, settings=SETTINGS) as client:
            events = client.stream("owner/app", {}, timeout=0.3)
            assert await anext(events) == {"text": "größe 日本"}
            with pytest.raises(FalClientTimeoutError, match="may have run"):
                await anext(events)


async def test_a_timeout_while_streaming_states_is_raised_to_the_caller(sandbox: SandboxProcess) -> None:
    unhandled: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    async with AsyncClient(settings=SETTINGS) as client:
        with pytest.raises(FalClientTimeoutError):
            await client.subscribe(SLOW, ASKED, mode="streaming", client_timeout=0.2)
    assert requests(sandbox)["cancel"] == {"202": 1}
    assert unhandled == []


@pytest.mark.parametrize("wrong", [0, -5, True])
async def test_a_life_of_nothing_is_refused(wrong: Any, sandbox: SandboxProcess) -> None:
    with pytest.raises(ValueError, match="expires_in"):
        StorageSettings(wrong)
    async with AsyncClient(settings=SETTINGS) as client:
        with pytest.raises(ValueError, match="expires_in"):
            await client.submit(FAST, ASKED, expires_in=wrong)


async def test_integers_beyond_53_bits_stay_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        sent.append(await request.read())
        return web.Response(body=b'{"seed": 12345678901234567891}', content_type="application/json")

    async with serving(handle) as origin:
        to(monkeypatch, origin)
        async with AsyncClient(KEY, settings=SETTINGS) as client:
            assert await client.run("owner/app", {"seed": 12345678901234567891}) == {"seed": 12345678901234567891}
    assert sent == [b'{"seed":12345678901234567891}']


async def test_the_header_names_the_request_when_the_body_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"{", headers={"x-fal-request-id": RID})

    async with serving(handle) as origin:
        to(monkeypatch, origin)
        async with AsyncClient(KEY, settings=SETTINGS) as client:
            handle_ = await client.submit("owner/app/path", {})
    assert handle_.status_url == f"{origin}/queue/owner/app/requests/{RID}/status"
