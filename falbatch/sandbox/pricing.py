"""What endpoints cost: the platform API's price list and estimates (fal-protocol §11.3). Pure.

Both come from the table that the ledger bills by (`endpoints`), so an estimate and the bill can be compared.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox.endpoints import Unit, profile_of
from falbatch.sandbox.platform_query import Refused, at_most, endpoint_ids, known_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from falbatch.sandbox.requests import Request

_UNITS: Final[Mapping[Unit, str]] = {
    Unit.IMAGES: "image",
    Unit.MEGAPIXELS: "megapixel",
    Unit.REQUESTS: "request",
    Unit.SECONDS: "second",
    Unit.CHARACTERS: "1000 characters",
    Unit.COMPUTE_SECONDS: "compute second",
    Unit.MINUTES: "minute",
    Unit.STEPS: "step",
}
"""The profiles' words → fal's."""

_MOST: Final = 10**12
"""Of units or calls in one estimate: far beyond any batch, and small enough for exact sums of prices."""

_QUANTITIES: Final[Mapping[str, tuple[str, Callable[[object], bool], str]]] = {
    "unit_price": (
        "unit_quantity",
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _MOST,
        "a number above 0",
    ),
    "historical_api_price": (
        "call_quantity",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST,
        "a whole number from 1",
    ),
}
"""estimate_type → the member that each endpoint must have, and what is good for it."""


def pricing_page(query: Mapping[str, str]) -> dict[str, Any]:
    """The prices of the endpoints that `endpoint_id` names. Raises Refused."""
    prices = []
    for text in endpoint_ids(query):
        profile = profile_of(known_endpoint(text))
        unit = _UNITS[profile.unit]
        prices.append({"endpoint_id": text, "unit_price": profile.unit_price, "unit": unit, "currency": "USD"})
    return {"prices": prices, "next_cursor": None, "has_more": False}


def estimate_page(raw: bytes, requests: Collection[Request]) -> dict[str, Any]:
    """The total price of what the body `raw` plans; `requests` is the history. Raises Refused."""
    estimate_type, endpoints = _parse(raw)
    name, is_good, form = _QUANTITIES[estimate_type]
    total = 0.0
    for text, asked in endpoints.items():
        if not isinstance(asked, dict) or set(asked) != {name} or not is_good(asked[name]):
            raise Refused(f'endpoints: {text}: expected {{"{name}": {form}}}')
        endpoint = known_endpoint(text)
        units = 1.0 if estimate_type == "unit_price" else _average_units(endpoint, requests)
        total += profile_of(endpoint).unit_price * units * asked[name]
    return {"estimate_type": estimate_type, "total_cost": round(total, 9), "currency": "USD"}


def _parse(raw: bytes) -> tuple[str, dict[str, Any]]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Refused("the body is not a JSON object")
    estimate_type, endpoints = body.get("estimate_type"), body.get("endpoints")
    if not isinstance(estimate_type, str) or estimate_type not in _QUANTITIES:
        raise Refused(f"estimate_type: expected {' or '.join(_QUANTITIES)}")
    if not isinstance(endpoints, dict) or not endpoints:
        raise Refused("endpoints: expected an object with endpoint ids as its keys")
    at_most(list(endpoints), "endpoints")
    return estimate_type, endpoints


def _average_units(endpoint: str, requests: Collection[Request]) -> float:
    """Mean billable units of the executions of `endpoint` that were billed; 1 when there were none."""
    units = [
        request.verdict.units
        for request in requests
        if request.endpoint == endpoint and request.ended_at is not None and request.verdict.units
    ]
    return sum(units) / len(units) if units else 1.0
