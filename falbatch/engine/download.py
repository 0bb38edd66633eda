"""From "completed" to "done": every file of a result on disk, whole, under its name.

For each file: fetch to a temporary name ─▶ record size, hash and path ─▶ rename. A crash after any arrow is mended
by the next run from what is on record (design §5.3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Final, Self

import anyio

from falbatch.core import changes
from falbatch.core.artifacts import APART, artifact_path, extension_of, is_apart, part_path
from falbatch.core.classify import DownloadVerdict, Failure, download_verdict, failure_of
from falbatch.core.events import JobEnded, Listener
from falbatch.core.fileinputs import marks_in
from falbatch.core.state import State
from falbatch.engine.repeat import pause_s, repeat
from falbatch.engine.wanted import Wanted, read_result, wanted_files
from falbatch.errors import WireError

if TYPE_CHECKING:
    from falbatch.core.backoff import BackoffPolicy
    from falbatch.core.record import OpenJob, StoredFile, StoredResult
    from falbatch.engine.judge import Judge, Judgement
    from falbatch.engine.ports import Clock, FetchedFile, Files, Store

TRIES: Final = 6
"""Tries to fetch one file before it is left for the next run: about a minute at the default back-off."""


GONE_TRIES: Final = 3
"""A link is believed to be dead when it was tried this often: the job was paid for."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A file that is here: under its name already, or whole under its temporary name."""

    want: Wanted
    part: str
    fetched: FetchedFile | None
    """None for one that has its name."""
    known: StoredFile | None = None

    @property
    def is_black(self) -> bool:
        """True for a picture that is all black and should not be."""
        file = self.known if self.fetched is None else self.fetched
        return file is not None and file.is_black and not self.want.may_be_black


@dataclass(frozen=True, slots=True)
class _Again:
    """A file on record, to be named anew: what is known of it stands for what a fetch tells."""

    size_bytes: int
    sha256: bytes
    content_type: str
    extension: str
    is_black: bool

    @classmethod
    def of(cls, known: StoredFile, extension: str) -> Self:
        """`known` with the extension that its name has."""
        return cls(known.size_bytes, known.sha256, known.content_type, extension, known.is_black)


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
        judge: Judge,
        listen: Listener,
    ) -> None:
        self._store = store
        self._files = files
        self._clock = clock
        self._backoff = backoff
        self._limit = anyio.Semaphore(at_once, fast_acquire=True)
        self._sidecar = sidecar
        self._judge = judge
        self._listen = listen
        self._taken: dict[str, int] = {}
        """Paths chosen in this run whose record may still be on its way, by job: two jobs never share one."""

    async def bring(self, job: OpenJob, result: StoredResult, *, is_new: bool = False) -> OpenJob:
        """`job` after its files: `done`, `failed` (a link is dead, or the result is not what was asked for), `planned`
        when it is to be rolled again, or still `completed` when its files must be tried again.
        `is_new`: the result came in this run, so no file of it is on record.

        Raises `DiskFull` and `OutputError`: nothing more can be written.
        """
        marks = marks_in(job.input_json)
        uploaded = [url for mark in marks for url in self._store.urls_of(mark.sha256)]
        read = read_result(job, result, uploaded)
        wanted = wanted_files(read, result, sidecar=self._sidecar)
        on_record = {} if is_new else {file.place: file for file in self._store.files_of(job.job_id)}
        names = {place: file.path for place, file in on_record.items()}
        # A name is for a result that is taken, now or after a retry. Where that is not sure, all files are here before
        # the first is named; others are named one by one, so that a crash costs one of them at most.
        is_judged_first = self._judge.comes_first(read)
        groups = [wanted] if is_judged_first else [[want] for want in wanted]
        found: Judgement | None = None
        has_black = False
        held: list[_Held] = []
        try:
            for group in groups:
                held = []
                for want in group:
                    held += await self._get(job, want, on_record.get(want.place), is_new=is_new)
                has_black = has_black or any(one.is_black for one in held)
                found = self._judge.judge(job, read, has_black=has_black) if is_judged_first else None
                apart = f"{APART}-{job.attempts}" if found is not None and not found.is_taken else ""
                held = [await self._off_its_name(job, one, apart) for one in held]
                await self._put(job, held, names, apart)
        except WireError as error:
            if download_verdict(error) is not DownloadVerdict.AGAIN:
                await self._put(job, held, names, "")  # nobody comes for these again
            return await self._without_files(job, error)
        found = found or self._judge.judge(job, read, has_black=has_black)
        return await self._judge.end(job, found, [names[place] for place in sorted(names)])

    async def judge_alone(self, job: OpenJob, result: StoredResult) -> OpenJob:
        """The same for a job whose files nobody wants: by what the result says alone."""
        found = self._judge.judge(job, read_result(job, result), has_black=False)
        return await self._judge.end(job, found, None)

    async def _get(self, job: OpenJob, want: Wanted, known: StoredFile | None, *, is_new: bool) -> list[_Held]:
        """Have one file, under whatever name; nothing for one that the job is done without."""
        part = part_path(job.name, want.place, job.key.hex()[:8])
        if known is not None and await self._is_there(known, part):
            return [_Held(want, part, None, known)]
        try:
            return [_Held(want, part, await self._fetch(want, part, is_new=is_new))]
        except WireError as error:
            if want.is_needed or download_verdict(error) is DownloadVerdict.AGAIN:
                raise
            await self._store.record(changes.FileSkipped(job.job_id, self._clock.unix_s(), failure_of(error)))
            return []

    async def _off_its_name(self, job: OpenJob, held: _Held, apart: str) -> _Held:
        """A file that has the name of a result that is taken, and its result is not, or the other way round, goes back
        to its temporary name, to be given another: what is on record holds for it in both places."""
        known = held.known
        if known is None or is_apart(job.name, known.path) == bool(apart):
            return held
        await self._files.publish(known.path, held.part)
        return replace(held, fetched=_Again.of(known, extension_of(job.name, known.path)))

    async def _put(self, job: OpenJob, held: list[_Held], names: dict[int, str], apart: str) -> None:
        """Give files their names. `names` are those of the job's files by place; theirs join them."""
        for one in held:
            if one.fetched is not None:
                await self._name(job, one, one.fetched, names, apart)

    async def _name(self, job: OpenJob, held: _Held, fetched: FetchedFile, names: dict[int, str], apart: str) -> None:
        want = held.want
        beside = {path.casefold() for place, path in names.items() if place != want.place}
        path = await self._free_path(job, want, fetched, beside, apart)
        names[want.place] = path
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
                is_black=fetched.is_black,
            )
        )
        await self._files.publish(held.part, path)
        self._taken.pop(path.casefold(), None)

    async def _is_there(self, known: StoredFile, part: str) -> bool:
        """Finish what an earlier run recorded: the file may be under its name, or complete and not yet renamed."""
        if await self._files.holds(known.path, size_bytes=known.size_bytes, sha256=known.sha256):
            return True
        if await self._files.holds(part, size_bytes=known.size_bytes, sha256=known.sha256):
            await self._files.publish(part, known.path)
            return True
        return False

    async def _fetch(self, want: Wanted, part: str, *, is_new: bool) -> FetchedFile:
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

    async def _free_path(self, job: OpenJob, want: Wanted, fetched: FetchedFile, beside: set[str], mark: str) -> str:
        """The path of a file, with `mark` in it if there is one.

        Another than the plain one when that is another job's, nobody's we know of, or one of `beside`, the job's other
        files: a sidecar may lie beside a file that is JSON too. A file of nobody's with the very same bytes is ours
        from a time that the state file has lost.
        """
        key = job.key.hex()[:8]
        for number in count(0):
            other = "" if number == 0 else key if number == 1 else f"{key}-{number}"
            apart = "-".join(filter(None, (mark, other)))
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
