"""A canary dies at every kind of place, and the same command goes on with the same jobs: never with more."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.harness import (
    Client,
    assert_files_whole,
    assert_nothing_charged_twice,
    paid_by_input,
)
from tests.pages import page_in
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JOBS = 8
TRIED = 3
SOON = ("--reconcile-wait", "1.5")


@pytest.fixture
def fal(tmp_path: Path) -> Iterator[SandboxProcess]:
    with SandboxProcess("--seed", "11", "--speed", "8", "--data", str(tmp_path / "fal")) as process:
        yield process


def tried(client: Client) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """The canary's command to its end: exit code, report and canary."""
    with client.start("--canary", str(TRIED), *SOON) as process:
        output, errors = process.communicate(timeout=60)
    lines = {line["event"]: line for line in map(json.loads, output.splitlines())}
    assert "canary" in lines, errors
    return process.wait(), lines["report"], lines["canary"]


@pytest.mark.parametrize(
    "point",
    [
        "plan.adopted",
        "before.SubmitStarted#2",
        "submit.leaving#2",
        "submit.answered#2",
        "after.SubmitAccepted",
        "result.answered#2",
        "after.ResultStored",
        "file.renamed#2",
        "after.FilesStored",
        "page.written",
    ],
)
def test_the_same_command_goes_on_with_the_same_jobs(point: str, tmp_path: Path, fal: SandboxProcess) -> None:
    client = Client.with_jobs(tmp_path, fal, JOBS)
    assert client.killed(60, point, "--canary", str(TRIED), *SOON) == "at point"
    chosen = client.query("SELECT job_id FROM canary")
    assert len(chosen) == TRIED

    code, report, canary = tried(client)
    assert client.query("SELECT job_id FROM canary") == chosen
    unknown = report["states"]["unknown"]
    assert (code, canary["jobs"], canary["done"]) == (3 if unknown else 0, TRIED, TRIED - unknown)
    assert report["states"]["planned"] == JOBS - TRIED
    assert set(paid_by_input(fal.ledger()).values()) == {1}
    assert len(paid_by_input(fal.ledger())) == TRIED - unknown
    assert len(page_in(tmp_path / canary["page"]).images) == TRIED - unknown
    assert list((tmp_path / "out").glob(".*")) == []

    code, report = client.run(*SOON)
    assert report["states"]["done"] == JOBS - unknown
    assert_nothing_charged_twice(client, fal.ledger())
    assert_files_whole(client)
    assert client.query("SELECT * FROM canary") == []


def test_random_kills_never_make_a_canary_larger(tmp_path: Path, fal: SandboxProcess) -> None:
    client = Client.with_jobs(tmp_path, fal, JOBS)
    for seconds in (0.35, 0.5, 0.6, 0.7, 0.8):
        client.kill_after(seconds, "--canary", str(TRIED), *SOON)
        assert len(fal.ledger()["executions"]) <= TRIED
    tried(client)
    assert len(fal.ledger()["executions"]) <= TRIED
    assert_nothing_charged_twice(client, fal.ledger())
