"""The CDN's token, and where it may go (fal-protocol §6.1). The fal key goes to the token call alone.

key ─▶ rest/storage/auth/token ─▶ token ─▶ cdn/files/upload …         one call for all who wait for it
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import anyio

from falbatch.errors import ReplyError
from falbatch.exactjson import parse_json
from falbatch.fal.exchange import label_of
from falbatch.fal.problems import parse_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falbatch.fal.auth import Credentials
    from falbatch.fal.exchange import Reply
    from falbatch.fal.hosts import Hosts
    from falbatch.fal.queue import Exchange

TOKEN_TIMEOUT_S: Final = 30.0
MAX_ANSWER_BYTES: Final = 1024 * 1024
"""All that the storage answers is a few hundred bytes of JSON."""

LEEWAY_S: Final = 60.0
"""A token this near its end counts as ended: a large part takes a while. A tenth of its life for short ones."""
UNSAID_LIFE_S: Final = 300.0
"""For a token that does not tell when it ends; a refused one is replaced anyway."""

_URL: Final = re.compile(
    r"(https?)://([a-z0-9.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?(/[!$&-;=@-Z_a-z~%]*)?", re.IGNORECASE
)
"""No userinfo, query, fragment, backslash or whitespace: nothing that another parser could read as another host."""
_CDN_DOMAIN: Final = ".fal.media"
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,40}")
_SECRET: Final = re.compile(r"[!-~]{1,8192}")


@dataclass(frozen=True, slots=True)
class CdnToken:
    """What an upload shows in place of the key."""

    authorization: str = field(repr=False)
    """The value of `Authorization`."""
    base: str
    """Where multipart uploads begin, without slash at its end."""
    ends_at: float = field(repr=False)
    """Monotonic seconds."""

    def redact(self, text: str) -> str:
        """`text` without the token."""
        return text.replace(self.authorization.partition(" ")[2], "***")


class CdnTokens:
    """The token of one key: fetched when first needed and when near its end, by one caller for all."""

    def __init__(self, transport: Exchange, hosts: Hosts, credentials: Credentials, *, user_agent: str) -> None:
        self._transport = transport
        self._hosts = hosts
        self._credentials = credentials
        self._user_agent = user_agent
        self._token: CdnToken | None = None
        self._lock = anyio.Lock()

    async def current(self) -> CdnToken:
        """A token that is good for a while. Raises WireError: whoever asks decides whether to ask again."""
        async with self._lock:
            if self._token is None or time.monotonic() >= self._token.ends_at:
                self._token = await self._fetch()
            return self._token

    def drop(self, token: CdnToken) -> None:
        """Forget `token`, which the CDN has refused."""
        if self._token is token:
            self._token = None

    async def _fetch(self) -> CdnToken:
        url = f"{self._hosts.need('rest')}/storage/auth/token?storage_type=fal-cdn-v3"
        headers = {
            "authorization": self._credentials.header(),
            "user-agent": self._user_agent,
            "accept": "application/json",
            "content-type": "application/json",
        }
        reply = await self._transport.request(
            "POST", url, headers=headers, body=b"{}", timeout_s=TOKEN_TIMEOUT_S, max_bytes=MAX_ANSWER_BYTES
        )
        call = label_of("POST", url)
        if not 200 <= reply.status < 300:
            raise parse_error(reply.status, reply.headers, reply.body, call=call, redact=self._credentials.redact)
        return self._read(reply, call)

    def _read(self, reply: Reply, call: str) -> CdnToken:
        document = json_object(reply, call)
        kind, secret = document.get("token_type"), document.get("token")
        if not (
            isinstance(kind, str) and isinstance(secret, str) and _WORD.fullmatch(kind) and _SECRET.fullmatch(secret)
        ):
            raise ReplyError(f"{call}: the reply holds no usable token")
        base = document.get("base_url")
        own = self._hosts.need("cdn")
        if not isinstance(base, str) or not belongs_to_cdn(base, own):
            base = own  # a token goes where we know, not where somebody says
        life_s = _life_s(document.get("expires_at"), reply.headers)
        ends_at = time.monotonic() + life_s - min(LEEWAY_S, life_s / 10)
        return CdnToken(f"{kind} {secret}", base.rstrip("/"), ends_at)


def belongs_to_cdn(url: str, cdn: str) -> bool:
    """May the CDN's token go to `url`? To the host of `cdn`; when that is fal's own, to all hosts of fal.media."""
    place, home = _place(url), _place(cdn)
    if place is None or home is None:
        return False
    return place == home or (_is_fals(home) and _is_fals(place))


def _place(url: str) -> tuple[str, str, str] | None:
    """Scheme, host and port of `url`."""
    found = _URL.fullmatch(url)
    if found is None:
        return None
    scheme = found[1].lower()
    return scheme, found[2].lower(), found[3] or {"http": "80", "https": "443"}[scheme]


def _is_fals(place: tuple[str, str, str]) -> bool:
    return place[0] == "https" and place[1].endswith(_CDN_DOMAIN) and place[2] == "443"


def json_object(reply: Reply, call: str) -> dict[str, Any]:
    """The JSON object of a success; ReplyError when it is none."""
    try:
        value = parse_json(reply.body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ReplyError(f"{call}: the reply is not the JSON it should be")
    return value


def _life_s(text: object, headers: Mapping[str, str]) -> float:
    """Seconds until `text`, by the reply's own clock: ours may be wrong."""
    try:
        ends = datetime.fromisoformat(str(text))
        date = headers.get("date", "")
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        life_s = ((ends if ends.tzinfo else ends.replace(tzinfo=UTC)) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return UNSAID_LIFE_S
    return max(0.0, life_s)
