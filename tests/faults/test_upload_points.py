"""A run over files dies at every place on their way to fal, and the same command puts everything right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.faults.harness import Client
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PHOTOS = 3
STYLES = 2
JOBS = PHOTOS * STYLES
SOON = ("--reconcile-wait", "1.5")

MANIFEST = """\
version: 1
name: kills
endpoint: generic/edit
rows: {glob: "photos/*.png"}
matrix: {style: [oil, ink]}
input:
  prompt: "{{ style }}"
  image_url: {file: "{{ row.path }}"}
  image_size: {width: 16, height: 16}
output: {dir: out, name: "{{ row.stem }}-{{ style }}"}
limits: {submits_per_s: 200, polls_per_s: 300}
retry: {first_s: 0.05, cap_s: 0.4, budget: 1}
"""

POINTS = (
    "upload.answered",
    "before.UploadStored",
    "after.UploadStored",
    "submit.leaving",
    "submit.answered",
)

REFUSED = {"on": "upload", "do": "status:400", "nth": 2, "times": 1}
"""The first file is not taken: the first call of all is for a token."""


@pytest.fixture
def fal(tmp_path: Path) -> Iterator[SandboxProcess]:
    with SandboxProcess("--seed", "11", "--speed", "0", "--data", str(tmp_path / "fal")) as process:
        yield process


def with_photos(folder: Path, fal: SandboxProcess) -> Client:
    (folder / "photos").mkdir()
    for number in range(PHOTOS):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / "photos" / f"p{number}.png")
    (folder / "kills.yaml").write_text(MANIFEST, encoding="utf-8")
    return Client(folder, fal)


def photo_and_style(fal: SandboxProcess) -> list[tuple[str, str]]:
    """What fal has run, by the content of the photo: its URL may be another after a kill."""
    content = {one["url"]: one["sha256"] for one in fal.uploads()["files"]}
    inputs: list[dict[str, Any]] = [one["input"] for one in fal.ledger()["executions"]]
    return sorted((content[given["image_url"]], given["prompt"]) for given in inputs)


def judge(client: Client, fal: SandboxProcess) -> None:
    """Each job ran once, no file was uploaded more often than the one kill explains; and the rest is home."""
    code, report = client.run(*SOON)
    if report["unknown"]:  # the POST did not leave, or nobody knows
        code, report = client.run("--resubmit-unknown", "--yes", "--reconcile-wait", "0")
    if report["states"]["failed"]:
        assert {group["error_type"] for group in report["failures"]} == {"upload_failed"}
        code, report = client.finish("retry", "kills.yaml", "--json")
    assert (code, report["states"]["done"]) == (0, JOBS)
    ran = photo_and_style(fal)
    assert len(ran) == len(set(ran)) == JOBS
    assert PHOTOS <= fal.uploads()["count"] <= 2 * PHOTOS


@pytest.mark.parametrize("point", POINTS)
def test_a_run_that_dies_on_the_way_of_a_file_is_gone_on_with(point: str, tmp_path: Path, fal: SandboxProcess) -> None:
    client = with_photos(tmp_path, fal)
    assert client.killed(60, point, *SOON) == "at point", "the run never came to this place"
    judge(client, fal)


@pytest.mark.parametrize("point", ["before.InputFailed", "after.InputFailed"])
def test_a_run_that_dies_at_a_file_that_is_not_taken_is_gone_on_with(
    point: str, tmp_path: Path, fal: SandboxProcess
) -> None:
    client = with_photos(tmp_path, fal)
    fal.add_faults([REFUSED])
    assert client.killed(60, point, *SOON) == "at point", "the run never came to this place"
    fal.clear_faults()
    judge(client, fal)
