"""Every example and every manifest in jobs/ does what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from falbatch.api.options import RunOptions
from falbatch.api.running import arun
from falbatch.api.workspace import open_manifest
from tests.contracts.judge import where
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PROGRAMS = sorted(path.name for path in (ROOT / "examples").glob("*.py") if path.name != "moved_over.py")
CALLS = {
    "cancel.py": "asked to cancel 12",
    "credentials.py": "refused: the key",
    "headers.py": "Completed|InProgress|Queued",
    "lifecycle.py": "gone in an hour: http",
    "logs.py": "Completed step 4/4",
    "realtime.py": r"seed 2 - \d+ bytes",
    "result.py": "failed with 422",
    "run.py": "512 pixels wide",
    "status.py": "from the stream: Completed",
    "stream.py": "all of it: ",
    "submit.py": "its result: image/jpeg",
    "subscribe.py": r"accepted as .*\n(.*\n)*Completed",
    "upload.py": "edited http",
    "webhook.py": "OK for request",
}
"""What the examples of single calls say: one for each thing that fal's own clients do."""
SAYS = {
    "run_manifest.py": "6 of 6 pictures",
    "run_async.py": "exit code 0",
    "plan_manifest.py": "6 jobs: {'submit': 6}",
    "map_inputs.py": "a blue kite done",
}


def without_fal() -> dict[str, str]:
    """The environment without any setting of fal's: examples must need none."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FAL")}


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_example_runs_as_it_is(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "examples"
    shutil.copytree(ROOT / "examples", folder)
    said = [run_example(name, tmp_path) for _ in range(2)]
    assert all(SAYS[name] in text for text in said), "the second run finds everything done, and says the same"


def run_example(name: str, folder: Path) -> str:
    """What the example prints, run from `folder`."""
    done = subprocess.run(
        [sys.executable, f"examples/{name}"],
        cwd=folder,
        env=without_fal(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("jobs/*.yaml"), *ROOT.glob("examples/*.yaml")]), ids=lambda path: path.name
)
def test_a_shipped_manifest_is_valid(path: Path) -> None:
    manifest = open_manifest(path).manifest
    assert manifest is not None
    assert manifest.endpoint


@pytest.mark.parametrize(("mode", "files"), [("run", 3), ("stream", 6), ("realtime", 8)])
def test_an_example_of_each_mode_runs_as_it_is(mode: str, files: int, tmp_path: Path) -> None:
    folder = tmp_path / "examples"
    shutil.copytree(ROOT / "examples", folder)
    options = RunOptions(sandbox=True, sandbox_arguments=("--speed", "0"))
    report = anyio.run(lambda: arun(folder / f"modes_{mode}.yaml", options))
    assert (int(report.exit_code), report.status.mode, report.status.files) == (0, mode, files)


def test_the_example_with_files_runs_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "examples"
    shutil.copytree(ROOT / "examples", folder)
    options = RunOptions(sandbox=True, sandbox_arguments=("--speed", "0"))
    report = anyio.run(lambda: arun(folder / "edit_images.yaml", options))
    assert (int(report.exit_code), report.tally.uploads, report.status.files) == (0, 3, 6)


@pytest.fixture(scope="module")
def fal() -> Iterator[SandboxProcess]:
    with SandboxProcess("--seed", "3", "--speed", "10", "--concurrency", "4") as sandbox:
        yield sandbox


def test_every_call_has_its_example() -> None:
    assert {path.name for path in (ROOT / "examples" / "client").glob("*.py")} == CALLS.keys()


@pytest.mark.parametrize("name", sorted(CALLS))
def test_an_example_of_a_call_runs(name: str, fal: SandboxProcess, tmp_path: Path) -> None:
    assert re.search(CALLS[name], said_by(ROOT / "examples" / "client" / name, fal, tmp_path))


def said_by(script: Path, fal: SandboxProcess, folder: Path) -> str:
    """What a script prints that is pointed at a sandbox by the environment."""
    settings = {"FALBATCH_ORIGIN": fal.origin, "FAL_KEY": "me:secret"}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env=without_fal() | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_script_moves_over_by_its_import_line(tmp_path: Path) -> None:
    """The script as it was for fal's own client, over TLS by that client's variables; and as it is now."""
    ours = (ROOT / "examples" / "moved_over.py").read_text(encoding="utf-8")
    line = "import falbatch.client as fal_client  # it was: import fal_client"
    assert line in ours
    said = []
    for name, text in (("before.py", ours.replace(line, WITHOUT_OURS)), ("after.py", ours)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        shutil.copy(ROOT / "examples" / "kites.yaml", tmp_path)
        tls = tmp_path / f"tls-{name}"
        with SandboxProcess("--seed", "3", "--speed", "20", "--tls", str(tls)) as sandbox:
            environment = without_fal() | where(sandbox.origin, tls / "ca.pem") | {"FAL_KEY": "me:secret"}
            done = subprocess.run(
                [sys.executable, name],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said[0] == said[1]
    assert said[0].splitlines()[-1] == "refused with 422"


WITHOUT_OURS = """import os

import fal_client
import fal_client.client

fal_client.client.REST_URL = os.environ["FALBATCH_ORIGIN"] + "/rest"
fal_client.client.CDN_URL = os.environ["FALBATCH_ORIGIN"] + "/cdn"
"""
"""The official import, and the two hosts that it takes from nowhere else."""
