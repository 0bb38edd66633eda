"""The state file as a run uses it: the writer, and a reading connection beside it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from typing import TYPE_CHECKING

from falbatch.adapters.store import aside, canary, durations, journal, reader, spending, stage, uploads
from falbatch.adapters.store.apply import log_event
from falbatch.adapters.store.database import DamagedState, open_reader, translated
from falbatch.adapters.store.mend import is_copy_due, keep_copy, open_mended
from falbatch.adapters.store.writer import RESERVE_BYTES, Writer, in_transaction, reserve_path
from falbatch.core.flags import FLAGGED, JUDGED
from falbatch.core.state import Event, State, after
from falbatch.errors import FalbatchError, StateError
from falbatch.faultpoints import fault_point

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from falbatch.adapters.store.basis import Basis
    from falbatch.adapters.store.jobs import ManifestJobs
    from falbatch.core.canary import Wish
    from falbatch.core.changes import Change
    from falbatch.core.fileinputs import FileMark, Upload
    from falbatch.core.money import Learned, Price, Purse
    from falbatch.core.plan import Again
    from falbatch.core.reconcile import LostSubmit
    from falbatch.core.record import AttemptOnRecord, OpenJob, StoredFile, StoredResult
    from falbatch.core.report import BatchStatus


class Store:
    """Everything a run asks of the state file. One at a time: the caller holds the lock of the output folder."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        self.writer = Writer(connection, path)
        self.reading = open_reader(path, is_checked=True)
        self._had_recorded = False
        self._has_copied = False
        self.timed: Callable[[float], None] | None = None
        """Told how many seconds each `record` took; None: nobody wants to know."""
        self.mended = ""
        """What had to be put together again when the file was opened, in words; "" for nothing."""

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path) -> Iterator[Store]:
        """Open or create the state file; close it whole at the end."""
        connection, mended = open_mended(path)
        with contextlib.closing(connection):
            _keep_room(path)
            store = cls(path, connection)
            store.mended = mended
            try:
                yield store
                store.keep_copy()
            finally:
                store.reading.close()
                reserve_path(path).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    journal.tidy(path)

    @property
    def is_copy_due(self) -> bool:
        """True when `keep_copy` has something to do."""
        if self._has_copied or not (self.has_recorded or self.mended or journal.tells(self.path)):
            return False
        return bool(self.mended) or is_copy_due(self.path)

    def keep_copy(self) -> None:
        """Copy the file beside itself where a copy is due, after a run's work: in a thread where a loop goes on, for a
        gigabyte takes half a minute. Done at the end if nobody did it before."""
        if self.is_copy_due:
            self._has_copied = True
            # A copy that cannot be made costs nothing but itself: the journal stays, and knows the same.
            with contextlib.suppress(FalbatchError):
                keep_copy(self.path, self.connection)

    def check(self, *, name: str, target: str) -> None:
        """Refuse a file that belongs to another batch or another kind of fal. Writes nothing."""
        with translated(self.path):
            row = reader.batch_row(self.connection)
        if row is not None:
            _refuse_stranger(self.path, row, name, target)

    def begin(
        self,
        *,
        name: str,
        target: str,
        manifest: str,
        at: float,
        whole: bool = True,
        again: Again | None = None,
        jobs: ManifestJobs = stage,
        basis: Basis | None = None,
        wish: Wish | None = None,
        ends_canary: bool = True,
    ) -> None:
        """Make the plan (by default that of `stage.fill` on `connection`) the state's, all in one transaction: claim
        the file, take in new jobs, let go of those that left, and open what the user wants `again`. `basis`: what the
        plan was made from. `wish`: the canary that this run is about; without one, `ends_canary` tells that the batch
        goes on as a whole.

        What was being submitted when the last run ended has no answer and becomes unknown (design §5.3).
        """

        def work() -> None:
            self._claim(name, target, manifest, at)
            jobs.adopt(self.connection, whole=whole, at=at, basis=basis)
            if wish is not None:
                canary.keep(self.connection, wish, whole=whole)
            elif ends_canary:
                canary.end(self.connection)
            if again is not None:
                self._open_again(again.submit, Event.REOPENED, at, has_rerolls=again.has_rerolls)
                for job_id in again.aside:
                    aside.take(self.connection, job_id)
                self._open_again(again.files, Event.FILES_WANTED, at)

        with translated(self.path):
            in_transaction(self.connection, work)
        fault_point("plan.adopted")

    def _claim(self, name: str, target: str, manifest: str, at: float) -> None:
        runner = json.dumps({"pid": os.getpid(), "host": platform.node(), "since": at})
        self.connection.execute(
            "INSERT INTO batch (one, name, target, manifest, created_at, runner) VALUES (1, ?, ?, ?, ?, ?)"
            " ON CONFLICT (one) DO UPDATE SET"
            " manifest = excluded.manifest, runner = excluded.runner",
            (name, target, manifest, at, runner),
        )
        log_event(self.connection, at, None, "run_started", runner)
        self._give_up_submits(at)

    def _give_up_submits(self, at: float) -> None:
        """What has no answer is unknown: submits that nobody waits for any more, and jobs that were to be submitted
        again after such a one, and were not."""
        moved = 0
        # The plus keeps SQLite from looking through all planned jobs: those that were left open are few.
        left_open = f"+state = ? AND {spending.LEFT_OPEN}"
        for state, which in ((State.SUBMITTING, "state = ? AND state <> 'done'"), (State.PLANNED, left_open)):
            moved += self.connection.execute(
                "UPDATE jobs SET state = ?, error_type = 'no_answer', updated_at = ?,"
                f" error = 'its submit got no answer' WHERE {which}",
                (after(state, Event.NO_ANSWER), at, state),
            ).rowcount
        if moved:
            log_event(self.connection, at, None, Event.NO_ANSWER, f"{moved} jobs have submits without an answer")

    def resume(self, *, at: float) -> None:
        """Go on with the state as it is, without a manifest: what was being submitted becomes unknown."""
        with translated(self.path):
            in_transaction(self.connection, lambda: self._give_up_submits(at))

    def new_writer(self) -> Writer:
        """A writer for one run; the one before has ended."""
        self._had_recorded = self.has_recorded
        self._has_copied = False
        self.writer = Writer(self.connection, self.path)
        return self.writer

    @property
    def has_recorded(self) -> bool:
        """True when changes were written since the file was opened."""
        return self._had_recorded or self.writer.has_written

    def _open_again(self, job_ids: Iterable[int], event: Event, at: float, *, has_rerolls: bool = False) -> None:
        for job_id in job_ids:
            row = self.connection.execute("SELECT state, error_type FROM jobs WHERE id = ?", (job_id,)).fetchone()
            state = State(row[0])
            if event is Event.REOPENED and row[1] in JUDGED:
                aside.put(self.connection, job_id)
            # A job that is submitted again has no request and no result until fal accepts it.
            forget = ", request_id = NULL" if event is Event.REOPENED else ""
            if forget and state is not State.UNKNOWN:  # what got no answer is sent again as it was
                # A seed whose result was flagged would give it again, at its price.
                roll = f"roll + (error_type IS '{FLAGGED}')" if has_rerolls else "0"
                self.connection.execute(f"UPDATE jobs SET roll = {roll} WHERE id = ?", (job_id,))
            self.connection.execute(
                "UPDATE jobs SET state = ?, failures = 0, error = NULL, error_type = NULL, http_status = NULL,"
                " marked = NULL,"
                f" updated_at = ?{forget} WHERE id = ?",
                (after(state, event), at, job_id),
            )
            if forget:
                self.connection.execute("DELETE FROM results WHERE job_id = ?", (job_id,))
            log_event(self.connection, at, job_id, event, None)

    async def record(self, *happened: Change) -> None:
        """Write changes; return when they are on disk."""
        if self.timed is None:
            await self.writer.record(*happened)
            return
        began_s = time.monotonic()
        await self.writer.record(*happened)
        self.timed(time.monotonic() - began_s)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """A file that is too large to be checked at every open shows its damage here: the next run looks closely."""
        try:
            with translated(self.path):
                yield
        except DamagedState:
            with contextlib.suppress(OSError):
                journal.note_doubt(self.path)
            raise

    def paid_jobs(self) -> list[OpenJob]:
        """Jobs whose request or result is at hand."""
        with self._reading():
            return reader.paid_jobs(self.reading)

    def planned_endpoints(self) -> list[str]:
        """The endpoints of planned jobs."""
        with self._reading():
            return reader.planned_endpoints(self.reading)

    def planned_of(self, endpoint: str, seq: int, limit: int) -> list[OpenJob]:
        """The next jobs to submit to an endpoint, in the manifest's order."""
        with self._reading():
            return reader.planned_of(self.reading, endpoint, seq, limit)

    def result_of(self, job_id: int) -> StoredResult | None:
        """The stored result of a job."""
        with self._reading():
            return reader.result_of(self.reading, job_id)

    def files_of(self, job_id: int) -> list[StoredFile]:
        """The artifacts on record for a job."""
        with self._reading():
            return reader.files_of(self.reading, job_id)

    def path_owner(self, path: str) -> int | None:
        """The job that has this output path on record."""
        with self._reading():
            return reader.path_owner(self.reading, path)

    def lost_submits(self) -> list[LostSubmit]:
        """Submits without an answer."""
        with self._reading():
            return spending.lost_submits(self.reading)

    def has_unknown(self) -> bool:
        """True when some job's submit got no answer."""
        with self._reading():
            return spending.has_unknown(self.reading)

    def has_paid(self) -> bool:
        """True when something is at fal, or is here without its files."""
        with self._reading():
            return spending.has_paid(self.reading)

    def known_requests(self, request_ids: Collection[str]) -> set[str]:
        """Those of `request_ids` that are on record."""
        with self._reading():
            return spending.known_requests(self.reading, request_ids)

    def upload_of(self, mark: FileMark, terms: str) -> Upload | None:
        """The latest upload of a file of an input on these terms."""
        with self._reading():
            return uploads.latest(self.reading, mark, terms)

    def paths_of(self, sha256: bytes) -> list[str]:
        """Where a content lies on this machine, as last seen."""
        with self._reading():
            return uploads.paths_of(self.reading, sha256)

    def urls_of(self, sha256: bytes) -> list[str]:
        """Every URL that a content had at fal."""
        with self._reading():
            return uploads.urls_of(self.reading, sha256)

    def is_under_way(self, endpoint: str, input_json: bytes) -> bool:
        """True while a submit of this very input waits for its answer."""
        with self._reading():
            return spending.is_under_way(self.reading, endpoint, input_json)

    def is_selected(self, job_id: int) -> bool:
        """False for a job outside of the part that this run is about."""
        with self._reading():
            return reader.is_selected(self.reading, job_id)

    def is_left_open(self, job_id: int) -> bool:
        """True when the latest submit of a job that may have been accepted got no answer."""
        with self._reading():
            return spending.is_left_open(self.reading, job_id)

    def job(self, job_id: int) -> OpenJob:
        """One job as it stands now."""
        with self._reading():
            return reader.job(self.reading, job_id)

    def sketches(self) -> dict[str, bytes]:
        """What was learned of durations, by endpoint."""
        with self._reading():
            return durations.sketches(self.reading)

    def attempt(self, job_id: int, attempt: int) -> AttemptOnRecord | None:
        """One submit as it stands now; None when there was none."""
        with self._reading():
            return reader.attempt(self.reading, job_id, attempt)

    def callback_secret(self) -> bytes | None:
        """What makes this batch's callback tokens; None before the first run that needed it."""
        with self._reading():
            return reader.callback_secret(self.connection)

    def keep_callback_secret(self, secret: bytes) -> None:
        """Keep the secret for all later runs: calls may come late. A batch that has one keeps it. After `begin`."""

        def work() -> None:
            self.connection.execute("UPDATE batch SET callback_secret = coalesce(callback_secret, ?)", (secret,))

        with translated(self.path):
            in_transaction(self.connection, work)

    def purse(self, limit: int | None) -> Purse:
        """The batch's money as it stands on record."""
        with self._reading():
            return spending.purse(self.reading, limit)

    def prices(self) -> dict[str, Price]:
        """fal's prices as they were last heard, by endpoint."""
        with self._reading():
            return spending.prices(self.reading)

    def unsettled_endpoints(self) -> list[str]:
        """The endpoints of jobs whose cost is still open."""
        with self._reading():
            return spending.unsettled_endpoints(self.reading)

    def take_prices(self, heard: Mapping[str, Price], in_force: Mapping[str, Price]) -> None:
        """Keep the prices that fal named; reckon what ended before a price was known. Before a run's work begins."""

        def work() -> None:
            spending.keep_prices(self.connection, heard)
            spending.price_ended(self.connection, in_force.items())

        with self._reading():
            in_transaction(self.connection, work)

    def bills(self, endpoint: str) -> list[tuple[bytes, float]]:
        """(input, billable units) of the dearest requests to `endpoint`."""
        with self._reading():
            return spending.bills(self.reading, endpoint)

    def sample_bills(self, endpoints: Collection[str]) -> dict[str, list[tuple[bytes, float]]]:
        """(input, billable units) of some requests to each of `endpoints`, whatever they cost."""
        with self._reading():
            return spending.sample_bills(self.reading, endpoints)

    def learned(self) -> dict[tuple[str, str], dict[str, Learned]]:
        """What was learned from bills, by endpoint and measure, then by variant."""
        with self._reading():
            return spending.learned(self.reading)

    def reserve_open(self, expected: Callable[[str, bytes], int]) -> None:
        """Raise what is reserved for what is at fal or lost to what it is expected to cost. Before a run's work."""
        with self._reading():
            in_transaction(self.connection, lambda: spending.reserve_open(self.connection, expected))

    def status(self) -> BatchStatus:
        """How the batch stands; asked after the run's work, so nothing is being submitted."""
        with self._reading():
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
