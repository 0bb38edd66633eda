"""The table of a profile: what was passed, how long it took, whose processor time it was."""

from __future__ import annotations

import pytest

from falbatch.core.stages import STAGES, StageTimes


def test_rows_stand_in_the_order_of_a_jobs_life_and_only_where_something_was() -> None:
    times = StageTimes()
    for number in range(101):
        times.took("download", 1 + number / 100)
    times.took("submit", 1.0)
    table = times.table(wall_s=5.0, cpu_s=2.0, cpu_by_stage={"loop": 1.5, "download": 0.5})
    assert [(row.stage, row.count, row.cpu_share) for row in table.rows] == [
        ("submit", 1, 0.0),
        ("download", 101, 0.25),
        ("loop", 0, 0.75),
    ]
    assert table.rows[1].p50_s == pytest.approx(1.5, rel=0.02)
    assert table.rows[1].p95_s == pytest.approx(1.95, rel=0.02)
    assert (table.rows[2].p50_s, table.rows[2].p95_s) == (None, None)
    assert all(row.meaning == STAGES[row.stage] for row in table.rows)


def test_where_nobody_knows_the_processors_time_nothing_is_claimed() -> None:
    times = StageTimes()
    times.took("submit", 1.0)
    assert [row.cpu_share for row in times.table(wall_s=1.0, cpu_s=1.0, cpu_by_stage=None).rows] == [None]


def test_as_json_has_every_row() -> None:
    times = StageTimes()
    times.took("status", 0.5)
    record = times.table(wall_s=1.0, cpu_s=0.25, cpu_by_stage={}).as_json()
    assert (record["event"], record["wall_s"], record["cpu_s"]) == ("profile", 1.0, 0.25)
    assert [row["stage"] for row in record["stages"]] == ["status"]
