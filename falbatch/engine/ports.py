"""What the engine needs from the world, as Protocols. Nothing in `engine/` knows who stands behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from falbatch.core.changes import Change
    from falbatch.core.fileinputs import FileMark, Upload, UploadTerms
    from falbatch.core.model import Mode
    from falbatch.core.reconcile import Listed, LostSubmit
    from falbatch.core.record import AttemptOnRecord, OpenJob, RequestOnRecord, StoredFile, StoredResult


class Accepted(Protocol):
    """fal's reply to a submit, its URLs checked."""

    @property
    def request_id(self) -> str: ...
    @property
    def status_url(self) -> str: ...
    @property
    def response_url(self) -> str: ...
    @property
    def cancel_url(self) -> str: ...
    @property
    def queue_position(self) -> int | None: ...


class Progress(Protocol):
    """fal's answer about a request. `phase` is one of IN_QUEUE, IN_PROGRESS, COMPLETED or a word unknown to us."""

    @property
    def phase(self) -> str: ...
    @property
    def queue_position(self) -> int | None: ...
    @property
    def inference_time_s(self) -> float | None: ...
    @property
    def error(self) -> str | None: ...


class Result(Protocol):
    """A successful result. `output` is the parsed JSON, None for other bodies."""

    @property
    def body(self) -> bytes: ...
    @property
    def output(self) -> Any: ...
    @property
    def content_type(self) -> str: ...
    @property
    def billable_units(self) -> float | None: ...


class Answer(Protocol):
    """What a direct call answered: the result itself (`events`: all of a stream's, as JSON lines)."""

    @property
    def body(self) -> bytes: ...
    @property
    def content_type(self) -> str: ...
    @property
    def billable_units(self) -> float | None: ...
    @property
    def request_id(self) -> str: ...
    @property
    def events(self) -> bytes | None: ...


class Direct(Protocol):
    """fal's direct calls (fal-protocol §5): one exchange each, never repeated by itself."""

    async def call(self, mode: Mode, endpoint: str, body: bytes) -> Answer:
        """Run one job and wait for its answer. Raises `WireError`."""
        ...


class Queue(Protocol):
    """fal's queue. Every method is one exchange, never repeated by itself; failures are `WireError`s."""

    async def submit(self, endpoint: str, body: bytes, callback: str | None) -> Accepted:
        """Submit one job; `callback` is the URL that fal shall call at its end. Raises `WireError`."""
        ...

    async def status(self, request: RequestOnRecord) -> Progress:
        """Ask about a request. Raises `WireError`."""
        ...

    async def result(self, request: RequestOnRecord) -> Result:
        """Read the result of a completed request. Raises `WireError`."""
        ...


class ListedPage(Protocol):
    """A page of fal's request list."""

    @property
    def items(self) -> Sequence[Listed]: ...
    @property
    def next_cursor(self) -> str | None: ...


class RequestList(Protocol):
    """fal's own list of requests (fal-protocol §11.5): ended ones, with a lag, inputs only where they are kept."""

    async def page(self, endpoint: str, *, since: float, cursor: str | None) -> ListedPage:
        """Requests to `endpoint` since the Unix time `since`. One exchange. Raises `WireError`."""
        ...


class Store(Protocol):
    """The state file (design §5)."""

    async def record(self, *happened: Change) -> None:
        """Write changes; return when they are on disk."""
        ...

    def paid_jobs(self) -> list[OpenJob]: ...
    def planned_endpoints(self) -> list[str]:
        """The endpoints of planned jobs."""
        ...

    def planned_of(self, endpoint: str, seq: int, limit: int) -> list[OpenJob]:
        """The planned jobs of an endpoint after the place `seq`, in the manifest's order; all that share the last
        place, beyond `limit`."""
        ...

    def result_of(self, job_id: int) -> StoredResult | None: ...
    def files_of(self, job_id: int) -> list[StoredFile]: ...
    def path_owner(self, path: str) -> int | None: ...
    def lost_submits(self) -> list[LostSubmit]:
        """Submits without an answer, in jobs of the manifest or not."""
        ...

    def known_requests(self, request_ids: Collection[str]) -> set[str]:
        """Those of `request_ids` that are on record."""
        ...

    def upload_of(self, mark: FileMark, terms: str) -> Upload | None:
        """The latest upload of a file of an input on these terms."""
        ...

    def paths_of(self, sha256: bytes) -> list[str]:
        """Where a content lies on this machine, as last seen."""
        ...

    def urls_of(self, sha256: bytes) -> list[str]:
        """Every URL that a content had at fal."""
        ...

    def is_under_way(self, endpoint: str, input_json: bytes) -> bool:
        """True while a submit of this very input waits for its answer."""
        ...

    def is_selected(self, job_id: int) -> bool:
        """False for a job outside of the part of the manifest that this run is about: nothing is submitted for it."""
        ...

    def is_left_open(self, job_id: int) -> bool:
        """True when the latest submit of a job that may have been accepted got no answer."""
        ...

    def attempt(self, job_id: int, attempt: int) -> AttemptOnRecord | None:
        """One submit as it stands now; None when there was none."""
        ...

    def job(self, job_id: int) -> OpenJob: ...
    def sketches(self) -> dict[str, bytes]:
        """What was learned of durations, by endpoint, as `DurationsLearned` brought it."""
        ...


class FetchedFile(Protocol):
    """A file that lies complete under its temporary name."""

    @property
    def size_bytes(self) -> int: ...
    @property
    def sha256(self) -> bytes: ...
    @property
    def content_type(self) -> str: ...
    @property
    def extension(self) -> str: ...
    @property
    def is_black(self) -> bool:
        """True for a picture that is all black."""
        ...


class Files(Protocol):
    """The output folder. Paths are relative to it, POSIX slashes, without leaving it."""

    async def fetch(
        self, url: str, part: str, *, size_bytes: int | None, content_type: str | None, is_new: bool = False
    ) -> FetchedFile:
        """Bring `url` (or a data URI) whole to the temporary path `part`, going on where an earlier try stopped.

        `is_new` says that there was none, which spares the look for what it left.

        Raises `WireError` (an `HttpError` 403, 404 or 410 means that the link is dead), `OutputError`, `DiskFull`.
        """
        ...

    async def keep(self, body: bytes, part: str, *, content_type: str | None) -> FetchedFile:
        """Write `body` whole to the temporary path `part`. Raises `OutputError`, `DiskFull`."""
        ...

    async def publish(self, part: str, path: str) -> None:
        """Rename `part` to `path` and make the rename durable. Raises `OutputError`, `DiskFull`."""
        ...

    async def holds(self, path: str, *, size_bytes: int, sha256: bytes) -> bool:
        """True when the file at `path` is there with exactly these contents."""
        ...

    def is_taken(self, path: str) -> bool:
        """True when something stands at `path` already."""
        ...


class UploadedFile(Protocol):
    """A file at fal."""

    @property
    def url(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def expires_at(self) -> float | None:
        """Unix seconds; None when the account's setting decides."""
        ...


class Storage(Protocol):
    """fal's storage, and the local files that go there. What leaves is what was planned, to the byte."""

    @property
    def terms(self) -> UploadTerms: ...

    async def upload(self, paths: Sequence[str], sha256: bytes, content_type: str) -> UploadedFile:
        """Upload a content from the first of `paths` that still holds it, trying again what may pass; `content_type`
        "" goes by the content. Raises `WireError`, `FileUnusable`."""
        ...

    async def data_uri(self, paths: Sequence[str], sha256: bytes, content_type: str) -> str:
        """A content as a data URI. Raises `FileUnusable`."""
        ...


class Clock(Protocol):
    """Time and chance."""

    def now_s(self) -> float:
        """Monotonic seconds: for waits."""
        ...

    def unix_s(self) -> float:
        """Unix seconds: for records."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def jitter(self) -> float:
        """A uniform draw in [0, 1)."""
        ...
