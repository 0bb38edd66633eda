"""What may be asked for with a submit, as headers (fal-protocol §3.1, §6.5).

fal drops bad values silently and runs the request without them; here they are errors before anything costs.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

LIFETIMES_S: Final[Mapping[str, int]] = {
    "immediate": 60,
    "1h": 3600,
    "1d": 86_400,
    "7d": 604_800,
    "30d": 2_592_000,
    "1y": 31_536_000,
}
"""The SDKs' words in seconds (§6.5); `immediate` is a minute because 0 means "for ever"."""

NEVER: Final = "never"
"""No expiry of this request's own: said by leaving the field out, so that the account's setting holds."""

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhdwy])")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, a header's name
_TAG_KEY: Final = re.compile(r"[a-z0-9._-]{1,64}")
_TAG_VALUE: Final = re.compile(r"[ -+\--~]{1,256}")  # printable ASCII without comma
MAX_TAGS: Final = 10
MAX_TAGS_BYTES: Final = 1024

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
    """Options of a submit, checked when made (ValueError in words for the user). All optional."""

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
    store_io: bool | None = None
    """False: fal keeps no input and output, and lost requests cannot be found again (§3.6, §11.5)."""
    fallback: bool | None = None
    """False: never reroute to an equivalent model, for results whose origin matters."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Custom headers, passed on to the app. Not in `repr`: they may hold anything."""
    _rendered: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rendered", self._render())

    def render(self) -> Mapping[str, str]:
        """The headers, names in lower case; made once."""
        return self._rendered

    def _render(self) -> dict[str, str]:
        made = {
            "x-fal-queue-priority": _priority(self.priority),
            # The old name, which every version of the server knows (§15).
            "x-fal-request-timeout": _start_timeout(self.start_timeout_s),
            "x-fal-runner-hint": None if self.hint is None else _value("the hint", self.hint),
            "x-fal-tags": _tags(self.tags),
            "x-fal-object-lifecycle-preference": _lifecycle(self.expires_in),
            "x-fal-store-io": "0" if self.store_io is False else None,
            "x-app-fal-disable-fallback": "true" if self.fallback is False else None,
        }
        headers = {name: value for name, value in made.items() if value is not None}
        for name, value in self.headers.items():
            headers[_custom_name(name, headers)] = _value(f"the header {name!r}", value)
        return headers


def lifetime_s(value: str | float) -> int | None:
    """Whole seconds of an `expires_in`; None for `never`. Raises ValueError."""
    if isinstance(value, str):
        if value == NEVER:
            return None
        match = _DURATION.fullmatch(value)
        seconds: float = LIFETIMES_S.get(value) or (int(match[1]) * _UNITS_S[match[2]] if match else 0)
    else:
        seconds = 0 if isinstance(value, bool) else value
    if not math.isfinite(seconds) or seconds < 1:
        words = ", ".join([NEVER, *LIFETIMES_S])
        raise ValueError(f"expires_in {value!r} is not a life of 1 s or more; give seconds or one of {words}")
    return int(seconds)


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


def _lifecycle(value: str | float | None) -> str | None:
    seconds = None if value is None else lifetime_s(value)
    return None if seconds is None else json.dumps({"expiration_duration_seconds": seconds})


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
