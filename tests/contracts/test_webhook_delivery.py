"""The sandbox's webhooks at our own door: two readings of the protocol's page, neither of which knows the other."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.callbacks import Listener, Refusal, Settings, listen
from falbatch.fal.transport import Transport, TransportSettings
from falbatch.fal.webhooks import MIN_FETCH_PAUSE_S, SIGNATURE_HEADERS, Delivery, Jwks
from tests.sandbox.conftest import Fal
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.anyio

KITE = {"prompt": "a red kite", "image_size": {"width": 64, "height": 64}, "seed": 10**20}
WAIT_S = 10.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def _process() -> Iterator[SandboxProcess]:
    with SandboxProcess("--seed", "7", "--speed", "0") as process:
        yield process
        process.stop()
        assert process.errors == ""


@pytest.fixture
def sandbox(_process: SandboxProcess) -> SandboxProcess:
    _process.reset()
    return _process


class Door:
    """Our listener before the sandbox's webhooks."""

    def __init__(self, fal: Fal) -> None:
        self.fal = fal
        self.taken: asyncio.Queue[tuple[str, Delivery]] = asyncio.Queue()
        self.refused: list[str] = []
        self.late_s = 0.0
        """What is added to the clock that spares the keys' host."""
        self.listener: Listener[Delivery]

    async def told(self) -> dict[str, object]:
        """Submit with our door as the webhook; returns the submit's reply."""
        params = {"fal_webhook": f"http://127.0.0.1:{self.listener.port}/webhook/tok"}
        return await asyncio.to_thread(self.fal.submit, KITE, params=params)

    async def next(self) -> Delivery:
        token, delivery = await asyncio.wait_for(self.taken.get(), WAIT_S)
        assert token == "tok"
        return delivery


@asynccontextmanager
async def opened(sandbox: SandboxProcess) -> AsyncIterator[Door]:
    door = Door(Fal(sandbox.origin))
    async with Transport(settings=TransportSettings(trust_env=False)) as transport:
        now = asyncio.get_running_loop().time
        jwks = Jwks(transport, f"{sandbox.origin}/rest", now_s=lambda: now() + door.late_s)
        async with listen(
            Settings(SIGNATURE_HEADERS),
            knows=lambda token: token == "tok",
            verify=jwks.verify,
            deliver=lambda token, delivery: door.taken.put_nowait((token, delivery)),
            refused=lambda reason, peer: door.refused.append(reason),
        ) as door.listener:
            yield door
    door.fal.close()


async def test_what_the_sandbox_sends_is_believed_and_is_the_result(sandbox: SandboxProcess) -> None:
    async with opened(sandbox) as door:
        request = await door.told()
        delivery = await door.next()
        assert (delivery.request_id, delivery.status) == (request["request_id"], "OK")
        assert delivery.payload == (await asyncio.to_thread(door.fal.result, request)).json()
        assert door.refused == []


@pytest.mark.parametrize("do", ["corrupt", "truncate", "wrong_type", "types", "deep"])
async def test_what_is_spoiled_is_refused_and_comes_again_well(sandbox: SandboxProcess, do: str) -> None:
    sandbox.add_faults([{"on": "webhook", "do": do, "times": 1}])
    async with opened(sandbox) as door:
        request = await door.told()
        assert (await door.next()).request_id == request["request_id"]
        assert door.listener.refusals == {Refusal.FORGED: 1}


async def test_a_failure_and_a_missing_payload_are_understood(sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "submit", "do": "fail:content_policy_violation", "times": 1}])
    sandbox.add_faults([{"on": "webhook", "do": "no_payload", "nth": 2}])
    async with opened(sandbox) as door:
        await door.told()
        failed = await door.next()
        assert (failed.status, failed.error) == ("ERROR", "Invalid status code: 422")
        assert failed.payload["detail"][0]["type"] == "content_policy_violation"
        await door.told()
        empty = await door.next()
        assert (empty.status, empty.payload) == ("OK", None)
        assert empty.payload_error


async def test_a_duplicate_is_taken_once(sandbox: SandboxProcess) -> None:
    sandbox.add_faults([{"on": "webhook", "do": "duplicate"}])
    async with opened(sandbox) as door:
        await door.told()
        await door.next()
        while not door.listener.repeated:
            await asyncio.sleep(0.01)
        assert (door.taken.qsize(), door.refused) == (0, [])


async def test_a_new_key_is_fetched_when_it_is_time(sandbox: SandboxProcess) -> None:
    async with opened(sandbox) as door:
        await door.told()
        await door.next()
        await asyncio.to_thread(door.fal.public.post, f"{sandbox.origin}/sandbox/webhooks/rotate")
        request = await door.told()
        while not door.refused:
            await asyncio.sleep(0.01)
        door.late_s = MIN_FETCH_PAUSE_S
        assert (await door.next()).request_id == request["request_id"]
