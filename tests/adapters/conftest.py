"""Helpers of the adapters' tests: state files with jobs, a site with scripted files, a disk that is soon full."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest

from falbatch.adapters.fetch import Fetcher
from falbatch.adapters.files import OutputFolder
from falbatch.adapters.limits import FetchLimits
from falbatch.adapters.store import reader, stage
from falbatch.adapters.store.store import Store
from falbatch.core.changes import FileReady, FilesStored, ResultStored, SubmitAccepted, SubmitStarted
from falbatch.core.model import Item, Mode
from falbatch.core.plan import Again
from falbatch.fal.transport import Transport, TransportSettings
from tests.fal.raw_server import Peer, served

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
    from pathlib import Path

    from falbatch.core.record import OpenJob

    Answer = Callable[[Peer, "Asked"], Awaitable[None]]

AT: Final = 1_700_000_000.0
"""Unix seconds of everything that happens in these tests, unless a test says otherwise."""

WAIT_S: Final = 20.0
"""Longest wait for another process, on a machine under load."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def item(seq: int, prompt: str | None = None, *, name: str | None = None, **more: Any) -> Item:
    """The item at place `seq`; items with the same prompt are the same job."""
    return Item(
        seq=seq,
        endpoint=more.get("endpoint", "fal-ai/flux/dev"),
        mode=Mode.QUEUE,
        input={"prompt": f"prompt {seq}" if prompt is None else prompt},
        name=name,
        label=more.get("label", ""),
        origin=f"m.yaml:{seq}",
    )


@pytest.fixture(scope="session")
def lives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of state files with a past: see `tests/adapters/damage.py`."""
    from tests.adapters.damage import live_through

    return live_through(tmp_path_factory.mktemp("lives"))


@pytest.fixture
def place(tmp_path: Path) -> Callable[[Path], Path]:
    """Makes a copy of a folder; returns the state file in it."""
    number = itertools.count()

    def make(folder: Path) -> Path:
        return shutil.copytree(folder, tmp_path / str(next(number))) / "falbatch.db"

    return make


@contextmanager
def planned(path: Path, items: Iterable[Item], *, whole: bool = True) -> Iterator[Store]:
    """The state file at `path`, claimed for the batch `demo`, with `items` as its plan."""
    with Store.open(path) as store:
        store.check(name="demo", target="sandbox")
        stage.fill(store.connection, items)
        adopt(store, whole=whole)
        yield store


def adopt(store: Store, *, whole: bool = True, at: float = AT, again: Again | None = None) -> None:
    """Make what is staged the plan of the batch `demo`."""
    store.begin(name="demo", target="sandbox", manifest="demo.yaml", at=at, whole=whole, again=again)


def reopen(store: Store, *job_ids: int) -> None:
    """Have jobs done again."""
    adopt(store, again=Again(submit=frozenset(job_ids)))


def want_files(store: Store, *job_ids: int) -> None:
    """Have the files of jobs fetched again."""
    adopt(store, again=Again(files=frozenset(job_ids)))


@asynccontextmanager
async def recording(store: Store) -> AsyncIterator[Store]:
    """`store` with its writer at work; on leaving, all that was handed over is written."""
    async with anyio.create_task_group() as group:
        group.start_soon(store.writer.run)
        try:
            yield store
        finally:
            store.writer.close()


def accepted(job_id: int, *, attempt: int = 1, request_id: str | None = None) -> tuple[SubmitStarted, SubmitAccepted]:
    """What is recorded while a job is submitted with success. Its request id is `r-<job>-<attempt>`."""
    request = request_id or f"r-{job_id}-{attempt}"
    base = f"https://queue.fal.run/fal-ai/flux/requests/{request}"
    return (
        SubmitStarted(job_id, attempt, AT + 1),
        SubmitAccepted(
            job_id, attempt, AT + 2, request, f"{base}/status", base, f"{base}/cancel", queue_position=job_id
        ),
    )


def finished(job_id: int, *, request_id: str | None = None) -> tuple[ResultStored, FileReady, FilesStored]:
    """What is recorded after that: a result of two billed units, and one file of ten bytes."""
    request = request_id or f"r-{job_id}-1"
    return (
        ResultStored(job_id, request, AT + 3, b'{"ok": 1}', "application/json", 2.0, 0.5),
        FileReady(job_id, 0, "https://x.test/a.png", f"{job_id}.png", 10, b"\x01" * 32, "image/png", AT + 4),
        FilesStored(job_id, AT + 5),
    )


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Return as soon as `holds()`; fail when that takes too long."""
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, f"waited {WAIT_S} s in vain: {what}"
        time.sleep(0.01)


class TinyDisk:
    """A disk of its own that is soon full."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resize(self, kib: int) -> None:
        """Make it larger or smaller; what is on it stays."""
        subprocess.run(["mount", "-o", f"remount,size={kib}k", str(self.path)], check=True)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[TinyDisk]:
    """A disk of 256 KiB, where the system lets us make one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=256k", "none", str(place)], capture_output=True, check=False
    )
    if not made or made.returncode != 0:
        pytest.skip("this system lets nobody mount a small disk here")
    try:
        yield TinyDisk(place)
    finally:
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(["umount", "-l", str(place)], check=True)


@dataclass(frozen=True)
class Asked:
    """A request as the site saw it."""

    path: str
    headers: dict[str, str]
    """Names in lower case."""

    @property
    def range(self) -> tuple[str | None, str | None]:
        """Range and If-Range."""
        return self.headers.get("range"), self.headers.get("if-range")


@dataclass
class Site:
    """An HTTP site on this machine: each path gives its answers in turn, the last one for ever."""

    origin: str = ""
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def put(self, path: str, *answers: Answer) -> str:
        """Serve `answers` under `path`. Returns its URL."""
        self.answers[path] = list(answers)
        return self.origin + path

    async def serve(self, peer: Peer) -> None:
        """One connection."""
        while head := await peer.request():
            first, *lines = head.decode("latin-1").strip().split("\r\n")
            path = first.split(" ")[1]
            asked = Asked(path, {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)})
            self.asked.append(asked)
            queue = self.answers[path.partition("?")[0]]
            await (queue.pop(0) if len(queue) > 1 else queue[0])(peer, asked)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    one = Site()
    async with served(one.serve) as server:
        one.origin = server.origin
        yield one


@pytest.fixture
async def opener() -> AsyncIterator[Transport]:
    """What downloads go through when fal is on this machine."""
    settings = TransportSettings(public_only=True, allow_loopback=True, trust_env=False)
    async with Transport(settings=settings) as transport:
        yield transport


def whole(body: bytes, *, status: str = "200 OK", headers: str = "", length: int | None = None) -> Answer:
    """The body with its length, or with another length. `headers` are whole lines."""

    async def answer(peer: Peer, asked: Asked) -> None:
        await peer.answer(body, status=status, headers=headers, length=length)

    return answer


def cut(body: bytes, size: int, *, headers: str = "") -> Answer:
    """The first `size` bytes of a body that was announced whole; then the connection ends."""

    async def answer(peer: Peer, asked: Asked) -> None:
        await peer.answer(body[:size], headers=headers, length=len(body))
        raise ConnectionAbortedError

    return answer


def resumable(body: bytes, etag: str) -> Answer:
    """What a good server says: the rest when the ETag is still its own, all of it otherwise."""

    async def answer(peer: Peer, asked: Asked) -> None:
        wanted, condition = asked.range
        if wanted is None or condition != etag:
            await peer.answer(body, headers=f"ETag: {etag}\r\n")
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        span = f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}\r\nETag: {etag}\r\n"
        await peer.answer(body[start:], status="206 Partial Content", headers=span)

    return answer


def redirect(target: str, *, status: str = "302 Found") -> Answer:
    """Elsewhere."""
    return whole(b"", status=status, headers=f"Location: {target}\r\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The output folder."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def files(root: Path, opener: Transport) -> OutputFolder:
    """What writes into it, over real connections."""
    return OutputFolder(root, Fetcher(opener, allow_http=True))


TO_DISK: Final = FetchLimits(in_memory_most=0)
"""Every body is written to its part file as it comes, as large ones are."""


@pytest.fixture
def large_files(root: Path, opener: Transport) -> OutputFolder:
    """The same for files that are too large for memory."""
    return OutputFolder(root, Fetcher(opener, allow_http=True, limits=TO_DISK))


def planned_after(connection: sqlite3.Connection, seq: int, limit: int) -> list[OpenJob]:
    """The planned jobs of all endpoints after a place in the manifest, in its order."""
    jobs = [
        job
        for endpoint in reader.planned_endpoints(connection)
        for job in reader.planned_of(connection, endpoint, seq, limit)
    ]
    return sorted(jobs, key=lambda job: job.seq or 0)
