"""Where a manifest's rows come from, and which of them are taken. Reading them is the adapters' business."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.matrix import parse_values
from falbatch.core.model import Row
from falbatch.core.problems import nearest_or_list, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from falbatch.core.schema import Checker
    from falbatch.core.yamltext import Path

_PATH: Final[Path] = ("rows",)
_SOURCES: Final = frozenset({"file", "glob", "list", "range"})
_KEYS: Final = _SOURCES | {"format", "where", "sample", "limit"}
_TEMPLATE: Final = re.compile(r"\{[{%#]")


class RowFormat(StrEnum):
    """How a file of rows is read."""

    CSV = "csv"
    """Comma-separated, first line names the columns; every cell is text, an empty one is ""."""
    TSV = "tsv"
    """The same with tabs."""
    JSONL = "jsonl"
    """One JSON object a line; a bare string, number or boolean is `{"value": x}`."""
    TEXT = "text"
    """One value a line, as `{"value": line}`."""
    PARQUET = "parquet"
    """Apache Parquet; needs the `parquet` extra."""


BY_SUFFIX: Final = {
    ".csv": RowFormat.CSV,
    ".tsv": RowFormat.TSV,
    ".tab": RowFormat.TSV,
    ".jsonl": RowFormat.JSONL,
    ".ndjson": RowFormat.JSONL,
    ".txt": RowFormat.TEXT,
    ".parquet": RowFormat.PARQUET,
}


@dataclass(frozen=True, slots=True)
class InlineRows:
    """Rows written into the manifest."""

    rows: tuple[Row, ...]
    """Each a mapping of columns to values; a single value is `{"value": x}`."""


@dataclass(frozen=True, slots=True)
class RangeRows:
    """A row `{"value": n}` for each number."""

    values: Sequence[int]
    """The numbers; lazy."""
    line: int
    """Line of the range in the manifest, 1-based."""


@dataclass(frozen=True, slots=True)
class FileRows:
    """Rows in a file."""

    file: str
    """Path as written; relative to the manifest's folder."""
    format: RowFormat


@dataclass(frozen=True, slots=True)
class GlobRows:
    """A row `{"path", "name", "stem"}` for each file that matches, sorted by path."""

    pattern: str
    """Shell pattern (`*`, `?`, `[…]`, `**`), relative to the manifest's folder."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A random but repeatable choice that keeps the order."""

    n: int
    """How many at most; at least 1."""
    seed: int = 0
    """The same seed chooses the same ones."""


@dataclass(frozen=True, slots=True)
class RowsSpec:
    """Where the rows come from, and which are taken: first `where`, then `sample`, then `limit`."""

    source: InlineRows | RangeRows | FileRows | GlobRows
    where: str | None = None
    """A Jinja expression over `row` and vars that must give true or false."""
    sample: Sample | None = None
    """Rows drawn at random, the same ones each time: how many, or `{n, seed}`."""
    limit: int | None = None
    """Rows taken at most; at least 1."""


def parse_rows(check: Checker) -> RowsSpec | None:
    """The manifest's `rows`, noting what is wrong; None without rows (or with wrong ones)."""
    if "rows" not in check.data:
        return None
    match check.data["rows"]:
        case str() as file:
            source = _file(check, _PATH, file, None)
            return RowsSpec(source) if source else None
        case list() as entries:
            return RowsSpec(_inline(check, _PATH, entries))
        case dict() as settings:
            return _settings(check, settings)
        case other:
            hint = "name a file, or write a list, {glob: …} or {file: …}"
            check.wrong(_PATH, f"rows must say where rows come from, not {shown(other)}", hint)
            return None


def _settings(check: Checker, settings: dict[str, Any]) -> RowsSpec | None:
    for key in settings:
        if key not in _KEYS:
            check.unknown_key((*_PATH, key), _KEYS)
    where, sample, limit = _where(check, settings), _sample(check, settings), _count(check, settings, "limit")
    given = [key for key in settings if key in _SOURCES]
    if len(given) != 1:
        what = "rows needs exactly one of file, glob, list, range"
        check.wrong_key(_PATH, what if not given else f"{what}, not {' and '.join(given)}")
        return None
    if "format" in settings and given != ["file"]:
        check.wrong_key((*_PATH, "format"), "rows.format belongs to rows.file")
    source = _source(check, given[0], settings)
    return RowsSpec(source, where, sample, limit) if source else None


def _source(
    check: Checker, kind: str, settings: Mapping[str, Any]
) -> InlineRows | RangeRows | FileRows | GlobRows | None:
    path: Path = (*_PATH, kind)
    value = settings[kind]
    if kind == "range":
        numbers = parse_values(check, _PATH, {"range": value})
        return RangeRows(numbers, check.marks.value(path).line) if numbers else None
    if kind == "list":
        if isinstance(value, list):
            return _inline(check, path, value)
        check.wrong(path, f"rows.list must be a list, not {shown(value)}")
        return None
    if not isinstance(value, str) or not value or "\0" in value:
        check.wrong(path, f"rows.{kind} must be a {'pattern' if kind == 'glob' else 'path'}, not {shown(value)}")
        return None
    return GlobRows(value) if kind == "glob" else _file(check, path, value, settings.get("format"))


def _file(check: Checker, path: Path, file: str, word: Any) -> FileRows | None:
    if not file or "\0" in file:
        check.wrong(path, f"rows must name a file, not {shown(file)}")
        return None
    if any(character in file for character in "*?["):
        check.wrong(path, f"{shown(file)} is a pattern, not a file", f'write rows: {{glob: "{file}"}}')
        return None
    if word is None:
        found = BY_SUFFIX.get(PurePath(file).suffix.lower())
        if found is None:
            what = f"{shown(file)} does not tell its format"
            check.wrong(path, what, f"write rows: {{file: …, format: {' | '.join(RowFormat)}}}")
        return FileRows(file, found) if found else None
    if word not in list(RowFormat):
        what = f"rows.format must be one of {', '.join(RowFormat)}, not {shown(word)}"
        check.wrong((*_PATH, "format"), what, nearest_or_list(str(word), RowFormat))
        return None
    return FileRows(file, RowFormat(word))


def _inline(check: Checker, path: Path, entries: list[Any]) -> InlineRows:
    if not entries:
        check.wrong(path, "rows is an empty list, so nothing would run", "remove it, or give it rows")
    rows: list[Row] = []
    for entry, place in zip(entries, check.marks.entries(path), strict=True):
        if isinstance(entry, list):
            what = "a row is a mapping of columns to values, or a single value, not a list"
            check.wrong((*path, len(rows)), what)
        values = entry if isinstance(entry, dict) else {"value": entry}
        if holds_template(values):
            check.wrong(
                (*path, len(rows)),
                "templates in rows are not rendered",
                "move the template to input, where it can use {{ row.… }}",
            )
        rows.append(Row(values, check.source, place.line))
    return InlineRows(tuple(rows))


def holds_template(value: Any) -> bool:
    """Whether any text inside looks like a template."""
    match value:
        case str():
            return "{" in value and bool(_TEMPLATE.search(value))
        case dict():
            return any(map(holds_template, value.values()))
        case list():
            return any(map(holds_template, value))
        case _:
            return False


def _where(check: Checker, settings: Mapping[str, Any]) -> str | None:
    where = settings.get("where")
    if where is None or (isinstance(where, str) and where.strip()):
        return where
    hint = "for example: where: row.age | int > 30"
    check.wrong((*_PATH, "where"), f"rows.where must be an expression, not {shown(where)}", hint)
    return None


def _count(check: Checker, settings: Mapping[str, Any], key: str, path: Path = _PATH) -> int | None:
    count = settings.get(key)
    if count is None or (type(count) is int and count >= 1):
        return count
    check.wrong((*path, key), f"rows.{key} must be a whole number from 1, not {shown(count)}")
    return None


def _sample(check: Checker, settings: Mapping[str, Any]) -> Sample | None:
    value = settings.get("sample")
    if not isinstance(value, dict):
        n = _count(check, settings, "sample")
        return Sample(n) if n else None
    path: Path = (*_PATH, "sample")
    for key in value:
        if key not in ("n", "seed"):
            check.unknown_key((*path, key), frozenset({"n", "seed"}))
    if "n" not in value:
        check.wrong_key(path, "rows.sample needs n, the number of rows")
    n = _count(check, value, "n", path)
    seed = value.get("seed", 0)
    if type(seed) is not int:
        check.wrong((*path, "seed"), f"rows.sample.seed must be a whole number, not {shown(seed)}")
        return None
    return Sample(n, seed) if n else None
