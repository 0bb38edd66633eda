"""How long a file lives and who may read it, as clients ask for it (fal-protocol §6.5). Pure."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADERS: Final = ("X-Fal-Object-Lifecycle", "X-Fal-Object-Lifecycle-Preference")
"""Uploads and submits name it differently, clients send one or both: either is taken in both places."""


class Decision(StrEnum):
    """What becomes of a reader."""

    ALLOW = "allow"
    FORBID = "forbid"
    """403."""
    HIDE = "hide"
    """404."""


@dataclass(frozen=True, slots=True)
class Acl:
    """Who may read a file. Its owner always may; that is not among the rules."""

    default: Decision = Decision.ALLOW
    rules: tuple[tuple[str, Decision], ...] = ()
    """(account, decision), each account once. In a sandbox an account's nickname is its key's id."""

    def decide(self, account: str | None) -> Decision:
        """What becomes of a reader who is not the owner; None for one who does not say who it is."""
        return next((decision for user, decision in self.rules if user == account), self.default)

    def page(self) -> dict[str, Any]:
        """As fal writes it."""
        return {
            "default": str(self.default),
            "rules": [{"user": user, "decision": str(decision)} for user, decision in self.rules],
        }


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """What a client wants of a file; None where it says nothing."""

    expiration_s: float | None = None
    """Seconds from upload to deletion."""
    acl: Acl | None = None

    def over(self, other: Lifecycle) -> Lifecycle:
        """This, and `other` where this says nothing."""
        return Lifecycle(
            other.expiration_s if self.expiration_s is None else self.expiration_s,
            other.acl if self.acl is None else self.acl,
        )

    def page(self) -> dict[str, Any]:
        """As fal writes it; only sandboxes know fractions of a second."""
        seconds = self.expiration_s
        return {
            "expiration_duration_seconds": int(seconds) if seconds is not None and seconds.is_integer() else seconds,
            "initial_acl": None if self.acl is None else self.acl.page(),
        }


def read_headers(headers: Mapping[str, str]) -> Lifecycle:
    """The lifecycle that a call's headers ask for; an empty one without them. Raises ValueError."""
    # A recorded request has its headers in lower case.
    text = next((headers[name] for each in HEADERS for name in (each, each.lower()) if name in headers), None)
    if text is None:
        return Lifecycle()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("the object lifecycle is not JSON") from None
    return parse_lifecycle(value)


def parse_lifecycle(value: object) -> Lifecycle:
    """A lifecycle from its JSON. Null and 0 seconds mean that the file never expires. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError("the object lifecycle is not a JSON object")  # noqa: TRY004 - one kind of error here
    seconds = value.get("expiration_duration_seconds")
    if seconds is not None and not is_seconds(seconds):
        raise ValueError("expiration_duration_seconds: expected a number of seconds from 0")
    acl = value.get("initial_acl")
    return Lifecycle(float(seconds) if seconds else None, None if acl is None else parse_acl(acl, "initial_acl"))


def parse_acl(value: object, place: str = "the body") -> Acl:
    """An ACL from its JSON; `place` is for the message. The last rule of a user counts. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError(f"{place}: expected an object with default and rules")  # noqa: TRY004
    rules = value.get("rules")
    if not isinstance(rules, list | None):
        raise ValueError(f"{place}.rules: expected a list")  # noqa: TRY004
    decided: dict[str, Decision] = {}
    for number, rule in enumerate(rules or ()):
        if not isinstance(rule, dict) or not isinstance(rule.get("user"), str) or not rule["user"]:
            raise ValueError(f"{place}.rules[{number}]: expected a user and a decision")
        decided[rule["user"]] = _decision(rule.get("decision"), f"{place}.rules[{number}].decision")
    default = _decision(value.get("default", Decision.ALLOW), f"{place}.default")  # fal's JS client may leave it out
    return Acl(default, tuple(decided.items()))


def is_seconds(value: object) -> bool:
    """Whether `value` is a finite number from 0, and no boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _decision(value: object, place: str) -> Decision:
    if value not in [*Decision]:
        raise ValueError(f"{place}: expected allow, forbid or hide")
    return Decision(str(value))
