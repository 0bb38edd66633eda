"""Somebody's webhook receiver on this machine, and fal's signature checked as the protocol page tells it."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

if TYPE_CHECKING:
    from email.message import Message

WAIT_S = 10.0


@dataclass(frozen=True)
class Got:
    """One POST."""

    path: str
    headers: Message
    body: bytes
    at: float

    @property
    def page(self) -> dict[str, Any]:
        page: dict[str, Any] = json.loads(self.body)
        return page

    def is_signed_by(self, jwk: dict[str, str]) -> bool:
        """§4.4, step by step."""
        values = [self.headers[f"X-Fal-Webhook-{name}"] for name in ("Request-Id", "User-Id", "Timestamp")]
        message = "\n".join([*values, hashlib.sha256(self.body).hexdigest()])
        key = base64.urlsafe_b64decode(jwk["x"] + "=" * (-len(jwk["x"]) % 4))
        try:
            signature = bytes.fromhex(self.headers["X-Fal-Webhook-Signature"])
            Ed25519PublicKey.from_public_bytes(key).verify(signature, message.encode())
        except InvalidSignature:
            return False
        return True


class Receiver:
    """Answers POSTs with `answers` in turn, the last one again and again; 0 is no answer for a second."""

    def __init__(self, *answers: int, port: int = 0) -> None:
        self.answers = list(answers) or [200]
        self.got: list[Got] = []
        self._came = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = outer._take(Got(self.path, self.headers, body, time.time()))
                if status == 0:
                    outer._closing.wait(1.0)
                    return
                self.send_response(status)
                self.send_header("Content-Length", "0")
                if status // 100 == 3:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook/abc?a=b%20c"

    def wait(self, count: int = 1) -> list[Got]:
        """The first `count` POSTs; fails when they do not come."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.got) >= count, WAIT_S), f"only {len(self.got)} came"
            return self.got[:count]

    def _take(self, got: Got) -> int:
        with self._came:
            self.got.append(got)
            self._came.notify_all()
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
