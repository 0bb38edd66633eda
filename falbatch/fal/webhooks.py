"""Webhooks as fal sends them: is it fal that speaks, and what does it say (fal-protocol §4).

    headers, body ─▶ complete and of this moment? ─▶ signed by a key of fal's? ─▶ Delivery
                                                       └── no: are there newer keys?

A valid signature says that fal said this, not that it is about a request of ours: anybody with an account can have fal
call any URL. Whoever takes a delivery must know the request by its id, and read its result from the queue (§13 no. 23).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread

from falbatch.errors import ReplyError, TransportError, UsageError, WireError
from falbatch.exactjson import parse_json
from falbatch.fal.exchange import label_of
from falbatch.fal.problems import parse_error
from falbatch.fal.wire import is_request_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    from falbatch.fal.queue import Exchange

__all__ = ["SIGNATURE_HEADERS", "Delivery", "Jwks", "Outcome", "WebhookRefused", "parse_delivery", "verify"]

SIGNATURE_HEADERS: Final = (
    "x-fal-webhook-request-id",
    "x-fal-webhook-user-id",
    "x-fal-webhook-timestamp",
    "x-fal-webhook-signature",
)
"""What every delivery carries (§4.4); the first three are signed, in this order."""

WINDOW_S: Final = 300
"""How far a delivery's own time may be from ours, to either side (§4.4)."""
MAX_KEYS_AGE_S: Final = 24 * 3600.0
"""fal's own bound (§4.4)."""
MIN_FETCH_PAUSE_S: Final = 60.0
"""Between two fetches of the keys, whatever comes in: a flood of forgeries must not become a flood of fetches."""
KEYS_TIMEOUT_S: Final = 8.0
"""fal gives the first delivery 15 s (§4.2), and ours is to be answered within them."""
MAX_KEYS_BYTES: Final = 256 * 1024
"""A key has about a hundred."""
MAX_KEYS: Final = 32
"""Each is tried for each forgery, at about 0.1 ms."""
BIG_BYTES: Final = 1024 * 1024
"""A body beyond this is hashed and parsed in a thread: it takes milliseconds, and others are waiting."""

_T = TypeVar("_T")

_DECIMAL: Final = re.compile(r"[0-9]{1,12}")
_HEX_64_BYTES: Final = re.compile(r"[0-9a-fA-F]{128}")
"""bytes.fromhex would also take spaces, and so one signature in many spellings."""


class WebhookRefused(ValueError):
    """Raised for what fal did not send, not now, or not in a form that means anything.

    The message is one of a few fixed texts, without anything that came in.
    """


class Outcome(StrEnum):
    """fal's word for how a request ended."""

    OK = "OK"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a webhook says. A hint: it may come twice, late or never."""

    request_id: str
    """The queue's, in lower case: what to know a job by."""
    status: Outcome
    payload: Any = field(repr=False)
    """The output, or the body of the error, with exact integers; None where fal could not send it."""
    error: str = ""
    """fal's words, with ERROR."""
    payload_error: str = ""
    """Why there is no payload; may come with OK."""
    gateway_request_id: str = ""
    """The last attempt's own id; the request's, unless it was retried. "" when unsaid."""


def verify(headers: Mapping[str, str], body: bytes, keys: Sequence[bytes], now_unix: float) -> None:
    """Raise WebhookRefused unless `body`, as it came, was signed by one of `keys` around `now_unix`.

    `headers` has its names in lower case, `keys` are 32 bytes each. Nothing here is secret, so nothing needs constant
    time. Raises UsageError when `cryptography` is not installed.
    """
    signature = _checked(headers, now_unix)
    if not _is_signed(_message(headers, _sha256(body)), signature, keys):
        raise WebhookRefused(_NOT_SIGNED)


def parse_delivery(body: bytes) -> Delivery:
    """What a verified `body` says. Raises WebhookRefused."""
    try:
        document = parse_json(body)
    except ValueError:
        # Without the cause: a JSONDecodeError holds the whole document.
        document = None
    if not isinstance(document, dict):
        raise WebhookRefused("the body is no JSON object")
    request_id, status = document.get("request_id"), document.get("status")
    if not isinstance(request_id, str) or not is_request_id(request_id):
        raise WebhookRefused("the body names no valid request id")
    if not isinstance(status, str) or status not in {*Outcome}:
        raise WebhookRefused("the status is neither OK nor ERROR")
    gateway_id = _text(document, "gateway_request_id")
    return Delivery(
        request_id=request_id.lower(),
        status=Outcome(status),
        payload=document.get("payload"),
        error=_text(document, "error"),
        payload_error=_text(document, "payload_error"),
        gateway_request_id=gateway_id.lower() if is_request_id(gateway_id) else "",
    )


def parse_keys(body: bytes) -> tuple[bytes, ...]:
    """The Ed25519 keys of a JWKS, at most MAX_KEYS, 32 bytes each; what is of another kind is left out.

    Raises ValueError when there is none.
    """
    document = parse_json(body)
    entries = document.get("keys") if isinstance(document, dict) else None
    found = [_key(entry) for entry in entries] if isinstance(entries, list) else []
    keys = tuple(key for key in found if key is not None)[:MAX_KEYS]
    if not keys:
        raise ValueError("no Ed25519 key")
    return keys


class Jwks:
    """Verifies deliveries with fal's published keys, which it keeps for a day. Safe to share between tasks.

    `rest_url` is fal's REST host, without slash at its end. Both clocks give seconds: `unix_s` the time of day, which
    deliveries name, `now_s` monotonic ones. Making one raises UsageError when `cryptography` is not installed.
    """

    def __init__(
        self,
        transport: Exchange,
        rest_url: str,
        *,
        user_agent: str = "falbatch",
        unix_s: Callable[[], float] = time.time,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        _ed25519()
        self._transport = transport
        self._url = f"{rest_url}/.well-known/jwks.json"
        # The keys are public: no credentials go there.
        self._headers: Mapping[str, str] = {"user-agent": user_agent, "accept": "application/json"}
        self._unix_s = unix_s
        self._now_s = now_s
        self._keys: tuple[bytes, ...] = ()
        self._fetched_at: float | None = None
        """When `_keys` came."""
        self._asked_at: float | None = None
        """When they were last asked for, whatever came of it."""
        self._failure: WireError | None = None
        """Of the last fetch; None after a success."""
        self._fetching = anyio.Lock()

    async def verify(self, headers: Mapping[str, str], body: bytes) -> Delivery:
        """What fal says in `body`, which stands as it came; `headers` has its names in lower case.

        Raises WebhookRefused; WireError when the keys cannot be had, so that nobody can tell: fal may try again.
        """
        signature = _checked(headers, self._unix_s())
        message = _message(headers, await _aside(_sha256, body))
        keys = await self._known()
        if not _is_signed(message, signature, keys):
            newer = await self._newer(keys)
            if newer is keys or not _is_signed(message, signature, newer):
                raise WebhookRefused(_NOT_SIGNED)
        return await _aside(parse_delivery, body)

    async def _known(self) -> tuple[bytes, ...]:
        """The keys, at most a day old. WireError when there are none."""
        if self._is_fresh():
            return self._keys
        async with self._fetching:
            if not self._is_fresh():
                if self._may_ask():
                    await self._fetch()
                else:
                    self._raise_failure()
            return self._keys

    async def _newer(self, tried: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """The keys after those that were `tried`; the same when they came a moment ago."""
        async with self._fetching:
            if self._keys is tried:
                if self._may_ask():
                    await self._fetch()
                else:
                    self._raise_failure()
            return self._keys

    def _raise_failure(self) -> None:
        if self._failure is not None:
            # One object, raised many times: its traceback must not grow, nor keep what was in those frames.
            raise self._failure.with_traceback(None)

    def _is_fresh(self) -> bool:
        return self._fetched_at is not None and self._now_s() - self._fetched_at < MAX_KEYS_AGE_S

    def _may_ask(self) -> bool:
        return self._asked_at is None or self._now_s() - self._asked_at >= MIN_FETCH_PAUSE_S

    async def _fetch(self) -> None:
        self._asked_at = self._now_s()
        try:
            self._keys = await self._asked()
        except WireError as error:
            self._failure = error
            raise
        except BaseException:  # cancelled: whoever comes within the pause must not take it for a forgery
            self._failure = TransportError(f"GET {self._url}: was not waited for", sent=True, kind="timeout")
            raise
        self._fetched_at, self._failure = self._now_s(), None

    async def _asked(self) -> tuple[bytes, ...]:
        call = label_of("GET", self._url)
        reply = await self._transport.request(
            "GET", self._url, headers=self._headers, body=None, timeout_s=KEYS_TIMEOUT_S, max_bytes=MAX_KEYS_BYTES
        )
        if not 200 <= reply.status < 300:
            raise parse_error(reply.status, reply.headers, reply.body, call=call, redact=str)
        try:
            return parse_keys(reply.body)
        except ValueError:
            raise ReplyError(f"{call}: the reply holds no key that verifies webhooks") from None


_NOT_SIGNED: Final = "the signature is not fal's"


def _checked(headers: Mapping[str, str], now_unix: float) -> bytes:
    """The signature, after all that can be seen without a key. Raises WebhookRefused."""
    if not all(headers.get(name) for name in SIGNATURE_HEADERS):
        raise WebhookRefused("a header of the signature is missing")
    *ids, timestamp, signature = (headers[name] for name in SIGNATURE_HEADERS)
    if any("\n" in value for value in ids):
        # Between two of them stands one in what is signed: a message must not be readable in two ways.
        raise WebhookRefused("a header of the signature has a line end in it")
    if not _DECIMAL.fullmatch(timestamp):
        raise WebhookRefused("the timestamp is no number of seconds")
    if abs(now_unix - int(timestamp)) > WINDOW_S:
        raise WebhookRefused(f"the timestamp is more than {WINDOW_S} s from this machine's clock")
    if not _HEX_64_BYTES.fullmatch(signature):
        raise WebhookRefused("the signature is not 64 bytes in hex")
    return bytes.fromhex(signature)


def _message(headers: Mapping[str, str], body_hash: str) -> bytes:
    """What is signed (§4.4)."""
    signed = [headers[name] for name in SIGNATURE_HEADERS[:3]]
    return "\n".join([*signed, body_hash]).encode("utf-8", "surrogateescape")


def _is_signed(message: bytes, signature: bytes, keys: Sequence[bytes]) -> bool:
    from cryptography.exceptions import InvalidSignature

    ed25519 = _ed25519()
    for key in keys:
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        except (InvalidSignature, ValueError):
            continue
        return True
    return False


def _ed25519() -> ModuleType:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise UsageError(
            "verifying fal's webhooks needs the package cryptography, which is not installed",
            advice="pip install 'falbatch[webhooks]'",
        ) from error
    return ed25519


def _key(entry: Any) -> bytes | None:
    """The 32 bytes of one entry; None when it is of another kind."""
    if not isinstance(entry, dict) or entry.get("kty", "OKP") != "OKP" or entry.get("crv", "Ed25519") != "Ed25519":
        return None
    x = entry.get("x")
    if not isinstance(x, str):
        return None
    try:
        key = base64.b64decode(x.rstrip("=") + "=" * (-len(x.rstrip("=")) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == 32 else None


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


async def _aside(function: Callable[[bytes], _T], body: bytes) -> _T:
    """`function(body)`, in a thread when that would keep the loop from others."""
    if len(body) <= BIG_BYTES:
        return function(body)
    return await anyio.to_thread.run_sync(function, body)


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""
