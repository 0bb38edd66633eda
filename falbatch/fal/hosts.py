"""Which hosts are fal's, and which URLs may be given the key (design §3, fal-protocol §1.3 and §13 no. 9).

Pure: the environment is an argument, nothing is looked up. A URL that two parsers could read differently
is trusted by nobody.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from falbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

RUN_HOST: Final = "fal.run"
API_URL: Final = "https://api.fal.ai/v1"
"""fal's platform API (fal-protocol §11)."""
FAL_DOMAINS: Final = ("fal.run", "falrun.com")
"""fal's own domains for inference; the second is the documented backup (fal-protocol §1.3)."""

MAX_URL: Final = 2048
"""Characters; fal's queue URLs have about 120."""

_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[!$&-;=@-Z_a-z~%]*)?(?P<query>\?[!$&-;=?-Z_a-z~%]*)?",
    re.IGNORECASE,
)
"""Deliberately narrower than RFC 3986: no userinfo, fragment, backslash, whitespace or non-ASCII."""
_DOTS: Final = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Place:
    """A URL taken apart: what decides about trust."""

    scheme: str
    host: str
    port: int
    path: str
    """Without query, without slash at its end."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """Base URLs of fal, or of what stands in for it, without slash at their ends."""

    queue: str
    api: str = API_URL
    """The platform API; "" when none is known for this queue. Nothing but what is built from it gets the key."""
    _queue: _Place = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        place = _take_apart(self.queue)
        if place is None:
            raise UsageError(f"{self.queue!r} is not a base URL that falbatch can use")
        if self.api and (_take_apart(self.api) is None or "?" in self.api):
            raise UsageError(f"{self.api!r} is not a base URL that falbatch can use")
        object.__setattr__(self, "_queue", place)

    @classmethod
    def resolve(cls, env: Mapping[str, str], *, origin: str | None = None) -> Self:
        """The hosts that `env` and `origin` (`--sandbox`) name; the later of design §3's list wins.

        A queue that is not fal's own leaves the platform API unknown unless its own variable, or an origin
        for both, names it: whoever sends a key elsewhere does not mean it for fal as well.
        Raises UsageError, naming the variable, for a value that is no URL or is http beyond this machine.
        """
        run = env.get("FAL_RUN_HOST") or RUN_HOST
        queue = _base(f"https://queue.{run}", "FAL_RUN_HOST")
        if host := env.get("FAL_QUEUE_RUN_HOST"):
            queue = _base(f"https://{host}", "FAL_QUEUE_RUN_HOST")
        api = ""
        if value := env.get("FALBATCH_ORIGIN"):
            base = _base(value, "FALBATCH_ORIGIN")
            queue, api = f"{base}/queue", f"{base}/api/v1"
        if value := env.get("FALBATCH_QUEUE_URL"):
            queue = _base(value, "FALBATCH_QUEUE_URL")
        if value := env.get("FALBATCH_API_URL"):
            api = _base(value, "FALBATCH_API_URL")
        if origin:
            base = _base(origin, "the sandbox's origin")
            queue, api = f"{base}/queue", f"{base}/api/v1"
        if not api:
            place = _take_apart(queue)
            api = API_URL if place is not None and _is_fals(place) else ""
        return cls(queue, api)

    @property
    def loopback(self) -> bool:
        """True when the queue is on this machine: the sandbox. Only then may loopback files be fetched."""
        return _is_loopback(self._queue.host)

    def trusts(self, url: str) -> bool:
        """May the key be sent to `url`?

        Yes for what lies under the configured queue base (same scheme, host and port), and, when that base
        is fal's own, for https on fal.run, falrun.com and what lies under them. Never with userinfo,
        another port, or anything that another URL parser could read as another host.
        """
        place = _take_apart(url)
        if place is None:
            return False
        base = self._queue
        if (place.scheme, place.host, place.port) == (base.scheme, base.host, base.port):
            return place.path == base.path or place.path.startswith(base.path + "/")
        return _is_fals(base) and _is_fals(place)


def _base(text: str, source: str) -> str:
    """`text` as a base URL without slash at its end; UsageError naming `source` when it cannot be one."""
    place = _take_apart(text)
    if place is None or "?" in text:
        raise UsageError(
            f"{source} does not name a host that falbatch can use",
            advice=f"Give {source} as {'host[/path]' if source.endswith('_HOST') else 'https://host[:port][/path]'}.",
        )
    if place.scheme == "http" and not _is_loopback(place.host):
        raise UsageError(
            f"{source} uses plain http for {place.host}, which would show the key to the network",
            advice="Use https; plain http is for localhost only.",
        )
    return text.rstrip("/")


def _take_apart(url: str) -> _Place | None:
    """The parts of `url`, or None when it is not plainly an http(s) URL without userinfo and dot segments."""
    match = _URL.fullmatch(url) if len(url) <= MAX_URL else None
    if match is None:
        return None
    scheme, host, path = match["scheme"].lower(), match["host"].lower(), match["path"] or ""
    port = int(match["port"]) if match["port"] else {"http": 80, "https": 443}[scheme]
    if ".." in host or not 0 < port < 65536 or _DOTS.search(path):
        return None
    return _Place(scheme, host, port, path.rstrip("/"))


def _is_fals(place: _Place) -> bool:
    if place.scheme != "https" or place.port != 443:
        return False
    return any(place.host == domain or place.host.endswith("." + domain) for domain in FAL_DOMAINS)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
