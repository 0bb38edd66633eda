"""What a manifest makes may change only together with the number of the expansion: a state file that was planned by
another one is planned anew, and must not be believed."""

from __future__ import annotations

import hashlib
from dataclasses import fields

from falbatch.adapters.store.keys import default_name
from falbatch.core.expand import EXPANSION, expand, facts_of
from falbatch.core.identity import canonical_json, job_key
from falbatch.core.manifest import Manifest, parse_manifest
from falbatch.core.model import Row
from falbatch.core.naming import fold
from falbatch.core.problems import ProblemLog

MADE = {1: "efbec570ced70d03"}
"""The hash of all that is made of the manifest below, by EXPANSION."""

MANIFEST = """
name: demo
endpoint: "fal-ai/{{ model }}"
mode: run
vars: {look: Größe, when: 2024-05-01}
rows: {file: people.csv, where: "row.age | int > 20", sample: {n: 7, seed: 3}, limit: 6}
matrix:
  model: [flux/dev, flux/schnell]
  style: [oil painting, "Ünïcode / slash", 3.50]
  exclude: [{model: flux/dev, style: oil painting}]
  include: [{style: oil painting, more: x}, {model: sora, style: 7, more: y}]
zip: {seed: [1, 12345678901234567890123], size: [{width: 512}, [1, 2]]}
repeat: 2
input:
  prompt: "{{ row.name | slug }} {{ style }} {{ look }} {{ index }} {{ when }}"
  seed: "{{ seed }}"
  image_size: "{{ size }}"
  list: ["{{ row.age | int / 7 }}", "{{ more | default('none') or omit }}", fixed]
  note: "{{ row.name if row.age == '33' else omit }}"
  file: {path: "{{ row.name }}"}
output: {name: "{{ row.name }}/{{ style }} {{ model }} {{ index }}"}
"""


def _made(text: str) -> str:
    manifest = parse_manifest(text.encode(), source="m.yaml")
    rows = [Row({"name": f"Pérson {n}. ", "age": str(18 + n)}, "people.csv", n + 2) for n in range(30)]
    log = ProblemLog()
    digest = hashlib.sha256()
    for item in expand(manifest, rows, check_endpoint=lambda _: None, problems=log):
        key = job_key(item.endpoint, item.mode, canonical_json(item.input), item.seq % 2)
        name = item.name or ""
        facts = (item.seq, item.endpoint, key, name, fold(name), item.label, default_name(item.label, key), item.origin)
        digest.update(repr(facts).encode())
    assert log.problems() == ()
    return digest.hexdigest()


def test_what_a_manifest_makes_goes_with_the_number_of_the_expansion() -> None:
    made = [_made(MANIFEST), _made(MANIFEST.replace("output:", "limits: {in_flight: 3} #"))]
    found = hashlib.sha256("".join(made).encode()).hexdigest()[:16]
    assert MADE.get(EXPANSION) == found, f"raise EXPANSION in core/expand.py, and add {found!r} here"


def test_all_that_a_manifest_says_is_a_fact_unless_it_is_known_to_decide_nothing() -> None:
    beside = {"source", "name", "output", "limits", "retry", "budget", "request", "uploads", "validate", "marks"}
    facts = facts_of(parse_manifest(MANIFEST.encode(), source="m.yaml"))
    assert {field.name for field in fields(Manifest) if f"'{field.name}': " not in facts} == beside


def test_facts_tell_values_of_other_types_and_orders_apart() -> None:
    base = "endpoint: a/b\nvars: {x: VALUE}\ninput: {}\n"
    values = ["1", "1.0", "'1'", "true", "'true'", "null", "[1]", "['1']", "{a: 1, b: 2}", "{b: 2, a: 1}", "2024-05-01"]
    facts = {facts_of(parse_manifest(base.replace("VALUE", value).encode(), source="m.yaml")) for value in values}
    assert len(facts) == len(values)


def test_the_manifests_own_name_counts_only_where_items_tell_it() -> None:
    with_file, without = "endpoint: a/b\ninput: {}\nrows: a.csv\n", "endpoint: a/b\ninput: {}\nmatrix: {a: [1]}\n"
    for text, is_told in ((with_file, False), (without, True)):
        here, there = (facts_of(parse_manifest(text.encode(), source=source)) for source in ("m.yaml", "./m.yaml"))
        assert (here != there) is is_told
