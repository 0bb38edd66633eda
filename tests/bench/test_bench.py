"""The benchmarks work: counts and shapes. What they measure is asserted nowhere."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.bench import __main__ as program
from tests.bench.children import ChildFailed, run_child
from tests.bench.fal_process import FalProcess
from tests.bench.manifests import fastest_rate
from tests.bench.row import Row, medians, table
from tests.bench.setting import FULL, QUICK, Bench

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("value", "sense", "verdict"),
    [
        (100.0, "at least", "stretch reached"),
        (99.9, "at least", "reached"),
        (20.0, "at least", "reached"),
        (19.9, "at least", "not reached"),
        (20.1, "at most", "reached"),
    ],
)
def test_a_verdict_follows_from_the_targets(value: float, sense: str, verdict: str) -> None:
    must, stretch = (20, 100) if sense == "at least" else (100, 20)
    row = Row("rate", "jobs", "×", value, must=must, stretch=stretch, sense="at least" if must == 20 else "at most")
    assert row.verdict == verdict
    assert verdict in table([row])


def test_a_row_without_a_target_only_informs() -> None:
    row = Row("ceiling", "fal", "jobs/s", 12_345.6, sides={"CPU ms": 0.0123}, note="A note.", runs=3)
    assert row.verdict == "for information"
    lines = [line.split() for line in table([row]).splitlines()[2:]]
    assert lines == [
        ["ceiling", "12,346", "jobs/s", "for", "information"],
        ["fal", "(median", "of", "3)"],
        ["CPU", "ms", "0.0123"],
        ["A", "note."],
    ]


def test_medians_are_taken_of_each_figure() -> None:
    assert medians([{"a": 1, "b": 9}, {"a": 3, "b": 7}, {"a": 2, "b": 8}]) == {"a": 2, "b": 8}


def test_a_process_that_fails_says_which_and_why() -> None:
    with pytest.raises(ChildFailed, match=r"(?s)exit code 3.*last words"):
        run_child([sys.executable, "-c", "import sys; print('last words', file=sys.stderr); sys.exit(3)"])


def test_a_process_is_accounted_for() -> None:
    used = run_child([sys.executable, "-c", "x = bytearray(64 << 20); sum(range(1000000)); print('done')"])
    assert used.out == b"done\n"
    assert used.peak_mib > 64
    assert used.cpu_s > 0


def test_a_manifest_names_the_highest_rate_that_there_is() -> None:
    assert 1000 <= fastest_rate() <= 100_000


def test_a_measurement_that_fails_is_named_and_the_others_are_made() -> None:
    def fails(bench: Bench) -> list[Row]:
        raise ChildFailed("it broke")

    def works(bench: Bench) -> list[Row]:
        return [Row("fine", "fine", "", 1.0)]

    rows, failed = program._measure(Bench(FalProcess(), QUICK), {"broken": fails, "fine": works})
    assert [row.name for row in rows] == ["fine"]
    assert failed == {"broken": "ChildFailed: it broke"}


def test_rows_are_chosen_by_name_and_by_beginning() -> None:
    every = program.measures(Bench(FalProcess(), FULL))
    assert list(program._chosen(every, "help,jobs-64")) == ["help", "jobs-64"]
    assert list(program._chosen(every, "download")) == ["download-1mb", "download-20mb"]
    assert len([name for name in every if name.startswith("polls-")]) == 6
    with pytest.raises(SystemExit, match="no row is called 'nothing'"):
        program._chosen(every, "nothing")


def test_a_quick_run_prints_its_rows_and_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.json"
    assert (
        program.main(["--quick", "--only", "ceiling,jobs-64,plan,help", "--transports", "", "--json", str(file)]) == 0
    )
    document = json.loads(file.read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in document["rows"]}
    assert list(rows) == ["ceiling", "rate-64", "plan", "plan-memory", "help"]
    assert document["failed"] == {}
    assert {row["verdict"] for row in rows.values()} == {"for information"}
    assert {"official jobs/s", "falbatch jobs/s"} <= set(rows["rate-64"]["sides"])
    assert all(row["value"] > 0 for row in rows.values())
    printed = capsys.readouterr().out
    assert all(row["what"] in printed for row in rows.values())
