"""fal's side of a webhook, for tests: keys, the page that publishes them, signed deliveries."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.fal.raw_server import RID, Peer, served

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from tests.fal.raw_server import Server

NOW = 1_800_000_000
USER = "user_0001"
BODY = json.dumps({"request_id": RID, "gateway_request_id": RID, "status": "OK", "payload": {"seed": 10**20}}).encode()


def private(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def public(number: int) -> bytes:
    return private(number).public_key().public_bytes_raw()


def signed(
    body: bytes = BODY, *, key: int = 1, at: float = NOW, request_id: str = RID, user: str = USER
) -> dict[str, str]:
    """The four headers, names in lower case."""
    parts = [request_id, user, str(int(at)), hashlib.sha256(body).hexdigest()]
    return {
        "x-fal-webhook-request-id": request_id,
        "x-fal-webhook-user-id": user,
        "x-fal-webhook-timestamp": str(int(at)),
        "x-fal-webhook-signature": private(key).sign("\n".join(parts).encode()).hex(),
    }


def entry(number: int, **more: Any) -> dict[str, Any]:
    """A key of the page, in fal's form: no padding."""
    x = base64.urlsafe_b64encode(public(number)).decode().rstrip("=")
    return {"kty": "OKP", "crv": "Ed25519", "x": x, **more}


def page(*numbers: int) -> bytes:
    return json.dumps({"keys": [entry(number) for number in numbers]}).encode()


@dataclass
class KeyHost:
    """Answers every call with `body`, and remembers the calls."""

    body: bytes
    status: str = "200 OK"
    seen: list[bytes] = field(default_factory=list)

    def served(self) -> AbstractAsyncContextManager[Server]:
        async def script(peer: Peer) -> None:
            while request := await peer.request():
                self.seen.append(request)
                await peer.answer(self.body, status=self.status)

        return served(script)
