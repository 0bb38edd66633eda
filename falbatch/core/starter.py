"""A first manifest for an endpoint, written from its own schema (`falbatch init`). Pure.

It runs as it is, as a job or two. Each line that begins with a single `#` is a setting that may be uncommented by
itself; words stand behind `##`, so that taking a `# ` away never makes a setting of them.
"""

from __future__ import annotations

import json
import shlex
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from falbatch.core import yamlwords
from falbatch.core.artifacts import is_file_url
from falbatch.core.fields import MADE_UP
from falbatch.core.folder import default_dir, default_name
from falbatch.core.manifest import NAME, NOT_NAMES, VERSION
from falbatch.core.problems import one_line
from falbatch.core.rows import holds_template

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from falbatch.core.fields import Field

WIDTH: Final = 110
"""Columns of a line, but for values that are longer by themselves."""
WORDS_ROOM: Final = 40
"""Columns that words get at least behind a setting; with less they stand below it."""
MOST_WORDS: Final = 600
"""Characters of what a schema says of one field."""
DEFAULT_SHOWN: Final = 60
MAX_VALUE: Final = 4000
"""Characters of a value that is written; longer ones are left out."""
PROMPT: Final = "a red kite over the sea"
"""Where the schema has no example of its own."""
EXAMPLE_URL: Final = "https://example.org/file"

COSTLY: Final = (
    "duration",
    "resolution",
    "size",
    "quality",
    "num",
    "count",
    "steps",
    "scale",
    "fps",
    "frames",
    "length",
)
"""Parts of names of fields that decide what a job costs: no matrix is made of them."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a starter is about."""

    endpoint: str
    """Endpoint id."""
    fields: Sequence[Field]
    """Its inputs, in fal's order."""
    title: str = ""
    """fal's name of it; "" if unknown."""
    category: str = ""
    """`text-to-image`, `training` …; "" if unknown."""


@dataclass(frozen=True, slots=True)
class Starter:
    """A manifest, and what it says."""

    text: str
    jobs: int
    """How many it makes as it stands."""


@dataclass(frozen=True, slots=True)
class _Axis:
    name: str
    values: str
    """As YAML."""


def starter(subject: Subject, *, file: str, schema: str) -> Starter:
    """The manifest for `subject`, to be called `file`; editors find the manifest's JSON Schema at `schema`."""
    axis = _axis(subject)
    columns = [field for field in _live(subject) if _is_column(field) and not (axis and field.name == axis.name)]
    repeat = 1 if axis or subject.category == "training" else 2
    jobs = 2 if axis else repeat
    lines = [
        f"# yaml-language-server: $schema={schema}",
        *_head(subject, file, jobs),
        "",
        f"version: {VERSION}",
        f"endpoint: {_plain(subject.endpoint)}",
        "",
        *_rows(columns),
        "",
        *_matrix(axis, repeat),
        "",
        *_input(subject, axis, columns),
        "",
        *_settings(file, axis),
    ]
    return Starter("\n".join(lines) + "\n", jobs)


def _plain(endpoint: str) -> str:
    """An endpoint id, without quotes where it needs none."""
    bare = endpoint.replace("/", "").replace("-", "").replace(".", "").replace("_", "")
    return endpoint if bare.isascii() and bare.isalnum() and endpoint[0].isalpha() else yamlwords.quoted(endpoint)


def _head(subject: Subject, file: str, jobs: int) -> Iterator[str]:
    about = ", ".join(word for word in (subject.title, subject.category) if word)
    count = "one job" if jobs == 1 else f"{jobs} jobs"
    told = f"{subject.endpoint}{f' ({about})' if about else ''}. As it stands this manifest makes {count}:"
    yield from (f"## {line}" for line in _wrapped(one_line(told), WIDTH - 3))
    yield "##"
    name = one_line(shlex.quote(file))
    commands = {
        f"falbatch plan {name}": "what a run would do, job by job; nothing is submitted",
        f"falbatch run {name} --sandbox --output rehearsal": "on an emulator of fal: no key, no cost",
        f"falbatch run {name} --limit 1": "a first taste; billed by fal",
        f"falbatch run {name}": "all of it, but for what is done already",
    }
    wide = max(map(len, commands))
    yield from (f"##   {command:<{wide}}   {what}" for command, what in commands.items())
    yield "##"
    yield '## A line behind a single # is a setting, with its default where it has one: take the "# " away to use it.'


def _wrapped(words: str, room: int) -> list[str]:
    return textwrap.wrap(words, room, break_long_words=False, break_on_hyphens=False)


def _live(subject: Subject) -> list[Field]:
    """The fields that are given from the start: what is needed; else the prompt, else the first that can be given."""
    usable = [field for field in subject.fields if not yamlwords.is_own(field.name)]
    needed = [field for field in usable if field.is_required]
    prompts = [field for field in usable if field.name == "prompt"]
    return needed or prompts[:1] or [field for field in usable if _written(field, field.examples)][:1]


def _is_column(field: Field) -> bool:
    """Whether a row may give it: a text of one's own, or a file."""
    return field.kinds == {"string"} and not field.choices and not holds_template(_sample(field))


def _sample(field: Field, otherwise: str = "") -> str:
    """A text for a field of texts; `otherwise` where its schema has none."""
    for value in field.examples:
        if isinstance(value, str) and value.strip() and value != MADE_UP and len(value) <= MAX_VALUE:
            return value
    return otherwise or (EXAMPLE_URL if _is_file(field) else PROMPT)


def _is_file(field: Field) -> bool:
    """Whether a field of texts wants a file's URL."""
    words = field.name.lower().split("_")
    return words[-1] in {"url", "urls"} or any(
        isinstance(value, str) and is_file_url(value) for value in field.examples
    )


def _axis(subject: Subject) -> _Axis | None:
    """What the matrix is made of: the seed, or else a choice that does not decide the price. None without one, and
    for trainings, each of which costs dollars."""
    if subject.category == "training":
        return None
    for field in subject.fields:
        if field.name == "seed" and "integer" in field.kinds:
            least = next((value for value in field.examples if isinstance(value, int)), 0)
            return _Axis("seed", f"{{range: [{least}, {least + 2}]}}")
    for field in subject.fields:
        values = [value for value in field.examples if isinstance(value, str) and 0 < len(value) <= DEFAULT_SHOWN][:2]
        is_name = NAME.fullmatch(field.name) and field.name not in NOT_NAMES | {"include", "exclude"}
        is_free = not any(word in field.name.lower() for word in COSTLY) and field.name not in {"prompt", "version"}
        if is_name and is_free and len(values) == 2 and not _is_file(field) and not holds_template(values):
            return _Axis(field.name, yamlwords.constant(values))
    return None


def _rows(columns: list[Field]) -> Iterator[str]:
    if not columns:
        yield "## One job for each row, which templates know as row.value. Or a file: rows: data.csv, and row.COLUMN."
        yield "# rows: [one, two]"
        return
    yield "## One job for each row. Or a file of them (.csv, .tsv, .jsonl, .parquet, .txt): rows: data.csv"
    if any(map(_is_file, columns)):
        yield '## Or one for each file of a folder, with {file: "{{ row.path }}"} below: rows: {glob: "photos/*.png"}'
    yield "rows:"
    for number, field in enumerate(columns):
        yield f"  {'-' if number == 0 else ' '} {yamlwords.key(field.name)}: {yamlwords.quoted(_sample(field))}"
    second = {field.name: _sample(field) if _is_file(field) else "the next one, in your words" for field in columns}
    yield f"  # - {yamlwords.constant(second)}"


def _matrix(axis: _Axis | None, repeat: int) -> Iterator[str]:
    yield "## Times every combination of these. More axes, more jobs; {range: [0, 10]} is 0 to 9."
    if axis:
        yield from ("matrix:", f"  {yamlwords.key(axis.name)}: {axis.values}")
        yield '  # style: ["oil painting"]  ## a name of your own, used below as {{ style }}'
    else:
        yield '# matrix: {style: ["oil painting", "watercolor"]}  ## a name of your own, used below as {{ style }}'
        yield f"{'# ' if repeat == 1 else ''}repeat: 2  ## each job twice: the result is another one each time"


def _input(subject: Subject, axis: _Axis | None, columns: list[Field]) -> Iterator[str]:
    """What the endpoint is given: live fields first, then all others as comments."""
    files = " {file: …} takes a path, whose file is uploaded, or a URL." if any(map(_is_file, subject.fields)) else ""
    yield f"## What the endpoint is given.{files}"
    live = {field.name: _given(field, columns) for field in _live(subject)}
    if axis:
        live[axis.name] = yamlwords.quoted(f"{{{{ {axis.name} }}}}")
    if not live:
        yield "input: {}"
        return
    yield "input:"
    fields = {field.name: field for field in subject.fields}
    for name, value in live.items():
        yield from _setting(name, value, _about(fields[name]), is_live=True)
    for name, field in fields.items():
        if name not in live and not yamlwords.is_own(name):
            yield from _setting(name, _optional(field), _about(field), is_live=False)


def _given(field: Field, columns: list[Field]) -> str:
    """A live field's value."""
    if field in columns:
        column = f"row.{field.name}" if NAME.fullmatch(field.name) else f"row[{yamlwords.jinja_quoted(field.name)}]"
        value = yamlwords.quoted(f"{{{{ {column} }}}}")
        return f"{{file: {value}}}" if _is_file(field) else value
    return _listed_files(field) or _written(field, field.examples) or yamlwords.quoted(PROMPT)


def _listed_files(field: Field) -> str:
    """A list of files, "" for another field."""
    first = field.examples[0] if field.kinds == {"array"} and field.examples else None
    if not _is_file(field) or not isinstance(first, list) or not all(isinstance(entry, str) for entry in first):
        return ""
    urls = [entry if is_file_url(entry) else EXAMPLE_URL for entry in first]
    return "[" + ", ".join(f"{{file: {yamlwords.quoted(url)}}}" for url in urls) + "]"


def _optional(field: Field) -> str:
    """A value for a field that nobody has to give: its default first."""
    default = json.loads(field.default) if field.default else None
    if default is None and _is_file(field) and field.kinds == {"string"}:
        return f"{{file: {yamlwords.quoted(_sample(field, 'photo.png'))}}}"
    if default is None and (files := _listed_files(field)):
        return files
    values = [*([] if default is None else [default]), *field.examples]
    return _written(field, values) or yamlwords.quoted(MADE_UP)


def _written(field: Field, values: Sequence[Any]) -> str | None:
    """The first of `values` that can be written into an input."""
    for value in values:
        own = PROMPT if field.is_required and value == MADE_UP else value
        written = yamlwords.input_value(own)
        if written is not None and len(written) <= MAX_VALUE:
            return written
    return None


def _about(field: Field) -> str:
    """Type, range, default and meaning."""
    default = field.default if len(field.default) <= DEFAULT_SHOWN else ""
    inside = ", ".join(one.name for one in field.inside)
    facts = ["required" if field.is_required else "", field.type, f"fields: {inside}" if inside else "", field.bounds]
    facts.append(f"default {default}" if default else "")
    said = "; ".join(fact for fact in facts if fact)
    words = one_line(f"{said}{'' if said.endswith('…') else '.'} {field.description}")
    return words if len(words) <= MOST_WORDS else words[: MOST_WORDS - 1] + "…"


def _setting(name: str, value: str, words: str, *, is_live: bool) -> Iterator[str]:
    """A field of the input, with its words behind it and below."""
    line = f"  {'' if is_live else '# '}{yamlwords.key(name)}: {value}"
    room = WIDTH - len(line) - len("  ## ")
    if room >= WORDS_ROOM:
        first, *rest = _wrapped(words, room)
        line, words = f"{line}  ## {first}", " ".join(rest)
    yield line
    yield from (f"  ##     {part}" for part in _wrapped(words, WIDTH - len("  ##     ")))


def _settings(file: str, axis: _Axis | None) -> Iterator[str]:
    """What else is worth knowing from the start."""
    name = f"{{{{ index }}}}-{{{{ {axis.name} | slug }}}}" if axis else "{{ index }}"
    folder = yamlwords.quoted(default_dir(default_name(file)))
    yield f"# output: {{dir: {folder}, name: {yamlwords.quoted(name)}}}  ## where, and under which names"
    yield "# budget: {max_cost: 5.00, max_failures: 5%}  ## US dollars, over all runs; failed jobs"
    yield "# limits: {in_flight: 4}  ## jobs at fal at once; by default falbatch finds out what fal takes"
