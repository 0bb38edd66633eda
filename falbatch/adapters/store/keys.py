"""The keys of staged jobs, where they depend on all of them together: replicas among equals, seeds that follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from falbatch.core.identity import job_key
from falbatch.core.model import JobKey, Mode
from falbatch.core.naming import fold
from falbatch.core.seeds import MARK_JSON, with_derived_seed

if TYPE_CHECKING:
    import sqlite3

CHUNK: Final = 1_000
"""Jobs written at a time."""

SHORT_KEY: Final = 12
"""Hex digits of the key in a default name: 48 bits keep a million names apart, and a clash is found anyway."""


def settle_keys(connection: sqlite3.Connection, *, has_seeds: bool) -> None:
    """Number the jobs of the stage that are alike; where inputs have seeds to be derived, derive them."""
    _number_replicas(connection)
    if has_seeds:
        _derive_seeds(connection)
        _number_replicas(connection)  # two of many replicas may have drawn the same number


def default_name(label: str, key: JobKey) -> str:
    """The name of a job whose manifest gives none: readable where there is something to read, stable, unique."""
    return f"{label}-{key.hex()[:SHORT_KEY]}" if label else key.hex()[:SHORT_KEY]


def _number_replicas(connection: sqlite3.Connection) -> None:
    """Rows that render to the same job are its replicas 0, 1, 2 … in the manifest's order (design §5.2)."""
    connection.execute("DROP TABLE IF EXISTS temp.twins")
    connection.execute("CREATE TEMP TABLE twins (seq INTEGER PRIMARY KEY, replica INTEGER)")
    connection.execute(
        "INSERT INTO twins SELECT seq, n FROM"
        " (SELECT seq, row_number() OVER (PARTITION BY key ORDER BY seq) - 1 AS n FROM stage) WHERE n > 0"
    )
    last = -1
    while alike := connection.execute(_TWINS, (last, CHUNK)).fetchall():
        connection.executemany(
            "UPDATE stage SET key = ?, replica = ?, name = ?, fold = ? WHERE seq = ?", map(_as_replica, alike)
        )
        last = alike[-1][0]
    connection.execute("DROP TABLE temp.twins")


def _derive_seeds(connection: sqlite3.Connection) -> None:
    """Inputs with a mark get the number that their key and replica number decide, and the key that follows from it."""
    last = -1
    while marked := connection.execute(_MARKED, (last, MARK_JSON, CHUNK)).fetchall():
        connection.executemany(
            "UPDATE stage SET key = ?, replica = 0, name = ?, fold = ?, input = ? WHERE seq = ?",
            map(_with_seed, marked),
        )
        last = marked[-1][0]


_MARKED: Final = (
    "SELECT seq, key, label, named, name, endpoint, mode, input FROM stage WHERE seq > ? AND instr(input, ?) > 0"
    " ORDER BY seq LIMIT ?"
)


def _with_seed(row: tuple[Any, ...]) -> tuple[object, ...]:
    seq, before, label, named, name, endpoint, mode, marked = row
    input_json = with_derived_seed(marked, before)
    key = job_key(endpoint, Mode(mode), input_json, 0)
    settled = name if named else default_name(label, key)
    return key, settled, fold(settled), input_json, seq


_TWINS: Final = (
    "SELECT t.seq, t.replica, s.label, s.named, s.name, s.endpoint, s.mode, s.input"
    " FROM twins t JOIN stage s ON s.seq = t.seq WHERE t.seq > ? ORDER BY t.seq LIMIT ?"
)


def _as_replica(row: tuple[Any, ...]) -> tuple[object, ...]:
    seq, replica, label, named, name, endpoint, mode, input_json = row
    key = job_key(endpoint, Mode(mode), input_json, replica)
    settled = name if named else default_name(label, key)
    return key, replica, settled, fold(settled), seq
