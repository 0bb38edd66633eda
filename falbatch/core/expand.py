"""From a manifest and its rows to items, lazily and in a fixed order.

    for each row:                 rows.where, rows.sample, rows.limit
      for each matrix combination:
        for each zip combination:
          for each replica:       where, sample, limit of the caller
            render ─▶ Item, or problems

A mistake in one item is noted and the next item is tried, so that all mistakes are found in one go.
"""

from __future__ import annotations

import functools
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from falbatch.core.choose import choose
from falbatch.core.faults import OMIT, Fault, TemplateError, not_text
from falbatch.core.inputs import Faults, InputTemplate
from falbatch.core.matrix import zipped
from falbatch.core.model import Item, Row
from falbatch.core.naming import NameProblem, SafeName, label_of, safe_name
from falbatch.core.problems import ProblemLog, shown
from falbatch.core.rows import FileRows, Sample
from falbatch.core.template import Template, check_condition, condition, global_names, is_template
from falbatch.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from falbatch.core.manifest import Manifest
    from falbatch.core.yamltext import Path

EXPANSION: Final = 1
"""Raised whenever a manifest may make other jobs, names or origins than the falbatch before made of it."""

_BESIDE: Final = frozenset(
    {"source", "name", "output", "limits", "retry", "budget", "request", "uploads", "validate", "marks"}
)
"""What a manifest says that decides nothing about which jobs there are."""

_KEPT_VARIANTS: Final = 10_000
"""Matrix × zip combinations up to which they are made once, with their labels, and kept."""
_KEPT_ENDPOINTS: Final = 1000
"""Endpoints whose check is remembered."""


class _Variant(NamedTuple):
    """One matrix × zip combination."""

    values: Mapping[str, Any]
    label: str
    text: str
    """`style=oil painting, seed=3`, for people."""


class _Candidate(NamedTuple):
    """One item before rendering: cheap, so that a sample can hold many."""

    number: int
    """0-based place in the manifest's order, before the caller's choice."""
    row: Row | None
    context: dict[str, Any]
    """What its row and the manifest give to templates; shared between the items of a row."""
    variant: _Variant
    replica: int
    """0-based."""

    def names(self) -> dict[str, Any]:
        """All that its templates see."""
        return {**self.context, **self.variant.values, "index": self.number, "replica": self.replica}

    def origin(self, manifest: Manifest) -> str:
        """Where it comes from, for people."""
        parts = [f"{self.row.file}:{self.row.line}"] if self.row else []
        if self.variant.text:
            parts.append(self.variant.text)
        if manifest.repeat > 1:
            parts.append(f"replica {self.replica}")
        return ", ".join(parts) or manifest.source


def expand(
    manifest: Manifest,
    rows: Iterable[Row] | None,
    *,
    check_endpoint: Callable[[str], str | None],
    where: str | None = None,
    limit: int | None = None,
    sample: int | None = None,
    problems: ProblemLog,
) -> Iterator[Item]:
    """The items of `manifest`, one after the other; those with mistakes go to `problems` instead.

    `rows` is what the manifest's `rows` names, None when it names none. `where`, `sample` (seed 0) and `limit`
    choose among items, in that order, after the manifest's own choice among rows; numbers (`index`) are given
    before them. `check_endpoint` answers what is wrong with an endpoint id, or None. Memory: `sample` items.
    """
    keep = None
    if where is not None:
        faults = check_condition(where, manifest.template_names)
        for fault in faults:
            problems.add(Problem("--where", 0, 0, fault.what, fault.hint))
        if faults:
            return
        keep = _Condition(where, lambda fault, origin: _where_problem(problems, fault, origin))
    candidates = _candidates(manifest, rows, problems)
    chosen = choose(
        candidates,
        where=(lambda one: keep(one.names(), one.origin(manifest))) if keep else None,
        sample=Sample(sample) if sample is not None else None,
        limit=limit,
    )
    renderer = _Renderer(manifest, check_endpoint, problems)
    seq = 0
    for candidate in chosen:
        item = renderer.item(candidate, seq)
        if item is not None:
            yield item
            seq += 1


def facts_of(manifest: Manifest) -> str:
    """All that `expand` takes from a manifest. Equal texts and equal rows give equal items."""
    said = {field.name: getattr(manifest, field.name) for field in fields(manifest) if field.name not in _BESIDE}
    # The manifest's own place is told by items whose rows are not in a file.
    has_file = manifest.rows is not None and isinstance(manifest.rows.source, FileRows)
    place = None if has_file else (manifest.source, manifest.line_of(("rows", "glob")))
    return repr((EXPANSION, said, manifest.output.name, place))


def _where_problem(problems: ProblemLog, fault: Fault, origin: str) -> None:
    problem = Problem("--where", 0, 0, f"{fault.what} ({origin})", fault.hint)
    problems.add(problem, cause=("--where", fault.cause or fault.what))


class _Condition:
    """A `where`, compiled. What it gives must be plainly true or false: text would be true even as "false"."""

    def __init__(self, text: str, report: Callable[[Fault, str], None]) -> None:
        self._template = Template(condition(text))
        self._report = report

    def __call__(self, names: dict[str, Any], origin: str) -> bool:
        try:
            value = self._template.render(names)
        except TemplateError as error:
            self._report(error.fault, origin)
            return False
        if value is None or isinstance(value, (bool, int, float)):
            return bool(value)
        hint = "compare it: row.keep == 'yes'"
        what = f"where must give true or false, not {shown(value)}"
        self._report(Fault(what, hint, cause="where gives no boolean"), origin)
        return False


def _candidates(manifest: Manifest, rows: Iterable[Row] | None, problems: ProblemLog) -> Iterator[_Candidate]:
    common = {**global_names(), **manifest.vars}
    variants = _variants(manifest)
    index = 0
    for row in [None] if rows is None else _chosen_rows(manifest, rows, problems):
        context = common if row is None else {**common, "row": row.values}
        for variant in variants():
            for replica in range(manifest.repeat):
                yield _Candidate(index, row, context, variant, replica)
                index += 1


def _chosen_rows(manifest: Manifest, rows: Iterable[Row], problems: ProblemLog) -> Iterator[Row]:
    spec = manifest.rows
    if spec is None:
        yield from rows
        return
    path: Path = ("rows", "where")
    common = {**global_names(), **manifest.vars}

    def report(fault: Fault, origin: str) -> None:
        problems.add(manifest.problem(path, fault, where=origin), cause=(path, fault.cause or fault.what))

    keep = _Condition(spec.where, report) if spec.where else None
    before, seen, taken = len(problems), 0, 0

    def is_kept(row: Row) -> bool:
        nonlocal seen
        seen += 1
        return keep is None or keep({**common, "row": row.values}, f"{row.file}:{row.line}")

    for row in choose(rows, where=is_kept, sample=spec.sample, limit=spec.limit):
        taken += 1
        yield row
    if keep and seen and not taken and len(problems) == before:
        problems.add(manifest.problem(path, Fault(f"leaves none of the {seen:,} rows")))


def _variants(manifest: Manifest) -> Callable[[], Iterable[_Variant]]:
    """Gives the matrix × zip combinations anew for each row: from memory unless they are very many."""
    if manifest.matrix.size() * _linked(manifest) > _KEPT_VARIANTS:
        return lambda: _made_variants(manifest)
    kept = tuple(_made_variants(manifest))
    return lambda: kept


def variant_count(manifest: Manifest) -> int:
    """How many matrix × zip combinations each row has. The item numbered n is of combination (n // repeat) % count."""
    matrix = manifest.matrix
    is_product = not (matrix.exclude or matrix.include)
    return (matrix.size() if is_product else sum(1 for _ in matrix.combinations())) * _linked(manifest)


def _linked(manifest: Manifest) -> int:
    return max((len(values) for values in manifest.zip.values()), default=1)


def _made_variants(manifest: Manifest) -> Iterator[_Variant]:
    for combination in manifest.matrix.combinations():
        for linked in zipped(manifest.zip):
            values = {**combination, **linked}
            text = ", ".join(f"{name}={_brief(value)}" for name, value in values.items())
            yield _Variant(values, label_of(values.values()), text)


def _brief(value: Any) -> str:
    return shown(value)[1:-1] if isinstance(value, str) else shown(value)


class _Renderer:
    """Makes items of candidates, by templates compiled once."""

    def __init__(self, manifest: Manifest, check_endpoint: Callable[[str], str | None], problems: ProblemLog) -> None:
        self._manifest = manifest
        self._problems = problems
        self._check_endpoint = functools.lru_cache(_KEPT_ENDPOINTS)(check_endpoint)
        self._endpoint = _text_or_template(manifest.endpoint)
        self._input = InputTemplate(manifest.input)
        self._name = None if manifest.output.name is None else _text_or_template(manifest.output.name)
        named = self._name.names() if isinstance(self._name, Template) else frozenset[str]()
        self._numbered = manifest.repeat > 1 and "replica" not in named

    def item(self, candidate: _Candidate, seq: int) -> Item | None:
        """The item, or None after noting its problems."""
        context = candidate.names()
        faults: Faults = []
        endpoint = self._made_endpoint(context, faults)
        made = self._input.render(context, faults)
        name = self._made_name(context, candidate.replica, faults)
        origin = candidate.origin(self._manifest)
        if faults:
            for path, fault in faults:
                problem = self._manifest.problem(path, fault, where=origin)
                self._problems.add(problem, cause=(path, fault.cause or fault.what))
            return None
        return Item(seq, endpoint, self._manifest.mode, made, name, candidate.variant.label, origin, candidate.number)

    def _made_endpoint(self, context: dict[str, Any], faults: Faults) -> str:
        path: Path = ("endpoint",)
        endpoint = _rendered_text(self._endpoint, path, context, faults)
        wrong = None if endpoint is None else self._check_endpoint(endpoint)
        if wrong:
            faults.append((path, Fault(f"{shown(endpoint)}: {wrong}")))
        return endpoint or ""

    def _made_name(self, context: dict[str, Any], replica: int, faults: Faults) -> SafeName | None:
        if self._name is None:
            return None
        path: Path = ("output", "name")
        text = _rendered_text(self._name, path, context, faults)
        if text is None:
            return None
        if self._numbered and replica and text.strip():
            text = f"{text}-{replica + 1}"
        made = safe_name(text)
        if isinstance(made, NameProblem):
            faults.append((path, Fault(f"{shown(text)}: {made.what}", made.hint, cause=made.what)))
            return None
        return made


def _text_or_template(text: str) -> str | Template:
    return Template(text) if is_template(text) else text


def _rendered_text(template: str | Template, path: Path, context: dict[str, Any], faults: Faults) -> str | None:
    """What a setting that must be text gives; None after noting a fault."""
    if isinstance(template, str):
        return template
    try:
        value = template.render(context)
    except TemplateError as error:
        faults.append((path, error.fault))
        return None
    if isinstance(value, (str, int, float)):
        return str(value)
    faults.append((path, Fault("omit has no meaning here") if value is OMIT else not_text(value, template.source)))
    return None
