"""Small direct windows on fal: its models, their schemas and their prices. One question each, no state."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from falbatch.adapters.sandbox_process import sandbox
from falbatch.api import connect
from falbatch.core.fields import EndpointFields, endpoint_fields
from falbatch.errors import CredentialsError, FalbatchError, FalUnreachable, HttpError, UsageError, WireError
from falbatch.fal.catalogue import CatalogueClient, Model
from falbatch.fal.hosts import Hosts
from falbatch.fal.platform import PlatformClient
from falbatch.fal.transport import Transport, TransportSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = [
    "EndpointSchema",
    "Model",
    "as_told",
    "categories",
    "models",
    "open_catalogue",
    "open_windows",
    "origin_of",
    "read_schema",
    "schema",
]

MODELS_MOST: Final = 2_000
"""Models read for one question; fal has some hundreds."""

NETWORK_ADVICE: Final = "Check the network and the FAL_* and FALBATCH_* variables, then try again."
KEY_ADVICE: Final = "Check the key (FAL_KEY, or --key-file), and the balance and limits in fal's dashboard."


@dataclass(frozen=True, slots=True)
class EndpointSchema:
    """What an endpoint takes and gives."""

    endpoint: str
    document: dict[str, Any]
    """The OpenAPI document as fal gave it."""
    fields: EndpointFields


@contextlib.contextmanager
def origin_of(*, is_sandbox: bool) -> Iterator[str | None]:
    """The origin of a sandbox that lives as long as this block; None without one."""
    if not is_sandbox:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="falbatch-") as folder, sandbox(Path(folder)) as origin:
        yield origin


async def models(
    query: str = "",
    *,
    category: str = "",
    status: str = "",
    limit: int = 100,
    key_file: Path | None = None,
    is_sandbox: bool = False,
) -> list[Model]:
    """The first `limit` of fal's models that match. A key is used when there is one. Raises `FalbatchError`."""
    found: list[Model] = []
    cursor: str | None = None
    async with open_catalogue(key_file, is_sandbox=is_sandbox) as asked:
        while len(found) < min(limit, MODELS_MOST):
            left = min(100, limit - len(found))
            page = await asked.models(query, category=category, status=status, limit=left, cursor=cursor)
            found += page.models
            cursor = page.next_cursor
            if cursor is None or not page.models:
                break
    return found[:limit]


async def categories(*, key_file: Path | None = None, is_sandbox: bool = False) -> list[str]:
    """The categories of fal's models, sorted. Raises `FalbatchError`."""
    found = await models(limit=MODELS_MOST, key_file=key_file, is_sandbox=is_sandbox)
    return sorted({model.category for model in found if model.category})


async def schema(endpoint: str, *, is_sandbox: bool = False) -> EndpointSchema:
    """What `endpoint` takes and gives, by its own schema. Needs no key. Raises `FalbatchError`."""
    async with open_catalogue(None, is_sandbox=is_sandbox) as asked:
        return await read_schema(asked, endpoint)


async def read_schema(asked: CatalogueClient, endpoint: str) -> EndpointSchema:
    """The same, by a client that is open already. An endpoint that fal does not have is told with near ones."""
    try:
        document = await asked.schema(endpoint)
    except HttpError as error:
        if error.status != 404:
            raise
        raise await _unknown(asked, endpoint) from error
    return EndpointSchema(endpoint, document, endpoint_fields(document))


async def _unknown(asked: CatalogueClient, endpoint: str) -> UsageError:
    """What to tell about an endpoint that has no schema: it is spelled wrongly, or nobody described it."""
    near = await asked.near(endpoint)
    what = f"fal has no schema of {endpoint!r} (404)"
    if endpoint in near:
        return UsageError(f"{what}, though it lists the endpoint", advice="Its page at fal.ai may describe it.")
    if near:
        return UsageError(what, advice=f"Did you mean {' or '.join(near)}? `falbatch models WORDS` searches.")
    return UsageError(what, advice="Look for it with `falbatch models WORDS`; private endpoints have no schema.")


@dataclass(frozen=True, slots=True)
class Windows:
    """What fal tells about its endpoints."""

    catalogue: CatalogueClient
    platform: connect.FalPlatform | None
    """Prices; None without a key, as fal names them only with one (fal-protocol §11.3)."""
    no_key: CredentialsError | None = None
    """Why there is none."""


@contextlib.asynccontextmanager
async def open_windows(key_file: Path | None, *, is_sandbox: bool) -> AsyncIterator[Windows]:
    """fal's lists, schemas and prices, with a key where there is one. Raises `FalbatchError` for what its calls
    raise."""
    with origin_of(is_sandbox=is_sandbox) as origin:
        hosts = Hosts.resolve(os.environ, origin=origin)
        credentials = no_key = None
        try:
            credentials = connect.find_target(key_file=key_file, origin=origin).credentials
        except CredentialsError as error:
            if key_file is not None:
                raise
            no_key = error
        async with Transport(settings=TransportSettings()) as transport:
            catalogue = CatalogueClient(transport, hosts, credentials)
            platform = connect.FalPlatform(PlatformClient(transport, hosts, credentials)) if credentials else None
            try:
                yield Windows(catalogue, platform, no_key)
            except (WireError, ValueError) as error:
                raise as_told(error) from error


@contextlib.asynccontextmanager
async def open_catalogue(key_file: Path | None, *, is_sandbox: bool) -> AsyncIterator[CatalogueClient]:
    """The same, where prices are of no interest."""
    async with open_windows(key_file, is_sandbox=is_sandbox) as fal:
        yield fal.catalogue


def as_told(error: WireError | ValueError) -> FalbatchError:
    """A failed call as the user is told about it, with its exit code."""
    if isinstance(error, ValueError):
        return UsageError(str(error))
    if isinstance(error, HttpError):
        if error.status in {401, 402, 403}:
            return CredentialsError(f"fal refuses: {error}", advice=KEY_ADVICE)
        if error.status == 429 or error.status >= 500:
            return FalUnreachable(str(error), advice="Try again later.")
        return UsageError(str(error))
    return FalUnreachable(str(error), advice=NETWORK_ADVICE)
