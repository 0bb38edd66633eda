"""What a run, or a whole batch, came to: counts, failures grouped by reason, and the exit code that follows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.model import Mode
from falbatch.core.money import NANO
from falbatch.core.state import State
from falbatch.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falbatch.core.stages import StageTable
    from falbatch.core.trial import CanaryReport

_TAKEN_OR_AGAIN: Final = (
    "With `output.lacking: keep`, `falbatch retry --missing-files` takes it as it is, at no charge; `falbatch retry`"
    " runs the job again, at its price"
)

ADVICE: Final[Mapping[str, str]] = {
    "content_policy_violation": "the prompt or an input was refused by the model's policy; change it",
    "missing": "a required field is missing from `input`",
    "file_gone": "`falbatch retry --missing-files` asks for the link again at no charge; `falbatch retry` runs the job"
    " again, at its price",
    "file_refused": "`falbatch retry --missing-files` asks for the file again at no charge, once the cause is gone",
    "result_gone": "fal no longer keeps the result; `falbatch retry` runs the job again, at its price",
    "request_timeout": "no runner started in time; raise `request.start_timeout_s` or run again later",
    "file_changed": "run again: the plan takes the file as it is now, and the old job is dropped",
    "file_missing": "put the file back, then `falbatch retry`; or take it out of the manifest",
    "file_too_large": "leave `as: data` out, so that the file is uploaded",
    "upload_failed": "look at the file; then `falbatch retry`",
    "bad_input": "the input cannot be sent in this mode; change it, or use `mode: queue`",
    "flagged": "it is paid for, its files are on disk. With `output.flagged: mark`, `falbatch retry --missing-files`"
    " takes it as it is, at no charge; `falbatch retry` runs it again at its price, with another seed where"
    " `output.flagged` is `reroll`; or change the prompt",
    "too_few_files": f"what came is on disk. {_TAKEN_OR_AGAIN}",
    "error_in_result": f"fal billed it all the same. Look at the message. {_TAKEN_OR_AGAIN}",
    "empty_result": f"fal billed it all the same. {_TAKEN_OR_AGAIN}",
    "http_404": "fal does not know this endpoint; check its spelling",
}
"""What to do about a failure type, where there is more to say than "look at the message"."""

ADVICE_DEFAULT: Final = "fix the cause, then `falbatch retry`"


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failed jobs that share a reason."""

    error_type: str
    count: int
    example: str
    """The message of one of them."""
    job: str
    """The name of that one."""

    @property
    def advice(self) -> str:
        """What to do about it, in one line."""
        return ADVICE.get(self.error_type, ADVICE_DEFAULT)

    def as_json(self) -> dict[str, Any]:
        """With stable field names, and the advice."""
        return {**asdict(self), "advice": self.advice}


@dataclass(frozen=True, slots=True)
class FlaggedGroup:
    """Jobs that are done, and marked with the same flags."""

    flags: tuple[str, ...]
    count: int
    jobs: tuple[str, ...]
    """The names of the first ones."""

    def as_json(self) -> dict[str, Any]:
        """With stable field names."""
        return {"flags": list(self.flags), "count": self.count, "jobs": list(self.jobs)}


@dataclass(frozen=True, slots=True)
class UnknownJob:
    """A job whose submit got no answer."""

    name: str
    input_json: str
    submitted_at: float
    """Unix seconds at which its submit left."""


@dataclass(frozen=True, slots=True)
class Money:
    """What a batch costs, in nano-dollars, over all its runs."""

    spent: int = 0
    """What ended requests cost, where a price is known."""
    reserved: int = 0
    """For requests at fal, and for submits without an answer."""
    mean: int | None = None
    """Of one finished job; None before one was priced."""
    unpriced: int = 0
    """Requests whose cost is not known, for want of a price."""

    def projected(self, jobs_left: int) -> int | None:
        """What the whole batch will have cost, at the mean so far; None where nothing can be said."""
        if jobs_left and self.mean is None:
            return None
        return self.spent + self.reserved + jobs_left * (self.mean or 0)


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """All that one state file says, at one moment."""

    name: str
    counts: Mapping[State, int]
    """Jobs of the manifest by state; states without a job are left out."""
    orphaned: int
    """Jobs on record that the manifest no longer makes, whatever their state."""
    files: int
    bytes: int
    executions: int
    """Requests that fal accepted, further attempts included."""
    billable_units: float
    """Sum of what fal said it would bill, in the endpoints' own units."""
    failures: tuple[FailureGroup, ...] = ()
    unknown: tuple[UnknownJob, ...] = ()
    stuck: tuple[FailureGroup, ...] = ()
    """Open jobs that an earlier run could not take further, by reason."""
    flagged: tuple[FlaggedGroup, ...] = ()
    """Jobs that are done and marked (`output.flagged: mark`)."""
    money: Money = field(default_factory=Money)
    mode: Mode = Mode.QUEUE
    """How the manifest's jobs are called."""

    @property
    def total(self) -> int:
        """Jobs of the manifest."""
        return sum(self.counts.values())

    def count(self, *states: State) -> int:
        """Jobs in any of `states`."""
        return sum(self.counts.get(state, 0) for state in states)

    @property
    def projected(self) -> int | None:
        """Nano-dollars that the whole batch will have cost; None where nothing can be said."""
        return self.money.projected(self.count(State.PLANNED))


@dataclass(frozen=True, slots=True)
class RunTally:
    """What one run did, apart from what it found done."""

    submitted: int = 0
    finished: int = 0
    failed: int = 0
    further_attempts: int = 0
    rerolls: int = 0
    """Further attempts with another seed, because a result was flagged."""
    refusals: int = 0
    """429 answers to submits."""
    status_calls: int = 0
    found: int = 0
    """Submits without an answer whose requests were found at fal."""
    uploads: int = 0
    """Files of inputs that were uploaded."""
    uploaded_bytes: int = 0
    reconcile_trouble: str = ""
    """Why fal's request list could not be read, "" when it could or nobody had to."""
    found_by_callback: int = 0
    """Submits without an answer whose requests fal's webhooks named."""
    callbacks: int = 0
    """Webhooks that were taken."""
    callbacks_repeated: int = 0
    callbacks_refused: int = 0
    """Calls of the listener that were no webhook of fal's for this batch."""
    seconds: float = 0.0
    stopped_by: str = ""
    """Why the run ended before its work did ("" when it did not): SIGINT, a limit, fal unreachable …"""


@dataclass(frozen=True, slots=True)
class Report:
    """The end of a run: what was done now, and how the batch stands."""

    status: BatchStatus
    tally: RunTally
    output_dir: str
    exit_code: ExitCode
    advice: str = ""
    """What to do about `tally.stopped_by`, when there is something."""
    unchanged: bool = field(default=False)
    """True when there was nothing to do."""
    profile: StageTable | None = None
    """Where the time went; None unless that was asked for."""
    canary: CanaryReport | None = None
    """What a run with `--canary` found; None for others, and where nothing was begun."""

    def as_json(self) -> dict[str, Any]:
        """The report as one JSON object with stable field names."""
        return {
            "event": "report",
            "exit_code": int(self.exit_code),
            "output_dir": self.output_dir,
            "advice": self.advice,
            "run": asdict(self.tally),
            **status_json(self.status),
        }


def status_json(status: BatchStatus) -> dict[str, Any]:
    """A batch's status as one JSON object: every state is there, also with 0."""
    return {
        "name": status.name,
        "mode": status.mode.value,
        "total": status.total,
        "states": {state.value: status.counts.get(state, 0) for state in State},
        "orphaned": status.orphaned,
        "files": status.files,
        "bytes": status.bytes,
        "executions": status.executions,
        "billable_units": status.billable_units,
        "spent": _dollars(status.money.spent),
        "reserved": _dollars(status.money.reserved),
        "projected": _dollars(status.projected),
        "unpriced_requests": status.money.unpriced,
        "failures": [group.as_json() for group in status.failures],
        "stuck": [asdict(group) for group in status.stuck],
        "unknown": [asdict(job) for job in status.unknown],
        "flagged": [group.as_json() for group in status.flagged],
    }


def _dollars(nano: int | None) -> float | None:
    return None if nano is None else nano / NANO


def exit_code_of(status: BatchStatus, *, whole_run: bool = True) -> ExitCode:
    """0 when every job is done; 3 when some failed, are unknown or could not be finished.

    `whole_run=False` is for a part of the manifest: jobs that were not asked for are not missed. Those that could not
    be brought on their way (a file that did not get through) are.
    """
    lacking = status.count(State.FAILED, State.CANCELLED, State.UNKNOWN, State.SUBMITTING)
    lacking += status.count(State.SUBMITTED, State.COMPLETED)
    lacking += status.count(State.PLANNED) if whole_run else sum(group.count for group in status.stuck)
    return ExitCode.INCOMPLETE if lacking else ExitCode.OK
