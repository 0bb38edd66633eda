"""Short-lived tokens that stand for a key where a browser would show it (fal-protocol §5.3). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from falbatch.sandbox import passes
from falbatch.sandbox.passes import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from falbatch.sandbox.endpoints import EndpointId


@dataclass(frozen=True, slots=True)
class Grant:
    """What a good token allows."""

    account: str
    apps: tuple[str, ...]
    """Aliases as the official clients send them, or ids with their owner as the guides do."""

    def allows(self, endpoint: EndpointId) -> bool:
        """Whether one of `apps` names that endpoint: by its alias, its app or an id that it lies under."""
        alias = endpoint.app.rsplit("/", 1)[-1]
        return any(app in {alias, endpoint.app} or f"{endpoint.full}/".startswith(f"{app}/") for app in self.apps)


def mint(seed: int, account: str, apps: Sequence[str], expires_at: float) -> str:
    """A token for `account` that is good until `expires_at` (Unix seconds)."""
    return passes.issue(seed, Kind.APPS, expires_at, account=account, apps="\n".join(apps))


def check(seed: int, token: str, now: float) -> Grant | None:
    """What `token` allows; None for one that is forged, expired or no token."""
    claims = passes.check(seed, Kind.APPS, token, now)
    return None if claims is None else Grant(claims["account"], tuple(claims["apps"].split("\n")))
