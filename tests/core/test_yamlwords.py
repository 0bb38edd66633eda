"""Texts of others in a YAML file: read back as they were, and never taken for anything else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core import yamlwords
from falbatch.core.expand import expand
from falbatch.core.manifest import parse_manifest
from falbatch.core.problems import ProblemLog, one_line
from falbatch.core.yamltext import load

TRAPS = [
    "",
    " ",
    "5",
    "yes",
    "null",
    "~",
    "1e3",
    "2024-01-01",
    "- a",
    "a: b",
    "# no comment",
    "a # b",
    "'",
    '"',
    "\\",
    "\\n",
    "a\nb\r\nc\td",
    "\x07\x1b[31m\x7f\x85\xa0\u2028\u2029\ufeff\ufffe\u200d",
    "\U0001f3f4\U000e0067",
    "---",
    "...",
    "%YAML",
    "&a *b !c |",
    "{{ name }}",
    "{{",
    "}}",
    "{% raw %}",
    "{% endraw %}{{ 1 }}",
    "{# a #}",
    '"}} {{ "',
    "'}}' \\\" {{",
    "{{ '\\n' }}\n{{ omit }}",
    "C:\\{{new}}\\x41",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(TRAPS)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.text(st.sampled_from('{}%#"\\ \n'), max_size=12),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*TRAPS, "a", "file", "as"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def read(written: str) -> Any:
    return load(f"x: {written}  ## words\n".encode(), source="m.yaml")[0]["x"]


@pytest.mark.parametrize("text", TRAPS)
def test_a_text_stays_that_text_on_one_line(text: str) -> None:
    written = yamlwords.quoted(text)
    assert read(written) == text
    assert written.isprintable()


@given(JSON)
def test_a_value_is_read_as_it_was_written(value: Any) -> None:
    assert read(yamlwords.constant(value)) == value


def rendered(written: str) -> Any:
    """What an input's field makes of `written`."""
    text = f"endpoint: a/b\nvars: {{name: wrong}}\ninput:\n  x: {written}\n"
    manifest = parse_manifest(text.encode(), source="m.yaml")
    problems = ProblemLog()
    (item,) = expand(manifest, None, check_endpoint=lambda _: None, problems=problems)
    assert len(problems) == 0
    return item.input["x"]


@pytest.mark.parametrize("text", TRAPS)
def test_a_text_is_never_a_template(text: str) -> None:
    written = yamlwords.input_value(text)
    assert written is not None
    assert rendered(written) == text


@given(JSON)
def test_an_input_is_rendered_to_what_was_meant_or_refused_at_once(value: Any) -> None:
    written = yamlwords.input_value(value)
    if written is not None:
        assert rendered(written) == value


@pytest.mark.parametrize(
    "value", [{"file": "a"}, [{"file": "a", "as": "data"}], {"x": {"falbatch:file": "0"}}, {"derive": True}]
)
def test_falbatchs_own_marks_cannot_be_said(value: Any) -> None:
    assert yamlwords.input_value(value) is None


def test_what_is_nested_without_end_cannot_be_said() -> None:
    deep: list[Any] = []
    deep.append(deep)
    assert yamlwords.input_value(deep) is None


def test_halves_of_characters_become_a_sign_that_can_be_written() -> None:
    assert read(yamlwords.quoted("a\ud800b")) == "a\ufffdb"


@pytest.mark.parametrize("name", [*TRAPS, "true", "Null", "a", "a-b", "<<", "é"])
def test_a_key_stays_that_text(name: str) -> None:
    assert load(f"{yamlwords.key(name)}: 1".encode(), source="m.yaml")[0] == {name: 1}


def test_words_stay_on_their_line() -> None:
    assert one_line("a\nb\x1b[31m\u2028c\x85 \ud800d") == "a b [31m c d"
