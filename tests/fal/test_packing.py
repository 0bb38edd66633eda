"""Packed bodies, over both carriers: unpacked alike, bounded, and never at the price of the reply's head."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

import pytest

from falbatch.fal.packing import PIECE_BYTES, BadPacking, unpacked
from falbatch.fal.transport import CutReply
from tests.fal.raw_server import served
from tests.fal.test_transport import recording

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from falbatch.fal.exchange import Reply
    from falbatch.fal.transport import Transport
    from tests.fal.raw_server import Server

pytestmark = pytest.mark.anyio

BODY = b'{"z": 1}' * 1000
RAW_DEFLATE = zlib.compressobj(wbits=-zlib.MAX_WBITS)

CASES = {
    "gzip": (gzip.compress(BODY), "gzip"),
    "x-gzip, in capitals": (gzip.compress(BODY), "X-GZIP"),
    "two gzip members": (gzip.compress(BODY[:500]) + gzip.compress(BODY[500:]), "gzip"),
    "deflate": (zlib.compress(BODY), "deflate"),
    "deflate without a head": (RAW_DEFLATE.compress(BODY) + RAW_DEFLATE.flush(), "deflate"),
    "gzip in gzip": (gzip.compress(gzip.compress(BODY)), "gzip, gzip"),
    "gzip in deflate": (zlib.compress(gzip.compress(BODY)), "gzip, deflate"),
    "identity": (BODY, "identity"),
}


async def reply_to(transport: Transport, packed: bytes, encoding: str) -> Reply:
    here: list[Server] = []
    head = f"Content-Encoding: {encoding}\r\nx-fal-request-id: the-id\r\n"
    async with served(recording(here, packed, head)) as server:
        here.append(server)
        return await transport.request("GET", server.origin, headers={}, body=None, timeout_s=5, max_bytes=1 << 20)


@pytest.mark.parametrize("case", CASES)
async def test_a_body_comes_as_it_was_before_it_was_packed(transport: Transport, case: str) -> None:
    assert (await reply_to(transport, *CASES[case])).body == BODY


@pytest.mark.parametrize("encoding", ["br", "zstd", "of our own"])
async def test_what_was_never_asked_for_stays_packed_and_keeps_its_head(transport: Transport, encoding: str) -> None:
    reply = await reply_to(transport, b"\x8b\x03", encoding)
    assert (reply.status, reply.body, reply.headers["x-fal-request-id"]) == (200, b"\x8b\x03", "the-id")


async def test_garbage_in_place_of_gzip_keeps_the_request_id(transport: Transport) -> None:
    with pytest.raises(CutReply) as caught:
        await reply_to(transport, b"no gzip at all", "gzip")
    assert (caught.value.kind, caught.value.request_id) == ("protocol", "the-id")


async def test_no_step_unpacks_much() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        packed = gzip.compress(gzip.compress(bytes(50 << 20)))
        for start in range(0, len(packed), 100):
            yield packed[start : start + 100]

    sizes = [len(piece) async for piece in unpacked(chunks(), "gzip, gzip")]
    assert sum(sizes) == 50 << 20
    assert max(sizes) <= PIECE_BYTES


async def test_garbage_after_the_first_piece_is_told() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        packed = zlib.compress(bytes(range(256)) * 100)
        yield packed[:60]
        yield b"\xff" * 200

    with pytest.raises(BadPacking):
        async for _ in unpacked(chunks(), "deflate"):
            pass
