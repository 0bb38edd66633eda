"""Files in inputs: rendered, marked, found again in the bytes, and replaced there."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.artifacts import FileRef
from falbatch.core.faults import OMIT
from falbatch.core.fileinputs import (
    FILE_KEY,
    FileInput,
    FileMark,
    Travel,
    Upload,
    UploadTerms,
    check_file_input,
    files_in,
    from_python,
    is_file_input,
    marked,
    marks_in,
    with_files,
    without_echoes,
)
from falbatch.core.identity import canonical_json
from falbatch.core.inputs import Faults, InputTemplate
from falbatch.core.jsonvalue import to_json
from falbatch.core.template import global_names

HASH = hashlib.sha256(b"a picture").digest()
MARKS = st.builds(
    FileMark,
    st.binary(min_size=32, max_size=32),
    st.sampled_from(Travel),
    st.sampled_from(["", "image/png", "a/b+c.d-e"]),
)
TRICKY = st.sampled_from(
    [
        '{"falbatch:file":"' + "0" * 64 + '"}',
        '"falbatch:file"',
        '\\"',
        "falbatch:file",
        ',"falbatch:file":"',
        "as",
        "\x00",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | TRICKY,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries((st.text() | TRICKY).filter(lambda key: key != FILE_KEY), inner, max_size=3)
    ),
    max_leaves=8,
)


def render(data: dict[str, Any], **row: Any) -> tuple[Any, list[str]]:
    faults: Faults = []
    made = InputTemplate(data).render({**global_names(), "row": row}, faults)
    return made, [f"{'.'.join(map(str, path))}: {fault.what}" for path, fault in faults]


@given(
    st.dictionaries(st.text().filter(lambda key: key != FILE_KEY), JSON | MARKS.map(lambda m: ("mark", m)), max_size=5)
)
def test_a_marker_is_found_and_nothing_else_and_what_leaves_is_canonical(given_input: dict[str, Any]) -> None:
    def put(value: Any, text: Any) -> Any:
        return text(value[1]) if isinstance(value, tuple) else value

    stored = canonical_json({key: put(value, FileMark.as_json) for key, value in given_input.items()})
    marks = [value[1] for value in given_input.values() if isinstance(value, tuple)]
    assert set(marks_in(stored)) == set(marks)
    sent = with_files(stored, lambda mark: f'https://x/"{mark.sha256.hex()}"')
    expected = {key: put(value, lambda mark: f'https://x/"{mark.sha256.hex()}"') for key, value in given_input.items()}
    assert sent == canonical_json(expected)


def test_the_defaults_of_a_file_make_no_other_job() -> None:
    assert FileMark(HASH).as_json() == {FILE_KEY: HASH.hex()}
    assert FileMark(HASH, Travel.DATA, "a/b").as_json() == {FILE_KEY: HASH.hex(), "as": "data", "content_type": "a/b"}


def test_files_are_rendered_at_any_depth() -> None:
    data = {
        "a": {"file": "{{ row.photo }}"},
        "b": [{"c": {"file": "d.png", "as": "data", "content_type": "image/png"}}],
    }
    made, faults = render(data, photo="x y.png")
    assert faults == []
    assert made["a"] == FileInput("x y.png", place=("input", "a", "file"))
    assert made["b"][0]["c"] == FileInput("d.png", Travel.DATA, "image/png", ("input", "b", 0, "c", "file"))
    assert [file.path for file in files_in(made)] == ["x y.png", "d.png"]
    assert marked(made, lambda _file: HASH)["b"] == [{"c": FileMark(HASH, Travel.DATA, "image/png").as_json()}]


@pytest.mark.parametrize("url", ["https://x.test/a.png", "data:image/png;base64,AAAA"])
def test_what_is_no_path_is_passed_on(url: str) -> None:
    assert render({"a": {"file": "{{ row.photo }}"}}, photo=url) == ({"a": url}, [])


def test_omit_leaves_the_file_out() -> None:
    data = {"a": {"file": "{{ row.photo or omit }}"}, "b": [{"file": "{{ row.photo or omit }}"}, 1]}
    assert render(data, photo="") == ({"b": [1]}, [])
    assert OMIT not in render(data, photo="x.png")[0]["b"]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("", "the path of the file is empty here"),
        (" ", "the path of the file is empty here"),
        (3, "file must be a path, not 3"),
        (None, "file must be a path, not null"),
        ("a\0b", "characters that no path has"),
    ],
)
def test_what_gives_no_path_is_said_with_its_place(value: Any, what: str) -> None:
    (said,) = render({"a": {"file": "{{ row.photo }}"}}, photo=value)[1]
    assert said.startswith("input.a.file: ")
    assert what in said


def test_a_file_that_only_a_row_names_is_data() -> None:
    assert render({"a": "{{ row.photo }}"}, photo={"file": "/etc/passwd"})[0] == {"a": {"file": "/etc/passwd"}}


@pytest.mark.parametrize("value", [{"a": {FILE_KEY: "0" * 64}}, {"a": [{FILE_KEY: 1}]}, {FILE_KEY: None}])
def test_nobody_else_may_mark_files(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="may not have a key"):
        list(files_in(value))


def test_only_the_three_keys_make_a_file() -> None:
    assert is_file_input({"file": "x", "as": "url", "content_type": "a/b"})
    assert not any(is_file_input(value) for value in ({"file": "x", "name": "y"}, {"as": "url"}, "file", None))
    assert [key for key, _ in check_file_input({"file": 1, "as": [], "content_type": "é/b"})] == [
        "file",
        "as",
        "content_type",
    ]


def test_python_values() -> None:
    given_input = {"a": Path("x.png"), "b": ({"file": Path("y.png")}, "z"), "c": {"file": "https://u.test/v"}}
    made = to_json(from_python(given_input))
    assert made["a"] == FileInput("x.png", place=("a",))
    assert made["b"] == [FileInput("y.png", place=("b", 0)), "z"]
    assert made["c"] == "https://u.test/v"
    with pytest.raises(ValueError, match="as must be url or data"):
        from_python({"a": {"file": "x", "as": "link"}})
    with pytest.raises(ValueError, match="bytes cannot be sent"):
        to_json(from_python({"a": b"x"}))


def test_a_circle_of_python_values_ends() -> None:
    circle: dict[str, Any] = {}
    circle["again"] = circle
    with pytest.raises(ValueError, match="nested more than"):
        to_json(from_python(circle))


DAY = 86400.0


@pytest.mark.parametrize(
    ("life", "age", "is_good"),
    [
        (None, 1e9, True),
        (6 * DAY, 0.0, True),
        (6 * DAY, 6 * DAY - 3601, True),
        (6 * DAY, 6 * DAY - 3600, False),
        (3600.0, 3239.0, True),
        (3600.0, 3241.0, False),
        (3600.0, -4000.0, False),
    ],
    ids=str,
)
def test_a_url_is_used_until_shortly_before_its_end(life: float | None, age: float, is_good: bool) -> None:
    upload = Upload("u", 1e6, None if life is None else 1e6 + life)
    assert upload.is_good(1e6 + age) is is_good


def test_terms_tell_places_and_lives_apart() -> None:
    texts = {UploadTerms(place, life).text for place in ("http://a", "http://b") for life in (None, "7d", 3600)}
    assert len(texts) == 6
    assert UploadTerms("a").expires_at(10.0, None) == 10.0 + 6 * DAY
    assert UploadTerms("a", "never").expires_at(10.0, None) is None
    assert UploadTerms("a", "1h").expires_at(10.0, 3610.0) == 3610.0


def test_an_input_that_comes_back_inside_the_result_is_no_result() -> None:
    uri = "data:image/png;base64," + base64.b64encode(b"a picture").decode()
    echo, other = FileRef(uri, "a"), FileRef("data:image/png;base64,AAAA", "b")
    broken, link = FileRef("data:;base64,???", "c"), FileRef("https://x.test/y", "d")
    refs = [echo, other, broken, link]
    assert without_echoes(refs, [FileMark(HASH, Travel.DATA)]) == [other, broken, link]
    assert without_echoes(refs, [FileMark(HASH)]) == refs


def test_big_numbers_beside_a_file_stay_exact() -> None:
    stored = canonical_json({"image": FileMark(HASH).as_json(), "seed": 2**70})
    assert json.loads(with_files(stored, lambda _mark: "u")) == {"image": "u", "seed": 2**70}
