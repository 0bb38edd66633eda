"""Uploads in one request: where the key goes, what is said of a file, what is tried again."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import anyio
import pytest
from aiohttp import web

from falbatch.errors import HttpError, ReplyError, TransportError
from falbatch.fal.again import Repeats
from falbatch.fal.hosts import Hosts
from falbatch.fal.lifecycle import StorageACL, StorageACLRule, StorageSettings
from falbatch.fal.storage import StorageClient, UploadLimits, header_name
from tests.fal.store_server import KEY, Store, answer_times, stored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from falbatch.fal.transport import Transport
    from tests.fal.store_server import Heard

pytestmark = pytest.mark.anyio

QUICK = Repeats(attempts=4, first_s=0.01, cap_s=0.02)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with stored() as one:
        yield one


def client(transport: Transport, store: Store, **limits: int) -> StorageClient:
    return StorageClient(transport, store.hosts, KEY, limits=UploadLimits(**limits), repeats=QUICK)


def leaked(store: Store) -> list[Heard]:
    """Requests that carried the key beyond fal's REST API."""
    return [one for one in store.heard if not one.path.startswith("/rest") and "ksecret" in str(one.headers)]


async def test_bytes_go_to_the_cdn_with_its_token_and_without_the_key(transport: Transport, store: Store) -> None:
    uploaded = await client(transport, store).upload(b"abc", "text/plain", "a.txt")
    assert uploaded.url == f"{store.origin}/cdn/files/a.txt"
    assert uploaded.expires_at is None
    assert store.files == {"a.txt": b"abc"}
    token, post = store.heard
    assert token.headers["authorization"] == KEY.header()
    assert post.headers["authorization"] == "Bearer cdn-token-1"
    assert post.headers["content-type"] == "text/plain"
    assert leaked(store) == []


async def test_nothing_at_all_can_be_uploaded(transport: Transport, store: Store) -> None:
    await client(transport, store).upload(b"", "text/plain", "empty")
    assert store.files == {"empty": b""}


async def test_one_token_serves_all_who_ask_at_once(transport: Transport, store: Store) -> None:
    storage = client(transport, store)
    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(storage.upload, b"x", "text/plain", f"f{number}")
    assert len(store.files) == 10
    assert len(store.to("/storage/auth/token")) == 1


async def test_a_token_near_its_end_is_replaced(transport: Transport, store: Store) -> None:
    store.expires_at = "2000-01-01T00:00:00Z"
    storage = client(transport, store)
    await storage.upload(b"x", "text/plain")
    await storage.upload(b"x", "text/plain")
    assert len(store.to("/storage/auth/token")) == 2


async def test_a_refused_token_is_replaced_once(transport: Transport, store: Store) -> None:
    storage = client(transport, store)
    await storage.upload(b"x", "text/plain", "one")
    store.token = "cdn-token-2"
    await storage.upload(b"y", "text/plain", "two")
    assert store.files["two"] == b"y"
    assert len(store.to("/storage/auth/token")) == 2
    store.faults.append(answer_times(401, 99, "/files/upload"))
    with pytest.raises(HttpError) as caught:
        await storage.upload(b"z", "text/plain", "three")
    assert caught.value.status == 401
    assert len(store.to("/files/upload")) == 1 + 2 + 2


async def test_life_and_readers_travel_under_both_names(transport: Transport, store: Store) -> None:
    settings = StorageSettings("1h", StorageACL("forbid", [StorageACLRule("ann", "allow")]))
    before = time.time()
    uploaded = await client(transport, store).upload(b"x", "text/plain", lifecycle=settings)
    assert uploaded.expires_at is not None
    assert before + 3600 <= uploaded.expires_at <= time.time() + 3600
    wanted = (
        '{"expiration_duration_seconds": 3600, "initial_acl": '
        '{"default": "forbid", "rules": [{"user": "ann", "decision": "allow"}]}}'
    )
    post = store.to("/files/upload")[0]
    assert post.headers["x-fal-object-lifecycle"] == post.headers["x-fal-object-lifecycle-preference"] == wanted


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_again(transport: Transport, store: Store, status: int) -> None:
    store.faults += [answer_times(status, 1, "/auth/token"), answer_times(status, 2, "/files/upload")]
    await client(transport, store).upload(b"abc", "text/plain", "a")
    assert store.files == {"a": b"abc"}


@pytest.mark.parametrize("status", [301, 307, 400, 403, 413, 422])
async def test_a_refusal_is_not_tried_again_and_a_redirect_not_followed(
    transport: Transport, store: Store, status: int
) -> None:
    store.faults.append(answer_times(status, 99, "/files/upload", Location=f"{store.origin}/elsewhere"))
    with pytest.raises(HttpError) as caught:
        await client(transport, store).upload(b"abc", "text/plain", fallback=["fal"] if status == 403 else [])
    assert caught.value.status == status
    assert "ksecret" not in str(caught.value)
    assert len(store.to("/files/upload")) == 1
    assert store.to("/elsewhere") == []
    assert store.to("/initiate") == []


async def test_the_tries_end(transport: Transport, store: Store) -> None:
    store.faults.append(answer_times(503, 99, "/files/upload"))
    with pytest.raises(HttpError):
        await client(transport, store).upload(b"abc", "text/plain")
    assert len(store.to("/files/upload")) == QUICK.attempts


async def test_the_other_repository_gets_no_authorization_with_the_bytes(transport: Transport, store: Store) -> None:
    uploaded = await client(transport, store).upload(b"abc", "text/plain", "a.txt", repository="fal")
    assert uploaded.url == f"{store.origin}/cdn/files/a.txt"
    assert store.files == {"a.txt": b"abc"}
    put = store.to("/signed")[0]
    assert put.path == "/signed/a.txt?sig=a%2Cb"
    assert "authorization" not in put.headers
    assert put.headers["content-type"] == "text/plain"
    assert leaked(store) == []


async def test_the_other_repository_is_tried_only_when_named(transport: Transport, store: Store) -> None:
    store.faults.append(answer_times(503, 2 * QUICK.attempts, "/files/upload"))
    with pytest.raises(HttpError):
        await client(transport, store).upload(b"abc", "text/plain", "a")
    assert store.to("/initiate") == []
    await client(transport, store).upload(b"abc", "text/plain", "a", fallback=["fal"])
    assert store.files == {"a": b"abc"}


async def test_a_broken_success_is_no_success(transport: Transport, store: Store) -> None:
    store.faults.append(lambda one: web.json_response({"access_url": 5}) if "/files/upload" in one.path else None)
    with pytest.raises(ReplyError, match="access_url"):
        await client(transport, store).upload(b"abc", "text/plain")


async def test_nobody_listens(transport: Transport) -> None:
    hosts = Hosts.resolve({}, origin="http://127.0.0.1:9")
    with pytest.raises(TransportError):
        await StorageClient(transport, hosts, KEY, repeats=QUICK).upload(b"x", "text/plain")


@pytest.mark.parametrize("content_type", ["", "png", "image/png\r\nX-Evil: 1", "image/ünknown"])
async def test_a_content_type_that_is_none_is_refused_before_anything(
    transport: Transport, store: Store, content_type: str
) -> None:
    with pytest.raises(ValueError, match="content type"):
        await client(transport, store).upload(b"x", content_type)
    assert store.heard == []


async def test_a_file_tells_its_name_and_type(transport: Transport, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "Größe – 1.png"
    path.write_bytes(b"\x89PNG")
    await client(transport, store).upload_path(path)
    post = store.to("/files/upload")[0]
    assert post.headers["content-type"] == "image/png"
    assert post.headers["x-fal-file-name"] == "Gr%C3%B6%C3%9Fe %E2%80%93 1.png"
    assert post.body == b"\x89PNG"


async def test_a_file_that_is_not_there(transport: Transport, store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await client(transport, store).upload_path(tmp_path / "none")
    assert store.heard == []


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("a b.png", "a b.png"),
        ("/home/me/a.png", "a.png"),
        ("C:\\me\\a.png", "a.png"),
        ("a\r\nX-Evil: 1.png", "a%0D%0AX-Evil%3A 1.png"),
        ("..", "upload.bin"),
        ("", "upload.bin"),
        ("日" * 100 + ".png", "%E6%97%A5" * 27 + ".png"),
        ("x" * 300, "x" * 255),
    ],
)
def test_names_become_headers(given: str, sent: str) -> None:
    assert header_name(given) == sent
    assert len(sent) <= 255


async def test_what_is_no_file_is_not_waited_for(transport: Transport, store: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="only files have a size"):
        await client(transport, store).upload_path(tmp_path / "pipe")
    assert store.heard == []
