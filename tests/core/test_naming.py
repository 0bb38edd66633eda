"""Names stay inside the folder and are accepted by the file system, whatever the prompt says."""

from __future__ import annotations

import tempfile
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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


@pytest.mark.parametrize("text", ["CON", "nul", "Com1", "lpt9.txt", "aux.tar.gz", "x/PRN/y", "COM¹"])
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


_pieces = st.sampled_from([*'abC1./\\ -:*?<>|"\0\n~é\u0301\u202e日ß', "CON", "nul", "..", "COM1."])
_nasty = st.lists(_pieces, max_size=30).map("".join)


@given(st.one_of(st.text(max_size=80), _nasty))
@example("..")
@example("a/" * 200)
def test_names_stay_inside_the_folder_and_the_file_system_takes_them(text: str) -> None:
    made = safe_name(text)
    if isinstance(made, NameProblem):
        return
    assert safe_name(made) == made or len(made.encode()) > MAX_COMPONENT_BYTES
    assert len(made.encode()) <= MAX_NAME_BYTES
    assert unicodedata.is_normalized("NFC", made)
    assert all(len(part.encode()) <= MAX_COMPONENT_BYTES for part in made.split("/"))
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder).resolve()
        target = base / f"{made}.png"
        assert target.resolve().is_relative_to(base)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"x")
        assert target.exists()


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
