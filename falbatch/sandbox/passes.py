"""Signed texts that let their bearer do one thing until some time: CDN tokens, signed links, upload targets. Pure.

`<claims>.<signature>`, both base64url. The key of the signature follows from the seed, so that a restarted sandbox
knows its own; it guards nothing but an emulator on loopback.
"""

from __future__ import annotations

import base64
import hmac
import json
from enum import StrEnum
from typing import Any

from falbatch.sandbox.ids import digest


class Kind(StrEnum):
    """What a text is good for; one of another kind is refused."""

    CDN = "cdn"
    """{account}: uploading, and reading what the account may read."""
    READ = "read"
    """{path}: reading that file, whoever reads."""
    TARGET = "target"
    """{upload}: sending the bytes of that upload."""
    APPS = "apps"
    """{account, apps}: direct calls of those apps, see `tokens`."""


def issue(seed: int, kind: Kind, expires_at: float, **claims: str) -> str:
    """A text that carries `claims` until `expires_at` (Unix seconds)."""
    body = json.dumps({"kind": kind, "exp": expires_at, **claims}, separators=(",", ":"), sort_keys=True).encode()
    return f"{_encode(body)}.{_encode(_signature(seed, body))}"


def check(seed: int, kind: Kind, text: str, now: float) -> dict[str, Any] | None:
    """The claims of a text of that kind that this sandbox issued; None for any other, and once it is over."""
    claims = _claims(seed, text)
    return claims if claims is not None and claims["kind"] == kind and now < claims["exp"] else None


def is_ours(seed: int, kind: Kind, text: str) -> bool:
    """Whether this sandbox issued `text`, expired or not."""
    claims = _claims(seed, text)
    return claims is not None and claims["kind"] == kind


def _claims(seed: int, text: str) -> dict[str, Any] | None:
    body_text, _, signature_text = text.partition(".")
    body, signature = _decode(body_text), _decode(signature_text)
    if not body or not hmac.compare_digest(signature, _signature(seed, body)):
        return None
    claims: dict[str, Any] = json.loads(body)
    return claims


def _signature(seed: int, body: bytes) -> bytes:
    return hmac.digest(digest("passes", seed, size=32), body, "sha256")


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(text: str) -> bytes:
    """Empty for what is no base64url."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return b""
