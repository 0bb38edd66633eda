"""What fal said, kept between commands: real files, and whatever can be wrong with them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from falbatch.adapters.cache import FRESH_S, Cache, Cached, open_cache

if TYPE_CHECKING:
    from pathlib import Path

FAL = "https://queue.fal.run"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return open_cache({"FALBATCH_CACHE": str(tmp_path / "cache")}, FAL)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None]}, [], "x", 0, {"seed": 2**70}])
def test_what_is_kept_comes_back_with_its_date(cache: Cache, value: Any) -> None:
    cache.put("schema", "fal-ai/flux/dev", value, at=1000.5)
    kept = cache.get("schema", "fal-ai/flux/dev")
    assert kept == (Cached(1000.5, value))


def test_names_kinds_and_fals_are_kept_apart(cache: Cache, tmp_path: Path) -> None:
    cache.put("schema", "a/b", 1, at=1)
    cache.put("schema", "a-b", 2, at=1)
    cache.put("price", "a/b", 3, at=1)
    other = open_cache({"FALBATCH_CACHE": str(tmp_path / "cache")}, "http://127.0.0.1:8787/queue")
    assert other.get("schema", "a/b") is None
    kept = [cache.get("schema", "a/b"), cache.get("schema", "a-b"), cache.get("price", "a/b")]
    assert [one.value for one in kept if one] == [1, 2, 3]


def test_a_name_leads_nowhere_else(cache: Cache, tmp_path: Path) -> None:
    for name in ("../../../escape", "/etc/passwd", "a\0b", "x" * 500, "", "ä" * 90, ".."):
        cache.put("schema", name, name, at=1)
        kept = cache.get("schema", name)
        assert kept is not None
        assert kept.value == name
    assert all(path.is_relative_to(tmp_path / "cache") for path in files(tmp_path))


def test_what_is_a_day_old_is_not_fresh_nor_is_what_comes_from_the_future() -> None:
    assert Cached(100.0, 1).is_fresh(100.0 + FRESH_S - 1)
    assert not Cached(100.0, 1).is_fresh(100.0 + FRESH_S)
    assert not Cached(100.0, 1).is_fresh(99.0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"name":"a/b","value":1}',
        b'{"name":"c/d","at":1,"value":1}',
        b'{"name":"a/b","at":true}',
        b'{"name":"a/b","at":"1"}',
        b'{"name":"a/b","at":NaN,"value":1}',
        b'{"name":"a/b","at":1e20,"value":1}',
        b'{"name":"a/b","at":-1,"value":1}',
        b'{"name":"a/b","at":' + b"9" * 400 + b',"value":1}',
    ],
)
def test_a_file_that_makes_no_sense_is_as_good_as_none(cache: Cache, tmp_path: Path, body: bytes) -> None:
    cache.put("schema", "a/b", 1, at=1)
    (path,) = files(tmp_path)
    path.write_bytes(body)
    assert cache.get("schema", "a/b") is None
    cache.put("schema", "a/b", 2, at=2)
    assert cache.get("schema", "a/b") == Cached(2.0, 2)


def test_a_folder_that_cannot_be_made_keeps_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    cache = open_cache({"FALBATCH_CACHE": str(tmp_path / "cache")}, FAL)
    cache.put("schema", "a/b", 1, at=1)
    assert cache.get("schema", "a/b") is None


def test_a_cache_of_nowhere_keeps_nothing() -> None:
    cache = Cache(None)
    cache.put("schema", "a/b", 1, at=1)
    assert cache.get("schema", "a/b") is None


def test_what_is_nested_too_deep_to_be_read_is_not_there(cache: Cache) -> None:
    cache.put("schema", "a/b", nested(200), at=1)
    assert cache.get("schema", "a/b") == Cached(1.0, nested(200))
    cache.put("schema", "a/b", nested(900), at=1)
    assert cache.get("schema", "a/b") is None


@pytest.mark.parametrize("value", [{1, 2}, float, nested(100_000)])
def test_what_cannot_be_kept_is_not_kept(cache: Cache, value: Any) -> None:
    cache.put("schema", "a/b", value, at=1)
    assert cache.get("schema", "a/b") is None


def test_writers_at_the_same_time_leave_whole_files(cache: Cache, tmp_path: Path) -> None:
    values = [str(number) * 20_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda value: cache.put("schema", "a/b", value, at=1), values * 8))
    kept = cache.get("schema", "a/b")
    assert kept is not None
    assert kept.value in values
    assert len(files(tmp_path)) == 1


def test_without_a_word_it_is_where_the_platform_keeps_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    open_cache(os.environ, FAL).put("schema", "a/b", 1, at=1)
    (path,) = files(tmp_path)
    assert "falbatch" in path.relative_to(tmp_path).parts
    assert "queue.fal.run" in str(path)
    assert oct(path.stat().st_mode & 0o077) == "0o0"
