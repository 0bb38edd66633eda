"""Is it fal that speaks? What is signed, what is refused, and how often the keys are fetched."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.errors import HttpError, ReplyError, TransportError
from falbatch.fal.webhooks import (
    BIG_BYTES,
    MAX_KEYS,
    MAX_KEYS_AGE_S,
    MIN_FETCH_PAUSE_S,
    SIGNATURE_HEADERS,
    WINDOW_S,
    Delivery,
    Jwks,
    Outcome,
    WebhookRefused,
    parse_delivery,
    parse_keys,
    verify,
)
from tests.fal.raw_server import RID, Peer, served
from tests.fal.signing import BODY, NOW, KeyHost, entry, page, public, signed
from tests.fal.test_transport_failures import closed_port

if TYPE_CHECKING:
    from falbatch.fal.transport import Transport

KEYS = (public(9), public(1))


def test_what_fal_signed_is_believed_whichever_of_its_keys_did() -> None:
    verify(signed(), BODY, KEYS, NOW)
    verify(signed(key=9), BODY, KEYS, NOW)
    upper = signed() | {"x-fal-webhook-signature": signed()["x-fal-webhook-signature"].upper()}
    verify(upper, BODY, KEYS, NOW)


@pytest.mark.parametrize("at", [NOW - WINDOW_S, NOW, NOW + WINDOW_S])
def test_a_delivery_may_be_five_minutes_off(at: float) -> None:
    verify(signed(at=at), BODY, KEYS, NOW)


FORGERIES: dict[str, tuple[dict[str, str], bytes, str]] = {
    "a stranger's key": (signed(key=7), BODY, "not fal's"),
    "another body": (signed(), BODY.replace(b"OK", b"KO"), "not fal's"),
    "no body": (signed(), b"", "not fal's"),
    "another request": (signed() | {"x-fal-webhook-request-id": "x"}, BODY, "not fal's"),
    "another user": (signed() | {"x-fal-webhook-user-id": "x"}, BODY, "not fal's"),
    "another second": (signed() | {"x-fal-webhook-timestamp": str(NOW + 1)}, BODY, "not fal's"),
    "the past": (signed(at=NOW - WINDOW_S - 1), BODY, "clock"),
    "the future": (signed(at=NOW + WINDOW_S + 1), BODY, "clock"),
    "a time that is none": (signed() | {"x-fal-webhook-timestamp": "now"}, BODY, "no number"),
    "a negative time": (signed() | {"x-fal-webhook-timestamp": "-5"}, BODY, "no number"),
    "digits of another script": (signed() | {"x-fal-webhook-timestamp": "١٨٠٠٠٠٠٠٠٠"}, BODY, "no number"),
    "a time without end": (signed() | {"x-fal-webhook-timestamp": "9" * 5000}, BODY, "no number"),
    "no hex": (signed() | {"x-fal-webhook-signature": "z" * 128}, BODY, "in hex"),
    "too short": (signed() | {"x-fal-webhook-signature": "ab" * 63}, BODY, "in hex"),
    "hex with gaps": (signed() | {"x-fal-webhook-signature": "ab " * 64}, BODY, "in hex"),
    "zeros": (signed() | {"x-fal-webhook-signature": "00" * 64}, BODY, "not fal's"),
    "a line end": (signed() | {"x-fal-webhook-user-id": "a\nb"}, BODY, "line end"),
    **{f"no {name}": (signed() | {name: ""}, BODY, "missing") for name in SIGNATURE_HEADERS},
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_refused_without_an_echo(name: str) -> None:
    headers, body, words = FORGERIES[name]
    with pytest.raises(WebhookRefused, match=words) as caught:
        verify(headers, body, KEYS, NOW)
    assert not any(value in str(caught.value) for value in headers.values() if len(value) > 1)


@pytest.mark.parametrize("name", SIGNATURE_HEADERS)
def test_a_header_that_is_not_there_is_missing(name: str) -> None:
    headers = signed()
    del headers[name]
    with pytest.raises(WebhookRefused, match="missing"):
        verify(headers, BODY, KEYS, NOW)


def test_without_keys_nothing_is_believed() -> None:
    with pytest.raises(WebhookRefused):
        verify(signed(), BODY, (), NOW)


@given(st.dictionaries(st.sampled_from(SIGNATURE_HEADERS), st.text()), st.binary())
def test_no_junk_is_believed_or_breaks_anything(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(WebhookRefused):
        verify(headers, body, KEYS, NOW)


def test_a_delivery_says_how_the_request_ended() -> None:
    assert parse_delivery(BODY) == Delivery(RID, Outcome.OK, {"seed": 10**20}, gateway_request_id=RID)
    failed: dict[str, Any] = {
        "request_id": RID.upper(),
        "status": "ERROR",
        "error": "Invalid status code: 422",
        "payload": None,
        "payload_error": "no JSON",
        "gateway_request_id": 7,
        "more": [],
    }
    said = parse_delivery(json.dumps(failed).encode())
    assert said == Delivery(RID, Outcome.ERROR, None, "Invalid status code: 422", "no JSON")
    assert "payload=" not in repr(said)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"status": "OK"}',
        b'{"status": "OK", "request_id": 7}',
        b'{"status": "OK", "request_id": "../../etc"}',
        f'{{"request_id": "{RID}"}}'.encode(),
        f'{{"request_id": "{RID}", "status": "COMPLETED"}}'.encode(),
        f'{{"request_id": "{RID}", "status": ["OK"]}}'.encode(),
    ],
)
def test_a_body_that_means_nothing_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookRefused):
        parse_delivery(body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_is_understood_or_refused(value: Any) -> None:
    try:
        parse_delivery(json.dumps(value).encode())
    except WebhookRefused:
        pass
    else:
        raise AssertionError("junk names no request")


def test_keys_are_read_with_and_without_padding_and_others_left_out() -> None:
    padded = entry(2)
    padded["x"] += "="
    odd = [
        None,
        7,
        {},
        entry(3, kty="EC"),
        entry(3, crv="X25519"),
        {"kty": "OKP"},
        {"x": "!!!!"},
        {"x": "YWJj"},
        {"x": 5},
    ]
    body = json.dumps({"keys": [*odd, entry(1), padded, {"x": entry(4)["x"]}]}).encode()
    assert parse_keys(body) == (public(1), public(2), public(4))


def test_keys_beyond_a_sane_number_are_left_out() -> None:
    assert len(parse_keys(json.dumps({"keys": [entry(1)] * 1000}).encode())) == MAX_KEYS


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [7]}'])
def test_a_page_without_keys_is_none(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"no Ed25519 key|Expecting value"):
        parse_keys(body)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


def keys_of(transport: Transport, origin: str, clock: Clock) -> Jwks:
    return Jwks(transport, f"{origin}/rest", user_agent="falbatch/test", unix_s=lambda: NOW, now_s=clock)


@pytest.mark.anyio
async def test_keys_are_fetched_once_a_day_without_credentials(transport: Transport) -> None:
    host, clock = KeyHost(page(9, 1)), Clock()
    async with host.served() as server:
        jwks = keys_of(transport, server.origin, clock)
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(jwks.verify, signed(), BODY)
        clock.s += MAX_KEYS_AGE_S - 1
        said = await jwks.verify(signed(), BODY)
        assert (said.request_id, len(host.seen)) == (RID, 1)
        clock.s += 1
        await jwks.verify(signed(), BODY)
    assert len(host.seen) == 2
    head = host.seen[0].decode().lower()
    assert head.startswith("get /rest/.well-known/jwks.json ")
    assert "authorization" not in head


@pytest.mark.anyio
async def test_a_new_key_of_fals_costs_one_fetch(transport: Transport) -> None:
    host, clock = KeyHost(page(9, 1)), Clock()
    async with host.served() as server:
        jwks = keys_of(transport, server.origin, clock)
        await jwks.verify(signed(), BODY)
        host.body = page(1, 2)
        clock.s += MIN_FETCH_PAUSE_S
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(jwks.verify, signed(key=2), BODY)
        await jwks.verify(signed(key=1), BODY)
        assert len(host.seen) == 2


@pytest.mark.anyio
async def test_a_flood_of_forgeries_makes_a_fetch_a_minute(transport: Transport) -> None:
    host, clock = KeyHost(page(1)), Clock()
    async with host.served() as server:
        jwks = keys_of(transport, server.origin, clock)
        for _ in range(3):
            for _ in range(20):
                with pytest.raises(WebhookRefused):
                    await jwks.verify(signed(key=7), BODY)
            clock.s += MIN_FETCH_PAUSE_S
        assert len(host.seen) == 3
        await jwks.verify(signed(), BODY)


@pytest.mark.anyio
async def test_what_can_be_seen_without_keys_fetches_none(transport: Transport) -> None:
    host = KeyHost(page(1))
    async with host.served() as server:
        jwks = keys_of(transport, server.origin, Clock())
        for headers in ({}, signed(at=NOW - 1000), signed() | {"x-fal-webhook-signature": "z"}):
            with pytest.raises(WebhookRefused):
                await jwks.verify(headers, BODY)
    assert host.seen == []


@pytest.mark.anyio
async def test_keys_that_cannot_be_had_are_no_forgery_and_asked_for_once_a_minute(transport: Transport) -> None:
    clock = Clock()
    jwks = keys_of(transport, f"http://127.0.0.1:{closed_port()}", clock)
    for _ in range(3):
        with pytest.raises(TransportError, match=r"jwks\.json"):
            await jwks.verify(signed(), BODY)
    host = KeyHost(b"nothing", "500 Internal Server Error")
    async with host.served() as server:
        jwks = keys_of(transport, server.origin, clock)
        for _ in range(3):
            with pytest.raises(HttpError):
                await jwks.verify(signed(), BODY)
        assert len(host.seen) == 1
        host.status = "200 OK"
        clock.s += MIN_FETCH_PAUSE_S
        with pytest.raises(ReplyError, match="no key"):
            await jwks.verify(signed(), BODY)
        host.body = page(1)
        clock.s += MIN_FETCH_PAUSE_S
        await jwks.verify(signed(), BODY)


@pytest.mark.anyio
async def test_a_fetch_that_was_left_is_no_forgery(transport: Transport) -> None:
    asked, clock = anyio.Event(), Clock()

    async def silent(_: Peer) -> None:
        asked.set()
        await anyio.sleep_forever()

    async with served(silent) as server:
        jwks = keys_of(transport, server.origin, clock)
        async with anyio.create_task_group() as group:
            group.start_soon(jwks.verify, signed(), BODY)
            await asked.wait()
            group.cancel_scope.cancel()
        with pytest.raises(TransportError, match="not waited for"):
            await jwks.verify(signed(), BODY)


@pytest.mark.anyio
async def test_a_new_key_that_cannot_be_had_is_no_forgery(transport: Transport) -> None:
    host, clock = KeyHost(page(1)), Clock()
    async with host.served() as server:
        jwks = keys_of(transport, server.origin, clock)
        await jwks.verify(signed(), BODY)
        host.body, host.status = b"nothing", "500 Internal Server Error"
        clock.s += MIN_FETCH_PAUSE_S
        for _ in range(2):
            with pytest.raises(HttpError):
                await jwks.verify(signed(key=2), BODY)
        await jwks.verify(signed(), BODY)
    assert len(host.seen) == 2


@pytest.mark.anyio
async def test_keys_a_day_old_are_not_used_when_no_others_can_be_had(transport: Transport) -> None:
    host, clock = KeyHost(page(1)), Clock()
    async with host.served() as server:
        jwks = keys_of(transport, server.origin, clock)
        await jwks.verify(signed(), BODY)
        host.status = "503 Service Unavailable"
        clock.s += MAX_KEYS_AGE_S
        for _ in range(2):
            with pytest.raises(HttpError):
                await jwks.verify(signed(), BODY)
    assert len(host.seen) == 2


@pytest.mark.anyio
async def test_a_big_delivery_is_read_whole(transport: Transport) -> None:
    payload = {"image": "x" * (2 * BIG_BYTES), "seed": 10**20}
    body = json.dumps({"request_id": RID, "status": "OK", "payload": payload}).encode()
    async with KeyHost(page(1)).served() as server:
        said = await keys_of(transport, server.origin, Clock()).verify(signed(body), body)
    assert said.payload == payload


def test_without_the_library_it_says_what_to_install() -> None:
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from falbatch.fal.webhooks import Jwks\n"
        "from falbatch.errors import UsageError\n"
        "try:\n    Jwks(None, 'https://rest.fal.ai')\n"
        "except UsageError as error:\n    assert error.advice == \"pip install 'falbatch[webhooks]'\"\n"
        "else:\n    raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
