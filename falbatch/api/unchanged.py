"""Does a manifest make the jobs that it made when its plan went on record? Then it need not be expanded to know what
is left of them.

    expansion, libraries, manifest, rows, folder ─▶ digest ─┬▶ the same, and files of inputs as they were ─▶ kept.py
                                                            └▶ anything else, any doubt ─────────────────▶ stage.py

Templates see nothing else: no environment, no clock, no unseeded chance.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Final

from falbatch.adapters.localfiles import Content, content_of, look
from falbatch.adapters.sources import source_files
from falbatch.adapters.store import kept, uploads
from falbatch.adapters.store.basis import Basis, basis_of
from falbatch.core.expand import facts_of
from falbatch.core.faults import Fault
from falbatch.core.rows import FileRows, GlobRows, RowFormat

if TYPE_CHECKING:
    import sqlite3

    from falbatch.api.workspace import Workspace
    from falbatch.core.manifest import Manifest

_LIBRARIES: Final = ("falbatch", "jinja2", "python-slugify", "text-unidecode", "pathvalidate", "orjson", "pyyaml")
"""Whose other version may make other jobs, or other names, of the same manifest."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What a plan is made from, as it is before it is read."""

    basis: Basis
    place: str = ""
    """The file of rows; "" without one."""

    def still_hold(self) -> bool:
        """True when what was read since is what was looked at. A file that changed a moment before is not believed: it
        may have changed again without a new time."""
        if self.basis.rows is None:
            return True
        stamp = look(self.place)
        return not isinstance(stamp, Fault) and self.basis.rows.holds_for(stamp)


def sources_of(manifest: Manifest, workspace: Workspace, known: Basis | None) -> Sources | None:
    """What the manifest's plan is made from; a file of rows that is as it was for `known` is not read again.

    None where something is missing: expansion says what.
    """
    digest = hashlib.sha256()
    for fact in (facts_of(manifest), *_versions(), os.path.abspath(workspace.base)):  # noqa: PTH100  (as in place_of)
        digest.update(hashlib.sha256(fact.encode(errors="surrogatepass")).digest())
    source = manifest.rows.source if manifest.rows else None
    if isinstance(source, GlobRows):
        for path in source_files(manifest, base=workspace.base):
            digest.update(hashlib.sha256(os.fsencode(path)).digest())
    if not isinstance(source, FileRows):
        return Sources(Basis(digest.digest()))
    if source.format is RowFormat.PARQUET:
        digest.update(_version("pyarrow").encode())
    (path,) = source_files(manifest, base=workspace.base)
    rows = _content(str(path), known.rows if known else None)
    if isinstance(rows, Fault):
        return None
    digest.update(rows.sha256)
    return Sources(Basis(digest.digest(), rows), str(path))


def _content(place: str, known: Content | None) -> Content | Fault:
    stamp = look(place)
    if known is not None and not isinstance(stamp, Fault) and known.holds_for(stamp):
        return known
    return content_of(place)


@cache
def _versions() -> tuple[str, ...]:
    python = ".".join(map(str, sys.version_info[:3]))
    return (python, *(f"{name} {_version(name)}" for name in _LIBRARIES))


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version  # not before a plan may be known again

    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def on_record(
    connection: sqlite3.Connection, manifest: Manifest, workspace: Workspace, *, keeps: bool
) -> tuple[Sources | None, bool]:
    """What the manifest's plan is made from, and whether it is the plan on record; then its files are staged. With
    `keeps`, what it is made from is told for another plan as well: it will be kept with that."""
    known = basis_of(connection)
    if known is None and not keeps:
        return None, False
    sources = sources_of(manifest, workspace, known)
    if sources is None or known is None or sources.basis.digest != known.digest:
        return sources, False
    if not kept.is_whole(connection, known) or not _are_as_they_were(connection):
        return sources, False
    kept.stage_files(connection)
    return Sources(replace(known, rows=sources.basis.rows), sources.place), True


def _are_as_they_were(connection: sqlite3.Connection) -> bool:
    """True when all files that inputs name look as they did when they were read."""
    for place in kept.file_places(connection):
        stamp, known = look(place), uploads.known_content(connection, place)
        if isinstance(stamp, Fault) or known is None or not known.holds_for(stamp):
            return False
    return True
