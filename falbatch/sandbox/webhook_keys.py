"""Who signs webhooks: keys made from the seed, the page that publishes them, and a signature (fal-protocol §4.4).

A key is a function of the seed and of how often it was rotated, so that a restarted sandbox signs with the same one.
Whoever knows the seed can sign as well: these signatures protect nothing but the test of a client.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from falbatch.sandbox.ids import digest
from falbatch.sandbox.replies import METHOD_NOT_ALLOWED, NOT_FOUND, Call, Reply, json_reply

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from falbatch.sandbox.world import World


def resolve(world: World, call: Call) -> Reply:
    """`GET /rest/.well-known/jwks.json`, without a key: the keys that verify. No fault rule meets this call."""
    if call.path.rstrip("/") != "/rest/.well-known/jwks.json":
        return NOT_FOUND
    if call.method != "GET":
        return METHOD_NOT_ALLOWED
    return json_reply(200, world.webhooks.key_set())


@lru_cache(maxsize=16)
def signing_key(seed: int, rotation: int) -> Ed25519PrivateKey:
    """The key after so many rotations; -1 is the one before the first."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(digest("webhook key", seed, rotation, size=32))


def key_set(seed: int, rotation: int) -> dict[str, Any]:
    """The JWKS page: the key before, which no longer signs, then the present one, so that clients must try each."""
    return {"keys": [_public(signing_key(seed, number)) for number in (rotation - 1, rotation)]}


def signed(key: Ed25519PrivateKey, request_id: str, user_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The four headers over `body`, sent at `timestamp` (Unix seconds)."""
    body_hash = hashlib.sha256(body).hexdigest()
    message = "\n".join((request_id, user_id, str(timestamp), body_hash)).encode()
    return {
        "X-Fal-Webhook-Request-Id": request_id,
        "X-Fal-Webhook-User-Id": user_id,
        "X-Fal-Webhook-Timestamp": str(timestamp),
        "X-Fal-Webhook-Signature": key.sign(message).hex(),
    }


def _public(key: Ed25519PrivateKey) -> dict[str, str]:
    x = base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).decode().rstrip("=")
    return {"kty": "OKP", "crv": "Ed25519", "x": x}
