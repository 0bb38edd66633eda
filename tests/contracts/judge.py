"""Runs a driver, in a process of its own, against a fresh sandbox over TLS, and tells what came of it.

Every driver meets a sandbox of the same seed and makes the same calls in the same order: request ids, timings and
outputs are then the same too, and answers can be compared field by field.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock

from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).parent.parent.parent
JS: Final = Path(__file__).parent / "js"
KEY: Final = "me:secret"
DRIVER_S: Final = 100.0
"""A driver takes ten seconds; a machine under load several times that."""

FLAGS: Final = ("--seed", "11", "--speed", "12", "--concurrency", "2", "--key", KEY)


def answers_of(command: list[str], folder: Path, more: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the driver `command` printed; `{ORIGIN}` in it is the sandbox. `folder` is for its files."""
    folder.mkdir()
    tls = folder / "tls"
    with SandboxProcess(*FLAGS, "--tls", str(tls)) as sandbox:
        ready = [word.replace("{ORIGIN}", sandbox.origin) for word in command]
        environment = {**bare_environment(), **where(sandbox.origin, tls / "ca.pem"), **(more or {})}
        done = subprocess.run(
            ready, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=DRIVER_S, check=False
        )
    assert done.returncode == 0, f"{' '.join(ready)}\n{done.stdout[-500:]}\n{done.stderr[-4000:]}"
    assert not sandbox.errors, sandbox.errors
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def python_answers(module: str, way: str, folder: Path) -> dict[str, Any]:
    """What the Python driver tells of `module` (`fal_client`, `falbatch.client`), `way` is `sync` or `async`."""
    driver = [sys.executable, "-m", "tests.contracts.python_driver", module, way, "{ORIGIN}", str(folder)]
    return answers_of(driver, folder)


def js_answers(folder: Path) -> dict[str, Any]:
    """What the JavaScript driver tells of fal's own client, installed by the lock file beside it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    assert node is not None, "these tests need Node.js 20 or later"
    assert npm is not None, "these tests need npm"
    with FileLock(str(JS / ".installing")):
        if not (JS / "node_modules" / "@fal-ai").is_dir():
            subprocess.run([npm, "ci"], cwd=JS, check=True, capture_output=True, timeout=DRIVER_S)
    return answers_of([node, "--experimental-websocket", "--no-warnings", str(JS / "driver.mjs"), "{ORIGIN}"], folder)


def where(origin: str, ca: Path) -> dict[str, str]:
    """The variables that point clients at the sandbox: fal's own for theirs, ours for ours."""
    host = origin.removeprefix("https://")
    return {
        "FAL_KEY": KEY,
        "FAL_RUN_HOST": f"{host}/run",
        "FAL_QUEUE_RUN_HOST": f"{host}/queue",
        "FALBATCH_ORIGIN": origin,
        "SSL_CERT_FILE": str(ca),
        "NODE_EXTRA_CA_CERTS": str(ca),
    }


def bare_environment() -> dict[str, str]:
    """This process's environment without what would point a client elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("FAL", "SSL_", "NODE_"))}


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two answers differ, each with its place."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for name in sorted(one.keys() | other.keys()):
            if name not in one or name not in other:
                found.append(f"{place}.{name}: only in {'the second' if name in other else 'the first'}")
            else:
                found += differences(one[name], other[name], f"{place}.{name}")
        return found
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            line
            for number, (a, b) in enumerate(zip(one, other, strict=True))
            for line in differences(a, b, f"{place}[{number}]")
        ]
    return [] if one == other else [f"{place}: {one!r:.200} against {other!r:.200}"]
