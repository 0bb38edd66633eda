"""Connections as falbatch wants them: none that somebody spoke on unasked, none to addresses that are not public, and
no lookup of a name that a program would have to wait for at its end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from falbatch.fal.addresses import RefusedAddress, is_allowed

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from falbatch.fal.exchange import TransportSettings

DNS_TTL_S: Final = 60
"""aiohttp asks again after 10 s; fal's addresses change rarely, and a lookup needs a thread."""


class Connector(aiohttp.TCPConnector):
    """Reuses no connection on which something came unasked: aiohttp would take it for the next request's answer.

    Front ends write a 408 or 400 to an idle connection before they close it.
    """

    def __init__(self, settings: TransportSettings, context: ssl.SSLContext, proxy_hosts: set[str]) -> None:
        """`proxy_hosts` may have any address: the user chose them."""
        super().__init__(
            limit=max(settings.connections, settings.gate),
            ttl_dns_cache=DNS_TTL_S,
            keepalive_timeout=settings.keepalive_s,
            ssl=context,
            resolver=PublicResolver(settings.allow_loopback, proxy_hosts) if settings.public_only else Resolver(),
        )

    async def _get(self, *args: Any, **more: Any) -> aiohttp.connector.Connection | None:
        found = await super()._get(*args, **more)
        while found is not None and (found.protocol is None or found.protocol.should_close):
            found.close()
            found = await super()._get(*args, **more)
        return found


class Resolver(AbstractResolver):
    """The operating system's resolver, in threads that nobody waits for.

    aiohttp's own uses the event loop's pool, which the loop's end and Python's own end wait for: where DNS is silent,
    a program that has given up long ago would stay for as long as the system keeps asking.
    """

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        found = await _in_daemon(lambda: _look_up(host, port, family))
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=proto, flags=flags)
            for kind, proto, address in found
        ]

    async def close(self) -> None:
        pass


_Places = list[tuple[int, int, str]]
"""Family, protocol and numeric address of each place that a name stands for."""


def _look_up(host: str, port: int, family: Any) -> _Places:
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG)
    return [(kind, proto, _numeric(place)) for kind, _, proto, _, place in infos]


def _numeric(place: tuple[Any, ...]) -> str:
    """An address in digits; of a link-local one with its network card."""
    if len(place) == 4 and place[3]:
        return socket.getnameinfo(place, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
    return str(place[0])


async def _in_daemon(work: Callable[[], _Places]) -> _Places:
    """What `work` gives, done in a thread that may be left behind."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[_Places] = loop.create_future()

    def settle(settled: Callable[[], None]) -> None:
        if not outcome.done():  # else nobody waits any more
            settled()

    def run() -> None:
        try:
            value = work()
        except Exception as error:  # noqa: BLE001  (passed on to who asked)
            settled = functools.partial(outcome.set_exception, error)
        else:
            settled = functools.partial(outcome.set_result, value)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, settled)

    threading.Thread(target=run, name="falbatch-dns", daemon=True).start()
    return await outcome


class PublicResolver(AbstractResolver):
    """`Resolver`, less the addresses that nobody outside should make us connect to.

    Connections are made to the very addresses returned here, so a name cannot change its mind in between.
    """

    def __init__(self, allow_loopback: bool, exempt: set[str]) -> None:
        self._inner = Resolver()
        self._allow_loopback = allow_loopback
        self._exempt = exempt

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if host in self._exempt:
            return found
        allowed = [one for one in found if is_allowed(one["host"], allow_loopback=self._allow_loopback)]
        if not allowed:
            raise RefusedAddress(f"{host} has no public address")
        return allowed

    async def close(self) -> None:
        await self._inner.close()
