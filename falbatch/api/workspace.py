"""What the MANIFEST argument means: a manifest, an output folder or a state file, and the places that follow."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from falbatch.adapters.store import reader
from falbatch.adapters.store.database import open_reader, translated
from falbatch.errors import FalbatchError, ManifestError, Problem, UsageError

if TYPE_CHECKING:
    from falbatch.core.manifest import Manifest

STATE_NAME: Final = "falbatch.db"

MANIFEST_BYTES_MOST: Final = 256 * 1024 * 1024
"""Larger files are not read: big lists belong in CSV or JSONL, which are read row by row."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """A batch's places on disk."""

    output: Path
    """The output folder; may not exist yet."""
    state: Path
    """The state file in it; may not exist yet."""
    manifest: Manifest | None = None
    """None when the argument was a folder or a state file."""
    base: Path = Path()
    """The manifest's folder: paths in it are relative to it."""
    manifest_path: Path | None = None
    problems: tuple[Problem, ...] = ()
    """Mistakes in the manifest that decide nothing about its jobs, for who says them together with others."""


def open_manifest(argument: Path, *, output: Path | None = None, tells_later: bool = False) -> Workspace:
    """The workspace of a manifest, read and checked; an output folder or a state file stands for the manifest that
    it was last run with. With `tells_later` mistakes that decide nothing about its jobs are in `problems`.

    Raises `ManifestError` with everything that is wrong, `UsageError`, `StateError`.
    """
    if argument.is_dir() or argument.suffix == ".db":
        place = open_state(argument)
        with contextlib.closing(open_reader(place.state)) as connection, translated(place.state):
            row = reader.batch_row(connection)
        path = Path(row.manifest) if row and row.manifest else None
        if path is None or not path.is_file():
            raise UsageError(
                f"{argument}: its manifest ({path or 'none'}) is not there",
                advice="Give the manifest itself, with --output for this folder.",
            )
        return open_manifest(path, output=output or place.output, tells_later=tells_later)
    from falbatch.core.manifest import parse_manifest, read_manifest

    text, source = _read(argument), str(argument)
    manifest, problems = (
        read_manifest(text, source=source) if tells_later else (parse_manifest(text, source=source), ())
    )
    base = argument.parent
    folder = output if output is not None else base / manifest.output.dir
    return Workspace(folder, folder / STATE_NAME, manifest, base, argument.resolve(), problems)


def open_state(argument: Path, *, output: Path | None = None) -> Workspace:
    """The workspace of a batch that has run, from its manifest, its output folder or its state file."""
    if argument.suffix == ".db":
        return Workspace(argument.parent, argument)
    if argument.is_dir():
        return Workspace(argument, argument / STATE_NAME)
    return open_manifest(argument, output=output)


def open_places(argument: Path, *, output: Path | None = None) -> Workspace:
    """`open_state` for who only looks: of a manifest that has run, nothing is read but where its results go.

    A manifest that has not run is checked as a whole: what is wrong with it says more than that there is no state file.
    """
    if argument.suffix == ".db" or argument.is_dir():
        return open_state(argument)
    from falbatch.core.folder import read_dir

    named = read_dir(_read(argument), source=str(argument))
    folder = output or (argument.parent / named if named is not None else None)
    if folder is None or not (folder / STATE_NAME).exists():
        return open_manifest(argument, output=output)
    return Workspace(folder, folder / STATE_NAME)


def manifest_of(workspace: Workspace) -> Manifest:
    """The manifest of a workspace that was opened from one. Raises `UsageError` for another."""
    if workspace.manifest is None:
        raise UsageError(f"{workspace.output}: a manifest is needed here, not a folder")
    return workspace.manifest


def holder_of(state: Path) -> str:
    """Who is on record as the runner of a state file, in words that follow "in use by another run"."""
    try:
        with contextlib.closing(open_reader(state)) as connection:
            row = reader.batch_row(connection)
        runner = json.loads(row.runner) if row else {}
        since = time.strftime("%H:%M:%S", time.localtime(runner["since"]))
        return f" (process {runner['pid']} on {runner['host']}, since {since})"
    except (FalbatchError, KeyError, ValueError):
        return ""


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MANIFEST_BYTES_MOST:
            raise ManifestError(
                [Problem(str(path), 0, 0, "larger than 256 MB", "put big lists into a CSV or JSONL file")]
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file", advice="Check the path of the manifest.") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
