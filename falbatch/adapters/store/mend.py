"""A state file that is damaged, gone or older than what is known of it: put together again from the last good copy and
the journal, and from nothing else.

    run ends well ─▶ copy of the state file ─▶ journal begins anew
    next open ─▶ damaged, gone, or older than its copy or journal? ─▶ a new file is built beside it from both,
              │                                                      the old one set aside, the new one renamed
              └▶ submits in the journal that the file does not know? ─▶ they are written into it

Copy and journal are believed only when they fit together and are whole. Otherwise something that was paid for may be in
neither, and the run is refused: it would be paid for again.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from falbatch.adapters.store import journal as journals
from falbatch.adapters.store.database import DamagedState, check_ours, check_whole, open_writer, translated
from falbatch.adapters.store.journal import Age, Journal, age_of, copy_path, journal_path, remains, sync
from falbatch.adapters.store.recall import knows_all, note_mending, take_in
from falbatch.adapters.store.writer import in_transaction, reserve_path
from falbatch.errors import StateError
from falbatch.faultpoints import fault_point

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALWAYS_COPIED_BYTES: Final = 64 * 1024 * 1024
"""Copied and checked within some two seconds."""

COPY_SHARE: Final = 13
"""A job has about 700 bytes in the journal, and with its result 1,000 or more in the state file: a journal of this part
of the file has submitted about a tenth of its jobs."""

COMPANIONS = ("-journal", "-wal", "-shm", "")
"""What belongs to a SQLite file, itself last: a -wal that is left alone would be played into the next file."""


def is_copy_due(state: Path) -> bool:
    """True when a new copy is worth its while. What came since the last one is in the journal, but for results: those
    are read again from fal, where it has them still. Small files are always copied; of a large one, whose copy takes
    its seconds, a tenth of what it holds may be so."""
    size, journal = state.stat().st_size, journal_path(state)
    if size <= ALWAYS_COPIED_BYTES or not (copy_path(state).is_file() and journal.is_file()):
        return True
    return journal.stat().st_size * COPY_SHARE >= size


def keep_copy(state: Path, connection: sqlite3.Connection) -> None:
    """Copy a whole state file beside itself; then the journal begins anew. A damaged one never replaces a good copy.

    Raises `StateError` when the file turns out to be damaged, `DiskFull`, `OutputError`.
    """
    target = copy_path(state)
    temporary = target.with_name(target.name + ".part")
    with translated(state):
        _unlink_all(temporary)
        temporary.touch(mode=0o600)
        with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as copy:
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            check_whole(copy, state)
            age = age_of(copy)
        sync(temporary)
        fault_point("copy.written")
        journals.note_copy(state, age)
        temporary.replace(target)
        sync(target.parent)
        fault_point("copy.renamed")
        journals.begin(state, age)


def open_mended(state: Path) -> tuple[sqlite3.Connection, str]:
    """Open (or create) the state file for its writer, mended where needed; what was mended, "" when nothing.

    Raises `StateError` for a file that is foreign or newer, or damaged where copy and journal do not tell all that
    was submitted; then nothing is changed. Raises `OutputError`, `DiskFull`.
    """
    with translated(state):
        known = _Known.of(state)
        try:
            return _open_good(state, known)
        except (DamagedState, _OutdatedError) as error:
            if not known.is_anything:
                raise
            return _restore(state, known, str(error))


class _OutdatedError(Exception):
    """The state file is in order, but it is not the latest."""


@dataclass(slots=True)
class _Known:
    """What lies beside a state file."""

    state: Path
    has_copy: bool
    copy: Age | None
    """The age of the copy; None when it cannot be read."""
    journal: Journal | None
    was_killed: bool
    """True when the last run did not come to its end: the -wal that it left may have held what came last, and nobody
    can tell whether it is all there still."""
    has_wal: bool
    """True when there is a -wal: a run that was killed leaves one."""

    @classmethod
    def of(cls, state: Path) -> _Known:
        """Look. The copy is not checked yet."""
        has_copy, age = copy_path(state).is_file(), None
        if has_copy:
            with contextlib.suppress(sqlite3.Error), _open_copy(state) as copy:
                age = age_of(copy)
        has_wal = state.with_name(state.name + "-wal").exists()
        return cls(state, has_copy, age, journals.read_end(state), reserve_path(state).exists(), has_wal)

    def read_all(self) -> None:
        """Read all of a journal of which only the end was."""
        if self.journal is not None and self.journal.is_part:
            self.journal = journals.read(self.state)

    @property
    def is_anything(self) -> bool:
        """True when there is a copy or a journal."""
        return self.has_copy or self.journal is not None

    @property
    def latest(self) -> Age:
        """The state file is at least as old as this, if it is the latest."""
        journal = self.journal or Journal()
        ages = [age for age in (self.copy, journal.base, *journal.copied) if age is not None]
        return max(ages, default=Age(0.0, 0, 0))

    def check_batch(self, made: float) -> None:
        """Raises `StateError` when what lies there is of another batch than the state file."""
        journal = self.journal or Journal()
        others = {self.copy.made if self.copy else 0.0, journal.batch[2] if journal.batch else 0.0}
        others |= {age.made for age in (journal.base, *journal.copied) if age is not None}
        others = others - {0.0}
        if (made and others - {made}) or len(others) > 1:
            raise StateError(
                f"{self.state}: it is of another batch than {remains(self.state)} beside it",
                advice="Nothing was changed. Put the file back that belongs to them, or move them away if the batch "
                "that they are of is not needed any more.",
            )

    def gap(self) -> str:
        """Why copy and journal together do not tell all that was submitted; "" when they do."""
        journal = self.journal
        if journal is None or (gap := self.journal_gap()):
            return self.journal_gap()
        if self.copy is not None and self.copy in {journal.base, *journal.copied}:
            return ""
        tells_all = journal.base is not None and journal.base.submits == 0
        if tells_all and (not self.has_copy or (self.copy is None and journal.copied)):
            return gap
        name = copy_path(self.state).name
        what = "is not the one that the journal goes on from" if self.copy else "cannot be read"
        return f"its copy ({name}) {what if self.has_copy else 'is gone'}"

    def journal_gap(self) -> str:
        """Why the journal does not tell all that was submitted since it began; "" when it does."""
        journal, name = self.journal, journal_path(self.state).name
        if journal is None:
            return f"its journal ({name}) is gone"
        if journal.bad_lines:
            lines = ", ".join(map(str, journal.bad_lines[:10]))
            return f"its journal ({name}) cannot be read in line {lines}"
        return "" if journal.base is not None else f"its journal ({name}) has lost its beginning"


def _open_good(state: Path, known: _Known) -> tuple[sqlite3.Connection, str]:
    """Open a file that is in order, and write into it what only the journal knows. Raises what it is not."""
    if not (state.is_file() and state.stat().st_size) and known.is_anything:
        raise _OutdatedError(f"{state} was {'empty' if state.exists() else 'gone'}")
    connection = _open_ours(state, known)
    try:
        with translated(state):
            if not _is_up_to_date(connection, known):
                known.read_all()
        if known.journal is not None and known.journal.is_doubted:
            check_whole(connection, state, to_the_last_row=True)
        ours = age_of(connection)
        known.check_batch(ours.made)
        if ours < known.latest:
            raise _OutdatedError(f"{state} was older than what is known of it")
        with translated(state):
            added = _take_in(connection, known)
        if known.gap() or added:
            _begin_anew(state, connection, known)
    except BaseException:
        connection.close()
        raise
    return connection, f"{state} lacked submits that its journal knows of; {_updated(added)}" if added else ""


def _open_ours(state: Path, known: _Known) -> sqlite3.Connection:
    try:
        return open_writer(state)
    except DamagedState:
        raise
    except StateError as error:
        if not known.is_anything:
            raise
        raise StateError(
            str(error),
            advice=f"{error.advice} If it is none of yours, move it away: {remains(state)} beside it bring back yours.",
        ) from error


def _is_up_to_date(connection: sqlite3.Connection, known: _Known) -> bool:
    """True where the end of a long journal shows that the state file has all of it.

    A line is written after the commit that it repeats, and before the next: a file that has the last lines has had all
    before them. Hands could mix times in one file by taking a -wal away while it was being moved into the file; but
    the rows of the last submits are on the pages that every commit writes anew, so what lacks anything lacks those.
    Anything that is bad, doubted or not known there, or a -wal that is gone after a kill, has all lines read. A bad
    line further up is met when the file must be put together again, as it always was for one that went bad later.
    """
    journal = known.journal
    if journal is None or not journal.is_part or journal.is_doubted or journal.bad_lines:
        return False
    if known.gap() or (known.was_killed and not known.has_wal):
        return False
    return knows_all(connection, journals.last_submits(known.state))


def _take_in(connection: sqlite3.Connection, known: _Known) -> int:
    if known.journal is not None and known.journal.is_part:
        return 0  # it has it all
    added = 0

    def work() -> None:
        nonlocal added
        added = take_in(connection, journals.submits(known.state))
        gap = known.journal_gap()
        if added and gap:
            raise _refusal(known, f"{known.state}: the state file lacks what was written last, and {gap}")
        if known.was_killed and gap:
            raise _refusal(known, f"{known.state}: the last run was cut short, and {gap}")
        if added:
            note_mending(connection, above=known.latest.happened, what=_updated(added))

    in_transaction(connection, work)
    return added


def _updated(count: int) -> str:
    return f"{count} jobs were brought up to date from the journal"


def _begin_anew(state: Path, connection: sqlite3.Connection, known: _Known) -> None:
    """Copy and journal tell everything again, before the first submit."""
    age = age_of(connection)
    if age.submits == 0 and not known.is_anything:
        journals.begin(state, age)
    else:
        keep_copy(state, connection)


def _restore(state: Path, known: _Known, why: str) -> tuple[sqlite3.Connection, str]:
    """Build the file anew, whole, beside the old one; then set that aside."""
    known.read_all()
    known.check_batch(0.0)
    copy = known.copy
    try:
        if copy is not None:
            _check_copy(state)
    except DamagedState:
        copy = known.copy = None
    if gap := known.gap():
        raise _refusal(known, f"{why}, and {gap}")
    built = state.with_name(state.name + ".mending")
    _unlink_all(built)
    built.touch(mode=0o600)
    if copy is not None:
        with _open_copy(state) as good, contextlib.closing(sqlite3.connect(built)) as place:
            good.backup(place)
    with contextlib.closing(open_writer(built)) as connection:
        said = _fill(connection, known, why, copied=copy is not None)
        check_whole(connection, built)
    sync(built)
    fault_point("mend.built")
    aside = _set_aside(state)
    fault_point("mend.aside")
    built.replace(state)
    sync(state.parent)
    fault_point("mend.placed")
    return open_writer(state), said + (f"; what was there is kept as {aside}" if aside else "")


def _fill(connection: sqlite3.Connection, known: _Known, why: str, *, copied: bool) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(copy_path(known.state).stat().st_mtime)) if copied else ""
    said = f"{why}; the copy of {when} took its place" if copied else f"{why}; it was made anew"

    def work() -> None:
        nonlocal said
        if added := take_in(connection, journals.submits(known.state)):
            said += f"; {_updated(added)}"
        note_mending(connection, above=known.latest.happened, what=said)

    in_transaction(connection, work)
    return said


def _set_aside(state: Path) -> str:
    """Keep what is there, with its companions, under a name that says what it is; "" when nothing is there."""
    found = [ending for ending in COMPANIONS if state.with_name(state.name + ending).exists()]
    if not found:
        return ""
    stem = f"{state.stem}.set-aside-{time.strftime('%Y%m%d-%H%M%S')}"
    number, name = 1, f"{stem}{state.suffix}"
    while any(state.with_name(name + ending).exists() for ending in COMPANIONS):
        number += 1
        name = f"{stem}-{number}{state.suffix}"
    for ending in found:
        state.with_name(state.name + ending).rename(state.with_name(name + ending))
    sync(state.parent)  # before anything else gets the name: see COMPANIONS
    return name + found[-1]


@contextlib.contextmanager
def _open_copy(state: Path) -> Iterator[sqlite3.Connection]:
    """The copy as it is: nothing beside it is looked at, nothing is locked or written."""
    address = f"file:{quote(str(copy_path(state)))}?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
        yield connection


def _check_copy(state: Path) -> None:
    """Raises `DamagedState`, and `StateError` for a copy that a newer falbatch made."""
    copy = copy_path(state)
    with translated(copy), _open_copy(state) as connection:
        check_ours(connection, copy)
        check_whole(connection, copy)


def _refusal(known: _Known, what: str) -> StateError:
    state = known.state
    copy, journal, reserve = copy_path(state).name, journal_path(state).name, reserve_path(state).name
    if known.journal is not None and known.journal.bad_lines:
        how = f"delete those lines of {journal}"
    elif known.copy is not None:
        how = f"put {copy} in the place of {state.name} and remove {journal} and {reserve}"
    elif known.is_anything:
        how = f"move {copy} and {journal} away, which starts the batch anew"
    else:
        how = f"remove {reserve}"
    return StateError(
        f"{what}: not all that was submitted is known",
        advice=f"Nothing was submitted. Put a good {state.name} back if you have one. To go on without what is lost, "
        f"{how}; look at your fal dashboard first: what only fal knows of would be paid for a second time.",
    )


def _unlink_all(place: Path) -> None:
    for ending in COMPANIONS:
        place.with_name(place.name + ending).unlink(missing_ok=True)
