"""Wiring: which fal, with which key, over which connections. The one place that builds the parts of a run."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from falbatch.adapters.fetch import Fetcher
from falbatch.adapters.files import OutputFolder
from falbatch.adapters.hops import Hops
from falbatch.api.direct_calls import FalDirect
from falbatch.api.realtime_pool import RealtimePool
from falbatch.core.identity import canonical_json
from falbatch.core.money import Price, to_nano
from falbatch.core.pacing import DIRECT_AT_ONCE
from falbatch.core.pricing import Estimate
from falbatch.core.reconcile import Listed
from falbatch.fal.auth import Credentials, find_credentials
from falbatch.fal.catalogue import CatalogueClient
from falbatch.fal.direct import DirectClient
from falbatch.fal.hosts import Hosts
from falbatch.fal.platform import PlatformClient
from falbatch.fal.queue import QueueClient, SubmitOptions
from falbatch.fal.realtime import RealtimeClient
from falbatch.fal.transport import Transport, TransportSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from falbatch.core.manifest import Manifest
    from falbatch.core.model import Mode
    from falbatch.core.record import RequestOnRecord
    from falbatch.fal.wire import Accepted, CancelAnswer, Progress, Result

SANDBOX_KEY: Final = "sandbox:sandbox"
"""The key for the built-in sandbox: any pair will do there, and no real one may go to it."""

DOWNLOAD_CONNECTIONS_SPARE: Final = 4

ESTIMATED_CALLS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Target:
    """Which fal a run talks to. `kind` is what the state file remembers: `fal`, `loopback` or `sandbox`."""

    kind: str
    hosts: Hosts
    credentials: Credentials

    @property
    def costs(self) -> bool:
        """False for servers on this machine."""
        return self.kind == "fal"


def find_target(*, key_file: Path | None, origin: str | None, env: Mapping[str, str] | None = None) -> Target:
    """The fal to talk to and the key for it. `origin` is the built-in sandbox's, None without it.

    Raises `UsageError` for a host that cannot be used, `CredentialsError` without a usable key.
    """
    env = os.environ if env is None else env
    hosts = Hosts.resolve(env, origin=origin)
    if origin is not None:
        return Target("sandbox", hosts, find_credentials({"FAL_KEY": SANDBOX_KEY}, key_file=None, home=Path.home()))
    credentials = find_credentials(env, key_file=key_file, home=Path.home())
    return Target("loopback" if hosts.loopback else "fal", hosts, credentials)


def check_mode(target: Target, mode: Mode) -> None:
    """Refuse direct calls where no host for them is known. Raises `UsageError`, before anything is on record."""
    if mode.is_direct:
        target.hosts.need("run")


class FalQueue:
    """The engine's queue port over fal's client: the manifest's submit options, and requests as they are on record."""

    def __init__(self, client: QueueClient, options: SubmitOptions) -> None:
        self._client = client
        self._options = options

    async def submit(self, endpoint: str, body: bytes, callback: str | None) -> Accepted:
        """Submit one job; `callback` is the URL that fal shall call at its end. Raises `WireError`."""
        return await self._client.submit(endpoint, body, self._options, webhook_url=callback)

    async def status(self, request: RequestOnRecord) -> Progress:
        """Ask about a request. Raises `WireError`."""
        return await self._client.status(request)

    async def result(self, request: RequestOnRecord) -> Result:
        """Read a completed request's result. Raises `WireError`."""
        return await self._client.result(request)

    async def cancel(self, request: RequestOnRecord) -> CancelAnswer:
        """Ask fal to cancel a request. Raises `WireError`."""
        return await self._client.cancel(request)


@dataclass(frozen=True, slots=True)
class ListedPage:
    """A page of fal's request list, inputs in canonical form."""

    items: tuple[Listed, ...]
    next_cursor: str | None


def _canonical(given: Any) -> bytes | None:
    """None for what we never send: a number that JSON does not have, in somebody else's input."""
    try:
        return canonical_json(given)
    except (TypeError, ValueError):
        return None


class FalPlatform:
    """The engine's request list, and fal's prices and estimates, over the platform API."""

    def __init__(self, client: PlatformClient) -> None:
        self._client = client

    async def page(self, endpoint: str, *, since: float, cursor: str | None) -> ListedPage:
        """Requests to `endpoint` since the Unix time `since`. Raises `WireError`."""
        page = await self._client.requests_page(endpoint, start=since, cursor=cursor)
        items = (
            Listed(
                item.request_id,
                _canonical(item.input) if item.has_input else None,
                item.sent_at,
                None if item.output is None else _canonical(item.output),
            )
            for item in page.items
        )
        return ListedPage(tuple(items), page.next_cursor)

    async def prices(self, endpoints: Sequence[str], *, at: float, timeout_s: float) -> dict[str, Price]:
        """fal's prices of `endpoints` in US dollars, those that it names. Raises `WireError`."""
        heard = await self._client.prices(endpoints, timeout_s=timeout_s)
        return {
            price.endpoint: Price(to_nano(price.unit_price), price.unit, at)
            for price in heard
            if price.currency.upper() == "USD"
        }

    async def estimate(self, endpoint: str, *, at: float, timeout_s: float) -> Estimate:
        """What a call of `endpoint` costs on average, by fal's history; without amount where fal names none in US
        dollars. Raises `WireError`."""
        # Of many, so that an amount that fal rounds is still exact for one.
        heard = await self._client.estimate(endpoint, calls=ESTIMATED_CALLS, timeout_s=timeout_s)
        if heard is None or heard.currency.upper() != "USD":
            return Estimate(None, at)
        return Estimate(to_nano(heard.total / ESTIMATED_CALLS), at)


@dataclass(frozen=True, slots=True)
class Fal:
    """fal, as a run sees it."""

    queue: FalQueue
    platform: FalPlatform
    direct: FalDirect
    catalogue: CatalogueClient


@contextlib.asynccontextmanager
async def open_fal(target: Target, options: SubmitOptions) -> AsyncIterator[Fal]:
    """fal over connections of its own. Direct calls have theirs apart: each is held until its answer, and none may wait
    for another after its intent is on record."""
    apart = TransportSettings(gate=DIRECT_AT_ONCE, connections=DIRECT_AT_ONCE)
    async with Transport(settings=TransportSettings()) as transport, Transport(settings=apart) as held:
        queue = QueueClient(transport, target.hosts, target.credentials)
        platform = PlatformClient(transport, target.hosts, target.credentials)
        async with contextlib.aclosing(RealtimePool(RealtimeClient(held, target.hosts, target.credentials))) as pool:
            direct = FalDirect(DirectClient(held, target.hosts, target.credentials), options, pool)
            catalogue = CatalogueClient(transport, target.hosts, target.credentials)
            yield Fal(FalQueue(queue, options), FalPlatform(platform), direct, catalogue)


@contextlib.asynccontextmanager
async def open_output(target: Target, folder: Path, *, downloads: int) -> AsyncIterator[OutputFolder]:
    """The output folder with its own connections, which know no key and reach public addresses only."""
    settings = TransportSettings(
        gate=downloads,
        connections=downloads + DOWNLOAD_CONNECTIONS_SPARE,
        public_only=True,
        allow_loopback=target.hosts.loopback,
    )
    async with Transport(settings=settings) as transport:
        with Hops() as hops:
            yield OutputFolder(folder, Fetcher(transport, allow_http=target.hosts.loopback, hops=hops))


def submit_options(manifest: Manifest | None) -> SubmitOptions:
    """The manifest's `request` section as fal's headers."""
    if manifest is None:
        return SubmitOptions()
    request = manifest.request
    return SubmitOptions(
        priority=request.priority,
        start_timeout_s=request.start_timeout_s,
        hint=request.hint,
        tags=request.tags,
        expires_in=request.expires_in,
        store_io=request.store_io,
        fallback=request.fallback,
        webhook_url=request.webhook,
        headers=request.headers,
    )
