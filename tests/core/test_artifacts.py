"""Which files a result holds, wherever they sit, and where they go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.artifacts import (
    MAX_ARTIFACTS,
    MAX_DEPTH,
    FileRef,
    artifact_path,
    decode_data_uri,
    extension_of,
    find_files,
    is_apart,
    is_file_url,
    part_path,
)

A = "https://v3.fal.media/files/b/a.png"
B = "https://v3.fal.media/files/b/b.png"
DATA = "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.parametrize(
    ("output", "refs"),
    [
        (
            {"images": [{"url": A, "width": 4, "content_type": "image/png", "file_size": 12}, {"url": B}], "seed": 1},
            [FileRef(A, "images[0]", "image/png", 12), FileRef(B, "images[1]")],
        ),
        ({"image": {"url": A}}, [FileRef(A, "image")]),
        ({"url": A}, [FileRef(A, "result")]),
        ({"audio_url": A}, [FileRef(A, "audio_url")]),
        ({"output": [A, B]}, [FileRef(A, "output[0]"), FileRef(B, "output[1]")]),
        (A, [FileRef(A, "")]),
        (
            {"node_1": {"outputs": {"video": {"url": A}}}, "node_2": {"mask": B}},
            [FileRef(A, "node_1.outputs.video"), FileRef(B, "node_2.mask")],
        ),
        ({"image": {"url": DATA, "content_type": "image/png"}}, [FileRef(DATA, "image", "image/png")]),
        ({"mask": DATA}, [FileRef(DATA, "mask")]),
        ({"a": A, "b": {"url": A}, "c": [A]}, [FileRef(A, "a")]),
        ({"file": {"url": A, "thumbnail": {"url": B}}}, [FileRef(A, "file"), FileRef(B, "file.thumbnail")]),
        ({"file": {"url": A, "file_size": 0, "content_type": 5}}, [FileRef(A, "file")]),
        ({"file": {"url": A, "file_size": True}}, [FileRef(A, "file")]),
        ({"file": {"url": A, "file_size": "12"}}, [FileRef(A, "file")]),
        ({"file": {"url": A, "file_size": None, "content_type": None}}, [FileRef(A, "file")]),
        ({"image": {"url": "a.png"}, "text": f"see {A} there", "n": 1.5, "none": None, "t": True}, []),
        ({"image": {"url": {"url": A}}}, [FileRef(A, "image.url")]),
        ({}, []),
        (None, []),
        ([], []),
        ("plain words", []),
    ],
)
def test_files_are_found_wherever_they_stand(output: Any, refs: list[FileRef]) -> None:
    found = find_files(output, {})
    assert [replace(ref, is_object=False) for ref in found] == refs


@pytest.mark.parametrize("name", ["a", "b.c/d", "x-rejected-1"])
@pytest.mark.parametrize("extension", ["", ".png", ".events.jsonl"])
def test_a_path_tells_whether_its_result_was_taken_and_how_it_ends(name: str, extension: str) -> None:
    for apart in ("", "rejected-2", "rejected-12-0123abcd", "0123abcd"):
        path = artifact_path(name, 0, 2, extension, apart=apart)
        assert is_apart(name, path) == apart.startswith("rejected-")
        assert extension_of(name, path) == extension


def test_a_file_object_is_told_from_a_bare_link() -> None:
    found = find_files({"images": [{"url": A}], "license": "https://example.org/license"}, {})
    assert [ref.is_object for ref in found] == [True, False]


@pytest.mark.parametrize(
    "given_input",
    [{"image_url": A}, {"images": [{"deep": {"url": A}}]}, {"a": "x", "b": ["y", A]}],
)
def test_echoes_of_the_input_are_no_results(given_input: dict[str, Any]) -> None:
    output = {"image_url": A, "input": {"image": {"url": A}}, "image": {"url": B}}
    assert [ref.url for ref in find_files(output, given_input)] == [B]


def test_a_flood_of_files_is_bounded() -> None:
    output = {"images": [{"url": f"https://x/{number}"} for number in range(MAX_ARTIFACTS + 500)]}
    assert len(find_files(output, {})) == MAX_ARTIFACTS


def nested(depth: int) -> Any:
    value: Any = A
    for _ in range(depth):
        value = [value]
    return value


def test_the_walk_stops_at_its_depth() -> None:
    assert len(find_files(nested(MAX_DEPTH), {})) == 1
    assert find_files(nested(MAX_DEPTH + 1), {}) == []


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.sampled_from([A, B, DATA]),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("url"), inner, max_size=4),
        max_leaves=25,
    )
)
def test_whatever_a_result_holds_each_url_comes_once_and_none_that_was_given(output: Any) -> None:
    urls = [ref.url for ref in find_files(output, {"x": [B]})]
    assert len(urls) == len(set(urls))
    assert B not in urls
    assert all(is_file_url(url) for url in urls)


@pytest.mark.parametrize(
    ("text", "is_file"),
    [
        (A, True),
        ("HTTP://x/y", True),
        ("http://127.0.0.1:8787/cdn/a.png", True),
        (DATA, True),
        ("data:,hi", True),
        ("DATA:text/plain;charset=utf-8,hi", True),
        ("https://", False),
        ("https:///etc/passwd", False),
        ("https://x/a b", False),
        ("https://x/a\n", False),
        ("ftp://x/a", False),
        ("file:///etc/passwd", False),
        ("see https://x/a", False),
        ("//x/a", False),
        ("data: all of it", False),
        ("", False),
    ],
)
def test_a_file_url_is_absolute_and_of_the_web_or_data(text: str, is_file: bool) -> None:
    assert is_file_url(text) is is_file


@pytest.mark.parametrize(
    ("uri", "body", "content_type"),
    [
        ("data:,A%20brief%20note", b"A brief note", None),
        ("data:text/plain;charset=utf-8,%C3%A4", "ä".encode(), "text/plain"),
        ("data:image/png;base64,iVBORw0KGgo=", b"\x89PNG\r\n\x1a\n", "image/png"),
        ("data:;base64,aGk=", b"hi", None),
        ("data:audio/wav;rate=8000;base64,aGk=", b"hi", "audio/wav"),
        ("DATA:Image/SVG+xml;BASE64,aGk=", b"hi", "Image/SVG+xml"),
        ("data:,", b"", None),
    ],
)
def test_data_uris_are_decoded(uri: str, body: bytes, content_type: str | None) -> None:
    assert decode_data_uri(uri) == (body, content_type)


@pytest.mark.parametrize("uri", ["https://x", "data:image/png;base64", "data:;base64,a", "data:;base64,!!!!", ""])
def test_a_broken_data_uri_is_a_value_error(uri: str) -> None:
    with pytest.raises(ValueError, match="data URI"):
        decode_data_uri(uri)


@given(st.binary(max_size=200))
def test_any_bytes_survive_a_data_uri(body: bytes) -> None:
    import base64

    assert decode_data_uri(f"data:image/png;base64,{base64.b64encode(body).decode()}") == (body, "image/png")


@pytest.mark.parametrize(
    ("place", "count", "apart", "path"),
    [
        (0, 1, "", "ada/3.png"),
        (0, 2, "", "ada/3-1.png"),
        (1, 2, "", "ada/3-2.png"),
        (0, 1, "0a1b2c3d", "ada/3-0a1b2c3d.png"),
        (9, 12, "0a1b2c3d", "ada/3-10-0a1b2c3d.png"),
    ],
)
def test_one_file_has_the_jobs_name_and_several_are_numbered(place: int, count: int, apart: str, path: str) -> None:
    assert artifact_path("ada/3", place, count, ".png", apart=apart) == path


@pytest.mark.parametrize(
    ("name", "place", "path"),
    [("ada/3", 0, "ada/.3.k3y.0.part"), ("3", 2, ".3.k3y.2.part"), ("a/b/c.d", 1, "a/b/.c.d.k3y.1.part")],
)
def test_a_part_lies_hidden_beside_its_final_name(name: str, place: int, path: str) -> None:
    assert part_path(name, place, "k3y") == path
