"""A folder's name tells what its files may import (design §7), and no file outgrows its reader."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "falbatch"
FILES = sorted(path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py"))

OURS = {
    "falbatch/errors.py": set(),
    "falbatch/exactjson.py": set(),
    "falbatch/faultpoints.py": set(),
    "falbatch/core": {"core", "errors", "exactjson"},
    "falbatch/fal": {"fal", "errors", "exactjson"},
    "falbatch/client": {"client", "fal", "errors", "exactjson"},
    "falbatch/engine": {"engine", "core", "errors", "exactjson", "faultpoints"},
    "falbatch/adapters": {"adapters", "core", "errors", "exactjson", "faultpoints"},
    "falbatch/sandbox": {"sandbox", "errors", "faultpoints"},
    "falbatch/api": {"api", "client", "engine", "adapters", "fal", "core", "errors", "exactjson"},
    "falbatch/cli": {"cli", "api", "adapters", "core", "errors", "exactjson", "sandbox"},
}
"""Which of our own parts each part may import."""

THEIRS: dict[str, set[str]] = {
    "falbatch/errors.py": set(),
    "falbatch/exactjson.py": {"orjson"},
    "falbatch/faultpoints.py": set(),
    "falbatch/core": {"pydantic", "yaml", "jinja2", "jsonschema_rs", "orjson", "slugify", "pathvalidate"},
    "falbatch/fal": {
        "anyio",
        "orjson",
        "ormsgpack",
        "httpx",
        "httpx_aiohttp",
        "aiohttp",
        "certifi",
        "yarl",
        "cryptography",
        "PIL",
    },
    "falbatch/client": {"anyio", "PIL"},
    "falbatch/engine": {"anyio", "tenacity"},
    "falbatch/adapters": {"anyio", "orjson", "filelock", "platformdirs", "tqdm", "pyarrow", "aiohttp", "PIL"},
    "falbatch/sandbox": {"aiohttp", "yaml", "PIL", "av", "cryptography", "jsonschema", "ormsgpack", "trustme"},
    "falbatch/api": {"anyio"},
    "falbatch/cli": {"anyio"},
}
"""Which libraries of others each part may import."""

ONLY_IN: dict[str, tuple[str, ...]] = {
    "sqlite3": ("falbatch/adapters/store/", "falbatch/sandbox/"),
    "tqdm": ("falbatch/adapters/progress.py",),
    "tenacity": ("falbatch/engine/repeat.py",),
    "yaml": ("falbatch/core/yamltext.py", "falbatch/sandbox/scenario.py", "falbatch/sandbox/plainyaml.py"),
    "jinja2": (
        "falbatch/core/template.py",
        "falbatch/core/filters.py",
        "falbatch/core/lookups.py",
        "falbatch/core/page.py",
    ),
    "httpx": ("falbatch/fal/httpx_carrier.py",),
    "httpx_aiohttp": ("falbatch/fal/httpx_carrier.py",),
    "aiohttp": (
        "falbatch/fal/aiohttp_carrier.py",
        "falbatch/fal/httpx_carrier.py",
        "falbatch/fal/socket.py",
        "falbatch/fal/connections.py",
        "falbatch/fal/failures.py",
        "falbatch/adapters/callbacks.py",
        "falbatch/sandbox/",
    ),
    "ormsgpack": ("falbatch/fal/realtime.py", "falbatch/sandbox/"),
    "cryptography": ("falbatch/fal/webhooks.py", "falbatch/sandbox/"),
    "av": ("falbatch/sandbox/",),
    "trustme": ("falbatch/sandbox/tls.py",),
    "jsonschema": ("falbatch/sandbox/",),
    "jsonschema_rs": ("falbatch/core/checking.py",),
    "platformdirs": ("falbatch/adapters/cache.py",),
    "yarl": ("falbatch/fal/aiohttp_carrier.py",),
    "certifi": ("falbatch/fal/aiohttp_carrier.py",),
    "filelock": ("falbatch/adapters/lock.py",),
    "pyarrow": ("falbatch/adapters/sources.py",),
    "PIL": ("falbatch/adapters/pictures.py", "falbatch/fal/", "falbatch/client/", "falbatch/sandbox/"),
}
"""Where alone a library may be imported."""

IMPURE = {"asyncio", "anyio", "time", "socket", "subprocess", "threading", "tempfile", "secrets", "shutil", "sqlite3"}
"""Modules of the standard library (and anyio) that no pure part has a use for."""

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


@dataclass(frozen=True)
class Import:
    module: str
    line: int

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    @property
    def part(self) -> str:
        """The part of falbatch that is imported, "" for another package."""
        words = self.module.split(".")
        return words[1] if words[0] == "falbatch" and len(words) > 1 else ""


@cache
def tree_of(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


@cache
def imports_of(file: str) -> tuple[Import, ...]:
    found: list[Import] = []
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import hides where it goes"
            module = node.module or ""
            # `from falbatch import errors` imports falbatch.errors.
            names = [f"falbatch.{alias.name}" for alias in node.names] if module == "falbatch" else [module]
            found += [Import(name, node.lineno) for name in names]
    return tuple(found)


def part_of(file: str) -> str:
    """The key of the rules that hold for a file, "" for the door and the entry point."""
    return next((part for part in OURS if file == part or file.startswith(f"{part}/")), "")


def places(file: str, imports: list[Import]) -> list[str]:
    return [f"{file}:{one.line} imports {one.module}" for one in imports]


RULED = [file for file in FILES if part_of(file)]


def test_every_file_is_under_a_rule_but_the_door_and_the_entry() -> None:
    assert set(FILES) - set(RULED) == {"falbatch/__init__.py", "falbatch/__main__.py"}


@pytest.mark.parametrize("file", RULED)
def test_a_part_imports_only_the_parts_below_it(file: str) -> None:
    allowed = OURS[part_of(file)]
    wrong = [one for one in imports_of(file) if one.top == "falbatch" and one.part not in allowed]
    assert places(file, wrong) == []


def test_the_command_line_knows_of_the_sandbox_only_how_to_start_it() -> None:
    allowed = {"falbatch.sandbox.flags", "falbatch.sandbox.serve"}
    wrong = [
        place
        for file in FILES
        if file.startswith("falbatch/cli/")
        for place in places(
            file, [one for one in imports_of(file) if one.part == "sandbox" and one.module not in allowed]
        )
    ]
    assert wrong == []


@pytest.mark.parametrize("file", RULED)
def test_a_part_uses_only_its_own_libraries(file: str) -> None:
    allowed = THEIRS[part_of(file)] | set(sys.stdlib_module_names) | {"falbatch"}
    wrong = [one for one in imports_of(file) if one.top not in allowed]
    assert places(file, wrong) == []


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    wrong = [
        place
        for file in FILES
        if not file.startswith(ONLY_IN[library])
        for place in places(file, [one for one in imports_of(file) if one.top == library and not _is_typing(file, one)])
    ]
    assert wrong == []


def _is_typing(file: str, one: Import) -> bool:
    """Is this import under `if TYPE_CHECKING:`?"""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            last = node.body[-1].end_lineno or 0
            if node.body[0].lineno <= one.line <= last:
                return True
    return False


@pytest.mark.parametrize("file", [file for file in FILES if part_of(file) in {"falbatch/core", "falbatch/errors.py"}])
def test_the_core_is_pure(file: str) -> None:
    """No clock, no environment, no open file, no unseeded chance, nothing to wait for."""
    wrong = places(file, [one for one in imports_of(file) if one.top in IMPURE])
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            wrong.append(f"{file}:{node.lineno} waits")
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if _is_impure(called) or (called == "random.Random" and not node.args):
                wrong.append(f"{file}:{node.lineno} calls {called}")
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.environb"}:
            wrong.append(f"{file}:{node.lineno} reads the environment")
    assert wrong == []


def _is_impure(called: str) -> bool:
    words = called.split(".")
    return (
        called in {"open", "input", "print", "os.getenv", "os.urandom", "uuid.uuid4", "uuid.uuid1"}
        or (words[0] == "random" and called != "random.Random")
        or words[-1] in {"read_text", "read_bytes", "write_text", "write_bytes", "utcnow", "now", "today"}
    )


MAY_PRINT = ("falbatch/cli/", "falbatch/adapters/progress.py")


@pytest.mark.parametrize("file", [file for file in FILES if not file.startswith(MAY_PRINT)])
def test_only_the_command_line_and_the_bar_print(file: str) -> None:
    wrong = [
        f"{file}:{node.lineno}"
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert wrong == []


@pytest.mark.parametrize("file", FILES)
def test_no_file_and_no_function_outgrows_its_reader(file: str) -> None:
    lines = (ROOT / file).read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_FILE_LINES
    long = [
        f"{file}:{node.lineno} {node.name} has {size} lines"
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_the_parts_of_falbatch_know_nothing_of_the_door() -> None:
    """`falbatch/__init__.py` gathers the public names; whoever imported it from inside would go in a circle."""
    wrong = [
        place for file in RULED for place in places(file, [one for one in imports_of(file) if one.module == "falbatch"])
    ]
    assert wrong == []
