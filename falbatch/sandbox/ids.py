"""Everything drawn at random, as a pure function of a seed and a place: ids, chances, numbers.

No generator with a hidden position is used, so a draw does not depend on what else was drawn before it, and a
restarted sandbox goes on with the same ones.
"""

from __future__ import annotations

import hashlib
from statistics import NormalDist
from typing import Final
from uuid import UUID

_NORMAL: Final = NormalDist()
_TWO_TO_64: Final = 2.0**64


def digest(*parts: object, size: int = 16) -> bytes:
    """`size` bytes that depend on every one of `parts` by its text, and on their order."""
    text = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=size).digest()


def fingerprint(raw: bytes) -> str:
    """A short text that stands for `raw`: same bytes, same text."""
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


def request_id(seed: int, ordinal: int) -> str:
    """The id of the request number `ordinal` under `seed`: a UUID of version 4 in lower case."""
    return str(UUID(bytes=digest("request", seed, ordinal), version=4))


def stray_id(seed: int, ordinal: int) -> str:
    """A request id that fal's gateway names in a refusal; no request has it."""
    return str(UUID(bytes=digest("stray", seed, ordinal), version=4))


def number64(*parts: object) -> int:
    """An integer in [0, 2**64): the kind of seed fal returns, often beyond 2**63 (fal-protocol §12)."""
    return int.from_bytes(digest(*parts, size=8), "big")


def chance(*parts: object) -> float:
    """A uniform draw in [0, 1)."""
    return number64(*parts) / _TWO_TO_64


def gauss(*parts: object) -> float:
    """A draw from the standard normal distribution, within about ±8."""
    return _NORMAL.inv_cdf(min(max(chance(*parts), 1e-15), 1 - 1e-15))
