"""Files appear in the output folder whole, under their name, and nowhere else."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.fetch import Fetcher
from falbatch.adapters.files import OutputFolder, make_folder
from falbatch.adapters.limits import FetchLimits
from falbatch.adapters.partfile import meta_path
from falbatch.core.classify import DownloadVerdict, download_verdict
from falbatch.errors import DiskFull, ExitCode, HttpError, OutputError, TransportError
from tests.adapters.conftest import Site, cut, resumable, whole

if TYPE_CHECKING:
    from pathlib import Path

    from falbatch.fal.transport import Transport
    from tests.adapters.conftest import TinyDisk

pytestmark = pytest.mark.anyio

GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
TEXT = b"some text\n" * 500


async def _keep(files: OutputFolder, body: bytes, part: str, path: str) -> None:
    await files.keep(body, part, content_type="text/plain")
    await files.publish(part, path)


def _names(folder: Path) -> list[str]:
    """Everything below `folder`."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


async def test_a_file_is_fetched_under_its_temporary_name_and_then_gets_its_own(
    site: Site, files: OutputFolder, root: Path
) -> None:
    url = site.put("/x", whole(GIF, headers='ETag: "1"\r\n'))
    fetched = await files.fetch(url, "anna/.a.0.part", size_bytes=len(GIF), content_type="image/gif")
    assert _names(root) == ["anna", "anna/.a.0.part"]
    await files.publish("anna/.a.0.part", f"anna/a{fetched.extension}")
    assert _names(root) == ["anna", "anna/a.gif"]
    assert (root / "anna" / "a.gif").read_bytes() == GIF
    assert stat.S_IMODE((root / "anna" / "a.gif").stat().st_mode) & 0o600 == 0o600


async def test_an_interrupted_file_goes_on_and_leaves_nothing_behind(
    site: Site, files: OutputFolder, root: Path
) -> None:
    url = site.put("/x.txt", cut(TEXT, 2_000, headers='ETag: "1"\r\n'), resumable(TEXT, '"1"'))
    with pytest.raises(TransportError):
        await files.fetch(url, ".a.0.part", size_bytes=None, content_type=None)
    assert _names(root) == [".a.0.part", ".a.0.part.etag"]
    await files.fetch(url, ".a.0.part", size_bytes=None, content_type=None)
    assert site.asked[-1].headers["range"] == "bytes=2000-"
    await files.publish(".a.0.part", "a.txt")
    assert _names(root) == ["a.txt"]
    assert (root / "a.txt").read_bytes() == TEXT


async def test_a_dead_link_is_said_and_leaves_nothing(site: Site, files: OutputFolder, root: Path) -> None:
    url = site.put("/x", whole(b"gone", status="404 Not Found"))
    with pytest.raises(HttpError) as caught:
        await files.fetch(url, ".a.0.part", size_bytes=None, content_type="image/png")
    assert caught.value.status == 404
    assert _names(root) == []


@pytest.mark.parametrize(
    ("uri", "body", "extension"),
    [
        ("data:image/gif;base64," + base64.b64encode(GIF).decode(), GIF, ".gif"),
        ("DATA:;base64," + base64.b64encode(GIF).decode(), GIF, ".gif"),
        ("data:text/plain,a%20b%00c", b"a b\x00c", ".txt"),
    ],
)
async def test_a_file_that_came_inside_the_result_is_unpacked(
    files: OutputFolder, root: Path, uri: str, body: bytes, extension: str
) -> None:
    fetched = await files.fetch(uri, ".a.0.part", size_bytes=None, content_type=None)
    assert (fetched.size_bytes, fetched.sha256, fetched.extension) == (
        len(body),
        hashlib.sha256(body).digest(),
        extension,
    )
    assert (root / ".a.0.part").read_bytes() == body


@pytest.mark.parametrize(
    "uri",
    [
        "data:image/gif;base64,R0lGOD*",
        "data:nonsense",
        "data:image/png;base64,",
        "data:image/png,<html>",
        "data:image/gif;base64," + base64.b64encode(GIF[:-2]).decode() + "AA",
    ],
)
async def test_a_broken_data_uri_is_refused_for_good(files: OutputFolder, root: Path, uri: str) -> None:
    """It came with the result: no other try will bring a better one."""
    with pytest.raises(TransportError) as caught:
        await files.fetch(uri, ".a.0.part", size_bytes=None, content_type=None)
    assert download_verdict(caught.value) is DownloadVerdict.REFUSED
    assert _names(root) == []


async def test_bytes_at_hand_are_kept_over_what_was_left_of_a_download(files: OutputFolder, root: Path) -> None:
    (root / ".a.0.part").write_bytes(b"something older and longer")
    meta_path(root / ".a.0.part").write_text('{"url": "x", "etag": "y"}')
    fetched = await files.keep(b'{"n": 1}', ".a.0.part", content_type="application/json")
    assert (fetched.size_bytes, fetched.extension) == (8, ".json")
    assert _names(root) == [".a.0.part"]
    assert (root / ".a.0.part").read_bytes() == b'{"n": 1}'


async def test_a_new_file_takes_the_place_of_the_old_one_in_one_moment(files: OutputFolder, root: Path) -> None:
    old, new = b"a" * 200_000, b"b" * 300_000
    await _keep(files, old, ".a.part", "a.txt")
    seen: set[bytes] = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen.add((root / "a.txt").read_bytes())

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for number in range(100):
            await _keep(files, (new, old)[number % 2], ".a.part", "a.txt")
    finally:
        stop.set()
        looker.join()
    assert seen <= {old, new}
    assert len(seen) == 2, "the reader saw no change: the test proves nothing"


async def test_a_name_and_the_folders_on_its_way_are_made_durable(
    files: OutputFolder, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    await _keep(files, TEXT, "x/y/.a.part", "x/y/a.txt")
    places = [root, root / "x", root / "x/y/a.txt", root / "x/y"]
    assert synced == [place.stat().st_ino for place in places]


async def test_publishing_what_is_not_there_is_an_output_error(files: OutputFolder, root: Path) -> None:
    with pytest.raises(OutputError, match=r"a\.txt"):
        await files.publish(".a.part", "a.txt")
    (root / "a.txt").mkdir()
    await files.keep(b"x", ".a.part", content_type=None)
    with pytest.raises(OutputError, match=r"a\.txt"):
        await files.publish(".a.part", "a.txt")


async def test_a_file_is_held_when_size_and_contents_are_right(files: OutputFolder, root: Path) -> None:
    (root / "a.txt").write_bytes(TEXT)
    digest = hashlib.sha256(TEXT).digest()
    assert await files.holds("a.txt", size_bytes=len(TEXT), sha256=digest)
    assert not await files.holds("a.txt", size_bytes=len(TEXT) - 1, sha256=digest)
    assert not await files.holds("a.txt", size_bytes=len(TEXT), sha256=hashlib.sha256(b"").digest())
    assert not await files.holds("b.txt", size_bytes=len(TEXT), sha256=digest)
    assert not await files.holds("a.txt/c", size_bytes=len(TEXT), sha256=digest)


async def test_a_place_is_taken_by_anything_be_it_a_broken_link(files: OutputFolder, root: Path) -> None:
    (root / "a").write_text("x")
    (root / "b").symlink_to("nowhere")
    (root / "c").mkdir()
    assert [files.is_taken(name) for name in ("a", "b", "c", "d")] == [True, True, True, False]


ESCAPES = ["../x", "a/../../x", "/etc/x", "a\\b", "..\\x", "", "..", "a/.."]


@pytest.mark.parametrize("path", ESCAPES)
async def test_no_path_leads_out_of_the_folder(site: Site, files: OutputFolder, root: Path, path: str) -> None:
    url = site.put("/x", whole(TEXT))
    await files.keep(b"x", ".ok.part", content_type=None)
    with pytest.raises(OutputError, match="not a place inside"):
        await files.keep(b"x", path, content_type=None)
    with pytest.raises(OutputError, match="not a place inside"):
        await files.fetch(url, path, size_bytes=None, content_type=None)
    with pytest.raises(OutputError, match="not a place inside"):
        await files.publish(".ok.part", path)
    with pytest.raises(OutputError, match="not a place inside"):
        await files.publish(path, "ok")
    with pytest.raises(OutputError, match="not a place inside"):
        files.is_taken(path)
    with pytest.raises(OutputError, match="not a place inside"):
        await files.holds(path, size_bytes=0, sha256=b"")
    assert site.asked == []
    assert _names(root.parent) == ["out", "out/.ok.part"]


@pytest.mark.parametrize("path", ["link/a.txt", "link/deep/er/a.txt", "sub/link/a.txt"])
async def test_a_link_that_leads_out_of_the_folder_is_not_followed(
    files: OutputFolder, root: Path, tmp_path: Path, path: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "sub").mkdir()
    (root / "link").symlink_to(outside)
    (root / "sub" / "link").symlink_to("../../outside")
    with pytest.raises(OutputError, match="a link leads out") as caught:
        await files.keep(b"x", path, content_type=None)
    assert "Remove the link" in caught.value.advice
    await files.keep(b"x", ".a.part", content_type=None)
    with pytest.raises(OutputError, match="a link leads out"):
        await files.publish(".a.part", path)
    assert _names(outside) == []


async def test_a_link_within_the_folder_is_followed(files: OutputFolder, root: Path) -> None:
    (root / "real").mkdir()
    (root / "link").symlink_to("real")
    await _keep(files, b"x", "link/.a.part", "link/a.txt")
    assert _names(root) == ["link", "real", "real/a.txt"]


async def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(
    files: OutputFolder, root: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("precious")
    for name in (".a.part", "a.txt"):
        (root / name).symlink_to(precious)
    await _keep(files, b"x", ".a.part", "a.txt")
    assert precious.read_text() == "precious"
    assert (root / "a.txt").read_bytes() == b"x"
    assert not (root / "a.txt").is_symlink()


async def test_the_folder_itself_may_be_a_link(opener: Transport, root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    await _keep(OutputFolder(tmp_path / "link", Fetcher(opener, allow_http=False)), b"x", "s/.a.part", "s/a.txt")
    assert _names(root) == ["s", "s/a.txt"]


async def test_a_file_in_the_way_of_a_folder_is_an_output_error(files: OutputFolder, root: Path) -> None:
    (root / "anna").write_text("a file")
    with pytest.raises(OutputError, match="anna") as caught:
        await files.keep(b"x", "anna/.a.part", content_type=None)
    assert caught.value.exit_code is ExitCode.USAGE
    assert caught.value.advice


async def test_a_full_disk_is_told_apart_and_can_be_mended(site: Site, opener: Transport, tiny_disk: TinyDisk) -> None:
    to_the_last_byte = FetchLimits(free_least_bytes=0, in_memory_most=0)
    files = OutputFolder(tiny_disk.path, Fetcher(opener, allow_http=True, limits=to_the_last_byte))
    body = TEXT * 100
    url = site.put("/x.txt", resumable(body, '"1"'))
    for attempt in (
        files.fetch(url, ".a.part", size_bytes=None, content_type=None),
        files.keep(body, ".b.part", content_type=None),
    ):
        with pytest.raises(DiskFull, match="no space left") as caught:
            await attempt
        assert caught.value.exit_code is ExitCode.DISK_FULL
        assert "Free some space" in caught.value.advice
    with pytest.raises(DiskFull):
        make_folder(tiny_disk.path)
    assert [name for name in _names(tiny_disk.path) if name.endswith(".probe")] == []

    tiny_disk.resize(4096)
    make_folder(tiny_disk.path)
    await files.fetch(url, ".a.part", size_bytes=None, content_type=None)
    assert site.asked[-1].headers["if-range"] == '"1"'
    assert (tiny_disk.path / ".a.part").read_bytes() == body


async def test_downloads_leave_room_to_record_what_is_paid_for(
    site: Site, opener: Transport, tiny_disk: TinyDisk
) -> None:
    tiny_disk.resize(1536)
    small = FetchLimits(free_least_bytes=1024 * 1024)
    files = OutputFolder(tiny_disk.path, Fetcher(opener, allow_http=True, limits=small))
    url = site.put("/x.txt", whole(TEXT * 500))
    with pytest.raises(DiskFull, match="no space left"):
        await files.fetch(url, ".a.part", size_bytes=None, content_type=None)
    (tiny_disk.path / "state").write_bytes(b"\0" * 768 * 1024)


def test_making_the_output_folder_leaves_nothing_in_it(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert _names(tmp_path) == ["a", "a/b"]


def test_an_output_folder_that_cannot_be_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "sub"):
        with pytest.raises(OutputError, match="cannot be written") as caught:
            make_folder(place)
        assert str(place) in str(caught.value)


def test_an_output_folder_on_a_read_only_disk_is_said_at_once(tiny_disk: TinyDisk) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk.path)], check=True)
    with pytest.raises(OutputError, match="Read-only"):
        make_folder(tiny_disk.path)
