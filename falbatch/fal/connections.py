"""Connections as falbatch wants them: none that somebody spoke on unasked, none to addresses that are not public."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

from falbatch.fal.addresses import RefusedAddress, is_allowed

if TYPE_CHECKING:
    import ssl

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
            resolver=PublicResolver(settings.allow_loopback, proxy_hosts) if settings.public_only else None,
        )

    async def _get(self, *args: Any, **more: Any) -> aiohttp.connector.Connection | None:
        found = await super()._get(*args, **more)
        while found is not None and (found.protocol is None or found.protocol.should_close):
            found.close()
            found = await super()._get(*args, **more)
        return found


class PublicResolver(AbstractResolver):
    """The default resolver, less the addresses that nobody outside should make us connect to.

    Connections are made to the very addresses returned here, so a name cannot change its mind in between.
    """

    def __init__(self, allow_loopback: bool, exempt: set[str]) -> None:
        self._inner = DefaultResolver()
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
