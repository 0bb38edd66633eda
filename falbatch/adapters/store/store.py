"""The state file as a run uses it: the writer, and a reading connection beside it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from typing import TYPE_CHECKING

from falbatch.adapters.store import reader, stage
from falbatch.adapters.store.database import open_reader, open_writer, translated
from falbatch.adapters.store.writer import RESERVE_BYTES, Writer, in_transaction, log_event, reserve_path
from falbatch.core.state import Event, State, after
from falbatch.errors import StateError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from falbatch.core.changes import Change
    from falbatch.core.plan import Again
    from falbatch.core.record import OpenJob, StoredFile, StoredResult
    from falbatch.core.report import BatchStatus


class Store:
    """Everything a run asks of the state file. One at a time: the caller holds the lock of the output folder."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        self.writer = Writer(connection, path)
        self.reading = open_reader(path)

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path) -> Iterator[Store]:
        """Open or create the state file; close it whole at the end."""
        with contextlib.closing(open_writer(path)) as connection:
            _keep_room(path)
            store = cls(path, connection)
            try:
                yield store
            finally:
                store.reading.close()
                reserve_path(path).unlink(missing_ok=True)

    def check(self, *, name: str, target: str) -> None:
        """Refuse a file that belongs to another batch or another kind of fal. Writes nothing."""
        with translated(self.path):
            row = reader.batch_row(self.connection)
        if row is not None:
            _refuse_stranger(self.path, row, name, target)

    def begin(
        self, *, name: str, target: str, manifest: str, at: float, whole: bool = True, again: Again | None = None
    ) -> None:
        """Make the staged plan (`stage.fill` on `connection`) the state's, all in one transaction: claim the file,
        take in new jobs, let go of those that left, and open what the user wants `again`.

        What was being submitted when the last run ended has no answer and becomes unknown (design §5.3).
        """

        def work() -> None:
            self._claim(name, target, manifest, at)
            stage.adopt(self.connection, whole=whole, at=at)
            if again is not None:
                self._open_again(again.submit, Event.REOPENED, at)
                self._open_again(again.files, Event.FILES_WANTED, at)

        with translated(self.path):
            in_transaction(self.connection, work)

    def _claim(self, name: str, target: str, manifest: str, at: float) -> None:
        runner = json.dumps({"pid": os.getpid(), "host": platform.node(), "since": at})
        self.connection.execute(
            "INSERT INTO batch VALUES (1, ?, ?, ?, ?, ?) ON CONFLICT (one) DO UPDATE SET"
            " manifest = excluded.manifest, runner = excluded.runner",
            (name, target, manifest, at, runner),
        )
        moved = self.connection.execute(
            "UPDATE jobs SET state = ?, error_type = 'no_answer', updated_at = ?,"
            " error = 'the program ended between its submit and the answer' WHERE state = ?",
            (after(State.SUBMITTING, Event.NO_ANSWER), at, State.SUBMITTING),
        )
        log_event(self.connection, at, None, "run_started", runner)
        if moved.rowcount:
            log_event(self.connection, at, None, Event.NO_ANSWER, f"{moved.rowcount} submits had no answer")

    def _open_again(self, job_ids: Iterable[int], event: Event, at: float) -> None:
        for job_id in job_ids:
            state = State(self.connection.execute("SELECT state FROM jobs WHERE id = ?", (job_id,)).fetchone()[0])
            # A job that is submitted again has no request and no result until fal accepts it.
            forget = ", request_id = NULL" if event is Event.REOPENED else ""
            self.connection.execute(
                "UPDATE jobs SET state = ?, failures = 0, error = NULL, error_type = NULL, http_status = NULL,"
                f" updated_at = ?{forget} WHERE id = ?",
                (after(state, event), at, job_id),
            )
            if forget:
                self.connection.execute("DELETE FROM results WHERE job_id = ?", (job_id,))
            log_event(self.connection, at, job_id, event, None)

    async def record(self, *happened: Change) -> None:
        """Write changes; return when they are on disk."""
        await self.writer.record(*happened)

    def paid_jobs(self) -> list[OpenJob]:
        """Jobs whose request or result is at hand."""
        with translated(self.path):
            return reader.paid_jobs(self.reading)

    def planned_after(self, seq: int, limit: int) -> list[OpenJob]:
        """The next jobs to submit, in the manifest's order."""
        with translated(self.path):
            return reader.planned_after(self.reading, seq, limit)

    def result_of(self, job_id: int) -> StoredResult | None:
        """The stored result of a job."""
        with translated(self.path):
            return reader.result_of(self.reading, job_id)

    def files_of(self, job_id: int) -> list[StoredFile]:
        """The artifacts on record for a job."""
        with translated(self.path):
            return reader.files_of(self.reading, job_id)

    def path_owner(self, path: str) -> int | None:
        """The job that has this output path on record."""
        with translated(self.path):
            return reader.path_owner(self.reading, path)

    def status(self) -> BatchStatus:
        """How the batch stands; asked after the run's work, so nothing is being submitted."""
        with translated(self.path):
            return reader.status(self.reading, running=False)


def _keep_room(path: Path) -> None:
    """Allocate the writer's reserve; a disk without room for it has none for a run. Raises `DiskFull`."""
    with translated(path), reserve_path(path).open("wb") as file:
        file.write(b"\0" * RESERVE_BYTES)


def _refuse_stranger(path: Path, row: reader.BatchRow, name: str, target: str) -> None:
    if row.name != name:
        raise StateError(
            f'{path}: belongs to the batch "{row.name}" ({row.manifest}), not to "{name}"',
            advice="Give this manifest another `output.dir`, or the same `name` if it is the same batch.",
        )
    if row.target != target:
        raise StateError(
            f"{path}: holds work done against {_TARGETS[row.target]}; this run would go to {_TARGETS[target]}",
            advice="Use another folder (`--output DIR`), so that rehearsals and paid work never mix.",
        )


_TARGETS = {"fal": "fal", "loopback": "a server on this machine", "sandbox": "the built-in sandbox"}
