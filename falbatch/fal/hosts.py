"""Which hosts are fal's, and which URLs may be given the key (design §3, fal-protocol §1.3 and §13 no. 9).

Pure: the environment is an argument, nothing is looked up. A URL that two parsers could read differently
is trusted by nobody.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, Self

from falbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

RUN_URL: Final = "https://fal.run"
"""fal's direct calls, streams and realtime (fal-protocol §5)."""
QUEUE_URL: Final = "https://queue.fal.run"
API_URL: Final = "https://api.fal.ai/v1"
"""fal's platform API (fal-protocol §11)."""
REST_URL: Final = "https://rest.fal.ai"
"""Tokens, uploads, the webhooks' public keys (fal-protocol §1.3)."""
CDN_URL: Final = "https://v3.fal.media"
"""Where uploads go (fal-protocol §6.1)."""
OPENAPI_URL: Final = "https://fal.ai/api/openapi"
"""The endpoints' own schemas (fal-protocol §11.2)."""
FAL_DOMAINS: Final = ("fal.run", "falrun.com")
"""fal's own domains for inference; the second is the documented backup (fal-protocol §1.3)."""

HostName = Literal["queue", "api", "run", "rest", "cdn", "openapi"]
"""The fields of `Hosts`."""

VARIABLES: Final[Mapping[HostName, str]] = {
    "queue": "FALBATCH_QUEUE_URL",
    "api": "FALBATCH_API_URL",
    "run": "FALBATCH_RUN_URL",
    "rest": "FALBATCH_REST_URL",
    "cdn": "FALBATCH_CDN_URL",
    "openapi": "FALBATCH_OPENAPI_URL",
}
"""What names each alone, by a full base URL."""

_PREFIXES: Final[Mapping[HostName, str]] = {
    "queue": "/queue",
    "api": "/api/v1",
    "run": "/run",
    "rest": "/rest",
    "cdn": "/cdn",
    "openapi": "/openapi",
}
"""Where each lies under one origin for everything: the sandbox's paths."""

_BESIDE: Final[Mapping[HostName, str]] = {
    "api": API_URL,
    "rest": REST_URL,
    "cdn": CDN_URL,
    "openapi": OPENAPI_URL,
}
"""fal's own, for whoever calls fal's own queue and direct calls."""

_WHAT: Final[Mapping[HostName, str]] = {
    "queue": "queue",
    "api": "platform API",
    "run": "host for direct calls",
    "rest": "REST API (tokens, uploads)",
    "cdn": "CDN for uploads",
    "openapi": "address of the endpoints' schemas",
}
"""Words for messages."""

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
    """Base URLs of fal, or of what stands in for it, without slash at their ends; "" for those that are unknown.

    The key goes to what is built from them, and to the queue URLs that `trusts` lets through; nowhere else.
    """

    queue: str
    """Always known."""
    api: str = API_URL
    """The platform API."""
    run: str = RUN_URL
    """Direct calls, streams, realtime."""
    rest: str = REST_URL
    """Tokens and uploads."""
    cdn: str = CDN_URL
    """Uploads again: it takes a token of `rest`, never the key."""
    openapi: str = OPENAPI_URL
    """The endpoints' schemas, for everybody: no key either."""
    _queue: _Place = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in VARIABLES:
            base: str = getattr(self, name)
            if (base or name == "queue") and (_take_apart(base) is None or "?" in base):
                raise UsageError(f"{base!r} is not a base URL that falbatch can use")
        place = _take_apart(self.queue)
        if place is not None:
            object.__setattr__(self, "_queue", place)

    @classmethod
    def resolve(cls, env: Mapping[str, str], *, origin: str | None = None) -> Self:
        """The hosts that `env` and `origin` (`--sandbox`) name; the later of design §3's list wins.

        Where the queue or the direct calls are not fal's own, all that is not named is unknown: whoever sends a
        key elsewhere does not mean it, or paid work, for fal as well. (The official client's FAL_RUN_HOST names
        the queue too.) Raises UsageError, naming the variable, for a value that is no URL or is http beyond
        this machine.
        """
        named: dict[HostName, str] = {}
        if host := env.get("FAL_RUN_HOST"):
            named["run"] = _base(f"https://{host}", "FAL_RUN_HOST")
            named["queue"] = _base(f"https://queue.{host}", "FAL_RUN_HOST")
        if host := env.get("FAL_QUEUE_RUN_HOST"):
            named["queue"] = _base(f"https://{host}", "FAL_QUEUE_RUN_HOST")
        if value := env.get("FALBATCH_ORIGIN"):
            named |= _under(_base(value, "FALBATCH_ORIGIN"))
        for name, variable in VARIABLES.items():
            if value := env.get(variable):
                named[name] = _base(value, variable)
        if origin:
            named |= _under(_base(origin, "the sandbox's origin"))
        queue = named.pop("queue", QUEUE_URL)
        run = named.pop("run", RUN_URL if _is_fals_own(queue) else "")
        known = dict(_BESIDE) if _is_fals_own(queue) and _is_fals_own(run) else dict.fromkeys(_BESIDE, "")
        return cls(queue, run=run, **(known | named))

    def need(self, name: HostName) -> str:
        """The base URL `name`; UsageError, naming the variable that can tell it, where it is unknown."""
        base: str = getattr(self, name)
        if not base:
            raise UsageError(
                f"no {_WHAT[name]} is known for the fal at {self.queue}",
                advice=f"Set {VARIABLES[name]} to its URL, or FALBATCH_ORIGIN to one origin for everything.",
            )
        return base

    @property
    def loopback(self) -> bool:
        """True when all that can cost goes to this machine: the sandbox. Only then may loopback files be fetched."""
        direct = _take_apart(self.run)
        return _is_loopback(self._queue.host) and (direct is None or _is_loopback(direct.host))

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


def _under(origin: str) -> dict[HostName, str]:
    return {name: origin + prefix for name, prefix in _PREFIXES.items()}


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


@lru_cache(maxsize=4096)
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


def _is_fals_own(url: str) -> bool:
    place = _take_apart(url)
    return place is not None and _is_fals(place)


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
