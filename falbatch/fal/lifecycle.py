"""How long an uploaded file lives and who may read it (fal-protocol §6.5), in fal_client's words.

fal drops what it does not understand and keeps the file for ever, readable by all; here it is an error.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ObjectExpiration = Literal["never", "immediate", "1h", "1d", "7d", "30d", "1y"] | int
"""A word of the SDKs', or whole seconds from 1."""

StorageACLDecision = Literal["hide", "forbid", "allow"]
"""What a stranger's GET answers: 404, 403, or the file."""

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

UPLOAD_HEADER: Final = "x-fal-object-lifecycle"
"""The name that the CDN reads."""
PRODUCE_HEADER: Final = "x-fal-object-lifecycle-preference"
"""The name that submits, runs and initiates read."""


@dataclass(frozen=True, slots=True)
class StorageACLRule:
    """What one user may do."""

    user: str
    """fal nickname; fal drops unknown ones without a word."""
    decision: StorageACLDecision

    def __post_init__(self) -> None:
        if not self.user:
            raise ValueError("a storage rule needs the nickname of a user")
        _check_decision(self.decision)


@dataclass(frozen=True, slots=True)
class StorageACL:
    """Who may read a file; its owner always may."""

    default: StorageACLDecision | None = None
    """For everybody whom no rule names; None leaves it to the account's setting."""
    rules: Sequence[StorageACLRule] | None = None

    def __post_init__(self) -> None:
        if self.default is not None:
            _check_decision(self.default)

    def as_dict(self) -> dict[str, Any]:
        """As fal writes it; empty when the account's setting decides."""
        written: dict[str, Any] = {} if self.default is None else {"default": self.default}
        if self.rules:
            written["rules"] = [{"user": rule.user, "decision": rule.decision} for rule in self.rules]
        return written


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """Life and readers of a file. Checked when made: ValueError for a life of 0 or less, or a word unknown to fal."""

    expires_in: ObjectExpiration | None = None
    """`never` and None leave the account's own setting in force; `immediate` is a minute, since 0 means for ever."""
    initial_acl: StorageACL | None = None

    def __post_init__(self) -> None:
        self.lifetime_s()

    def lifetime_s(self) -> int | None:
        """Seconds that the file lives; None when the account's setting decides."""
        return None if self.expires_in is None else lifetime_s(self.expires_in)

    def as_json(self) -> str | None:
        """The header's value, or None when there is nothing to say."""
        return lifecycle_json(self.expires_in, self.initial_acl)


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


def lifecycle_json(expires_in: str | float | None, acl: StorageACL | None) -> str | None:
    """The value of either header, or None when there is nothing to say. Raises ValueError as `lifetime_s`."""
    wanted: dict[str, Any] = {}
    if expires_in is not None and (seconds := lifetime_s(expires_in)) is not None:
        wanted["expiration_duration_seconds"] = seconds
    if acl is not None and (readers := acl.as_dict()):
        wanted["initial_acl"] = readers
    return json.dumps(wanted) if wanted else None


def upload_headers(lifecycle: StorageSettings | None) -> dict[str, str]:
    """The headers of an upload under both of their names: which one a host reads differs (§6.5)."""
    value = lifecycle.as_json() if lifecycle else None
    return {} if value is None else {UPLOAD_HEADER: value, PRODUCE_HEADER: value}


def _check_decision(word: object) -> None:
    if word not in get_args(StorageACLDecision):
        raise ValueError(f"{word!r} is no decision about a file; give hide, forbid or allow")
