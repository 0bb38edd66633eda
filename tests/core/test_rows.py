"""What a template looks like inside data; the rest of `rows` is tested with the manifest."""

from __future__ import annotations

from typing import Any

import pytest

from falbatch.core.rows import holds_template


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        ("{{ x }}", True),
        ("a {% if %}", True),
        ("{# note #}", True),
        ({"a": ["b", {"c": "{{ x }}"}]}, True),
        ("{ x }", False),
        ("%}", False),
        (3, False),
        ({"{{ x }}": 1}, False),
    ],
)
def test_templates_are_seen_wherever_they_hide(value: Any, holds: bool) -> None:
    assert holds_template(value) is holds
