"""Templates keep types, refuse what would cost money for nothing, and cannot reach out or run away."""

from __future__ import annotations

from typing import Any

import pytest

from falbatch.core.faults import OMIT, TemplateError
from falbatch.core.template import Template, check, check_condition, condition, global_names

_ROW = {
    "name": "Ada", "n": "3", "empty": "", "null": None, "items": "goods", "tags": ["a", "b"], "who": {"age": 7},
    "seed": 18446744073709551617, "share": 0.5, "a column": 1,
}  # fmt: skip


def _render(source: str, **names: Any) -> Any:
    return Template(source).render({**global_names(), "row": _ROW, "style": "ink", **names})


def _fault(source: str, **names: Any) -> str:
    with pytest.raises(TemplateError) as caught:
        _render(source, **names)
    fault = caught.value.fault
    return fault.what + (f" ({fault.hint})" if fault.hint else "")


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("{{ row.seed }}", 18446744073709551617),
        ("{{ row.n | int }}", 3),
        ("{{ row.share }}", 0.5),
        ("{{ row.null }}", None),
        ("{{ row.tags }}", ["a", "b"]),
        ("{{ row.who }}", {"age": 7}),
        ("{{ row.n == '3' }}", True),
        ("{{- row.seed -}}", 18446744073709551617),
        ("{{ '}}' }}", "}}"),
        ("{{ 1, 2 }}", [1, 2]),
        ("{{ omit }}", OMIT),
        ("{{ row.empty or omit }}", OMIT),
        ("{{ row['a column'] }}", 1),
        ("{{ row.items }}", "goods"),
        ("{{ row.who.keys() | list }}", ["age"]),
        ("{{ row.missing | default(5) }}", 5),
        ("{{ row.missing is defined }}", False),
        ("{{ range(3) | list }}", [0, 1, 2]),
        ("{{ result }}", "mine"),
    ],
)
def test_a_template_that_is_one_expression_keeps_its_type(source: str, value: Any) -> None:
    got = _render(source, result="mine")
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ style }} of {{ row.name }}", "ink of Ada"),
        (" {{ row.seed }}", " 18446744073709551617"),
        ("{{ row.n }}\n", "3\n"),
        ("{{ style }}{{ row.n }}", "ink3"),
        ("a{# note #}b", "ab"),
        ("{% if row.empty %}x{% else %}y{% endif %}", "y"),
        ("{% for tag in row.tags %}{{ tag }};{% endfor %}", "a;b;"),
        ("{% set x = row.n | int %}{{ x + 1 }}", "4"),
        ("{{ row.tags | join(', ') }}.", "a, b."),
        ("<{{ row.name }}> & {{ '<b>' }}", "<Ada> & <b>"),
        ("{{ row.who | tojson }} {{ '<é>' | tojson }}", '{"age": 7} "<é>"'),
        ("{{ 'Oil Painting!' | slug }}-{{ row.n }}", "oil-painting-3"),
        ("{{ row.null or '' }} portrait", " portrait"),
        ("{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
        ("{{ 'é' | upper }}{{ 'ab' | replace('a', 'c') }}{{ 2.567 | round(1) }}", "Écb2.6"),
        ("{{ '%05d' | format(3) }}{{ '{:>4}'.format('x') }}{{ 'a' * 3 }}", "00003   xaaa"),
    ],
)
def test_anything_else_gives_text(source: str, text: str) -> None:
    assert _render(source) == text


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ row.nmae }}", 'row.nmae does not exist (did you mean "name"?)'),
        ("a {{ row.nmae }}", 'row.nmae does not exist (did you mean "name"?)'),
        ("a {{ row['nmae'] }}", 'row.nmae does not exist (did you mean "name"?)'),
        ("{{ row.who.agee }}", 'row.who.agee does not exist (did you mean "age"?)'),
        ("{{ color }}", "color does not exist for this item (an include of the matrix may leave it out"),
        ("{{ row.null }} portrait", "row.null is null here (write {{ row.null or '' }} to leave it empty)"),
        ("{% if true %}{{ row.null }}{% endif %}", "row.null is null here"),
        ("{% for x in [none] %}{{ x }}{% endfor %}", "a value is null here"),
        ("{{ row.name }} {{ row.tags }}", "row.tags is a list, which cannot stand inside text"),
        ("x {{ row.who }}", "row.who is a mapping or set, which cannot stand inside text"),
        ("x {{ row.keys }}", "row.keys is a function"),
        ("x {{ row.tags | map('upper') }}", "row.tags | map('upper') is a generator"),
        ("x {{ self }}", "cannot stand inside text"),
        ("{{ row.keys }}", "a function cannot be sent as JSON"),
        ("x {{ omit }}", "omit can only be a whole value"),
        ("{{ row.empty | int }}", '"" is not a whole number'),
        ("{{ row.name | int }}", '"Ada" is not a whole number'),
        ("{{ row.share | int }}", "0.5 is not a whole number (round it first)"),
        ("{{ row.name | float }}", '"Ada" is not a number'),
        ("{{ 'nan' | float }}", '"nan" is not a number'),
        ("{{ row.null | slug }}", "null has no slug"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ row.name + 1 }}", "can only concatenate str"),
        ("{{ 1e308 * 10 }}", "inf is not a number that JSON knows"),
        ("{{ row.name.__class__ }}", "the template does what it may not"),
        ("x{{ ''.__class__.__mro__ }}", "the template does what it may not"),
        ("{{ row.update({'x': 1}) }}", "the template does what it may not"),
        ("{{ row.tags.append(1) }}", "the template does what it may not"),
    ],
)
def test_what_cannot_be_meant_is_a_fault(source: str, words: str) -> None:
    assert words in _fault(source)


def test_defaults_make_bad_numbers_good() -> None:
    assert _render("{{ row.empty | int(7) }}") == 7
    assert _render("{{ row.name | float(0.5) }}") == 0.5
    assert _render("{{ 'ff' | int(base=16) }}") == 255


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 10000000000 }}",
        "{{ 10000000000 * 'x' }}",
        "{{ [1] * 10000000000 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 'x'.ljust(10000000000) }}",
        "{{ 'x' | center(10000000000) }}",
        "{{ 'x' | indent(10000000000) }}",
        "{{ [1] | batch(10000000000, 0) | list }}",
        "{{ '%10000000000d' | format(1) }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ '{:>10000000000}'.format(1) }}",
        "{{ '{:>{}}'.format(1, 10000000000) }}",
        "{{ range(100000) | list }}",
        "{% for a in range(9999) %}{% for b in range(9999) %}xxxxxxxxxx{% endfor %}{% endfor %}",
    ],
)
def test_templates_cannot_fill_the_memory(source: str) -> None:
    assert _fault(source)


def test_the_same_mistake_with_other_values_has_the_same_cause() -> None:
    causes = set()
    for text in ("x", "y"):
        with pytest.raises(TemplateError) as caught:
            _render("{{ style | int }}", style=text)
        causes.add(caught.value.fault.cause)
    assert len(causes) == 1


def test_rendering_leaves_its_context_alone() -> None:
    context = {**global_names(), "row": dict(_ROW)}
    before = {**context}
    Template("{% set row = 1 %}{{ row }}x").render(context)
    assert context == before


def test_the_names_a_template_takes_are_known() -> None:
    assert Template("{{ row.x }} {{ seed }}{% for a in b %}{{ a }}{% endfor %}").names() == {"row", "seed", "b"}


def test_good_templates_have_no_faults() -> None:
    assert check("{{ style | upper }} {% set x = 1 %}{{ x }} {{ omit }}", frozenset({"style"})) == []


@pytest.mark.parametrize(
    "source",
    ["{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{{ " + "9" * 5000 + " }}", "{{ " + "[" * 150 + "]" * 150 + " }}"],
)
def test_templates_without_end_are_refused_not_crashed_on(source: str) -> None:
    faults = check(source, frozenset())
    assert [fault.what for fault in faults] == [
        "the template is too deeply nested, or holds a number of too many digits"
    ]


def test_faults_of_one_item_name_their_line_as_well() -> None:
    with pytest.raises(TemplateError) as caught:
        _render("a\n{{ row.name }}\n{{ row.null }}\n")
    assert caught.value.fault.line == 3


def test_lines_inside_the_text_are_given() -> None:
    assert [fault.line for fault in check("a\n{{ b }}\n{{ c }}", frozenset())] == [2, 3]


def test_conditions_are_one_expression_with_or_without_braces() -> None:
    known = frozenset({"row"})
    assert condition("row.x == 'a'") == "{{ row.x == 'a' }}"
    assert condition(" {{ row.x }} ") == "{{ row.x }}"
    assert check_condition("row.x", known) == []
    assert check_condition("{{ row.x }} y", known)
    assert check_condition("row.x }} {{ row.y", known)
    assert check_condition("colour", known)[0].what == "colour does not exist"


@pytest.mark.parametrize(
    ("value", "made"),
    [("true", True), (" YES ", True), ("1", True), (1, True), (True, True), ("off", False), ("No", False), (0, False)],
)
def test_bool_reads_the_words_for_true_and_false(value: Any, made: bool) -> None:
    assert Template("{{ x | bool }}").render({**global_names(), "x": value}) is made


@pytest.mark.parametrize("value", ["maybe", "", "2", 2, 0.5, None, [], "t"])
def test_bool_refuses_what_is_neither(value: Any) -> None:
    with pytest.raises(TemplateError, match="neither true nor false"):
        Template("{{ x | bool }}").render({**global_names(), "x": value})
