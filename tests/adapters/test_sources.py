"""Each kind of source gives rows; each way in which a file can be wrong gets one clear message."""

from __future__ import annotations

import builtins
import datetime as dt
import decimal
import json
from typing import TYPE_CHECKING, Any

import pytest

from falbatch.adapters import sources
from falbatch.adapters.sources import read_rows, source_files
from falbatch.core.manifest import Manifest, parse_manifest
from falbatch.errors import ManifestError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def _manifest(rows: str) -> Manifest:
    return parse_manifest(f"endpoint: a/b\ninput: {{}}\nrows: {rows}".encode(), source="m.yaml")


def _read(base: Path, rows: str) -> list[tuple[dict[str, Any], int]]:
    return [(dict(row.values), row.line) for row in read_rows(_manifest(rows), base=base)]


def _file(base: Path, name: str, content: bytes | str) -> list[tuple[dict[str, Any], int]]:
    (base / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return _read(base, name)


def _complaint(base: Path, rows: str, content: bytes | str | None = None) -> str:
    if content is not None:
        (base / rows).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ManifestError) as caught:
        _read(base, rows)
    assert len(caught.value.problems) == 1
    return str(caught.value)


def test_without_rows_there_is_nothing_to_read(tmp_path: Path) -> None:
    manifest = parse_manifest(b"endpoint: a/b\ninput: {}", source="m.yaml")
    assert list(read_rows(manifest, base=tmp_path)) == []
    assert source_files(manifest, base=tmp_path) == []


def test_inline_rows_and_ranges(tmp_path: Path) -> None:
    assert _read(tmp_path, "[{a: 1}, x]") == [({"a": 1}, 3), ({"value": "x"}, 3)]
    assert _read(tmp_path, "{range: [2, 4]}") == [({"value": 2}, 3), ({"value": 3}, 3)]


def test_csv_cells_are_text_and_empty_ones_stay_so(tmp_path: Path) -> None:
    text = '\ufeffid, name ,note\r\n001,"Ada, Countess",\r\n\r\n2,"two\r\nlines","say ""hi"""\r\n3,null,1e3\r\n'
    assert _file(tmp_path, "a.csv", text) == [
        ({"id": "001", "name": "Ada, Countess", "note": ""}, 2),
        ({"id": "2", "name": "two\r\nlines", "note": 'say "hi"'}, 4),
        ({"id": "3", "name": "null", "note": "1e3"}, 6),
    ]


def test_tsv_has_tabs(tmp_path: Path) -> None:
    assert _file(tmp_path, "a.tsv", "a\tb\n1,5\t2\n") == [({"a": "1,5", "b": "2"}, 2)]


def test_the_format_may_be_given(tmp_path: Path) -> None:
    (tmp_path / "people").write_text("a\n1\n")
    assert _read(tmp_path, "{file: people, format: csv}") == [({"a": "1"}, 2)]


def test_jsonl_keeps_numbers_exact_and_takes_bare_values(tmp_path: Path) -> None:
    big = 123456789012345678901234567890
    text = f'{{"a": 1, "big": {big}, "u": 18446744073709551615}}\n\n"word"\n3.5\nnull\n{{"b": [1, {{"c": null}}]}}'
    assert _file(tmp_path, "a.jsonl", text) == [
        ({"a": 1, "big": big, "u": 18446744073709551615}, 1),
        ({"value": "word"}, 3),
        ({"value": 3.5}, 4),
        ({"value": None}, 5),
        ({"b": [1, {"c": None}]}, 6),
    ]


def test_a_text_file_has_one_value_a_line(tmp_path: Path) -> None:
    assert _file(tmp_path, "a.txt", "a cat\r\n\n  two  \nno end") == [
        ({"value": "a cat"}, 1),
        ({"value": "  two  "}, 3),
        ({"value": "no end"}, 4),
    ]


def test_a_glob_gives_files_sorted_with_their_paths_as_given(tmp_path: Path) -> None:
    for name in ("in/b.png", "in/a.x.png", "in/c.txt", "in/deep/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "in/folder.png").mkdir()
    assert _read(tmp_path, '{glob: "in/*.png"}') == [
        ({"path": "in/a.x.png", "name": "a.x.png", "stem": "a.x"}, 3),
        ({"path": "in/b.png", "name": "b.png", "stem": "b"}, 3),
    ]
    assert [row["path"] for row, _ in _read(tmp_path, '{glob: "**/*.png"}')] == [
        "in/a.x.png", "in/b.png", "in/deep/d.png",
    ]  # fmt: skip
    absolute = f"{tmp_path}/in/*.txt"
    assert _read(tmp_path / "in", f'{{glob: "{absolute}"}}')[0][0]["path"] == f"{tmp_path.as_posix()}/in/c.txt"


def test_parquet_becomes_plain_json(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table(
        {
            "n": [2**62, None],
            "x": [1.5, float("nan")],
            "day": [dt.date(2024, 1, 2), None],
            "at": [dt.datetime(2024, 1, 2, 3), None],  # noqa: DTZ001  (a column without zone)
            "price": [decimal.Decimal("12.50"), None],
            "tags": [["a", "b"], []],
            "who": [{"age": 3}, None],
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    rows = _read(tmp_path, "a.parquet")
    assert rows[0] == (
        {"n": 2**62, "x": 1.5, "day": "2024-01-02", "at": "2024-01-02T03:00:00", "price": "12.50",
         "tags": ["a", "b"], "who": {"age": 3}},
        1,
    )  # fmt: skip
    assert rows[1][0]["x"] is None
    json.dumps([row for row, _ in rows], allow_nan=False)


def test_parquet_bytes_are_refused(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"image": [b"x"]}), tmp_path / "a.parquet")
    assert 'a.parquet:1: column "image": a value of type bytes is not JSON' in _complaint(tmp_path, "a.parquet")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    (tmp_path / "a.parquet").touch()
    with pytest.raises(UsageError) as caught:
        _read(tmp_path, "a.parquet")
    assert caught.value.advice == "pip install 'falbatch[parquet]'"


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", "", "m.yaml:3:1: rows: the source has no rows"),
        ("a.csv", "id,name\n", "m.yaml:3:1: rows: the source has no rows"),
        ("a.txt", "\n\n", "the source has no rows"),
        ("a.csv", "id,name\n1,a\n2\n", "a.csv:3: 1 cells where the header has 2 columns"),
        ("a.csv", 'id,name\n1,"a\nb"\n2,b,c\n', "a.csv:4: 3 cells where the header has 2 columns"),
        ("a.csv", "id,id\n1,2\n", 'a.csv:1: two columns are named "id"'),
        ("a.csv", "id,,x\n1,2,3\n", "a.csv:1: column 2 has no name"),
        ("a.csv", "id\tname\n1\t2\n", "a.csv:1: CSV columns are separated by commas"),
        ("a.csv", "id;name\n1;2;3\n", "a.csv:2: 3 cells where the header has 2 columns"),
        ("a.tsv", "id,name\n1,2\n", "a.tsv:1: TSV columns are separated by tabs"),
        ("a.csv", 'id\n"a\n', "a.csv:2: not valid CSV: unexpected end of data"),
        ("a.csv", 'id\n"a"b\n', "a.csv:2: not valid CSV"),
        ("a.csv", b"id\ncaf\xe9\n", "a.csv:2: byte 4 of this line is not UTF-8"),
        ("a.csv", "id\n1\n".encode("utf-16"), "a.csv:1: this is UTF-16 text"),
        ("a.csv", b"id\n\0\n", "a.csv:2: this is a binary file"),
        ("a.jsonl", '{"a": 1}\n{"a": }\n', "a.jsonl:2: not valid JSON: unexpected character"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: a row is an object or a single value, not a list"),
        ("a.jsonl", "NaN\n", "a.jsonl:1: not valid JSON"),
        ("a.jsonl", '{"a": NaN, "b": 1234567890123456789012}', "a.jsonl:1: not valid JSON: NaN is not a JSON value"),
        ("a.jsonl", "9" * 5000, "a.jsonl:1: not valid JSON"),
        ("a.parquet", "no parquet", "a.parquet: not a readable Parquet file"),
    ],
)  # fmt: skip
def test_each_broken_file_gets_one_clear_message(
    tmp_path: Path, name: str, content: bytes | str, complaint: str
) -> None:
    assert complaint in _complaint(tmp_path, name, content)


def test_good_rows_come_before_the_bad_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3\n")
    rows = read_rows(_manifest("a.csv"), base=tmp_path)
    assert next(rows).values == {"a": "1", "b": "2"}
    with pytest.raises(ManifestError):
        next(rows)


def test_an_endless_line_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_MAX_LINE_BYTES", 1024 * 1024)
    assert "a.txt:1: a line of more than 1 MiB" in _complaint(tmp_path, "a.txt", b"x" * (1024 * 1024 + 1))


def test_a_missing_file_is_named_at_the_manifest_s_line_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "people.csv").touch()
    complaint = _complaint(tmp_path, "poeple.csv")
    assert complaint == 'm.yaml:3:1: rows: there is no file poeple.csv (did you mean "people.csv"?)'
    assert "m.yaml:3:8: rows: there is no file x/y.csv" in _complaint(tmp_path, "{file: x/y.csv}")


def test_a_folder_and_an_empty_pattern_are_named(tmp_path: Path) -> None:
    (tmp_path / "data.csv").mkdir()
    assert "data.csv is a folder" in _complaint(tmp_path, "data.csv")
    assert "m.yaml:3:8: rows: no file matches in/*.png" in _complaint(tmp_path, '{glob: "in/*.png"}')


def test_what_the_system_refuses_is_passed_on(tmp_path: Path) -> None:
    assert "cannot be read" in _complaint(tmp_path, f"{'x' * 300}.csv")


def test_the_files_that_rows_come_from_are_known(tmp_path: Path) -> None:
    (tmp_path / "b.png").touch()
    (tmp_path / "a.png").touch()
    assert source_files(_manifest("data/a.csv"), base=tmp_path) == [tmp_path / "data/a.csv"]
    assert source_files(_manifest('{glob: "*.png"}'), base=tmp_path) == [tmp_path / "a.png", tmp_path / "b.png"]
    assert source_files(_manifest("[1]"), base=tmp_path) == []


def test_semicolons_part_cells_where_the_header_has_no_comma(tmp_path: Path) -> None:
    assert _file(tmp_path, "a.csv", '\ufeffid;name;note\n1;"Ann; the first";"a,b"\n2;Bo;c\n') == [
        ({"id": "1", "name": "Ann; the first", "note": "a,b"}, 2),
        ({"id": "2", "name": "Bo", "note": "c"}, 3),
    ]
