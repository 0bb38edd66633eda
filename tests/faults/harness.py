"""A batch under fire: the client as a process that is killed at will, fal as a sandbox that remembers everything.

What must hold afterwards is judged from the sandbox's ledger, the state file and the files on disk, never from what the
client says of itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image

from falbatch.faultpoints import VARIABLE
from tests.warm import Program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.sandbox_process import SandboxProcess

RUN_S = 100.0
"""Longest time for one run of the client, however loaded the machine is."""

MANIFEST = """\
version: 1
name: kills
endpoint: fal-ai/flux/schnell
mode: {mode}
rows: {{range: [0, {jobs}]}}
repeat: {repeat}
input:
  prompt: "picture {{{{ row.value }}}}"
  image_size: {{width: 64, height: 48}}
  output_format: png
  seed: "{{{{ row.value }}}}"
output: {{dir: out, name: "n{{{{ row.value }}}}"}}
limits: {{submits_per_s: 200{more}}}
retry: {{first_s: 0.05, cap_s: 0.4, budget: 1}}
"""


@dataclass
class Client:
    """`falbatch run` on one manifest against one sandbox."""

    folder: Path
    sandbox: SandboxProcess
    repeat: int = 1
    mode: str = "queue"
    told: list[str] = field(default_factory=list)
    """What every run said on stderr."""

    @classmethod
    def with_jobs(
        cls, folder: Path, sandbox: SandboxProcess, jobs: int, *, repeat: int = 1, mode: str = "queue"
    ) -> Client:
        """A client whose manifest makes `jobs` different jobs, `repeat` times each."""
        more = ", polls_per_s: 300" if mode == "queue" else ""
        text = MANIFEST.format(jobs=jobs, repeat=repeat, mode=mode, more=more)
        (folder / "kills.yaml").write_text(text, encoding="utf-8")
        return cls(folder, sandbox, repeat, mode)

    @property
    def state(self) -> Path:
        """The state file."""
        return self.folder / "out" / "falbatch.db"

    def environment(self) -> dict[str, str]:
        """An environment that points at the sandbox and holds a key for it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FAL")}
        return {**kept, "FALBATCH_ORIGIN": self.sandbox.origin, "FAL_KEY": "kills:secret-of-kills"}

    def start(self, *flags: str, point: str = "") -> Program:
        """Start a run; the caller ends it or waits for it. With `point` it kills itself there."""
        return self.start_words("run", "kills.yaml", "--json", *flags, point=point)

    def start_words(self, *words: str, point: str = "") -> Program:
        """Start any command."""
        return Program(*words, cwd=self.folder, env=self.environment() | ({VARIABLE: point} if point else {}))

    def run(self, *flags: str) -> tuple[int, dict[str, Any]]:
        """A run to its end: exit code and report."""
        return self.finish("run", "kills.yaml", "--json", *flags)

    def finish(self, *words: str) -> tuple[int, dict[str, Any]]:
        """A command that ends with a report, to its end: exit code and report."""
        with self.start_words(*words) as process:
            output, errors = process.communicate(timeout=RUN_S)
        self.told.append(errors)
        lines = [json.loads(line) for line in output.splitlines()]
        reports = [line for line in lines if line["event"] == "report"]
        assert len(reports) == 1, f"no report; stderr: {errors}"
        return process.wait(), reports[0]

    def kill_after(self, seconds: float, *flags: str) -> bool:
        """Start a run and SIGKILL it after `seconds`. False when it ended by itself before that."""
        return self.killed(seconds, "", *flags) != "not"

    def killed(self, seconds: float, point: str, *flags: str) -> str:
        """Start a run that dies at `point`, if it comes there, or is killed after `seconds`. Returns how it died: "at
        point", "by us", or "not": then it must have ended as documented.
        """
        by_us = False
        with self.start(*flags, point=point) as process:
            try:
                _, errors = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                by_us = True
                _, errors = process.communicate()
        self.told.append(errors)
        assert process.returncode in {0, 3, 5, -signal.SIGKILL}, f"exit {process.returncode}: {errors}"
        assert "Traceback" not in errors, errors
        if process.returncode != -signal.SIGKILL:
            return "not"
        return "by us" if by_us else "at point"

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the state file."""
        with closing(sqlite3.connect(self.state)) as connection:
            return connection.execute(sql).fetchall()


def canonical(value: Any) -> str:
    """An input as text by which inputs can be compared."""
    return json.dumps(json.loads(value) if isinstance(value, str | bytes) else value, sort_keys=True)


def paid_by_input(ledger: dict[str, Any]) -> Counter[str]:
    """Executions that cost something or still run, by input. Failures of fal's own servers are free."""
    return Counter(canonical(execution["input"]) for execution in ledger["executions"] if _is_paid(execution))


def _is_paid(execution: dict[str, Any]) -> bool:
    return execution["status_code"] in {None, 200} or bool(execution["cost"] > 0)


def assert_nothing_charged_twice(
    client: Client, ledger: dict[str, Any], *, confirmed: Counter[str] | None = None
) -> None:
    """No input was paid for more often than it is in the manifest, or than the user confirmed beyond that; and nothing
    was executed that the state does not know of.

    An execution that the state knows only as an intent without an answer is the one allowed gap: its job is unknown.
    """
    allowed = confirmed or Counter()
    paid = paid_by_input(ledger)
    assert {text: count for text, count in paid.items() if count > client.repeat + allowed[text]} == {}
    known = {request_id for (request_id,) in client.query("SELECT request_id FROM requests")}
    unknown_inputs = {canonical(given) for (given,) in client.query("SELECT input FROM jobs WHERE state = 'unknown'")}
    strangers = [
        execution
        for execution in ledger["executions"]
        if execution["request_id"] not in known
        and canonical(execution["input"]) not in unknown_inputs
        and (client.mode != "realtime" or _is_paid(execution))  # an error on such a connection names no request
    ]
    assert [one for one in strangers if not allowed[canonical(one["input"])]] == []


def assert_files_whole(client: Client) -> None:
    """Every artifact on record is on disk with its hash and decodes; nothing half lies about."""
    rows = client.query(
        "SELECT path, sha256, stored FROM artifacts a JOIN jobs j ON j.id = a.job_id WHERE state = 'done'"
        " AND path NOT LIKE '%.events.jsonl'"
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
    on_disk = {place.relative_to(client.folder / "out").as_posix() for place in (client.folder / "out").rglob("*.png")}
    assert on_disk == {path for path, _, _ in rows}, "a file that no job knows, or a job without its file"
    assert [str(place) for place in (client.folder / "out").rglob("*.part*")] == []


def pictures(client: Client) -> dict[str, str]:
    """Name and hash of every picture on disk."""
    return {place.name: hashlib.sha256(place.read_bytes()).hexdigest() for place in client.state.parent.rglob("*.png")}


def wait_until(condition: Callable[[], object], *, seconds: float, what: str) -> None:
    """Poll `condition` until it holds; fail the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
