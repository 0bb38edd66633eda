"""What each change writes: one function per kind, all in the caller's transaction.

A job's row is written once for each change, state and details together; the statements are made here once, so that
SQLite parses each of them once. What goes as it should leaves no event behind: the other tables tell it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from falbatch.adapters.store import aside, durations
from falbatch.adapters.store.addresses import Addresses
from falbatch.adapters.store.spending import learn
from falbatch.adapters.store.uploads import keep
from falbatch.core import changes
from falbatch.core.identity import canonical_json
from falbatch.core.state import TRANSITIONS, Event, IllegalTransition

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

    from falbatch.core.changes import Change
    from falbatch.core.classify import Failure

_BLAME: Final = "error_type = ?, error = ?, http_status = ?"
_NO_BLAME: Final = "error_type = NULL, error = NULL, http_status = NULL"


_EVENTS: Final = tuple(dict.fromkeys(event for _, event in TRANSITIONS))
"""The events of the table, each once."""


def _moves(details: str) -> dict[Event, str]:
    """The statement that brings a job to the state that follows on each event, with `details` written as well."""
    after = {event: state for (_, event), state in TRANSITIONS.items()}
    before = {event: ",".join(f"'{state}'" for state, each in TRANSITIONS if each is event) for event in _EVENTS}
    return {
        event: f"UPDATE jobs SET state = '{after[event]}', updated_at = ?{details}"
        f" WHERE id = ? AND state IN ({before[event]})"
        for event in _EVENTS
    }


_MOVE: Final = _moves("")
_MOVE_BLAMED: Final = _moves(f", {_BLAME}")
_FAIL_REQUEST: Final = _moves(f", {_BLAME}, failures = failures + 1")
_START: Final = _moves(", attempts = ?")[Event.SUBMIT_STARTED]
_TAKE_REQUEST: Final = _moves(f", request_id = ?, {_NO_BLAME}")
_CLEAR: Final = _moves(f", {_NO_BLAME}")
_KEEP_RESULT: Final = _moves(f", {_NO_BLAME}, unjudged = 1")[Event.RESULT_STORED]
_REROLL: Final = _moves(f", {_NO_BLAME}, roll = ?, failures = failures + 1, request_id = NULL")[Event.REROLLED]

_END_ATTEMPT: Final = "UPDATE attempts SET ended_at = ?, outcome = ?, error = ? WHERE job_id = ? AND attempt = ?"


def log_event(connection: sqlite3.Connection, at: float, job_id: int | None, event: str, detail: str | None) -> None:
    """Append to the story of the batch."""
    connection.execute(
        "INSERT INTO events (at, job_id, event, detail) VALUES (?, ?, ?, ?)", (at, job_id, event, detail)
    )


class Applier:
    """Writes changes over one connection, which holds a transaction. After a rollback: `forget`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._addresses = Addresses(connection)

    def forget(self) -> None:
        """What was written last is not there."""
        self._addresses.forget()

    def apply(self, happened: Iterable[Change]) -> None:
        """Write changes in their order. Raises `IllegalTransition` for one that cannot happen to its job."""
        count = 0
        for change in happened:
            _WRITE[type(change)](self, change)
            count += 1
        self._connection.execute("UPDATE totals SET happened = happened + ?", (count,))

    def _move(self, statement: str, change: Any, *details: object) -> None:
        """Bring the job to the state that follows; refuse what the table does not allow."""
        moved = self._connection.execute(statement, (change.at, *details, change.job_id))
        if moved.rowcount != 1:
            raise IllegalTransition(f"job {change.job_id} cannot see {change.event} in its state")

    def _log(self, change: Any, event: str, detail: str | None) -> None:
        log_event(self._connection, change.at, change.job_id, event, detail)

    def submit_started(self, change: changes.SubmitStarted) -> None:
        self._move(_START, change, change.attempt)
        self._connection.execute(
            "INSERT INTO attempts (job_id, attempt, started_at, reserved_nano, sent_sha256, seed)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (change.job_id, change.attempt, change.at, change.reserved, change.sent_sha256, change.seed),
        )

    def submit_not_accepted(self, change: changes.SubmitNotAccepted) -> None:
        failure = change.failure
        if change.event is Event.REFUSED:
            self._move(_MOVE[change.event], change)
        else:
            self._move(_MOVE_BLAMED[change.event], change, *_blame(failure))
        self._connection.execute(
            _END_ATTEMPT, (change.at, change.event, failure.message, change.job_id, change.attempt)
        )
        if change.request_id:
            self._connection.execute(
                "UPDATE attempts SET named_id = ? WHERE job_id = ? AND attempt = ?",
                (change.request_id, change.job_id, change.attempt),
            )
        self._log(change, change.event, failure.error_type)

    def submit_accepted(self, change: changes.SubmitAccepted) -> None:
        self._move(_TAKE_REQUEST[change.event], change, change.request_id)
        self._connection.execute(_END_ATTEMPT, (change.at, change.event, None, change.job_id, change.attempt))
        urls = change.status_url, change.response_url, change.cancel_url
        self._connection.execute(
            "INSERT INTO requests (request_id, job_id, attempt, status, queue_position, accepted_at, address,"
            " status_url, response_url, cancel_url) VALUES (?, ?, ?, 'accepted', ?, ?, ?, ?, ?, ?)",
            (
                change.request_id,
                change.job_id,
                change.attempt,
                change.queue_position,
                change.at,
                *self._addresses.kept(change.request_id, urls),
            ),
        )

    def request_found(self, change: changes.RequestFound) -> None:
        if change.event is not None:
            self._move(_TAKE_REQUEST[change.event], change, change.request_id)
        self._connection.execute(
            "UPDATE attempts SET outcome = 'found', ended_at = coalesce(ended_at, ?) WHERE job_id = ? AND attempt = ?",
            (change.at, change.job_id, change.attempt),
        )
        is_followed = change.event is not None
        self._connection.execute(
            "INSERT INTO requests (request_id, job_id, attempt, status_url, response_url, cancel_url, status,"
            " accepted_at, ended_at, cost_nano) VALUES (?, ?, ?, '', '', '', ?, ?, ?, ?)",
            (
                change.request_id,
                change.job_id,
                change.attempt,
                "accepted" if is_followed else "superseded",
                change.accepted_at,
                None if is_followed else change.at,
                None if is_followed else change.cost,
            ),
        )
        self._log(change, Event.FOUND, change.request_id)

    def request_ended(self, change: changes.RequestEnded) -> None:
        failure = change.failure
        self._move(_FAIL_REQUEST[change.event], change, *_blame(failure))
        status = "cancelled" if change.event is Event.REQUEST_CANCELLED else "failed"
        self._connection.execute(
            "UPDATE requests SET status = ?, ended_at = ?, http_status = ?, error_type = ?, billable_units = ?,"
            " cost_nano = ? WHERE request_id = ?",
            (
                status,
                change.at,
                failure.http_status,
                failure.error_type,
                change.billable_units,
                change.cost,
                change.request_id,
            ),
        )
        self._log(change, change.event, failure.error_type)

    def result_stored(self, change: changes.ResultStored) -> None:
        self._move(_KEEP_RESULT, change)
        self._connection.execute(
            "UPDATE requests SET status = 'completed', ended_at = ?, http_status = 200, inference_s = ?,"
            " billable_units = ?, cost_nano = ? WHERE request_id = ?",
            (change.at, change.inference_s, change.billable_units, change.cost, change.request_id),
        )
        if change.bill is not None:
            learn(self._connection, change.bill)
        self._connection.execute(
            "INSERT OR REPLACE INTO results (job_id, content_type, body, events) VALUES (?, ?, ?, ?)",
            (change.job_id, change.content_type, change.body, change.events),
        )
        # A new result makes the files of an older one, if there was any, nobody's.
        self._connection.execute("DELETE FROM artifacts WHERE job_id = ?", (change.job_id,))

    def file_ready(self, change: changes.FileReady) -> None:
        fold = change.path.casefold()
        self._connection.execute(
            "INSERT INTO artifacts (job_id, place, path, path_fold, size_bytes, sha256, content_type, black)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (job_id, place) DO UPDATE SET path = excluded.path,"
            " path_fold = excluded.path_fold, size_bytes = excluded.size_bytes, sha256 = excluded.sha256,"
            " content_type = excluded.content_type, black = excluded.black, stored = 0",
            (
                change.job_id,
                change.place,
                change.path,
                None if fold == change.path else fold,
                change.size_bytes,
                change.sha256,
                change.content_type,
                int(change.is_black),
            ),
        )

    def files_stored(self, change: changes.FilesStored) -> None:
        self._move(_CLEAR[change.event], change)
        self._connection.execute("UPDATE artifacts SET stored = 1 WHERE job_id = ?", (change.job_id,))

    def result_flagged(self, change: changes.ResultFlagged) -> None:
        seen = change.noticed
        text = canonical_json({"flags": seen.flags, "seed": seen.seed, "files": seen.files}).decode()
        self._connection.execute("UPDATE requests SET flagged = ? WHERE request_id = ?", (text, change.request_id))
        marked = ",".join(seen.flags) if change.is_marked else None
        self._connection.execute("UPDATE jobs SET marked = ?, unjudged = 0 WHERE id = ?", (marked, change.job_id))

    def result_taken(self, change: changes.ResultTaken) -> None:
        self._connection.execute("UPDATE jobs SET unjudged = 0 WHERE id = ?", (change.job_id,))

    def result_refused(self, change: changes.ResultRefused) -> None:
        self.ended_by_us(change)
        self._connection.execute("UPDATE artifacts SET stored = 1 WHERE job_id = ?", (change.job_id,))

    def rerolled(self, change: changes.Rerolled) -> None:
        aside.put(self._connection, change.job_id)  # the place is the next result's
        self._move(_REROLL, change, change.roll)
        self._log(change, change.event, str(change.roll))

    def ended_by_us(self, change: changes.FilesGone | changes.InputFailed | changes.ResultRefused) -> None:
        self._move(_MOVE_BLAMED[change.event], change, *_blame(change.failure))
        self._log(change, change.event, change.failure.message)

    def file_skipped(self, change: changes.FileSkipped) -> None:
        self._log(change, "file_skipped", change.failure.message)

    def stuck(self, change: changes.Stuck) -> None:
        self._connection.execute(f"UPDATE jobs SET {_BLAME} WHERE id = ?", (*_blame(change.failure), change.job_id))
        self._log(change, "stuck", change.failure.message)

    def upload_stored(self, change: changes.UploadStored) -> None:
        keep(self._connection, change)
        self._log(change, "upload_stored", change.url)

    def durations_learned(self, change: changes.DurationsLearned) -> None:
        durations.keep(self._connection, change)


def _blame(failure: Failure) -> tuple[object, ...]:
    return failure.error_type, failure.message, failure.http_status


_WRITE: Final[dict[type, Callable[[Applier, Any], None]]] = {
    changes.SubmitStarted: Applier.submit_started,
    changes.SubmitNotAccepted: Applier.submit_not_accepted,
    changes.SubmitAccepted: Applier.submit_accepted,
    changes.RequestFound: Applier.request_found,
    changes.RequestEnded: Applier.request_ended,
    changes.ResultStored: Applier.result_stored,
    changes.FileReady: Applier.file_ready,
    changes.FilesStored: Applier.files_stored,
    changes.FilesGone: Applier.ended_by_us,
    changes.InputFailed: Applier.ended_by_us,
    changes.ResultFlagged: Applier.result_flagged,
    changes.ResultTaken: Applier.result_taken,
    changes.ResultRefused: Applier.result_refused,
    changes.Rerolled: Applier.rerolled,
    changes.FileSkipped: Applier.file_skipped,
    changes.Stuck: Applier.stuck,
    changes.UploadStored: Applier.upload_stored,
    changes.DurationsLearned: Applier.durations_learned,
}
