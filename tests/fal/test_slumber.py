"""A machine that slept opens new connections, and disturbs nobody who is still on an old one."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from falbatch.errors import TransportError
from falbatch.fal import slumber
from falbatch.fal.slumber import SLEPT_S, Sessions, asleep_s
from tests.fal.raw_server import Peer, served
from tests.fal.test_transport_failures import closed_port

if TYPE_CHECKING:
    from falbatch.fal.transport import Transport

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("carrier")]


class Machine:
    """Sleeps when told to."""

    def __init__(self) -> None:
        self.asleep_s = 1000.0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(slumber, "asleep_s", lambda: made.asleep_s)
    return made


async def post(transport: Transport, origin: str) -> bytes:
    reply = await transport.request("POST", origin, headers={}, body=b"{}", timeout_s=5, max_bytes=1000)
    return reply.body


async def test_after_sleep_the_next_request_opens_a_new_connection(transport: Transport, machine: Machine) -> None:
    ended: list[int] = []

    async def answers(peer: Peer) -> None:
        while await peer.request():
            await peer.answer(str(peer.number).encode())
        ended.append(peer.number)

    async with served(answers) as server:
        assert [await post(transport, server.origin) for _ in range(3)] == [b"0"] * 3
        machine.asleep_s += 3600
        assert [await post(transport, server.origin) for _ in range(3)] == [b"1"] * 3
        assert ended == [0]  # the idle one was closed, not left to time out
        machine.asleep_s += 0.5  # two clocks read one after the other
        machine.asleep_s -= 10
        assert await post(transport, server.origin) == b"1"
        machine.asleep_s += 2
        assert await post(transport, server.origin) == b"2"


async def test_a_post_after_sleep_does_not_go_into_a_dead_connection(transport: Transport, machine: Machine) -> None:
    peers: list[Peer] = []

    async def answers(peer: Peer) -> None:
        peers.append(peer)
        while await peer.request():
            await peer.answer(b"{}")

    async with served(answers) as server:
        await post(transport, server.origin)
        peers[0].reset_hard()  # unseen by the client, whose loop has no turn in between
        machine.asleep_s += 3600
        assert await post(transport, server.origin) == b"{}"


async def test_requests_under_way_are_not_disturbed(transport: Transport, machine: Machine) -> None:
    arrived, release = asyncio.Event(), asyncio.Event()
    ended: list[int] = []

    async def answers(peer: Peer) -> None:
        while await peer.request():
            if peer.number == 0:
                arrived.set()
                await release.wait()
            await peer.answer(str(peer.number).encode())
        ended.append(peer.number)

    async with served(answers) as server:
        slow = asyncio.create_task(post(transport, server.origin))
        await arrived.wait()
        machine.asleep_s += 3600
        assert await post(transport, server.origin) == b"1"
        release.set()
        assert await slow == b"0"
        assert await post(transport, server.origin) == b"1"
        assert ended == [0]  # closed as soon as its request was over


async def test_a_download_under_way_is_not_disturbed(transport: Transport, machine: Machine) -> None:
    release = asyncio.Event()

    async def answers(peer: Peer) -> None:
        while await peer.request():
            if peer.number:
                await peer.answer(b"{}")
                continue
            await peer.answer(b"ab", length=4)
            await release.wait()
            await peer.send(b"cd")

    async with served(answers) as server:
        async with transport.stream(server.origin, headers={}, timeout_s=5) as reply:
            machine.asleep_s += 3600
            assert await post(transport, server.origin) == b"{}"
            release.set()
            assert b"".join([chunk async for chunk in reply.chunks()]) == b"abcd"
        assert await post(transport, server.origin) == b"{}"
    assert server.connections == 2


async def test_a_request_that_failed_keeps_no_session_open(machine: Machine) -> None:
    made: list[Recorded] = []

    def make() -> Recorded:
        made.append(Recorded())
        return made[-1]

    sessions = Sessions(make)
    first, again = sessions.take(), sessions.take()
    assert first is again
    machine.asleep_s += 3600
    assert sessions.take() is made[1]
    await sessions.sweep()
    await sessions.give_back(first)
    assert not made[0].closed
    await sessions.give_back(again)
    assert made[0].closed
    assert not made[1].closed
    machine.asleep_s += 3600
    assert sessions.take() is made[2]
    await sessions.aclose()
    assert [one.closed for one in made] == [1, 1, 1]
    await sessions.give_back(made[1])
    await sessions.aclose()
    assert [one.closed for one in made] == [1, 1, 1]


class Recorded:
    closed = 0

    async def close(self) -> None:
        self.closed += 1


async def test_failures_and_sleep_in_turn_leave_a_working_transport(transport: Transport, machine: Machine) -> None:
    async def answers(peer: Peer) -> None:
        while await peer.request():
            await peer.answer(b"{}")

    async with served(answers) as server:
        for _ in range(3):
            machine.asleep_s += 3600
            with pytest.raises(TransportError):
                await post(transport, f"http://127.0.0.1:{closed_port()}")
            assert await post(transport, server.origin) == b"{}"
    assert server.connections == 3


def test_time_asleep_stands_still_while_awake() -> None:
    first = asleep_s()
    time.sleep(0.05)
    assert abs(asleep_s() - first) < SLEPT_S


def test_where_no_clock_tells_nobody_ever_slept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert asleep_s() == 0.0
