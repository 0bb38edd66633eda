"""A batch under fire: the client as a process that is killed at will, fal as a sandbox that remembers everything."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sandbox_process import SandboxProcess

RUN_S = 60.0
"""Longest time for one run of the client, however loaded the machine is."""

MANIFEST = """\
version: 1
name: kills
endpoint: fal-ai/flux/schnell
rows: {{range: [0, {jobs}]}}
input:
  prompt: "picture {{{{ row.value }}}}"
  image_size: {{width: 64, height: 48}}
  output_format: png
  seed: "{{{{ row.value }}}}"
output: {{dir: out, name: "n{{{{ row.value }}}}"}}
limits: {{submits_per_s: 200, polls_per_s: 300}}
retry: {{first_s: 0.05, cap_s: 0.4}}
"""


@dataclass
class Client:
    """`falbatch run` on one manifest against one sandbox."""

    folder: Path
    sandbox: SandboxProcess

    @classmethod
    def with_jobs(cls, folder: Path, sandbox: SandboxProcess, jobs: int) -> Client:
        """A client whose manifest makes `jobs` different jobs."""
        (folder / "kills.yaml").write_text(MANIFEST.format(jobs=jobs), encoding="utf-8")
        return cls(folder, sandbox)

    @property
    def state(self) -> Path:
        """The state file."""
        return self.folder / "out" / "falbatch.db"

    def command(self, *words: str) -> list[str]:
        """The command line of `falbatch`, run by this Python."""
        return [sys.executable, "-m", "falbatch", *words]

    def environment(self) -> dict[str, str]:
        """An environment that points at the sandbox and holds a key for it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FAL")}
        return {**kept, "FALBATCH_ORIGIN": self.sandbox.origin, "FAL_KEY": "kills:secret-of-kills"}

    def start(self, *flags: str) -> subprocess.Popen[str]:
        """Start a run; the caller ends it or waits for it."""
        return subprocess.Popen(
            self.command("run", "kills.yaml", "--json", *flags),
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *flags: str) -> tuple[int, dict[str, Any]]:
        """A run to its end: exit code and report."""
        with self.start(*flags) as process:
            output, errors = process.communicate(timeout=RUN_S)
        lines = [json.loads(line) for line in output.splitlines()]
        reports = [line for line in lines if line["event"] == "report"]
        assert len(reports) == 1, f"no report; stderr: {errors}"
        return process.returncode, reports[0]

    def kill_after(self, seconds: float, *flags: str) -> bool:
        """Start a run and SIGKILL it after `seconds`. False when it ended by itself before that."""
        with self.start(*flags) as process:
            try:
                process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                return True
        return False

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the state file."""
        with closing(sqlite3.connect(self.state)) as connection:
            return connection.execute(sql).fetchall()


def assert_nothing_charged_twice(client: Client, ledger: dict[str, Any]) -> None:
    """No input was executed twice, and nothing was executed that the state does not know of.

    An execution that the state knows only as an intent without an answer is the one allowed gap: its job is unknown.
    """
    executions = ledger["executions"]
    by_input = Counter(json.dumps(execution["input"], sort_keys=True) for execution in executions)
    assert [text for text, count in by_input.items() if count > 1] == []
    known = {request_id for (request_id,) in client.query("SELECT request_id FROM requests")}
    unknown_inputs = {
        json.dumps(json.loads(given), sort_keys=True)
        for (given,) in client.query("SELECT input FROM jobs WHERE state = 'unknown'")
    }
    strangers = [
        execution
        for execution in executions
        if execution["request_id"] not in known and json.dumps(execution["input"], sort_keys=True) not in unknown_inputs
    ]
    assert strangers == []


def assert_files_whole(client: Client) -> None:
    """Every artifact on record is on disk with its hash and decodes; nothing half lies about."""
    rows = client.query(
        "SELECT path, sha256, stored FROM artifacts a JOIN jobs j ON j.id = a.job_id WHERE state = 'done'"
    )
    done = client.query("SELECT count(*) FROM jobs WHERE state = 'done'")[0][0]
    assert len(rows) == done
    for path, digest, stored in rows:
        place = client.folder / "out" / path
        assert stored == 1
        assert hashlib.sha256(place.read_bytes()).digest() == digest
        with Image.open(place) as picture:
            picture.load()
            assert picture.size == (64, 48)
    assert [str(place) for place in (client.folder / "out").rglob("*.part*")] == []


def wait_until(condition: Any, *, seconds: float, what: str) -> None:
    """Poll `condition` until it holds; fail the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
