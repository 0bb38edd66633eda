"""Uploads outlive the sandbox where it has a folder, and nothing of them stays where it has none."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import pytest

from falbatch.errors import UsageError
from falbatch.sandbox.lifecycle import Lifecycle
from falbatch.sandbox.storage import Storage, TooLarge
from tests.sandbox.conftest import Fal
from tests.sandbox.uploading import LIFECYCLE, InParts, asked, bearer, initiate, upload
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[SandboxProcess]:
    with SandboxProcess("--data", str(tmp_path / "data"), "--speed", "0") as process:
        yield process


def page_of(fal: Fal) -> dict[str, Any]:
    found: dict[str, Any] = fal.public.get(f"{fal.origin}/sandbox/uploads").json()
    return found


def test_a_killed_sandbox_comes_back_with_files_parts_targets_and_tokens(kept: SandboxProcess, tmp_path: Path) -> None:
    fal = Fal(kept.origin)
    url, sent, target = upload(fal, b"kept"), InParts(fal), initiate(fal)
    hidden = upload(fal, b"hidden", **{LIFECYCLE: asked(3600, "hide", friend="allow")})
    listed = [sent.part(1, b"one "), sent.part(2, b"two")]
    token = bearer(fal)
    fal.http.put(f"{fal.origin}/api/v1/storage/settings", json={"expiration_duration_seconds": 7200})
    before = page_of(fal)
    (tmp_path / "data" / "uploads" / "left-over").write_bytes(b"of a crash")
    kept.kill()
    kept.start()
    assert page_of(fal) == before
    assert fal.file(url).content == b"kept"
    assert [fal.file(hidden).status_code, fal.file(hidden, **token).status_code] == [404, 200]
    assert fal.http.get(f"{fal.origin}/api/v1/storage/settings").json()["expiration_duration_seconds"] == 7200
    assert sent.complete(listed).status_code == 200
    assert fal.file(sent.url).content == b"one two"
    assert fal.public.put(target["upload_url"], content=b"x").status_code == 200
    assert upload(fal) != url
    # Four files and the one just now: no bytes but theirs.
    assert len(list((tmp_path / "data" / "uploads").iterdir())) == page_of(fal)["count"] == 5
    kept.reset()
    kept.kill()
    kept.start()
    assert page_of(fal)["count"] == 0
    assert list((tmp_path / "data" / "uploads").iterdir()) == []
    fal.close()


def test_without_a_folder_nothing_stays(tmp_path: Path) -> None:
    process = SandboxProcess("--speed", "0")
    process.environment["TMPDIR"] = str(tmp_path)
    with process:
        fal = Fal(process.origin)
        assert list(tmp_path.iterdir()) == []
        upload(fal, b"x")
        assert len(list(tmp_path.iterdir())) == 1
        fal.close()
        assert process.stop() in {0, -signal.SIGTERM}
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_shelf_is_told(tmp_path: Path) -> None:
    (tmp_path / "uploads.db").write_bytes(b"no database" * 1000)
    with pytest.raises(UsageError, match=r"uploads\.db is damaged") as caught:
        Storage(tmp_path, 7)
    assert "--data" in str(caught.value.advice)


def test_a_newer_shelf_is_told(tmp_path: Path) -> None:
    import sqlite3

    Storage(tmp_path, 7).close()
    with sqlite3.connect(tmp_path / "uploads.db") as database:
        database.execute("pragma user_version=99")
    database.close()
    with pytest.raises(UsageError, match="newer falbatch"):
        Storage(tmp_path, 7)


def test_a_folder_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "uploads").write_text("")
    with pytest.raises(UsageError, match="cannot keep uploads"):
        Storage(tmp_path, 7)


@pytest.mark.parametrize(("scenario", "status"), [("", 200), ("sorted_parts: true\n", 400)])
def test_a_list_of_parts_in_another_order_is_as_the_scenario_says(tmp_path: Path, scenario: str, status: int) -> None:
    (tmp_path / "scenario.yaml").write_text(scenario)
    with SandboxProcess("--scenario", str(tmp_path / "scenario.yaml")) as process:
        fal = Fal(process.origin)
        sent = InParts(fal)
        first, second = sent.part(1, b"one "), sent.part(2, b"two")
        assert sent.complete([second]).status_code == 400
        assert sent.complete([second, first]).status_code == status
        # Completing once more is no mistake, in either order: the first answer may have got lost.
        assert sent.complete([first, second]).status_code == 200
        assert fal.file(sent.url).content == b"one two"
        fal.close()


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def test_a_body_that_is_too_long_leaves_nothing(tmp_path: Path) -> None:
    async def receive() -> None:
        with pytest.raises(TooLarge):
            await storage.receive(chunks(b"x" * 2_000_000, b"x" * 2_000_000), 3_000_000)

    storage = Storage(tmp_path, 7)
    asyncio.run(receive())
    assert list(storage.folder.iterdir()) == []
    storage.close()


def test_two_completions_and_a_reset_at_once_make_one_file_or_none(tmp_path: Path) -> None:
    async def upload_in_parts(*, resets: bool) -> list[Any]:
        upload = storage.begin("me", "", "a.bin", Lifecycle(), in_parts=True)
        storage.open(upload)
        for number in (1, 2):
            storage.keep_part(upload, number, await storage.receive(chunks(b"%d" % number), 10))
        completing = [asyncio.create_task(storage.complete(upload, [1, 2], 5.0)) for _ in range(2)]
        await asyncio.sleep(0)  # both have begun
        if resets:
            storage.reset()
        return [await task for task in completing]

    async def scenario() -> None:
        one, other = await upload_in_parts(resets=False)
        assert one is other is storage.files(6.0)[0]
        assert storage.place_of(one).read_bytes() == b"12"
        for _ in range(5):
            assert await upload_in_parts(resets=True) == [None, None]
            assert storage.files(6.0) == []
            assert list(storage.folder.iterdir()) == []

    storage = Storage(tmp_path, 7)
    asyncio.run(scenario())
    storage.close()
