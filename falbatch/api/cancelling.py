"""`cancel`: ask fal to give up what is queued or running."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from falbatch.adapters import lock
from falbatch.adapters.sandbox_process import sandbox
from falbatch.adapters.store import reader
from falbatch.api import connect
from falbatch.api.again import is_named
from falbatch.api.batch import reading
from falbatch.api.running import SANDBOX_DATA
from falbatch.api.workspace import Workspace, holder_of, open_state
from falbatch.core.classify import is_account_trouble
from falbatch.core.model import Mode
from falbatch.errors import CredentialsError, FalUnreachable, TransportError, UsageError, WireError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from falbatch.core.record import OpenJob


@dataclass(frozen=True, slots=True)
class CancelReport:
    """What became of the requests that were at fal."""

    asked: int
    accepted: int
    """fal said it will try: they may still finish, and then are billed."""
    too_late: int
    """Finished before; the next run brings their results."""
    unknown: int
    """Not known to fal any more."""
    refused: tuple[tuple[str, str], ...]
    """(job name, why) of those for which fal could not be asked."""
    mode: Mode = Mode.QUEUE
    """How the manifest's jobs are called. Direct calls cannot be cancelled."""


async def cancel(
    argument: str | Path, *, output: Path | None = None, key_file: Path | None = None, names: tuple[str, ...] = ()
) -> CancelReport:
    """Ask fal to cancel what is queued or running. Cancelling is a wish: the next run reads what became of it.

    Raises `StateError` while a run is going on (it would see its requests vanish).
    """
    place = open_state(Path(argument), output=output)
    with reading(place) as connection:
        jobs = [job for job in reader.at_fal(connection) if is_named(job.name, names)]
        row = reader.batch_row(connection)
        mode = reader.mode_of(connection)
    if not jobs:
        return CancelReport(0, 0, 0, 0, (), mode)
    with lock.held(place.state, holder=lambda: holder_of(place.state)), fal_of(place, row, key_file) as target:
        async with connect.open_fal(target, connect.submit_options(None)) as fal:
            return replace(await _cancel_all(fal.queue, jobs), mode=mode)


@contextlib.contextmanager
def fal_of(place: Workspace, row: reader.BatchRow | None, key_file: Path | None) -> Iterator[connect.Target]:
    """The fal that a batch's requests are at. Raises `UsageError` when the environment points at another."""
    is_rehearsal = row is not None and row.target == "sandbox"
    with sandbox(place.output / SANDBOX_DATA) if is_rehearsal else contextlib.nullcontext(None) as origin:
        target = connect.find_target(key_file=key_file, origin=origin)
        if row is not None and row.target != target.kind:
            raise UsageError(
                f"{place.state}: its requests are at another fal ({row.target}) than this command would ask",
                advice="Set the FAL_* and FALBATCH_* variables as they were for the run.",
            )
        yield target


async def _cancel_all(queue: connect.FalQueue, jobs: list[OpenJob]) -> CancelReport:
    answers: list[str] = []
    refused: list[tuple[str, WireError]] = []
    at_once = anyio.CapacityLimiter(16)

    async def one(job: OpenJob) -> None:
        if job.request is None:
            return
        async with at_once:
            try:
                answers.append((await queue.cancel(job.request)).name)
            except WireError as error:
                refused.append((job.name, error))

    async with anyio.create_task_group() as group:
        for job in jobs:
            group.start_soon(one, job)
    if refused and not answers:
        _raise_common(refused[0][1])
    return CancelReport(
        asked=len(jobs),
        accepted=answers.count("ACCEPTED"),
        too_late=answers.count("ALREADY_COMPLETED"),
        unknown=answers.count("NOT_FOUND"),
        refused=tuple(sorted((name, str(error)) for name, error in refused)),
    )


def _raise_common(error: WireError) -> None:
    """fal answered to none of the calls: say the one reason, with its exit code."""
    if is_account_trouble(error):
        raise CredentialsError(f"fal refuses the key: {error}", advice="Set a key of the account that ran the batch.")
    if isinstance(error, TransportError):
        raise FalUnreachable(f"fal cannot be reached: {error}", advice="Check the network, then cancel again.")
