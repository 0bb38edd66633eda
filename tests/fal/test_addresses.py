"""Which addresses downloads may go to."""

from __future__ import annotations

import pytest

from falbatch.fal.addresses import is_address, is_allowed

PUBLIC = ["1.1.1.1", "34.120.0.1", "2606:4700::1111", "[2606:4700::1111]", "::ffff:1.1.1.1", "64:ff9b::101:101"]
LOOPBACK = ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"]
FORBIDDEN = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.1.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::7f00:1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2002:a00:1::",
    "2002:7f00:1::1",
    "2001:db8::1",
    "2001:0:1::1",
    "3fff::1",
    "fc00::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff0e::1",
    "not an address",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_allowed(address, allow_loopback=False)


@pytest.mark.parametrize("address", LOOPBACK)
def test_loopback_is_allowed_where_it_is_asked_for(address: str) -> None:
    assert is_allowed(address, allow_loopback=True)
    assert not is_allowed(address, allow_loopback=False)


@pytest.mark.parametrize("address", FORBIDDEN)
@pytest.mark.parametrize("allow_loopback", [False, True])
def test_everything_else_is_forbidden(address: str, allow_loopback: bool) -> None:
    assert not is_allowed(address, allow_loopback=allow_loopback)


@pytest.mark.parametrize(
    "host",
    ["1.1.1.1", "::1", "[::1]", "127.1", "2130706433", "0x7f.1", "0x7f000001", "017700000001", "127.0.0.1.", "0x"],
)
def test_addresses_are_known_in_every_spelling(host: str) -> None:
    assert is_address(host)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "0x7f000001", "017700000001", "1.1.1.1."])
@pytest.mark.parametrize("allow_loopback", [False, True])
def test_odd_spellings_are_forbidden(host: str, allow_loopback: bool) -> None:
    assert not is_allowed(host, allow_loopback=allow_loopback)


@pytest.mark.parametrize("host", ["localhost", "v3.fal.media", "1.example", "0x7f.example", "a1", "x0x1"])
def test_names_are_not_addresses(host: str) -> None:
    assert not is_address(host)
