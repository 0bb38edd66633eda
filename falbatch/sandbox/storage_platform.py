"""`/api/v1/storage/…`: ACLs, signed links and an account's defaults, over the platform API (fal-protocol §6.5)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from falbatch.sandbox.access import Policy, policy_at, signed_url
from falbatch.sandbox.lifecycle import parse_acl, parse_lifecycle
from falbatch.sandbox.platform_query import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from falbatch.sandbox.replies import Call
    from falbatch.sandbox.world import World

MAX_SIGNED_S: Final = 7 * 86_400


def _acl(world: World, call: Call, account: str) -> dict[str, Any]:
    _, policy = _own_file(world, call, account)
    return policy.acl.page()


def _set_acl(world: World, call: Call, account: str) -> dict[str, Any]:
    path, _ = _own_file(world, call, account)
    try:
        acl = parse_acl(_json(call))
    except ValueError as error:
        raise Refused(str(error)) from error
    world.storage.set_acl(path, acl)
    return acl.page()


def _sign(world: World, call: Call, account: str) -> dict[str, Any]:
    path, _ = _own_file(world, call, account)
    body = _json(call)
    seconds = body.get("expiration_seconds") if isinstance(body, dict) else None
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not 1 <= seconds <= MAX_SIGNED_S:
        raise Refused(f"expiration_seconds: expected a whole number from 1 to {MAX_SIGNED_S}")
    return {"signed_url": signed_url(world, call, path, world.now() + seconds)}


def _settings(world: World, _call: Call, account: str) -> dict[str, Any]:
    return world.storage.settings_of(account, world.now()).page()


def _set_settings(world: World, call: Call, account: str) -> dict[str, Any]:
    """Replace the defaults for files made from now on; what is omitted or null is cleared."""
    try:
        wanted = parse_lifecycle(_json(call))
    except ValueError as error:
        raise Refused(str(error)) from error
    world.storage.set_settings(account, wanted, world.now())
    return wanted.page()


def _own_file(world: World, call: Call, account: str) -> tuple[str, Policy]:
    """The path of the file that `url` names, and what holds for it. Raises Refused; one of others is not found."""
    url = call.query.get("url", "")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or parts.query or not parts.path.startswith("/cdn/"):
        raise Refused("url: expected the URL of a file on this CDN, without a query")
    path = unquote(parts.path.removeprefix("/cdn/"))
    now = world.catch_up()
    policy = policy_at(world, path, now)
    if policy is None or policy.owner != account or (policy.expires_at is not None and now >= policy.expires_at):
        raise Refused("File not found", 404)
    return path, policy


def _json(call: Call) -> Any:
    try:
        return json.loads(call.body)
    except (ValueError, RecursionError):
        raise Refused("the body is not JSON") from None


ROUTES: Final[Mapping[tuple[str, str], Callable[[World, Call, str], dict[str, Any]]]] = {
    ("GET", "v1/storage/files/acl"): _acl,
    ("PUT", "v1/storage/files/acl"): _set_acl,
    ("POST", "v1/storage/files/sign"): _sign,
    ("GET", "v1/storage/settings"): _settings,
    ("PUT", "v1/storage/settings"): _set_settings,
}
"""(method, path behind the host prefix) → what answers."""
