"""Names stay inside the folder and are accepted by the file system, whatever the prompt says."""

from __future__ import annotations

import tempfile
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from falbatch.core.artifacts import MAX_ARTIFACTS, artifact_path, part_path
from falbatch.core.naming import (
    MAX_COMPONENT_BYTES,
    MAX_LABEL,
    MAX_NAME_BYTES,
    NameProblem,
    fold,
    label_of,
    safe_name,
    slug,
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a", "a"),
        ("people/ada-3", "people/ada-3"),
        ("Grace Hopper", "Grace Hopper"),
        ("a.b.c", "a.b.c"),
        ("a:b?c*d", "a_b_c_d"),
        ('<x>"|', "_x___"),
        ("a\nb\tc\x7f", "a_b_c_"),
        ("trailing. ", "trailing"),
        (" leading", "leading"),
        (".hidden", "_.hidden"),
        ("-flag", "_-flag"),
        ("cafe\u0301", "café"),
        ("日本語", "日本語"),
        ("a\u200bb\u202ec", "a_b_c"),
    ],
)
def test_what_file_systems_refuse_is_replaced(text: str, name: str) -> None:
    assert safe_name(text) == name


@pytest.mark.parametrize(
    "text", ["CON", "nul", "Com1", "lpt9.txt", "aux.tar.gz", "x/PRN/y", "COM¹", "con .txt", "CONOUT$"]
)
def test_device_names_are_changed(text: str) -> None:
    made = safe_name(text)
    assert isinstance(made, str)
    assert made != text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("/etc/passwd", "relative"),
        ("C:/x", "relative"),
        ("a\\b", "backslash"),
        ("..", "not a folder name"),
        ("a/../b", "not a folder name"),
        ("./a", "not a folder name"),
        ("a/ .. /b", "not a folder name"),
        ("a//b", "a part between slashes is empty"),
        ("a/", "a part between slashes is empty"),
        ("a/ /b", "a part between slashes is empty"),
        ("\ud800", "surrogate"),
        ("/".join(["x" * 100] * 5), f"more than {MAX_NAME_BYTES} bytes"),
    ],
)
def test_what_would_leave_the_folder_or_cannot_be_meant_is_a_problem(text: str, words: str) -> None:
    made = safe_name(text)
    assert isinstance(made, NameProblem)
    assert words in made.what


def test_long_names_are_cut_at_a_character_and_stay_apart() -> None:
    first, second = safe_name("é" * 200 + "1"), safe_name("é" * 200 + "2")
    assert isinstance(first, str)
    assert isinstance(second, str)
    assert first != second
    assert len(first.encode()) <= MAX_COMPONENT_BYTES
    assert first.startswith("ééé")


DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"
}
"""Of Windows: also with any extension, and with spaces before it (Microsoft, "Naming Files, Paths, and Namespaces")."""

EXTENSIONS = (".png", ".safetensors", ".abcdefghijk")
"""The usual one and the longest: of the table, and of a URL."""

_signs = list('abC1./\\ -:*?<>|"\0\n\r\x1b\x7f\x85~é\u0301\u202e\u200d\ufeff\ufe0f日본ß\u0345ΐİıſΣς👩🏽')
_signs += ["\U0001f1e9", "\U0010fffe", "\ue000", "\ud800", "\udfff"]
_words = ["..", "../", "./", "con", "NUL", "Aux.txt", "com1.", "LPT¹", "COM1 .x", "CONOUT$", "con:", " .", "…", "C:"]
_pieces = st.sampled_from([*_signs, *_words, "x" * 130, "é" * 70, "日" * 50, "👩" * 40])
_nasty = st.lists(_pieces, max_size=30).map("".join)
_long = st.tuples(st.text(min_size=1, max_size=6), st.integers(20, 2_000)).map(lambda pair: pair[0] * pair[1])
_any_text = st.one_of(st.text(max_size=80), _nasty, _long, st.text(st.characters(), max_size=20))  # surrogates too


def _paths(name: str) -> list[str]:
    """Every path that is made of a name, with the longest of each addition."""
    key = "0a1b2c3d"
    part = part_path(name, MAX_ARTIFACTS, key)
    artifacts = [
        artifact_path(name, place, count, extension, apart=apart)
        for extension in EXTENSIONS
        for place, count in ((0, 1), (MAX_ARTIFACTS - 1, MAX_ARTIFACTS))
        for apart in ("", key, f"{key}-1000000")
    ]
    return [*artifacts, part, f"{part}.etag"]


def _wrong_with(component: str) -> str:
    """Why some system would refuse a path component or take it for something else; "" when none does."""
    encoded = component.encode()
    if component in {"", ".", ".."} or set(component) & set('<>:"/\\|?*'):
        return "a character that Windows refuses, or no name"
    if any(unicodedata.category(character)[0] == "C" for character in component):
        return "a character that is not seen, or that is none"
    if component[-1] in ". " or component[0] == " ":
        return "an end that Windows cuts off"
    if component.partition(".")[0].rstrip(" ").upper() in DEVICES:
        return "a device of Windows"
    if len(encoded) > 255 or len(unicodedata.normalize("NFD", component).encode("utf-16-le")) > 2 * 255:
        return "too long for Linux, or for macOS, which counts it taken apart"
    return ""


@given(_any_text)
@example("..")
@example("a/" * 200)
@example("x/" + "é" * 5_000)
@example("CON .txt")
@example("a/con .b/c")
def test_names_are_valid_on_linux_macos_and_windows_with_all_that_is_added(text: str) -> None:
    made = safe_name(text)
    if isinstance(made, NameProblem):
        return
    assert len(made.encode()) <= MAX_NAME_BYTES
    assert unicodedata.is_normalized("NFC", made)
    assert all(len(component.encode()) <= MAX_COMPONENT_BYTES for component in made.split("/"))
    assert safe_name(made) == made, "a name stays as it is"
    for path in _paths(made):
        wrong = {component: _wrong_with(component) for component in path.split("/")}
        assert not any(wrong.values()), wrong
        assert not path.startswith("/")


@given(_any_text)
@example("../../etc/passwd")
@example("a/" * 200)
def test_names_stay_inside_the_folder_and_the_file_system_takes_them(text: str) -> None:
    made = safe_name(text)
    if isinstance(made, NameProblem):
        return
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder).resolve()
        for path in _paths(made):
            target = base / path
            assert target.resolve().is_relative_to(base)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"x")
        found = {str(place.relative_to(base)) for place in base.rglob("*") if place.is_file()}
        assert found == set(_paths(made)), "no two of a job's paths are the same file"


@given(_any_text)
def test_names_that_differ_by_case_or_normalisation_alone_clash(text: str) -> None:
    made = safe_name(text)
    if isinstance(made, NameProblem):
        return
    folded = fold(made)
    assert fold(folded) == folded
    for form in ("NFC", "NFD"):
        written = unicodedata.normalize(form, made)
        for variant in (written, written.casefold(), written.lower()):
            assert fold(variant) == folded
    # What a file system that ignores case does: it compares one character at a time.
    upper = "".join(c.upper() if len(c.upper()) == 1 and c.upper().lower() == c.lower() else c for c in made)
    assert fold(upper) == folded


@given(st.text(max_size=60))
def test_the_same_text_gives_the_same_name_however_its_accents_are_written(text: str) -> None:
    assert safe_name(unicodedata.normalize("NFD", text)) == safe_name(unicodedata.normalize("NFC", text))


def test_folding_ignores_case_and_how_accents_are_written() -> None:
    assert fold("A/Café") == fold("a/CAFE\u0301")
    assert fold("Straße") == fold("STRASSE")
    assert fold("a") != fold("b")


def test_labels_are_short_slugs() -> None:
    assert label_of(["Oil Painting", 3, "Zürich"]) == "oil-painting-3-zurich"
    assert label_of([]) == ""
    assert label_of(["!!!", None]) == "none"
    assert len(label_of(["long word " * 20, "x"])) <= MAX_LABEL
    assert not label_of(["x" * 47, "y"]).endswith("-")
    assert slug("Oil Painting") == "oil-painting"


def test_a_hundred_thousand_plain_names_take_well_under_a_second() -> None:
    names = [f"portraits/{n}/oil-painting-{n}" for n in range(100_000)]
    before = time.process_time()
    for name in names:
        safe_name(name)
    assert time.process_time() - before < 1
