"""fal's platform API as a batch needs it: what was asked of an endpoint, and what it costs (fal-protocol §11).

Reads only, one exchange each, nothing repeated, no redirect followed: the key goes to URLs built from
`Hosts.api` and nowhere else. Answers are read leniently, since none of them decides about money by itself: what
makes no sense is left out, and absence proves nothing (§11.5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from falbatch.errors import ReplyError, TransportError
from falbatch.exactjson import parse_json
from falbatch.fal.calls import read_object
from falbatch.fal.endpoint import EndpointId
from falbatch.fal.wire import is_request_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from falbatch.fal.auth import Credentials
    from falbatch.fal.hosts import Hosts
    from falbatch.fal.queue import Exchange

__all__ = ["Estimate", "ListedRequest", "PlatformClient", "Price", "RequestsPage"]

LIST_TIMEOUT_S: Final = 30.0
"""A page with its payloads is a search on fal's side."""
PRICES_TIMEOUT_S: Final = 15.0
"""A lookup, made before a run that can do without."""

MAX_PAGE_BYTES: Final = 64 * 1024 * 1024
"""A hundred inputs and outputs; inline media can make each of them megabytes."""
MAX_PRICES_BYTES: Final = 4 * 1024 * 1024
"""Fifty entries of about a hundred bytes, and room."""

MAX_LIMIT: Final = 100
"""Items of a page at most (§11.5)."""
MAX_ENDPOINTS: Final = 50
"""Values of one parameter at most (§11)."""
MAX_DIGITS: Final = 9
"""Of a price before its point, and twice as many after it: what is beyond is garbage.

In nano-dollars a price has 64 bits."""

_NUMBER: Final = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class ListedRequest:
    """A request as fal remembers it. None for what fal did not say, or said in a form that means nothing."""

    request_id: str
    """A UUID, in lower case."""
    endpoint: str
    """As fal names it; the one that was asked for when it does not."""
    sent_at: float | None
    """When fal took it (Unix seconds), or when it was started."""
    ended_at: float | None
    """Unix seconds."""
    status_code: int | None
    """The HTTP status of its result."""
    has_input: bool
    """False without payloads: storage was off, or they are gone."""
    input: Any = field(repr=False)
    """The input's JSON value with exact integers; None without."""
    output: Any = field(default=None, repr=False)
    """The same of the output; None without, and for a request that failed."""


@dataclass(frozen=True, slots=True)
class RequestsPage:
    """Some of an endpoint's requests."""

    items: tuple[ListedRequest, ...]
    next_cursor: str | None
    """For the next page; None on the last."""


@dataclass(frozen=True, slots=True)
class Price:
    """What one unit of an endpoint's work costs."""

    endpoint: str
    unit_price: Decimal
    """Exactly as fal wrote it."""
    unit: str
    """`image`, `second`, `megapixel` …: fal's word."""
    currency: str
    """`USD`: fal's word."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What some calls cost together."""

    total: Decimal
    """Exactly as fal wrote it."""
    currency: str
    """`USD`: fal's word."""


class PlatformClient:
    """Reads fal's platform API through `transport`. Stateless but for its settings; safe to share between tasks.

    Failures: TransportError (no reply; kind `no_platform` when no platform API is known for these hosts),
    HttpError (a status that is no success, redirects included), ReplyError (a success that makes no sense),
    ValueError (arguments that fal cannot mean anything by; nothing was sent).
    """

    def __init__(
        self, transport: Exchange, hosts: Hosts, credentials: Credentials, *, user_agent: str = "falbatch"
    ) -> None:
        self._transport = transport
        self._hosts = hosts
        self._redact: Callable[[str], str] = credentials.redact
        self._headers: Mapping[str, str] = {
            "authorization": credentials.header(),
            "user-agent": user_agent,
            "accept": "application/json",
        }

    async def requests_page(
        self,
        endpoint: str,
        *,
        start: float,
        cursor: str | None = None,
        limit: int = MAX_LIMIT,
        timeout_s: float = LIST_TIMEOUT_S,
    ) -> RequestsPage:
        """A page of the requests to `endpoint` since `start` (Unix seconds), with their inputs.

        `cursor` is the page before's `next_cursor`. Requests still in the queue are very likely not among
        them, and fal may be late (§11.5). `limit` is 1 to 100.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise ValueError(f"a page has 1 to {MAX_LIMIT} requests, not {limit}")
        wanted = str(EndpointId.parse(endpoint))
        query = {"endpoint_id": wanted, "start": _iso(start), "expand": "payloads", "limit": str(limit)}
        if cursor:
            query["cursor"] = cursor
        document, call = await self._get("models/requests/by-endpoint", query, timeout_s, MAX_PAGE_BYTES)
        items = document.get("items")
        if not isinstance(items, list):
            raise ReplyError(f"{call}: the reply has no list of requests")
        listed = (_listed(item, wanted) for item in items)
        return RequestsPage(tuple(one for one in listed if one is not None), _next_cursor(document, cursor))

    async def prices(self, endpoints: Sequence[str], *, timeout_s: float = PRICES_TIMEOUT_S) -> tuple[Price, ...]:
        """What `endpoints` (1 to 50) cost, in fal's order. fal answers 404 when it knows one of them not."""
        if not 1 <= len(endpoints) <= MAX_ENDPOINTS:
            raise ValueError(f"prices are asked for 1 to {MAX_ENDPOINTS} endpoints at once, not {len(endpoints)}")
        wanted = ",".join(str(EndpointId.parse(endpoint)) for endpoint in endpoints)
        document, call = await self._get("models/pricing", {"endpoint_id": wanted}, timeout_s, MAX_PRICES_BYTES)
        prices = document.get("prices")
        if not isinstance(prices, list):
            raise ReplyError(f"{call}: the reply has no list of prices")
        return tuple(price for price in map(_price, prices) if price is not None)

    async def estimate(self, endpoint: str, *, calls: int, timeout_s: float = PRICES_TIMEOUT_S) -> Estimate | None:
        """What `calls` (1 or more) calls of `endpoint` cost, by what calls of it did cost; None where the answer names
        no amount. fal gives one total for all endpoints of a question, so each is asked about alone (§11.3)."""
        if calls < 1:
            raise ValueError(f"an estimate is for 1 call or more, not {calls}")
        wanted = {str(EndpointId.parse(endpoint)): {"call_quantity": calls}}
        question = {"estimate_type": "historical_api_price", "endpoints": wanted}
        document, _ = await self._ask("models/pricing/estimate", timeout_s, MAX_PRICES_BYTES, question)
        total, currency = _amount(document.get("total_cost")), _word(document.get("currency"))
        return None if total is None or not currency else Estimate(total, currency)

    async def _get(
        self, path: str, query: Mapping[str, str], timeout_s: float, max_bytes: int
    ) -> tuple[dict[str, Any], str]:
        """The JSON object at `path`, and the call's name for messages."""
        # Endpoint ids have no comma in them, so a bare one can only part two of them.
        return await self._ask(f"{path}?{urlencode(query, safe=',')}", timeout_s, max_bytes)

    async def _ask(
        self, path: str, timeout_s: float, max_bytes: int, question: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], str]:
        if not self._hosts.api:
            raise TransportError(
                "no platform API is known for this queue; FALBATCH_API_URL can name one", sent=False, kind="no_platform"
            )
        return await read_object(
            self._transport,
            f"{self._hosts.api}/{path}",
            headers=self._headers,
            timeout_s=timeout_s,
            max_bytes=max_bytes,
            redact=self._redact,
            question=question,
        )


def _listed(item: Any, asked: str) -> ListedRequest | None:
    """One item of a page; None when it names no request."""
    if not isinstance(item, dict):
        return None
    request_id = item.get("request_id")
    if not isinstance(request_id, str) or not is_request_id(request_id):
        return None
    sent_at = _unix_s(item.get("sent_at"))
    status_code = item.get("status_code")
    has_status = isinstance(status_code, int) and not isinstance(status_code, bool) and 100 <= status_code < 600
    value = _payload(item.get("json_input"))
    is_success = not has_status or 200 <= item["status_code"] < 300
    return ListedRequest(
        request_id=request_id.lower(),
        endpoint=_word(item.get("endpoint_id")) or asked,
        sent_at=_unix_s(item.get("started_at")) if sent_at is None else sent_at,
        ended_at=_unix_s(item.get("ended_at")),
        status_code=status_code if has_status else None,
        has_input=value is not None,
        input=value,
        output=_payload(item.get("json_output")) if is_success else None,
    )


def _payload(value: Any) -> Any:
    """A `json_input` or `json_output`, which may come as a value or as its text; None when there is none to read."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value.encode())
    except ValueError:
        return None


def _next_cursor(document: Mapping[str, Any], sent: str | None) -> str | None:
    """The page after this one, if any. The cursor just used would give this page again, for ever."""
    cursor = document.get("next_cursor")
    if document.get("has_more") is False or not isinstance(cursor, str) or cursor == sent:
        return None
    return cursor or None


def _price(entry: Any) -> Price | None:
    """One entry of the price list; None when a part of it is missing or makes no sense."""
    if not isinstance(entry, dict):
        return None
    endpoint, unit, currency = (_word(entry.get(name)) for name in ("endpoint_id", "unit", "currency"))
    unit_price = _amount(entry.get("unit_price"))
    if unit_price is None or not (endpoint and unit and currency):
        return None
    return Price(endpoint, unit_price, unit, currency)


def _amount(value: Any) -> Decimal | None:
    """A price: a plain number ≥ 0 of sane size, with the digits that fal wrote; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value)
    if not _NUMBER.fullmatch(text):
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        return None
    return amount if not amount or -2 * MAX_DIGITS <= amount.adjusted() < MAX_DIGITS else None


def _word(value: Any) -> str:
    """Words that reach people's terminals: one printable line of a sane length, else ""."""
    return value if isinstance(value, str) and value.isprintable() and len(value) <= 512 else ""


def _iso(unix_s: float) -> str:
    """`2026-01-31T09:00:00Z`, rounded down: an earlier start loses nothing. ValueError beyond the calendar."""
    try:
        moment = datetime.fromtimestamp(unix_s, UTC)
    except (OverflowError, OSError):
        raise ValueError(f"{unix_s} is not a moment that a calendar has") from None
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _unix_s(value: Any) -> float | None:
    """The moment that an ISO date names (UTC when it does not say), in Unix seconds; None when it is none."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
