"""Starting from nothing: a first manifest for an endpoint, and the manifest's JSON Schema for editors."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from falbatch.adapters.files import translated, whole_file
from falbatch.api import windows
from falbatch.core.checking import InputCheck
from falbatch.core.manifest_schema import TITLE
from falbatch.core.naming import slug
from falbatch.core.starter import Subject, starter, takes_all
from falbatch.errors import UsageError, WireError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falbatch.core.starter import Starter, Takes
    from falbatch.fal.catalogue import CatalogueClient, Model

SCHEMA_FILE: Final = Path(__file__).parents[1] / "manifest.schema.json"
"""The manifest's JSON Schema, as it is shipped."""
SCHEMA_NAME: Final = "falbatch.schema.json"
"""What its copy beside a manifest is called: found from there without a network, and on other machines, too."""


@dataclass(frozen=True, slots=True)
class Begun:
    """An endpoint that a manifest can be written for."""

    subject: Subject
    is_deprecated: bool
    """fal says so: it may be gone one day."""


def manifest_schema() -> str:
    """The manifest's JSON Schema, as the text of a JSON file."""
    return SCHEMA_FILE.read_text(encoding="utf-8")


async def begin(endpoint: str, *, is_sandbox: bool = False) -> Begun:
    """What fal says about `endpoint`. Needs no key. Raises `FalbatchError`."""
    async with windows.open_catalogue(None, is_sandbox=is_sandbox) as asked:
        found = await windows.read_schema(asked, endpoint)
        listed = await _listed(asked, endpoint)
    name, category, status = (listed.name, listed.category, listed.status) if listed else ("", "", "")
    fields = found.fields.inputs
    subject = Subject(endpoint, fields, name, category, is_sandbox=is_sandbox, takes=_taker(found.document))
    return Begun(subject, status == "deprecated")


def _taker(document: Mapping[str, Any]) -> Takes:
    """What a run's own check will say of a field's value."""
    try:
        return InputCheck(document).takes
    except ValueError:
        return takes_all


async def _listed(asked: CatalogueClient, endpoint: str) -> Model | None:
    """The endpoint in fal's list; None where it is not, or where the list cannot be had: it is good to have only."""
    with contextlib.suppress(WireError):
        page = await asked.models(endpoints=[endpoint], limit=1)
        return next((model for model in page.models if model.endpoint == endpoint), None)
    return None


def default_file(endpoint: str) -> Path:
    """The file for an endpoint where the user names none: `flux-dev.yaml` for `fal-ai/flux/dev`."""
    return Path(f"{slug(endpoint.partition('/')[2]) or 'manifest'}.yaml")


def on_stdout(begun: Begun) -> Starter:
    """A starter that lies nowhere yet: it names the schema where falbatch is installed."""
    return starter(begun.subject, file=default_file(begun.subject.endpoint).name, schema=SCHEMA_FILE.as_uri())


def write(begun: Begun, file: Path, *, is_forced: bool) -> Starter:
    """Write a starter to `file`, and the schema beside it. Raises `UsageError` for a file that is there already
    (unless forced), `OutputError` and `DiskFull` for one that cannot be written."""
    made = starter(begun.subject, file=str(file), schema=SCHEMA_NAME)
    check_free(file, is_forced=is_forced)
    with translated(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
    _write_schema(file.with_name(SCHEMA_NAME))
    with whole_file(file) as stream:
        stream.write(made.text)
    return made


def check_free(file: Path, *, is_forced: bool) -> None:
    """Raise `UsageError` where `write` would not write; nothing has to be asked of fal for that."""
    if file.is_dir():
        raise UsageError(f"{file} is a folder", advice=f"Name a file: {file / 'batch.yaml'}.")
    if file.exists() and not is_forced:
        raise UsageError(f"{file} exists already", advice="Name another file, or let --force replace it.")


def _write_schema(path: Path) -> None:
    """The schema of this falbatch at `path`, where there is none or an older one."""
    with translated(path):
        old = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    if old == (text := manifest_schema()):
        return
    if old and not _is_ours(old):
        what = f"{path} is a file of another kind, and would be in the way of the schema for editors"
        raise UsageError(what, advice="Rename it, or name a manifest in another folder.")
    with whole_file(path) as stream:
        stream.write(text)


def _is_ours(text: str) -> bool:
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("title") == TITLE
