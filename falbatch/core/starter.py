"""A first manifest for an endpoint, written from its own schema (`falbatch init`). Pure.

It runs as it is, as a job or two. Each line that begins with a single `#` is a setting that may be uncommented by
itself; words stand behind `##`, so that taking a `# ` away never makes a setting of them.
"""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from falbatch.core import yamlwords
from falbatch.core.artifacts import is_file_url
from falbatch.core.fields import MADE_UP
from falbatch.core.folder import default_dir, default_name
from falbatch.core.manifest import NAME, NOT_NAMES, VERSION
from falbatch.core.problems import one_line
from falbatch.core.rows import holds_template
from falbatch.core.seeds import SEED, SEED_MOST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
NEXT: Final = "the next one, in your words"
"""Of another row."""
SEED_STEPS: Final = 129
"""Distances at which another seed is looked for: models that ask for multiples ask for small ones."""

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


Takes = Callable[[str, Any], bool]
"""Whether a field of the input, by its name, may have a value."""


def takes_all(_name: str, _value: Any) -> bool:
    """Of an endpoint whose schema cannot be checked by."""
    return True


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
    is_sandbox: bool = False
    """The schema is the sandbox's: what follows is done there, too."""
    takes: Takes = takes_all
    """What a run's check says."""

    def good(self, field: Field, values: Iterable[Any]) -> list[Any]:
        """Those of `values` that the field takes."""
        return [value for value in values if self.takes(field.name, value)]


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
    columns = [
        field for field in _live(subject) if _is_column(subject, field) and not (axis and field.name == axis.name)
    ]
    repeat = 1 if axis or subject.category == "training" else 2
    jobs = 2 if axis else repeat
    lines = [
        f"# yaml-language-server: $schema={schema}",
        *_head(subject, file, jobs),
        "",
        f"version: {VERSION}",
        f"endpoint: {_plain(subject.endpoint)}",
        "",
        *_rows(subject, columns),
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
    there = " --sandbox" if subject.is_sandbox else ""
    rehearsed = f"falbatch run {name} --sandbox --output rehearsal"
    commands = {
        f"falbatch plan {name}{there}": "what a run would do, job by job; nothing is submitted",
        rehearsed: "on an emulator of fal: no key, no cost",
    }
    if subject.is_sandbox:
        commands |= {f"falbatch status {name} --output rehearsal": "how that went"}
    else:
        commands |= {
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
    return needed or prompts[:1] or [field for field in usable if _written(subject, field, field.examples)][:1]


def _is_column(subject: Subject, field: Field) -> bool:
    """Whether a row may give it: a text of one's own, or a file."""
    return field.kinds == {"string"} and not field.choices and not holds_template(_sample(subject, field))


def _sample(subject: Subject, field: Field, otherwise: str = "") -> str:
    """A text for a field of texts; `otherwise` where its schema has none."""
    own = otherwise or (EXAMPLE_URL if _is_file(field) else PROMPT)
    texts = [value for value in field.examples if isinstance(value, str) and 0 < len(value.strip()) <= MAX_VALUE]
    said = [value for value in texts if value != MADE_UP]
    return next(iter(subject.good(field, [*said, own, *texts])), own)


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
        if field.name == "seed" and "integer" in field.kinds and (seeds := _seeds(subject, field)):
            return _Axis("seed", seeds)
    for field in subject.fields:
        texts = [value for value in field.examples if isinstance(value, str) and 0 < len(value) <= DEFAULT_SHOWN]
        values = subject.good(field, texts)[:2]
        is_name = NAME.fullmatch(field.name) and field.name not in NOT_NAMES | {"include", "exclude"}
        is_free = not any(word in field.name.lower() for word in COSTLY) and field.name not in {"prompt", "version"}
        if is_name and is_free and len(values) == 2 and not _is_file(field) and not holds_template(values):
            return _Axis(field.name, yamlwords.constant(values))
    return None


def _seeds(subject: Subject, field: Field) -> str:
    """Two seeds that the field takes, as YAML; "" where that cannot be found out."""
    numbers = subject.good(field, [value for value in [*field.examples, 0] if type(value) is int])
    if not numbers:
        return ""
    least = numbers[0]
    step = next((step for step in range(1, SEED_STEPS) if subject.takes(field.name, least + step)), None)
    if step == 1:
        return f"{{range: [{least}, {least + 2}]}}"
    if step is not None:
        return f"{{range: [{least}, {least + 2 * step}, {step}]}}"
    others = [number for number in numbers if number != least]
    return yamlwords.constant([least, others[0]]) if others else ""


def _rows(subject: Subject, columns: list[Field]) -> Iterator[str]:
    if not columns:
        yield "## One job for each row, which templates know as row.value. Or a file: rows: data.csv, and row.COLUMN."
        yield "# rows: [one, two]"
        return
    yield "## One job for each row. Or a file of them (.csv, .tsv, .jsonl, .parquet, .txt): rows: data.csv"
    if any(map(_is_file, columns)):
        yield '## Or one for each file of a folder, with {file: "{{ row.path }}"} below: rows: {glob: "photos/*.png"}'
    yield "rows:"
    for number, field in enumerate(columns):
        value = yamlwords.quoted(_sample(subject, field))
        yield f"  {'-' if number == 0 else ' '} {yamlwords.key(field.name)}: {value}"
    second = {field.name: _second(subject, field) for field in columns}
    yield f"  # - {yamlwords.constant(second)}"


def _second(subject: Subject, field: Field) -> str:
    """What another row gives."""
    is_own = not _is_file(field) and subject.takes(field.name, NEXT)
    return NEXT if is_own else _sample(subject, field)


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
    live = {field.name: _given(subject, field, columns) for field in _live(subject)}
    if axis:
        live[axis.name] = yamlwords.quoted(f"{{{{ {axis.name} }}}}")
    if not live:
        yield "input: {}"
        return
    yield "input:"
    fields = {field.name: field for field in subject.fields}
    for name, value in live.items():
        yield from _setting(name, value, _about(subject, fields[name]), is_live=True)
    for name, field in fields.items():
        if name not in live and not yamlwords.is_own(name):
            yield from _setting(name, _optional(subject, field), _about(subject, field), is_live=False)


def _given(subject: Subject, field: Field, columns: list[Field]) -> str:
    """A live field's value."""
    if field in columns:
        column = f"row.{field.name}" if NAME.fullmatch(field.name) else f"row[{yamlwords.jinja_quoted(field.name)}]"
        value = yamlwords.quoted(f"{{{{ {column} }}}}")
        return f"{{file: {value}}}" if _is_file(field) else value
    return _listed_files(field) or _written(subject, field, field.examples) or _anything(field, PROMPT)


def _anything(field: Field, text: str) -> str:
    """A value of a kind that the field has, where none is known that it takes: a text, where it may be one."""
    if not field.kinds or "string" in field.kinds:
        return yamlwords.quoted(text)
    kind = min(field.kinds)
    return {"array": "[]", "boolean": "false", "object": "{}"}.get(kind, "0")


def _listed_files(field: Field) -> str:
    """A list of files, "" for another field."""
    first = field.examples[0] if field.kinds == {"array"} and field.examples else None
    if not _is_file(field) or not isinstance(first, list) or not all(isinstance(entry, str) for entry in first):
        return ""
    urls = [entry if is_file_url(entry) else EXAMPLE_URL for entry in first]
    return "[" + ", ".join(f"{{file: {yamlwords.quoted(url)}}}" for url in urls) + "]"


def _optional(subject: Subject, field: Field) -> str:
    """A value for a field that nobody has to give: its default first."""
    default = json.loads(field.default) if field.default else None
    if default is None and _is_file(field) and field.kinds == {"string"}:
        return f"{{file: {yamlwords.quoted(_sample(subject, field, 'photo.png'))}}}"
    if default is None and (files := _listed_files(field)):
        return files
    values = [*([] if default is None else [default]), *field.examples]
    return _written(subject, field, values) or _anything(field, MADE_UP)


def _written(subject: Subject, field: Field, values: Sequence[Any]) -> str | None:
    """The first of `values` that the field takes and that can be written into an input."""
    own = [PROMPT] if field.is_required and MADE_UP in values else []
    for value in subject.good(field, [*own, *values]):
        written = yamlwords.input_value(value)
        if written is not None and len(written) <= MAX_VALUE:
            return written
    return None


def _about(subject: Subject, field: Field) -> str:
    """Type, range, default and meaning."""
    default = field.default if len(field.default) <= DEFAULT_SHOWN else ""
    inside = ", ".join(one.name for one in field.inside)
    facts = ["required" if field.is_required else "", field.type, f"fields: {inside}" if inside else "", field.bounds]
    facts.append(f"default {default}" if default else "")
    said = "; ".join(fact for fact in facts if fact)
    derived = " Or {derive: true}: one that follows from the job." if _is_derivable(subject, field) else ""
    words = one_line(f"{said}{'' if said.endswith('…') else '.'}{derived} {field.description}")
    return words if len(words) <= MOST_WORDS else words[: MOST_WORDS - 1] + "…"


def _is_derivable(subject: Subject, field: Field) -> bool:
    """Whether it takes whatever number `core/seeds.py` makes of a job."""
    return (
        field.name == SEED and "integer" in field.kinds and all(subject.takes(SEED, seed) for seed in (0, 1, SEED_MOST))
    )


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
    folder = default_dir(default_name(file))
    where = "" if holds_template(folder) else f"dir: {yamlwords.quoted(folder)}, "
    yield f"# output: {{{where}name: {yamlwords.quoted(name)}}}  ## where, and under which names"
    yield "# budget: {max_cost: 5.00, max_failures: 5%}  ## US dollars, over all runs; failed jobs"
    yield "# limits: {in_flight: 4}  ## jobs at fal at once; by default falbatch finds out what fal takes"
