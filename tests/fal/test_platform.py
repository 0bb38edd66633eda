"""The platform API over real sockets: what is asked, what is understood, and who gets the key."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from falbatch.errors import HttpError, ReplyError, TransportError
from falbatch.fal.auth import Credentials
from falbatch.fal.exchange import CutReply
from falbatch.fal.hosts import API_URL, Hosts
from falbatch.fal.platform import Estimate, ListedRequest, PlatformClient, Price, RequestsPage
from tests.fal.raw_server import KEY, RID, Peer, Script, served
from tests.fal.test_transport_failures import closed_port

if TYPE_CHECKING:
    from falbatch.fal.transport import Transport

pytestmark = pytest.mark.anyio

CREDENTIALS = Credentials("Key", KEY, source="FAL_KEY")
FLUX = "fal-ai/flux/dev"
QUEUE = "https://queue.fal.run"
NINE = 1_769_850_000.0  # 2026-01-31T09:00:00Z


def client(transport: Transport, origin: str) -> PlatformClient:
    return PlatformClient(transport, Hosts(QUEUE, f"{origin}/api/v1"), CREDENTIALS, user_agent="falbatch/test")


def answering(body: object, seen: list[bytes], *, status: str = "200 OK", headers: str = "") -> Script:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def script(peer: Peer) -> None:
        while request := await peer.request():
            seen.append(request)
            await peer.answer(data, status=status, headers=headers)

    return script


async def page_of(transport: Transport, body: object, **more: Any) -> RequestsPage:
    async with served(answering(body, [])) as server:
        return await client(transport, server.origin).requests_page(FLUX, start=NINE, **more)


async def prices_of(transport: Transport, entries: list[object]) -> tuple[Price, ...]:
    body = json.dumps({"prices": entries}).encode()
    async with served(answering(body, [])) as server:
        return await client(transport, server.origin).prices([FLUX])


async def test_a_page_is_asked_for_with_encoded_parameters_and_the_key(transport: Transport) -> None:
    seen: list[bytes] = []
    async with served(answering({"items": []}, seen)) as server:
        platform = client(transport, server.origin)
        await platform.requests_page(FLUX, start=NINE + 0.9)
        await platform.requests_page(FLUX, start=NINE, cursor="a&b=c d/é+", limit=7)
    first, second = (request.decode("latin-1").split("\r\n") for request in seen)
    target = urlsplit(first[0].split(" ")[1])
    assert first[0].startswith("GET /api/v1/models/requests/by-endpoint?")
    assert "fal-ai%2Fflux%2Fdev" in target.query
    assert dict(parse_qsl(target.query)) == {
        "endpoint_id": FLUX,
        "start": "2026-01-31T09:00:00Z",
        "expand": "payloads",
        "limit": "100",
    }
    asked = dict(parse_qsl(urlsplit(second[0].split(" ")[1]).query))
    assert (asked["cursor"], asked["limit"]) == ("a&b=c d/é+", "7")
    assert f"authorization: Key {KEY}" in first
    assert "user-agent: falbatch/test" in first


async def test_a_listed_request_has_all_that_fal_said(transport: Transport) -> None:
    item = {
        "request_id": RID.upper(),
        "endpoint_id": FLUX,
        "sent_at": "2026-01-31T09:00:00.500Z",
        "started_at": "2026-01-31T09:00:09Z",
        "ended_at": "2026-01-31T10:00:10+01:00",
        "status_code": 200,
        "duration": 1.5,
        "json_input": {"seed": 2**64 + 1},
        "json_output": {"seed": 2**64 + 3},
    }
    page = await page_of(transport, {"items": [item], "next_cursor": "c2", "has_more": True})
    expected = ListedRequest(
        RID,
        FLUX,
        NINE + 0.5,
        NINE + 10,
        200,
        has_input=True,
        input={"seed": 2**64 + 1},
        output={"seed": 2**64 + 3},
    )
    assert page == RequestsPage((expected,), "c2")
    assert "seed" not in repr(page)  # inputs and outputs are private


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({"sent_at": None}, "sent_at", NINE + 9),
        ({"sent_at": "soon"}, "sent_at", NINE + 9),
        ({"sent_at": 1769850000}, "sent_at", NINE + 9),
        ({"sent_at": None, "started_at": []}, "sent_at", None),
        ({"sent_at": "2026-01-31T09:00:00"}, "sent_at", NINE),
        ({"sent_at": "0001-01-01T00:00:00+14:00", "started_at": None}, "status_code", 200),
        ({"ended_at": {"at": 1}}, "ended_at", None),
        ({"status_code": "200"}, "status_code", None),
        ({"status_code": True}, "status_code", None),
        ({"status_code": 10**30}, "status_code", None),
        ({"endpoint_id": 7}, "endpoint", FLUX),
        ({"endpoint_id": "fal-ai/other"}, "endpoint", "fal-ai/other"),
        ({"json_input": '{"seed": 18446744073709551617}'}, "input", {"seed": 2**64 + 1}),
        ({"json_input": "no JSON"}, "has_input", False),
        ({"json_input": "[" * 100_000}, "has_input", False),
        ({"json_input": None}, "has_input", False),
        ({"json_input": {}}, "has_input", True),
        ({"json_input": False}, "input", False),
        ({"json_output": '{"seed": 18446744073709551617}'}, "output", {"seed": 2**64 + 1}),
        ({"json_output": "no JSON"}, "output", None),
        ({"json_output": {"detail": "x"}, "status_code": 422}, "output", None),
        ({"json_output": {"seed": 1}, "status_code": None}, "output", {"seed": 1}),
    ],
)
async def test_a_field_of_an_odd_type_is_none(
    transport: Transport, changes: dict[str, object], name: str, value: object
) -> None:
    item = {"request_id": RID, "sent_at": "2026-01-31T09:00:00Z", "started_at": "2026-01-31T09:00:09Z"}
    page = await page_of(transport, {"items": [{**item, "status_code": 200, **changes}]})
    assert getattr(page.items[0], name) == value


@pytest.mark.parametrize(
    "item", [None, 7, "x", [], {}, {"request_id": 7}, {"request_id": "../x"}, {"request_id": f"{RID}/.."}]
)
async def test_an_item_without_a_request_id_is_left_out(transport: Transport, item: object) -> None:
    page = await page_of(transport, {"items": [item, {"request_id": RID}]})
    assert [one.request_id for one in page.items] == [RID]


@pytest.mark.parametrize(
    ("said", "cursor"),
    [
        ({"next_cursor": "c2"}, "c2"),
        ({"next_cursor": "c2", "has_more": None}, "c2"),
        ({"next_cursor": "c2", "has_more": False}, None),
        ({"next_cursor": None, "has_more": True}, None),
        ({"next_cursor": "", "has_more": True}, None),
        ({"next_cursor": 7}, None),
        ({"next_cursor": "c1", "has_more": True}, None),  # the one just used: it would never end
        ({}, None),
    ],
)
async def test_the_list_ends_where_fal_says_so(
    transport: Transport, said: dict[str, object], cursor: str | None
) -> None:
    assert (await page_of(transport, {"items": [], **said}, cursor="c1")).next_cursor == cursor


async def test_prices_are_exact_and_come_in_fals_order(transport: Transport) -> None:
    seen: list[bytes] = []
    body = (
        b'{"prices":[{"endpoint_id":"fal-ai/b","unit_price":0.1,"unit":"image","currency":"USD"},'
        b'{"endpoint_id":"fal-ai/a","unit_price":1e-05,"unit":"compute second","currency":"USD"},'
        b'{"endpoint_id":"fal-ai/a","unit_price":"0.0500","unit":"second","currency":"EUR"},'
        b'{"endpoint_id":"fal-ai/c","unit_price":0,"unit":"image","currency":"USD"}]}'
    )
    async with served(answering(body, seen)) as server:
        prices = await client(transport, server.origin).prices(["fal-ai/a", "fal-ai/b"])
    assert prices == (
        Price("fal-ai/b", Decimal("0.1"), "image", "USD"),
        Price("fal-ai/a", Decimal("0.00001"), "compute second", "USD"),
        Price("fal-ai/a", Decimal("0.05"), "second", "EUR"),
        Price("fal-ai/c", Decimal(0), "image", "USD"),
    )
    assert str(prices[2].unit_price) == "0.0500"
    assert seen[0].startswith(b"GET /api/v1/models/pricing?endpoint_id=fal-ai%2Fa,fal-ai%2Fb HTTP/1.1\r\n")


async def test_an_estimate_is_asked_for_one_endpoint_by_its_history(transport: Transport) -> None:
    seen: list[bytes] = []
    body = b'{"estimate_type":"historical_api_price","total_cost":12.3450,"currency":"USD"}'
    async with served(answering(body, seen)) as server:
        estimate = await client(transport, server.origin).estimate("fal-ai/a", calls=1000)
    assert estimate == Estimate(Decimal("12.345"), "USD")
    head, _, sent = seen[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/v1/models/pricing/estimate HTTP/1.1\r\n")
    assert b"content-type: application/json" in head.lower()
    assert json.loads(sent) == {
        "estimate_type": "historical_api_price",
        "endpoints": {"fal-ai/a": {"call_quantity": 1000}},
    }


@pytest.mark.parametrize(
    "body",
    [{}, {"total_cost": -1, "currency": "USD"}, {"total_cost": 1}, {"total_cost": "much", "currency": "USD"}],
    ids=repr,
)
async def test_an_estimate_that_is_none_is_none(transport: Transport, body: object) -> None:
    async with served(answering(body, [])) as server:
        assert await client(transport, server.origin).estimate("fal-ai/a", calls=1) is None


async def test_an_estimate_is_for_some_calls(transport: Transport) -> None:
    with pytest.raises(ValueError, match="1 call or more"):
        await client(transport, "http://127.0.0.1:1").estimate("fal-ai/a", calls=0)


@pytest.mark.parametrize(
    "value", [-1, -0.5, True, None, [], "free", "-1", "1_000", "NaN", float("nan"), float("inf"), 10**30, "1e999"]
)
async def test_a_price_that_is_none_is_left_out(transport: Transport, value: object) -> None:
    good = {"endpoint_id": "a/b", "unit_price": 2, "unit": "image", "currency": "USD"}
    assert await prices_of(transport, [{**good, "unit_price": value}, good]) == (
        Price("a/b", Decimal(2), "image", "USD"),
    )


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {"endpoint_id": "a/b"},
        {"endpoint_id": 7, "unit_price": 1, "unit": "image", "currency": "USD"},
        {"endpoint_id": "a/b", "unit_price": 1, "unit": "\x1b[2J", "currency": "USD"},
        {"endpoint_id": "a/b", "unit_price": 1, "unit": "image", "currency": ""},
    ],
)
async def test_an_entry_of_which_a_part_is_missing_is_left_out(transport: Transport, entry: object) -> None:
    assert await prices_of(transport, [entry]) == ()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("400 Bad Request", "validation_error"),
        ("401 Unauthorized", "authorization_error"),
        ("403 Forbidden", "authorization_error"),
        ("404 Not Found", "not_found"),
        ("429 Too Many Requests", "rate_limited"),
        ("500 Internal Server Error", "server_error"),
    ],
)
async def test_a_refusal_is_told_in_the_platforms_words_without_the_key(
    transport: Transport, status: str, kind: str
) -> None:
    seen: list[bytes] = []
    body = {"error": {"type": kind, "message": f"no: {KEY} \x1b[2J"}}
    async with served(answering(body, seen, status=status, headers="Retry-After: 3\r\n")) as server:
        platform = client(transport, server.origin)
        for call in (platform.requests_page(FLUX, start=NINE), platform.prices([FLUX])):
            with pytest.raises(HttpError) as caught:
                await call
            error = caught.value
            assert (error.status, error.error_type, error.retry_after_s) == (int(status[:3]), kind, 3.0)
            assert "no: ***" in str(error)
            assert "ksecret" not in str(error) + repr(error)
            assert "\x1b" not in str(error)
            assert "?" not in str(error)
    assert len(seen) == 2  # nothing is repeated


@pytest.mark.parametrize("body", [b"<html>502 nginx", b"", b'{"error":"x"}', b'{"error":{"type":7}}', b"[" * 10**6])
async def test_a_gateways_page_is_an_http_error_too(transport: Transport, body: bytes) -> None:
    async with served(answering(body, [], status="502 Bad Gateway")) as server:
        with pytest.raises(HttpError) as caught:
            await client(transport, server.origin).prices([FLUX])
    assert (caught.value.status, caught.value.error_type) == (502, "")


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b"7", b"{}", b'{"items":{},"prices":{}}', b'{"items":', b"[" * 10**6, b"\xff"],
)
async def test_a_success_that_makes_no_sense_is_a_reply_error(transport: Transport, body: bytes) -> None:
    async with served(answering(body, [], headers=f"x-fal-request-id: {RID}\r\n")) as server:
        platform = client(transport, server.origin)
        for call in (platform.requests_page(FLUX, start=NINE), platform.prices([FLUX])):
            with pytest.raises(ReplyError) as caught:
                await call
            assert caught.value.request_id == ""  # the header's is this call's own


async def test_an_endless_price_list_is_stopped(transport: Transport) -> None:
    async with served(answering(b" " * 5_000_000, [])) as server:
        with pytest.raises(ReplyError, match="larger"):
            await client(transport, server.origin).prices([FLUX])


async def test_a_page_may_be_large(transport: Transport) -> None:
    item = {"request_id": RID, "json_input": {"image_url": "data:" + "x" * 5_000_000}}
    assert (await page_of(transport, {"items": [item] * 4})).items[3].has_input


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_the_key_follows_no_redirect(transport: Transport, status: str) -> None:
    stolen: list[bytes] = []
    async with served(answering({"items": [], "prices": []}, stolen)) as thief:
        for target in (thief.origin, f"{thief.origin}/api/v1/models/pricing", f"//{thief.origin[7:]}/x"):
            async with served(answering(b"", [], status=status, headers=f"Location: {target}\r\n")) as server:
                platform = client(transport, server.origin)
                for call in (platform.requests_page(FLUX, start=NINE), platform.prices([FLUX])):
                    with pytest.raises(HttpError) as caught:
                        await call
                    assert caught.value.status == int(status[:3])
        assert thief.connections == 0
    assert stolen == []


async def test_a_platform_that_is_slow_refused_or_cut_is_a_transport_error(transport: Transport) -> None:
    async def says_nothing(peer: Peer) -> None:
        await peer.request()
        await peer.reader.read()

    async def cuts(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b'{"items":', length=500)

    async with served(says_nothing) as server:
        for call in (
            client(transport, server.origin).requests_page(FLUX, start=NINE, timeout_s=0.2),
            client(transport, server.origin).prices([FLUX], timeout_s=0.2),
        ):
            with pytest.raises(TransportError) as caught:
                await call
            assert caught.value.kind == "timeout"
    async with served(cuts) as server:
        with pytest.raises(CutReply):
            await client(transport, server.origin).requests_page(FLUX, start=NINE)
    with pytest.raises(TransportError) as caught:
        await client(transport, f"http://127.0.0.1:{closed_port()}").prices([FLUX])
    assert (caught.value.kind, caught.value.sent) == ("connect", False)


async def test_without_a_known_platform_nothing_is_sent(transport: Transport) -> None:
    platform = PlatformClient(transport, Hosts("http://127.0.0.1:1/queue", ""), CREDENTIALS)
    for call in (platform.requests_page(FLUX, start=NINE), platform.prices([FLUX])):
        with pytest.raises(TransportError, match="FALBATCH_API_URL") as caught:
            await call
        assert (caught.value.kind, caught.value.sent) == ("no_platform", False)


async def test_arguments_that_mean_nothing_are_refused_unsent(transport: Transport) -> None:
    platform = PlatformClient(transport, Hosts(QUEUE, "http://127.0.0.1:1"), CREDENTIALS)
    for call in (
        platform.requests_page("https://evil.example/x", start=NINE),
        platform.requests_page(FLUX, start=NINE, limit=101),
        platform.requests_page(FLUX, start=NINE, limit=0),
        platform.requests_page(FLUX, start=1e300),
        platform.requests_page(FLUX, start=float("nan")),
        platform.prices([]),
        platform.prices([FLUX] * 51),
        platform.prices(["a/b?x"]),
    ):
        with pytest.raises(ValueError, match=r"endpoint|1 to 100|calendar|NaN"):
            await call


def test_the_default_platform_is_fals() -> None:
    assert Hosts(QUEUE).api == API_URL
