"""`matrix` means what it means to GitHub Actions."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.manifest import parse_manifest
from falbatch.core.matrix import Matrix, freeze, zipped
from falbatch.errors import ManifestError

_BASE = "endpoint: a/b\ninput: {}\n"


def _matrix(text: str) -> Matrix:
    return parse_manifest((_BASE + f"matrix: {text}").encode(), source="m.yaml").matrix


def _complaint(text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        parse_manifest((_BASE + text).encode(), source="m.yaml")
    return str(caught.value)


def _all(matrix: Matrix) -> list[dict[str, Any]]:
    return [dict(one) for one in matrix.combinations()]


def test_github_s_documented_example_gives_its_six_combinations() -> None:
    """From "Running variations of jobs in a workflow", docs.github.com: expanding or adding configurations."""
    matrix = Matrix(
        {"fruit": ["apple", "pear"], "animal": ["cat", "dog"]},
        include=(
            {"color": "green"},
            {"color": "pink", "animal": "cat"},
            {"fruit": "apple", "shape": "circle"},
            {"fruit": "banana"},
            {"fruit": "banana", "animal": "cat"},
        ),
    )
    assert _all(matrix) == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{a: [1, 2], b: [x, y]}", [(1, "x"), (1, "y"), (2, "x"), (2, "y")]),
        ("{a: [1, 2], b: [x, y], exclude: [{a: 2}]}", [(1, "x"), (1, "y")]),
        ("{a: [1, 2], b: [x, y], exclude: [{a: 2, b: y}]}", [(1, "x"), (1, "y"), (2, "x")]),
        ("{a: [1], b: [x], include: [{a: 9, b: z}]}", [(1, "x"), (9, "z")]),
        ("{include: [{a: 1, b: x}, {a: 2, b: y}]}", [(1, "x"), (2, "y")]),
        ("{a: [1], b: [x], exclude: [{a: 1}], include: [{a: 1, b: x}]}", [(1, "x")]),
        ("{a: {range: [0, 3]}, b: [x]}", [(0, "x"), (1, "x"), (2, "x")]),
        ("{a: {range: [4, 0, -2]}, b: [x]}", [(4, "x"), (2, "x")]),
    ],
)
def test_combinations_come_in_order(text: str, expected: list[tuple[Any, Any]]) -> None:
    assert [(one["a"], one["b"]) for one in _all(_matrix(text))] == expected


def test_no_matrix_is_one_empty_combination() -> None:
    assert _all(Matrix()) == [{}]
    assert Matrix().size() == 1


def test_everything_excluded_leaves_nothing_and_an_addition_stands_alone() -> None:
    assert _all(Matrix({"a": [1]}, exclude=({"a": 1},))) == []
    assert _all(Matrix({"a": [1]}, exclude=({"a": 1},), include=({"c": 2},))) == [{"c": 2}]


def test_true_is_not_one_but_one_is_one_point_zero() -> None:
    assert freeze(True) != freeze(1)
    assert freeze(1) == freeze(1.0)
    assert freeze({"a": [1, {"b": None}]}) == freeze({"a": [1, {"b": None}]})
    got = _all(Matrix({"a": [1, True]}, include=({"a": 1.0, "b": 2},)))
    assert got == [{"a": 1, "b": 2}, {"a": True}]
    assert type(got[0]["a"]) is int


def test_a_huge_matrix_is_not_written_out() -> None:
    matrix = _matrix("{a: {range: [0, 1000000]}, b: {range: [0, 1000000]}, include: [{a: 999999, c: 1}]}")
    first = list(itertools.islice(matrix.combinations(), 2))
    assert first == [{"a": 0, "b": 0}, {"a": 0, "b": 1}]
    assert matrix.size() == 10**12 + 1


def _oracle(axes: dict[str, list[int]], exclude: Any, include: Any) -> list[dict[str, int]]:
    """GitHub's rules once more, written from its page in the plainest way: everything in lists."""
    originals = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    originals = [one for one in originals if not any(entry.items() <= one.items() for entry in exclude)]
    extended = [dict(one) for one in originals]
    added = []
    for entry in include:
        fits = [
            number
            for number, one in enumerate(originals)
            if all(one[name] == value for name, value in entry.items() if name in one)
        ]
        for number in fits:
            extended[number].update(entry)
        if not fits:
            added.append(dict(entry))
    return extended + added


_entry = st.dictionaries(st.sampled_from(["a", "b", "x", "y"]), st.integers(0, 2), min_size=1)
_excluded = st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 2), min_size=1)
_values = st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)


@given(_values, _values, st.lists(_excluded, max_size=3), st.lists(_entry, max_size=4))
def test_include_and_exclude_agree_with_a_plain_oracle(
    a: list[int], b: list[int], exclude: list[dict[str, int]], include: list[dict[str, int]]
) -> None:
    matrix = Matrix({"a": a, "b": b}, tuple(exclude), tuple(include))
    assert _all(matrix) == _oracle({"a": a, "b": b}, exclude, include)


def test_linked_lists_go_side_by_side() -> None:
    assert list(zipped({"a": [1, 2], "b": range(5, 7)})) == [{"a": 1, "b": 5}, {"a": 2, "b": 6}]
    assert list(zipped({})) == [{}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("matrix: [1]", "matrix must be a mapping of axes to lists, not a list"),
        ("matrix: {a: 3}", "matrix.a must be a list, not 3"),
        ("matrix: {a: []}", "matrix.a has no values"),
        ("matrix: {a: {rang: [0, 1]}}", "{range: [0, 10]}"),
        ("matrix: {a: {range: [0]}}", "two or three whole numbers"),
        ("matrix: {a: {range: [0, 1.5]}}", "two or three whole numbers"),
        ("matrix: {a: {range: [0, 4, 0]}}", "a step of 0"),
        ("matrix: {a: {range: [4, 4]}}", "is empty: 4 already reaches 4"),
        ("matrix: {a: {range: [0, 99999999999999999999999]}}", "more than 100,000,000 values"),
        ("matrix: {style: [1], exclude: [{styl: 1}]}", 'names "styl", which is not an axis (did you mean "style"?)'),
        ("matrix: {a: [1], exclude: {a: 1}}", "matrix.exclude must be a list of mappings"),
        ("matrix: {a: [1], include: [3, {}]}", "matrix.include[1] must be a mapping"),
        ("zip: {a: [1, 2], b: [1]}", "equally long: a has 2, b has 1"),
        ("zip: [1]", "zip must be a mapping"),
        ("zip: {a: []}", "zip.a has no values"),
    ],
)  # fmt: skip
def test_mistakes_are_named(text: str, words: str) -> None:
    assert words in _complaint(text)
