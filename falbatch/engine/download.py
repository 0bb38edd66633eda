"""From "completed" to "done": every file of a result on disk, whole, under its name.

For each file: fetch to a temporary name ─▶ record size, hash and path ─▶ rename. A crash after any arrow is mended
by the next run from what is on record (design §5.3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import anyio

from falbatch.core import changes
from falbatch.core.artifacts import artifact_path, find_files, part_path
from falbatch.core.classify import DownloadVerdict, Failure, download_verdict, failure_of
from falbatch.core.events import JobEnded, Listener
from falbatch.core.fileinputs import marks_in, without_echoes
from falbatch.core.identity import input_of
from falbatch.core.state import State
from falbatch.engine.repeat import pause_s, repeat
from falbatch.errors import WireError
from falbatch.exactjson import parse_json

if TYPE_CHECKING:
    from collections.abc import Collection

    from falbatch.core.backoff import BackoffPolicy
    from falbatch.core.record import OpenJob, StoredFile, StoredResult
    from falbatch.engine.ports import Clock, FetchedFile, Files, Store

TRIES: Final = 6
"""Tries to fetch one file before it is left for the next run: about a minute at the default back-off."""


GONE_TRIES: Final = 3
"""A link is believed to be dead when it was tried this often: the job was paid for."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One file to have: by its URL, or as bytes that are at hand."""

    place: int
    of: int = 1
    """Files that are numbered together; 1: it has the job's name alone."""
    url: str = ""
    body: bytes | None = None
    content_type: str | None = None
    size_bytes: int | None = None
    extension: str = ""
    """In place of what its bytes say; "" for that."""
    is_needed: bool = True
    """False: the job is done without it (a bare link beside real files, such as a licence or a web page)."""


class Downloader:
    """The download stage of one run. `at_once` files are fetched at a time."""

    def __init__(
        self,
        *,
        store: Store,
        files: Files,
        clock: Clock,
        backoff: BackoffPolicy,
        at_once: int,
        sidecar: bool,
        listen: Listener,
    ) -> None:
        self._store = store
        self._files = files
        self._clock = clock
        self._backoff = backoff
        self._limit = anyio.Semaphore(at_once, fast_acquire=True)
        self._sidecar = sidecar
        self._listen = listen
        self._taken: dict[str, int] = {}
        """Paths chosen in this run whose record may still be on its way, by job: two jobs never share one."""

    async def bring(self, job: OpenJob, result: StoredResult, *, is_new: bool = False) -> OpenJob:
        """`job` after its files: `done`, `failed` (a link is dead), or still `completed` when it must be tried again.
        `is_new`: the result came in this run, so no file of it is on record.

        Raises `DiskFull` and `OutputError`: nothing more can be written.
        """
        marks = marks_in(job.input_json)
        uploaded = [url for mark in marks for url in self._store.urls_of(mark.sha256)]
        wanted = wanted_files(job, result, sidecar=self._sidecar, uploaded=uploaded)
        on_record = {} if is_new else {file.place: file for file in self._store.files_of(job.job_id)}
        paths = {place: file.path.casefold() for place, file in on_record.items()}
        try:
            for want in wanted:
                try:
                    await self._have(job, want, on_record.get(want.place), paths, is_new=is_new)
                except WireError as error:
                    if want.is_needed or download_verdict(error) is DownloadVerdict.AGAIN:
                        raise
                    await self._store.record(changes.FileSkipped(job.job_id, self._clock.unix_s(), failure_of(error)))
        except WireError as error:
            return await self._without_files(job, error)
        await self._store.record(changes.FilesStored(job.job_id, self._clock.unix_s()))
        self._listen(JobEnded(job.job_id, job.key, job.name, State.DONE, None, job.endpoint))
        return replace(job, state=State.DONE)

    async def _have(
        self, job: OpenJob, want: _Wanted, known: StoredFile | None, paths: dict[int, str], *, is_new: bool
    ) -> None:
        """Have one file. `paths`, folded, are those of the job's files by place; its own joins them."""
        part = part_path(job.name, want.place, job.key.hex()[:8])
        if known is not None and await self._is_there(known, part):
            return
        fetched = await self._fetch(want, part, is_new=is_new)
        beside = {path for place, path in paths.items() if place != want.place}
        path = await self._free_path(job, want, fetched, beside)
        paths[want.place] = path.casefold()
        await self._store.record(
            changes.FileReady(
                job.job_id,
                want.place,
                url="" if want.url.startswith("data:") else want.url,
                path=path,
                size_bytes=fetched.size_bytes,
                sha256=fetched.sha256,
                content_type=fetched.content_type,
                at=self._clock.unix_s(),
            )
        )
        await self._files.publish(part, path)
        self._taken.pop(path.casefold(), None)

    async def _is_there(self, known: StoredFile, part: str) -> bool:
        """Finish what an earlier run recorded: the file may be under its name, or complete and not yet renamed."""
        if await self._files.holds(known.path, size_bytes=known.size_bytes, sha256=known.sha256):
            return True
        if not known.stored and await self._files.holds(part, size_bytes=known.size_bytes, sha256=known.sha256):
            await self._files.publish(part, known.path)
            return True
        return False

    async def _fetch(self, want: _Wanted, part: str, *, is_new: bool) -> FetchedFile:
        tries = 0

        async def call() -> FetchedFile:
            nonlocal tries
            tries += 1
            async with self._limit:  # not over the pause after a failure: a slow server must not stall the others
                if want.body is not None:
                    return await self._files.keep(want.body, part, content_type=want.content_type)
                return await self._files.fetch(
                    want.url,
                    part,
                    size_bytes=want.size_bytes,
                    content_type=want.content_type,
                    is_new=is_new and tries == 1,
                )

        def is_worth_it(error: BaseException) -> bool:
            if not isinstance(error, WireError):
                return False
            verdict = download_verdict(error)
            return verdict is DownloadVerdict.AGAIN or (verdict is DownloadVerdict.GONE and tries < GONE_TRIES)

        return await repeat(
            call,
            if_=is_worth_it,
            wait_s=lambda failures, error: pause_s(failures, error, self._backoff, self._clock),
            sleep=self._clock.sleep,
            attempts=TRIES,
        )

    async def _free_path(self, job: OpenJob, want: _Wanted, fetched: FetchedFile, beside: set[str]) -> str:
        """The path of a file; another than the plain one when that is another job's, nobody's we know of, or one of
        `beside`, the job's other files: a sidecar may lie beside a file that is JSON too. A file of nobody's with the
        very same bytes is ours from a time that the state file has lost."""
        key = job.key.hex()[:8]
        for number in count(0):
            apart = "" if number == 0 else key if number == 1 else f"{key}-{number}"
            path = artifact_path(job.name, want.place, want.of, want.extension or fetched.extension, apart=apart)
            if path.casefold() in beside:
                continue
            owner = self._owner(path)
            is_free = owner == job.job_id or (owner is None and not self._files.is_taken(path))
            if not is_free and owner is None:
                is_free = await self._files.holds(path, size_bytes=fetched.size_bytes, sha256=fetched.sha256)
                is_free = is_free and self._owner(path) is None
            if is_free:
                self._taken[path.casefold()] = job.job_id
                return path
        raise AssertionError("count() has no end")

    def _owner(self, path: str) -> int | None:
        return self._taken.get(path.casefold()) or self._store.path_owner(path)

    async def _without_files(self, job: OpenJob, error: WireError) -> OpenJob:
        failure = failure_of(error)
        at = self._clock.unix_s()
        match download_verdict(error):
            case DownloadVerdict.AGAIN:
                await self._store.record(changes.Stuck(job.job_id, at, failure))
                self._listen(JobEnded(job.job_id, job.key, job.name, State.COMPLETED, failure, job.endpoint))
                return job
            case DownloadVerdict.GONE:
                failure = Failure("file_gone", f"the result's link is dead: {error}", failure.http_status)
            case DownloadVerdict.REFUSED:
                failure = Failure("file_refused", f"the result's file is not taken: {error}", failure.http_status)
        await self._store.record(changes.FilesGone(job.job_id, at, failure))
        self._listen(JobEnded(job.job_id, job.key, job.name, State.FAILED, failure, job.endpoint))
        return replace(job, state=State.FAILED)


EVENTS: Final = ".events.jsonl"
"""Extension of the file with all events of a stream."""


def wanted_files(job: OpenJob, result: StoredResult, *, sidecar: bool, uploaded: Collection[str] = ()) -> list[_Wanted]:
    """The files that a result stands for: those it points at; itself when it is no JSON, or points at none; the
    sidecar with the whole result when that is wanted; and the events that came before it. `uploaded` are the URLs of
    the input's own files, which a result may name again."""
    wanted = _wanted_of_result(job, result, sidecar=sidecar, uploaded=uploaded)
    if result.events is not None:
        events = _Wanted(len(wanted), body=result.events, content_type="application/x-ndjson", extension=EVENTS)
        wanted.append(events)
    return wanted


def _wanted_of_result(job: OpenJob, result: StoredResult, *, sidecar: bool, uploaded: Collection[str]) -> list[_Wanted]:
    output: Any = None
    is_json = _may_be_json(result.content_type)
    if is_json:
        try:
            output = parse_json(result.body)
        except ValueError:
            is_json = False
    if not is_json:
        return [_Wanted(0, body=result.body, content_type=result.content_type)]
    given = {"input": input_of(job.input_json), "uploaded": list(uploaded)}
    refs = without_echoes(find_files(output, given), marks_in(job.input_json))
    has_objects = any(ref.is_object for ref in refs)
    wanted = [
        _Wanted(
            place,
            len(refs),
            url=ref.url,
            content_type=ref.content_type,
            size_bytes=ref.size_bytes,
            is_needed=ref.is_object or not has_objects,
        )
        for place, ref in enumerate(refs)
    ]
    if sidecar or not wanted:
        wanted.append(_Wanted(len(wanted), body=result.body, content_type="application/json"))
    return wanted


def _may_be_json(content_type: str) -> bool:
    """By its type, or for want of one: the same words as `fal/wire` has for it."""
    bare = content_type.partition(";")[0].strip().lower()
    return not bare or bare == "application/json" or bare.endswith("+json")
