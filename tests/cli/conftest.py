"""The program as a user meets it: a folder, a command, what it prints and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests import warm
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 60.0

MANIFEST = """\
version: 1
name: small
endpoint: fal-ai/flux/schnell
matrix: {seed: {range: [0, 4]}}
input: {prompt: "a kite", image_size: {width: 64, height: 64}, seed: "{{ seed }}"}
output: {dir: out, name: "kite-{{ seed }}"}
"""


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    def objects(self) -> list[dict[str, Any]]:
        """stdout as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Shell:
    """A user in a folder of their own, with fal (the sandbox) set up by the environment."""

    folder: Path
    sandbox: SandboxProcess

    def write(self, name: str, text: str | bytes) -> Path:
        """Put a file into the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def environment(self, **changes: str | None) -> dict[str, str]:
        """This process's environment without any fal setting, with the sandbox's, with `changes` (None removes)."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FAL")}
        settings: dict[str, str | None] = {
            "FALBATCH_ORIGIN": self.sandbox.origin,
            "FAL_KEY": "shell:secret-of-shell",
            "HOME": str(self.folder),
            **changes,
        }
        return kept | {name: value for name, value in settings.items() if value is not None}

    def falbatch(self, *words: str, stdin: str = "", **changes: str | None) -> Ran:
        """Run `falbatch …` in the folder."""
        env = self.environment(**changes)
        if any(name.startswith("PYTHON") for name in changes):  # Python reads these when it starts
            command = [sys.executable, "-m", "falbatch", *words]
            pipe = subprocess.PIPE
            done = subprocess.run(
                command, cwd=self.folder, env=env, stdout=pipe, stderr=pipe, text=True, timeout=SECONDS, check=False
            )
        else:
            done = warm.run(*words, cwd=self.folder, env=env, stdin=stdin, timeout=SECONDS)
        return Ran(done.returncode, done.stdout, done.stderr)

    def submits(self) -> int:
        """How many submits fal has seen."""
        counts: dict[str, int] = self.sandbox.stats()["requests"].get("submit", {})
        return sum(counts.values())


@pytest.fixture(scope="session")
def cli_sandbox() -> Iterator[SandboxProcess]:
    """One sandbox for all command-line tests: without service times."""
    with SandboxProcess("--seed", "5", "--speed", "0") as sandbox:
        yield sandbox


@pytest.fixture
def shell(tmp_path: Path, cli_sandbox: SandboxProcess) -> Shell:
    """An empty folder, and a fal that has seen nothing."""
    cli_sandbox.reset()
    return Shell(tmp_path, cli_sandbox)


SMALL_DISK = 8 * 1024 * 1024
"""Bytes of `small_disk`."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, small enough to fill."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def kites(flagged: str = "", *, jobs: int = 4, more: str = "", kind: str = "png") -> str:
    """A manifest of `jobs` jobs, two pictures each, with seeds from 0; `flagged` "" leaves the default."""
    policy = f", flagged: {flagged}" if flagged else ""
    return f"""\
version: 1
name: small
endpoint: fal-ai/flux/schnell
matrix: {{seed: {{range: [0, {jobs}]}}}}
input:
  prompt: "a kite"
  image_size: {{width: 64, height: 64}}
  num_images: 2
  output_format: {kind}
  seed: "{{{{ seed }}}}"
output: {{dir: out, name: "kite-{{{{ seed }}}}"{policy}}}
retry: {{first_s: 0.02, cap_s: 0.05}}
{more}
"""


def states(shell: Shell) -> dict[str, int]:
    """The batch's states as `status --json` shows them, those with jobs only; none before a run has begun."""
    if not (shell.folder / "out" / "falbatch.db").exists():
        return {}
    (status,) = shell.falbatch("status", "small.yaml", "--json").objects()
    return {state: count for state, count in status["states"].items() if count}


def started(shell: Shell, *words: str) -> subprocess.Popen[bytes]:
    """`falbatch …` in the background."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-m", "falbatch", *words], cwd=shell.folder, env=shell.environment(), stdout=pipe, stderr=pipe
    )
