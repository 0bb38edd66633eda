"""Whatever lies in the output folder, before a run or put there while it goes on, nothing outside it is written."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.files import OutputFolder, make_folder
from falbatch.adapters.partfile import meta_path
from falbatch.errors import OutputError, TransportError
from tests.adapters.conftest import Asked, Site, resumable, whole

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fal.raw_server import Peer

pytestmark = pytest.mark.anyio

TEXT = b"some text\n" * 500
ETAG = '"v1"'
PRECIOUS = b"some text\n" * 100
"""The beginning of TEXT: what a part file might hold."""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder outside, with a file that must stay as it is."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious.txt").write_bytes(PRECIOUS)
    return folder


def _is_untouched(outside: Path) -> bool:
    return [place.name for place in outside.iterdir()] == ["precious.txt"] and (
        outside / "precious.txt"
    ).read_bytes() == PRECIOUS


def _noted(part: Path, url: str) -> None:
    """Pretend that `part` is the beginning of `url`."""
    meta_path(part).write_text(json.dumps({"url": url, "etag": ETAG}))


async def _bring(files: OutputFolder, url: str, part: str, path: str) -> None:
    await files.fetch(url, part, size_bytes=None, content_type=None)
    await files.publish(part, path)


async def test_a_folder_that_becomes_a_link_between_two_files_is_not_followed(
    site: Site, files: OutputFolder, root: Path, outside: Path
) -> None:
    url = site.put("/a.txt", whole(TEXT))
    await _bring(files, url, "anna/.a.part", "anna/a.txt")
    await files.keep(b"x", "anna/.b.part", content_type=None)
    (root / "anna").rename(root / "real")
    (root / "anna").symlink_to(outside)
    with pytest.raises(OutputError, match="a link leads out"):
        await files.fetch(url, "anna/.c.part", size_bytes=None, content_type=None)
    with pytest.raises(OutputError, match="a link leads out"):
        await files.keep(b"x", "anna/.c.part", content_type=None)
    with pytest.raises(OutputError, match="a link leads out"):
        await files.publish("anna/.b.part", "anna/b.txt")
    with pytest.raises(OutputError, match="a link leads out"):
        await files.publish("real/.b.part", "anna/b.txt")
    with pytest.raises(OutputError, match="a link leads out"):
        await files.publish("anna/precious.txt", "b.txt")
    assert _is_untouched(outside)


async def test_a_folder_that_is_moved_out_while_a_file_comes_gets_nothing_more(
    site: Site, large_files: OutputFolder, root: Path, outside: Path
) -> None:
    async def moving(peer: Peer, asked: Asked) -> None:
        await peer.answer(TEXT[:100], length=len(TEXT))
        while not (root / "anna" / ".a.part").exists():
            await asyncio.sleep(0.01)
        (root / "anna").rename(root / "real")
        (root / "anna").symlink_to(outside)
        await peer.send(TEXT[100:])

    with pytest.raises(OutputError):
        await _bring(large_files, site.put("/a.txt", moving), "anna/.a.part", "anna/a.txt")
    assert _is_untouched(outside)


@pytest.mark.parametrize("target", ["gone", "gone/deeper", "../outside/gone"])
async def test_a_broken_link_in_the_place_of_a_folder_makes_nothing_outside(
    files: OutputFolder, root: Path, outside: Path, target: str
) -> None:
    (root / "anna").symlink_to(outside / target)
    with pytest.raises(OutputError, match="a link leads out"):
        await files.keep(b"x", "anna/b/.a.part", content_type=None)
    assert _is_untouched(outside)


async def test_links_in_a_circle_are_an_output_error(files: OutputFolder, root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(OutputError):
        await files.keep(b"x", "a/.x.part", content_type=None)
    assert not await files.holds("a/x", size_bytes=1, sha256=b"")


@pytest.mark.parametrize("trap", ["symlink", "hard link"])
async def test_a_part_that_is_a_file_outside_is_replaced_not_gone_on_with(
    site: Site, files: OutputFolder, root: Path, outside: Path, trap: str
) -> None:
    url = site.put("/a.txt", resumable(TEXT, ETAG))
    part = root / ".a.part"
    if trap == "symlink":
        part.symlink_to(outside / "precious.txt")
    else:
        part.hardlink_to(outside / "precious.txt")
    _noted(part, url)
    await _bring(files, url, ".a.part", "a.txt")
    assert site.asked[0].range == (None, None)
    assert (root / "a.txt").read_bytes() == TEXT
    assert not (root / "a.txt").is_symlink()
    assert _is_untouched(outside)


@pytest.mark.parametrize("trap", ["symlink", "fifo", "folder"])
async def test_a_note_that_is_no_plain_file_is_not_read_nor_written(
    site: Site, files: OutputFolder, root: Path, outside: Path, trap: str
) -> None:
    url = site.put("/a.txt", resumable(TEXT, ETAG))
    part = root / ".a.part"
    part.write_bytes(PRECIOUS)
    note = meta_path(part)
    if trap == "symlink":
        note.symlink_to(outside / "precious.txt")
    elif trap == "fifo":
        os.mkfifo(note)
    else:
        note.mkdir()
        with pytest.raises(OutputError, match=r"\.a\.part"):
            await files.fetch(url, ".a.part", size_bytes=None, content_type=None)
        return
    await _bring(files, url, ".a.part", "a.txt")
    assert site.asked[0].range == (None, None)
    assert (root / "a.txt").read_bytes() == TEXT
    assert _is_untouched(outside)


async def test_a_pipe_in_the_place_of_a_part_is_replaced_and_nobody_waits_for_it(
    site: Site, files: OutputFolder, root: Path
) -> None:
    url = site.put("/a.txt", resumable(TEXT, ETAG))
    for noted in (False, True):
        os.mkfifo(root / ".a.part")
        if noted:
            _noted(root / ".a.part", url)
        await _bring(files, url, ".a.part", "a.txt")
        assert (root / "a.txt").read_bytes() == TEXT
    os.mkfifo(root / ".a.part")
    await files.keep(b"x", ".a.part", content_type=None)
    assert (root / ".a.part").read_bytes() == b"x"


async def test_a_folder_in_the_place_of_a_part_is_said_and_left(site: Site, files: OutputFolder, root: Path) -> None:
    url = site.put("/a.txt", whole(TEXT))
    (root / ".a.part").mkdir()
    (root / ".a.part" / "mine").write_bytes(b"x")
    with pytest.raises(OutputError, match=r"\.a\.part: cannot be written") as caught:
        await files.fetch(url, ".a.part", size_bytes=None, content_type=None)
    assert caught.value.advice
    with pytest.raises(OutputError, match=r"\.a\.part: cannot be written"):
        await files.keep(b"x", ".a.part", content_type=None)
    with pytest.raises(OutputError, match="is not the file that was written"):
        await files.publish(".a.part", "a.txt")
    assert (root / ".a.part" / "mine").read_bytes() == b"x"


async def test_a_part_that_becomes_a_link_is_not_given_a_name(files: OutputFolder, root: Path, outside: Path) -> None:
    await files.keep(PRECIOUS, ".a.part", content_type=None)
    (root / ".a.part").unlink()
    (root / ".a.part").symlink_to(outside / "precious.txt")
    with pytest.raises(OutputError, match="is not the file that was written"):
        await files.publish(".a.part", "a.txt")
    assert not os.path.lexists(root / "a.txt")


async def test_a_part_that_becomes_a_link_while_it_comes_is_not_read(
    site: Site, large_files: OutputFolder, root: Path, outside: Path
) -> None:
    async def swapping(peer: Peer, asked: Asked) -> None:
        await peer.answer(TEXT[:100], length=len(TEXT))
        while not (root / ".a.part").exists():
            await asyncio.sleep(0.01)
        (root / ".a.part").unlink()
        (root / ".a.part").symlink_to(outside / "precious.txt")
        await peer.send(TEXT[100:])

    with pytest.raises(OutputError):
        await _bring(large_files, site.put("/a.txt", swapping), ".a.part", "a.txt")
    assert _is_untouched(outside)


@pytest.mark.parametrize("trap", ["fifo", "folder", "device"])
async def test_what_is_no_file_is_never_the_file_on_record(files: OutputFolder, root: Path, trap: str) -> None:
    place = root / "a.txt"
    if trap == "fifo":
        os.mkfifo(place)
    elif trap == "folder":
        place.mkdir()
    else:
        place.symlink_to("/dev/null")
    size = place.stat().st_size
    assert not await files.holds("a.txt", size_bytes=size, sha256=b"")


async def test_a_result_that_is_refused_leaves_what_is_outside_alone(
    files: OutputFolder, root: Path, outside: Path
) -> None:
    (root / ".a.part").symlink_to(outside / "precious.txt")
    with pytest.raises(TransportError):
        await files.keep(b"<html>", ".a.part", content_type="image/png")
    assert _is_untouched(outside)
    assert list(root.iterdir()) == []


def test_looking_whether_the_folder_can_be_written_follows_no_link(root: Path, outside: Path) -> None:
    (root / f".falbatch-{os.getpid()}.probe").symlink_to(outside / "precious.txt")
    make_folder(root)
    assert _is_untouched(outside)
    assert list(root.iterdir()) == []
