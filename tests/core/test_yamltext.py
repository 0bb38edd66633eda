"""YAML's traps are decided, its errors are placed and in plain words, and its bombs do not go off."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from falbatch.core import yamltext
from falbatch.core.yamltext import Place, load
from falbatch.errors import ManifestError


def _value(text: str) -> Any:
    return load(f"k: {text}".encode(), source="m.yaml")[0]["k"]


def _complaint(text: bytes | str) -> str:
    with pytest.raises(ManifestError) as caught:
        load(text.encode() if isinstance(text, str) else text, source="m.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("true", True), ("True", True), ("FALSE", False),
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"), ("tRUE", "tRUE"),
        ("null", None), ("~", None), ("", None), ("NULL", None),
        ("0", 0), ("-3", -3), ("18446744073709551617", 18446744073709551617), ("1" * 80, int("1" * 80)),
        ("001", "001"), ("1_000", "1_000"), ("0x1F", "0x1F"), ("0o17", "0o17"), ("12:30", "12:30"),
        ("+5", "+5"), ("1.5", 1.5), ("1e3", 1000.0), ("-2.5E-3", -0.0025), (".5", 0.5), ("1.", "1."),
        (".inf", ".inf"), ("-.inf", "-.inf"), (".nan", ".nan"), ("nan", "nan"), ("2024-01-01", "2024-01-01"),
        ("'1'", "1"), ('"true"', "true"), ("!!str 12", "12"), ("!!int '12'", 12), ("!!float '1'", 1.0),
        ("=", "="), ("<<", "<<"), ("1.2.3", "1.2.3"),
    ],
)  # fmt: skip
def test_plain_words_mean_what_the_docs_say(written: str, value: object) -> None:
    got = _value(written)
    assert got == value
    assert type(got) is type(value)


def test_a_byte_order_mark_is_accepted() -> None:
    assert load(b"\xef\xbb\xbfa: 1", source="m.yaml")[0] == {"a": 1}


def test_merges_give_way_to_own_keys_and_earlier_ones_win() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], z: 3}\nd: {w: 0, <<: *a}"
    data, marks = load(text.encode(), source="m.yaml")
    assert data["c"] == {"x": 1, "y": 1, "z": 3}
    assert list(data["d"]) == ["x", "y", "w"]
    assert marks.key(("c", "x")) == Place(1, 8)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", "m.yaml: ", "empty"),
        ("# only a comment\n", "m.yaml: ", "empty"),
        ("a: 1\nb: \0", "m.yaml: ", "binary"),
        (b"\xff\xfea\x00", "m.yaml: ", "UTF-16"),
        (b"a: 1\nb: caf\xe9", "m.yaml:2:7: ", "not UTF-8"),
        ("a: 1\n---\nb: 2", "m.yaml:2:1: ", "more than one document"),
        ("- a\n- b", "m.yaml:1:1: ", "a manifest is a mapping"),
        ("just words", "m.yaml:1:1: ", "a manifest is a mapping"),
        ("a: 1\nb: 2\na: 3", "m.yaml:3:1: ", '"a" is written twice in this mapping; first on line 1'),
        ("1: x", "m.yaml:1:1: ", 'a key must be text, not 1 (put quotes around it: "1")'),
        ("? [a]\n: b", "m.yaml:1:3: ", "a key must be text"),
        ("a: b: c", "m.yaml:1:5: ", "no key can be"),
        ("a:\n\tb: 1", "m.yaml:2:1: ", "a tab stands where only spaces may (indent with spaces)"),
        ("p: {{ x }}", "m.yaml:1:5: ", "put quotes around templates"),
        ("p: {{ x }} y", "m.yaml:1:12: ", "put quotes around templates"),
        ("a: *x", "m.yaml:1:4: ", "this alias has no anchor"),
        ("a: &x 1\nb: &x 2", "m.yaml:2:4: ", "this anchor was set before"),
        ("a: 'x", "m.yaml:1:6: ", "a quote is opened and never closed"),
        ("a: [1, 2", "m.yaml:2:1: ", "a closing bracket is missing"),
        ("a: @x", "m.yaml:1:4: ", "text cannot begin with this character"),
        ('a: "\\q"', "m.yaml:1:5: ", "do not know this escape"),
        ("a: 1\nb: \x07", "m.yaml:2: ", "U+0007"),
        ("a: !foo 1", "m.yaml:1:4: ", "the tag !foo is not known"),
        ("a: !!python/object:os.system {}", "m.yaml:1:4: ", "is not known"),
        ("a: !!set {x}", "m.yaml:1:4: ", "is not known"),
        ("a: !!int x", "m.yaml:1:4: ", "does not fit the tag !!int"),
        ("a: 1e999", "m.yaml:1:4: ", "too large"),
        ("a: " + "9" * 5000, "m.yaml:1:4: ", "too large"),
        ("<<: 3", "m.yaml:1:5: ", "<< takes a mapping"),
        ("a: &a [*a]", "m.yaml:1:4: ", "contains itself"),
        ("a: &a {b: {c: *a}}", "m.yaml:1:4: ", "contains itself"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(text: bytes | str, place: str, words: str) -> None:
    complaint = _complaint(text)
    assert complaint.startswith(place)
    assert words in complaint


def test_all_mistakes_are_reported_at_once() -> None:
    assert len(_complaint("1: a\nb: !x 2\nc: 1\nc: 2").splitlines()) == 3


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_refused_before_it_can_crash_the_parser(opening: str) -> None:
    assert "nested more than 64 deep" in _complaint(opening * 100_000)


def test_nesting_by_aliases_counts_too() -> None:
    lines = ["a0: &a0 [1]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 100))]
    assert "nested more than 64 deep" in _complaint("\n".join(lines))


def test_a_billion_laughs_are_counted_not_laughed() -> None:
    lines = ["a0: &a0 [1,2,3,4,5,6,7,8,9,10]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    assert "5,000,000 values" in _complaint("\n".join(lines))


def test_a_huge_file_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamltext, "MAX_BYTES", 1024 * 1024)
    assert "CSV or JSONL" in _complaint(b"a: " + b"x" * 1024 * 1024)


def test_places_are_those_of_keys_values_and_entries() -> None:
    _, marks = load(b"a:\n  b: 12\n  c: [x, y]\n", source="m.yaml")
    assert marks.key(("a", "b")) == Place(2, 3)
    assert marks.value(("a", "b")) == Place(2, 6)
    assert marks.entries(("a", "c")) == [Place(3, 7), Place(3, 10)]
    assert marks.key(("a", "c", 1)) == Place(3, 10)
    assert marks.key(("a", "missing")) == Place(1, 1)
    assert marks.entries(("a",)) == []


def test_lines_inside_a_block_are_counted_from_its_text() -> None:
    _, marks = load(b"a: |\n  one\n  two\nb: 'x'\nc: >\n  folded\n", source="m.yaml")
    assert marks.text(("a",), 2) == Place(3, 0)
    assert marks.text(("b",), 1) == Place(4, 4)
    assert marks.text(("c",), 3) == Place(6, 0)


def test_long_lists_keep_the_places_of_their_entries() -> None:
    text = "rows:\n" + "".join(f"  - {{id: {n}}}\n" for n in range(1500))
    data, marks = load(text.encode(), source="m.yaml")
    assert data["rows"][1499] == {"id": 1499}
    assert marks.entries(("rows",))[1499] == Place(1501, 5)


@pytest.mark.parametrize("was_on", [True, False])
def test_the_garbage_collector_is_left_as_it_was(was_on: bool) -> None:
    before = gc.isenabled()
    (gc.enable if was_on else gc.disable)()
    try:
        load(b"a: 1", source="m.yaml")
        assert gc.isenabled() is was_on
    finally:
        (gc.enable if before else gc.disable)()
