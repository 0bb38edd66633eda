"""What the engine's tests put behind its ports, and a loop whose time passes without anybody waiting.

Everything that waits (`Clock.sleep`, `anyio.move_on_after`, a scope's deadline) waits in the loop's time, so a test
of a night takes milliseconds, and a test that would wait for ever fails at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import selectors
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from falbatch.core import changes
from falbatch.core.identity import canonical_json, job_key
from falbatch.core.model import Mode
from falbatch.core.reconcile import Listed, LostSubmit
from falbatch.core.record import AttemptOnRecord, OpenJob, RequestOnRecord, StoredFile, StoredResult
from falbatch.core.state import Event, State, after
from falbatch.engine.uploads import InputFiles
from falbatch.errors import HttpError, TransportError

if TYPE_CHECKING:
    from falbatch.core.fileinputs import FileMark, Upload
    from falbatch.engine.gate import SubmitGate

UNIX_AT_START = 1_800_000_000.0


class _VirtualSelector(selectors.SelectSelector):
    """Does not wait for the time it is told to, but lets it pass."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise AssertionError("everybody waits, and nothing will ever happen")
            self.now_s += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time."""

    def __init__(self) -> None:
        self._virtual = _VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s


@dataclass
class FakeClock:
    """The loop's virtual time. Jitter is always the same, so that waits can be foretold."""

    fixed_jitter: float = 0.5
    slept_s: list[float] = field(default_factory=list)

    def now_s(self) -> float:
        return anyio.current_time()

    def unix_s(self) -> float:
        return UNIX_AT_START + anyio.current_time()

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        await anyio.sleep(seconds)

    def jitter(self) -> float:
        return self.fixed_jitter


@dataclass(frozen=True)
class FakeAccepted:
    request_id: str
    status_url: str = "https://queue.fal.run/status"
    response_url: str = "https://queue.fal.run/response"
    cancel_url: str = "https://queue.fal.run/cancel"
    queue_position: int | None = 0


@dataclass(frozen=True)
class FakeProgress:
    phase: str
    queue_position: int | None = None
    inference_time_s: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class FakeResult:
    body: bytes
    output: Any = None
    content_type: str = "application/json"
    billable_units: float | None = 1.0


def refused(retry_after_s: float | None = None) -> HttpError:
    return HttpError("POST: 429", status=429, from_fal=True, retry_after_s=retry_after_s)


def http(status: int, error_type: str = "", **more: Any) -> HttpError:
    return HttpError(f"answer {status}", status=status, error_type=error_type, **{"from_fal": True, **more})


def gateway(status: int) -> HttpError:
    return HttpError(f"gateway {status}", status=status)


def unsent() -> TransportError:
    return TransportError("no route to fal", sent=False, kind="connect")


def unanswered() -> TransportError:
    return TransportError("no answer in 60 s", sent=True, kind="timeout")


ONE_IMAGE = canonical_json({"images": [{"url": "https://cdn/a.png"}]})


@dataclass
class Script:
    """What one kind of call answers: what is queued up, then `default`. A callable is asked, an exception raised."""

    default: Any
    queued: deque[Any] = field(default_factory=deque)

    def then(self, *answers: Any) -> None:
        self.queued.extend(answers)

    async def answer(self, about: Any) -> Any:
        value = self.queued.popleft() if self.queued else self.default
        if callable(value):
            value = value(about)
        if isinstance(value, Awaitable):
            value = await value
        if isinstance(value, BaseException):
            raise value
        return value


@dataclass
class FakeQueue:
    """fal's queue as a script. Keeps what was asked, with the time of each call."""

    log: list[str] = field(default_factory=list)
    """Every call, in the order in which it came; shared with the store, whose changes come between."""
    latency_s: float = 0.01
    service_s: float = 1.0
    """Seconds after which a request is COMPLETED by itself."""
    submits: list[tuple[float, str]] = field(default_factory=list)
    callbacks: list[str | None] = field(default_factory=list)
    """Where fal was told to call, submit by submit."""
    polls: list[tuple[float, str]] = field(default_factory=list)
    results: list[tuple[float, str]] = field(default_factory=list)
    polling: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    most_polling: int = 0
    """Most status calls about one request at a time."""

    def __post_init__(self) -> None:
        self.on_submit = Script(self._accept)
        self.on_status = Script(self._progress)
        self.on_result = Script(lambda _request: FakeResult(ONE_IMAGE))
        self.accepted_at: dict[str, float] = {}

    def _accept(self, _body: bytes) -> FakeAccepted:
        request_id = f"r{len(self.accepted_at)}"
        self.accepted_at[request_id] = anyio.current_time()
        return FakeAccepted(request_id)

    def _progress(self, request: RequestOnRecord) -> FakeProgress:
        age_s = anyio.current_time() - self.accepted_at.get(request.request_id, float("-inf"))
        return FakeProgress("COMPLETED" if age_s >= self.service_s else "IN_PROGRESS")

    async def submit(self, endpoint: str, body: bytes, callback: str | None) -> FakeAccepted:
        self.log.append(f"submit {endpoint}")
        self.callbacks.append(callback)
        self.submits.append((anyio.current_time(), endpoint))
        await anyio.sleep(self.latency_s)
        answer = await self.on_submit.answer(body)
        assert isinstance(answer, FakeAccepted)
        return answer

    async def status(self, request: RequestOnRecord) -> FakeProgress:
        self.polls.append((anyio.current_time(), request.request_id))
        self.polling[request.request_id] += 1
        self.most_polling = max(self.most_polling, self.polling[request.request_id])
        try:
            await anyio.sleep(self.latency_s)
            answer = await self.on_status.answer(request)
        finally:
            self.polling[request.request_id] -= 1
        assert isinstance(answer, FakeProgress)
        return answer

    async def result(self, request: RequestOnRecord) -> FakeResult:
        self.log.append(f"result {request.request_id}")
        self.results.append((anyio.current_time(), request.request_id))
        await anyio.sleep(self.latency_s)
        answer = await self.on_result.answer(request)
        assert isinstance(answer, FakeResult)
        return answer


@dataclass(frozen=True)
class FakeAnswer:
    body: bytes
    content_type: str = "application/json"
    billable_units: float | None = 1.0
    request_id: str = ""
    events: bytes | None = None


@dataclass
class FakeDirect:
    """fal's direct calls as a script. Keeps what was asked, with the time of each call."""

    log: list[str] = field(default_factory=list)
    service_s: float = 1.0
    calls: list[tuple[float, Mode, bytes]] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    def __post_init__(self) -> None:
        self.on_call = Script(lambda _body: FakeAnswer(ONE_IMAGE))

    async def call(self, mode: Mode, endpoint: str, body: bytes) -> FakeAnswer:
        self.log.append(f"{mode} {endpoint}")
        self.calls.append((anyio.current_time(), mode, body))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await anyio.sleep(self.service_s)
            answer = await self.on_call.answer(body)
        finally:
            self.under_way -= 1
        assert isinstance(answer, FakeAnswer)
        return answer


@dataclass(frozen=True)
class FakePage:
    items: tuple[Listed, ...] = ()
    next_cursor: str | None = None


class FakeRequestList:
    """fal's own list of requests: what is in `listed`, or what `on_page` is told to answer."""

    def __init__(self, *, latency_s: float = 0.01) -> None:
        self.latency_s = latency_s
        self.listed: dict[str, list[Listed]] = defaultdict(list)
        """By endpoint."""
        self.asked: list[tuple[float, str, float, str | None]] = []
        """When, and with which endpoint, start and cursor."""
        self.on_page = Script(lambda endpoint: FakePage(tuple(self.listed[endpoint])))

    async def page(self, endpoint: str, *, since: float, cursor: str | None) -> FakePage:
        self.asked.append((anyio.current_time(), endpoint, since, cursor))
        await anyio.sleep(self.latency_s)
        answer = await self.on_page.answer(endpoint)
        assert isinstance(answer, FakePage)
        return answer

    def looks_s(self) -> list[float]:
        """When a first page was asked for."""
        return [at_s for at_s, _, _, cursor in self.asked if cursor is None]


def listed(request_id: str, number: int = 1, *, sent_at: float | None = UNIX_AT_START) -> Listed:
    """A request of fal's list with the input of job `number`."""
    return Listed(request_id, an_input(number), sent_at)


def an_input(number: int) -> bytes:
    return canonical_json({"seed": number})


def planned(number: int, **more: Any) -> OpenJob:
    """Job `number` (from 1), at place `number - 1` of the manifest."""
    body = an_input(number)
    job = OpenJob(
        job_id=number,
        key=job_key("fal-ai/x", Mode.QUEUE, body, 0),
        seq=number - 1,
        name=f"n{number}",
        endpoint="fal-ai/x",
        mode=Mode.QUEUE,
        input_json=body,
        state=State.PLANNED,
        attempts=0,
        failures=0,
    )
    return replace(job, **more)


def a_request(request_id: str = "old-1", accepted_at: float = UNIX_AT_START - 600) -> RequestOnRecord:
    return RequestOnRecord(request_id, "fal-ai/x", "https://s", "https://r", "https://c", accepted_at)


def unknown(number: int, **more: Any) -> OpenJob:
    """A job whose submit of an earlier run got no answer."""
    return planned(number, **{"state": State.UNKNOWN, "attempts": 1, **more})


NO_END_S = 130.0
"""So long after its start a submit without an end may still have been under way."""


@dataclass
class Attempt:
    """One submit on record."""

    left_at: float
    reserved: int = 0
    ended_at: float | None = None
    outcome: str | None = None
    named_id: str = ""

    @property
    def is_lost(self) -> bool:
        return self.outcome in {None, Event.NO_ANSWER}


class FakeStore:
    """The state file in memory: every change in order, each checked against the table of states.

    A job that is unknown at the start has one submit that was lost just before.
    """

    def __init__(self, *jobs: OpenJob, log: list[str] | None = None, latency_s: float = 0.001) -> None:
        self.jobs = {job.job_id: job for job in jobs}
        self.log = log if log is not None else []
        self.latency_s = latency_s
        self.changes: list[changes.Change] = []
        self.stored: dict[int, StoredResult] = {}
        self.files: dict[tuple[int, int], StoredFile] = {}
        self.stuck: dict[int, changes.Stuck] = {}
        self.attempts: dict[tuple[int, int], Attempt] = {
            (job.job_id, job.attempts): Attempt(UNIX_AT_START - 2.0, job.reserved, UNIX_AT_START - 1.0, Event.NO_ANSWER)
            for job in jobs
            if job.state is State.UNKNOWN
        }
        self.requests: dict[str, int] = {job.request.request_id: job.job_id for job in jobs if job.request}
        """Whose each known request is."""
        self.requests_by_attempt: dict[tuple[int, int], str] = {
            (job.job_id, job.attempts): job.request.request_id for job in jobs if job.request
        }
        self.outside: set[int] = set()
        """Jobs that the run is not about."""
        self.learned: dict[str, bytes] = {}
        """Sketches of durations by endpoint."""
        self.fails: list[Exception] = []
        """Raised by the next writes."""

    async def record(self, *happened: changes.Change) -> None:
        for change in happened:
            self._apply(change)
        await anyio.sleep(self.latency_s)
        if self.fails:
            raise self.fails.pop(0)

    def _apply(self, change: changes.Change) -> None:
        if isinstance(change, changes.DurationsLearned):
            self.learned[change.endpoint] = change.sketch
            return
        event: Event | None = getattr(change, "event", None)
        job = self.jobs[change.job_id]
        if event is not None:
            job = replace(job, state=after(job.state, event))
        match change:
            case changes.SubmitStarted(attempt=attempt):
                assert attempt == job.attempts + 1, "an attempt was lost or counted twice"
                job = replace(job, attempts=attempt, reserved=change.reserved)
                self.attempts[job.job_id, attempt] = Attempt(change.at, change.reserved)
            case changes.SubmitNotAccepted() | changes.SubmitAccepted() | changes.RequestFound():
                job = self._end_attempt(job, change)
            case changes.RequestEnded():
                job = replace(job, failures=job.failures + 1)
            case changes.ResultStored(body=body, content_type=content_type, events=events):
                job = replace(job, is_unjudged=True)
                self.stored[job.job_id] = StoredResult(body, content_type, events)
            case _:
                self.jobs[change.job_id] = job
                self._apply_to_files(change)
                job = self.jobs[change.job_id]
        self.jobs[change.job_id] = job
        self.changes.append(change)
        self.log.append(f"{event or type(change).__name__} {change.job_id}")

    def _end_attempt(
        self, job: OpenJob, change: changes.SubmitNotAccepted | changes.SubmitAccepted | changes.RequestFound
    ) -> OpenJob:
        attempt = self.attempts[change.job_id, change.attempt]
        attempt.outcome = change.event or Event.FOUND
        attempt.ended_at = attempt.ended_at or change.at
        if isinstance(change, changes.SubmitNotAccepted):
            attempt.named_id = change.request_id
            return job
        assert change.request_id not in self.requests, "one request would be two attempts'"
        self.requests[change.request_id] = change.job_id
        self.requests_by_attempt[change.job_id, change.attempt] = change.request_id
        if isinstance(change, changes.RequestFound):
            request = RequestOnRecord(change.request_id, job.endpoint, "", "", "", change.accepted_at)
            return job if change.event is None else replace(job, request=request, reserved=attempt.reserved)
        urls = (change.status_url, change.response_url, change.cancel_url)
        return replace(job, request=RequestOnRecord(change.request_id, job.endpoint, *urls, change.at))

    def _apply_to_files(self, change: changes.Change) -> None:
        match change:
            case changes.FileReady():
                self.files[change.job_id, change.place] = StoredFile(
                    change.place, change.path, change.size_bytes, change.sha256, change.content_type, 0, change.is_black
                )
            case changes.FilesStored() | changes.ResultRefused():
                for (owner, place), file in list(self.files.items()):
                    if owner == change.job_id:
                        self.files[owner, place] = replace(file, stored=1)
            case changes.ResultTaken() | changes.ResultFlagged():
                self.jobs[change.job_id] = replace(self.jobs[change.job_id], is_unjudged=False)
            case changes.Rerolled():
                job = self.jobs[change.job_id]
                self.jobs[change.job_id] = replace(job, roll=change.roll, failures=job.failures + 1, request=None)
                self.files = {place: file for place, file in self.files.items() if place[0] != change.job_id}
                del self.stored[change.job_id]
            case changes.Stuck():
                self.stuck[change.job_id] = change
            case _:
                pass

    def paid_jobs(self) -> list[OpenJob]:
        paid = [job for job in self.jobs.values() if job.state in {State.SUBMITTED, State.COMPLETED}]
        return sorted(paid, key=lambda job: (job.state is not State.SUBMITTED, job.job_id))

    def planned_endpoints(self) -> list[str]:
        return sorted({job.endpoint for job in self.jobs.values() if job.state is State.PLANNED})

    def planned_of(self, endpoint: str, seq: int, limit: int) -> list[OpenJob]:
        found = [
            job
            for job in self.jobs.values()
            if job.state is State.PLANNED and job.endpoint == endpoint and job.seq is not None and job.seq > seq
        ]
        return sorted(found, key=lambda job: job.seq or 0)[:limit]

    def result_of(self, job_id: int) -> StoredResult | None:
        return self.stored.get(job_id)

    def files_of(self, job_id: int) -> list[StoredFile]:
        return [file for (owner, _), file in sorted(self.files.items()) if owner == job_id]

    def path_owner(self, path: str) -> int | None:
        owners = [owner for (owner, _), file in self.files.items() if file.path.casefold() == path.casefold()]
        return owners[0] if owners else None

    def lost_submits(self) -> list[LostSubmit]:
        return [
            LostSubmit(
                job_id,
                number,
                self.jobs[job_id].endpoint,
                self.jobs[job_id].input_json,
                attempt.left_at,
                attempt.left_at + NO_END_S if attempt.ended_at is None else attempt.ended_at,
                self.jobs[job_id].state in {State.UNKNOWN, State.PLANNED},
                attempt.reserved,
                attempt.named_id,
                self.jobs[job_id].state is State.UNKNOWN,
                mode=self.jobs[job_id].mode,
            )
            for (job_id, number), attempt in self.attempts.items()
            if attempt.is_lost and not self._is_latest_under_way(job_id, number)
        ]

    def _is_latest_under_way(self, job_id: int, attempt: int) -> bool:
        job = self.jobs[job_id]
        return job.state is State.SUBMITTING and job.attempts == attempt

    def known_requests(self, request_ids: Collection[str]) -> set[str]:
        return set(request_ids) & set(self.requests)

    def upload_of(self, mark: FileMark, terms: str) -> Upload | None:
        return None

    def paths_of(self, sha256: bytes) -> list[str]:
        return []

    def urls_of(self, sha256: bytes) -> list[str]:
        return []

    def is_under_way(self, endpoint: str, input_json: bytes) -> bool:
        return any(
            job.state is State.SUBMITTING and job.endpoint == endpoint and job.input_json == input_json
            for job in self.jobs.values()
        )

    def is_selected(self, job_id: int) -> bool:
        return job_id not in self.outside

    def is_left_open(self, job_id: int) -> bool:
        open_now = False
        for (owner, _), attempt in sorted(self.attempts.items()):
            if owner == job_id and attempt.outcome in {Event.ACCEPTED, Event.FOUND, Event.REJECTED}:
                open_now = False
            elif owner == job_id and attempt.is_lost:
                open_now = True
        return open_now

    def attempt(self, job_id: int, attempt: int) -> AttemptOnRecord | None:
        request_id = self.requests_by_attempt.get((job_id, attempt))
        tried = self.attempts.get((job_id, attempt))
        if tried is None and request_id is None:
            return None
        job = self.jobs[job_id]
        outcome = Event.ACCEPTED if tried is None else tried.outcome
        known = None if outcome is None else Event(outcome)
        return AttemptOnRecord(known, request_id, job.state, attempt == job.attempts)

    def sketches(self) -> dict[str, bytes]:
        return dict(self.learned)

    def job(self, job_id: int) -> OpenJob:
        return self.jobs[job_id]

    def state_of(self, number: int) -> State:
        return self.jobs[number].state

    def states(self) -> list[State]:
        return [self.jobs[number].state for number in sorted(self.jobs)]

    def of_kind(self, kind: type[changes.Change]) -> list[Any]:
        return [change for change in self.changes if isinstance(change, kind)]


@dataclass(frozen=True)
class FakeFetched:
    size_bytes: int
    sha256: bytes
    content_type: str
    extension: str
    is_black: bool = False


def sha(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


def no_files(store: FakeStore, clock: FakeClock, gate: SubmitGate) -> InputFiles:
    """For jobs whose inputs name no files."""
    return InputFiles(store=store, storage=None, clock=clock, gate=gate, at_once=1, listen=lambda _event: None)


class FakeFiles:
    """The output folder in memory."""

    def __init__(self, *, log: list[str] | None = None, latency_s: float = 0.01) -> None:
        self.log = log if log is not None else []
        self.latency_s = latency_s
        self.disk: dict[str, bytes] = {}
        self.web: dict[str, Callable[[], bytes | Exception]] = {}
        self.fetches: list[str] = []
        self.black: set[bytes] = set()
        """Contents that are black pictures."""
        self.fetching = 0
        self.most_fetching = 0
        self.extension = ".png"
        self.fails_to_publish: list[Exception] = []

    async def fetch(
        self, url: str, part: str, *, size_bytes: int | None, content_type: str | None, is_new: bool = False
    ) -> FakeFetched:
        self.fetches.append(url)
        self.fetching += 1
        self.most_fetching = max(self.most_fetching, self.fetching)
        try:
            await anyio.sleep(self.latency_s)
        finally:
            self.fetching -= 1
        body = self.web[url]() if url in self.web else url.encode()
        if isinstance(body, Exception):
            raise body
        self.disk[part] = body
        extension = ".json" if content_type == "application/json" else self.extension
        return FakeFetched(len(body), sha(body), content_type or "image/png", extension, body in self.black)

    async def keep(self, body: bytes, part: str, *, content_type: str | None) -> FakeFetched:
        await anyio.lowlevel.checkpoint()
        self.disk[part] = body
        is_json = (content_type or "").endswith("json")
        return FakeFetched(len(body), sha(body), content_type or "", ".json" if is_json else ".bin")

    async def publish(self, part: str, path: str) -> None:
        self.log.append(f"rename {path}")
        await anyio.lowlevel.checkpoint()
        if self.fails_to_publish:
            raise self.fails_to_publish.pop(0)
        self.disk[path] = self.disk.pop(part)

    async def holds(self, path: str, *, size_bytes: int, sha256: bytes) -> bool:
        await anyio.lowlevel.checkpoint()
        body = self.disk.get(path)
        return body is not None and len(body) == size_bytes and sha(body) == sha256

    def is_taken(self, path: str) -> bool:
        return path in self.disk
