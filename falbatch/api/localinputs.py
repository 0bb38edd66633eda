"""The plan's side of files in inputs: what they hold, read once per path and remembered from run to run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from falbatch.adapters.localfiles import Content, content_of, look, place_of, too_large
from falbatch.adapters.store import uploads
from falbatch.core.faults import Fault
from falbatch.core.fileinputs import DATA_BYTES_MOST, FILE_KEY, FileInput, Travel, files_in, marked
from falbatch.core.plan import PlannedFiles, PlannedJob

if TYPE_CHECKING:
    import sqlite3

    from falbatch.core.model import Item

CHUNK: Final = 500
"""Items whose files are looked at together."""

THREADS: Final = min(8, os.cpu_count() or 1)
"""Files read at a time: hashing is bound by the processor, and lets the others run."""

_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
"""What is no file and holds none."""

Wrong = Callable[["Item", FileInput | None, Fault], None]
"""Told of each file that cannot be used; without one, of an input that says what only falbatch may."""


def with_contents(connection: sqlite3.Connection, items: Iterable[Item], *, base: str, wrong: Wrong) -> Iterator[Item]:
    """`items` with markers for the files in their inputs; those with files that cannot be used go to `wrong` instead.

    Paths are relative to the folder `base`. To be read while the stage on `connection` is being filled.
    """
    source = iter(items)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="hash") as pool:
        while chunk := list(islice(source, CHUNK)):
            named = [(item, files) for item in chunk if (files := _files_of(item, wrong)) is not None]
            places = {place_of(base, file.path): file.path for _, files in named for file in files}
            found = _contents(connection, pool, places) if places else {}
            for item, files in named:
                if not files:
                    yield item
                elif (made := _marked(item, files, base, found, wrong)) is not None:
                    yield made


def _files_of(item: Item, wrong: Wrong) -> list[FileInput] | None:
    if FILE_KEY not in item.input and all(type(value) in _PLAIN for value in item.input.values()):
        return []
    try:
        return list(files_in(item.input))
    except ValueError as error:
        wrong(item, None, Fault(str(error), "rename that key"))
        return None


def _marked(
    item: Item, files: list[FileInput], base: str, found: dict[str, Content | Fault], wrong: Wrong
) -> Item | None:
    contents: dict[FileInput, bytes] = {}
    for file in files:
        content = found[place_of(base, file.path)]
        if isinstance(content, Content) and file.travel is Travel.DATA and content.stamp.size_bytes > DATA_BYTES_MOST:
            content = Fault(too_large(content.stamp.size_bytes))
        if isinstance(content, Fault):
            wrong(item, file, content)
        else:
            contents[file] = content.sha256
    if any(file not in contents for file in files):
        return None
    return replace(item, input=marked(item.input, contents.__getitem__))


def _contents(
    connection: sqlite3.Connection, pool: ThreadPoolExecutor, places: dict[str, str]
) -> dict[str, Content | Fault]:
    """What the files at `places` (→ name as written) hold: as found before in this plan, in an earlier run, or now."""
    found: dict[str, Content | Fault] = {}
    unread: list[str] = []
    news: list[tuple[str, str, Content]] = []
    for place, name in places.items():
        if (staged := uploads.staged_content(connection, place)) is not None:
            found[place] = staged
        elif isinstance(stamp := look(place), Fault):
            found[place] = stamp
        elif (known := uploads.known_content(connection, place)) is not None and known.holds_for(stamp):
            found[place] = known
            news.append((place, name, known))
        else:
            unread.append(place)
    for place, content in zip(unread, pool.map(content_of, unread), strict=True):
        found[place] = content
        if isinstance(content, Content):
            news.append((place, places[place], content))
    uploads.stage_files(connection, news)
    return found


def has_files(connection: sqlite3.Connection) -> bool:
    """True when inputs of the plan name files."""
    return connection.execute("SELECT 1 FROM temp.stage_files LIMIT 1").fetchone() is not None


def planned_files(wanted: uploads.Wanted, terms: str | None, now: float) -> PlannedFiles | None:
    """The files that the submits need; None when they need none."""
    upload, upload_bytes, there = wanted.count(terms, now)
    return PlannedFiles(upload, upload_bytes, there) if upload or there else None


def named_files(connection: sqlite3.Connection, job: PlannedJob) -> PlannedJob:
    """`job` with the names of its files in place of the markers, for people."""
    named = uploads.named(connection, job.input_json, staged=True)
    return job if named is job.input_json else replace(job, input_json=named)
