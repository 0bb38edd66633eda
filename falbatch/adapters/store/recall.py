"""What the journal knows and a state file does not, written into the file. Nothing is invented: a job whose submit
left is where that submit left it, and without a known answer it is unknown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from falbatch.adapters.store.apply import log_event
from falbatch.adapters.store.journal import STARTED
from falbatch.core.identity import canonical_json
from falbatch.core.model import Mode
from falbatch.core.state import Event, State
from falbatch.errors import StateError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

GENERATION: Final = 1_000_000_000
"""What happens to a mended file is counted from the next multiple of this: whatever the lost one had, it is older."""

_STATES: Final = {
    None: State.UNKNOWN,
    Event.NO_ANSWER.value: State.UNKNOWN,
    Event.ACCEPTED.value: State.SUBMITTED,
    Event.FOUND.value: State.SUBMITTED,
    Event.REJECTED.value: State.FAILED,
    Event.REFUSED.value: State.PLANNED,
}
"""Where the outcome of its latest submit leaves a job. Whether its result came since is not known: it is read again."""


_NO_ANSWER: Final = ("no_answer", "the state file was lost between its submit and the answer", None)

_ANSWER_LOST: Final = ("no_answer", "the state file was lost with the answer of its direct call", None)


def take_in(connection: sqlite3.Connection, lines: Iterable[dict[str, Any]]) -> int:
    """Write what the journal's lines tell and the file does not know. Returns the number of jobs that this was about.

    The caller holds a transaction. Raises `StateError` for a job of which nobody says what it is.
    """
    touched: set[int] = set()
    for line in lines:
        try:
            touched |= _take_in_line(connection, line)
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(
                f"a line of the journal is not understood ({type(error).__name__}: {error})",
                advice="Upgrade falbatch; nothing was changed.",
            ) from error
    return len(touched)


def knows_all(connection: sqlite3.Connection, lines: Iterable[dict[str, Any]]) -> bool:
    """True when a state file has all that these lines tell. Where there are none, or one makes no sense, nothing is
    known."""
    is_known = False
    for line in lines:
        try:
            key, number, event = bytes.fromhex(line["key"]), line["attempt"], line["event"]
        except (KeyError, TypeError, ValueError):
            return False
        known = connection.execute(
            "SELECT a.outcome FROM jobs j JOIN attempts a ON a.job_id = j.id WHERE j.key = ? AND a.attempt = ?",
            (key, number),
        ).fetchone()
        is_known = known is not None and not _is_news(None if event == STARTED else event, known[0])
        if not is_known:
            return False
    return is_known


def note_mending(connection: sqlite3.Connection, *, above: int, what: str) -> None:
    """Log that the file was mended; it is later now than `above` and than all that happened to it."""
    log_event(connection, time.time(), None, "mended", what)
    connection.execute("UPDATE totals SET happened = (max(happened, ?) / ? + 1) * ?", (above, GENERATION, GENERATION))


def _take_in_line(connection: sqlite3.Connection, line: dict[str, Any]) -> set[int]:
    """Take in one line; the job that it changed."""
    key, number = bytes.fromhex(line["key"]), line["attempt"]
    row = connection.execute("SELECT id, attempts FROM jobs WHERE key = ?", (key,)).fetchone()
    job_id, attempts = row or (_insert_job(connection, key, line), 0)
    line = _without_answer(connection, job_id, line)
    outcome = None if line["event"] == STARTED else line["event"]
    known = connection.execute(
        "SELECT outcome FROM attempts WHERE job_id = ? AND attempt = ?", (job_id, number)
    ).fetchone()
    if known is not None and not _is_news(outcome, known[0]):
        return set()
    why = line.get("why", _NO_ANSWER if outcome is None else (None, None, None))
    if known is None:
        connection.execute(
            "INSERT INTO attempts (job_id, attempt, started_at, reserved_nano, sent_sha256, seed)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (job_id, number, line.get("since", line["at"]), line.get("reserved", 0), _sent(line), line.get("seed")),
        )
        connection.execute("UPDATE jobs SET roll = max(roll, ?) WHERE id = ?", (line.get("roll", 0), job_id))
    if outcome is not None:
        _end_attempt(connection, job_id, line, why[1])
    is_followed = line.get("followed", False)
    if not is_followed:
        _supersede(connection, job_id, before=max(number, attempts))
    if number >= attempts or is_followed:
        _bring_up_to_date(connection, job_id, line, _STATES[outcome], why)
    return {job_id}


def _without_answer(connection: sqlite3.Connection, job_id: int, line: dict[str, Any]) -> dict[str, Any]:
    """A direct call's answer came with its acceptance, and went with the file: it is looked for in fal's list, by the
    id that it named."""
    (mode,) = connection.execute("SELECT mode FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if not Mode(mode).is_direct or "request_id" not in line:
        return line
    kept = {name: value for name, value in line.items() if name not in {"request_id", "followed"}}
    return {**kept, "event": Event.NO_ANSWER.value, "named_id": line["request_id"], "why": _ANSWER_LOST}


def _sent(line: dict[str, Any]) -> bytes | None:
    return bytes.fromhex(line["sent"]) if "sent" in line else None


def _is_news(outcome: str | None, known: str | None) -> bool:
    """True when `outcome` says more than the file knows of this attempt: an answer after none, a request found."""
    return outcome is not None and (known is None or (outcome == Event.FOUND and known == Event.NO_ANSWER))


def _insert_job(connection: sqlite3.Connection, key: bytes, line: dict[str, Any]) -> int:
    """A job of which nothing is left but its submits; the manifest gives it its place again."""
    if "input" not in line:
        raise StateError(
            f"the journal tells of a submit of job {line['key'][:12].lower()}, and nothing says what that job is",
            advice="Nothing was submitted. Put a newer copy of the state file in its place.",
        )
    what = [line[name] for name in ("name", "endpoint", "mode", "replica", "origin")]
    cursor = connection.execute(
        "INSERT INTO jobs (key, seq, name, endpoint, mode, replica, origin, input, state, updated_at)"
        " VALUES (?, NULL, ?, ?, ?, ?, ?, ?, 'planned', ?)",
        (key, *what, canonical_json(line["input"]), line["at"]),
    )
    if line["batch"] is not None:
        connection.execute(
            "INSERT OR IGNORE INTO batch (one, name, target, manifest, created_at, runner)"
            " VALUES (1, ?, ?, '', ?, '{}')",
            line["batch"],
        )
    return int(cursor.lastrowid or 0)


def _supersede(connection: sqlite3.Connection, job_id: int, *, before: int) -> None:
    """Another submit left, so nobody follows the one before: what became of it is not known, and it is reckoned as it
    was expected."""
    connection.execute(
        "UPDATE requests SET status = 'superseded', ended_at = accepted_at, cost_nano = (SELECT reserved_nano"
        " FROM attempts a WHERE a.job_id = requests.job_id AND a.attempt = requests.attempt)"
        " WHERE job_id = ? AND attempt < ? AND status = 'accepted'",
        (job_id, before),
    )


def _end_attempt(connection: sqlite3.Connection, job_id: int, line: dict[str, Any], error: str | None) -> None:
    connection.execute(
        "UPDATE attempts SET ended_at = ?, outcome = ?, error = ?, named_id = coalesce(?, named_id)"
        " WHERE job_id = ? AND attempt = ?",
        (line["at"], line["event"], error, line.get("named_id") or None, job_id, line["attempt"]),
    )
    if "request_id" in line:
        connection.execute(
            "INSERT OR IGNORE INTO requests (request_id, job_id, attempt, status_url, response_url, cancel_url,"
            " status, accepted_at) VALUES (?, ?, ?, '', '', '', 'accepted', ?)",
            (line["request_id"], job_id, line["attempt"], line["at"]),
        )


def _bring_up_to_date(
    connection: sqlite3.Connection, job_id: int, line: dict[str, Any], state: State, why: Sequence[Any]
) -> None:
    blame = why if state in {State.UNKNOWN, State.FAILED} else (None, None, None)
    connection.execute(
        "UPDATE jobs SET state = ?, attempts = max(attempts, ?), request_id = coalesce(?, request_id), error_type = ?,"
        " error = ?,"
        " http_status = ?, updated_at = ? WHERE id = ?",
        (state, line["attempt"], line.get("request_id"), *blame, line["at"], job_id),
    )
    if state is State.SUBMITTED:
        connection.execute("DELETE FROM results WHERE job_id = ?", (job_id,))
