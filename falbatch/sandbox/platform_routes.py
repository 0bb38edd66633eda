"""`/api/v1/…`: what api.fal.ai answers (fal-protocol §11): what there is, what was run, and what things cost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox import storage_platform
from falbatch.sandbox.answers import kept_output
from falbatch.sandbox.faults import Target, Where
from falbatch.sandbox.ids import fingerprint
from falbatch.sandbox.listing import listing_page, parse_listing
from falbatch.sandbox.models_page import models_page
from falbatch.sandbox.platform_query import Refused, all_values
from falbatch.sandbox.pricing import estimate_page, pricing_page
from falbatch.sandbox.queue_routes import account_of
from falbatch.sandbox.replies import Call, Operation, Reply, json_reply, platform_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from falbatch.sandbox.requests import Request
    from falbatch.sandbox.world import World

BAD_KEY: Final = platform_error(401, "Authentication is required to access this endpoint")
UNKNOWN: Final = platform_error(404, "Not found")


def resolve(world: World, call: Call) -> Operation | Reply:
    """What `call` asks for, or a refusal. A locked account may look."""
    place = (call.method, call.tail.rstrip("/"))
    header = call.headers.get("Authorization", "")
    account = account_of(header, world.behaviour.key)
    if account is None and (header or place not in _KEYLESS):
        return BAD_KEY
    route = _ROUTES.get(place)
    if route is None:
        return UNKNOWN

    async def run() -> Reply:
        try:
            return json_reply(200, route(world, call, account or ""))
        except Refused as refused:
            return platform_error(refused.status, str(refused))

    target = Target(Where.PLATFORM, ",".join(_named_endpoints(call)), call.path, fingerprint(call.body))
    return Operation(target, run, account=account or "")


def _models(_world: World, call: Call, account: str) -> dict[str, Any]:
    return models_page(call.query, has_key=bool(account))


def _meta(_world: World, _call: Call, _account: str) -> dict[str, Any]:
    """Where webhooks come from: this machine alone (fal-protocol §4.4)."""
    return {"webhook_ip_ranges": ["127.0.0.1/32", "::1/128"]}


def _list(world: World, call: Call, account: str) -> dict[str, Any]:
    now = world.catch_up()
    asked = parse_listing(call.query, now)

    def output_of(request: Request) -> dict[str, Any] | None:
        return kept_output(world, request, call.origin)

    return listing_page(asked, world.requests.values(), account, world.behaviour.scenario, now, output_of)


def _price(_world: World, call: Call, _account: str) -> dict[str, Any]:
    return pricing_page(call.query)


def _estimate(world: World, call: Call, _account: str) -> dict[str, Any]:
    world.catch_up()
    return estimate_page(call.body, world.requests.values())


_ROUTES: Final[Mapping[tuple[str, str], Callable[[World, Call, str], dict[str, Any]]]] = {
    ("GET", "v1/meta"): _meta,
    ("GET", "v1/models"): _models,
    ("GET", "v1/models/requests/by-endpoint"): _list,
    ("GET", "v1/models/pricing"): _price,
    ("POST", "v1/models/pricing/estimate"): _estimate,
    **storage_platform.ROUTES,
}

_KEYLESS: Final = frozenset({("GET", "v1/meta"), ("GET", "v1/models")})
"""Calls that need no key; a wrong one is refused all the same."""


def _named_endpoints(call: Call) -> list[str]:
    """The endpoint ids in a call, right or wrong, for fault rules to match."""
    if call.method == "GET":
        return all_values(call.query, "endpoint_id")
    try:
        endpoints = json.loads(call.body)["endpoints"]
        return [str(endpoint) for endpoint in endpoints]
    except (ValueError, TypeError, LookupError, RecursionError):
        return []
