"""Expansion is lazy, in a fixed order, and finds all mistakes in one go."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.expand import expand, variant_count
from falbatch.core.manifest import Manifest, parse_manifest
from falbatch.core.model import Item, Row
from falbatch.core.problems import ProblemLog

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def _manifest(text: str) -> Manifest:
    head = "" if "endpoint:" in text else "endpoint: a/b\n"
    return parse_manifest((head + text).encode(), source="m.yaml")


def _rows(*rows: dict[str, Any]) -> list[Row]:
    return [Row(values, "data.csv", line) for line, values in enumerate(rows, 2)]


def _fine(endpoint: str) -> str | None:
    return None if "/" in endpoint else "an endpoint id has at least two parts"


def _expand(manifest: Manifest, rows: Iterable[Row] | None = None, **choice: Any) -> tuple[list[Item], list[str]]:
    log = ProblemLog()
    items = list(expand(manifest, rows, check_endpoint=_fine, problems=log, **choice))
    return items, [str(problem) for problem in log.problems()]


def test_the_order_is_rows_matrix_zip_replicas() -> None:
    manifest = _manifest(
        "rows: a.csv\nmatrix: {a: [1, 2], b: [x, y]}\nzip: {c: [5, 6]}\nrepeat: 2\n"
        'input: {p: "{{ row.r }}{{ a }}{{ b }}{{ c }}{{ replica }}", i: "{{ index }}"}'
    )
    items, problems = _expand(manifest, _rows({"r": "R"}, {"r": "S"}))
    wanted = ["".join(map(str, one)) for one in itertools.product("RS", (1, 2), "xy", (5, 6), (0, 1))]
    assert [item.input["p"] for item in items] == wanted
    assert [item.input["i"] for item in items] == list(range(32))
    assert [item.seq for item in items] == list(range(32))
    assert problems == []


def test_an_item_says_where_it_comes_from() -> None:
    manifest = _manifest(
        "rows: a.csv\nmatrix: {style: [oil painting]}\nzip: {seed: [3]}\nrepeat: 2\n"
        'input: {p: "{{ style }}{{ row.r }}{{ seed }}"}'
    )
    items, _ = _expand(manifest, _rows({"r": 1}))
    assert items[1].origin == "data.csv:2, style=oil painting, seed=3, replica 1"
    assert items[1].label == "oil-painting-3"
    assert items[1].name is None
    assert items[1].input == {"p": "oil painting13"}


def test_without_rows_and_matrix_there_is_one_item() -> None:
    items, problems = _expand(_manifest("input: {a: 1}"))
    assert [(item.input, item.label, item.origin) for item in items] == [({"a": 1}, "", "m.yaml")]
    assert problems == []


def test_endpoints_may_be_templates_and_are_checked() -> None:
    manifest = _manifest('endpoint: "{{ model }}"\nmatrix: {model: [fal-ai/flux/dev, flux, fal-ai/x]}\ninput: {}')
    items, problems = _expand(manifest)
    assert [item.endpoint for item in items] == ["fal-ai/flux/dev", "fal-ai/x"]
    assert problems == ['m.yaml:1:11: endpoint: "flux": an endpoint id has at least two parts (model=flux)']


def test_a_wrong_constant_endpoint_is_said_once() -> None:
    _, problems = _expand(_manifest("endpoint: flux\nrepeat: 5\ninput: {}"))
    assert len(problems) == 1
    assert "[5 items]" in problems[0]


def test_mistakes_are_said_once_per_cause_with_the_first_row_and_a_count() -> None:
    manifest = _manifest(
        """rows: a.csv
input:
  prompt: "{{ row.colum }} x"
  note: |
    one
    two {{ row.maybe }}
output: {name: "{{ row.id }}"}
"""
    )
    rows = _rows(*({"column": 1, "maybe": None if n % 2 else "m", "id": "../x"} for n in range(10)))
    items, problems = _expand(manifest, rows)
    assert items == []
    assert problems == [
        'm.yaml:4:11: input.prompt: row.colum does not exist (data.csv:2) [10 items] (did you mean "column"?)',
        (
            "m.yaml:7: input.note: row.maybe is null here (data.csv:3) [5 items] "
            "(write {{ row.maybe or '' }} to leave it empty)"
        ),
        (
            'm.yaml:8:16: output.name: "../x": ".." is not a folder name (data.csv:2) [10 items] '
            "(names cannot leave the output folder)"
        ),
    ]


def test_good_items_come_out_though_others_are_wrong() -> None:
    manifest = _manifest('rows: a.csv\ninput: {prompt: "{{ row.p }}", seed: "{{ row.s | int }}"}')
    items, problems = _expand(
        manifest, _rows({"p": "a", "s": "1"}, {"p": "", "s": "2"}, {"p": "c", "s": "x"}, {"p": "d", "s": "4"})
    )
    assert [(item.seq, item.input["seed"]) for item in items] == [(0, 1), (1, 4)]
    assert len(problems) == 2
    assert "the prompt is empty here (data.csv:3)" in problems[0]
    assert '"x" is not a whole number (data.csv:4)' in problems[1]


def test_a_name_that_an_include_leaves_out_is_named() -> None:
    manifest = _manifest('matrix: {a: [1], include: [{a: 1, b: 2}, {a: 3}]}\ninput: {p: "{{ b }}"}')
    items, problems = _expand(manifest)
    assert [item.input for item in items] == [{"p": 2}]
    assert "b does not exist for this item (a=3)" in problems[0]


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("x", ["x", "x-2", "x-3"]),
        ("{{ row.id }}", ["7", "7-2", "7-3"]),
        ("x-{{ replica }}", ["x-0", "x-1", "x-2"]),
        ("{{ row.id }}/y", ["7/y", "7/y-2", "7/y-3"]),
    ],
)
def test_replicas_are_numbered_unless_the_name_does_so(name: str, names: list[str]) -> None:
    manifest = _manifest(f'rows: a.csv\nrepeat: 3\ninput: {{}}\noutput: {{name: "{name}"}}')
    items, problems = _expand(manifest, _rows({"id": 7}))
    assert [item.name for item in items] == names
    assert problems == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("{{ row.null }}", "is null here"),
        ("{{ omit }}", "omit has no meaning here"),
        ("{{ row.tags }}", "is a list"),
        ("{{ row.empty }}", "the name is empty"),
        ("/{{ row.id }}", "relative"),
    ],
)
def test_what_is_no_name_is_a_problem(name: str, words: str) -> None:
    manifest = _manifest(f'rows: a.csv\ninput: {{}}\noutput: {{name: "{name}"}}')
    items, problems = _expand(manifest, _rows({"id": 7, "null": None, "tags": [1], "empty": ""}))
    assert items == []
    assert words in problems[0]


_NUMBERED = 'rows: a.csv\nmatrix: {a: {range: [0, 10]}}\ninput: {n: "{{ row.n }}", i: "{{ index }}"}'


def test_where_then_sample_then_limit_choose_items_and_keep_their_index() -> None:
    rows = _rows({"n": 0}, {"n": 1})
    where = "row.n == 1 and a > 2"
    items, _ = _expand(_manifest(_NUMBERED), rows, where=where)
    assert [item.input["i"] for item in items] == list(range(13, 20))
    sampled, _ = _expand(_manifest(_NUMBERED), rows, where=where, sample=4)
    assert len(sampled) == 4
    assert [item.input["i"] for item in sampled] == sorted(item.input["i"] for item in sampled)
    assert {item.input["i"] for item in sampled} <= set(range(13, 20))
    both, _ = _expand(_manifest(_NUMBERED), rows, where=where, sample=4, limit=2)
    assert [item.input for item in both] == [item.input for item in sampled[:2]]
    assert [item.seq for item in both] == [0, 1]


def test_the_manifest_chooses_among_rows_first() -> None:
    manifest = _manifest(
        "rows: {file: a.csv, where: 'row.n | int > top', sample: {n: 3, seed: 1}, limit: 2}\n"
        'vars: {top: 4}\nmatrix: {a: [1, 2]}\ninput: {n: "{{ row.n }}", i: "{{ index }}"}'
    )
    items, problems = _expand(manifest, _rows(*({"n": str(n)} for n in range(10))))
    assert problems == []
    assert len(items) == 4
    assert all(int(item.input["n"]) > 4 for item in items)
    assert [item.input["i"] for item in items] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        (
            "row.keep",
            ('where must give true or false, not "no" (data.csv:2) [2 items] '
            "(compare it: row.keep == 'yes')"),
        ),
        ("row.kep == 'x'", 'row.kep does not exist (data.csv:2) [2 items] (did you mean "keep"?)'),
        ("row.keep == 'maybe'", "leaves none of the 2 rows"),
    ],
)  # fmt: skip
def test_a_where_over_rows_that_fails_is_a_problem(where: str, problem: str) -> None:
    manifest = _manifest(f'rows: {{file: a.csv, where: "{where}"}}\ninput: {{}}')
    items, problems = _expand(manifest, _rows({"keep": "no"}, {"keep": "yes"}))
    assert items == []
    assert problems[0].endswith(f"rows.where: {problem}")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("rwo.n", '--where: rwo does not exist (did you mean "row"?)'),
        ("row.n ==", "--where: the template is not valid"),
        ("row.x", "--where: row.x does not exist (data.csv:2, a=0)"),
        ("'yes'", 'where must give true or false, not "yes"'),
    ],
)
def test_a_where_of_the_command_line_that_fails_is_a_problem(where: str, words: str) -> None:
    items, problems = _expand(_manifest(_NUMBERED), _rows({"n": 0}), where=where)
    assert items == []
    assert words in problems[0]


@pytest.mark.parametrize(("where", "count"), [("row.n", 10), ("none", 0), ("a % 2", 10), ("row.n == 1", 10)])
def test_numbers_and_null_are_plainly_true_or_false(where: str, count: int) -> None:
    items, problems = _expand(_manifest(_NUMBERED), _rows({"n": 0}, {"n": 1}), where=where)
    assert (len(items), problems) == (count, [])


def test_columns_win_over_the_methods_of_a_mapping() -> None:
    manifest = _manifest('rows: a.csv\ninput: {a: "{{ row.items }}", b: "{{ row.keys }} {{ row.values }}"}')
    items, _ = _expand(manifest, _rows({"items": "i", "keys": "k", "values": "v"}))
    assert items[0].input == {"a": "i", "b": "k v"}


def test_nothing_is_read_before_it_is_needed() -> None:
    read = 0

    def rows() -> Iterator[Row]:
        nonlocal read
        for line in itertools.count(1):
            read += 1
            yield Row({"n": line}, "data.csv", line)

    manifest = _manifest('rows: a.csv\nmatrix: {a: {range: [0, 50000]}}\ninput: {n: "{{ row.n }}"}')
    items = expand(manifest, rows(), check_endpoint=_fine, problems=ProblemLog())
    assert read == 0
    assert next(items).input == {"n": 1}
    assert read == 1
    assert len(_expand(manifest, rows(), limit=3)[0]) == 3


_cell = st.one_of(st.none(), st.text(max_size=5), st.integers(), st.booleans())


@given(
    st.lists(st.fixed_dictionaries({"a": _cell, "b": _cell}), max_size=6),
    st.integers(1, 3),
    st.one_of(st.none(), st.integers(1, 10)),
)
def test_expansion_is_the_same_each_time(rows: list[dict[str, Any]], repeat: int, sample: int | None) -> None:
    manifest = _manifest(
        f"rows: a.csv\nrepeat: {repeat}\nmatrix: {{m: [1, x]}}\n"
        'input: {a: "{{ row.a }}", t: "{{ row.b }}/{{ m }}"}\noutput: {name: "{{ row.b }}-{{ m }}"}'
    )
    first = _expand(manifest, _rows(*rows), sample=sample)
    assert first == _expand(manifest, _rows(*rows), sample=sample)
    assert [item.seq for item in first[0]] == list(range(len(first[0])))


def _many(count: int) -> Iterator[Row]:
    for number in range(count):
        yield Row({"id": str(number), "name": f"Person {number}", "place": "Rome"}, "data.csv", number + 2)


_BIG = """
rows: data.csv
matrix:
  style: [oil painting, watercolor, etching, ink, photo, clay, neon, pastel, pixel, comic]
  seed: {range: [0, 10]}
input:
  prompt: "{{ style }} portrait of {{ row.name }} in {{ row.place }}"
  seed: "{{ seed }}"
  note: "{{ row.name | upper }}"
output: {name: "{{ row.id }}/{{ style | slug }}-{{ seed }}"}
"""


def test_a_hundred_thousand_items_with_names_take_a_few_seconds() -> None:
    manifest = _manifest(_BIG)
    before = time.process_time()
    count = sum(1 for _ in expand(manifest, _many(1000), check_endpoint=_fine, problems=ProblemLog()))
    assert count == 100_000
    assert time.process_time() - before < 8  # 2 s on an idle core; slack for a busy one


def test_memory_stays_flat() -> None:
    manifest = _manifest(_BIG)
    sum(1 for _ in expand(manifest, _many(1), check_endpoint=_fine, problems=ProblemLog()))
    tracemalloc.start()
    try:
        sum(1 for _ in expand(manifest, _many(100), check_endpoint=_fine, problems=ProblemLog()))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "more",
    [
        "",
        "matrix: {a: [1, 2, 3], b: [x, y]}\n",
        "matrix: {a: [1, 2, 3], b: [x, y], exclude: [{a: 2, b: x}], include: [{a: 9, b: z}, {a: 1, c: 5}]}\n",
        "matrix: {a: [1, 2]}\nzip: {c: [5, 6, 7], d: [8, 9, 10]}\nrepeat: 3\n",
        "zip: {c: [5, 6]}\nrepeat: 2\n",
    ],
)
@pytest.mark.parametrize("where", [None, "index % 3 == 1"])
def test_an_items_number_tells_its_combination_whatever_was_chosen(more: str, where: str | None) -> None:
    manifest = _manifest('rows: a.csv\ninput: {p: "{{ row.r }}"}\n' + more)
    items, problems = _expand(manifest, _rows({"r": "R"}, {"r": "S"}, {"r": "T"}), where=where)
    assert problems == []
    count = variant_count(manifest)
    whole, _ = _expand(manifest, _rows({"r": "R"}))
    assert len(whole) == count * manifest.repeat

    def combination(item: Item) -> str:
        return item.origin.partition(", ")[2].partition("replica")[0]

    of_first_row = [combination(item) for item in whole[:: manifest.repeat]][:count]
    assert [combination(item) for item in items] == [
        of_first_row[item.number // manifest.repeat % count] for item in items
    ]
