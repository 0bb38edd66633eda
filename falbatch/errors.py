"""Every exception of falbatch, with its exit code and its advice. Knows nobody; everybody may import it.

FalbatchError              1  our bug, unless a branch below says otherwise
├─ UsageError              2  a flag, a path or a setting is wrong
│  ├─ ManifestError        2  the manifest (or a row, or a name) is wrong: carries every Problem found
│  └─ OutputError          2  the output folder cannot be written
├─ CredentialsError        4  no key, a refused key, a locked account: nothing is marked failed
├─ FalUnreachable          5  fal does not answer, or refuses every submit for a long time
├─ StateError              6  the state file is in use, damaged, newer, or of another batch
├─ LimitReached            7  a budget or failure limit of the user's was reached
└─ DiskFull                8  the disk with the output folder is full

WireError                     one call to fal, or one download, that did not give what was asked for.
├─ TransportError             no usable HTTP reply
├─ HttpError                  a reply with a status that is not a success
└─ ReplyError                 a success whose body makes no sense
Wire errors are values for the engine's decisions; they become a job's outcome and never end the program.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What `falbatch` answers to the shell (design: "Exit codes")."""

    OK = 0
    BUG = 1
    USAGE = 2
    INCOMPLETE = 3
    CREDENTIALS = 4
    UNREACHABLE = 5
    STATE = 6
    LIMIT = 7
    DISK_FULL = 8
    STOPPED = 130


class FalbatchError(Exception):
    """Root of everything the command line turns into one message and one exit code.

    `str(error)` says what is wrong and where; `advice` says what to do next, in one sentence, or is empty.
    Neither may hold a secret.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.BUG

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice


class UsageError(FalbatchError):
    """Raised when a flag, a path or a setting cannot be used as given."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a manifest or its data, placed so that an editor can jump to it."""

    file: str
    """Path as the user gave it."""
    line: int
    """1-based; 0 where a line means nothing (a missing or binary file)."""
    column: int
    """1-based; 0 where unknown."""
    what: str
    """What is wrong, without the place."""
    hint: str = ""
    """What to do: the nearest right word, the expected form. May be empty."""

    def __str__(self) -> str:
        place = self.file
        if self.line:
            place += f":{self.line}"
            if self.column:
                place += f":{self.column}"
        return f"{place}: {self.what}" + (f" ({self.hint})" if self.hint else "")


class ManifestError(UsageError):
    """Raised with every problem found in a manifest, its rows, or the names it makes."""

    def __init__(
        self,
        problems: list[Problem] | tuple[Problem, ...],
        *,
        advice: str = "",
        warnings: tuple[Problem, ...] = (),
    ) -> None:
        self.problems = tuple(problems)
        self.warnings = warnings
        """What is worth knowing beside them: a field that nobody knows may be the one that is missing."""
        super().__init__("\n".join(str(problem) for problem in self.problems), advice=advice)


class OutputError(UsageError):
    """Raised when the output folder, or a file in it, cannot be written for a reason other than space."""


class CredentialsError(FalbatchError):
    """Raised when there is no key, fal refuses it, or the account is locked. Nothing is marked failed."""

    exit_code = ExitCode.CREDENTIALS


class FalUnreachable(FalbatchError):
    """Raised when fal cannot be reached, or refuses every submit, for longer than a run waits."""

    exit_code = ExitCode.UNREACHABLE


class StateError(FalbatchError):
    """Raised when a state file is in use, damaged, of a newer version, or belongs to another batch."""

    exit_code = ExitCode.STATE


class LimitReached(FalbatchError):
    """Raised when a limit that the user set (failures, money) stops the run."""

    exit_code = ExitCode.LIMIT


class DiskFull(FalbatchError):
    """Raised when the disk with the output folder is full. State and request ids are kept."""

    exit_code = ExitCode.DISK_FULL


class WireError(Exception):
    """One call that did not give what was asked for. The message names the call, never a secret."""


class TransportError(WireError):
    """Raised when no usable HTTP reply came.

    `sent` is False only when provably nothing of the request reached the server (DNS, connect, TLS, waiting
    for a pooled connection): only then may a billable call be repeated (fal-protocol §13.1).
    `kind` is one of: dns, connect, tls, pool, timeout, reset, protocol; or, where we refused to fetch:
    refused_address, refused_url, refused_size, refused_content; or no_platform: no platform API is known for this fal.
    """

    def __init__(self, message: str, *, sent: bool, kind: str) -> None:
        super().__init__(message)
        self.sent = sent
        self.kind = kind


class HttpError(WireError):
    """Raised for a reply whose status is not a success.

    `error_type` is fal's type word (body first, then the X-Fal-Error-Type header), or "" when there is none.
    `from_fal` is True when the reply carries fal's own marks (x-fal-request-id, X-Fal-Error-Type or a JSON
    body with `detail`), False for a gateway's page. `retryable` is what X-Fal-Retryable / X-Fal-Needs-Retry
    said, None when neither was there. `retry_after_s` is from Retry-After or the body, None without.
    `timeout_type` is X-Fal-Request-Timeout-Type ("user" for our own start deadline), or "".
    `request_id` is from the x-fal-request-id header, or "". `billable_units` is None when not said.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        error_type: str = "",
        from_fal: bool = False,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
        timeout_type: str = "",
        request_id: str = "",
        billable_units: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.from_fal = from_fal
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.timeout_type = timeout_type
        self.request_id = request_id
        self.billable_units = billable_units


class ReplyError(WireError):
    """Raised when a success carries a body that makes no sense (truncated, not JSON, ids missing).

    `request_id` is from the x-fal-request-id header when the reply had one, else "".
    """

    def __init__(self, message: str, *, request_id: str = "") -> None:
        super().__init__(message)
        self.request_id = request_id
