"""Local files: what they hold, when an old answer still holds, and bytes that are checked on their way out."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.localfiles import (
    Content,
    Stamp,
    check,
    check_again,
    content_of,
    content_type_of,
    look,
    place_of,
    read_checked,
)
from falbatch.core.faults import Fault
from falbatch.core.fileinputs import FileUnusable

if TYPE_CHECKING:
    from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def sha(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo one.png"
    path.write_bytes(PNG)
    return path


def stamp_of(path: Path) -> Stamp:
    found = path.stat()
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def what(found: object) -> str:
    assert isinstance(found, Fault)
    return f"{found.what} ({found.hint})"


def test_a_file_is_read_once_and_tells_what_it_holds(photo: Path) -> None:
    content = content_of(str(photo))
    assert isinstance(content, Content)
    assert content.sha256 == sha(PNG)
    assert content.stamp == look(str(photo)) == stamp_of(photo)


def test_what_is_no_file_is_said_with_what_to_do(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    for ask in (look, content_of):
        assert "did you mean" in what(ask(str(tmp_path / "photo_one.png")))
        assert "paths are relative to the manifest's folder" in what(ask(str(tmp_path / "nowhere" / "zzz")))
        assert "rows: {glob: …}" in what(ask(str(tmp_path)))
        assert "the file is empty" in what(ask(str(tmp_path / "empty")))
        assert "no such file" in what(ask(str(photo / "inside")))
        assert "no path" in what(ask("a\0b"))
    assert "no plain file" in what(look(str(tmp_path / "pipe")))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(photo: Path) -> None:
    photo.chmod(0)
    assert "cannot be read: Permission denied" in what(content_of(str(photo)))


@pytest.mark.parametrize(
    ("mtime_ns", "age_ns", "holds"),
    [
        (1_700_000_000_123_456_789, 10**12, True),
        (1_700_000_000_123_456_789, 60_000_000, True),
        (1_700_000_000_123_456_789, 40_000_000, False),
        (1_700_000_000_000_000_000, 1_000_000_000, False),
        (1_700_000_000_000_000_000, 2_100_000_000, True),
        (1_700_000_000_123_456_789, -(10**12), False),
    ],
)
def test_an_answer_holds_when_the_file_had_rested_before_it_was_read(mtime_ns: int, age_ns: int, holds: bool) -> None:
    for earlier_ns in (mtime_ns, 5):  # either time may be the later one
        for times in ((mtime_ns, earlier_ns), (earlier_ns, mtime_ns)):
            content = Content(Stamp(5, *times), mtime_ns + age_ns, b"x")
            assert content.holds_for(Stamp(5, *times)) is holds
            assert not content.holds_for(Stamp(6, *times))
            assert not content.holds_for(Stamp(5, times[0] + 1, times[1]))
            assert not content.holds_for(Stamp(5, times[0], times[1] + 1))


def test_a_file_that_took_the_place_of_one_of_the_same_size_and_time_is_another(photo: Path, tmp_path: Path) -> None:
    before = photo.stat()
    known = Content(stamp_of(photo), time.time_ns() + 10**12, sha(PNG))
    assert known.holds_for(stamp_of(photo))
    other = tmp_path / "other"
    other.write_bytes(bytes(len(PNG)))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(photo)
    assert photo.stat().st_mtime_ns == before.st_mtime_ns
    assert not known.holds_for(stamp_of(photo))


def test_a_pipe_in_the_place_of_a_file_is_another_file(photo: Path) -> None:
    photo.unlink()
    os.mkfifo(photo)
    writer = os.open(photo, os.O_RDWR)
    try:
        with pytest.raises(FileUnusable, match="not what it was"):
            read_checked(str(photo), sha(PNG), len(PNG))
    finally:
        os.close(writer)


def test_bytes_on_their_way_out_are_those_that_were_planned(photo: Path) -> None:
    assert read_checked(str(photo), sha(PNG), len(PNG)) == PNG
    with photo.open("ab") as file:
        file.write(b"more")
    with pytest.raises(FileUnusable, match="not what it was") as caught:
        read_checked(str(photo), sha(PNG), len(PNG))
    assert caught.value.error_type == "file_changed"
    photo.unlink()
    with pytest.raises(FileUnusable, match="the file is gone") as caught:
        read_checked(str(photo), sha(PNG), len(PNG))
    assert caught.value.error_type == "file_missing"


def test_a_large_file_is_looked_at_before_and_after(photo: Path) -> None:
    checked = check(str(photo), sha(PNG))
    assert checked.head == PNG
    check_again(checked)
    os.utime(photo, ns=(time.time_ns(), photo.stat().st_mtime_ns))
    with pytest.raises(FileUnusable, match="not what it was"):
        check_again(checked)
    with pytest.raises(FileUnusable, match="not what it was"):
        check(str(photo), sha(b"other"))
    photo.unlink()
    with pytest.raises(FileUnusable, match="gone"):
        check_again(checked)


@pytest.mark.parametrize(
    ("head", "name", "content_type"),
    [
        (PNG, "a.jpg", "image/png"),
        (b"plain words", "a.txt", "text/plain"),
        (b"\x00\x01", "a.unheard-of", "application/octet-stream"),
        (b"\x00\x01", "weights", "application/octet-stream"),
    ],
)
def test_the_content_type_goes_by_the_bytes_then_by_the_name(head: bytes, name: str, content_type: str) -> None:
    assert content_type_of(head, name) == content_type


def test_places_are_absolute() -> None:
    assert place_of("/a/b", "c.png") == "/a/b/c.png"
    assert place_of("/a/b", "../c.png") == "/a/c.png"
    assert place_of("/a/b", "/c.png") == "/c.png"
