"""`run --profile`: the table agrees with what the sandbox counted, and is there only when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import MANIFEST

if TYPE_CHECKING:
    from tests.cli.conftest import Shell


def test_the_table_counts_what_happened(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    ran = shell.falbatch("run", "small.yaml", "--profile", "--json")
    assert ran.code == 0
    profile = ran.objects()[-1]
    report = ran.objects()[-2]
    assert (report["event"], profile["event"]) == ("report", "profile")
    rows = {row["stage"]: row for row in profile["stages"]}
    counts = {stage: rows[stage]["count"] for stage in ("plan", "submit", "at fal", "result", "download", "rename")}
    assert counts == {"plan": 1, "submit": 4, "at fal": 4, "result": 4, "download": 4, "rename": 4}
    assert rows["status"]["count"] == report["run"]["status_calls"]
    assert rows["state"]["count"] >= 5 * 4, "intent, acceptance, result, file, done"
    assert all(row["p50_s"] is None or 0 < row["p50_s"] <= row["p95_s"] * 1.03 for row in rows.values())
    assert sum(row["cpu_share"] for row in rows.values()) == pytest.approx(1.0)
    assert profile["cpu_s"] > 0


def test_people_get_it_after_the_report(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    ran = shell.falbatch("run", "small.yaml", "--profile")
    lines = ran.out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("profile: "))
    assert lines[start - 1].startswith("files: ")
    assert lines[start + 1].split() == ["stage", "count", "p50", "p95", "CPU"]
    assert [line.split()[0] for line in lines[start + 2 : start + 5]] == ["plan", "submit", "at"]
    again = shell.falbatch("run", "small.yaml")
    assert "profile" not in again.out
