"""A batch with flagged results that dies where it hurts: the same command rolls on with the seeds that it would have
had, pays for none of them twice, and forgets no verdict."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from falbatch.core.model import JobKey
from falbatch.core.seeds import seed_of
from falbatch.faultpoints import VARIABLE
from tests.faults.harness import Client, canonical, wait_until
from tests.faults.rounds import is_idle
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHEN = ("before", "after")
SOON = ("--reconcile-wait", "1.5")
FLAGGED = 0
"""The seed whose picture fal's checker does not like."""

BEFORE = [
    f"{when}.{name}{number}"
    for when in ("before", "after")
    for name, number in (
        ("ResultFlagged", ""),
        ("Rerolled", ""),
        ("FileReady", ""),  # of the picture that is not taken
        ("SubmitStarted", "#2"),  # of the re-roll
        ("SubmitAccepted", "#2"),
        ("ResultStored", "#2"),
        ("FilesStored", ""),
    )
]
CALLS = [
    "submit.leaving#2",
    "submit.answered#2",
    "result.answered",
    "file.renaming",
    "file.renamed",
    "download.whole#2",
]
DIRECT = ["submit.leaving#2", "submit.answered#2", "before.Rerolled", "after.Rerolled", "after.SubmitStarted#2"]


@pytest.fixture(scope="module")
def fal() -> Iterator[SandboxProcess]:
    with SandboxProcess("--seed", "11", "--speed", "8", "--concurrency", "4") as process:
        yield process


def client_of(folder: Path, fal: SandboxProcess, policy: str, *, mode: str = "queue", jobs: int = 1) -> Client:
    """A batch whose first picture is black: fal says so, or not."""
    fal.reset()
    client = Client.with_jobs(folder, fal, jobs, mode=mode)
    manifest = folder / "kills.yaml"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace("output: {dir: out,", f"output: {{dir: out, flagged: {policy},"), encoding="utf-8")
    return client


def rule(do: str, mode: str = "queue") -> dict[str, Any]:
    return {"on": "submit" if mode == "queue" else mode, "do": do, "seeds": [FLAGGED]}


def export(client: Client) -> list[dict[str, Any]]:
    with client.start_words("export", "kills.yaml", "--state", "done", "--state", "failed") as process:
        out, _ = process.communicate(timeout=60)
    return [json.loads(line) for line in out.splitlines()]


def finish(client: Client, fal: SandboxProcess) -> dict[str, Any]:
    """The same command to the end, with what is unknown as confirmed; fal has run nothing twice."""
    if client.mode != "queue":
        wait_until(lambda: is_idle(fal), seconds=20, what="fal has run what it took")
    code, report = client.run(*SOON)
    assert max(Counter(canonical(one["input"]) for one in fal.ledger()["executions"]).values()) == 1
    if report["unknown"]:
        code, report = client.run("--resubmit-unknown", "--yes", "--reconcile-wait", "0")
    assert code == (3 if report["states"]["failed"] else 0)
    return report


def judge(client: Client, fal: SandboxProcess, *, rolls: int = 1) -> None:
    """What fal has run is what the lineage tells, each seed once; the picture that is not taken is kept."""
    (job, *_) = export(client)
    key = JobKey(bytes.fromhex(job["key"]))
    executions = {one["request_id"]: one["input"]["seed"] for one in fal.ledger()["executions"]}
    expected = [FLAGGED, *(seed_of(key, roll) for roll in range(1, rolls + 1))]
    assert sorted(executions.values()) == sorted(expected)
    assert {request_id for (request_id,) in client.query("SELECT request_id FROM requests")} == set(executions)
    assert [one["seed"] for one in job["lineage"]] == expected
    assert [one["request_id"] for one in job["lineage"]] == sorted(
        executions, key=lambda one: expected.index(executions[one])
    )
    assert [one["flags"] != [] for one in job["lineage"]] == [True] * rolls + [False]
    *rejected, taken = job["lineage"]
    assert taken["files"] == ["n0.png"]
    kept = [path for one in rejected for path in one["files"]]
    assert len(kept) == rolls
    whole = {file["path"]: file["sha256"] for file in job["files"]}
    assert set(whole) == {"n0.png"}
    on_disk = {place.name for place in client.state.parent.glob("*.png")}
    assert on_disk == {*kept, *whole}
    for path, digest in whole.items():
        assert hashlib.sha256((client.state.parent / path).read_bytes()).hexdigest() == digest
    assert not list(client.state.parent.glob(".*.part*"))


@pytest.mark.parametrize("do", ["nsfw", "black"])
@pytest.mark.parametrize("point", BEFORE + CALLS)
def test_a_reroll_that_dies_there_is_gone_on_with(point: str, do: str, tmp_path: Path, fal: SandboxProcess) -> None:
    client = client_of(tmp_path, fal, "reroll")
    fal.add_faults([rule(do)])
    assert client.killed(60, point, *SOON) == "at point", "the run never came to this place"
    report = finish(client, fal)
    assert (report["states"]["done"], report["executions"]) == (1, 2)
    judge(client, fal)


@pytest.mark.parametrize("mode", ["run", "stream", "realtime"])
@pytest.mark.parametrize("point", DIRECT)
def test_a_direct_reroll_that_dies_there_is_gone_on_with(
    mode: str, point: str, tmp_path: Path, fal: SandboxProcess
) -> None:
    client = client_of(tmp_path, fal, "reroll", mode=mode)
    fal.add_faults([rule("nsfw", mode)])
    assert client.killed(60, point, *SOON) == "at point", "the run never came to this place"
    report = finish(client, fal)
    assert (report["states"]["done"], report["executions"]) == (1, 2)
    executions = sorted(one["input"]["seed"] for one in fal.ledger()["executions"])
    (job,) = export(client)
    assert executions == sorted([FLAGGED, seed_of(JobKey(bytes.fromhex(job["key"])), 1)])


@pytest.mark.parametrize(
    ("point", "do"),
    [
        *product(("before.ResultRefused", "after.ResultRefused"), ("nsfw", "error_in_result", "empty")),
        ("before.ResultFlagged", "nsfw"),
    ],
)
def test_a_verdict_is_not_forgotten(point: str, do: str, tmp_path: Path, fal: SandboxProcess) -> None:
    client = client_of(tmp_path, fal, "fail")
    fal.add_faults([rule(do)])
    assert client.killed(60, point, *SOON) == "at point", "the run never came to this place"
    report = finish(client, fal)
    error_type = {"nsfw": "flagged", "empty": "empty_result"}.get(do, do)
    assert [group["error_type"] for group in report["failures"]] == [error_type]
    assert fal.ledger()["count"] == report["executions"] == 1
    (job,) = export(client)
    (file,) = job["files"]
    assert "-rejected-1" in file["path"]
    assert (client.state.parent / file["path"]).is_file()


MAP = """
import sys, anyio, falbatch

async def main():
    given = {"prompt": "a kite", "image_size": {"width": 16, "height": 16}, "seed": 0}
    limits = falbatch.Limits(flagged=sys.argv[1])
    async for one in falbatch.map("fal-ai/flux/schnell", [given], state="map.db", limits=limits):
        print(one.state, one.error_type, one.flags, sep="|")

anyio.run(main)
"""


@pytest.mark.parametrize(
    ("policy", "point", "do", "expected"),
    [
        *(("mark", f"{when}.ResultRefused", "error_in_result", "failed|error_in_result|()") for when in WHEN),
        *(("mark", f"{when}.ResultFlagged", "nsfw", "completed|None|('nsfw',)") for when in WHEN),
        *(("reroll", f"{when}.Rerolled", "nsfw", "completed|None|()") for when in WHEN),
        *(("mark", f"{when}.ResultTaken", "", "completed|None|()") for when in WHEN),
    ],
)
def test_a_result_without_files_is_judged_once_whenever_the_program_died(
    policy: str, point: str, do: str, expected: str, tmp_path: Path, fal: SandboxProcess
) -> None:
    fal.reset()
    environment = {**os.environ, "FALBATCH_ORIGIN": fal.origin, "FAL_KEY": "kills:secret"}

    def run(policy: str, point: str = "") -> str:
        more = {VARIABLE: point} if point else {}
        command = [sys.executable, "-c", MAP, policy]
        ran = subprocess.run(
            command, cwd=tmp_path, env=environment | more, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == (-signal.SIGKILL if point else 0), ran.stderr
        return ran.stdout.strip()

    if do:
        fal.add_faults([rule(do)])
    run(policy, point)
    assert run(policy) == expected
    count = fal.ledger()["count"]
    assert count == (2 if policy == "reroll" else 1)
    assert run("fail") == expected, "it has been judged"
    assert fal.ledger()["count"] == count


@pytest.mark.parametrize("point", ["before.ResultFlagged", "after.ResultFlagged"])
def test_a_mark_is_not_forgotten(point: str, tmp_path: Path, fal: SandboxProcess) -> None:
    """A picture that turned out black is known to be, also to the run that finds it on disk."""
    client = client_of(tmp_path, fal, "mark", jobs=3)
    fal.add_faults([rule("black")])
    assert client.killed(60, point, *SOON) == "at point", "the run never came to this place"
    report = finish(client, fal)
    assert report["flagged"] == [{"flags": ["black"], "count": 1, "jobs": ["n0"]}]
    assert (report["states"]["done"], fal.ledger()["count"]) == (3, 3)


def change_policy(client: Client, before: str, after: str) -> None:
    manifest = client.state.parent.parent / "kills.yaml"
    text = manifest.read_text(encoding="utf-8")
    assert f"flagged: {before}" in text
    manifest.write_text(text.replace(f"flagged: {before}", f"flagged: {after}"), encoding="utf-8")


FILES = [f"file.{when}#{number}" for number in (1, 2) for when in ("renaming", "renamed")]
RENAMES = ["", "before.FileReady", "after.FileReady", *FILES]


@pytest.mark.parametrize("point", RENAMES)
def test_a_file_of_a_result_that_is_not_taken_gives_up_its_name(
    point: str, tmp_path: Path, fal: SandboxProcess
) -> None:
    """It had got it while the manifest would have taken the result, which now rolls again."""
    client = client_of(tmp_path, fal, "mark")
    fal.add_faults([rule("black")])
    assert client.killed(60, "before.FilesStored", *SOON) == "at point"
    change_policy(client, "mark", "reroll")
    if point:
        assert client.killed(60, point, *SOON) == "at point", "the run never came to this place"
    report = finish(client, fal)
    assert (report["states"]["done"], report["executions"]) == (1, 2)
    judge(client, fal)


@pytest.mark.parametrize("point", ["", "plan.adopted", *RENAMES[1:], "after.FilesStored"])
def test_a_reroll_that_has_not_left_gives_way_to_what_is_there(point: str, tmp_path: Path, fal: SandboxProcess) -> None:
    client = client_of(tmp_path, fal, "reroll")
    fal.add_faults([rule("nsfw")])
    assert client.killed(60, "after.Rerolled", *SOON) == "at point"
    change_policy(client, "reroll", "mark")
    fal.add_faults([{"on": "file", "do": "status:500"}])
    if point:
        assert client.killed(60, point, *SOON) == "at point", "the run never came to this place"
    report = finish(client, fal)
    assert (report["states"]["done"], fal.ledger()["count"]) == (1, 1)
    assert [group["jobs"] for group in report["flagged"]] == [["n0"]]
    assert [place.name for place in client.state.parent.glob("*.png")] == ["n0.png"]
    assert not list(client.state.parent.glob(".*.part*"))


@pytest.mark.parametrize("point", ["after.SubmitStarted#2", "submit.answered#2", "after.SubmitAccepted#2"])
def test_a_reroll_is_known_though_the_state_file_is_lost(point: str, tmp_path: Path, fal: SandboxProcess) -> None:
    """The journal has its number and its seed: it is found at fal, and the next one would be another."""
    client = client_of(tmp_path, fal, "reroll")
    fal.add_faults([rule("nsfw")])
    assert client.killed(60, point, *SOON) == "at point"
    for name in ("falbatch.db", "falbatch.db-wal", "falbatch.db-shm"):
        (client.state.parent / name).unlink(missing_ok=True)
    report = finish(client, fal)
    assert report["states"]["done"] == 1
    assert client.query("SELECT roll FROM jobs") == [(1,)]
    key = JobKey(client.query("SELECT key FROM jobs")[0][0])
    assert sorted(one["input"]["seed"] for one in fal.ledger()["executions"]) == sorted([FLAGGED, seed_of(key, 1)])
    assert (seed_of(key, 1),) in client.query("SELECT seed FROM attempts")
