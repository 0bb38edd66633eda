"""The door for webhooks over real sockets: what comes through, and that nothing else does any harm."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.callbacks import Limits, Listener, Refusal, Settings, listen
from falbatch.errors import UsageError
from falbatch.fal.webhooks import SIGNATURE_HEADERS, Delivery, Jwks, Outcome
from tests.fal.raw_server import RID
from tests.fal.signing import BODY, NOW, KeyHost, page, signed
from tests.fal.test_transport_failures import closed_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from falbatch.fal.transport import Transport

pytestmark = pytest.mark.anyio

TOKEN = "t0ken_-9"
PATH = f"/hook/{TOKEN}"


@dataclass
class Door:
    """A listener with its keys, and what it said."""

    listener: Listener[Delivery]
    host: KeyHost
    taken: list[tuple[str, Delivery]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    is_full: bool = False
    answer: bytes = b""
    """The last one."""

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.listener.port)

    async def say(self, data: bytes) -> int:
        """Send `data` and read the answer to its end. Returns its status, 0 when the connection ended without one."""
        reader, writer = await self.connect()
        try:
            writer.write(data)
            answer = await asyncio.wait_for(reader.read(), 10)
        except ConnectionError:
            answer = b""
        finally:
            writer.close()
        self.answer = answer
        return int(answer.split(b" ")[1]) if answer else 0

    async def post(self, headers: dict[str, str], body: bytes = BODY, path: str = PATH, method: str = "POST") -> int:
        return await self.say(request(headers, body, path, method))


def request(headers: dict[str, str], body: bytes = BODY, path: str = PATH, method: str = "POST") -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


@asynccontextmanager
async def opened(transport: Transport, limits: Limits | None = None, rest: str = "") -> AsyncIterator[Door]:
    """A door whose keys are at `rest`, or at a host of its own."""
    host = KeyHost(page(9, 1))
    settings = Settings(SIGNATURE_HEADERS, prefix="/hook", limits=limits or Limits())
    door: Door

    def deliver(token: str, delivery: Delivery) -> None:
        if door.is_full:
            raise asyncio.QueueFull
        door.taken.append((token, delivery))

    async with host.served() as server:
        jwks = Jwks(transport, rest or server.origin, unix_s=lambda: NOW)
        async with listen(
            settings,
            knows=lambda token: token == TOKEN,
            verify=jwks.verify,
            deliver=deliver,
            refused=lambda reason, peer: door.told.append(f"{reason} ({peer})"),
        ) as listener:
            door = Door(listener, host)
            yield door


@pytest.fixture
async def door(transport: Transport) -> AsyncIterator[Door]:
    async with opened(transport) as one:
        yield one


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    from falbatch.fal.transport import Transport, TransportSettings

    async with Transport(settings=TransportSettings(trust_env=False)) as one:
        yield one


async def test_a_delivery_is_handed_over_once_however_often_it_comes(door: Door) -> None:
    assert [await door.post(signed()) for _ in range(3)] == [200, 200, 200]
    upper = signed() | {"x-fal-webhook-signature": signed()["x-fal-webhook-signature"].upper()}
    assert await door.post(upper) == 200
    assert door.taken == [(TOKEN, Delivery(RID, Outcome.OK, {"seed": 10**20}, gateway_request_id=RID))]
    assert await door.post(signed(at=NOW + 1), path=f"{PATH}?a=b") == 200  # fal's own retry: a delivery of its own
    assert (door.listener.delivered, door.listener.repeated, door.told) == (2, 3, [])


async def test_equal_deliveries_at_once_are_one(door: Door) -> None:
    assert await asyncio.gather(*(door.post(signed()) for _ in range(20))) == [200] * 20
    assert (len(door.taken), door.listener.repeated) == (1, 19)


FORGERIES = {
    "a stranger's key": (signed(key=7), BODY, 401),
    "another body": (signed(), BODY.replace(b"OK", b"KO"), 401),
    "the past": (signed(at=NOW - 301), BODY, 401),
    "the future": (signed(at=NOW + 301), BODY, 401),
    "no hex": (signed() | {"x-fal-webhook-signature": "z" * 128}, BODY, 401),
    "half a signature": (signed() | {"x-fal-webhook-signature": "ab"}, BODY, 401),
    "signed garbage": (signed(b"<html>"), b"<html>", 401),
    "signed nothing": (signed(b""), b"", 401),
    "signed depth": (signed(b"[" * 100_000), b"[" * 100_000, 401),
    **{f"no {name}": ({n: v for n, v in signed().items() if n != name}, BODY, 400) for name in SIGNATURE_HEADERS},
    **{f"empty {name}": (signed() | {name: ""}, BODY, 400) for name in SIGNATURE_HEADERS},
    **{f"twice {name}": (signed() | {name.upper(): "x"}, BODY, 400) for name in SIGNATURE_HEADERS},
}


@pytest.mark.parametrize("name", FORGERIES)
async def test_a_forgery_is_refused_told_of_and_harmless(door: Door, name: str) -> None:
    headers, body, status = FORGERIES[name]
    assert await door.post(headers, body) == status
    assert (door.taken, len(door.told), door.listener.refusals.total()) == ([], 1, 1)
    assert door.told[0].endswith("(127.0.0.1)")
    assert not any(value in door.told[0] for value in headers.values() if len(value) > 2)
    assert door.answer.endswith(b"\r\n\r\n")
    assert await door.post(signed()) == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *((method, PATH, 405) for method in ("GET", "PUT", "HEAD", "DELETE", "OPTIONS")),
        *(
            ("POST", path, 404)
            for path in (
                "/",
                "/hook",
                "/hook/",
                "/hook/other",
                f"/{TOKEN}",
                f"{PATH}/",
                f"//hook/{TOKEN}",
                f"/x/../hook/{TOKEN}",
                f"/%68ook/{TOKEN}",
                f"/hook/%74{TOKEN[1:]}",
                f"http://x/hook/{TOKEN}",
                "/hook/" + "a" * 500,
            )
        ),
    ],
)
async def test_only_a_post_to_a_known_token_is_heard(door: Door, method: str, path: str, status: int) -> None:
    assert await door.post(signed(), path=path, method=method) == status
    assert (door.taken, len(door.told), door.host.seen) == ([], 1, [])


async def test_a_body_is_read_only_as_far_as_it_may_go(transport: Transport) -> None:
    async with opened(transport, Limits(body_bytes=1000, linger_s=0.1)) as door:
        huge = b"x" * 1001
        assert await door.post(signed(huge), huge) == 413
        head = request(signed(huge), b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        assert await door.say(head + b"3e9\r\n" + huge + b"\r\n0\r\n\r\n") == 413
        # It says how much is to come, and is refused before any of it does.
        assert await door.say(head.replace(b"Transfer-Encoding: chunked", b"Content-Length: 99999999999")) == 413
        assert door.listener.refusals == {Refusal.SIZE: 3}
        assert await door.post(signed()) == 200


async def test_what_is_held_at_once_is_bounded_and_given_back(transport: Transport) -> None:
    async with opened(transport, Limits(held_bytes=len(BODY) + 10)) as door:
        _, slow = await door.connect()
        slow.write(request(signed())[:-20])
        while not door.listener._held_bytes:
            await asyncio.sleep(0.01)
        assert await door.post(signed()) == 503
        slow.close()
        while door.listener._held_bytes:
            await asyncio.sleep(0.01)
        assert await door.post(signed()) == 200
        assert door.listener._held_bytes == 0
        assert door.listener.refusals == {Refusal.BUSY: 1, Refusal.CUT: 1}


async def test_slow_senders_are_cut_off(transport: Transport) -> None:
    async with opened(transport, Limits(head_s=0.2, silence_s=0.2, exchange_s=0.4, linger_s=0.1)) as door:
        assert await door.say(b"") == 0
        assert await door.say(request(signed())[:30]) == 0
        assert await door.say(request(signed())[:-5]) == 408
        reader, writer = await door.connect()
        head, _, body = request(signed()).partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        for byte in body:
            if reader.at_eof() or door.listener.refusals.total() == 4:
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        writer.close()
        assert door.listener.refusals == {Refusal.SLOW: 4}
        assert await door.post(signed()) == 200


async def test_connections_are_bounded(transport: Transport) -> None:
    async with opened(transport, Limits(connections=3)) as door:
        idle = [await door.connect() for _ in range(3)]
        assert await door.say(request(signed())) == 0
        assert door.listener.refusals == {Refusal.BUSY: 1}
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        while await door.say(request(signed())) != 200:
            await asyncio.sleep(0.01)


async def test_senders_that_leave_or_speak_no_http_do_no_harm(door: Door) -> None:
    for data in (
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        b"post / HTTP/1.1\r\n\r\n",
        b"POST * HTTP/1.1\r\n\r\n",
        b"\r\n" * 50,
        b"x" * 40_000,
    ):
        reader, writer = await door.connect()
        writer.write(data)
        writer.write_eof()
        answer = await reader.read()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
        assert b"aiohttp" not in answer.lower()
        writer.close()
    chunked = request(signed(), b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    assert await door.say(chunked + b"zz\r\n") in {0, 400}
    _, writer = await door.connect()
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.write(request(signed())[:-5])
    await asyncio.sleep(0.05)
    writer.transport.abort()
    assert await door.post(signed()) == 200
    assert len(door.taken) == 1


async def test_a_compressed_body_is_not_unpacked(door: Door) -> None:
    import gzip

    bomb = gzip.compress(BODY + b" " * 1_000_000)
    assert await door.post({**signed(bomb), "Content-Encoding": "gzip"}, bomb) == 401


async def test_keys_that_cannot_be_had_make_fal_come_again(transport: Transport) -> None:
    async with opened(transport, rest=f"http://127.0.0.1:{closed_port()}") as door:
        assert await door.post(signed()) == 503
        assert await door.post(signed(key=7)) == 503
        assert door.listener.refusals == {Refusal.UNSURE: 2}


async def test_what_nobody_can_take_comes_again_and_is_no_repeat(door: Door) -> None:
    door.is_full = True
    assert await door.post(signed()) == 503
    assert door.listener.refusals == {Refusal.FULL: 1}
    door.is_full = False
    assert await door.post(signed()) == 200
    assert len(door.taken) == 1


async def test_what_is_remembered_is_bounded(transport: Transport) -> None:
    async with opened(transport, Limits(remembered=2)) as door:
        for at in (0, 1, 2, 1, 0):
            assert await door.post(signed(at=NOW + at)) == 200
        assert (len(door.taken), door.listener.repeated, len(door.listener._seen)) == (4, 1, 2)


async def test_a_flood_of_forgeries_fetches_no_keys_and_lets_fal_through(door: Door) -> None:
    answers = await asyncio.gather(*(door.post(signed(key=7 if n % 10 else 1, at=NOW + n)) for n in range(100)))
    assert (answers.count(200), answers.count(401)) == (10, 90)
    assert len(door.host.seen) == 1
    assert len(door.taken) == 10


async def test_when_it_closes_nobody_is_left(transport: Transport) -> None:
    async with opened(transport) as door:
        reader, writer = await door.connect()
        writer.write(request(signed())[:-5])
        await asyncio.sleep(0.05)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await door.connect()


async def test_an_address_or_prefix_that_cannot_be_used_is_said(transport: Transport) -> None:
    async def verify(headers: Mapping[str, str], body: bytes) -> bytes:
        return body

    def ignore(*args: object) -> None:
        pass

    async def try_(settings: Settings) -> None:
        async with listen(settings, knows=bool, verify=verify, deliver=ignore, refused=ignore):
            raise AssertionError("it listens")

    async with opened(transport) as door:
        with pytest.raises(UsageError, match="cannot listen"):
            await try_(Settings(SIGNATURE_HEADERS, port=door.listener.port))
    for prefix in ("hook", "/hook/", "/a b", "/%41"):
        with pytest.raises(UsageError, match="prefix"):
            await try_(Settings(SIGNATURE_HEADERS, prefix=prefix))
    with pytest.raises(ValueError, match="marks"):
        await try_(Settings(()))
