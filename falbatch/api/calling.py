"""One call without a manifest, and uploads by hand: the client's words behind the command line's (design §3)."""

from __future__ import annotations

import math
import os
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import anyio

from falbatch.api import connect
from falbatch.api.offline import user_cache
from falbatch.api.one_call import check_call
from falbatch.api.windows import KEY_ADVICE, origin_of
from falbatch.client.asking import seconds_of
from falbatch.client.asynchronous import AsyncClient
from falbatch.client.connections import ClientSettings
from falbatch.client.encoding import body_of
from falbatch.client.errors import LOST_RUN, FalClientError, FalClientHTTPError, FalClientTimeoutError
from falbatch.core.artifacts import artifact_path, find_files, part_path
from falbatch.core.fileinputs import FILE_STANDS
from falbatch.core.inline import with_file_objects
from falbatch.errors import CredentialsError, FalUnreachable, HttpError, OutputError, UsageError, WireError
from falbatch.fal.catalogue import CatalogueClient
from falbatch.fal.endpoint import EndpointId
from falbatch.fal.lifecycle import StorageSettings
from falbatch.fal.realtime import pack
from falbatch.fal.transport import Transport, TransportSettings
from falbatch.fal.wire import is_request_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from falbatch.adapters.files import OutputFolder
    from falbatch.client.statuses import Status

BY_HAND: Final = "The result has been printed: while its URLs live, they can be fetched by hand."

DOWNLOADS: Final = 4
"""Files of one result fetched with so many connections."""


class Way(StrEnum):
    """How an endpoint is called once."""

    QUEUE = "queue"
    RUN = "run"
    STREAM = "stream"
    REALTIME = "realtime"


@dataclass(frozen=True, slots=True)
class CallOptions:
    """One call."""

    endpoint: str
    input: dict[str, Any]
    files: dict[tuple[str, ...], Path] = field(default_factory=dict)
    """Files to upload, by the place in the input where their URLs go."""
    way: Way = Way.QUEUE
    request_id: str = ""
    """With it nothing is submitted: the result of that request is waited for."""
    timeout_s: float | None = None
    logs: bool = False
    output: Path | None = None
    """Folder for the result's files; None fetches none."""
    key_file: Path | None = None
    is_sandbox: bool = False
    validates: bool = True
    """Check the input against the endpoint's schema first."""


@dataclass(frozen=True, slots=True)
class CallListener:
    """Who hears of a call while it goes on. Bytes of an answer come as file objects with data URIs."""

    on_request: Callable[[str], None]
    """The request id, as soon as it is known."""
    on_update: Callable[[Status], None]
    on_event: Callable[[Any], None]
    """Each event of a stream."""
    on_warning: Callable[[str], None]
    """What is worth knowing about the input, and stops nothing."""
    on_output: Callable[[Any], None]
    """The model's output, once, before its files are fetched: it is paid for, and they may fail."""


async def call(options: CallOptions, listen: CallListener) -> tuple[str, ...]:
    """Call an endpoint once, and fetch its files when asked to: their paths in the folder. Raises `FalbatchError`.

    What can be known to be wrong is found before anything costs.
    """
    _check(options)
    async with _client(options.key_file, is_sandbox=options.is_sandbox) as (client, target):
        if options.validates and not options.request_id:
            for warning in await _checked(target, options):
                listen.on_warning(warning)
        given = options.input
        for place, path in options.files.items():
            given = put(given, place, await _uploaded(client, path, None))
        output = _printable(await _answer(client, options, given, listen))
        listen.on_output(output)
        if options.output is None:
            return ()
        async with connect.open_output(target, options.output, downloads=DOWNLOADS) as folder:
            return await _save(folder, output, given, _file_name(options, output))


def _check(options: CallOptions) -> None:
    """Raise `UsageError` for an endpoint, id, time, input or folder that cannot be used."""
    try:
        EndpointId.parse(options.endpoint)
        seconds_of("--timeout", options.timeout_s, math.inf)
        if options.request_id and not is_request_id(options.request_id):
            raise ValueError(f"{options.request_id!r} is not a request id: fal's are UUIDs")
        if options.way is Way.REALTIME:
            pack(options.input)
        else:
            body_of(options.endpoint, options.input)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error), advice="Nothing was submitted.") from error
    if options.output is not None:
        try:
            options.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"--output {options.output}: this cannot be a folder ({error.strerror})",
                advice="Nothing was submitted.",
            ) from error


async def _checked(target: connect.Target, options: CallOptions) -> list[str]:
    """What is to be said of the input. Raises `UsageError` where the endpoint will refuse it."""
    given = options.input
    for place in options.files:
        given = put(given, place, FILE_STANDS)
    cache = user_cache(os.environ, sandbox=options.is_sandbox)
    async with Transport(settings=TransportSettings()) as transport:
        catalogue = CatalogueClient(transport, target.hosts, target.credentials)
        return await check_call(catalogue, cache, options.endpoint, given)


def _printable(output: Any) -> Any:
    """`output` with bytes in it as file objects."""
    try:
        return with_file_objects(output)
    except ValueError:  # nested deeper than anybody looks for files in
        return output


async def upload(
    paths: list[Path], *, expires_in: str | None, key_file: Path | None, is_sandbox: bool
) -> AsyncIterator[tuple[Path, str]]:
    """Upload files one after another and give their URLs as they are known. Raises `FalbatchError`."""
    lifecycle = None if expires_in is None else _lifecycle(expires_in)
    for path in paths:
        if not path.is_file():
            what = "this is a folder" if path.is_dir() else "there is no such file"
            raise UsageError(f"{path}: {what}", advice="Nothing was uploaded.")
    async with _client(key_file, is_sandbox=is_sandbox) as (client, _):
        for path in paths:
            yield path, await _uploaded(client, path, lifecycle)


def put(given: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """`given` with `value` at `place`; what lies on the way is made. Raises `UsageError` where a value stands."""
    first, *rest = place
    if not rest:
        return {**given, first: value}
    inner = given.get(first, {})
    if not isinstance(inner, dict):
        raise UsageError(f"{'.'.join(place)}: {first} has a value already, so nothing can stand in it")
    return {**given, first: put(inner, tuple(rest), value)}


@asynccontextmanager
async def _client(key_file: Path | None, *, is_sandbox: bool) -> AsyncIterator[tuple[AsyncClient, connect.Target]]:
    with origin_of(is_sandbox=is_sandbox) as origin:
        target = connect.find_target(key_file=key_file, origin=origin)
        settings = ClientSettings(hosts=target.hosts, credentials=target.credentials)
        async with AsyncClient(settings=settings) as client:
            try:
                yield client, target
            except FalClientError as error:
                if isinstance(error, FalClientHTTPError) and error.status_code in {401, 403}:
                    raise CredentialsError(f"fal refuses: {error}", advice=KEY_ADVICE) from error
                # Its words hold the advice, which would be told twice.
                error.args, error.advice = (str(error),), ""
                raise


async def _answer(client: AsyncClient, options: CallOptions, given: dict[str, Any], listen: CallListener) -> Any:
    endpoint = options.endpoint
    match options.way:
        case Way.RUN:
            return await client.run(endpoint, given, timeout=options.timeout_s)
        case Way.STREAM:
            last = None
            async with aclosing(client.stream(endpoint, given, timeout=options.timeout_s)) as events:
                async for last in events:
                    listen.on_event(_printable(last))
            return last
        case Way.REALTIME:
            with _limited(options.timeout_s, None, LOST_RUN):
                async with client.realtime(endpoint) as connection:
                    await connection.send(given)
                    return await connection.recv()
        case Way.QUEUE if options.request_id:
            with _limited(options.timeout_s, options.request_id, "It was not cancelled: the same command waits again."):
                handle = await client.get_handle(endpoint, options.request_id)
                async with aclosing(handle.iter_events(with_logs=options.logs)) as statuses:
                    async for status in statuses:
                        listen.on_update(status)
                return await handle.result()
        case Way.QUEUE:
            return await client.subscribe(
                endpoint,
                given,
                with_logs=options.logs,
                on_enqueue=listen.on_request,
                on_queue_update=listen.on_update,
                client_timeout=options.timeout_s,
            )


@contextmanager
def _limited(timeout_s: float | None, request_id: str | None, advice: str) -> Iterator[None]:
    """FalClientTimeoutError when the block is not done after `timeout_s` seconds."""
    with anyio.move_on_after(timeout_s) as limit:
        yield
    if limit.cancelled_caught:
        raise FalClientTimeoutError(timeout_s or 0.0, request_id, advice=advice)


async def _uploaded(client: AsyncClient, path: Path, lifecycle: StorageSettings | None) -> str:
    try:
        return await client.upload_file(path, lifecycle=lifecycle)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error


def _lifecycle(expires_in: str) -> StorageSettings:
    given: Any = int(expires_in) if expires_in.isdecimal() else expires_in  # a word or seconds: checked by the settings
    try:
        return StorageSettings(expires_in=given)
    except ValueError as error:
        raise UsageError(f"--expires-in: {error}") from error


def _file_name(options: CallOptions, output: Any) -> str:
    """`flux-dev-<seed or request>`: what tells one call's files from another's."""
    words = "-".join(options.endpoint.split("/")[1:])
    seed = output.get("seed") if isinstance(output, dict) else None
    return f"{words}-{options.request_id[:8] or (seed if isinstance(seed, int) else os.getpid())}"


async def _save(folder: OutputFolder, output: Any, given: dict[str, Any], name: str) -> tuple[str, ...]:
    """Fetch the result's files into `folder`, none over another."""
    refs = find_files(output, given)
    paths: list[str] = []
    for place, ref in enumerate(refs):
        part = part_path(name, place, str(os.getpid()))
        try:
            fetched = await folder.fetch(ref.url, part, size_bytes=ref.size_bytes, content_type=ref.content_type)
        except HttpError as error:
            raise OutputError(f"{ref.where}: its file could not be had: {error}", advice=BY_HAND) from error
        except WireError as error:
            raise FalUnreachable(f"{ref.where}: its file could not be had: {error}", advice=BY_HAND) from error
        number, path = 1, artifact_path(name, place, len(refs), fetched.extension)
        while folder.is_taken(path):
            number += 1
            path = artifact_path(name, place, len(refs), fetched.extension, apart=str(number))
        await folder.publish(part, path)
        paths.append(path)
    return tuple(paths)
