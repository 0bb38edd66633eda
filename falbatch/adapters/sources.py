"""Reading the rows that a manifest names: files of several formats, and file names by pattern. Lazily.

Text is UTF-8, with or without a byte order mark. Each mistake names its file and line. CSV and TSV: the first
line names the columns (space around a name does not count; semicolons do in CSV for commas where there is none), each
line has as many cells as there are columns, a cell is text and an empty one is "". JSONL: numbers stay exact. Blank
lines are skipped everywhere.
"""

from __future__ import annotations

import csv
import glob
import json
import re
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Never, assert_never

import orjson

from falbatch.core.model import Row
from falbatch.core.problems import nearest
from falbatch.core.rows import FileRows, GlobRows, InlineRows, RangeRows, RowFormat
from falbatch.errors import ManifestError, Problem, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from falbatch.core.manifest import Manifest

_MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""Bytes of one line: a longer one is no list of inputs, and would be held in memory as a whole."""
_BATCH_ROWS: Final = 1000
"""Parquet rows held at a time."""
_LONG_NUMBER: Final = re.compile(rb"[0-9]{18}")
"""Where orjson could turn an integer of more than 64 bits into a float."""


def read_rows(manifest: Manifest, *, base: Path) -> Iterator[Row]:
    """The rows of `manifest.rows`, in order, before any choice among them; nothing without rows.

    `base` is the manifest's folder. Raises ManifestError, placed, for whatever cannot be read.
    """
    if manifest.rows is None:
        return
    count = 0
    for row in _rows(manifest, manifest.rows.source, base):
        count += 1
        yield row
    if count == 0:
        _wrong(manifest, "rows: the source has no rows, so nothing would run")


def source_files(manifest: Manifest, *, base: Path) -> list[Path]:
    """The files that the rows come from: the named file, the files that match a pattern, or none."""
    match manifest.rows.source if manifest.rows else None:
        case FileRows(file=file):
            return [base / file]
        case GlobRows(pattern=pattern):
            return [base / path for path in _matches(pattern, base)]
        case _:
            return []


def _rows(manifest: Manifest, source: InlineRows | RangeRows | FileRows | GlobRows, base: Path) -> Iterator[Row]:
    match source:
        case InlineRows(rows=rows):
            yield from rows
        case RangeRows(values=values, line=line):
            for value in values:
                yield Row({"value": value}, manifest.source, line)
        case GlobRows(pattern=pattern):
            yield from _glob_rows(manifest, pattern, base)
        case FileRows():
            with _readable(manifest, source, base):
                yield from _file_rows(source, base / source.file)
        case _:
            assert_never(source)


def _wrong(manifest: Manifest, what: str, hint: str = "") -> Never:
    line, column = manifest.line_of(("rows", "file"))
    raise ManifestError([Problem(manifest.source, line, column, what, hint)])


@contextmanager
def _readable(manifest: Manifest, source: FileRows, base: Path) -> Iterator[None]:
    """Turns what the operating system says about the file into a problem at the manifest's line."""
    path = base / source.file
    try:
        yield
    except FileNotFoundError:
        near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, near) or "paths are relative to the manifest's folder"
        _wrong(manifest, f"rows: there is no file {source.file}", hint)
    except IsADirectoryError:
        _wrong(manifest, f"rows: {source.file} is a folder", f'write rows: {{glob: "{source.file}/*"}}')
    except OSError as error:
        _wrong(manifest, f"rows: {source.file} cannot be read: {error.strerror or error}")


def _file_rows(source: FileRows, path: Path) -> Iterator[Row]:
    match source.format:
        case RowFormat.CSV | RowFormat.TSV:
            with path.open("rb") as file:
                yield from _csv_rows(file, source)
        case RowFormat.JSONL:
            with path.open("rb") as file:
                yield from _jsonl_rows(file, source.file)
        case RowFormat.TEXT:
            with path.open("rb") as file:
                for number, line in _lines(file, source.file):
                    if line.strip():
                        yield Row({"value": line.rstrip("\r\n")}, source.file, number)
        case RowFormat.PARQUET:
            yield from _parquet_rows(path, source.file)
        case _:
            assert_never(source.format)


def _bad(file: str, line: int, what: str, hint: str = "") -> ManifestError:
    return ManifestError([Problem(file, line, 0, what, hint)])


def _lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """Number (1-based) and text of each line, its end included."""
    number = 0
    while raw := file.readline(_MAX_LINE_BYTES + 1):
        number += 1
        if number == 1:
            if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise _bad(name, 1, "this is UTF-16 text", "save it as UTF-8")
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if b"\0" in raw:
            raise _bad(name, number, "this is a binary file, not text", "check the file, or give rows.format")
        if len(raw) > _MAX_LINE_BYTES:
            raise _bad(name, number, f"a line of more than {_MAX_LINE_BYTES // 2**20} MiB")
        try:
            yield number, raw.decode()
        except UnicodeDecodeError as error:
            what = f"byte {error.start + 1} of this line is not UTF-8"
            raise _bad(name, number, what, "save it as UTF-8; it may be Latin-1 or Windows-1252") from error


def _csv_rows(file: BinaryIO, source: FileRows) -> Iterator[Row]:
    name = source.file
    reader = csv.reader((line for _, line in _lines(file, name)), delimiter=_delimiter(file, source), strict=True)
    columns: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _bad(name, line, f"not valid {source.format.upper()}: {error}", "check the quotes") from error
        if not cells:
            continue
        if not columns:
            columns = _columns(cells, name, line, source.format)
        elif len(cells) != len(columns):
            what = f"{len(cells)} cells where the header has {len(columns)} columns"
            raise _bad(name, line, what, "put quotes around cells that hold the separator")
        else:
            yield Row(dict(zip(columns, cells, strict=True)), name, line)


def _delimiter(file: BinaryIO, source: FileRows) -> str:
    """By the format; a CSV file whose first line has semicolons and no comma is one of Excel's in half of Europe."""
    if source.format is RowFormat.TSV:
        return "\t"
    first = file.readline(_MAX_LINE_BYTES)
    file.seek(0)
    return ";" if b";" in first and b"," not in first else ","


def _columns(cells: list[str], name: str, line: int, kind: RowFormat) -> list[str]:
    columns = [cell.strip() for cell in cells]
    for number, column in enumerate(columns, 1):
        if not column:
            raise _bad(name, line, f"column {number} has no name", "the first line must name every column")
        if column in columns[: number - 1]:
            raise _bad(name, line, f'two columns are named "{column}"', "rename one")
    other = "\t" if kind is RowFormat.CSV else ","
    if len(columns) == 1 and other in columns[0]:
        is_csv = kind is RowFormat.CSV
        what = f"{kind.upper()} columns are separated by {'commas' if is_csv else 'tabs'}; this line has none"
        raise _bad(
            name, line, what, f"save the file with that separator, or write format: {'tsv' if is_csv else 'csv'}"
        )
    return columns


def _jsonl_rows(file: BinaryIO, name: str) -> Iterator[Row]:
    for number, line in _lines(file, name):
        if not line.strip():
            continue
        try:
            value = _json(line)
        except ValueError as error:
            reason = str(error).partition(": line ")[0]
            raise _bad(name, number, f"not valid JSON: {reason}", "each line must hold one JSON object") from error
        if isinstance(value, list):
            raise _bad(name, number, "a row is an object or a single value, not a list")
        yield Row(value if isinstance(value, dict) else {"value": value}, name, number)


def _json(line: str) -> Any:
    if _LONG_NUMBER.search(line.encode()):
        return json.loads(line, parse_constant=_no_constant)
    return orjson.loads(line)


def _no_constant(word: str) -> Never:
    raise ValueError(f"{word} is not a JSON value")


def _glob_rows(manifest: Manifest, pattern: str, base: Path) -> Iterator[Row]:
    paths = _matches(pattern, base)
    line, column = manifest.line_of(("rows", "glob"))
    if not paths:
        hint = "patterns are relative to the manifest's folder"
        raise ManifestError([Problem(manifest.source, line, column, f"rows: no file matches {pattern}", hint)])
    for path in paths:
        pure = PurePath(path)
        yield Row({"path": path, "name": pure.name, "stem": pure.stem}, manifest.source, line)


def _matches(pattern: str, base: Path) -> list[str]:
    found = glob.iglob(pattern, root_dir=base, recursive=True)  # noqa: PTH207  (Path.glob takes no absolute ones)
    return sorted(PurePath(path).as_posix() for path in found if (base / path).is_file())


def _parquet_rows(path: Path, name: str) -> Iterator[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError as error:
        message = f"{name}: reading Parquet needs pyarrow"
        raise UsageError(message, advice="pip install 'falbatch[parquet]'") from error
    number = 0
    with path.open("rb") as file:
        try:
            for batch in parquet.ParquetFile(file).iter_batches(batch_size=_BATCH_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(_plain_mapping(values, name, number), name, number)
        except pa.ArrowException as error:
            raise _bad(name, number, f"not a readable Parquet file: {error}") from error


def _plain_mapping(values: Mapping[str, Any], name: str, number: int) -> dict[str, Any]:
    made = {}
    for column, value in values.items():
        try:
            made[column] = _plain(value)
        except ValueError as error:
            raise _bad(name, number, f'column "{column}": {error}', "leave it out, or write it as text") from error
    return made


def _plain(value: Any) -> Any:
    """A Parquet value as JSON has it: dates as ISO text, decimals as exact text, NaN as null."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return None if value != value else value
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return str(value)
        case list() | tuple():
            return [_plain(entry) for entry in value]
        case dict():
            return {str(key): _plain(entry) for key, entry in value.items()}
        case _:
            raise ValueError(f"a value of type {type(value).__name__} is not JSON")
