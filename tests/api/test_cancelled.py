"""`arun` that its caller cancels: as a stop, so that what is paid for comes home or is known to be lost."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

import anyio
import pytest

import falbatch
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = """\
version: 1
name: left
endpoint: fal-ai/flux/schnell
mode: run
matrix: {seed: [1, 2, 3]}
input: {prompt: "kite", seed: "{{ seed }}", image_size: {width: 64, height: 64}}
output: {dir: out}
"""


def states(state: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(state)) as connection:
        return [row[0] for row in connection.execute("SELECT state FROM jobs ORDER BY seq")]


@pytest.mark.parametrize(
    ("fault", "grace_s", "expected"),
    [("delay:0.6", 60.0, "completed"), ("hang", 0.3, "submitting")],
    ids=["answered in time", "never answered"],
)
def test_a_cancelled_run_waits_for_calls_under_way_as_after_a_stop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str, grace_s: float, expected: str
) -> None:
    monkeypatch.setattr("falbatch.engine.direct.DIRECT_GRACE_S", grace_s)
    monkeypatch.setenv("FAL_KEY", "left:secret")
    (tmp_path / "m.yaml").write_text(MANIFEST)
    state = tmp_path / "out" / "falbatch.db"

    async def cancelled() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(falbatch.arun, tmp_path / "m.yaml")
            while not state.exists() or "submitting" not in states(state):
                await anyio.sleep(0.02)
            await anyio.sleep(0.1)
            group.cancel_scope.cancel()

    with SandboxProcess("--seed", "3", "--speed", "0") as fal:
        monkeypatch.setenv("FALBATCH_ORIGIN", fal.origin)
        fal.add_faults([{"on": "run", "do": fault}])
        anyio.run(cancelled)
        assert set(states(state)) - {"planned"} == {expected}
        assert fal.ledger()["count"] <= 3
