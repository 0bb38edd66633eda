"""Who may read a file: its owner, whoever its ACL lets in, and whoever holds a signed link (fal-protocol §6.5)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from falbatch.sandbox import passes
from falbatch.sandbox.lifecycle import Acl, Decision, Lifecycle, read_headers
from falbatch.sandbox.replies import NOT_FOUND, Call, Reply, detail_reply
from falbatch.sandbox.states import Status

if TYPE_CHECKING:
    from falbatch.sandbox.requests import Request
    from falbatch.sandbox.world import World

FORBIDDEN: Final = detail_reply(403, "Forbidden")

TARGETS: Final = "uploads/"
"""Paths that take bytes without any Authorization: their query says enough."""

_MADE: Final = re.compile(r"files/b/([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})/[^/]+")
"""A file that a request made: its id, without dashes, names the folder."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for one file."""

    owner: str
    acl: Acl
    expires_at: float | None
    """Unix seconds; None for never."""


def refusal(world: World, call: Call, now: float) -> Reply | None:
    """Why `call` may not read the file at its path; None when it may, or when there is no such file."""
    policy = policy_at(world, call.tail, now)
    if policy is None:
        return None
    if policy.expires_at is not None and now >= policy.expires_at:
        return NOT_FOUND
    signed = passes.check(world.behaviour.seed, passes.Kind.READ, call.query.get("identity", ""), now)
    if signed is not None and signed["path"] == call.tail:
        return None
    reader = cdn_account(world, call, now)
    if reader == policy.owner:
        return None
    match policy.acl.decide(reader):
        case Decision.ALLOW:
            return None
        case Decision.FORBID:
            return FORBIDDEN
        case Decision.HIDE:
            return NOT_FOUND


def policy_at(world: World, path: str, now: float) -> Policy | None:
    """What holds for the file at `path` (behind the host prefix), uploaded or made by a request; None without one.

    A file made by a request may have expired; an uploaded one that did is gone.
    """
    file = world.storage.find(path, now)
    if file is not None:
        return Policy(file.owner, file.acl, file.expires_at)
    found = _MADE.fullmatch(path)
    request = world.requests.get("-".join(found.groups())) if found else None
    if request is None or request.status is not Status.COMPLETED or request.verdict.status != 200:
        return None
    wanted = _asked_at_submit(request).over(world.storage.settings_of(request.account, request.submitted_at))
    since = request.submitted_at if request.ended_at is None else request.ended_at
    return Policy(
        request.account,
        world.storage.acl_at(path) or wanted.acl or Acl(),
        None if wanted.expiration_s is None else since + wanted.expiration_s,
    )


def cdn_account(world: World, call: Call, now: float) -> str | None:
    """The account whose CDN token `call` carries; None without one that holds."""
    claims = passes.check(world.behaviour.seed, passes.Kind.CDN, _bearer(call), now)
    return None if claims is None else str(claims["account"])


def signed_url(world: World, call: Call, path: str, expires_at: float) -> str:
    """A link by which anybody may read the file at `path` until then."""
    identity = passes.issue(world.behaviour.seed, passes.Kind.READ, expires_at, path=path)
    return f"{url_of(call, path)}?identity={identity}"


def url_of(call: Call, path: str) -> str:
    """The address of the file at `path`, as the caller of `call` knows this sandbox."""
    return f"{call.origin}/cdn/{path}"


def note_leak(world: World, call: Call) -> None:
    """Count an Authorization header that has no business here: whatever is no CDN token, and any at a target."""
    if "Authorization" not in call.headers:
        return
    if call.tail.startswith(TARGETS) or not passes.is_ours(world.behaviour.seed, passes.Kind.CDN, _bearer(call)):
        world.stats.leaked_keys += 1


def _bearer(call: Call) -> str:
    """The token of `Authorization: Bearer …`; empty without."""
    scheme, _, token = call.headers.get("Authorization", "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _asked_at_submit(request: Request) -> Lifecycle:
    """What the submit's header asks of the files it produces; an unusable one is ignored, as other hints are."""
    try:
        return read_headers(request.headers)
    except ValueError:
        return Lifecycle()
