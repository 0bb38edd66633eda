"""The documents say what is true: commands, flags, exit codes, manifests, states, names."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import shlex
from pathlib import Path

import fal_client
import pytest

import falbatch
import falbatch.client
from falbatch.cli import commands as batch_commands
from falbatch.cli import looking, serving, starting, windows
from falbatch.cli.options import EXIT_CODES, build_parser
from falbatch.core.manifest import parse_manifest
from falbatch.core.state import TRANSITIONS
from falbatch.errors import ExitCode
from falbatch.fal.hosts import VARIABLES
from falbatch.sandbox.faults import Do, Where
from falbatch.sandbox.scenario import Scenario

ROOT = Path(__file__).parents[1]
HANDLERS = batch_commands.HANDLERS | looking.HANDLERS | windows.HANDLERS | starting.HANDLERS | serving.HANDLERS
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "falbatch" / "ARCHITECTURE.md").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands() -> list[str]:
    """Every `falbatch …` line of the README's shell blocks and every one in its prose."""
    lines = [re.split("  #| > ", line)[0].strip() for block in blocks(README, "sh") for line in block.splitlines()]
    shell = [part for line in lines for part in line.split(" && ") if re.match(r"(\.venv/bin/)?falbatch ", part)]
    prose = [" ".join(found.split()) for found in re.findall(r"`(falbatch [a-z][^`]*)`", README)]
    return [command.removeprefix(".venv/bin/") for command in shell + prose]


def test_the_readme_names_commands_to_test() -> None:
    assert len(commands()) >= 10


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_a_command_in_the_readme_parses(command: str) -> None:
    words = shlex.split(command)[1:]
    if len(words) == 1 and words[0] != "sandbox":
        words.append("m.yaml")  # prose names the command alone
    assert build_parser().parse_args(words).command in HANDLERS


def test_every_command_is_in_the_readme() -> None:
    for command in HANDLERS:
        assert f"| `falbatch {command}" in README


def test_exit_codes_are_the_same_everywhere() -> None:
    table = {int(code): words for code, words in re.findall(r"^\| (\d+) \| (.+) \|$", README, re.MULTILINE)}
    assert table == EXIT_CODES
    assert set(EXIT_CODES) == {int(code) for code in ExitCode}


def test_flags_named_in_the_readme_exist() -> None:
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    named = set(re.findall(r"`[^`|]*?(--[a-z][a-z-]+)", prose))
    assert named
    assert named <= {flag for command in HANDLERS for flag in re.findall(r"--[a-z-]+", help_of(command))}


def help_of(command: str) -> str:
    """What `falbatch COMMAND --help` prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit):
        build_parser().parse_args([command, "--help"])
    return out.getvalue()


@pytest.mark.parametrize("text", blocks(README, "yaml"))
def test_a_manifest_in_the_readme_is_valid(text: str) -> None:
    assert parse_manifest(text.encode(), source="README.yaml").endpoint.startswith("fal-ai/")


def test_names_used_by_programs_in_the_readme_exist() -> None:
    (program,) = blocks(README, "python")
    names = set(re.findall(r"falbatch\.([a-z]+)\(", program)) | set(re.findall(r"`falbatch\.([a-z]+)`", CHANGELOG)) - {
        "db"
    }
    assert {"run", "arun", "plan", "map"} <= names
    for name in names:
        assert callable(getattr(falbatch, name))


def test_every_public_name_can_be_had() -> None:
    for name in falbatch.__all__:
        assert getattr(falbatch, name) is not None


def test_the_picture_of_states_is_the_table() -> None:
    drawn = set(re.findall(r"^(\w+) ──(\w+)──▶ (\w+)$", ARCHITECTURE, re.MULTILINE))
    assert drawn == {(before.value, event.value, after.value) for (before, event), after in TRANSITIONS.items()}


def test_files_named_in_the_architecture_exist() -> None:
    named = set(re.findall(r"`((?:core|engine|fal|client|adapters|api|cli|sandbox)/[\w/]*\.py)`", ARCHITECTURE))
    assert len(named) > 15
    for name in named:
        assert (ROOT / "falbatch" / name).is_file(), name


def test_dependencies_have_their_reasons() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["sandbox"], *extras["webhooks"], *extras["parquet"], *extras["bench"]]
    names = {re.split(r"[><=\[]", requirement)[0] for requirement in wanted}
    table = ARCHITECTURE.partition("## Dependencies")[2].partition("## Decisions")[0]
    assert {name for name in names if name not in table} == set()


def test_the_top_level_holds_nothing_else() -> None:
    allowed = {"pyproject.toml", "falbatch", "jobs", "tests", "examples", "README.md", "CHANGELOG.md", "LICENSE"}
    tracked = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert tracked - {"outputs", "build", "falbatch.egg-info"} == allowed


def test_the_ci_runs_the_readmes_own_command() -> None:
    lines = [line for line in README.splitlines() if line.startswith("python3 -m venv") and line.endswith("pytest")]
    assert len(lines) == 1
    assert "README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def column(heading: str) -> set[str]:
    """The words in code marks of a table's first column, by the table's first heading."""
    table = README.partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    return {word for line in table.splitlines() for word in re.findall(r"`([\w]+)", line.split(" | ")[0])}


def test_every_fault_and_scenario_key_is_in_the_readme() -> None:
    assert column("`on`") == {where.value for where in Where}
    assert column("`do`") == {do.value for do in Do}
    assert column("Scenario key") >= {field.name for field in dataclasses.fields(Scenario)}


def test_every_variable_that_names_fal_is_in_the_readme() -> None:
    assert column("Variable") == {*VARIABLES.values(), "FAL_RUN_HOST", "FAL_QUEUE_RUN_HOST", "FALBATCH_ORIGIN"}


def test_every_official_call_stands_beside_ours() -> None:
    table = README.partition("### Moving from fal_client")[2].partition("\n## ")[0]
    named = set(re.findall(r"[a-zA-Z_]+", table))
    public = [name for name in fal_client.__all__ if not name.startswith("__")]
    stems = {name.removesuffix("_async").removeprefix("Sync").removeprefix("Async") for name in public}
    assert {stem for stem in stems if stem not in named and f"Async{stem}" not in named} <= {
        "RequestHandle",
        "RealtimeConnection",
    }
    assert not [name for name in public if not hasattr(falbatch.client, name)]
