"""What each change writes: one function per kind, all in the caller's transaction."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Final

from falbatch.adapters.store.uploads import keep
from falbatch.core import changes
from falbatch.core.state import TRANSITIONS, Event, IllegalTransition, State

if TYPE_CHECKING:
    import sqlite3

    from falbatch.core.changes import Change
    from falbatch.core.classify import Failure

_FROM_STATE: Final[dict[Event, str]] = {
    event: ",".join(f"'{before}'" for (before, e), _ in TRANSITIONS.items() if e is event) for event in Event
}
_TO_STATE: Final[dict[Event, State]] = {event: after for (_, event), after in TRANSITIONS.items()}


def move(connection: sqlite3.Connection, change: Change) -> None:
    """Bring the job to the state that follows; refuse what the table does not allow."""
    event: Event | None = getattr(change, "event", None)
    if event is None:
        return
    moved = connection.execute(
        f"UPDATE jobs SET state = ?, updated_at = ? WHERE id = ? AND state IN ({_FROM_STATE[event]})",
        (_TO_STATE[event], change.at, change.job_id),
    )
    if moved.rowcount != 1:
        raise IllegalTransition(f"job {change.job_id} cannot see {event} in its state")


def log_event(connection: sqlite3.Connection, at: float, job_id: int | None, event: str, detail: str | None) -> None:
    """Append to the story of the batch."""
    connection.execute(
        "INSERT INTO events (at, job_id, event, detail) VALUES (?, ?, ?, ?)", (at, job_id, event, detail)
    )


@singledispatch
def write(change: Change, connection: sqlite3.Connection) -> None:  # noqa: ARG001  (the signature of all)
    """Write the details of one change; its state was moved already."""
    raise TypeError(f"no table takes a {type(change).__name__}")


@write.register(changes.SubmitStarted)
def _(change: changes.SubmitStarted, connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE jobs SET attempts = ? WHERE id = ?", (change.attempt, change.job_id))
    connection.execute(
        "INSERT INTO attempts (job_id, attempt, started_at, reserved_nano, sent_sha256) VALUES (?, ?, ?, ?, ?)",
        (change.job_id, change.attempt, change.at, change.reserved, change.sent_sha256),
    )


@write.register(changes.SubmitNotAccepted)
def _(change: changes.SubmitNotAccepted, connection: sqlite3.Connection) -> None:
    _end_attempt(connection, change.job_id, change.attempt, change.at, change.event, change.failure.message)
    if change.request_id:
        connection.execute(
            "UPDATE attempts SET named_id = ? WHERE job_id = ? AND attempt = ?",
            (change.request_id, change.job_id, change.attempt),
        )
    if change.event is not Event.REFUSED:
        _blame(connection, change.job_id, change.failure)
    log_event(connection, change.at, change.job_id, change.event, change.failure.error_type)


@write.register(changes.SubmitAccepted)
def _(change: changes.SubmitAccepted, connection: sqlite3.Connection) -> None:
    _end_attempt(connection, change.job_id, change.attempt, change.at, change.event, None)
    connection.execute(
        "INSERT INTO requests (request_id, job_id, attempt, status_url, response_url, cancel_url, status,"
        " queue_position, accepted_at) VALUES (?, ?, ?, ?, ?, ?, 'accepted', ?, ?)",
        (
            change.request_id,
            change.job_id,
            change.attempt,
            change.status_url,
            change.response_url,
            change.cancel_url,
            change.queue_position,
            change.at,
        ),
    )
    connection.execute(
        "UPDATE jobs SET request_id = ?, error_type = NULL, error = NULL, http_status = NULL WHERE id = ?",
        (change.request_id, change.job_id),
    )
    log_event(connection, change.at, change.job_id, change.event, change.request_id)


@write.register(changes.RequestFound)
def _(change: changes.RequestFound, connection: sqlite3.Connection) -> None:
    connection.execute(
        "UPDATE attempts SET outcome = 'found', ended_at = coalesce(ended_at, ?) WHERE job_id = ? AND attempt = ?",
        (change.at, change.job_id, change.attempt),
    )
    is_followed = change.event is not None
    connection.execute(
        "INSERT INTO requests (request_id, job_id, attempt, status_url, response_url, cancel_url, status, accepted_at,"
        " ended_at, cost_nano) VALUES (?, ?, ?, '', '', '', ?, ?, ?, ?)",
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
    if is_followed:
        connection.execute(
            "UPDATE jobs SET request_id = ?, error_type = NULL, error = NULL, http_status = NULL WHERE id = ?",
            (change.request_id, change.job_id),
        )
    log_event(connection, change.at, change.job_id, Event.FOUND, change.request_id)


@write.register(changes.RequestEnded)
def _(change: changes.RequestEnded, connection: sqlite3.Connection) -> None:
    status = "cancelled" if change.event is Event.REQUEST_CANCELLED else "failed"
    connection.execute(
        "UPDATE requests SET status = ?, ended_at = ?, http_status = ?, error_type = ?, billable_units = ?,"
        " cost_nano = ? WHERE request_id = ?",
        (
            status,
            change.at,
            change.failure.http_status,
            change.failure.error_type,
            change.billable_units,
            change.cost,
            change.request_id,
        ),
    )
    _blame(connection, change.job_id, change.failure)
    connection.execute("UPDATE jobs SET failures = failures + 1 WHERE id = ?", (change.job_id,))
    log_event(connection, change.at, change.job_id, change.event, change.failure.error_type)


@write.register(changes.ResultStored)
def _(change: changes.ResultStored, connection: sqlite3.Connection) -> None:
    connection.execute(
        "UPDATE requests SET status = 'completed', ended_at = ?, http_status = 200, inference_s = ?,"
        " billable_units = ?, cost_nano = ? WHERE request_id = ?",
        (change.at, change.inference_s, change.billable_units, change.cost, change.request_id),
    )
    connection.execute(
        "INSERT OR REPLACE INTO results (job_id, request_id, content_type, body, events) VALUES (?, ?, ?, ?, ?)",
        (change.job_id, change.request_id, change.content_type, change.body, change.events),
    )
    _clear_blame(connection, change.job_id)
    # A new result makes the files of an older one, if there was any, nobody's.
    connection.execute("DELETE FROM artifacts WHERE job_id = ?", (change.job_id,))
    log_event(connection, change.at, change.job_id, change.event, change.request_id)


@write.register(changes.FileReady)
def _(change: changes.FileReady, connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT INTO artifacts (job_id, place, path, path_fold, url, size_bytes, sha256, content_type)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (job_id, place) DO UPDATE SET path = excluded.path,"
        " path_fold = excluded.path_fold, url = excluded.url, size_bytes = excluded.size_bytes,"
        " sha256 = excluded.sha256, content_type = excluded.content_type, stored = 0",
        (
            change.job_id,
            change.place,
            change.path,
            change.path.casefold(),
            change.url,
            change.size_bytes,
            change.sha256,
            change.content_type,
        ),
    )


@write.register(changes.FilesStored)
def _(change: changes.FilesStored, connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE artifacts SET stored = 1 WHERE job_id = ?", (change.job_id,))
    _clear_blame(connection, change.job_id)
    log_event(connection, change.at, change.job_id, change.event, None)


@write.register(changes.FilesGone)
def _(change: changes.FilesGone, connection: sqlite3.Connection) -> None:
    _blame(connection, change.job_id, change.failure)
    log_event(connection, change.at, change.job_id, change.event, change.failure.message)


@write.register(changes.FileSkipped)
def _(change: changes.FileSkipped, connection: sqlite3.Connection) -> None:
    log_event(connection, change.at, change.job_id, "file_skipped", change.failure.message)


@write.register(changes.Stuck)
def _(change: changes.Stuck, connection: sqlite3.Connection) -> None:
    _blame(connection, change.job_id, change.failure)
    log_event(connection, change.at, change.job_id, "stuck", change.failure.message)


@write.register(changes.UploadStored)
def _(change: changes.UploadStored, connection: sqlite3.Connection) -> None:
    keep(connection, change)
    log_event(connection, change.at, change.job_id, "upload_stored", change.url)


@write.register(changes.InputFailed)
def _(change: changes.InputFailed, connection: sqlite3.Connection) -> None:
    _blame(connection, change.job_id, change.failure)
    log_event(connection, change.at, change.job_id, change.event, change.failure.message)


def _end_attempt(
    connection: sqlite3.Connection, job_id: int, attempt: int, at: float, outcome: Event, error: str | None
) -> None:
    connection.execute(
        "UPDATE attempts SET ended_at = ?, outcome = ?, error = ? WHERE job_id = ? AND attempt = ?",
        (at, outcome, error, job_id, attempt),
    )


def _blame(connection: sqlite3.Connection, job_id: int, failure: Failure) -> None:
    connection.execute(
        "UPDATE jobs SET error_type = ?, error = ?, http_status = ? WHERE id = ?",
        (failure.error_type, failure.message, failure.http_status, job_id),
    )


def _clear_blame(connection: sqlite3.Connection, job_id: int) -> None:
    connection.execute("UPDATE jobs SET error_type = NULL, error = NULL, http_status = NULL WHERE id = ?", (job_id,))
