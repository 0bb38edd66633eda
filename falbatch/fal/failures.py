"""What aiohttp's exceptions say of a call: was anything of it sent? The one place that decides it.

Library exceptions hold the request with its headers, so ours are raised without them as cause or context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import aiohttp

from falbatch.errors import TransportError
from falbatch.fal.addresses import RefusedAddress
from falbatch.fal.carrier import Told
from falbatch.fal.exchange import CutReply, words_for

if TYPE_CHECKING:
    from collections.abc import Mapping

LIBRARY_ERRORS: Final = (aiohttp.ClientError, OSError, TimeoutError, UnicodeError)
"""All that aiohttp raises for the network's and the server's doings. Other exceptions are bugs."""

_UNSENT: Final[tuple[tuple[str, tuple[type[Exception], ...]], ...]] = (
    ("dns", (aiohttp.ClientConnectorDNSError,)),
    ("tls", (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)),
    ("connect", (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError)),
    ("protocol", (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)),
)
"""Raised only before the first byte of a request leaves: read in aiohttp 3.14 (`connector.py`: all
ClientConnectorErrors and the connect timeout come from `connect`)."""

_SENT: Final[tuple[tuple[str, tuple[type[Exception], ...]], ...]] = (
    ("timeout", (TimeoutError,)),
    ("protocol", (aiohttp.ClientResponseError, UnicodeError)),
)
"""The rest may have reached the server: these by name, all others are a `reset`."""


class Once(aiohttp.ClientError):
    """Raised in place of what makes aiohttp send a GET, PUT or DELETE again by itself."""


async def never_again(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """aiohttp middleware for calls that cost: aiohttp repeats "idempotent" methods whose connection broke."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise  # nothing was sent, and aiohttp does not repeat it
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        pass
    raise Once


def told(error: Exception) -> Told:
    """What `error`, one of aiohttp's or the system's, says of a call."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    for kind, known in _UNSENT:
        if isinstance(error, known):
            return Told("refused_address" if isinstance(cause, RefusedAddress) else kind, sent=False, cause=cause)
    return Told(next((kind for kind, known in _SENT if isinstance(error, known)), "reset"), sent=True, cause=cause)


def failure(
    said: Told, label: str, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> TransportError:
    """What a carrier's exception means for the call `label`; `status` and `headers` when the reply's head had come."""
    kind, sent, cause = said
    if status is not None:
        kind = kind if sent else "reset"
        message = f"{label}: {words_for(kind, cause)}"
        return CutReply(message, kind=kind, status=status, request_id=(headers or {}).get("x-fal-request-id", ""))
    if kind == "refused_address":
        return TransportError(f"{label}: {cause}", sent=False, kind=kind)
    return TransportError(f"{label}: {words_for(kind, cause)}", sent=sent, kind=kind)
