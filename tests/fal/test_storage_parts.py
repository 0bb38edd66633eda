"""Uploads in parts: all bytes, in order, several at a time, each tried again by itself."""

from __future__ import annotations

import json
import os
import random
from typing import TYPE_CHECKING

import anyio
import pytest
from aiohttp import web

from falbatch.errors import HttpError, ReplyError
from falbatch.fal.again import Repeats
from falbatch.fal.cdn import belongs_to_cdn
from falbatch.fal.parts import FileSource, Memory, spans
from falbatch.fal.storage import StorageClient, UploadLimits
from tests.fal.store_server import KEY, Store, answer_times, stored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from falbatch.fal.storage import Repository
    from falbatch.fal.transport import Transport
    from tests.fal.store_server import Heard

pytestmark = pytest.mark.anyio

QUICK = Repeats(attempts=4, first_s=0.01, cap_s=0.02)
DATA = random.Random(5).randbytes(95_000)
LIMITS = UploadLimits(whole_bytes=20_000, part_bytes=10_000, parts_at_once=3, memory_bytes=40_000)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with stored() as one:
        yield one


def client(transport: Transport, store: Store, limits: UploadLimits = LIMITS) -> StorageClient:
    return StorageClient(transport, store.hosts, KEY, limits=limits, repeats=QUICK)


@pytest.mark.parametrize("repository", ["fal_v3", "fal"])
async def test_parts_arrive_whole_sorted_and_several_at_a_time(
    transport: Transport, store: Store, repository: Repository
) -> None:
    # Later parts answer first.
    store.slow = lambda one: max(0.0, 0.1 - 0.01 * len(store.parts)) if one.method == "PUT" else 0.0
    uploaded = await client(transport, store).upload(DATA, "video/mp4", "big", repository=repository)
    assert uploaded.url == f"{store.origin}/cdn/files/big"
    assert store.files["big"] == DATA
    assert store.most_under_way == 3
    assert sorted(len(part) for part in store.parts.values()) == [5_000] + [10_000] * 9
    receipt = json.loads(store.to("/complete")[0].body)["parts"]
    assert [part["partNumber"] for part in receipt] == list(range(1, 11))
    assert receipt[0]["etag"] == '"etag-1"'


async def test_the_cdns_own_way(transport: Transport, store: Store) -> None:
    await client(transport, store).upload(DATA, "video/mp4", "größe.mp4")
    create = store.to("/upload/multipart")[0]
    assert create.headers["x-fal-file-name"] == "gr%C3%B6%C3%9Fe.mp4"
    assert create.headers["content-type"] == "video/mp4"
    for part in [one for one in store.heard if one.method == "PUT"]:
        assert part.path.startswith("/cdn/files/big/multipart/up%2F1/")
        assert part.headers["accept-encoding"] == "identity"
        assert part.headers["authorization"] == "Bearer cdn-token-1"
        assert part.headers["content-type"] == "video/mp4"


async def test_signed_parts_carry_no_authorization(transport: Transport, store: Store) -> None:
    await client(transport, store).upload(DATA, "video/mp4", "big", repository="fal")
    signed = store.to("/signed")
    assert len(signed) == 11
    assert all("authorization" not in one.headers and one.path.endswith("?sig=a%2Cb") for one in signed)


async def test_a_file_is_read_in_parts(transport: Transport, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(DATA)
    await client(transport, store).upload_path(path)
    assert store.files["big"] == DATA


async def test_a_part_that_fails_is_sent_again_under_its_number(transport: Transport, store: Store) -> None:
    store.faults += [
        answer_times(503, 2, "/4"),
        answer_times(429, 1, "/7", **{"Retry-After": "0"}),
        answer_times(502, 1, "/complete"),
    ]
    await client(transport, store).upload(DATA, "video/mp4")
    assert store.files["big"] == DATA
    assert len([one for one in store.heard if one.path.endswith("/4")]) == 3


async def test_a_part_without_a_receipt_is_sent_again(transport: Transport, store: Store) -> None:
    seen: list[Heard] = []

    def no_etag(one: Heard) -> web.Response | None:
        if one.path.endswith("/2") and not seen:
            seen.append(one)
            return web.Response()
        return None

    store.faults.append(no_etag)
    await client(transport, store).upload(DATA, "video/mp4")
    assert store.files["big"] == DATA


@pytest.mark.parametrize("status", [403, 500])
async def test_the_real_error_of_a_part_is_told_with_its_number(
    transport: Transport, store: Store, status: int
) -> None:
    store.faults.append(answer_times(status, 99, "/3"))
    with pytest.raises(HttpError, match=rf"^part 3 of 10: PUT .*HTTP {status}: refused on purpose") as caught:
        await client(transport, store).upload(DATA, "video/mp4")
    assert caught.value.status == status
    assert "ksecret" not in str(caught.value)
    assert len([one for one in store.heard if one.path.endswith("/3")]) == (1 if status == 403 else QUICK.attempts)
    assert store.to("/complete") == []


async def test_a_token_that_ends_half_way_is_replaced(transport: Transport, store: Store) -> None:
    def ended(one: Heard) -> web.Response | None:
        if one.path.endswith("/5"):
            store.token = "cdn-token-2"
        return None

    store.faults.append(ended)
    await client(transport, store).upload(DATA, "video/mp4")
    assert store.files["big"] == DATA


async def test_the_token_goes_nowhere_else(transport: Transport, store: Store) -> None:
    store.base = "https://evil.example/cdn"
    await client(transport, store).upload(DATA, "video/mp4")
    assert store.files["big"] == DATA  # by the address that was known before
    store.faults.append(
        lambda one: (
            web.json_response({"access_url": "http://127.0.0.1:9/files/x", "uploadId": "1"})
            if one.path.endswith("/multipart")
            else None
        )
    )
    with pytest.raises(ReplyError, match="not at the CDN"):
        await client(transport, store).upload(DATA, "video/mp4")


async def test_a_file_that_changes_meanwhile_is_an_error(transport: Transport, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(DATA)

    def change(one: Heard) -> web.Response | None:
        if one.path.endswith("/1"):
            path.write_bytes(DATA[:50_000])
        return None

    store.faults.append(change)
    with pytest.raises(OSError, match="changed while it was uploaded"):
        await client(transport, store).upload_path(path)
    assert store.to("/complete") == []


async def test_many_files_share_the_memory(transport: Transport, store: Store, tmp_path: Path) -> None:
    held: list[int] = []
    storage = client(transport, store)

    def slow(_: Heard) -> float:
        held.append(storage._memory._free)
        return 0.005

    store.slow = slow
    async with anyio.create_task_group() as group:
        for number in range(12):
            path = tmp_path / f"{number}.bin"
            path.write_bytes(os.urandom(15_000))
            group.start_soon(storage.upload_path, path)
    assert len(store.files) == 12
    assert min(held) >= 0
    assert storage._memory._free == 40_000
    assert len(store.to("/files/upload")) == 12


async def test_a_large_file_is_not_passed_by() -> None:
    memory = Memory(10)
    order: list[int] = []

    async def use(size: int) -> None:
        share = await memory.take(size)
        order.append(size)
        await anyio.sleep(0.001)
        memory.give_back(share)

    async with anyio.create_task_group() as group:
        for size in (6, 10, 4, 4, 99):
            group.start_soon(use, size)
    assert order == [6, 10, 4, 4, 99]


def test_parts_cover_every_byte() -> None:
    assert spans(25, 10) == [(0, 10), (10, 10), (20, 5)]
    assert spans(20, 10) == [(0, 10), (10, 10)]
    assert spans(0, 10) == []


async def test_a_file_is_read_from_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(DATA)
    with FileSource(path) as source:
        assert await source.read(94_000, 1_000) == DATA[94_000:]
        with pytest.raises(OSError, match="changed"):
            await source.read(94_000, 2_000)


@pytest.mark.parametrize(
    ("url", "cdn", "allowed"),
    [
        ("https://v3.fal.media/files/x", "https://v3.fal.media", True),
        ("https://v3b.fal.media/files/b/x", "https://v3.fal.media", True),
        ("https://V3B.fal.media:443/files/b/x", "https://v3.fal.media", True),
        ("http://v3b.fal.media/files/x", "https://v3.fal.media", False),
        ("https://v3b.fal.media:8443/x", "https://v3.fal.media", False),
        ("https://evilfal.media/x", "https://v3.fal.media", False),
        ("https://fal.media.evil.example/x", "https://v3.fal.media", False),
        ("https://v3.fal.media@evil.example/x", "https://v3.fal.media", False),
        ("https://evil.example\\.fal.media/x", "https://v3.fal.media", False),
        ("https://v3b.fal.media/x", "https://cdn.example", False),
        ("http://127.0.0.1:8787/cdn/files/x", "http://127.0.0.1:8787/cdn", True),
        ("http://127.0.0.1:8788/cdn/files/x", "http://127.0.0.1:8787/cdn", False),
    ],
)
def test_where_the_token_may_go(url: str, cdn: str, allowed: bool) -> None:
    assert belongs_to_cdn(url, cdn) is allowed
