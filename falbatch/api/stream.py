"""`map`: the same engine for inputs that live in Python."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from falbatch.adapters import lock
from falbatch.adapters.cache import Cache
from falbatch.adapters.clock import SystemClock
from falbatch.adapters.files import make_folder
from falbatch.adapters.sandbox_process import sandbox as sandbox_process
from falbatch.adapters.store import reader, stage
from falbatch.adapters.store.database import translated
from falbatch.adapters.store.store import Store
from falbatch.api import connect
from falbatch.api.batch import export_object
from falbatch.api.executing import perform
from falbatch.api.localinputs import with_contents
from falbatch.api.offline import check_endpoint
from falbatch.api.pricing import find_prices, open_spending
from falbatch.api.running import SANDBOX_DATA, target_kind_of
from falbatch.api.uploading import open_storage
from falbatch.api.workspace import holder_of
from falbatch.core.events import JobEnded, RunEvent
from falbatch.core.fileinputs import from_python
from falbatch.core.jsonvalue import to_json
from falbatch.core.model import Item, Mode
from falbatch.core.problems import ProblemLog, shown
from falbatch.core.schema import dotted
from falbatch.core.state import State
from falbatch.engine.execute import Deps, Execution
from falbatch.engine.settings import ExecuteSettings
from falbatch.engine.stop import Stop
from falbatch.errors import Problem, UsageError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping

    from anyio.streams.memory import MemoryObjectSendStream

    from falbatch.core.faults import Fault
    from falbatch.core.fileinputs import FileInput


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one input."""

    index: int
    """0-based place in the inputs."""
    input: Mapping[str, Any]
    state: State
    """`done` (`completed` when no files were asked for), `failed`, `cancelled`, `unknown`; anything else: it could
    not be finished this time, and the same call goes on."""
    request_id: str | None
    output: Any
    """The result as JSON values, None without one."""
    files: tuple[Path, ...]
    error_type: str | None
    error: str | None
    flags: tuple[str, ...] = ()
    """What was noticed about the result: `nsfw`, `black`. `limits=Limits(flagged=…)` says what follows from it."""

    @property
    def is_ok(self) -> bool:
        """True when the result is here."""
        return self.state in {State.DONE, State.COMPLETED} and self.output is not None


async def map_inputs(
    endpoint: str,
    inputs: Iterable[Mapping[str, Any]],
    *,
    state: str | Path,
    mode: Mode | str = Mode.QUEUE,
    output: str | Path | None = None,
    limits: ExecuteSettings | None = None,
    key_file: Path | None = None,
    sandbox: bool = False,
) -> AsyncGenerator[Outcome, None]:
    """Run `endpoint` over `inputs`; yield an `Outcome` for each as it ends, those known already first.

    Everything is kept in the state file `state`: called again after a crash with the same inputs, it goes on, and
    nothing is submitted twice. Files are fetched into `output`; without it only results are kept. `limits` bounds
    rates, attempts and jobs in flight. `mode` is how the endpoint is called: queue, run, stream or realtime. Leaving
    the loop early stops the run gently; `contextlib.aclosing` does it at once instead of when Python finds the time.

    Raises `FalbatchError` when the run cannot begin, or ends before its work is done.
    """
    path = Path(state)
    problem = check_endpoint(endpoint)
    if problem is not None:
        raise UsageError(problem)
    if mode not in list(Mode):
        raise UsageError(f"mode must be one of {', '.join(Mode)}, not {mode!r}")
    settings = replace(limits or ExecuteSettings(), mode=Mode(mode), with_files=output is not None)
    folder = Path(output) if output is not None else path.parent
    make_folder(path.parent)
    make_folder(folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock.held(path, holder=lambda: holder_of(path)))
        store = stack.enter_context(Store.open(path))
        at = SystemClock().unix_s()
        kind = target_kind_of(sandbox=sandbox)
        store.check(name=endpoint, target=kind)
        with translated(path):
            await anyio.to_thread.run_sync(_fill, store.connection, _items(endpoint, settings.mode, inputs))
        store.begin(name=endpoint, target=kind, manifest="", at=at)
        known = reader.ids_in(store.reading, (State.DONE, State.FAILED, State.CANCELLED))
        if output is None:
            known += reader.ids_taken(store.reading)
        for job_id in known:
            yield _outcome(store, job_id, folder)
        if len(known) == store.status().total:
            return
        origin = stack.enter_context(sandbox_process(folder / SANDBOX_DATA)) if sandbox else None
        target = connect.find_target(key_file=key_file, origin=origin)
        connect.check_mode(target, settings.mode)
        async with contextlib.aclosing(_finishing(store, target, folder, settings, endpoint)) as finishing:
            async for job_id in finishing:
                outcome = _outcome(store, job_id, folder)
                if outcome.index is not None:  # a request of an earlier call, with other inputs, that came home
                    yield outcome
        # Last, since they are looked for at fal until the end.
        for job_id in reader.ids_in(store.reading, (State.UNKNOWN,)):
            yield _outcome(store, job_id, folder)
        if store.is_copy_due:
            await anyio.to_thread.run_sync(store.keep_copy)


def _fill(connection: sqlite3.Connection, items: Iterator[Item]) -> None:
    """Stage the inputs with the contents of their files. Raises `UsageError` with every file that cannot be used."""
    log = ProblemLog()

    def wrong(item: Item, file: FileInput | None, fault: Fault) -> None:
        where = item.origin + (dotted(("", *file.place)) if file else "")
        what = f"{shown(file.path)}: {fault.what}" if file else fault.what
        log.add(Problem(where, 0, 0, what, fault.hint), cause=(file.path, fault.what) if file else None)

    stage.fill(connection, with_contents(connection, items, base=os.getcwd(), wrong=wrong))  # noqa: PTH109
    log.raise_if_any()


def _items(endpoint: str, mode: Mode, inputs: Iterable[Mapping[str, Any]]) -> Iterator[Item]:
    for index, given in enumerate(inputs):
        try:
            values = to_json(from_python(given))
        except ValueError as error:
            advice = "Give a file by its path, Path('a.png') or {'file': 'a.png'}; write bytes and pictures to disk."
            raise UsageError(f"inputs[{index}]: {error}", advice=advice) from None
        yield Item(index, endpoint, mode, values, None, "", f"inputs[{index}]")


async def _finishing(
    store: Store, target: connect.Target, folder: Path, settings: ExecuteSettings, endpoint: str
) -> AsyncGenerator[int, None]:
    """The ids of jobs as they end. The run goes on in the background while the caller looks at one."""
    send, receive = anyio.create_memory_object_stream[int](float("inf"))

    def hear(event: RunEvent) -> None:
        if isinstance(event, JobEnded) and event.state is not State.UNKNOWN:
            with contextlib.suppress(anyio.BrokenResourceError):  # the caller has left; the state file knows
                send.send_nowait(event.job_id)

    async with (
        connect.open_fal(target, connect.submit_options(None)) as fal,
        connect.open_output(target, folder, downloads=settings.downloads) as files,
        open_storage(target, settings) as storage,
    ):
        clock = SystemClock()
        is_needed = settings.max_cost_nano is not None
        found = await find_prices(
            store,
            fal.platform,
            [endpoint],
            budget=None,
            is_needed=is_needed,
            at=clock.unix_s(),
            cache=Cache(None),
            account="",
        )
        spending = open_spending(store, found.prices, settings.max_cost_nano)
        deps = Deps(store, fal.queue, fal.platform, files, clock, hear, spending, fal.direct, storage)
        execution = Execution(deps, settings, Stop())
        # A plain task: a task group must be left by the task that entered it, and nobody knows which task will close
        # a generator that its caller walked away from.
        work = asyncio.create_task(_run(execution, store, send))
        try:
            with receive:
                async for job_id in receive:
                    yield job_id
        finally:
            execution.stop("the caller left")
            # Where the caller was cancelled, waiting would hand each cancellation on to the run, again and again.
            with anyio.CancelScope(shield=True):
                await work
    if execution.ended_by is not None:
        raise execution.ended_by


async def _run(execution: Execution, store: Store, send: MemoryObjectSendStream[int]) -> None:
    async with send:
        await perform(execution, store, watch_signals=False)


def _outcome(store: Store, job_id: int, folder: Path) -> Outcome:
    record = export_object(reader.export_row(store.reading, job_id))
    return Outcome(
        index=record["seq"],
        input=record["input"],
        state=State(record["state"]),
        request_id=record["request_id"],
        output=record["result"],
        files=tuple(folder / file["path"] for file in record["files"]),
        error_type=record["error_type"],
        error=record["error"],
        flags=tuple(record["flags"]),
    )
