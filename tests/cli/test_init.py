"""`init` and `schema --manifest`: from nothing to a manifest that runs, and what editors need."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from jsonschema import Draft7Validator

from falbatch.core.yamltext import load
from falbatch.sandbox.catalogue.models import MODELS
from tests.manifest_schema import SHIPPED

if TYPE_CHECKING:
    from tests.cli.conftest import Shell

DEV = "fal-ai/flux/dev"


@pytest.mark.parametrize("endpoint", MODELS)
def test_init_of_each_endpoint_gives_a_manifest_that_runs(endpoint: str, shell: Shell) -> None:
    begun = shell.falbatch("init", endpoint, "batch.yaml", "--json", FAL_KEY=None)
    (told,) = begun.objects()
    assert (begun.code, told["file"]) == (0, "batch.yaml")
    text = (shell.folder / "batch.yaml").read_bytes()
    address = text.partition(b"\n")[0].partition(b"$schema=")[2].decode()
    schema = json.loads((shell.folder / address).read_bytes())
    assert [error.message for error in Draft7Validator(schema).iter_errors(load(text, source="m")[0])] == []
    ran = shell.falbatch("run", "batch.yaml", "--yes")
    assert ran.code == 0, ran.err
    assert shell.sandbox.ledger()["count"] == told["jobs"]


def test_init_names_the_file_by_the_endpoint_and_never_replaces_one_unasked(shell: Shell) -> None:
    made = shell.falbatch("init", DEV)
    assert (made.code, made.out) == (0, "flux-dev.yaml\n")
    assert "2 jobs" in made.err
    text = (shell.folder / "flux-dev.yaml").read_text(encoding="utf-8")
    assert "falbatch plan flux-dev.yaml" in text
    (shell.folder / "flux-dev.yaml").write_text("mine", encoding="utf-8")
    again = shell.falbatch("init", DEV)
    assert (again.code, again.out) == (2, "")
    assert "exists already" in again.err
    assert (shell.folder / "flux-dev.yaml").read_text(encoding="utf-8") == "mine"
    assert shell.falbatch("init", DEV, "--force", "flux-dev.yaml").code == 0
    assert (shell.folder / "flux-dev.yaml").read_text(encoding="utf-8") == text
    assert sorted(path.name for path in shell.folder.iterdir()) == ["falbatch.schema.json", "flux-dev.yaml"]


def test_init_by_the_sandbox_goes_on_by_the_sandbox(shell: Shell) -> None:
    made = shell.falbatch("init", DEV, "dev.yaml", "--sandbox", FAL_KEY=None, FALBATCH_ORIGIN=None)
    assert "falbatch plan dev.yaml --sandbox" in made.err
    text = (shell.folder / "dev.yaml").read_text()
    for line in ("falbatch plan dev.yaml --sandbox ", "falbatch run dev.yaml --sandbox --output rehearsal "):
        assert line in text
        ran = shell.falbatch(*line.split()[1:], FAL_KEY=None, FALBATCH_ORIGIN=None)
        assert ran.code == 0, ran.err
    assert "falbatch status dev.yaml --output rehearsal " in text
    assert shell.falbatch("status", "dev.yaml", "--output", "rehearsal").code == 0


def test_init_makes_folders_and_puts_the_schema_beside_the_manifest(shell: Shell) -> None:
    assert shell.falbatch("init", DEV, "batches/new/kites.yaml").code == 0
    folder = shell.folder / "batches" / "new"
    assert (folder / "falbatch.schema.json").read_bytes() == SHIPPED.read_bytes()
    assert "outputs/kites" in (folder / "kites.yaml").read_text(encoding="utf-8")


def test_an_older_schema_is_replaced_and_a_file_of_another_kind_is_not(shell: Shell) -> None:
    path = shell.write("falbatch.schema.json", '{"title": "falbatch manifest", "type": "object"}')
    assert shell.falbatch("init", DEV).code == 0
    assert path.read_bytes() == SHIPPED.read_bytes()
    path.write_text('{"title": "my own"}', encoding="utf-8")
    refused = shell.falbatch("init", DEV, "b.yaml")
    assert refused.code == 2
    assert "falbatch.schema.json" in refused.err
    assert not (shell.folder / "b.yaml").exists()
    assert path.read_text(encoding="utf-8") == '{"title": "my own"}'


@pytest.mark.parametrize("words", [("--stdout",), ("-",)])
def test_init_to_stdout_writes_no_file(words: tuple[str, ...], shell: Shell) -> None:
    made = shell.falbatch("init", DEV, *words)
    assert (made.code, made.err) == (0, "")
    assert made.out.startswith(f"# yaml-language-server: $schema={SHIPPED.as_uri()}\n")
    assert list(shell.folder.iterdir()) == []
    shell.write("m.yaml", made.out)
    assert shell.falbatch("plan", "m.yaml").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fal-ai/flux/def",), "Did you mean fal-ai/flux/dev"),
        (("fal-ai/any-lm",), "fal-ai/any-llm"),
        (("me/private-thing",), "falbatch models"),
        (("flux",), "is not an endpoint id"),
        (("https://fal.ai/models/fal-ai/flux",), "is a URL"),
        ((DEV, "."), "is a folder"),
        ((DEV, "x.yaml", "--stdout"), "makes no sense"),
    ],
)
def test_what_cannot_be_begun_is_said_and_leaves_nothing(words: tuple[str, ...], said: str, shell: Shell) -> None:
    refused = shell.falbatch("init", *words)
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
    assert "Traceback" not in refused.err
    assert list(shell.folder.iterdir()) == []


def test_a_deprecated_endpoint_is_called_so(shell: Shell) -> None:
    made = shell.falbatch("init", "fal-ai/any-llm")
    assert made.code == 0
    assert "deprecated" in made.err


def test_a_fal_that_cannot_be_reached_ends_it_with_5(shell: Shell) -> None:
    refused = shell.falbatch("init", DEV, FALBATCH_ORIGIN="http://127.0.0.1:9")
    assert (refused.code, refused.out) == (5, "")
    assert list(shell.folder.iterdir()) == []


def test_a_list_that_cannot_be_had_is_no_obstacle(shell: Shell) -> None:
    shell.sandbox.add_faults([{"on": "platform", "do": "status:500"}])
    assert shell.falbatch("init", DEV).code == 0
    assert "404" in shell.falbatch("init", "fal-ai/flux/def").err


def test_the_manifests_schema_is_printed_as_it_is_shipped(shell: Shell) -> None:
    assert shell.falbatch("schema", "--manifest").out.encode() == SHIPPED.read_bytes()
    (one,) = shell.falbatch("schema", "--manifest", "--json").objects()
    assert one == json.loads(SHIPPED.read_bytes())


@pytest.mark.parametrize("words", [(), (DEV, "--manifest")])
def test_schema_takes_an_endpoint_or_the_manifest(words: tuple[str, ...], shell: Shell) -> None:
    refused = shell.falbatch("schema", *words)
    assert (refused.code, refused.out) == (2, "")
    assert "--manifest" in refused.err
