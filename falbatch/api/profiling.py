"""`run --profile`: a stopwatch around the engine's ports, and a sampler beside them. Off, nothing of it is there."""

from __future__ import annotations

import contextlib
import resource
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from falbatch.adapters.sampler import Sampler
from falbatch.core.events import JobMoved, JobSubmitted, RunEvent
from falbatch.core.stages import StageTable, StageTimes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from falbatch.core.model import Mode
    from falbatch.core.record import RequestOnRecord
    from falbatch.engine.execute import Deps
    from falbatch.engine.ports import Accepted, Answer, Direct, FetchedFile, Files, Progress, Queue, Result

_FILES: Final = (
    ("falbatch/adapters/store/", "state"),
    ("falbatch/engine/submit.py", "submit"),
    ("falbatch/engine/attempts.py", "submit"),
    ("falbatch/engine/direct.py", "submit"),
    ("falbatch/engine/wait.py", "status"),
    ("falbatch/engine/result.py", "result"),
    ("falbatch/engine/download.py", "download"),
    ("falbatch/adapters/fetch.py", "download"),
    ("falbatch/adapters/partfile.py", "download"),
    ("falbatch/adapters/files.py", "rename"),
    ("falbatch/adapters/hops.py", "rename"),
    ("falbatch/api/planning.py", "plan"),
    ("falbatch/core/expand.py", "plan"),
    ("falbatch/engine/execute.py", "other"),
    ("falbatch/engine/feed.py", "other"),
    ("falbatch/adapters/progress.py", "other"),
)
"""Whose processor time is whose: the innermost of these files on the stack."""


def stage_of(path: str) -> str | None:
    """The stage that a source file works for."""
    plain = path.replace("\\", "/")
    return next((stage for ending, stage in _FILES if ending in plain), None)


class Profiler:
    """Times one run. Touched on the event loop only, but for its sampler."""

    def __init__(self) -> None:
        self.times = StageTimes()
        self._sampler = Sampler(stage_of, rest="loop")
        self._accepted_at_s: dict[str, float] = {}
        self._began_s = time.monotonic()
        self._cpu_before_s = _cpu_s()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Around the run."""
        with self._sampler:
            yield

    def table(self) -> StageTable:
        """All that was seen."""
        wall_s, cpu_s = time.monotonic() - self._began_s, _cpu_s() - self._cpu_before_s
        return self.times.table(wall_s=wall_s, cpu_s=cpu_s, cpu_by_stage=self._sampler.seconds)

    def heard(self, event: RunEvent) -> None:
        """How long requests are at fal shows in the events."""
        match event:
            case JobSubmitted(request_id=request_id):
                self._accepted_at_s[request_id] = time.monotonic()
            case JobMoved(request_id=request_id, phase="") if request_id in self._accepted_at_s:  # waited for no more
                self.times.took("at fal", time.monotonic() - self._accepted_at_s.pop(request_id))
            case _:
                pass

    def recorded(self, seconds: float) -> None:
        """One entry of the state file was durable after so long."""
        self.times.took("state", seconds)

    def around(self, deps: Deps) -> Deps:
        """`deps`, timed."""
        return replace(
            deps,
            queue=_TimedQueue(deps.queue, self),
            direct=_TimedDirect(deps.direct, self),
            files=_TimedFiles(deps.files, self),
        )

    @contextlib.contextmanager
    def span(self, stage: str) -> Iterator[None]:
        """Time a block, however it ends."""
        began_s = time.monotonic()
        try:
            yield
        finally:
            self.times.took(stage, time.monotonic() - began_s)


class _TimedQueue:
    def __init__(self, inner: Queue, profiler: Profiler) -> None:
        self._inner = inner
        self._span = profiler.span

    async def submit(self, endpoint: str, body: bytes, callback: str | None) -> Accepted:
        with self._span("submit"):
            return await self._inner.submit(endpoint, body, callback)

    async def status(self, request: RequestOnRecord) -> Progress:
        with self._span("status"):
            return await self._inner.status(request)

    async def result(self, request: RequestOnRecord) -> Result:
        with self._span("result"):
            return await self._inner.result(request)


class _TimedDirect:
    def __init__(self, inner: Direct, profiler: Profiler) -> None:
        self._inner = inner
        self._span = profiler.span

    async def call(self, mode: Mode, endpoint: str, body: bytes) -> Answer:
        with self._span("submit"):
            return await self._inner.call(mode, endpoint, body)


class _TimedFiles:
    def __init__(self, inner: Files, profiler: Profiler) -> None:
        self._inner = inner
        self._span = profiler.span

    async def fetch(
        self, url: str, part: str, *, size_bytes: int | None, content_type: str | None, is_new: bool = False
    ) -> FetchedFile:
        with self._span("download"):
            return await self._inner.fetch(url, part, size_bytes=size_bytes, content_type=content_type, is_new=is_new)

    async def keep(self, body: bytes, part: str, *, content_type: str | None) -> FetchedFile:
        with self._span("download"):
            return await self._inner.keep(body, part, content_type=content_type)

    async def publish(self, part: str, path: str) -> None:
        with self._span("rename"):
            await self._inner.publish(part, path)

    async def holds(self, path: str, *, size_bytes: int, sha256: bytes) -> bool:
        return await self._inner.holds(path, size_bytes=size_bytes, sha256=sha256)

    def is_taken(self, path: str) -> bool:
        return self._inner.is_taken(path)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
