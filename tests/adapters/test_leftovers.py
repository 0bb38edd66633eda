"""What an earlier try, or somebody's hands, left beside a download, and what a full disk leaves behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.fetch import Fetcher
from falbatch.adapters.files import OutputFolder
from falbatch.adapters.limits import MEBIBYTE, FetchLimits
from falbatch.errors import DiskFull, FalbatchError, WireError
from tests.adapters.conftest import Site, whole

if TYPE_CHECKING:
    from falbatch.fal.transport import Transport

pytestmark = pytest.mark.anyio

LARGE = bytes(range(256)) * (3 * MEBIBYTE // 256)


async def test_a_note_without_its_part_is_no_hindrance(site: Site, opener: Transport, tmp_path: Path) -> None:
    """Hands remove what they see; the note begins with a dot as its part does, and may be left alone."""
    url = site.put("/a.bin", whole(LARGE, headers='ETag: "one"\r\n'))
    files = OutputFolder(tmp_path, Fetcher(opener, allow_http=True))
    (tmp_path / ".a.part.etag").write_text(f'{{"url": "{url}", "etag": "\\"other\\""}}', encoding="utf-8")
    fetched = await files.fetch(url, ".a.part", size_bytes=None, content_type=None)
    assert fetched.size_bytes == len(LARGE)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.part"]


@pytest.mark.parametrize("is_new", [True, False])
async def test_no_answer_throws_away_what_lies_behind_a_link(
    site: Site, opener: Transport, tmp_path: Path, is_new: bool
) -> None:
    outside, root = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    root.mkdir()
    (outside / ".b.part").write_text("precious", encoding="utf-8")
    (root / "sub").symlink_to(outside)
    files = OutputFolder(root, Fetcher(opener, allow_http=True, limits=FetchLimits(bytes_most=10)))
    for url in (site.put("/416", whole(b"", status="416 Range Not Satisfiable")), site.put("/big", whole(LARGE))):
        with pytest.raises((FalbatchError, WireError)):
            await files.fetch(url, "sub/.b.part", size_bytes=None, content_type=None, is_new=is_new)
    assert (outside / ".b.part").read_text(encoding="utf-8") == "precious"


async def test_a_full_disk_leaves_no_file_open(site: Site, opener: Transport, tmp_path: Path) -> None:
    url = site.put("/c.bin", whole(LARGE, headers='ETag: "one"\r\n'))
    files = OutputFolder(tmp_path, Fetcher(opener, allow_http=True, limits=FetchLimits(free_least_bytes=1 << 60)))
    for number in range(5):
        with pytest.raises(DiskFull):
            await files.fetch(url, f".c{number}.part", size_bytes=None, content_type=None)
    here = [link for link in Path("/proc/self/fd").iterdir() if str(tmp_path) in os.path.realpath(link)]
    assert here == []
