"""A manifest becomes typed values, or a complete list of what is wrong with it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from falbatch.core.limits import FailureLimit
from falbatch.core.manifest import Manifest, parse_manifest
from falbatch.core.model import Mode
from falbatch.core.rows import FileRows, GlobRows, InlineRows, RangeRows, RowFormat, Sample
from falbatch.errors import ManifestError

_FULL = b"""
version: 1
name: portraits
endpoint: fal-ai/flux/dev
mode: queue
vars: {suffix: "35 mm, soft light"}
rows: data/people.csv
matrix:
  style: [oil painting, watercolor]
  seed: {range: [0, 4]}
  exclude: [{style: watercolor, seed: 3}]
  include: [{style: etching, seed: 0}]
zip: {lens: [wide, tele], fov: [24, 85]}
repeat: 2
input:
  prompt: "{{ style }} portrait of {{ row.name }}, {{ suffix }}"
  image_size: landscape_4_3
  seed: "{{ seed }}"
output:
  dir: outputs/portraits
  name: "{{ row.id }}/{{ style | slug }}-{{ seed }}"
  sidecar: true
limits: {in_flight: auto, submits_per_s: 50, polls_per_s: 50, downloads: 16}
retry: {attempts: 4, first_s: 1, cap_s: 60, budget: 0.2}
budget: {max_failures: 5%}
request:
  priority: low
  start_timeout_s: 600
  headers: {X-Custom: a}
  hint: h
  tags: {team: art}
  expires_in: 7d
  store_io: true
  fallback: false
"""


def _parse(text: str) -> Manifest:
    return parse_manifest(text.encode(), source="jobs/demo.yaml")


def _with(extra: str) -> Manifest:
    return _parse("endpoint: a/b\ninput: {}\n" + extra)


def _problems(text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        _parse(text)
    return [str(problem) for problem in caught.value.problems]


def test_the_example_of_the_design_is_understood_as_a_whole() -> None:
    manifest = parse_manifest(_FULL, source="m.yaml")
    assert manifest.name == "portraits"
    assert manifest.mode is Mode.QUEUE
    assert manifest.rows is not None
    assert manifest.rows.source == FileRows("data/people.csv", RowFormat.CSV)
    assert manifest.output.dir == "outputs/portraits"
    assert manifest.limits.in_flight is None
    assert manifest.budget.max_failures == FailureLimit(count=None, share=0.05)
    assert manifest.request.headers == {"X-Custom": "a"}
    assert manifest.request.fallback is False
    assert manifest.line_of(("input", "prompt")) == (16, 3)


def test_the_smallest_manifest_has_the_documented_defaults() -> None:
    manifest = _with("")
    assert (manifest.version, manifest.name, manifest.repeat) == (1, "demo", 1)
    assert (manifest.output.dir, manifest.output.name, manifest.output.sidecar) == ("outputs/demo", None, False)
    assert manifest.limits.model_dump() == {
        "in_flight": None, "submits_per_s": 200, "polls_per_s": 200, "downloads": 16, "uploads": 8,
        "connections": None,
    }  # fmt: skip
    assert manifest.retry.model_dump() == {"attempts": 4, "first_s": 1.0, "cap_s": 60.0, "budget": 0.2}
    assert manifest.budget.max_failures is None
    assert manifest.request.priority is None
    assert manifest.rows is None


def test_an_emptied_section_is_its_defaults() -> None:
    assert _with("limits:\nmatrix:\nvars:\nzip:\n").limits.downloads == 16


@pytest.mark.parametrize(
    ("extra", "share", "count"),
    [("5%", 0.05, None), ('"0.5 %"', 0.005, None), ("0", None, 0), ("12", None, 12), ("100%", 1.0, None)],
)
def test_failure_limits_are_counts_or_shares(extra: str, share: float | None, count: int | None) -> None:
    assert _with(f"budget: {{max_failures: {extra}}}").budget.max_failures == FailureLimit(count, share)


@pytest.mark.parametrize("word", ["never", "immediate", "1h", "1d", "7d", "30d", "1y", "90", "0.5"])
def test_expiry_is_a_word_or_seconds(word: str) -> None:
    assert str(_with(f"request: {{expires_in: {word}}}").request.expires_in) in (word, f"{word}.0")


def test_all_mistakes_are_reported_at_once_sorted_and_placed() -> None:
    text = """versoin: 1
endpoint: ""
limits: {downlaods: 3, in_flight: many}
input:
  prompt: "{{ styl }} {{ row.x }}"
  note: |
    fine
    {{ broken
matrix: {style: [a]}
steps: []
"""
    assert _problems(text) == [
        'jobs/demo.yaml:1:1: unknown key "versoin" (did you mean "version"?)',
        'jobs/demo.yaml:2:11: endpoint must be an endpoint id, not "" (for example: fal-ai/flux/dev)',
        'jobs/demo.yaml:3:10: unknown key "downlaods" in limits (did you mean "downloads"?)',
        'jobs/demo.yaml:3:35: limits.in_flight must be auto, or a whole number from 1 to 10000, not "many"',
        "jobs/demo.yaml:5:11: input.prompt: row does not exist (the manifest has no rows)",
        'jobs/demo.yaml:5:11: input.prompt: styl does not exist (did you mean "style"?)',
        (
            "jobs/demo.yaml:8: input.note: the template is not valid: unexpected end of template, "
            "expected 'end of print statement'."
        ),
        "jobs/demo.yaml:10:1: steps is not supported by this version yet (use one manifest for each endpoint)",
    ]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("webhook: 'ftp://x'", "request.webhook: not a URL that fal could call"),
        ("webhook: 'https://x y'", "request.webhook: not a URL that fal could call"),
        ("webhook: 7", "request.webhook must be an https URL"),
        ("priority: high", "request.priority must be normal or low"),
        ("start_timeout_s: 1", "request.start_timeout_s must be a number of seconds above 1"),
        ("start_timeout_s: 1e9", "at most 2592000"),
        ("store_io: 'yes'", 'request.store_io must be true or false, not "yes"'),
        ("fallback: yes", 'request.fallback must be true or false, not "yes"'),
        ("expires_in: 2h", "request.expires_in must be never, immediate, 1h"),
        ("expires_in: 0", "request.expires_in must be"),
        ("expires_in: true", "request.expires_in must be"),
        ('hint: "a\\nb"', "request.hint: one line of plain ASCII"),
        ("hint: ''", "request.hint must be one line"),
        ("headers: [a]", "request.headers must be a mapping"),
        ("headers: {Authorization: k}", "set by the connection"),
        ("headers: {host: k}", "set by the connection"),
        ("headers: {Content-Length: '3'}", "set by the connection"),
        ("headers: {x-fal-queue-priority: low}", "use request.priority"),
        ("headers: {X-Fal-Tags: a}", "use request.tags"),
        ('headers: {"a b": c}', "is not a header name"),
        ('headers: {X-A: "a\\r\\nX-B: c"}', "one line of plain ASCII"),
        ("headers: {X-A: é}", "one line of plain ASCII"),
        ("headers: {X-A: ' a'}", "one line of plain ASCII"),
        ("headers: {X-A: 3}", 'X-A must be text, not 3; write "3"'),
        ("headers: {X-A: a, x-a: b}", "are the same header"),
        ("tags: {Team: art}", "is not a tag name"),
        ("tags: {fal.team: art}", "belong to fal"),
        ("tags: {team: 'a,b'}", "without a comma"),
        ("tags: {team: ''}", "1 to 256"),
        ("tags: {team: é}", "plain ASCII"),
        ("tags: {team: 1}", 'must be text, not 1; write "1"'),
        ("tags: {" + ", ".join(f"k{n}: v" for n in range(11)) + "}", "at most 10 tags, not 11"),
        ("tags: {" + ", ".join(f"k{n}: {'v' * 250}" for n in range(5)) + "}", "1024 bytes"),
        ("tags: {" + "k" * 65 + ": v}", "is not a tag name"),
    ],
)  # fmt: skip
def test_requests_that_fal_would_refuse_or_drop_are_mistakes(extra: str, words: str) -> None:
    problems = _problems(f"endpoint: a/b\ninput: {{}}\nrequest: {{{extra}}}")
    assert len(problems) == 1
    assert words in problems[0]


@pytest.mark.parametrize(
    ("given", "dollars"),
    [("12.5", "12.5"), ("0.1", "0.1"), ("0", "0"), ("25", "25"), ("1e-7", "1e-7"), ("1000000000", "1000000000")],
)
def test_amounts_of_money_are_exactly_what_is_written(given: str, dollars: str) -> None:
    assert _with(f"budget: {{max_cost: {given}}}").budget.max_cost == Decimal(dollars)
    assert _with(f"budget: {{unit_price: {given}}}").budget.price_of("any/one") == Decimal(dollars)


def test_a_unit_price_may_be_given_by_endpoint() -> None:
    budget = _with("budget: {unit_price: {fal-ai/flux/dev: 0.025, a/b: 1}}").budget
    assert budget.price_of("fal-ai/flux/dev") == Decimal("0.025")
    assert budget.price_of("a/b") == 1
    assert budget.price_of("c/d") is None


def test_a_row_of_equal_failures_ends_a_run_unless_told_otherwise() -> None:
    assert _with("").budget.max_equal_failures == 20
    assert _with("budget: {max_equal_failures: 3}").budget.max_equal_failures == 3
    assert _with("budget: {max_equal_failures: null}").budget.max_equal_failures is None


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("limits: {downloads: many}", 'limits.downloads must be a whole number from 1 to 1000, not "many"'),
        ("limits: {downloads: 0}", "limits.downloads must be a whole number from 1 to 1000, not 0"),
        ("limits: {downloads: true}", "not true"),
        ("limits: {downloads: 1.5}", "not 1.5"),
        ("limits: {in_flight: 10001}", "limits.in_flight must be auto"),
        ("limits: {submits_per_s: 0}", "limits.submits_per_s must be a number above 0"),
        ("limits: {polls_per_s: null}", "not null"),
        ("limits: 3", "limits must be a mapping of settings, not 3"),
        ("retry: {attempts: 0}", "retry.attempts must be a whole number from 1 to 20, not 0"),
        ("retry: {budget: 2}", "retry.budget must be a number from 0 to 1"),
        ("retry: {first_s: 10, cap_s: 2}", "retry.cap_s must not be below retry.first_s"),
        ("budget: {max_cost: lots}", 'budget.max_cost must be US dollars, not "lots"'),
        ("budget: {max_cost: -1}", "budget.max_cost must be US dollars, not -1"),
        ("budget: {max_cost: .nan}", "budget.max_cost must be US dollars"),
        ("budget: {max_cost: .inf}", "budget.max_cost must be US dollars"),
        ("budget: {max_cost: true}", "not true"),
        ("budget: {max_cost: 2000000000}", "budget.max_cost must be US dollars"),
        ("budget: {unit_price: cheap}", "budget.unit_price must be US dollars per billable unit"),
        ("budget: {unit_price: {}}", "budget.unit_price must be US dollars per billable unit"),
        ("budget: {unit_price: {a/b: -0.1}}", "budget.unit_price must be US dollars per billable unit"),
        ("budget: {max_equal_failures: 0}", "budget.max_equal_failures must be a whole number from 1"),
        ("budget: {max_equal_failures: 1.5}", "not 1.5"),
        ("budget: {max_failures: 0.05}", 'a share such as "5%"'),
        ("budget: {max_failures: 101%}", 'a share such as "5%"'),
        ("budget: {max_failures: -1}", "a whole number of jobs"),
        ("output: {flagged: drop}", 'output.flagged must be keep, mark, fail or reroll, not "drop"'),
        ("output: {dir: ''}", "output.dir: a folder is needed"),
        ("output: {dir: '{{ x }}'}", "all items share one folder"),
        ("output: {name: 3}", "output.name must be text"),
        ("output: {lacking: drop}", 'output.lacking must be fail or keep, not "drop"'),
        ("output: {sidecar: 1}", "output.sidecar must be true or false, not 1"),
        ("mode: qeue", 'mode must be one of queue, run, stream, realtime, not "qeue" (did you mean "queue"?)'),
        ("mode: [queue]", "mode must be one of queue, run, stream, realtime, not a list"),
        ("version: 2", "version 2 is newer than this program"),
        ("version: one", "version must be 1"),
        ("version: true", "version must be 1"),
        ("name: 5", 'name must be text, not 5 (write name: "5")'),
        ("name: a/b", "usable as a folder's name"),
        ("name: ..", "usable as a folder's name"),
        ("name: '{{ x }}'", "not a template"),
        ("repeat: 0", "repeat must be a whole number from 1 to 10000, not 0"),
        ("repeat: true", "not true"),
        ("vars: 3", "vars must be a mapping"),
        ("vars: {a: '{{ b }}'}", "vars.a: templates are not rendered here"),
        ("matrix: {a: ['{{ b }}']}", "matrix.a[0]: templates are not rendered here"),
        ("vars: {row: 1}", '"row" is a name that templates know already'),
        ("vars: {a-b: 1}", '"a-b" cannot be used as a name in templates'),
        ("matrix: {not: [1]}", '"not" cannot be used as a name'),
        ("vars: {a: 1}\nmatrix: {a: [1]}", '"a" is given twice: as vars.a on line 3 and as matrix.a'),
        ("matrix: {a: [1]}\nzip: {a: [1]}", "as matrix.a on line 3 and as zip.a"),
        ("vars: {c: 1}\nmatrix: {a: [1], include: [{c: 2}]}", "as matrix.include[0].c"),
        ("endpoint: c/d", '"endpoint" is written twice'),
        ("stpes: 1", 'unknown key "stpes"'),
    ],
)  # fmt: skip
def test_each_mistake_gets_one_clear_message(extra: str, words: str) -> None:
    problems = _problems("endpoint: a/b\ninput: {}\n" + extra)
    assert len(problems) == 1
    assert words in problems[0]
    assert problems[0].startswith("jobs/demo.yaml:")


def test_endpoint_and_input_are_needed() -> None:
    assert [problem.split(": ", 1)[1].split(" (")[0] for problem in _problems("name: x")] == [
        "endpoint is missing",
        "input is missing: what the endpoint is given",
    ]


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        ('{image_url: {file: "  "}}', "input.image_url: the path is empty"),
        ("{a: [{file: 3}]}", "input.a[0]: file must be a path, not 3"),
        ("{a: {file: x, as: date}}", 'input.a: as must be url or data, not "date" (did you mean "data"?)'),
        ("{a: {file: x, content_type: png}}", 'input.a: content_type must be like image/png, not "png"'),
        ('{a: {"falbatch:file": x}}', "falbatch's own mark"),
        ("{seed: {derive: 7}}", "input.seed.derive must be true, not 7"),
        ("[a]", "input must be a mapping"),
        ('{p: "{{ x | slugg }}"}', 'there is no filter "slugg" (did you mean "slug"?)'),
        ('{p: "{{ x | slugg }}"}', "x does not exist"),
        ('{p: "{{ 1 | random }}"}', 'there is no filter "random"'),
        ('{p: "{{ 1 is evn }}"}', 'there is no test "evn" (did you mean "even"?)'),
        ("{p: \"{% include 'x' %}\"}", "include %} has no meaning here"),
        ('{p: "{{ lipsum() }}"}', "lipsum does not exist"),
        ('{p: "{{ a..b }}"}', "the template is not valid"),
        ('{p: "{% for %}"}', "the template is not valid"),
    ],
)
def test_what_is_wrong_inside_the_input_is_found_early(inner: str, words: str) -> None:
    problems = _problems(f"endpoint: a/b\ninput: {inner}")
    assert any(words in problem for problem in problems)


def test_names_used_in_endpoint_name_and_where_are_checked() -> None:
    text = """endpoint: "{{ modle }}"
input: {}
rows: {list: [1], where: row.value > limt}
matrix: {model: [a/b]}
output: {name: "{{ ro.value }}"}
"""
    assert [problem.split(": ", 1)[1] for problem in _problems(text)] == [
        'endpoint: modle does not exist (did you mean "model"?)',
        "rows.where: limt does not exist (a column of the rows is row.limt; known: row)",
        'output.name: ro does not exist (did you mean "row"?)',
    ]


def test_rows_that_are_wrong_do_not_make_row_unknown() -> None:
    problems = _problems('endpoint: a/b\ninput: {p: "{{ row.x }}"}\nrows: 3')
    assert len(problems) == 1
    assert "rows must say where rows come from" in problems[0]


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("a.csv", FileRows("a.csv", RowFormat.CSV)),
        ("a.TSV", FileRows("a.TSV", RowFormat.TSV)),
        ("a.jsonl", FileRows("a.jsonl", RowFormat.JSONL)),
        ("a.ndjson", FileRows("a.ndjson", RowFormat.JSONL)),
        ("a.txt", FileRows("a.txt", RowFormat.TEXT)),
        ("a.parquet", FileRows("a.parquet", RowFormat.PARQUET)),
        ("{file: a.dat, format: csv}", FileRows("a.dat", RowFormat.CSV)),
        ('{glob: "in/*.png"}', GlobRows("in/*.png")),
        ("{range: [0, 3]}", RangeRows(range(3), 3)),
    ],
)
def test_rows_name_their_source(text: str, source: Any) -> None:
    rows = _with(f"rows: {text}").rows
    assert rows is not None
    assert rows.source == source


def test_inline_rows_know_their_lines() -> None:
    rows = _with("rows:\n  - {a: 1}\n  - plain\n  - 3\n").rows
    assert rows is not None
    assert isinstance(rows.source, InlineRows)
    assert [(dict(row.values), row.file, row.line) for row in rows.source.rows] == [
        ({"a": 1}, "jobs/demo.yaml", 4),
        ({"value": "plain"}, "jobs/demo.yaml", 5),
        ({"value": 3}, "jobs/demo.yaml", 6),
    ]


def test_rows_may_be_filtered_sampled_and_limited() -> None:
    rows = _with("rows: {file: a.csv, where: row.x == '1', sample: {n: 5, seed: 7}, limit: 3}").rows
    assert rows is not None
    assert (rows.where, rows.sample, rows.limit) == ("row.x == '1'", Sample(5, 7), 3)
    short = _with("rows: {file: a.csv, sample: 5}").rows
    assert short is not None
    assert short.sample == Sample(5, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.xlsx", "does not tell its format"),
        ('"in/*.png"', 'write rows: {glob: "in/*.png"}'),
        ("''", "rows must name a file"),
        ("[]", "rows is an empty list"),
        ("{list: []}", "rows is an empty list"),
        ("{list: 3}", "rows.list must be a list"),
        ("[[1]]", "a row is a mapping"),
        ("[{p: '{{ x }}'}]", "templates in rows are not rendered"),
        ("{file: a.csv, glob: b}", "exactly one of file, glob, list, range, not file and glob"),
        ("{limit: 3}", "exactly one of file, glob, list, range"),
        ("{file: a.csv, fromat: csv}", 'unknown key "fromat" in rows (did you mean "format"?)'),
        ("{file: a.csv, format: cvs}", 'did you mean "csv"?'),
        ("{glob: a, format: csv}", "rows.format belongs to rows.file"),
        ("{glob: 3}", "rows.glob must be a pattern"),
        ("{file: a.csv, limit: 0}", "rows.limit must be a whole number from 1, not 0"),
        ("{file: a.csv, sample: x}", "rows.sample must be a whole number from 1"),
        ("{file: a.csv, sample: {seed: 1}}", "rows.sample needs n"),
        ("{file: a.csv, sample: {n: 1, sede: 1}}", 'did you mean "seed"?'),
        ("{file: a.csv, sample: {n: 1, seed: x}}", "rows.sample.seed must be a whole number"),
        ("{file: a.csv, where: 3}", "rows.where must be an expression"),
        ("{file: a.csv, where: 'row.x =='}", "rows.where: the template is not valid"),
        ("{file: a.csv, where: 'a {{ row.x }}'}", "where must be one expression"),
        ("{range: [3, 3]}", "is empty"),
    ],
)
def test_rows_that_make_no_sense_are_mistakes(text: str, words: str) -> None:
    problems = _problems(f"endpoint: a/b\ninput: {{}}\nrows: {text}")
    assert len(problems) == 1
    assert words in problems[0]


def test_a_source_without_a_usable_stem_still_gives_a_safe_folder() -> None:
    for source in ("", "..", "CON.yaml", "a/<b>.yaml"):
        manifest = parse_manifest(b"endpoint: a/b\ninput: {}", source=source)
        assert manifest.output.dir.count("/") == 1
        assert ".." not in manifest.output.dir


def test_a_manifest_cannot_be_changed() -> None:
    manifest = _with("")
    with pytest.raises(AttributeError):
        manifest.name = "x"  # type: ignore[misc]  # that it is refused is the test
    with pytest.raises(ValueError, match="frozen"):
        manifest.limits.downloads = 3
