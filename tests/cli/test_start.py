"""What a command loads before it does anything: time that a user waits for nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.cli.conftest import MANIFEST, SECONDS

if TYPE_CHECKING:
    from tests.cli.conftest import Shell

HTTP: Final = ("aiohttp", "httpx", "httpx_aiohttp", "yarl", "ssl", "asyncio")
MANIFESTS: Final = ("pydantic", "jinja2")
OTHERS: Final = ("rich", "click", "tqdm", "av", "PIL", "cryptography", "jsonschema", "trustme", "pyarrow", "ormsgpack")
SMALL: Final = ("yaml", "sqlite3", "filelock", "anyio", "orjson", "importlib.metadata", "slugify")

PROGRAM: Final = """\
import json, sys
from falbatch.__main__ import main
sys.argv[0] = "falbatch"
try:
    code = main()
finally:
    print(json.dumps([name for name in {names} if name in sys.modules]), file=sys.stderr)
sys.exit(code)
"""


def loaded(shell: Shell, *words: str, names: tuple[str, ...]) -> list[str]:
    """Which of the modules `names` a command has loaded when it ends, which must be well."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(names=names), *words],
        cwd=shell.folder,
        env=shell.environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stderr.splitlines()[-1])
    return found


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["call", "--help"]])
def test_help_loads_nothing(words: list[str], shell: Shell) -> None:
    assert loaded(shell, *words, names=(*HTTP, *MANIFESTS, *OTHERS, *SMALL)) == []


def test_who_only_looks_loads_neither_the_network_nor_what_checks_manifests(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    assert shell.falbatch("run", "small.yaml").code == 0
    heavy = (*HTTP, *MANIFESTS, *OTHERS)
    assert loaded(shell, "status", "out", names=(*heavy, "yaml", "slugify", "anyio")) == []
    assert loaded(shell, "status", "out/falbatch.db", "--json", names=(*heavy, "yaml", "slugify", "anyio")) == []
    assert loaded(shell, "export", "out", names=(*heavy, "yaml", "slugify", "anyio")) == []
    assert loaded(shell, "status", "small.yaml", names=heavy) == []


def test_a_plan_loads_no_network_where_nobody_need_be_asked(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    assert loaded(shell, "plan", "small.yaml", "--offline", names=(*HTTP, *OTHERS)) == []
    assert "aiohttp" in loaded(shell, "plan", "small.yaml", names=(*HTTP, *OTHERS))
    assert loaded(shell, "plan", "small.yaml", names=(*HTTP, *OTHERS)) == []  # what fal said is in the cache


def test_a_run_loads_what_it_uses(shell: Shell) -> None:
    shell.write("small.yaml", MANIFEST)
    unused = (
        "httpx",
        "rich",
        "click",
        "tqdm",
        "av",
        "PIL",
        "cryptography",
        "jsonschema",
        "trustme",
        "pyarrow",
        "falbatch.sandbox.server",
    )
    assert loaded(shell, "run", "small.yaml", names=unused) == [], "no terminal, no pictures, no webhooks"


def test_the_sandbox_loads_nothing_of_what_talks_to_it(shell: Shell) -> None:
    code = "import json, sys, falbatch.cli.serving; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=shell.folder, capture_output=True, text=True, check=True)
    names = {"httpx", "falbatch.api", "falbatch.engine", "falbatch.fal", *MANIFESTS, *OTHERS}
    assert names & {*json.loads(done.stdout)} == set()


def test_importing_falbatch_loads_nothing(shell: Shell) -> None:
    code = "import json, sys, falbatch; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=shell.folder, capture_output=True, text=True, check=True)
    assert {*HTTP, *MANIFESTS, *OTHERS, *SMALL, "falbatch.api"} & {*json.loads(done.stdout)} == set()
