"""Which internet addresses may be connected to for URLs that came from outside (design §6, "Downloads").

Pure. Python's own `is_global` is not enough: it lets multicast, IPv4-compatible, 6to4, NAT64 and site-local
addresses through, some of which are private IPv4 addresses in another dress.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
_UNICAST: Final = ipaddress.ip_network("2000::/3")  # all that IANA has given out as global unicast
_DOCUMENTATION: Final = ipaddress.ip_network("3fff::/20")  # RFC 9637, newer than some Pythons' tables


class RefusedAddress(OSError):
    """Raised while a name is looked up that has no address which may be connected to."""


def is_address(host: str) -> bool:
    """True when `host` (no port; brackets allowed) is an address, in any spelling: no resolver will check it.

    What ends in a number is never a name (WHATWG URL, "ends in a number checker"), but `2130706433`, `127.1`
    and `0x7f.1` are 127.0.0.1 to some libraries. `is_allowed` refuses these spellings.
    """
    return ":" in host or _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]) is not None


def is_allowed(address: str, *, allow_loopback: bool) -> bool:
    """May a file be fetched from `address`? Only public unicast, and loopback with `allow_loopback`."""
    try:
        ip = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    if ip.is_loopback:
        return allow_loopback
    return _is_public(ip)


def _is_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast
    if ip in _NAT64:
        return _is_public(ipaddress.IPv4Address(ip.packed[-4:]))
    if ip.sixtofour is not None:
        return _is_public(ip.sixtofour)
    return ip in _UNICAST and ip not in _DOCUMENTATION and ip.is_global
