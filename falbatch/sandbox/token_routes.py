"""`/rest/tokens/…`: tokens for browsers and sockets, in both shapes that are written about (fal-protocol §5.3)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox.failures import detail_item
from falbatch.sandbox.queue_routes import BAD_KEY, account_of
from falbatch.sandbox.replies import METHOD_NOT_ALLOWED, NOT_FOUND, Call, Operation, Reply, json_reply
from falbatch.sandbox.requests import parse_payload
from falbatch.sandbox.tokens import mint

if TYPE_CHECKING:
    from falbatch.sandbox.world import World

DEFAULT_LIFETIME_S: Final = 120
"""What both clients ask for."""

_LIFETIME_KEYS: Final = {"": "token_expiration", "realtime": "duration"}
"""Path behind `tokens/` → the member that says for how many seconds."""


def resolve(world: World, call: Call) -> Operation | Reply:
    """The token that `call` asks for: a bare JSON string, or an object from `tokens/realtime`."""
    tail = call.tail.removeprefix("tokens").strip("/")
    if tail not in _LIFETIME_KEYS:
        return NOT_FOUND
    if call.method != "POST":
        return METHOD_NOT_ALLOWED
    account = account_of(call.headers.get("Authorization", ""), world.behaviour.key)
    if account is None:
        return BAD_KEY
    asked = parse_payload(call.body)
    problems = _problems(asked, _LIFETIME_KEYS[tail])
    if asked is None or problems:
        return json_reply(422, {"detail": problems})
    lifetime_s = asked.get(_LIFETIME_KEYS[tail], DEFAULT_LIFETIME_S)
    token = mint(world.behaviour.seed, account, asked["allowed_apps"], world.now() + lifetime_s)
    return json_reply(200, {"token": token} if tail else token)


def _problems(asked: dict[str, Any] | None, lifetime_key: str) -> list[dict[str, Any]]:
    """What is wrong with a body, as fal's `detail` entries."""
    if asked is None:
        return [detail_item("dict_type", "Input should be a valid dictionary", (), {})]
    if "allowed_apps" not in asked:
        return [detail_item("missing", "Field required", ("allowed_apps",), {}, input=asked)]
    apps, lifetime_s = asked["allowed_apps"], asked.get(lifetime_key, DEFAULT_LIFETIME_S)
    if not isinstance(apps, list) or not apps or not all(isinstance(app, str) and app for app in apps):
        return [detail_item("list_type", "Input should be a list of app names", ("allowed_apps",), {}, input=apps)]
    if isinstance(lifetime_s, bool) or not isinstance(lifetime_s, int | float) or not 0 < lifetime_s < math.inf:
        message = "Input should be greater than 0"
        return [detail_item("greater_than", message, (lifetime_key,), {"gt": 0}, input=lifetime_s)]
    return []
