"""Files of inputs on their way to fal: each content once, on record before its URL is used, and what goes wrong."""

from __future__ import annotations

import gc
import hashlib
import traceback
import tracemalloc
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from falbatch.core import changes
from falbatch.core.events import FileUploaded, JobEnded
from falbatch.core.fileinputs import FileMark, FileUnusable, Travel, Upload, UploadTerms
from falbatch.core.identity import canonical_json
from falbatch.core.money import Purse
from falbatch.core.reconcile import Listed
from falbatch.core.state import State
from falbatch.engine.execute import Deps, Execution
from falbatch.engine.spending import Spending
from falbatch.engine.stop import Stop
from falbatch.errors import CredentialsError, FalUnreachable
from tests.engine.fakes import FakeResult, FakeStore, Script, http, planned, refused, unanswered, unsent
from tests.engine.runs import Run, lost_before, settings_with

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


pytestmark = pytest.mark.anyio

HOUR = 3600.0


def sha_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def input_with(*names: str, travel: Travel = Travel.URL, number: int = 0) -> bytes:
    return canonical_json({"files": [FileMark(sha_of(name), travel).as_json() for name in names], "n": number})


@dataclass(frozen=True)
class FakeUploaded:
    url: str
    size_bytes: int = 10
    expires_at: float | None = None


class FakeStorage:
    """A storage by script, and local files that are always there. The paths are the contents' names."""

    def __init__(self) -> None:
        self.terms = UploadTerms("http://cdn")
        self.on_upload = Script(lambda name: FakeUploaded(f"https://cdn/{name}-{self.uploads.total()}"))
        self.uploads: Counter[str] = Counter()
        self.under_way = 0
        self.most_under_way = 0

    async def upload(self, paths: Sequence[str], sha256: bytes, content_type: str) -> FakeUploaded:
        (name,) = paths
        assert sha_of(name) == sha256
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await anyio.sleep(1.0)
            self.uploads[name] += 1
            made = await self.on_upload.answer(name)
        finally:
            self.under_way -= 1
        assert isinstance(made, FakeUploaded)
        return made

    async def data_uri(self, paths: Sequence[str], sha256: bytes, content_type: str) -> str:
        await anyio.lowlevel.checkpoint()
        return f"data:;base64,{paths[0]}"


class StoreWithFiles(FakeStore):
    """A state file that also keeps uploads."""

    def upload_of(self, mark: FileMark, terms: str) -> Upload | None:
        kept = [
            change
            for change in self.of_kind(changes.UploadStored)
            if (change.sha256, change.content_type, change.terms) == (mark.sha256, mark.content_type, terms)
        ]
        return Upload(kept[-1].url, kept[-1].at, kept[-1].expires_at) if kept else None

    def paths_of(self, sha256: bytes) -> list[str]:
        return [name for name in "abcdefgh" if sha_of(name) == sha256]

    def urls_of(self, sha256: bytes) -> list[str]:
        return [change.url for change in self.of_kind(changes.UploadStored) if change.sha256 == sha256]


@dataclass
class FilesRun(Run):
    """A whole run over jobs whose inputs name files. Built inside the loop."""

    inputs: tuple[bytes, ...] = ()
    storage: FakeStorage = field(default_factory=FakeStorage)

    def __post_init__(self) -> None:
        self.jobs = len(self.inputs)
        super().__post_init__()
        jobs = [planned(number, input_json=given) for number, given in enumerate(self.inputs, 1)]
        self.store = StoreWithFiles(*jobs, log=self.log)
        self.bodies: list[bytes] = []
        answer = self.queue.on_submit.default

        def accept(body: bytes) -> Any:
            self.bodies.append(body)
            return answer(body)

        self.queue.on_submit.default = accept
        self.begin()

    def begin(self) -> None:
        deps = Deps(
            self.store,
            self.queue,
            self.requests,
            self.files,
            self.clock,
            self._listen,
            Spending(Purse(self.settings.max_cost_nano), {}),
            self.direct,
            self.storage,
        )
        self.execution = Execution(deps, self.settings, Stop())

    def failures(self) -> list[str]:
        ends = [event for event in self.heard if isinstance(event, JobEnded) and event.failure]
        return [f"{event.state}: {event.failure.error_type}" for event in ends if event.failure]


async def test_each_content_is_uploaded_once_however_many_jobs_need_it() -> None:
    run = FilesRun(inputs=tuple(input_with(name, number=number) for number in range(5) for name in "abc"))
    assert await run.run() is None
    assert set(run.store.states()) == {State.DONE}
    assert run.storage.uploads == {"a": 1, "b": 1, "c": 1}
    assert (run.counter.uploads, run.counter.uploaded_bytes, run.counter.uploading) == (3, 30, 0)
    assert sum(isinstance(event, FileUploaded) for event in run.heard) == 3


async def test_what_leaves_has_urls_and_the_intent_has_its_hash() -> None:
    run = FilesRun(inputs=(input_with("a", "b"), canonical_json({"n": 1})))
    assert await run.run() is None
    (plain, with_urls) = sorted(run.bodies, key=len)
    urls = {change.sha256: change.url for change in run.store.of_kind(changes.UploadStored)}
    assert with_urls == canonical_json({"files": [urls[sha_of("a")], urls[sha_of("b")]], "n": 0})
    sent = {change.job_id: change.sent_sha256 for change in run.store.of_kind(changes.SubmitStarted)}
    assert sent == {1: hashlib.sha256(with_urls).digest(), 2: None}
    assert plain == canonical_json({"n": 1})


async def test_a_url_is_on_record_before_it_is_sent() -> None:
    run = FilesRun(inputs=(input_with("a"),))
    assert await run.run() is None
    assert run.log.index("UploadStored 1") < run.log.index("submit_started 1") < run.log.index("submit fal-ai/x")


async def test_a_few_at_a_time() -> None:
    run = FilesRun(inputs=tuple(input_with(name) for name in "abcdefgh"), settings=settings_with(uploads=3))
    assert await run.run() is None
    assert run.storage.most_under_way == 3


async def test_a_url_that_is_about_to_end_is_made_anew() -> None:
    run = FilesRun(inputs=(input_with("a"), input_with("a", number=1)), settings=settings_with(in_flight=1))
    ends_at = run.clock.unix_s() + HOUR + 1
    run.storage.on_upload.then(FakeUploaded("https://cdn/old", expires_at=ends_at))
    run.queue.service_s = HOUR  # the second job begins when the first one is through
    assert await run.run() is None
    assert run.storage.uploads == {"a": 2}
    assert [b"cdn/old" in body for body in run.bodies] == [True, False]


async def test_a_url_that_ends_while_the_job_waits_for_its_turn_is_not_sent() -> None:
    run = FilesRun(inputs=(input_with("a"),))
    run.storage.on_upload.then(FakeUploaded("https://cdn/old", expires_at=run.clock.unix_s() + HOUR))

    async def slow_turn() -> None:
        await anyio.sleep(HOUR)

    run.execution._gate.turn = slow_turn  # type: ignore[method-assign]  # as a closed window would
    assert await run.run() is None
    assert run.storage.uploads == {"a": 2}
    assert b"cdn/old" not in run.bodies[0]


async def test_another_place_is_another_upload() -> None:
    run = FilesRun(inputs=(input_with("a"), input_with("a", number=1)), settings=settings_with(in_flight=1))

    def moved(name: str) -> FakeUploaded:
        terms, run.storage.terms = run.storage.terms, UploadTerms("http://elsewhere")
        return FakeUploaded(terms.place)

    run.storage.on_upload.then(moved)
    assert await run.run() is None
    assert run.storage.uploads == {"a": 2}


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (lambda: FileUnusable("file_changed", "it did"), "file_changed"),
        (lambda: FileUnusable("file_missing", "it is"), "file_missing"),
        (lambda: http(413), "upload_failed"),
        (lambda: http(400), "upload_failed"),
    ],
)
async def test_a_file_that_cannot_be_sent_ends_its_jobs_at_no_cost(
    error: Callable[[], Exception], failure: str
) -> None:
    run = FilesRun(inputs=(input_with("a"), input_with("a", number=1), input_with("b")))
    run.storage.on_upload.default = lambda name: error() if name == "a" else FakeUploaded("https://cdn/b")
    assert await run.run() is None
    assert run.store.states() == [State.FAILED, State.FAILED, State.DONE]
    assert run.failures() == [f"failed: {failure}"] * 2
    assert len(run.queue.submits) == 1
    assert {change.job_id for change in run.store.of_kind(changes.SubmitStarted)} == {3}


@pytest.mark.parametrize("error", [unsent, unanswered, lambda: http(503), lambda: http(429)])
async def test_what_does_not_get_through_leaves_its_jobs_for_the_next_run(error: Callable[[], Exception]) -> None:
    run = FilesRun(
        inputs=(input_with("a"), input_with("b"), input_with("a", number=1)), settings=settings_with(in_flight=1)
    )
    run.storage.on_upload.then(error())
    assert await run.run() is None
    assert run.store.states() == [State.PLANNED, State.DONE, State.PLANNED]
    assert run.storage.uploads == {"a": 1, "b": 1}, "asked once: the storage had all its tries then"
    assert run.failures() == ["planned: not_uploaded"] * 2
    assert (run.counter.stuck, run.counter.failed) == (2, 0)


async def test_a_storage_that_is_down_ends_the_run() -> None:
    run = FilesRun(inputs=tuple(input_with(name) for name in "abcdefgh"), settings=settings_with(in_flight=1))
    run.storage.on_upload.default = unsent()
    assert isinstance(await run.run(), FalUnreachable)
    assert run.storage.uploads.total() == 3
    assert set(run.store.states()) == {State.PLANNED}
    assert run.queue.submits == []


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_refused_key_ends_the_run_and_fails_nothing(status: int) -> None:
    run = FilesRun(inputs=(input_with("a"), input_with("b")), settings=settings_with(in_flight=1))
    run.storage.on_upload.default = http(status)
    assert isinstance(await run.run(), CredentialsError)
    assert run.store.states() == [State.PLANNED, State.PLANNED]


async def test_a_file_inside_the_input_is_read_when_it_leaves() -> None:
    run = FilesRun(inputs=(input_with("a", travel=Travel.DATA),))
    assert await run.run() is None
    assert run.bodies == [canonical_json({"files": ["data:;base64,a"], "n": 0})]
    assert run.storage.uploads == {}


async def test_a_file_inside_the_input_that_changed_ends_its_job() -> None:
    run = FilesRun(inputs=(input_with("a", travel=Travel.DATA), canonical_json({"n": 1})))

    async def changed(*_: Any) -> str:
        raise FileUnusable("file_changed", "it did")

    run.storage.data_uri = changed  # type: ignore[method-assign,assignment]
    assert await run.run() is None
    assert run.store.states() == [State.FAILED, State.DONE]
    assert len(run.queue.submits) == 1


async def test_jobs_that_wait_for_another_try_hold_no_bodies() -> None:
    run = FilesRun(
        inputs=tuple(input_with("a", travel=Travel.DATA, number=number) for number in range(40)),
        settings=settings_with(in_flight=40, attempts=1),
    )
    megabyte = "x" * 2**20

    async def large(*_: Any) -> str:
        return megabyte

    run.storage.data_uri = large  # type: ignore[method-assign,assignment]
    run.bodies = deque(maxlen=1)  # type: ignore[assignment]
    run.queue.on_submit.then(*(refused(30.0) for _ in range(40)))
    tracemalloc.start()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(run.run)
            await anyio.sleep(10.0)
            assert len(run.queue.submits) > 8
            gc.collect()
            held, _most = tracemalloc.get_traced_memory()
            assert held < 6 * 2**20
    finally:
        tracemalloc.stop()
    assert set(run.store.states()) == {State.DONE}


async def test_a_content_that_fal_does_not_take_is_sent_once_however_many_jobs_name_it() -> None:
    run = FilesRun(
        inputs=tuple(input_with("a", number=number) for number in range(50)),
        settings=settings_with(in_flight=1, max_equal_failures=None),
    )
    run.storage.on_upload.default = http(413)
    assert await run.run() is None
    assert set(run.store.states()) == {State.FAILED}
    assert run.storage.uploads == {"a": 1}


async def test_an_error_that_many_jobs_share_does_not_grow() -> None:
    run = FilesRun(inputs=tuple(input_with("a", number=number) for number in range(100)))
    error = unsent()
    run.storage.on_upload.then(error)
    await run.run()
    assert set(run.store.states()) == {State.PLANNED}
    assert len(traceback.extract_tb(error.__traceback__)) < 20


async def test_a_lost_job_whose_file_is_gone_when_it_is_submitted_again_is_not_failed() -> None:
    """Its first submit may have run: whoever finds it brings the result home."""
    run = FilesRun(inputs=(input_with("a"), input_with("a", travel=Travel.DATA)))
    for number in (1, 2):
        run.store.jobs[number] = replace(run.store.jobs[number], attempts=1)
        run.store.attempts[number, 1] = lost_before(5.0)
    run.storage.on_upload.default = FileUnusable("file_missing", "it is")

    async def gone(*_: Any) -> str:
        raise FileUnusable("file_missing", "it is")

    run.storage.data_uri = gone  # type: ignore[method-assign,assignment]
    run.begin()
    await run.run()
    assert run.store.states() == [State.PLANNED, State.PLANNED]
    assert run.failures() == ["planned: file_missing"] * 2
    assert {stuck.failure.error_type for stuck in run.store.stuck.values()} == {"file_missing"}


async def test_a_lost_submit_is_known_again_by_what_left() -> None:
    run = FilesRun(inputs=(input_with("a"),))
    lost: list[Any] = []

    def swallow(body: bytes) -> Exception:
        run.queue.accepted_at["r-lost"] = anyio.current_time()
        run.requests.listed["fal-ai/x"].append(Listed("r-lost", body, run.clock.unix_s()))
        lost.append(body)
        return unanswered()

    run.queue.on_submit.then(swallow)
    lost_submits = run.store.lost_submits

    def with_hash() -> list[Any]:
        (started,) = run.store.of_kind(changes.SubmitStarted)
        return [replace(one, sent_sha256=started.sent_sha256) for one in lost_submits()]

    run.store.lost_submits = with_hash  # type: ignore[method-assign]  # the fake keeps no hashes of attempts
    assert await run.run() is None
    assert run.store.states() == [State.DONE]
    assert (len(run.queue.submits), b"https://cdn/a" in lost[0]) == (1, True)


async def test_a_result_that_names_the_input_again_brings_the_new_file_only() -> None:
    run = FilesRun(inputs=(input_with("a"),))

    def echo(_request: Any) -> FakeResult:
        (upload,) = run.store.of_kind(changes.UploadStored)
        return FakeResult(canonical_json({"image": {"url": "https://cdn/new"}, "source": {"url": upload.url}}))

    run.queue.on_result.default = echo
    assert await run.run() is None
    assert run.files.fetches == ["https://cdn/new"]
