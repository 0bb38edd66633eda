"""`GET /v1/models/requests/by-endpoint`: what an account ran on an endpoint (fal-protocol §11.5). Pure.

Listed is what started and ended, as fal's does: what waits or runs is not there, nor what was cancelled in the
queue. The reference does not say which time `start` and `end` bound; here it is `started_at`, so that whatever
was submitted after `start` is listed once it has ended.
"""

from __future__ import annotations

import base64
import heapq
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox.endpoints import parse_endpoint
from falbatch.sandbox.outputs import inference_s
from falbatch.sandbox.platform_query import Refused, all_values, endpoint_ids, iso_time, moment, utc, whole, word
from falbatch.sandbox.states import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from falbatch.sandbox.requests import Request
    from falbatch.sandbox.scenario import Scenario

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 100
_DAY_S: Final = 86_400.0
_FOREVER: Final = datetime.max.replace(tzinfo=UTC)
_DAYS_BACK: Final = 1
_DAYS_BACK_BY_ID: Final = 90
"""How far back is looked without `start`, and with `request_id` (§11.5)."""

_Key = tuple[float, int]
"""Where an item stands in the list, smaller first: the negative of what is sorted by, then of the ordinal."""


class Outcome(StrEnum):
    """What `status` filters by."""

    SUCCESS = "success"
    """The result is no error."""
    ERROR = "error"
    """5xx: fal's fault."""
    USER_ERROR = "user_error"
    """4xx, a run that was cancelled (499) among them."""


class Sort(StrEnum):
    """What `sort_by` takes."""

    ENDED_AT = "ended_at"
    """The newest first; the default."""
    DURATION = "duration"
    """The longest first."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A call understood."""

    endpoints: frozenset[str]
    """Full ids."""
    start: datetime
    end: datetime
    """Not included."""
    outcome: Outcome | None
    request_id: str | None
    sort: Sort
    limit: int
    after: _Key | None
    """The last item of the page before; None for the first page."""
    with_payloads: bool


def parse_listing(query: Mapping[str, str], now: float) -> Listing:
    """What the parameters of a call ask for. Raises Refused."""
    endpoints = [parse_endpoint(text) for text in endpoint_ids(query)]
    request_id = query.get("request_id")
    days = _DAYS_BACK if request_id is None else _DAYS_BACK_BY_ID
    outcome = word(query, "status", Outcome)
    sort = Sort(word(query, "sort_by", Sort) or Sort.ENDED_AT)
    expand = all_values(query, "expand")
    if set(expand) - {"payloads"}:
        raise Refused(f"expand: expected payloads, not {', '.join(expand)}")
    return Listing(
        endpoints=frozenset(endpoint.full for endpoint in endpoints if endpoint),
        start=moment(query, "start", utc(now - days * _DAY_S)),
        end=moment(query, "end", _FOREVER),
        outcome=Outcome(outcome) if outcome else None,
        request_id=None if request_id is None else request_id.lower(),
        sort=sort,
        limit=whole(query, "limit", DEFAULT_LIMIT, MAX_LIMIT),
        after=_parse_cursor(query["cursor"], sort) if "cursor" in query else None,
        with_payloads=bool(expand),
    )


def listing_page(
    asked: Listing,
    requests: Iterable[Request],
    account: str,
    scenario: Scenario,
    now: float,
    output_of: Callable[[Request], dict[str, Any] | None],
) -> dict[str, Any]:
    """One page of the caller's requests. `output_of` gives what is kept of a request's output."""
    until = now - scenario.listing_lag_s
    keyed = (
        (key, request)
        for request in requests
        if request.account == account
        and _is_asked_for(asked, request, until)
        and (key := _key(asked.sort, request)) > (asked.after or (-math.inf, 0))
    )
    found = heapq.nsmallest(asked.limit + 1, keyed, key=lambda pair: pair[0])
    page, has_more = found[: asked.limit], len(found) > asked.limit
    with_payloads = asked.with_payloads and scenario.listing_payloads
    return {
        "items": [_item(request, output_of, with_payloads=with_payloads) for _, request in page],
        "next_cursor": _cursor(asked.sort, page[-1][0]) if has_more else None,
        "has_more": has_more,
    }


def _is_asked_for(asked: Listing, request: Request, until: float) -> bool:
    """Whether the list has `request`, of whatever page; only what had ended at `until` is known to it."""
    if request.endpoint not in asked.endpoints or request.status is not Status.COMPLETED:
        return False
    if request.started_at is None or request.ended_at is None or request.ended_at > until:
        return False
    if asked.request_id is not None and request.id != asked.request_id:
        return False
    if asked.outcome is not None and _outcome(request) is not asked.outcome:
        return False
    return asked.start <= utc(request.started_at) < asked.end


def _outcome(request: Request) -> Outcome:
    if request.verdict.status < 400:
        return Outcome.SUCCESS
    return Outcome.USER_ERROR if request.verdict.status < 500 else Outcome.ERROR


def _item(
    request: Request, output_of: Callable[[Request], dict[str, Any] | None], *, with_payloads: bool
) -> dict[str, Any]:
    started_at, ended_at = request.started_at or 0.0, request.ended_at or 0.0
    item: dict[str, Any] = {
        "request_id": request.id,
        "endpoint_id": request.endpoint,
        "sent_at": iso_time(request.submitted_at),
        "started_at": iso_time(started_at),
        "ended_at": iso_time(ended_at),
        "status_code": request.verdict.status,
        "duration": inference_s(request),
    }
    if with_payloads and request.keeps_io:
        item |= {"json_input": request.payload, "json_output": output_of(request)}
    return item


def _key(sort: Sort, request: Request) -> _Key:
    by = inference_s(request) if sort is Sort.DURATION else request.ended_at or 0.0
    return -by, -request.ordinal


def _cursor(sort: Sort, key: _Key) -> str:
    return base64.urlsafe_b64encode(json.dumps([sort, *key]).encode()).decode().rstrip("=")


def _parse_cursor(text: str, sort: Sort) -> _Key:
    """Where the page before ended. Raises Refused for what `_cursor` did not make, or made for another order."""
    try:
        kind, by, ordinal = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if kind != sort:
            raise ValueError(kind)
        return float(by), int(ordinal)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise Refused(f"cursor: not one of this list: {text[:80]!r}") from None
