"""Files of inputs on their way to fal, before anything that costs money.

    marker ─▶ on record with a URL that is good? ─yes─▶ body
                 └─no─▶ upload ─▶ URL on disk ─▶ body          (each content once at a time, a few at once)

A kill between upload and record costs a second upload, never money.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import anyio

from falbatch.core import changes
from falbatch.core.classify import Failure, failure_of, is_account_trouble, is_worth_reading_again
from falbatch.core.events import FileUploaded, JobEnded, JobMoved, Listener
from falbatch.core.fileinputs import FileMark, FileUnusable, Travel, marks_in, with_files
from falbatch.core.seeds import with_seed
from falbatch.core.state import UNSENT, IllegalTransition, State
from falbatch.engine.gate import GateClosed, SubmitGate
from falbatch.errors import CredentialsError, FalUnreachable, WireError
from falbatch.faultpoints import fault_point

if TYPE_CHECKING:
    from falbatch.core.record import OpenJob
    from falbatch.engine.ports import Clock, Storage, Store

GIVEN_UP_MOST: Final = 3
"""Contents in a row that did not get through, each with all its tries, after which nothing more is submitted."""


@dataclass(slots=True)
class _Flight:
    """One content on its way; others who need it wait."""

    landed: anyio.Event = field(default_factory=anyio.Event)
    url: str = ""
    error: Exception | None = None


class InputFiles:
    """The files that inputs name, as URLs or inside them. One for all submits of a run."""

    def __init__(
        self,
        *,
        store: Store,
        storage: Storage | None,
        clock: Clock,
        gate: SubmitGate,
        at_once: int,
        listen: Listener,
    ) -> None:
        self._store = store
        self._given_storage = storage
        self._clock = clock
        self._gate = gate
        self._limit = anyio.Semaphore(at_once, fast_acquire=True)
        self._listen = listen
        self._flights: dict[FileMark, _Flight] = {}
        self._lost: dict[FileMark, FileUnusable | WireError] = {}
        """Contents that did not get through in this run, or cannot: the other jobs that name them need not try."""
        self._given_up_in_a_row = 0

    async def ready(self, job: OpenJob) -> OpenJob:
        """`job`, with all its files at fal; `failed` when one of them cannot be sent.

        Raises `GateClosed` when one did not get through this time: the job is `planned` as before.
        """
        marks = [mark for mark in marks_in(job.input_json) if mark.travel is Travel.URL]
        if not marks:
            return job
        try:
            for mark in marks:
                await self._url(job, mark)
        except (FileUnusable, WireError) as error:
            return await self._without(job, error)
        return job

    async def with_body(self, job: OpenJob) -> OpenJob:
        """`job` with what is to leave. Raises `GateClosed` when it cannot be made: the job is left, or `failed`."""
        marks, seed = marks_in(job.input_json), job.seed
        if not marks and seed is None:
            return job
        texts: dict[FileMark, str] = {}
        try:
            for mark in marks:
                is_url = mark.travel is Travel.URL
                # A URL that was good when the job began to wait may have ended since.
                texts[mark] = await (self._url(job, mark) if is_url else self._data_uri(mark))
        except (FileUnusable, WireError) as error:
            await self._without(job, error)
            raise GateClosed from error
        return replace(job, body=with_files(with_seed(job.input_json, seed), texts.__getitem__))

    @property
    def _storage(self) -> Storage:
        if self._given_storage is None:
            raise AssertionError("a run that submits has a storage")
        return self._given_storage

    async def _data_uri(self, mark: FileMark) -> str:
        paths = self._store.paths_of(mark.sha256)
        return await self._storage.data_uri(paths, mark.sha256, mark.content_type)

    async def _url(self, job: OpenJob, mark: FileMark) -> str:
        while True:
            known = self._store.upload_of(mark, self._storage.terms.text)
            if known is not None and known.is_good(self._clock.unix_s()):
                return known.url
            if mark in self._lost:
                raise _anew(self._lost[mark])
            flight = self._flights.get(mark)
            if flight is None:
                return await self._fly(job, mark)
            await flight.landed.wait()
            if flight.error is not None:
                raise _anew(flight.error)
            if flight.url:
                return flight.url

    async def _fly(self, job: OpenJob, mark: FileMark) -> str:
        flight = self._flights[mark] = _Flight()
        try:
            flight.url = await self._upload(job, mark)
        except Exception as error:
            flight.error = error
            raise
        finally:
            del self._flights[mark]
            flight.landed.set()
        return flight.url

    async def _upload(self, job: OpenJob, mark: FileMark) -> str:
        terms = self._storage.terms
        async with self._limit:
            if self._gate.is_closed:
                raise GateClosed
            at = self._clock.unix_s()
            self._listen(JobMoved(job.name, "", "", "UPLOADING"))
            try:
                uploaded = await self._storage.upload(self._store.paths_of(mark.sha256), mark.sha256, mark.content_type)
            except FileUnusable as error:
                self._lost[mark] = error
                raise
            except WireError as error:
                self._gave_up(mark, error)
                raise
            finally:
                self._listen(JobMoved(job.name, "", "UPLOADING", ""))
        fault_point("upload.answered")
        self._given_up_in_a_row = 0
        await self._store.record(
            changes.UploadStored(
                job.job_id,
                at,
                sha256=mark.sha256,
                content_type=mark.content_type,
                terms=terms.text,
                url=uploaded.url,
                size_bytes=uploaded.size_bytes,
                expires_at=terms.expires_at(at, uploaded.expires_at),
            )
        )
        self._listen(FileUploaded(uploaded.url, uploaded.size_bytes))
        return uploaded.url

    def _gave_up(self, mark: FileMark, error: WireError) -> None:
        """The storage was asked as often as makes sense. Were it asked for each of thousands, a run would never end."""
        if is_account_trouble(error):
            advice = "Nothing was marked failed. Check the key and the account; the same command goes on."
            self._gate.close(CredentialsError(f"fal takes no uploads: {error}", advice=advice))
            return
        self._lost[mark] = error
        if is_worth_reading_again(error):
            self._given_up_in_a_row += 1
            if self._given_up_in_a_row >= GIVEN_UP_MOST:
                advice = "Check the network and fal's status page; what is uploaded stays. The same command goes on."
                self._gate.close(FalUnreachable(f"files of inputs cannot be uploaded: {error}", advice=advice))

    async def _without(self, job: OpenJob, error: FileUnusable | WireError) -> OpenJob:
        """A file that cannot be sent ends its job, at no cost; one that did not get through does not."""
        at = self._clock.unix_s()
        if isinstance(error, WireError) and (is_account_trouble(error) or is_worth_reading_again(error)):
            failure = Failure(UNSENT, f"a file of the input was not uploaded: {error}", failure_of(error).http_status)
            await self._stuck(job, failure, at)
            raise GateClosed from error
        if isinstance(error, FileUnusable):
            failure = Failure(error.error_type, str(error))
        else:
            failure = Failure("upload_failed", f"fal does not take the file: {error}", failure_of(error).http_status)
        if self._store.is_left_open(job.job_id):
            # It was to be submitted again, and its earlier submit may have run: it stays what it was, unknown.
            await self._stuck(job, failure, at)
            raise GateClosed from error
        try:
            await self._store.record(changes.InputFailed(job.job_id, at, failure))
        except IllegalTransition:
            raise GateClosed from None  # its earlier submit was found at fal: whoever found it goes on with it
        self._listen(JobEnded(job.job_id, job.key, job.name, State.FAILED, failure, job.endpoint))
        return replace(job, state=State.FAILED)

    async def _stuck(self, job: OpenJob, failure: Failure, at: float) -> None:
        await self._store.record(changes.Stuck(job.job_id, at, failure))
        self._listen(JobEnded(job.job_id, job.key, job.name, State.PLANNED, failure, job.endpoint))


def _anew(error: Exception) -> Exception:
    """An error that many jobs raise. Each raise would add to its traceback, and so keep that job in memory."""
    return error.with_traceback(None)
