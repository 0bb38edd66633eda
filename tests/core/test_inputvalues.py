"""What sets a few inputs apart."""

from __future__ import annotations

from falbatch.core.fileinputs import FILE_KEY
from falbatch.core.inputvalues import SHOWN_MOST, VALUES_MOST, told, varying


def _named(sha256: str) -> str:
    return f"{sha256}.png"


def test_places_differ_where_a_value_is_another_or_lacks() -> None:
    first = {"size": {"width": 1, "height": 2}, "steps": 4, "same": [1, {"a": 2}]}
    second = {"size": {"width": 3, "height": 2}, "same": [1, {"a": 2}]}
    assert varying([first, second]) == {"size.width", "steps"}
    assert varying([first]) == varying([]) == frozenset()


def test_values_are_told_in_the_input_s_order_and_lists_as_a_whole() -> None:
    given = {"size": {"width": 1}, "loras": [{"path": "x"}], "on": True, "none": {}, "text": "ü"}
    places = frozenset({"text", "size.width", "loras", "on", "none", "elsewhere"})
    assert told(given, places, _named) == ["size.width: 1", 'loras: [{"path": "x"}]', "on: true", "none: {}", "text: ü"]


def test_files_go_by_their_content_and_are_told_by_name() -> None:
    one, other = ({"image": {FILE_KEY: word, "as": "data"}} for word in ("aa", "bb"))
    places = varying([one, other])
    assert told(one, places, _named) == ["image: aa.png"]


def test_long_values_and_many_values_are_cut() -> None:
    given = {f"n{number:02}": "x" * 500 for number in range(VALUES_MOST + 3)}
    words = told(given, frozenset(given), _named)
    assert words[0] == "n00: " + "x" * SHOWN_MOST + "…"
    assert (len(words), words[-1]) == (VALUES_MOST + 1, "and 3 more")
