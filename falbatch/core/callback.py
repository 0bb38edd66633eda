"""The token in a callback URL: which attempt it belongs to, and that nobody else made it. Pure.

A webhook that verifies proves that fal sent it, not that it is about this batch. The token does, and it names the
attempt even when the answer to its submit was lost (design §5.4).
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final

SECRET_BYTES: Final = 32
"""Of the batch's secret, drawn once and kept in its state file."""

_ADDRESS: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~-]+)*)/?",
    re.IGNORECASE,
)
"""A URL that more segments can be added to: no query, no fragment, no userinfo."""

_TOKEN: Final = re.compile(r"([0-9a-f]{1,16})-([0-9a-f]{1,8})-([0-9a-f]{32})")
_MAC_DIGITS: Final = 32
_URL_MOST: Final = 1900
"""fal takes 2048 with the token (which has 58 at most) and its path."""


@dataclass(frozen=True, slots=True)
class CallbackPlace:
    """Where we listen, and what fal calls to reach us."""

    host: str
    port: int
    public_url: str
    """Without slash at its end."""
    path: str
    """Of `public_url`, "" for none: what stands before the token, here as there."""
    public_host: str
    """Of `public_url`, in lower case, without brackets."""

    @property
    def is_on_this_machine(self) -> bool:
        """True when nobody else could reach it."""
        return is_loopback(self.public_host)

    @property
    def is_private(self) -> bool:
        """True for an address that the internet does not lead to; names are not looked up."""
        try:
            return not ipaddress.ip_address(self.public_host).is_global
        except ValueError:
            return self.is_on_this_machine or "." not in self.public_host


def parse_place(listen: str, url: str) -> CallbackPlace:
    """`listen` is HOST:PORT, `url` what fal shall call. Raises ValueError that names the flag."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"--webhook-listen: {listen!r} is not HOST:PORT, such as 127.0.0.1:8099")
    found = _ADDRESS.fullmatch(url)
    if found is None or len(url) > _URL_MOST or not 0 < int(found["port"] or 443) < 65536:
        raise ValueError(
            "--webhook-url is not a URL such as https://hooks.example.org/fal: no query, no user, and in its path"
            " nothing but letters, digits and . _ ~ -"
        )
    public_host = found["host"].lower().strip("[]")
    if found["scheme"].lower() == "http" and not is_loopback(public_host):
        raise ValueError("--webhook-url is plain http; fal calls https only (http is for the sandbox on this machine)")
    return CallbackPlace(host.strip("[]"), int(port), url.rstrip("/"), found["path"], public_host)


def is_loopback(host: str) -> bool:
    """True for this machine; a name is not looked up."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class CallbackUrls:
    """What fal is told to call, attempt by attempt."""

    public_url: str
    """Where fal reaches our listener, without slash at its end."""
    secret: bytes = field(repr=False)

    def of(self, job_id: int, attempt: int) -> str:
        """The URL of an attempt. Not for logs: its last segment is the token."""
        return f"{self.public_url}/{attempt_token(self.secret, job_id, attempt)}"


def attempt_token(secret: bytes, job_id: int, attempt: int) -> str:
    """The token of an attempt: URL-safe, the same whenever it is asked for, not to be guessed without `secret`."""
    name = f"{job_id:x}-{attempt:x}"
    return f"{name}-{_mac(secret, name)}"


def attempt_of(secret: bytes, token: str) -> tuple[int, int] | None:
    """(job id, attempt) that `token` was made for; None when it was not made with `secret`."""
    found = _TOKEN.fullmatch(token)
    if found is None:
        return None
    name = f"{found[1]}-{found[2]}"
    if not hmac.compare_digest(_mac(secret, name), found[3]):
        return None
    return int(found[1], 16), int(found[2], 16)


def _mac(secret: bytes, name: str) -> str:
    return hmac.new(secret, f"falbatch callback {name}".encode(), "sha256").hexdigest()[:_MAC_DIGITS]
