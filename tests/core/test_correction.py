"""What is said to be written instead is written, as it stands, and is taken then."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from falbatch.core.checking import InputCheck
from falbatch.core.correction import correction
from falbatch.core.expand import expand
from falbatch.core.fileinputs import FileMark, Travel, marked, stand_in, with_files
from falbatch.core.findings import Findings
from falbatch.core.identity import canonical_json
from falbatch.core.manifest import parse_manifest
from falbatch.core.model import Row
from falbatch.core.problems import ProblemLog
from falbatch.exactjson import parse_json
from tests.core.openapi import document

if TYPE_CHECKING:
    from falbatch.errors import Problem

INTEGER = {"type": "integer"}
NUMBER = {"type": "number"}
FLAG = {"type": "boolean"}
TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT}
NULL = {"type": "null"}
LONG = "https://example.org/" + "a" * 80


def looked_at(line: str, schema: Any, *cells: Any) -> tuple[Findings, list[Any]]:
    """What is said of a manifest with `n: line`, a row for each of `cells`; and what `n` was in each input."""
    manifest = parse_manifest(f"endpoint: a/b\nrows: r.csv\ninput:\n  n: {line}\n".encode(), source="m.yaml")
    rows = [Row(cell if isinstance(cell, dict) else {"n": cell}, "r.csv", place) for place, cell in enumerate(cells, 2)]
    findings = Findings(manifest, {"a/b": InputCheck(document({"n": schema}))})
    log = ProblemLog()
    sent = []
    for item in expand(manifest, rows, check_endpoint=lambda _endpoint: None, problems=log):
        given = {"n": 2**31 - 1} if item.input.get("n") == {"falbatch:derive": True} else item.input
        marks = canonical_json(marked(given, lambda file: bytes(32)))
        input_ = parse_json(with_files(marks, stand_in))
        findings.look("a/b", input_, item.seq, item.origin)
        sent.append(input_.get("n"))
    log.raise_if_any()
    return findings, sent


def only(problems: tuple[Problem, ...]) -> Problem:
    (problem,) = problems
    return problem


FOLLOWED = re.compile(r"write (.+?)(?:, with(?:out)? quotes)?")
"""What a hint says to write: all of it is YAML."""

WORKING: list[tuple[str, Any, list[Any], list[Any]]] = [
    ('"{{ row.n }}"', INTEGER, ["5", "7"], [5, 7]),
    ('"{{ row.n }}"', NUMBER, ["5", "7.5"], [5, 7.5]),
    ('"{{ row.n }}"', FLAG, ["true", "No", "on"], [True, False, True]),
    ('"{{ row.n }}"', FLAG, [1, 0], [True, False]),
    ('"{{ row.n }}"', INTEGER, [2.5, 7.0], [2, 7]),
    ('"{{ row.n }}"', INTEGER, ["5.0", "6"], [5, 6]),
    ('"{{ row.n }}"', INTEGER, ["1_000", "007", "+5", "٥"], [1000, 7, 5, 5]),
    ('"{{ row.n if row.n else omit }}"', INTEGER, ["5", ""], [5, None]),
    ('"{{ omit if not row.n else row.n | trim }}"', INTEGER, ["5 ", ""], [5, None]),
    ('"{{ (row.n if row.n else omit) }}"', FLAG, ["no", ""], [False, None]),
    ("\"{{ row.n if row.n else (omit if true else '3') }}\"", INTEGER, ["5", ""], [5, None]),
    ("\"{{ row.n if row.n else '3' }}\"", INTEGER, ["5", ""], [5, 3]),
    ('"{{ row.n | default(omit) }}"', INTEGER, ["5", {"other": "6"}], [5, None]),
    ('"{{ row.n | trim | default(omit, true) }}"', FLAG, ["no", ""], [False, None]),
    ('"{{ row.a or row.n }}"', INTEGER, [{"a": "", "n": "5"}, {"a": "7", "n": "1"}], [5, 7]),
    ('"{{ row.n ~ row.n }}"', INTEGER, ["5"], [55]),
    ("'{{ row[\"n\"] }}'", INTEGER, ["5"], [5]),
    ("\"{{ row['n'] }}\"", INTEGER, ["5"], [5]),
    ("\"{{ row['n'] | replace(\\\"a\\\", '') }}\"", INTEGER, ["5a"], [5]),
    ('"{{- row.n -}}"', INTEGER, ["5"], [5]),
    ('"{{ row.n }}"', {"anyOf": [INTEGER, NULL]}, ["5", "6"], [5, 6]),
    ('"{{ row.n }}"', {"type": "integer", "minimum": 1, "nullable": True}, ["5"], [5]),
    ('"{{ row.n }}"', {"anyOf": [INTEGER, NUMBER]}, ["5.5"], [5.5]),
    ('"{{ row.n }}"', {"anyOf": [{"type": "string", "enum": ["auto"]}, INTEGER]}, ["5", "6"], [5, 6]),
    ('"{{ row.n }}"', {"anyOf": [{"type": "string", "enum": ["auto", 'a"b']}, INTEGER]}, ["5", "auto"], [5, "auto"]),
    (
        '"{{ row.n if row.n else omit }}"',
        {"anyOf": [{"enum": ["auto"]}, FLAG]},
        ["no", "auto", ""],
        [False, "auto", None],
    ),
    ('"{{ row.n }}"', {"anyOf": [TEXT, TEXTS]}, [5, 6], ["5", "6"]),
    ('"{{ row.n }}"', TEXT, [5, 6.5], ["5", "6.5"]),
    ('"{{ row.n }}"', TEXT, [True], ["true"]),
    ('"{{ row.n }}"', {"type": "string", "enum": ["true", "false"]}, [True], ["true"]),
    ('"{{ row.n }}"', {"type": "string", "enum": ["5", "10"]}, [5], ["5"]),
    ('"{{ row.n }}"', {"type": "string", "enum": ["5", "10"]}, [10.0], ["10"]),
    ('"{{ row.n }}"', {"type": "integer", "enum": [5, 10]}, ["5"], [5]),
    ('"{{ row.n }}"', {"type": "integer", "maximum": 10}, [50, 3, 60], [10, 3, 10]),
    ('"{{ row.n + 1 }}"', {"type": "integer", "minimum": 10}, [1, 30], [10, 31]),
    ('"{{ row.n }}"', {"type": "integer", "minimum": 0.5}, [0], [1]),
    ('"{{ row.n }}"', {"type": "number", "minimum": 1e-05}, [0.0, 2.5], [1e-05, 2.5]),
    ('"{{ row.n }}"', {**TEXT, "maxLength": 4}, ["xxxxx", "y"], ["xxxx", "y"]),
    ('"{{ row.n | upper }}"', {**TEXT, "maxLength": 4}, ["xxxxx"], ["XXXX"]),
    ('"{{ row.n }}"', INTEGER, [None, 3], [None, 3]),
    ('"{{ row.n }}"', TEXTS, [LONG, "b"], [[LONG], ["b"]]),
    ('\'{{ row.n | replace("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbb") }}\'', TEXTS, ["x"], [["x"]]),
    (LONG, TEXTS, [1], [[LONG]]),
    ("{file: a.png}", TEXTS, [1], [[stand_in(FileMark(bytes(32)))]]),
    ("{file: a.png, as: data}", TEXTS, [1], [[stand_in(FileMark(bytes(32), Travel.DATA))]]),
    ('{file: "{{ row.n }}"}', TEXTS, [LONG], [[LONG]]),
    ("{derive: true}", {"type": "integer", "maximum": 65535}, [1, 2], [0, 1]),
    ("{derive: true}", TEXT, [1, 2], ["0", "1"]),
    ('"1_000"', INTEGER, [1], [1000]),
    ('"007"', INTEGER, [1], [7]),
    ('"+5"', INTEGER, [1], [5]),
    ('"٥"', INTEGER, [1], [5]),
    ('"5."', NUMBER, [1], [5]),
    ('".5"', NUMBER, [1], [0.5]),
    ('"1e-5"', NUMBER, [1], [1e-05]),
    ("5.50", TEXT, [1], ["5.5"]),
    ("true", TEXT, [1], ["true"]),
    ("5", {"type": "string", "const": "5", "enum": ["5"]}, [1], ["5"]),
    ("'on'", FLAG, [1], [True]),
    ("2.5", INTEGER, [1], [2]),
    ("70", {"type": "integer", "maximum": 10}, [1], [10]),
]


@pytest.mark.parametrize(("line", "schema", "cells", "sent"), WORKING)
def test_what_a_hint_says_to_write_is_taken_and_keeps_every_rows_value(
    line: str, schema: Any, cells: list[Any], sent: list[Any]
) -> None:
    before, _ = looked_at(line, schema, *cells)
    problem = (before.errors or before.warnings)[0]
    followed = FOLLOWED.fullmatch(problem.hint.rpartition(": ")[2] if "derived" in problem.hint else problem.hint)
    assert followed, problem.hint
    after, now = looked_at(followed[1], schema, *cells)
    assert after.errors == after.warnings == (), followed[1]
    assert now == sent


SAYING = [
    ('"{{ row.n * 2 }}"', INTEGER, "5", "cells are text: put ( … | int) around each of them"),
    ('"{{ row.n }}"', INTEGER, "abc", "write a whole number"),
    ('"{{ row.n }}"', NUMBER, "nan", "write a number"),
    ('"nan"', NUMBER, 1, "write a number"),
    ('"1e999"', NUMBER, 1, "write a number"),
    ('"{{ row.n | default(omit, boolean=1) }}"', INTEGER, "5", "write a whole number"),
    ('"{{ row.n }}0"', INTEGER, "5", "a template that is one expression keeps its type"),
    ('"{{ row.n | default(omit, boolean=1) }}"', FLAG, "no", "write true or false"),
    ('"{{ row.n }} and more"', {**TEXT, "maxLength": 4}, "x", "shorten it"),
    ("aaaaaaa", {**TEXT, "maxLength": 4}, "x", "shorten it"),
    ('"{{ row.n }}"', {"type": "integer", "enum": [5, 10]}, 9, "the nearest is 10"),
    ('"{{ row.n }}"', {"type": "string", "enum": ["", "auto"]}, ["auto"], "write one of those"),
    ("null", INTEGER, 1, "leave it out"),
    ("low", {"type": "string", "enum": ["high"], "default": "low"}, 1, "that is the default"),
    ("b" * 300, TEXTS, 1, "put it in brackets: a list of one"),
    (
        "{derive: true}",
        {"type": "integer", "exclusiveMaximum": 65536},
        1,
        'write one of your own, such as "{{ index }}"',
    ),
]


@pytest.mark.parametrize(("line", "schema", "cell", "hint"), SAYING)
def test_where_nothing_can_be_written_as_it_stands_it_is_said_in_words(
    line: str, schema: Any, cell: Any, hint: str
) -> None:
    findings, _ = looked_at(line, schema, cell)
    assert hint in only(findings.errors or findings.warnings).hint


def test_a_value_that_a_template_around_it_makes_gets_no_constant() -> None:
    schema = {"type": "object", "properties": {"width": {"type": "integer", "maximum": 10}}}
    for value in (50, "5", 2.5):
        findings, _ = looked_at('"{{ row.n }}"', schema, {"n": {"width": value}})
        assert not re.search(r"\d|…", only(findings.errors).hint.removesuffix("at most 10"))


def test_no_hint_and_no_message_holds_what_stands_for_a_file() -> None:
    for schema in (INTEGER, TEXTS, FLAG, {"anyOf": [INTEGER, FLAG]}, {"type": "object"}, {**TEXTS, "minItems": 2}):
        for line in ("{file: a.png}", "{file: a.png, as: data}", "[{file: a.png}]"):
            findings, _ = looked_at(line, schema, 1)
            said = " ".join(map(str, findings.errors))
            assert "invalid" not in said
            assert "base64" not in said
    findings, _ = looked_at("{file: a.png}", INTEGER, 1)
    assert "must be a whole number, not a file" in only(findings.errors).what
    fault = next(InputCheck(document({"n": TEXTS})).faults({"n": stand_in(FileMark(bytes(32)))}))
    assert correction(fault, None) == "write [{file: …}]"
