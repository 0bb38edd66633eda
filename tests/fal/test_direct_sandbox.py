"""Direct calls, streams, realtime and the status stream against the sandbox: its ledger is the judge of what ran."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from falbatch.errors import HttpError, TransportError
from falbatch.fal.direct import DirectClient
from falbatch.fal.hosts import Hosts
from falbatch.fal.queue import QueueClient, RequestRef
from falbatch.fal.realtime import RealtimeClient, RealtimeError
from falbatch.fal.wire import Phase
from tests.fal.app_server import CREDENTIALS
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from falbatch.fal.transport import Transport

pytestmark = pytest.mark.anyio

FLUX = "fal-ai/flux/dev"
LIVE = "fal-ai/fast-lcm-diffusion"
TALKER = "openrouter/router"
KITE = b'{"prompt":"a red kite","seed":7}'


@pytest.fixture(scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    scenario = tmp_path_factory.mktemp("direct") / "scenario.yaml"
    scenario.write_text("seed: 7\nconcurrency: 2\nspeed: 25\nrealtime_idle_s: 0.1\n")
    with SandboxProcess("--scenario", str(scenario)) as process:
        yield process
        process.stop()
        assert process.errors == ""


@pytest.fixture
def sandbox(_shared: SandboxProcess) -> SandboxProcess:
    _shared.reset()
    return _shared


@pytest.fixture
def direct(sandbox: SandboxProcess, transport: Transport) -> DirectClient:
    return DirectClient(transport, Hosts.resolve({}, origin=sandbox.origin), CREDENTIALS)


@pytest.fixture
def realtime(sandbox: SandboxProcess, transport: Transport) -> RealtimeClient:
    return RealtimeClient(transport, Hosts.resolve({}, origin=sandbox.origin), CREDENTIALS)


def ids(sandbox: SandboxProcess) -> list[str]:
    return [entry["request_id"] for entry in sandbox.ledger()["executions"]]


def executions(sandbox: SandboxProcess) -> int:
    return len(ids(sandbox))


async def test_a_run_is_answered_and_on_the_ledger(sandbox: SandboxProcess, direct: DirectClient) -> None:
    answer = await direct.run(FLUX, KITE)
    assert answer.output["seed"] == 7
    assert answer.billable_units is not None
    assert ids(sandbox) == [answer.request_id]
    by_query = await direct.run(FLUX, b'{"prompt":"a red kite","seed":7}', method="GET")
    assert by_query.output["seed"] == 7


async def test_too_many_runs_at_once_are_refused_and_not_billed(sandbox: SandboxProcess, direct: DirectClient) -> None:
    outcomes = await asyncio.gather(*(direct.run(FLUX, KITE) for _ in range(12)), return_exceptions=True)
    refused = [one for one in outcomes if isinstance(one, HttpError)]
    assert {(one.status, one.error_type, one.retryable) for one in refused} == {
        (429, "concurrent_requests_limit", True)
    }
    assert executions(sandbox) == 12 - len(refused) == sum(not isinstance(one, BaseException) for one in outcomes)


@pytest.mark.parametrize("do", ["drop_after", "truncate", "status:502"])
async def test_a_run_without_an_answer_ran_once(sandbox: SandboxProcess, direct: DirectClient, do: str) -> None:
    rule = {"on": "run", "do": do, "times": 1} | ({"accepted": True} if do == "status:502" else {})
    sandbox.add_faults([rule])
    with pytest.raises((TransportError, HttpError)) as caught:
        await direct.run(FLUX, KITE)
    assert not isinstance(caught.value, TransportError) or caught.value.sent
    assert executions(sandbox) == 1


async def test_a_stream_ends_with_the_whole(sandbox: SandboxProcess, direct: DirectClient) -> None:
    async with direct.stream(TALKER, '{"prompt":"Grüße: café 日本","model":"x"}'.encode()) as stream:
        values = [event.value async for event in stream]
        assert ids(sandbox) == [stream.request_id]
    assert [value["partial"] for value in values] == [True] * (len(values) - 1) + [False]
    assert "Grüße: café 日本" in values[-1]["output"]
    with pytest.raises(HttpError) as caught:
        await direct.stream(TALKER, b"{}").__aenter__()
    assert caught.value.status == 422


@pytest.mark.parametrize("use_jwt", [True, False])
async def test_realtime_answers_with_pictures(sandbox: SandboxProcess, realtime: RealtimeClient, use_jwt: bool) -> None:
    async with realtime.connect(LIVE, use_jwt=use_jwt) as socket:
        for seed in (1, 2):
            await socket.send({"prompt": "a red kite", "seed": seed})
            output = await socket.receive()
            assert output["seed"] == seed
            assert output["images"][0]["content"].startswith(b"\xff\xd8")
    assert executions(sandbox) == 2


async def test_an_idle_close_and_a_reconnect(sandbox: SandboxProcess, realtime: RealtimeClient) -> None:
    async with realtime.connect(LIVE, reconnect=True) as socket:
        for seed in (1, 2):
            await socket.send({"prompt": "a red kite", "seed": seed})
            assert (await socket.receive())["seed"] == seed
            assert await socket.receive() is None
    assert executions(sandbox) == 2


async def test_a_bad_input_is_the_apps_error(realtime: RealtimeClient) -> None:
    async with realtime.connect(LIVE) as socket:
        await socket.send({"seed": "not a number"})
        with pytest.raises(RealtimeError) as caught:
            await socket.receive()
    assert caught.value.error


async def test_a_status_stream_tells_the_whole_story(sandbox: SandboxProcess, transport: Transport) -> None:
    queue = QueueClient(transport, Hosts.resolve({}, origin=sandbox.origin), CREDENTIALS)
    accepted = await queue.submit(FLUX, KITE)
    ref = RequestRef(accepted.request_id, FLUX, accepted.status_url)
    lines: list[str] = []
    last = None
    async with queue.status_stream(ref, with_logs=True) as changes:
        async for progress in changes:
            lines += [line["message"] for line in progress.logs or ()]
            last = progress.phase
    assert last is Phase.COMPLETED
    whole = await queue.status(ref, with_logs=True)
    assert whole.logs is not None
    assert lines == [line["message"] for line in whole.logs]
