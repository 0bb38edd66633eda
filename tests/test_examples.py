"""Every example and every manifest in jobs/ does what it says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from falbatch.api.workspace import open_manifest

ROOT = Path(__file__).parents[1]
PROGRAMS = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
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
