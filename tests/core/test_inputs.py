"""An input is compiled once and rendered for each item, faults collected on the way."""

from __future__ import annotations

from typing import Any

import pytest

from falbatch.core.fileinputs import from_python
from falbatch.core.inputs import Faults, InputTemplate
from falbatch.core.template import global_names


def _render(data: dict[str, Any], **names: Any) -> tuple[dict[str, Any], Faults]:
    faults: Faults = []
    return InputTemplate(data).render({**global_names(), **names}, faults), faults


def test_templates_are_rendered_wherever_they_stand_and_keys_keep_their_order() -> None:
    data = {"b": "{{ x }}", "a": 1, "deep": {"list": ["{{ x }}", {"y": "<{{ x }}>"}], "no": "{ x }"}, "{{ x }}": 2}
    made, faults = _render(data, x=3)
    assert made == {"b": 3, "a": 1, "deep": {"list": [3, {"y": "<3>"}], "no": "{ x }"}, "{{ x }}": 2}
    assert list(made) == ["b", "a", "deep", "{{ x }}"]
    assert faults == []
    assert data["b"] == "{{ x }}"


def test_omit_drops_a_key_or_an_entry() -> None:
    assert _render({"a": "{{ omit }}", "b": ["{{ x or omit }}", 2], "c": {"d": "{{ omit }}"}}, x=0)[0] == {
        "b": [2],
        "c": {},
    }


def test_all_faults_of_an_item_are_collected_with_their_places() -> None:
    _, faults = _render({"a": "{{ x.y }}", "b": ["{{ 1 / 0 }}"], "c": "{{ x }}"}, x={"z": 1})
    assert [path for path, _ in faults] == [("input", "a"), ("input", "b", 0)]


@pytest.mark.parametrize("value", ["", "  ", None])
def test_an_empty_rendered_prompt_is_a_fault(value: Any) -> None:
    _, faults = _render({"prompt": "{{ x }}"}, x=value)
    assert [(path, fault.what) for path, fault in faults] == [(("input", "prompt"), "the prompt is empty here")]


def test_an_empty_prompt_that_is_meant_is_none() -> None:
    assert _render({"prompt": ""}) == ({"prompt": ""}, [])
    assert _render({"prompt": "{{ omit }}"}) == ({}, [])


def test_a_prompt_that_failed_is_not_also_empty() -> None:
    assert len(_render({"prompt": "{{ x.y }}"}, x={})[1]) == 1


def test_an_input_without_templates_is_shared() -> None:
    data = {"a": [1]}
    assert _render(data)[0] is data


def test_an_input_whose_only_field_is_called_derive_is_that_field() -> None:
    assert _render({"derive": "{{ name }}"}, name="x") == ({"derive": "x"}, [])
    assert _render({"derive": True}) == ({"derive": True}, [])


def test_an_input_whose_only_field_is_called_file_is_that_field() -> None:
    given = {"file": "{{ name }}", "as": "data"}
    assert _render(given, name="x") == ({"file": "x", "as": "data"}, [])
    assert from_python({"file": "x"}) == {"file": "x"}
