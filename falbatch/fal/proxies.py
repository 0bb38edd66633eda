"""Which proxy, if any, a URL goes through, from the usual environment variables, read once.

The HTTP library would read them again for each request, in a thread (and ~/.netrc with them).
"""

from __future__ import annotations

import base64
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from falbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

DIRECT: Final[Mapping[str, str]] = {}
"""No proxies at all."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy, its password apart from its address."""

    url: str
    """Without user and password."""
    host: str
    headers: Mapping[str, str] = field(repr=False)
    """`Proxy-Authorization`, when the variable had a user in it."""


def environment_proxies() -> Mapping[str, str]:
    """Scheme → proxy URL, as urllib finds them (HTTPS_PROXY, NO_PROXY …); UsageError for SOCKS."""
    proxies = urllib.request.getproxies()
    for scheme in ("http", "https", "all"):
        if (url := proxies.get(scheme, "")) and not _is_http(url):
            raise UsageError(
                f"the {scheme} proxy of the environment is not an HTTP proxy",
                advice=f"Unset {scheme.upper()}_PROXY, name fal's host in NO_PROXY, or use an HTTP proxy.",
            )
    return proxies


def _is_http(proxy: str) -> bool:
    try:
        return urlsplit(proxy if "://" in proxy else f"http://{proxy}").scheme in {"http", "https"}
    except ValueError:  # a bracket that is left open
        return False


def proxy_for(scheme: str, host: str, proxies: Mapping[str, str]) -> Proxy | None:
    """The proxy for `scheme://host`, or None for a direct connection: by NO_PROXY, and always to loopback."""
    text = proxies.get(scheme) or proxies.get("all")
    if not text or host == "localhost" or host.startswith("127.") or host == "::1":
        return None
    if urllib.request.proxy_bypass(host):
        return None
    parts = urlsplit(text if "://" in text else f"http://{text}")
    headers: dict[str, str] = {}
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
    place = parts.netloc.rpartition("@")[2]
    return Proxy(f"{parts.scheme}://{place}", parts.hostname or "", headers)


class Routes:
    """`proxy_for`, asked once per origin."""

    def __init__(self, proxies: Mapping[str, str]) -> None:
        self._proxies = proxies
        self._known: dict[tuple[str, str], Proxy | None] = {}
        self.proxy_hosts: set[str] = set()
        """Hosts of the proxies in use: chosen by the user, so any address will do for them."""

    def proxy_for(self, scheme: str, host: str) -> Proxy | None:
        """The proxy for `scheme://host`, or None for a direct connection."""
        if not self._proxies:
            return None
        place = (scheme, host)
        if place not in self._known:
            self._known[place] = found = proxy_for(scheme, host, self._proxies)
            if found:
                self.proxy_hosts.add(found.host)
        return self._known[place]
