"""Bytes inside an answer become file objects, which the walk over a result takes for files."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.artifacts import decode_data_uri, find_files
from falbatch.core.identity import canonical_json
from falbatch.core.inline import with_file_objects

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def test_bytes_become_a_file_of_the_type_beside_them_or_of_their_own() -> None:
    answer = {"images": [{"content": PNG, "width": 4, "content_type": "image/x-ours"}, {"content": PNG}, b"???"]}
    images = with_file_objects(answer)["images"]
    files = find_files({"images": images}, {})
    assert [file.content_type for file in files] == ["image/x-ours", "image/png", "application/octet-stream"]
    assert [file.size_bytes for file in files] == [len(PNG), len(PNG), 3]
    assert decode_data_uri(files[0].url) == (PNG, "image/x-ours")
    assert images[0]["width"] == 4


VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def blobs(value: Any) -> list[bytes]:
    if isinstance(value, bytes):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [blob for part in inner for blob in blobs(part)]


@given(VALUES)
def test_every_run_of_bytes_comes_out_of_the_json_again(value: Any) -> None:
    made = with_file_objects({"answer": value})
    canonical_json(made)
    found = {decode_data_uri(file.url)[0] for file in find_files(made, {}) if file.url.startswith("data:")}
    assert set(blobs(value)) <= found


def test_what_holds_no_bytes_stays_as_it_is() -> None:
    value = {"a": [1, 2.5, None, "x", {"b": True}]}
    assert with_file_objects(value) == value


def test_a_nest_without_end_is_refused() -> None:
    value: Any = b""
    for _ in range(80):
        value = [value]
    with pytest.raises(ValueError, match="nested"):
        with_file_objects(value)
