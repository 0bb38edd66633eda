"""What may be asked for with a submit or a direct call, as headers and query (fal-protocol §3.1, §4, §6.5).

fal drops bad values silently and runs the request without them; here they are errors before anything costs.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from falbatch.fal.lifecycle import PRODUCE_HEADER, lifecycle_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falbatch.fal.lifecycle import StorageACL

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, a header's name
_TAG_KEY: Final = re.compile(r"[a-z0-9._-]{1,64}")
_TAG_VALUE: Final = re.compile(r"[ -+\--~]{1,256}")  # printable ASCII without comma
MAX_TAGS: Final = 10
MAX_TAGS_BYTES: Final = 1024

RETRY_CONDITIONS: Final = frozenset({"server_error", "timeout", "connection_error"})
"""What fal's own retries can be counted for."""
MAX_RETRIES: Final = 9
"""More on top of the first attempt: fal makes ten in all at most."""

MAX_WEBHOOK: Final = 2048
"""Characters; it travels in a URL, of which front ends take 8 KB."""

_QUEUE_ONLY: Final = frozenset({"x-fal-queue-priority", "x-fal-no-retry", "x-fal-retry-config"})
"""Headers that a direct call has no use for: it waits in no queue, and fal never repeats it (§5.1)."""

_OURS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
"""Headers that the client itself decides."""


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """Options of a submit or a direct call, checked when made (ValueError in words for the user). All optional."""

    priority: str | None = None
    """`normal` or `low`; low waits behind every normal request of everybody."""
    start_timeout_s: float | None = None
    """Seconds, > 1: when not *started* by then, fal gives the request up."""
    hint: str | None = None
    """Routing affinity: requests with the same text prefer the same runner."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Billing labels: ≤ 10 pairs, keys `[a-z0-9._-]`."""
    expires_in: str | float | None = None
    """Life of the produced files: seconds ≥ 1, `never`, `immediate`, or a number with s, m, h, d, w, y (`7d`)."""
    initial_acl: StorageACL | None = None
    """Who may read the produced files."""
    store_io: bool | None = None
    """False: fal keeps no input and output, and lost requests cannot be found again (§3.6, §11.5)."""
    fallback: bool | None = None
    """False: never reroute to an equivalent model, for results whose origin matters."""
    retry: bool | Mapping[str, int] | None = None
    """False: fal does not repeat a failed attempt by itself. A mapping: how many more attempts after a
    `server_error`, `timeout` or `connection_error`, for apps of one's own. Submits only."""
    webhook_url: str | None = field(default=None, repr=False)
    """Called when the request is over. Not in `repr`: it may hold a secret. Submits only."""
    max_queue_length: int | None = None
    """fal refuses (429) when more requests than this, of all callers, wait at the endpoint. Submits only."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Custom headers, passed on to the app. Not in `repr`: they may hold anything."""
    _rendered: Mapping[str, str] = field(init=False, repr=False, compare=False)
    _direct: Mapping[str, str] = field(init=False, repr=False, compare=False)
    _query: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        headers = self._render()
        object.__setattr__(self, "_rendered", headers)
        direct = {name: value for name, value in headers.items() if name not in _QUEUE_ONLY}
        object.__setattr__(self, "_direct", direct)
        asked = {"fal_webhook": _webhook(self.webhook_url), "fal_max_queue_length": _length(self.max_queue_length)}
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in asked.items() if value is not None)
        object.__setattr__(self, "_query", query)

    def render(self) -> Mapping[str, str]:
        """The headers of a submit, names in lower case; made once."""
        return self._rendered

    def render_direct(self) -> Mapping[str, str]:
        """The headers of a direct call: those of a submit without what only a queue understands."""
        return self._direct

    def query(self) -> str:
        """The query of a submit, ready for its URL; "" without."""
        return self._query

    def _render(self) -> dict[str, str]:
        made = {
            "x-fal-queue-priority": _priority(self.priority),
            # The old name, which every version of the server knows (§15).
            "x-fal-request-timeout": _start_timeout(self.start_timeout_s),
            "x-fal-runner-hint": None if self.hint is None else _value("the hint", self.hint),
            "x-fal-tags": _tags(self.tags),
            PRODUCE_HEADER: lifecycle_json(self.expires_in, self.initial_acl),
            "x-fal-store-io": "0" if self.store_io is False else None,
            "x-app-fal-disable-fallback": "true" if self.fallback is False else None,
            "x-fal-no-retry": "1" if self.retry is False else None,
            "x-fal-retry-config": _retries(self.retry),
        }
        headers = {name: value for name, value in made.items() if value is not None}
        for name, value in self.headers.items():
            headers[_custom_name(name, headers)] = _value(f"the header {name!r}", value)
        return headers


def _priority(value: str | None) -> str | None:
    if value not in {None, "normal", "low"}:
        raise ValueError(f"priority {value!r} is unknown to fal, which would ignore it; give normal or low")
    return value


def _start_timeout(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not math.isfinite(seconds) or seconds <= 1:
        raise ValueError(f"start_timeout_s {seconds!r} must be more than 1 second")
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def _retries(retry: bool | Mapping[str, int] | None) -> str | None:
    if retry is None or isinstance(retry, bool):
        return None
    for condition, count in retry.items():
        if condition not in RETRY_CONDITIONS:
            raise ValueError(f"retry: {condition!r} is unknown to fal; it knows {', '.join(sorted(RETRY_CONDITIONS))}")
        if type(count) is not int or not 0 <= count <= MAX_RETRIES:
            raise ValueError(f"retry: {condition} is given {count!r}; fal makes 0 to {MAX_RETRIES} more attempts")
    return json.dumps({condition: {"retries": count} for condition, count in retry.items()}) if retry else None


def _webhook(url: str | None) -> str | None:
    """`url` when fal can call it; the error never shows it: it may hold a secret."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        is_url = parts.scheme.lower() in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or not url.isascii() or not url.isprintable() or " " in url or len(url) > MAX_WEBHOOK:
        raise ValueError(f"webhook_url is no http(s) URL of at most {MAX_WEBHOOK} plain ASCII characters")
    return url


def _length(value: int | None) -> str | None:
    if value is None:
        return None
    if type(value) is not int or value < 0:
        raise ValueError(f"max_queue_length {value!r} is no number of requests")
    return str(value)


def _tags(tags: Mapping[str, str]) -> str | None:
    if not tags:
        return None
    if len(tags) > MAX_TAGS:
        raise ValueError(f"{len(tags)} tags; fal takes {MAX_TAGS} at most")
    for key, value in tags.items():
        if not _TAG_KEY.fullmatch(key):
            raise ValueError(f"tag {key!r}: a key has 1 to 64 characters of a-z 0-9 . _ -")
        if key.startswith("fal."):
            raise ValueError(f"tag {key!r}: keys that begin with fal. are fal's own")
        if not _TAG_VALUE.fullmatch(value):
            raise ValueError(f"tag {key!r}: a value has 1 to 256 printable ASCII characters and no comma")
    text = ",".join(f"{key}={value}" for key, value in tags.items())
    if len(text) > MAX_TAGS_BYTES:
        raise ValueError(f"the tags take {len(text)} bytes; fal takes {MAX_TAGS_BYTES} at most")
    return text


def _custom_name(name: str, taken: Mapping[str, str]) -> str:
    lower = name.lower()
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a header")
    if lower in _OURS:
        raise ValueError(f"the header {name!r} is falbatch's own business")
    if lower in taken:
        raise ValueError(f"the header {name!r} is given twice, or by an option of its own as well")
    return lower


def _value(what: str, value: str) -> str:
    """`value` when it can be a header's value; the error never shows it: it may be a secret."""
    if not value or value != value.strip() or not value.isascii() or not value.isprintable():
        raise ValueError(f"{what} must be printable ASCII without spaces at its ends, and not empty")
    return value
