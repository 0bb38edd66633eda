"""What a call that went wrong means for its job: the tables of fal-protocol §8 and §13.1, and nothing else.

An error comes in, a verdict goes out; the engine obeys. Matching is by status, marks and type word, never by
message (fal-protocol §8.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from falbatch.errors import HttpError, ReplyError, TransportError, WireError

ACCOUNT_STATUSES: Final = frozenset({401, 402, 403})
"""Bad key, exhausted balance, locked account, missing permission: no call will do better (§8.4)."""

REDIRECT_STATUSES: Final = frozenset({301, 302, 307, 308})
"""Answers that say "not here": nothing was done. 303 is none of them: it is what a server says that has done what it
was asked (RFC 9110 §15.4.4)."""

TIMEOUT_TYPE_OURS: Final = "user"
"""X-Fal-Request-Timeout-Type of a start deadline that we set ourselves (§3.1)."""

WORTH_ANOTHER_ATTEMPT: Final = frozenset(
    {
        "request_timeout",
        "startup_timeout",
        "runner_scheduling_failure",
        "runner_connection_timeout",
        "runner_disconnected",
        "runner_connection_refused",
        "runner_connection_error",
        "runner_incomplete_response",
        "runner_server_error",
        "internal_error",
        "internal_server_error",
        "generation_timeout",
        "downstream_service_error",
        "downstream_service_unavailable",
    }
)
"""Error types for which a new request may succeed (§8.2, §8.3), unless fal's own retry header says no."""

CANCELLED_TYPES: Final = frozenset({"client_cancelled", "client_disconnected"})


class SubmitVerdict(Enum):
    """What an unsuccessful submit means."""

    UNREACHED = auto()
    """Nothing was sent: the network or fal's door is at fault, the job is as before."""
    REFUSED = auto()
    """fal said "not now" (429): the job is as before, everybody slows down."""
    REJECTED = auto()
    """fal will never take this job as it is."""
    ACCOUNT = auto()
    """fal takes nothing from this account: the job is as before, submitting stops."""
    UNKNOWN = auto()
    """It may have been accepted: never repeated by itself."""


class DirectVerdict(Enum):
    """What an unsuccessful direct call (run, stream, realtime) means."""

    UNREACHED = auto()
    """Nothing was sent: the job is as before."""
    REFUSED = auto()
    """fal said "not now" (429): the job is as before, everybody slows down."""
    ACCOUNT = auto()
    """fal takes nothing from this account: the job is as before, submitting stops."""
    REJECTED = auto()
    """fal will never take this job as it is, and did not run it."""
    WORTH_ANOTHER = auto()
    """It ran, and failed in a way that fal itself calls worth another attempt."""
    FAILED = auto()
    """It ran, and failed for good."""
    CANCELLED = auto()
    """Somebody cancelled it at fal."""
    UNKNOWN = auto()
    """It may have run and been charged: never repeated by itself."""


class ResultVerdict(Enum):
    """What an unsuccessful read of a COMPLETED request's result means."""

    ASK_AGAIN = auto()
    """The network or a gateway is at fault: the answer is still there."""
    NOT_YET = auto()
    """fal says that the request still runs."""
    WORTH_ANOTHER = auto()
    """The request failed in a way that a new one may not."""
    FAILED = auto()
    """The request failed for good."""
    CANCELLED = auto()
    GONE = auto()
    """fal no longer has the result."""
    ACCOUNT = auto()
    """The key is refused: the request is as it was."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job did not give its result, as stored and reported."""

    error_type: str
    """fal's type word, or ours where fal gave none (`http_500`, `result_gone`, `file_gone`)."""
    message: str
    http_status: int | None = None


def submit_verdict(error: WireError) -> SubmitVerdict:
    """The meaning of a failed submit, by fal-protocol §13.1 "submit POST"."""
    match error:
        case TransportError(sent=False):
            return SubmitVerdict.UNREACHED
        case HttpError(status=429):
            return SubmitVerdict.REFUSED
        case HttpError() if error.status in ACCOUNT_STATUSES:
            return SubmitVerdict.ACCOUNT
        case HttpError() if error.status in {408, 499} or error.status >= 500:
            # 408, 499 and every 5xx may follow an accepted request, with or without fal's own marks.
            return SubmitVerdict.UNKNOWN
        case HttpError() if error.status >= 400 or error.status in REDIRECT_STATUSES:
            return SubmitVerdict.REJECTED
        case _:
            return SubmitVerdict.UNKNOWN


def direct_verdict(error: WireError) -> DirectVerdict:
    """The meaning of a failed direct call, by fal-protocol §13.1 "direct run POST".

    The answer comes on the call's own connection, so what a gateway says in fal's place tells nothing of the job; with
    the request's id it is the job's own outcome.
    """
    match error:
        case TransportError(sent=False):
            return DirectVerdict.UNREACHED
        case HttpError(status=429) if error.billable_units:
            # The app's own word, after work that was billed: one more call is one more attempt.
            return DirectVerdict.WORTH_ANOTHER if error.retryable else DirectVerdict.FAILED
        case HttpError(status=429):
            return DirectVerdict.REFUSED
        case HttpError() if error.status in ACCOUNT_STATUSES and not (error.error_type or error.request_id):
            return DirectVerdict.ACCOUNT
        case HttpError() if error.from_fal and error.error_type in CANCELLED_TYPES:
            return DirectVerdict.CANCELLED
        case HttpError() if error.status in {408, 499}:
            return DirectVerdict.UNKNOWN
        case HttpError() if error.status >= 500:
            return _direct_trouble(error)
        case HttpError() if error.status >= 400 and (error.request_id or (error.from_fal and error.status == 422)):
            return DirectVerdict.FAILED  # it reached the app: a 422 may be billed (§9.3)
        case HttpError() if error.status >= 400 or error.status in REDIRECT_STATUSES:
            return DirectVerdict.REJECTED
        case _:
            return DirectVerdict.UNKNOWN


def _direct_trouble(error: HttpError) -> DirectVerdict:
    """A 5xx: the job's own only with its request's id or fal's type word (§8.1), and repeated only where fal's header
    says so."""
    if not (error.request_id or (error.from_fal and error.error_type)):
        return DirectVerdict.UNKNOWN
    is_ours = error.status == 504 and error.timeout_type == TIMEOUT_TYPE_OURS
    return DirectVerdict.WORTH_ANOTHER if error.retryable and not is_ours else DirectVerdict.FAILED


def result_verdict(error: WireError) -> ResultVerdict:
    """The meaning of a failed result read, once status said COMPLETED (§3.4, §8.4)."""
    if not isinstance(error, HttpError):
        return ResultVerdict.ASK_AGAIN
    if error.error_type in CANCELLED_TYPES or error.status == 499:
        return ResultVerdict.CANCELLED
    if 300 <= error.status < 400:
        return ResultVerdict.ASK_AGAIN  # a redirect to where the key may not go: somebody's mistake, no outcome
    if not error.from_fal and (error.status in {404, 408, 409, 429} or error.status >= 500):
        # A gateway's page is nobody's outcome; a bare 404 is read as "gone" below only with fal's marks.
        return ResultVerdict.GONE if error.status == 404 else ResultVerdict.ASK_AGAIN
    if error.status == 400 and not error.error_type and error.retryable is None:
        return ResultVerdict.NOT_YET
    return _outcome_of(error)


def _outcome_of(error: HttpError) -> ResultVerdict:
    """The verdict on a reply that fal itself gave."""
    if error.status in ACCOUNT_STATUSES and not error.error_type and not error.request_id:
        # With the request's own id it is what the app answered; without, somebody in front of it refuses us.
        return ResultVerdict.ACCOUNT
    if error.status in {408, 409} or (error.status == 429 and not error.error_type and error.retryable is None):
        return ResultVerdict.ASK_AGAIN
    if error.status == 404 and not error.error_type and error.retryable is None:
        return ResultVerdict.GONE
    return ResultVerdict.WORTH_ANOTHER if is_worth_another(error) else ResultVerdict.FAILED


def is_worth_another(error: HttpError) -> bool:
    """May a new request succeed where this one failed? fal's own header decides before the type does (§8.3)."""
    if error.status == 504 and error.timeout_type == TIMEOUT_TYPE_OURS:
        return False
    if error.retryable is not None:
        return error.retryable
    # A type that is new to us is judged by its status; every type that is known to be final comes with a 4xx.
    return error.error_type in WORTH_ANOTHER_ATTEMPT or error.status == 429 or error.status >= 500


def is_worth_reading_again(error: WireError) -> bool:
    """May a read (status, result) or a cancel be repeated? By §13.1: all but a plain refusal."""
    match error:
        case HttpError():
            return error.status in {408, 409, 429} or error.status >= 500
        case TransportError() | ReplyError():
            return True
        case _:
            return False


def is_account_trouble(error: WireError) -> bool:
    """True when fal takes nothing from this key: the batch stops submitting, nothing is marked failed."""
    return isinstance(error, HttpError) and error.status in ACCOUNT_STATUSES


def failure_of(error: WireError) -> Failure:
    """`error` as it is stored with the job."""
    if isinstance(error, HttpError):
        return Failure(error.error_type or f"http_{error.status}", str(error), error.status)
    if isinstance(error, TransportError):
        return Failure(f"transport_{error.kind}", str(error))
    return Failure("bad_reply", str(error))


class DownloadVerdict(Enum):
    """What an unsuccessful download means."""

    AGAIN = auto()
    """The network, the server, or a body that was cut or garbled: try again, now or in the next run."""
    GONE = auto()
    """The link is dead: only running the job again brings the file back."""
    REFUSED = auto()
    """We do not fetch that: a scheme, an address or a size that no download may have."""


DEAD_LINK_STATUSES: Final = frozenset({401, 403, 404, 410})
"""Answers of a file server that do not get better (§13.1 "download GET", trap 5)."""

REFUSED_KINDS: Final = frozenset({"refused_address", "refused_url", "refused_size", "refused_content"})
"""Kinds of `TransportError` that are our own refusal."""


def download_verdict(error: WireError) -> DownloadVerdict:
    """The meaning of a failed download."""
    if isinstance(error, TransportError) and error.kind in REFUSED_KINDS:
        return DownloadVerdict.REFUSED
    if isinstance(error, HttpError):
        if error.status in DEAD_LINK_STATUSES:
            return DownloadVerdict.GONE
        if error.status < 500 and error.status not in {408, 409, 416, 429}:
            return DownloadVerdict.REFUSED
    return DownloadVerdict.AGAIN
