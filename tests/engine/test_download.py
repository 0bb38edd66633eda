"""Files on disk, whole, under their names; and after a crash between any two steps, found again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from falbatch.core import changes
from falbatch.core.backoff import BackoffPolicy
from falbatch.core.events import JobEnded, RunEvent
from falbatch.core.identity import canonical_json
from falbatch.core.pacing import Rate, RetryBudget, Window
from falbatch.core.record import OpenJob, StoredFile, StoredResult
from falbatch.core.state import State
from falbatch.engine.download import GONE_TRIES, TRIES, Downloader
from falbatch.engine.gate import SubmitGate
from falbatch.engine.judge import Judge
from falbatch.engine.settings import ExecuteSettings
from falbatch.engine.wanted import read_result, wanted_files
from falbatch.errors import DiskFull, HttpError, OutputError, ReplyError, TransportError, WireError
from tests.engine.fakes import ONE_IMAGE, FakeClock, FakeFiles, FakeStore, gateway, planned, sha, unsent

if TYPE_CHECKING:
    from falbatch.engine.ports import FetchedFile

pytestmark = pytest.mark.anyio

A, B = "https://cdn/a.png", "https://cdn/b.png"
PART = f".n1.{planned(1).key.hex()[:8]}.0.part"
TWO_IMAGES = canonical_json({"images": [{"url": A, "file_size": 9}, {"url": B}]})


def completed(number: int, **more: Any) -> OpenJob:
    return replace(planned(number), state=State.COMPLETED, **more)


def as_json(body: bytes) -> StoredResult:
    return StoredResult(body, "application/json")


@dataclass
class Stage:
    """The download stage over fakes. Built inside the loop."""

    jobs: tuple[OpenJob, ...] = field(default_factory=lambda: (completed(1),))
    at_once: int = 4
    sidecar: bool = False
    settings: ExecuteSettings = field(default_factory=ExecuteSettings)

    def __post_init__(self) -> None:
        self.log: list[str] = []
        self.clock = FakeClock()
        self.store = FakeStore(*self.jobs, log=self.log)
        self.files = FakeFiles(log=self.log)
        self.heard: list[RunEvent] = []
        backoff = BackoffPolicy(1.0, 60.0)
        window = Window.fixed_at(9)
        self.gate = SubmitGate(self.clock, window=window, rate=Rate(100), backoff=backoff, budget=RetryBudget(1.0))
        self.again()

    def again(self) -> None:
        """As in a new run: nothing is remembered but what is on record and on disk."""
        self.downloader = Downloader(
            store=self.store,
            files=self.files,
            clock=self.clock,
            backoff=BackoffPolicy(1.0, 60.0),
            at_once=self.at_once,
            sidecar=self.sidecar,
            judge=Judge(self.store, self.clock, self.gate, self.settings, self.heard.append),
            listen=self.heard.append,
        )

    async def bring(self, result: bytes | StoredResult = ONE_IMAGE, number: int = 1) -> OpenJob:
        stored = result if isinstance(result, StoredResult) else as_json(result)
        return await self.downloader.bring(self.store.jobs[number], stored)


async def test_a_file_is_recorded_before_it_is_renamed_and_the_job_is_done_last() -> None:
    stage = Stage()
    job = await stage.bring()
    assert stage.log == ["FileReady 1", "rename n1.png", "files_stored 1"]
    assert job.state is State.DONE
    assert stage.files.disk == {"n1.png": A.encode()}
    (file,) = stage.store.files_of(1)
    assert (file.path, file.size_bytes, file.sha256, file.stored) == ("n1.png", len(A), sha(A.encode()), 1)
    assert [event.state for event in stage.heard if isinstance(event, JobEnded)] == [State.DONE]


async def test_several_files_are_numbered_in_the_results_order() -> None:
    stage = Stage()
    await stage.bring(TWO_IMAGES)
    assert stage.files.disk == {"n1-1.png": A.encode(), "n1-2.png": B.encode()}


async def test_a_result_without_files_is_itself_the_file() -> None:
    stage = Stage()
    body = canonical_json({"text": "hello"})
    await stage.bring(body)
    assert stage.files.disk == {"n1.json": body}


@pytest.mark.parametrize("content_type", ["audio/mpeg", "application/x-ndjson", "text/plain"])
async def test_a_result_that_is_no_json_is_the_file(content_type: str) -> None:
    stage = Stage()
    await stage.bring(StoredResult(b'{"url": "https://x/y"}\n{"a": 1}', content_type))
    assert list(stage.files.disk.values()) == [b'{"url": "https://x/y"}\n{"a": 1}']
    assert stage.files.fetches == []


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=utf-8", "application/problem+json", ""]
)
async def test_json_is_known_by_its_type_or_for_want_of_one(content_type: str) -> None:
    stage = Stage()
    await stage.bring(StoredResult(ONE_IMAGE, content_type))
    assert stage.files.disk == {"n1.png": A.encode()}


@pytest.mark.parametrize(("body", "content_type"), [(b"no json", ""), (b"{", "application/json")])
async def test_a_body_that_only_claims_to_be_json_is_kept_as_it_is(body: bytes, content_type: str) -> None:
    """It was paid for; and a crash over it would come again in every run."""
    stage = Stage()
    job = await stage.bring(StoredResult(body, content_type))
    assert job.state is State.DONE
    assert list(stage.files.disk.values()) == [body]


async def test_a_nan_in_a_result_hides_no_files() -> None:
    stage = Stage()
    await stage.bring(b'{"score": NaN, "image": {"url": "https://cdn/a.png"}}')
    assert stage.files.disk == {"n1.png": A.encode()}


async def test_a_sidecar_lies_beside_the_files() -> None:
    stage = Stage(sidecar=True)
    await stage.bring(TWO_IMAGES)
    assert stage.files.disk == {"n1-1.png": A.encode(), "n1-2.png": B.encode(), "n1.json": TWO_IMAGES}
    single = Stage(sidecar=True)
    await single.bring()
    assert single.files.disk == {"n1.png": A.encode(), "n1.json": ONE_IMAGE}


async def test_a_sidecar_never_replaces_a_file_that_is_json_itself() -> None:
    stage = Stage(sidecar=True)
    body = canonical_json({"config_file": {"url": A, "content_type": "application/json"}})
    await stage.bring(body)
    assert stage.files.disk["n1.json"] == A.encode()
    assert sorted(stage.files.disk.values()) == sorted([A.encode(), body])
    assert len({file.path for file in stage.store.files_of(1)}) == 2


async def test_a_file_that_came_inside_the_result_leaves_no_url_on_record() -> None:
    stage = Stage()
    await stage.bring(canonical_json({"image": {"url": "data:image/png;base64,iVBORw0KGgo="}}))
    (ready,) = stage.store.of_kind(changes.FileReady)
    assert ready.url == ""


def test_what_a_result_claims_of_its_files_is_handed_on() -> None:
    wanted = wanted_files(read_result(planned(1), as_json(TWO_IMAGES)), as_json(TWO_IMAGES), sidecar=True)
    assert [(want.place, want.url, want.size_bytes) for want in wanted] == [(0, A, 9), (1, B, None), (2, "", None)]


async def crashed_at_rename(stage: Stage) -> None:
    """What is left when the program dies between the record and the rename."""
    stage.files.fails_to_publish.append(OutputError("the plug was pulled"))
    with pytest.raises(OutputError):
        await stage.bring()
    assert list(stage.files.disk) == [PART]
    stage.log.clear()
    stage.files.fetches.clear()
    stage.again()


async def test_a_crash_between_record_and_rename_is_mended_without_a_download() -> None:
    stage = Stage()
    await crashed_at_rename(stage)
    job = await stage.bring()
    assert job.state is State.DONE
    assert stage.files.fetches == []
    assert stage.log == ["rename n1.png", "files_stored 1"]
    assert stage.files.disk == {"n1.png": A.encode()}


async def test_a_crash_after_the_rename_finds_the_file() -> None:
    stage = Stage()
    await crashed_at_rename(stage)
    stage.files.disk = {"n1.png": stage.files.disk[PART]}
    job = await stage.bring()
    assert job.state is State.DONE
    assert stage.files.fetches == []
    assert stage.log == ["files_stored 1"]


async def test_a_recorded_file_that_was_damaged_is_fetched_again_to_its_place() -> None:
    stage = Stage()
    await crashed_at_rename(stage)
    stage.files.disk = {"n1.png": b"half of it"}
    await stage.bring()
    assert stage.files.fetches == [A]
    assert stage.files.disk == {"n1.png": A.encode()}


async def test_a_part_that_was_damaged_is_not_renamed() -> None:
    stage = Stage()
    await crashed_at_rename(stage)
    stage.files.disk[PART] = b"half of it"
    await stage.bring()
    assert stage.files.fetches == [A]
    assert stage.files.disk == {"n1.png": A.encode()}


async def test_files_that_are_there_are_not_fetched_again_when_another_is_lacking() -> None:
    stage = Stage()
    stage.files.web[B] = lambda: gateway(503)
    assert (await stage.bring(TWO_IMAGES)).state is State.COMPLETED
    del stage.files.web[B]
    stage.files.fetches.clear()
    stage.again()
    assert (await stage.bring(TWO_IMAGES)).state is State.DONE
    assert stage.files.fetches == [B]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_a_dead_link_fails_the_job_after_several_tries(status: int) -> None:
    stage = Stage()
    stage.files.web[A] = lambda: gateway(status)
    job = await stage.bring()
    assert job.state is State.FAILED
    (gone,) = stage.store.of_kind(changes.FilesGone)
    assert (gone.failure.error_type, gone.failure.http_status) == ("file_gone", status)
    assert len(stage.files.fetches) == GONE_TRIES
    assert [event.state for event in stage.heard if isinstance(event, JobEnded)] == [State.FAILED]


async def test_a_link_that_we_do_not_follow_fails_the_job() -> None:
    stage = Stage()
    stage.files.web[A] = lambda: TransportError("127.0.0.1 is no place", sent=False, kind="refused_address")
    assert (await stage.bring()).state is State.FAILED
    assert stage.store.of_kind(changes.FilesGone)[0].failure.error_type == "file_refused"
    assert len(stage.files.fetches) == 1


@pytest.mark.parametrize("error", [ReplyError("cut"), unsent(), gateway(503)], ids=str)
async def test_a_file_that_does_not_come_whole_is_tried_again_and_then_left_open(error: WireError) -> None:
    stage = Stage()
    stage.files.web[A] = lambda: error
    job = await stage.bring()
    assert job.state is State.COMPLETED
    assert len(stage.files.fetches) == TRIES
    assert stage.clock.slept_s == pytest.approx([0.5, 1.0, 2.0, 4.0, 8.0])
    assert stage.store.stuck[1].failure.message == str(error)
    assert [event.state for event in stage.heard if isinstance(event, JobEnded)] == [State.COMPLETED]


async def test_a_file_that_comes_at_the_third_try_is_as_good_as_any() -> None:
    stage = Stage()
    answers: list[bytes | Exception] = [
        ReplyError("cut"),
        HttpError("slow down", status=429, retry_after_s=30.0),
        b"whole",
    ]
    stage.files.web[A] = lambda: answers.pop(0)
    assert (await stage.bring()).state is State.DONE
    assert stage.files.disk == {"n1.png": b"whole"}
    assert stage.clock.slept_s[0] == 0.5
    assert stage.clock.slept_s[1] >= 30


async def test_a_full_disk_is_nobodys_failure() -> None:
    stage = Stage()
    stage.files.web[A] = lambda: DiskFull("no space left")
    with pytest.raises(DiskFull):
        await stage.bring()
    assert stage.store.state_of(1) is State.COMPLETED
    assert stage.heard == []


async def test_no_more_files_than_allowed_are_fetched_at_once() -> None:
    stage = Stage(tuple(completed(number) for number in range(1, 13)), at_once=3)
    async with anyio.create_task_group() as group:
        for number in range(1, 13):
            group.start_soon(stage.bring, TWO_IMAGES, number)
    assert stage.files.most_fetching == 3
    assert stage.store.states() == [State.DONE] * 12
    assert len(stage.files.disk) == 24


async def test_two_jobs_of_one_name_never_share_a_path_whatever_the_case() -> None:
    stage = Stage((completed(1, name="Ada"), completed(2, name="ada")))
    async with anyio.create_task_group() as group:
        group.start_soon(stage.bring, ONE_IMAGE, 1)
        group.start_soon(stage.bring, ONE_IMAGE, 2)
    apart = stage.store.jobs[2].key.hex()[:8]
    assert sorted(stage.files.disk) == ["Ada.png", f"ada-{apart}.png"]


async def test_a_path_of_an_earlier_run_is_left_to_its_job() -> None:
    stage = Stage((completed(1, name="n"), completed(2, name="n")))
    await stage.bring(number=1)
    stage.again()
    await stage.bring(number=2)
    apart = stage.store.jobs[2].key.hex()[:8]
    assert sorted(stage.files.disk) == [f"n-{apart}.png", "n.png"]


async def test_a_strangers_file_is_never_overwritten() -> None:
    stage = Stage()
    stage.files.disk["n1.png"] = b"holiday"
    await stage.bring()
    apart = stage.store.jobs[1].key.hex()[:8]
    assert stage.files.disk == {"n1.png": b"holiday", f"n1-{apart}.png": A.encode()}


async def test_a_lost_file_that_is_fetched_again_takes_its_old_place() -> None:
    stage = Stage()
    await stage.bring()
    stage.store.jobs[1] = replace(stage.store.jobs[1], state=State.COMPLETED)
    stage.files.disk.clear()
    stage.again()
    assert (await stage.bring()).state is State.DONE
    assert stage.files.disk == {"n1.png": A.encode()}


async def test_the_record_of_a_file_names_what_it_is() -> None:
    stage = Stage()
    fetched: FetchedFile = await stage.files.fetch(A, "x", size_bytes=None, content_type=None)
    assert stage.store.files_of(1) == []
    await stage.bring()
    assert stage.store.files_of(1) == [
        StoredFile(0, "n1.png", fetched.size_bytes, fetched.sha256, fetched.content_type, 1)
    ]
