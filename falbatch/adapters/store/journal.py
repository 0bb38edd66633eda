"""The journal: which submits left and what came of them, a second time, outside the state file.

If the state file is damaged, thrown away or replaced by an older one, the journal still knows what may have been paid
for since the last good copy. Lines of JSON, each behind its own checksum, appended and synced right after the commit
that they repeat, so that it never claims more than was on record. The first line says from where it goes on: a journal
tells everything only together with the copy of that moment. It begins anew when a good copy holds all of it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from falbatch.exactjson import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

BEGUN: Final = "begun"
COPIED: Final = "copied"
DOUBTED: Final = "doubted"
STARTED: Final = "started"

_SUBMIT: Final = b'{"key"'
"""How a line about a submit begins."""

PAGE_BYTES: Final = 4096
"""A program that is killed while it writes leaves whole pages of what it wrote. A last line that ends there is no
damage: whoever waited for it to be on disk was never told, so its POST did not leave, or its answer is looked for."""

LONG_BYTES: Final = 4 * 1024 * 1024
"""A journal up to this size is read whole at each start: about 12,000 lines, a fifth of a second."""

END_BYTES: Final = 256 * 1024
"""What is read of a longer one: some 700 lines, many times what is under way at one moment."""

TOTALS_SINCE: Final = 4
"""The first version of the format whose files keep their own totals."""

LINE_LEAST: Final = 128
"""Bytes: more than the first line has, less than it and another that tells of a submit."""


def journal_path(state: Path) -> Path:
    """Where the journal of a state file is."""
    return state.with_suffix(".journal")


def copy_path(state: Path) -> Path:
    """Where the last good copy of a state file is."""
    return state.with_name(state.name + ".copy")


def remains(state: Path) -> str:
    """What lies there of a state file that is gone, by name; "" when nothing does."""
    places = (copy_path(state), journal_path(state), state.with_name(state.name + "-wal"))
    return " and ".join(place.name for place in places if place.is_file() and place.stat().st_size)


class Age(NamedTuple):
    """A moment in the life of a batch. Of two files of one batch, the later one has the greater age."""

    made: float
    """When the batch was made: no two batches share it. 0 before that."""
    happened: int
    """Grows with all that happens to it."""
    submits: int
    """Its attempts."""


_PROGRESS: Final = "SELECT happened, submits FROM totals"

_OLD_PROGRESS: Final = "SELECT (SELECT coalesce(max(id), 0) FROM events), (SELECT count(*) FROM attempts)"
"""The same of a file from before there were totals; what it becomes by its upgrade."""


def age_of(connection: sqlite3.Connection) -> Age:
    """How far a state file is. Raises `sqlite3.DatabaseError` when it does not say."""
    made = connection.execute("SELECT created_at FROM batch").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    happened, submits = connection.execute(_PROGRESS if version >= TOTALS_SINCE else _OLD_PROGRESS).fetchone()
    if made is not None and not isinstance(made[0], float):
        raise sqlite3.DatabaseError("it does not say when it was made")
    return Age(made[0] if made else 0.0, happened, submits)


def begin(state: Path, age: Age) -> None:
    """Begin a journal that goes on from a state file of this `age`; the old one's place is taken in one step."""
    path = journal_path(state)
    fresh = path.with_name(path.name + ".part")
    fresh.unlink(missing_ok=True)
    _write(fresh, sealed({"event": BEGUN, "age": [*age]}))
    fresh.replace(path)
    sync(path.parent)


def tells(state: Path) -> bool:
    """True when the journal has more than its first line."""
    path = journal_path(state)
    return path.is_file() and path.stat().st_size >= LINE_LEAST


def tidy(state: Path) -> None:
    """Remove a journal that has nothing to tell: nothing was ever submitted."""
    journal = None if tells(state) else read(state)
    if journal is not None and journal.base is not None and journal == Journal(journal.base._replace(submits=0)):
        journal_path(state).unlink()


def note_copy(state: Path, age: Age) -> None:
    """Say that a copy of this `age`, which has all of the journal so far, is about to be put in its place."""
    append(state, [sealed({"event": COPIED, "age": [*age]})])


def note_doubt(state: Path) -> None:
    """Say that the state file could not be read somewhere: the next run looks at every byte of it."""
    append(state, [sealed({"event": DOUBTED})])


def append(state: Path, lines: Iterable[bytes]) -> None:
    """Write `lines` durably, all or nothing. Raises `OSError`."""
    _write(journal_path(state), b"".join(lines))


def _write(path: Path, text: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        view = memoryview(b"\n" + text if is_torn else text)
        try:
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError:
            os.ftruncate(descriptor, size)  # else the next line would begin in the middle of this one
            raise
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sealed(facts: dict[str, Any], given: bytes = b"") -> bytes:
    """One line of the journal; `given` is the job's input, JSON already, whose integers must stay as they are."""
    try:
        text = orjson.dumps(facts)
    except TypeError:  # half a character pair in a message
        text = json.dumps(facts).encode()
    if given:
        text = text[:-1] + b', "input": ' + given + b"}"
    return b"%08x %s\n" % (zlib.crc32(text), text)


@dataclass(slots=True)
class Journal:
    """What a journal says of itself. What it says of submits is read line by line: there may be millions."""

    base: Age | None = None
    """Where it goes on from; None when its first line is not there."""
    copied: list[Age] = field(default_factory=list)
    """Copies that may have been put in place since: they have what comes before them."""
    batch: tuple[str, str, float] | None = None
    """Name, target and making of the batch that the submits belong to."""
    bad_lines: list[int] = field(default_factory=list)
    """Numbers of the lines that were cut short or garbled; without a last one that the kernel cut (`PAGE_BYTES`)."""
    is_doubted: bool = False
    is_part: bool = False
    """True when only its first line and its end were read."""


def read_end(state: Path) -> Journal | None:
    """The journal of a state file, of a long one its first line and its end only; None when there is none. Raises
    `OSError`. Lines are numbered from there."""
    with suppress(FileNotFoundError), journal_path(state).open("rb") as file:
        if not is_long(state):
            return read(state)
        journal = Journal(is_part=True)
        _note(journal, 1, file.readline())
        for number, line in enumerate(_end_of(file), 2):
            _note(journal, number, line)
        journal.is_doubted = journal.is_doubted or _holds(file, f'"{DOUBTED}"'.encode())
        return journal
    return None


def _holds(file: BinaryIO, word: bytes) -> bool:
    """Is `word` anywhere in it? A gigabyte takes half a second."""
    file.seek(0)
    tail = b""
    while chunk := file.read(1 << 20):
        if word in tail + chunk:
            return True
        tail = chunk[-len(word) :]
    return False


def is_long(state: Path) -> bool:
    """True for a journal of which only the end is read where that is enough."""
    return journal_path(state).stat().st_size > LONG_BYTES


def last_submits(state: Path) -> Iterator[dict[str, Any]]:
    """The lines about submits at the end of a long journal."""
    with journal_path(state).open("rb") as file:
        for line in _end_of(file):
            text = _opened(line)
            if text.startswith(_SUBMIT):
                yield parse_json(text)


def _end_of(file: BinaryIO) -> Iterator[bytes]:
    """The last whole lines; without one that the kernel cut (`PAGE_BYTES`)."""
    file.seek(-END_BYTES, os.SEEK_END)
    file.readline()
    for line in file:
        if not line.endswith(b"\n") and file.tell() % PAGE_BYTES == 0:
            return
        yield line


def _note(journal: Journal, number: int, line: bytes) -> None:
    try:
        _take(journal, number, _opened(line))
    except (ValueError, KeyError, TypeError):
        journal.bad_lines.append(number)


def read(state: Path) -> Journal | None:
    """The journal of a state file; None when there is none. Raises `OSError`."""
    journal = Journal()
    with suppress(FileNotFoundError), journal_path(state).open("rb") as file:
        for number, line in enumerate(file, 1):
            if number > 1 and not line.endswith(b"\n") and file.tell() % PAGE_BYTES == 0:
                break
            _note(journal, number, line)
        return journal
    return None


def submits(state: Path) -> Iterator[dict[str, Any]]:
    """All lines about submits that can be read, in their order."""
    with suppress(FileNotFoundError), journal_path(state).open("rb") as file:
        for line in file:
            with suppress(ValueError):
                text = _opened(line)
                if text.startswith(_SUBMIT):
                    yield parse_json(text)


def _opened(line: bytes) -> bytes:
    seal, text = line[:9], line[9:-1]
    if line[-1:] != b"\n" or seal != b"%08x " % zlib.crc32(text):
        raise ValueError("not as it was written")
    return text


def _take(journal: Journal, number: int, text: bytes) -> None:
    if text.startswith(_SUBMIT):
        if journal.batch is None and b'"batch":' in text and (batch := parse_json(text)["batch"]):
            name, target, made = batch
            journal.batch = (str(name), str(target), float(made))
        return
    facts = parse_json(text)
    match facts["event"]:
        case "begun" if number == 1:
            journal.base = _age(facts["age"])
        case "copied":
            journal.copied.append(_age(facts["age"]))
        case "doubted":
            journal.is_doubted = True
        case other:
            raise ValueError(other)


def _age(words: Any) -> Age:
    made, happened, submits = words
    return Age(float(made), int(happened), int(submits))
