"""The program dies once at every place that is named in the code, and the same command puts everything right."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import falbatch
from falbatch.core.changes import Change
from falbatch.faultpoints import POINTS, STORE_WRITES, VARIABLE
from tests.faults.harness import (
    Client,
    assert_files_whole,
    assert_nothing_charged_twice,
    canonical,
    paid_by_input,
    pictures,
    wait_until,
)
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

JOBS = 6
SOON = ("--reconcile-wait", "1.5")

# Those of mending need a damaged file: tests/cli/test_damage.py.
# Those of files in inputs need some: test_upload_points.py; those of flagged results, and of results
# without files: test_flagged_points.py; that of a
# page needs a canary: test_canary_kills.py.
ELSEWHERE = (".UploadStored", ".InputFailed", ".ResultFlagged", ".ResultTaken", ".ResultRefused", ".Rerolled")
CLIENT_POINTS = [
    point
    for point in POINTS
    if not point.startswith(("sandbox.", "mend.", "upload.", "page.")) and not point.endswith(ELSEWHERE)
]
# A batch makes no direct calls: tests/sandbox/test_fault_points.py.
SANDBOX_POINTS = [point for point in POINTS if point.startswith("sandbox.") and point != "sandbox.answering"]


@dataclass(frozen=True)
class Ground:
    """What has to go wrong for a run to come to a point."""

    faults: tuple[dict[str, Any], ...] = ()
    flags: tuple[str, ...] = SOON


LOST = {"on": "submit", "do": "drop_after", "nth": 2}
# A small file is written when it is whole: a part of it comes to the disk when its connection breaks.
CUT = Ground(({"on": "file", "do": "truncate"},))
GROUNDS = {
    "download.begun": CUT,
    "download.half": CUT,
    "SubmitNotAccepted": Ground(({"on": "submit", "do": "status:429", "nth": 2},)),
    "RequestFound": Ground((LOST,)),
    "reconcile.listed": Ground((LOST,)),
    "RequestEnded": Ground(({"on": "submit", "do": "fail:runner_disconnected", "nth": 2},)),
    "FilesGone": Ground(({"on": "file", "do": "status:404"},)),
    "FileSkipped": Ground(({"on": "result", "do": "link:http://10.0.0.1/licence"},)),
    "Stuck": Ground(({"on": "status", "do": "status:401", "nth": 3},)),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pictures of a batch that nothing happened to."""
    with SandboxProcess("--seed", "1", "--speed", "0") as fal:
        client = Client.with_jobs(tmp_path_factory.mktemp("undisturbed"), fal, JOBS)
        code, _ = client.run()
    assert code == 0
    return pictures(client)


@pytest.fixture
def fal(tmp_path: Path) -> Iterator[SandboxProcess]:
    with SandboxProcess("--seed", "11", "--speed", "8", "--data", str(tmp_path / "fal")) as process:
        yield process


def finish(client: Client, fal: SandboxProcess, undisturbed: dict[str, str]) -> None:
    """The same command to the end, what is unknown as confirmed, and judgement."""
    code, report = client.run(*SOON)
    if report["states"]["failed"]:
        # Only dead links: the work was paid for, so the links are asked again and nothing is submitted.
        assert {group["error_type"] for group in report["failures"]} == {"file_gone"}
        with client.start_words("retry", "kills.yaml", "--missing-files", "--json") as process:
            process.communicate(timeout=60)
        code, report = client.run(*SOON)
    ledger = fal.ledger()
    assert report["states"]["done"] + report["states"]["unknown"] == JOBS
    assert code == (3 if report["unknown"] else 0)
    assert_nothing_charged_twice(client, ledger)
    unknown = {canonical(job["input_json"]) for job in report["unknown"]}
    assert unknown & set(paid_by_input(ledger)) == set(), "what fal ran was found, so what is unknown did not run"
    if unknown:
        code, report = client.run("--resubmit-unknown", "--yes", "--reconcile-wait", "0")
    assert (code, report["states"]["done"], report["files"]) == (0, JOBS, JOBS)
    assert set(paid_by_input(fal.ledger()).values()) == {1}
    assert_files_whole(client)
    # By content: a link beside the picture makes it one of two in its result, and that is in its name.
    assert sorted(pictures(client).values()) == sorted(undisturbed.values())


@pytest.mark.parametrize("point", CLIENT_POINTS)
def test_a_run_that_dies_there_is_gone_on_with(
    point: str, tmp_path: Path, fal: SandboxProcess, undisturbed: dict[str, str]
) -> None:
    ground = GROUNDS.get(point) or GROUNDS.get(point.partition(".")[2]) or Ground()
    fal.add_faults(ground.faults)
    client = Client.with_jobs(tmp_path, fal, JOBS)
    assert client.killed(60, point, *ground.flags) == "at point", "the run never came to this place"
    fal.clear_faults()
    finish(client, fal, undisturbed)


@pytest.mark.parametrize("point", SANDBOX_POINTS)
def test_a_fal_that_dies_there_and_comes_back_costs_nothing(
    point: str, tmp_path: Path, fal: SandboxProcess, undisturbed: dict[str, str]
) -> None:
    client = Client.with_jobs(tmp_path, fal, JOBS)
    fal.stop()
    fal.environment[VARIABLE] = f"{point}#3"
    fal.start()
    with client.start(*SOON) as process:
        wait_until(fal.has_ended, seconds=30, what="fal dies")
        assert fal.stop() == -signal.SIGKILL
        del fal.environment[VARIABLE]
        fal.start()
        process.communicate(timeout=60)
    assert process.returncode in {0, 3}
    finish(client, fal, undisturbed)


def test_every_change_has_its_points() -> None:
    assert set(STORE_WRITES) == {change.__name__ for change in Change.__args__}


def test_the_list_of_points_and_the_code_agree() -> None:
    root = Path(falbatch.__file__).parent
    sources = {path: path.read_text(encoding="utf-8") for path in root.rglob("*.py")}
    named = {name for text in sources.values() for name in re.findall(r'fault_point\("([a-z.]+)"\)', text)}
    commits = {f"{when}.{name}" for when in ("before", "after") for name in STORE_WRITES}
    assert named | commits == set(POINTS)
