"""The JSON Schema that editors check manifests by: made of the parser's own tables, and never stricter than it."""

from __future__ import annotations

import copy
import json
import re
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from pydantic import BeforeValidator

from falbatch.core import fileinputs, rows
from falbatch.core.manifest import _KEYS, parse_manifest
from falbatch.core.manifest_schema import TITLE, _section, section_models
from falbatch.core.schema import Expected, Section
from falbatch.core.yamltext import load
from falbatch.errors import ManifestError
from tests.core.test_manifest import _FULL
from tests.manifest_schema import SHIPPED, docstrings, generated, text_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCHEMA: dict[str, Any] = json.loads(SHIPPED.read_bytes())
VALIDATOR = Draft7Validator(SCHEMA)
MANIFESTS = {
    **{path.name: path.read_bytes() for path in [*ROOT.glob("jobs/*.yaml"), *ROOT.glob("examples/*.yaml")]},
    **{
        f"README.md, {number}": text.encode()
        for number, text in enumerate(
            re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
        )
    },
    "the design's": _FULL,
    "files": b"""
endpoint: "{{ endpoint }}"
vars: {endpoint: a/b, nested: {list: [1, null, {x: y}]}}
rows: {range: [0, 9, 3], where: row.value > 3, sample: {n: 3, seed: 7}, limit: 2}
input: {images: [{file: a.png, as: data, content_type: image/png}, {file: b.png, other: 1}, {as: url}], none: null}
budget: {max_cost: 0.5, unit_price: {a/b: 1, c/d: 0.25}, max_failures: "2.5 %", max_equal_failures: null}
limits:
uploads: {expires_in: 86400}
request: {webhook: "https://example.org/fal", expires_in: 0.5, start_timeout_s: 1.5}
""",
}


def parses(text: bytes) -> bool:
    """What the parser says."""
    try:
        parse_manifest(text, source="m.yaml")
    except ManifestError:
        return False
    return True


def fits(text: bytes) -> bool:
    """What the schema says."""
    return VALIDATOR.is_valid(load(text, source="m.yaml")[0])


def test_what_is_shipped_is_what_the_code_makes() -> None:
    """If not: `python -m tests.manifest_schema`."""
    assert SHIPPED.read_text(encoding="utf-8") == text_of(generated())
    Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["title"] == TITLE


def test_the_schema_and_the_parser_know_the_same_keys() -> None:
    assert SCHEMA["properties"].keys() == _KEYS
    settings_of_rows = SCHEMA["properties"]["rows"]["anyOf"][2]
    assert settings_of_rows["properties"].keys() == rows._KEYS
    assert SCHEMA["definitions"]["value"]["then"]["properties"].keys() == fileinputs._KEYS
    models = section_models()
    assert len(models) >= 6
    for name, model in models.items():
        assert SCHEMA["properties"][name]["properties"].keys() == model.model_fields.keys()


def test_every_key_says_what_it_means_and_every_setting_its_default() -> None:
    for name, made in SCHEMA["properties"].items():
        assert made["description"], name
    for name, model in section_models().items():
        for key, field in model.model_fields.items():
            made = SCHEMA["properties"][name]["properties"][key]
            assert made["description"].startswith(docstrings(model)[key].split()[0].replace("None", "null"))
            if field.default not in (None, "") and not field.default_factory:
                assert made["default"] == field.default


class Finish(StrEnum):
    """A word of a section's."""

    MATT = "matt"
    GLOSSY = "glossy"


class ToySection(Section):
    """A section of tomorrow's."""

    finish: Annotated[Finish, BeforeValidator(Finish), Expected("matt or glossy")] = Finish.MATT
    price: Annotated[Decimal, BeforeValidator(Decimal), Expected("US dollars")]


def test_a_new_field_of_a_section_is_taken_as_it_is() -> None:
    shared: dict[str, Any] = {}
    made = _section(ToySection, lambda _, name: f"Of {name}; None: nothing.", shared)
    good = Draft7Validator({"definitions": shared, **made}).is_valid
    assert good({"finish": "glossy", "price": 0.5})
    assert good(None)
    assert not any(map(good, [{"price": "1"}, {"price": -1}, {"finish": "matt"}, {"finish": "x", "price": 1}]))
    assert not good({"price": 1, "prize": 1})
    finish = made["properties"]["finish"]
    assert (finish["default"], finish["description"]) == ("matt", "Of finish; null: nothing. Takes matt or glossy.")


@pytest.mark.parametrize("text", MANIFESTS.values(), ids=MANIFESTS)
def test_a_good_manifest_fits(text: bytes) -> None:
    assert parses(text)
    assert [error.message for error in VALIDATOR.iter_errors(load(text, source="m.yaml")[0])] == []


BROKEN = [
    "versoin: 1",
    "version: 2",
    "version: one",
    "version:",
    "name: a/b",
    "name: '{{ x }}'",
    "endpoint: ''",
    "endpoint: [a/b]",
    "endpoint:",
    "mode: fast",
    "mode:",
    "vars: [a]",
    "vars: {a-b: 1}",
    "vars: {row: 1}",
    "vars: {a: '{{ b }}'}",
    "vars: {a: [{b: '{% if x %}'}]}",
    "rows:",
    "rows: 7",
    "rows: []",
    "rows: data.xlsx",
    "rows: 'photos/*.png'",
    "rows: [[1]]",
    "rows: [{a: '{{ b }}'}]",
    "rows: {}",
    "rows: {glob: a, list: [1]}",
    "rows: {glob: ''}",
    "rows: {glob: a, format: csv}",
    "rows: {file: 'a*.csv'}",
    "rows: {file: a.csv, fromat: csv}",
    "rows: {file: a.csv, format: xlsx}",
    "rows: {list: 7}",
    "rows: {range: [1]}",
    "rows: {range: [0, 9, 0]}",
    "rows: {range: [0, a]}",
    "rows: {list: [1], limit: 0}",
    "rows: {list: [1], where: ' '}",
    "rows: {list: [1], sample: 0}",
    "rows: {list: [1], sample: {seed: 1}}",
    "rows: {list: [1], sample: {n: 1, seed: x}}",
    "validate: maybe",
    "validate:",
    "validate: {exept: [a]}",
    "validate: {except: a}",
    "validate: {except: ['']}",
    "input: {seed: {derive: 7}}",
    "input: {a: [{derive: false}]}",
    "rows: {list: [1], sample: {n: 1, sed: 2}}",
    "matrix: [a]",
    "matrix: {a: b}",
    "matrix: {a: []}",
    "matrix: {a: {range: [0, 3], step: 1}}",
    "matrix: {a: ['{{ b }}']}",
    "matrix: {a b: [1]}",
    "matrix: {include: {a: 1}}",
    "matrix: {a: [1], exclude: [{}]}",
    "matrix: {a: [1], exclude: [7]}",
    "zip: {a: 1}",
    "zip: {if: [1]}",
    "repeat: 0",
    "repeat: 10001",
    "repeat: 1.5",
    "repeat:",
    "input:",
    "input: [a]",
    "input: {'falbatch:file': x}",
    "input: {a: {b: {'falbatch:file': x}}}",
    "input: {a: {file: ' '}}",
    "input: {a: [{file: x, as: zip}]}",
    "input: {a: {file: x, content_type: png}}",
    "output: out",
    "output: {dir: ''}",
    "output: {dir: '{{ x }}'}",
    "output: {sidecar: 'yes'}",
    "output: {lacking: reroll}",
    "output: {folder: x}",
    "limits: {downlaods: 3}",
    "limits: {in_flight: many}",
    "limits: {in_flight: 0}",
    "limits: {submits_per_s: 0}",
    "limits: {polls_per_s: null}",
    "limits: {downloads: 2.5}",
    "mode: realtime\nlimits: {connections: 65}",
    "retry: {attempts: 21}",
    "retry: {budget: 2}",
    "budget: {max_cost: -1}",
    "budget: {max_cost: '5'}",
    "budget: {unit_price: {}}",
    "budget: {unit_price: {a/b: free}}",
    "budget: {max_failures: 5.5}",
    "budget: {max_failures: 5 percent}",
    "budget: {max_equal_failures: 0}",
    "request: {priority: high}",
    "request: {start_timeout_s: 1}",
    "request: {headers: {a b: c}}",
    "request: {headers: {X-A: é}}",
    "request: {hint: ''}",
    "request: {hint: é}",
    "request: {tags: {Team: art}}",
    "request: {tags: {fal.x: art}}",
    "request: {tags: {team: 'a,b'}}",
    "request: {expires_in: 2h}",
    "request: {store_io: 'yes'}",
    "request: {webhook: 'ftp://x'}",
    "uploads: {expires_in: 60}",
    "steps: []",
]

ONLY_THE_PARSER = {
    "name: 7": "editors read 007 and 7 alike",
    "validate: {except: [7]}": "editors read 007 and 7 alike",
    "input: {a: {file: 7}}": "editors read 007 and 7 alike",
    "output: {name: 7}": "editors read 007 and 7 alike",
    "request: {headers: {X-A: 7}}": "editors read 007 and 7 alike",
    "request: {tags: {team: 7}}": "editors read 007 and 7 alike",
    "mode: run\nrequest: {priority: low}": "it depends on the mode",
    "limits: {connections: 4}": "it depends on the mode",
    "zip: {a: [1], b: [1, 2]}": "the lists' lengths are compared",
    "vars: {a: 1}\nmatrix: {a: [1]}": "names are compared",
    "matrix: {a: [1], exclude: [{b: 1}]}": "names are compared",
    "matrix: {a: {range: [3, 0]}}": "the bounds are compared",
    "retry: {first_s: 60, cap_s: 1}": "the bounds are compared",
    "input: {a: '{{ nobody }}'}": "templates are Jinja's",
    "rows: {file: data.xlsx}": "the ending matters without a format only",
    "rows: {list: [1], where: row.}": "expressions are Jinja's",
    "name: con": "what file systems refuse",
    "budget: {max_failures: 101%}": "a share is text",
    "request: {headers: {Authorization: key}}": "headers are not told by upper or lower case",
    "request: {webhook: 'https://x:99999'}": "a port is text",
    "version: 1.0": "1.0 is an integer to JSON Schema",
}
"""What only the parser refuses, and why the schema cannot."""


def whole_text(part: str) -> bytes:
    """`part` with what else a manifest needs."""
    known = {line.partition(":")[0] for line in part.splitlines()}
    rest = {"endpoint": "a/b", "input": "{}"}
    return "\n".join([part, *(f"{name}: {value}" for name, value in rest.items() if name not in known)]).encode()


@pytest.mark.parametrize("part", BROKEN)
def test_a_broken_manifest_is_refused_by_both(part: str) -> None:
    assert not parses(whole_text(part))
    assert not fits(whole_text(part))


@pytest.mark.parametrize("text", [b"endpoint: a/b", b"input: {}"])
def test_what_is_needed_is_needed_by_both(text: bytes) -> None:
    assert not parses(text)
    assert not fits(text)


@pytest.mark.parametrize(
    "part",
    [
        "name: 001",
        "request: {tags: {team: 007}}",
        "request: {hint: 0x1F}",
        "request: {headers: {X-A: 1_000}}",
        "output: {dir: 0x10}",
        "output: {name: +5}",
        "input: {image_url: {file: 001}}",
        "input: {prompt: 001}",
    ],
)
def test_what_is_text_for_the_parser_and_a_number_for_editors_fits(part: str) -> None:
    text = whole_text(part)
    assert parses(text)
    assert VALIDATOR.is_valid(yaml.safe_load(text)), "YAML 1.1 and 1.2 read these as numbers"


@pytest.mark.parametrize("part", ONLY_THE_PARSER)
def test_what_only_the_parser_can_tell(part: str) -> None:
    assert not parses(whole_text(part))
    assert fits(whole_text(part))


VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, -1, 64, 1.5, 0.2, 1e9, 3600, 10**20),
    *("", " ", "auto", "5%", "a.csv", "b.TSV/", "*.png", "{{ x }}", "{{ 1 }}", "{#", "{% raw %}{% endraw %}", "a\n"),
    *("never", "1h", "queue", "run", "realtime", "https://a.b/c", "X-A", "team", "text", "low", "a/b", "url", "é"),
    *([], [1], ["a"], [0, 3], [0, 9, 2], [[1]], [None], [{"a": 1}], [{}]),
    *({}, {"range": [0, 3]}, {"a": [1]}, {"file": "a.png"}, {"file": "a", "as": "data"}, {"file": 1, "x": 2}),
    *({"n": 1}, {"n": None}, {"list": [1]}, {"glob": "*"}, {"file": "x", "format": "csv"}, {"derive": True}),
    *({"falbatch:file": 1}, {"a": "b"}, {"include": [{"b": 1}]}, {"a/b": 0.5}),
]
NAMES = sorted(
    {"a", "b", "a-b", "include", "exclude", "range", "n", "seed", "file", "as", "content_type"} | _KEYS | rows._KEYS
)
EVERY_SETTING = sorted({key for model in section_models().values() for key in model.model_fields})


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths of everything inside."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = [*value.items()]
    elif isinstance(value, list):
        inner = [*enumerate(value)]
    return [path, *(place for step, entry in inner for place in places(entry, (*path, step)))]


@settings(max_examples=400)
@given(st.sampled_from(sorted(MANIFESTS)), st.data())
def test_the_schema_is_never_stricter_than_the_parser(name: str, data: st.DataObject) -> None:
    """Good manifests, changed in one to three places at random: whatever still parses still fits."""
    changed: Any = copy.deepcopy(load(MANIFESTS[name], source="m.yaml")[0])
    for _ in range(data.draw(st.integers(1, 3))):
        path: tuple[Any, ...] = data.draw(st.sampled_from(places(changed)))
        target = changed
        for step in path[:-1]:
            target = target[step]
        here = target[path[-1]] if path else changed
        value = data.draw(st.sampled_from(VALUES))
        if isinstance(here, dict) and data.draw(st.booleans()):
            here[data.draw(st.sampled_from([*NAMES, *EVERY_SETTING]))] = copy.deepcopy(value)
        elif path and data.draw(st.sampled_from([True, True, True, False])):
            target[path[-1]] = copy.deepcopy(value)
        elif path:
            del target[path[-1]]
    text = json.dumps(changed, ensure_ascii=False).encode()
    if parses(text):
        assert [error.message for error in VALIDATOR.iter_errors(changed)] == []
