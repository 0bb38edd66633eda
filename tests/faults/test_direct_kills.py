"""A batch of direct calls that dies where it hurts: nothing is called again by itself, and what was paid for is home
or said to be unknown."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.faults.harness import (
    Client,
    assert_files_whole,
    assert_nothing_charged_twice,
    canonical,
    paid_by_input,
    wait_until,
)
from tests.faults.rounds import is_idle
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JOBS = 6
PLACES = [
    ("run", "submit.leaving#2"),
    ("run", "submit.answered#2"),
    ("run", "after.ResultStored"),
    ("run", "before.RequestFound"),
    ("run", "after.RequestFound"),
    ("stream", "submit.answered#2"),
    ("realtime", "submit.answered#3"),
]


@pytest.fixture(scope="module")
def fal() -> Iterator[SandboxProcess]:
    with SandboxProcess("--seed", "11", "--speed", "8", "--concurrency", "4") as process:
        yield process


@pytest.mark.parametrize(("mode", "point"), PLACES)
def test_direct_calls_that_are_killed_are_never_made_again_by_themselves(
    mode: str, point: str, tmp_path: Path, fal: SandboxProcess
) -> None:
    fal.reset()
    if point.endswith("RequestFound"):
        fal.add_faults([{"on": mode, "do": "drop_after", "nth": 2}])
    client = Client.with_jobs(tmp_path, fal, JOBS, mode=mode)
    assert client.killed(60, point, "--reconcile-wait", "1.5") == "at point", "the run never came to this place"
    fal.clear_faults()
    wait_until(lambda: is_idle(fal), seconds=20, what="fal has run what it took")
    code, report = client.run("--reconcile-wait", "0")
    ledger = fal.ledger()
    assert_nothing_charged_twice(client, ledger)
    assert report["states"]["done"] + report["states"]["unknown"] == JOBS
    assert code == (3 if report["unknown"] else 0)
    unknown = Counter(canonical(job["input_json"]) for job in report["unknown"])
    assert not unknown & paid_by_input(ledger), "fal lists outputs: what it ran is home"
    assert_files_whole(client)
    if unknown:
        code, report = client.run("--resubmit-unknown", "--yes", "--reconcile-wait", "0")
    assert (code, report["states"]["done"]) == (0, JOBS)
    assert set(paid_by_input(fal.ledger()).values()) == {1}
