"""What a manifest says. The one place where a YAML document becomes typed values, and where its mistakes are found.

`parse_manifest` never stops at the first mistake: sections are checked one by one, and each may be wrong in
several ways. Templates are checked here as far as that is possible without rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from falbatch.core import template
from falbatch.core.fileinputs import FILE_KEY, check_file_input, is_file_input
from falbatch.core.folder import default_dir, default_name
from falbatch.core.limits import BudgetSpec, LimitsSpec, OutputSpec, RetrySpec, UploadsSpec
from falbatch.core.matrix import Matrix, parse_matrix, parse_zip
from falbatch.core.modes import parse_mode
from falbatch.core.naming import safe_name
from falbatch.core.problems import nearest, shown
from falbatch.core.request import RequestSpec
from falbatch.core.rows import RowsSpec, holds_template, parse_rows
from falbatch.core.schema import Checker, dotted
from falbatch.core.seeds import is_derived
from falbatch.core.validation import Validation, parse_validation
from falbatch.core.yamltext import Marks, Path, load
from falbatch.errors import ManifestError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from falbatch.core.faults import Fault
    from falbatch.core.model import Mode

VERSION: Final = 1
"""The manifest version that this program reads."""
MAX_REPEAT: Final = 10_000
"""Replicas of one job: more are a slip of the hand."""
RESERVED: Final = frozenset({"row", "vars", "index", "replica", "omit", "range", "dict", "namespace", "loop"})
"""Names that templates know already."""

_KEYS: Final = frozenset(
    {"version", "name", "endpoint", "mode", "vars", "rows", "matrix", "zip", "repeat", "input", "output"}
    | {"limits", "retry", "budget", "request", "uploads", "validate"}
)
_JOBS: Final = frozenset({"endpoint", "mode", "vars", "rows", "matrix", "zip", "repeat", "input", "steps", ""})
"""Keys that decide which jobs there are; "" is the document itself."""
_LATER: Final = {"steps": "use one manifest for each endpoint"}
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""A name that templates can use."""
_JINJA_WORDS: Final = frozenset(
    {"and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "True", "False", "None"}
)
NOT_NAMES: Final = RESERVED | _JINJA_WORDS
"""What looks like a name and can be given to nothing."""
_CONSTANTS: Final = ("vars", "matrix", "zip")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest without mistakes, as far as they show without its rows."""

    source: str
    """The file as the user named it."""
    version: int
    """Version of the manifest's format."""
    name: str
    """Name of the batch; the file's stem unless given."""
    endpoint: str
    """Endpoint id; may be a template."""
    mode: Mode
    """How the endpoint is called: through fal's queue, or directly (run, stream, realtime)."""
    vars: Mapping[str, Any]
    """Name → constant, for templates."""
    rows: RowsSpec | None
    """What there is one item for: a file, a list, `{glob: …}`, `{range: …}`; templates see it as `row`."""
    matrix: Matrix
    """Axis → values, a list or `{range: …}`: every combination, with every row; `exclude` and `include` change them."""
    zip: Mapping[str, Sequence[Any]]
    """Name → values; all of one length."""
    repeat: int
    """Replicas of each combination, at least 1."""
    input: dict[str, Any]
    """What the endpoint is given; texts may be templates."""
    output: OutputSpec
    limits: LimitsSpec
    retry: RetrySpec
    budget: BudgetSpec
    request: RequestSpec
    uploads: UploadsSpec
    validate: Validation
    """Which inputs are checked against the endpoint's schema."""
    marks: Marks = field(repr=False, compare=False)
    """Where everything stands."""

    @property
    def template_names(self) -> frozenset[str]:
        """The names that templates may use, besides Jinja's own."""
        names = {*self.vars, *self.matrix.names, *self.zip, "index", "replica", "omit"}
        return frozenset(names | {"row"} if self.rows else names)

    def line_of(self, path: Path) -> tuple[int, int]:
        """Line and column (1-based) of the key or list entry at `path`, or of the nearest thing around it."""
        place = self.marks.key(path)
        return place.line, place.column

    def problem(self, path: Path, fault: Fault, *, where: str = "") -> Problem:
        """`fault` of the template at `path`, placed; `where` names the item it was met with."""
        what = f"{fault.what} ({where})" if where else fault.what
        return Problem(self.source, *self.marks.text(path, fault.line), f"{dotted(path)}: {what}", fault.hint)


def parse_manifest(text: bytes, *, source: str) -> Manifest:
    """The manifest that the bytes of a YAML file hold. Raises ManifestError with every mistake found."""
    manifest, problems = read_manifest(text, source=source)
    if problems:
        raise ManifestError(problems)
    return manifest


def read_manifest(text: bytes, *, source: str) -> tuple[Manifest, tuple[Problem, ...]]:
    """The manifest, and the mistakes in what it says beside its jobs; those settings have their defaults. The jobs can
    be looked at all the same. Raises ManifestError with every mistake where one may change which jobs there are."""
    data, marks = load(text, source=source)
    check = Checker(source, data, marks)
    for key in data:
        if key in _LATER:
            check.later_key((key,), _LATER[key])
        elif key not in _KEYS:
            check.unknown_key((key,), _KEYS)
    name = _name(check)
    output = check.section("output", OutputSpec)
    manifest = Manifest(
        source=source,
        version=_version(check),
        name=name,
        endpoint=_endpoint(check),
        mode=parse_mode(check),
        vars=_vars(check),
        rows=parse_rows(check),
        matrix=parse_matrix(check),
        zip=parse_zip(check),
        repeat=_repeat(check),
        input=_input(check),
        output=output if output.dir else output.model_copy(update={"dir": default_dir(name)}),
        limits=check.section("limits", LimitsSpec),
        retry=check.section("retry", RetrySpec),
        budget=check.section("budget", BudgetSpec),
        request=check.section("request", RequestSpec),
        uploads=check.section("uploads", UploadsSpec),
        validate=parse_validation(check),
        marks=marks,
    )
    _check_names(check, manifest)
    _check_templates(check, manifest)
    if any(top in _JOBS or nearest(top, _JOBS) for top in check.wrong_in):
        check.log.raise_if_any()
    return manifest, check.log.problems()


def _version(check: Checker) -> int:
    version = check.data.get("version", VERSION)
    if type(version) is not int or version < 1:
        check.wrong(("version",), f"version must be {VERSION}, not {shown(version)}")
    elif version > VERSION:
        what = f"version {shown(version)} is newer than this program, which reads version {VERSION}"
        check.wrong(("version",), what, "update falbatch")
    return VERSION


def _name(check: Checker) -> str:
    given = check.data.get("name")
    if given is None:
        return default_name(check.source)
    if not isinstance(given, str):
        hint = f'write name: "{shown(given)}"'
        check.wrong(("name",), f"name must be text, not {shown(given)}", hint)
    elif template.is_template(given):
        check.wrong(("name",), "name is one name for the whole batch, not a template", "see output.name")
    elif "/" in given or safe_name(given) != given:
        hint = "use letters, digits, spaces, . _ and -"
        check.wrong(("name",), f"name must be usable as a folder's name, not {shown(given)}", hint)
    else:
        return given
    return "batch"


def _endpoint(check: Checker) -> str:
    endpoint = check.data.get("endpoint")
    if "endpoint" not in check.data:
        check.wrong((), "endpoint is missing", "for example: endpoint: fal-ai/flux/dev")
    elif not isinstance(endpoint, str) or not endpoint.strip():
        what = f"endpoint must be an endpoint id, not {shown(endpoint)}"
        check.wrong(("endpoint",), what, "for example: fal-ai/flux/dev")
    else:
        return endpoint
    return ""


def _vars(check: Checker) -> dict[str, Any]:
    data = check.data.get("vars")
    return {} if data is None else check.mapping(("vars",), data, "a mapping of names to values") or {}


def _repeat(check: Checker) -> int:
    repeat = check.data.get("repeat", 1)
    if type(repeat) is int and 1 <= repeat <= MAX_REPEAT:
        return repeat
    what = f"repeat must be a whole number from 1 to {MAX_REPEAT}, not {shown(repeat)}"
    check.wrong(("repeat",), what)
    return 1


def _input(check: Checker) -> dict[str, Any]:
    path: Path = ("input",)
    if "input" not in check.data:
        hint = 'for example: input: {prompt: "a cat"}; write input: {} for none'
        check.wrong((), "input is missing: what the endpoint is given", hint)
        return {}
    data = check.mapping(path, check.data["input"], "a mapping of the endpoint's input")
    for inner, value in _walk(data or {}, path):
        if isinstance(value, dict):
            if is_file_input(value) and inner != path:
                for key, fault in check_file_input(value):
                    check.wrong((*inner, key), f"{dotted(inner)}: {fault.what}", fault.hint)
            elif FILE_KEY in value:
                check.wrong_key((*inner, FILE_KEY), f'"{FILE_KEY}" is falbatch\'s own mark', "write {file: path}")
            elif inner != path and is_derived(value) and value["derive"] is not True:
                what = f"{dotted(inner)}.derive must be true, not {shown(value['derive'])}"
                check.wrong(
                    (*inner, "derive"), what, "true gives every job a seed of its own; a number gives all the same"
                )
    return data or {}


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every value inside `value` with its path, itself included."""
    yield path, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, entry in inner:
        yield from _walk(entry, (*path, step))


def _names(manifest: Manifest) -> Iterator[tuple[str, Path]]:
    """Every name that the manifest gives to templates, and where."""
    for name in manifest.vars:
        yield name, ("vars", name)
    for name in manifest.matrix.axes:
        yield name, ("matrix", name)
    for number, entry in enumerate(manifest.matrix.include):
        for name in entry:
            if name not in manifest.matrix.axes:
                yield name, ("matrix", "include", number, name)
    for name in manifest.zip:
        yield name, ("zip", name)


def _check_names(check: Checker, manifest: Manifest) -> None:
    seen: dict[str, Path] = {}
    for name, path in _names(manifest):
        if not NAME.fullmatch(name) or name in _JINJA_WORDS:
            what = f"{shown(name)} cannot be used as a name in templates"
            check.wrong_key(path, what, "use letters, digits and _, not beginning with a digit")
        elif name in RESERVED:
            check.wrong_key(path, f'"{name}" is a name that templates know already', "choose another")
        elif name in seen and not path[:2] == seen[name][:2] == ("matrix", "include"):
            line = check.marks.key(seen[name]).line
            what = f'"{name}" is given twice: as {dotted(seen[name])} on line {line} and as {dotted(path)}'
            check.wrong_key(path, what, "rename one")
        seen.setdefault(name, path)
    for section in _CONSTANTS:
        for path, value in _walk(check.data.get(section), (section,)):
            if isinstance(value, str) and holds_template(value):
                what = f"{dotted(path)}: templates are not rendered here"
                check.wrong(path, what, "templates belong into input, endpoint and output.name")


def _check_templates(check: Checker, manifest: Manifest) -> None:
    if "rows" in check.data and manifest.rows is None:
        known = manifest.template_names | {"row"}  # rows are wrong, which is said already
    else:
        known = manifest.template_names
    texts = [(("endpoint",), manifest.endpoint), *_walk(manifest.input, ("input",))]
    if manifest.output.name is not None:
        texts.append((("output", "name"), manifest.output.name))
    for path, text in texts:
        if isinstance(text, str) and template.is_template(text):
            for fault in template.check(text, known):
                check.add(path, manifest.problem(path, fault))
    if manifest.rows and manifest.rows.where:
        for fault in template.check_condition(manifest.rows.where, frozenset(manifest.vars) | {"row"}):
            check.add(("rows", "where"), manifest.problem(("rows", "where"), fault))
