"""Tokens that stand in for the key where a key may not go: in the URL of a socket (fal-protocol §5.3)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from falbatch.errors import ReplyError
from falbatch.exactjson import parse_json
from falbatch.fal.calls import Caller, endpoint_of
from falbatch.fal.exchange import Exchange, label_of

if TYPE_CHECKING:
    from falbatch.fal.auth import Credentials
    from falbatch.fal.hosts import Hosts

TOKEN_TIMEOUT_S: Final = 30.0
"""A small call."""
MAX_ANSWER_BYTES: Final = 1024 * 1024
"""A token has a few hundred characters."""
EXPIRATION_S: Final = 120
"""What both of fal's clients ask for."""


class TokenClient:
    """Gets realtime tokens for the key. Failures: as of `QueueClient`, and UsageError when no REST API is known."""

    def __init__(
        self, transport: Exchange, hosts: Hosts, credentials: Credentials, *, user_agent: str = "falbatch"
    ) -> None:
        self._transport = transport
        self._hosts = hosts
        self._caller = Caller(credentials, user_agent)

    async def create(
        self, endpoint: str, *, expiration_s: int = EXPIRATION_S, timeout_s: float = TOKEN_TIMEOUT_S
    ) -> str:
        """A token for the app of `endpoint`, good for `expiration_s` seconds. Costs nothing; may be repeated."""
        if isinstance(expiration_s, bool) or expiration_s < 1:
            raise ValueError(f"token_expiration {expiration_s!r} must be 1 second or more")
        url = f"{self._hosts.need('rest')}/tokens/"
        asked = {"allowed_apps": [endpoint_of(endpoint).alias], "token_expiration": int(expiration_s)}
        reply = await self._transport.request(
            "POST",
            url,
            headers={**self._caller.headers, "content-type": "application/json"},
            body=json.dumps(asked).encode(),
            timeout_s=timeout_s,
            max_bytes=MAX_ANSWER_BYTES,
        )
        call = label_of("POST", url)
        self._caller.raise_for_status(reply, call)
        token = _token(reply.body)
        if not token:
            raise ReplyError(f"{call}: the reply holds no token")
        return token


def _token(body: bytes) -> str:
    """The token in a reply: a bare JSON string, or a member of an object (§5.3); "" when there is none."""
    try:
        value: Any = parse_json(body)
    except ValueError:
        return ""
    if isinstance(value, dict):
        value = value.get("token") or value.get("detail")
    return value if isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value else ""
