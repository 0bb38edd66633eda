"""What the client raises, in fal_client's names, and how a wire error becomes one of them.

FalbatchError
├─ FalClientError                 everything below
│  ├─ FalClientHTTPError          fal answered, with a status that is no success
│  ├─ FalClientTimeoutError       the caller's own time was over (a TimeoutError too)
│  ├─ FalClientConnectionError    no usable answer came (a ConnectionError too)
│  │  └─ FalClientLostRequestError    and what was asked for costs: it may be under way
│  └─ RealtimeError               a realtime app said that something is wrong (a RuntimeError too)
└─ CredentialsError
   └─ MissingCredentialsError     no key, or one that cannot be one (a FalClientError too)

`str(error)` says what, where, and what to do; never a secret. The wire error is the cause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from falbatch.client.response import Response
from falbatch.errors import CredentialsError, ExitCode, FalbatchError, HttpError, TransportError, WireError
from falbatch.exactjson import parse_json
from falbatch.fal.realtime import RealtimeError as RealtimeTrouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from falbatch.fal.exchange import Reply

LOST_SUBMIT: Final = (
    "The request may exist and be billed: before you submit it again, look for it in fal's dashboard "
    "(https://fal.ai/dashboard/requests) or, once it is over, in the platform API's list of requests."
)
CANCELLED: Final = "fal was asked to cancel it; what ran already may finish, and be billed."
NOT_SENT: Final = "Nothing was sent. Check the network and the FAL_* and FALBATCH_* variables."
LOST_RUN: Final = (
    "It may have run, or still run, and be billed; its answer is lost. Before you call again, look at fal's dashboard "
    "(https://fal.ai/dashboard/requests); what must not be lost goes through submit() or subscribe()."
)


class FalClientError(FalbatchError):
    """Raised when a call to fal did not give what was asked for."""

    exit_code = ExitCode.INCOMPLETE

    def __init__(self, message: str, *, request_id: str | None = None, advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.request_id = request_id
        """The request that it is about, when one is known: status, result and cancel can be asked for by it."""

    def __str__(self) -> str:
        words = super().__str__()
        if not self.advice:
            return words
        return f"{words}{'' if words.endswith(('.', '!', '?')) else '.'} {self.advice}"


class FalClientHTTPError(FalClientError):
    """Raised for a reply whose status is no success; also when a request failed: its result has that status."""

    def __init__(
        self,
        message: Any,
        status_code: int,
        response_headers: dict[str, str],
        response: Response,
        error_type: str | None = None,
        *,
        words: str = "",
        request_id: str | None = None,
        advice: str = "",
    ) -> None:
        super().__init__(words or str(message), request_id=request_id, advice=advice)
        self.message = message
        """The body's `detail` (text, or fal's list of what is wrong), else its text."""
        self.status_code = status_code
        self.response_headers = response_headers
        """Names in lower case."""
        self.response = response
        self.error_type = error_type
        """fal's type word (fal-protocol §8.2); None when there is none."""


class FalClientTimeoutError(FalClientError, TimeoutError):
    """Raised when the caller's own time was over. The request, if it was known in time, has been cancelled."""

    def __init__(self, timeout: float, request_id: str | None = None, *, advice: str = "") -> None:
        what = f"Request {request_id}" if request_id else "Request"
        super().__init__(f"{what} timed out after {timeout:g} seconds", request_id=request_id, advice=advice)
        self.timeout = timeout
        """Seconds that were given."""


class FalClientConnectionError(FalClientError, ConnectionError):
    """Raised when no usable answer came, after the tries that were allowed."""

    exit_code = ExitCode.UNREACHABLE

    def __init__(self, message: str, *, kind: str, sent: bool, request_id: str | None = None, advice: str = "") -> None:
        super().__init__(message, request_id=request_id, advice=advice)
        self.kind = kind
        """One word of errors.TransportError's."""
        self.sent = sent
        """False when provably nothing reached fal."""


class FalClientLostRequestError(FalClientConnectionError):
    """Raised when a submit, run or stream was sent and got no answer. Never repeated: that could cost twice."""


class MissingCredentialsError(FalClientError, CredentialsError):
    """Raised when there is no key, or what should be one cannot be."""

    exit_code = ExitCode.CREDENTIALS


class RealtimeError(FalClientError, RuntimeError):
    """Raised when a realtime app, or fal for it, answers with an error. The connection stays usable."""

    def __init__(self, error: str, reason: str | None = None, payload: dict[str, Any] | None = None) -> None:
        super().__init__(f"{error}: {reason}" if reason else error)
        self.error = error
        """fal's word for it."""
        self.reason = reason or ""
        self.payload = payload or {}
        """The whole message."""


def client_error(
    error: WireError,
    reply: Reply | None,
    redact: Callable[[str], str],
    *,
    lost: str = "",
    request_id: str | None = None,
) -> FalClientError:
    """`error` in the client's words. `reply` is the last one that came; `lost` the advice for a call that costs."""
    match error:
        case RealtimeTrouble():
            return RealtimeError(redact(error.error), redact(error.reason), dict(error.payload))
        case HttpError():
            ambiguous = error.status in {408, 499} or error.status >= 500
            return _http_error(error, reply, redact, request_id, lost if ambiguous else "")
        case TransportError():
            kind, sent = error.kind, error.sent
            if lost and sent:
                return FalClientLostRequestError(str(error), kind=kind, sent=True, request_id=request_id, advice=lost)
            advice = "" if sent else NOT_SENT
            return FalClientConnectionError(str(error), kind=kind, sent=sent, request_id=request_id, advice=advice)
        case _:
            known = request_id or getattr(error, "request_id", "") or None
            return FalClientError(str(error), request_id=known, advice=lost)


def _http_error(
    error: HttpError, reply: Reply | None, redact: Callable[[str], str], request_id: str | None, advice: str
) -> FalClientHTTPError:
    headers, body = (dict(reply.headers), reply.body) if reply and reply.status == error.status else ({}, b"")
    response = Response(error.status, headers, body)
    return FalClientHTTPError(
        _message(response, redact),
        error.status,
        headers,
        response,
        error.error_type or None,
        words=str(error),
        request_id=error.request_id or request_id,
        advice=advice,
    )


def _message(response: Response, redact: Callable[[str], str]) -> Any:
    try:
        document = parse_json(response.content)
    except ValueError:
        document = None
    detail = document.get("detail") if isinstance(document, dict) else None
    message = response.text if detail is None else detail
    return redact(message) if isinstance(message, str) else message
