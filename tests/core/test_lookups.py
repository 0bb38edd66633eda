"""What templates look up by themselves is what Jinja would have found, value for value and word for word."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.faults import Fault, TemplateError
from falbatch.core.template import Template, global_names

ROW = {
    "name": "Ada",
    "age": 36,
    "items": "a column",
    "two words": "x",
    "half": 0.5,
    "big": 10**30,
    "yes": True,
    "null": None,
    "list": [1, "2"],
    "deep": {"er": {"est": "found"}},
    "": "empty",
    "half pair": "\ud800",
}
NAMES: dict[str, Any] = {"row": ROW, "style": "oil", "seed": 7, "self": "mine", "long": "x" * 1_000_001, "index": 3}

LOOKED_UP = [
    "{{ row.name }}",
    "{{row['name']}}",
    "{{ row.age }}",
    "{{ row.half }} {{ row.big }} {{ row.yes }}",
    "{{ row.list }}",
    "{{ row.null }}",
    "{{ row.deep }}",
    "{{ row.deep.er['est'] }}, {{ style }}",
    "{{ row.items }} {{ row['two words'] }} {{ row[''] }}",
    "  {{- style -}}  \n",
    "{{ style }}\n",
    "text {# comment #} {{ seed }}",
    "{{ omit }}",
    "{% raw %}{{ style }}{% endraw %}{{ style }}",
]

LEFT_TO_JINJA = [
    "{{ row.name | upper }}",
    "{{ row.missing }}",
    "{{ row.missing.too }} x",
    "{{ missing }}",
    "{{ row.null }} x",
    "{{ row.list }} x",
    "{{ omit }} x",
    "{{ row }} x",
    "{{ range }}",
    "{{ row.name.upper }}",
    "{{ row.keys }}",
    "{{ row.name.upper() }}",
    "{{ row.list[0] }}",
    "{{ self }}",
    "{{ self }} x",
    "{{ long }}",
    "{{ long }} x",
    "{{ row['half pair'] }}",
    "{{ 'a' }}{{ 1 }}",
    "{% if row.yes %}{{ style }}{% endif %}",
    "{% set x = 1 %}{{ x }}",
]


def rendered(source: str, *, by_jinja: bool) -> Any:
    """The value and its type, or the fault."""
    template = Template(source)
    if by_jinja:
        template._quick = None
    try:
        value = template.render({**global_names(), **NAMES})
    except TemplateError as error:
        return error.fault
    return type(value), value


@pytest.mark.parametrize("source", LOOKED_UP)
def test_what_is_looked_up_is_what_jinja_gives(source: str) -> None:
    found = rendered(source, by_jinja=False)
    assert Template(source)._quick is not None
    assert found == rendered(source, by_jinja=True)


@pytest.mark.parametrize("source", LEFT_TO_JINJA)
def test_what_is_not_plain_is_said_by_jinja(source: str) -> None:
    found = rendered(source, by_jinja=False)
    assert found == rendered(source, by_jinja=True)
    if Template(source)._quick is not None:
        assert isinstance(found, Fault)


@given(
    st.lists(
        st.sampled_from(["a ", "\n", "é", "{{ row.name }}", "{{ row['age'] }}", "{{ style }}", "{{ row.x }}", "{# #}"]),
        min_size=1,
        max_size=6,
    )
)
def test_any_mixture_gives_the_same(parts: list[str]) -> None:
    source = "".join(parts)
    assert rendered(source, by_jinja=False) == rendered(source, by_jinja=True)


def test_an_item_leaves_nothing_behind_for_the_next() -> None:
    template = Template("{% if row.set %}{% set x = row.set %}{% endif %}{{ x }}")
    assert template.render({**global_names(), "row": {"set": "first"}, "x": "given"}) == "first"
    assert template.render({**global_names(), "row": {"set": ""}, "x": "given"}) == "given"


def test_a_fault_leaves_nothing_behind_for_the_next() -> None:
    template = Template("{% autoescape true %}{{ row.x }}{{ row.y }}{% endautoescape %}<{{ row.x }}")
    with pytest.raises(TemplateError):
        template.render({**global_names(), "row": {"x": "<"}})
    assert template.render({**global_names(), "row": {"x": "<", "y": "&"}}) == "&lt;&amp;<<"
