"""What the HTTP libraries' exceptions say of a call: was anything of it sent? The one place that decides it.

Library exceptions hold the request with its headers, so ours are raised without them as cause or context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import aiohttp
import httpx

from falbatch.errors import TransportError
from falbatch.fal.addresses import RefusedAddress
from falbatch.fal.exchange import CutReply, words_for

if TYPE_CHECKING:
    from collections.abc import Mapping

LIBRARY_ERRORS: Final = (
    *(aiohttp.ClientError, httpx.HTTPError, httpx.InvalidURL, httpx.StreamError),
    *(OSError, TimeoutError, UnicodeError),
)
"""All that aiohttp and httpx raise for the network's and the server's doings. Other exceptions are bugs."""

_UNSENT: Final[tuple[tuple[str, tuple[type[Exception], ...]], ...]] = (
    ("dns", (aiohttp.ClientConnectorDNSError,)),
    ("tls", (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)),
    ("pool", (httpx.PoolTimeout,)),
    ("connect", (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError)),
    ("connect", (httpx.ConnectTimeout, httpx.ConnectError)),
    ("protocol", (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, httpx.InvalidURL, httpx.UnsupportedProtocol)),
)
"""Raised only before the first byte of a request leaves: read in aiohttp 3.14 (`connector.py`: all
ClientConnectorErrors and the connect timeout come from `connect`), for httpx in its documentation."""

_SENT: Final[tuple[tuple[str, tuple[type[Exception], ...]], ...]] = (
    ("timeout", (httpx.TimeoutException, TimeoutError)),
    ("protocol", (aiohttp.ClientResponseError, httpx.ProtocolError, httpx.DecodingError, UnicodeError)),
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


def failure(
    error: Exception, label: str, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> TransportError:
    """What `error` means for the call `label`; with `status` and `headers` when the reply's head had come."""
    # httpx-aiohttp turns ServerDisconnectedError (after the request was read!) into ConnectTimeout: what
    # aiohttp raised is the truth, what httpx calls it is not.
    if isinstance(error, httpx.HTTPError) and isinstance(error.__cause__, aiohttp.ClientError):
        error = error.__cause__
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if status is None:
        if isinstance(cause, RefusedAddress):
            return TransportError(f"{label}: {cause}", sent=False, kind="refused_address")
        for kind, known in _UNSENT:
            if isinstance(error, known):
                return TransportError(f"{label}: {words_for(kind, cause)}", sent=False, kind=kind)
    kind = next((kind for kind, known in _SENT if isinstance(error, known)), "reset")
    message = f"{label}: {words_for(kind, cause)}"
    if status is None:
        return TransportError(message, sent=True, kind=kind)
    return CutReply(message, kind=kind, status=status, request_id=(headers or {}).get("x-fal-request-id", ""))
