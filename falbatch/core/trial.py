"""What a canary came to: its jobs one by one, and what follows from them for the whole batch. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.money import NANO
from falbatch.core.projection import CostProjection, DurationProjection, Span, Times, project_cost, project_duration
from falbatch.core.report import FailureGroup, FlaggedGroup
from falbatch.core.state import State
from falbatch.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from falbatch.core.projection import Stratum
    from falbatch.core.record import StoredFile
    from falbatch.core.report import Money

ENDED: Final = frozenset({State.DONE, State.FAILED, State.CANCELLED, State.UNKNOWN})
"""States in which a canary's job says what became of it."""

LOST: Final = frozenset({State.FAILED, State.CANCELLED})
"""Of those, the ones that `falbatch retry` does again."""

GOES_ON: Final = frozenset({State.PLANNED, State.SUBMITTED, State.COMPLETED})
"""States in which the same command goes on with a job."""


@dataclass(frozen=True, slots=True)
class TriedJob:
    """One job of a canary, as it stands now."""

    job_id: int
    name: str
    origin: str
    """`people.csv:14, style=oil painting, seed=3`."""
    stratum: Stratum
    state: State
    input_json: bytes
    error_type: str | None
    error: str | None
    cost: int | None
    """Nano-dollars over all its requests, where fal said for each what it will bill, and the price is known."""
    is_billed: bool
    """False while fal said of none of its requests how it ended: there is no cost to be known."""
    units: float | None
    """Billable units that fal named."""
    span: Span | None
    """When its last request was at fal; None where that is not known."""
    run: int
    """The number of the run that submitted it."""
    is_torn: bool
    """True when a run ended while it was at fal: then nobody saw when its request did."""
    files: tuple[StoredFile, ...]
    flags: tuple[str, ...] = ()
    """What was noticed about its result, whatever follows from that."""
    sent_seed: int | None = None
    """What its last request had in place of the input's seed; None where that left as it stands."""
    is_marked: bool = False
    """True when it is done, and told apart for its flags (`output.flagged: mark`)."""


@dataclass(frozen=True, slots=True)
class EndpointCost:
    """What the canary's jobs of one endpoint cost."""

    endpoint: str
    jobs: int
    """Jobs whose cost fal told."""
    unknown: int
    """Ended jobs whose cost is not known."""
    median: int | None
    least: int | None
    most: int | None

    def as_json(self) -> dict[str, Any]:
        """Amounts in US dollars."""
        amounts = {"median": self.median, "min": self.least, "max": self.most}
        told = {name: None if nano is None else nano / NANO for name, nano in amounts.items()}
        return {"endpoint": self.endpoint, "jobs": self.jobs, "unknown": self.unknown, **told}


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """The end of a run with `--canary`."""

    jobs: tuple[TriedJob, ...]
    """In the manifest's order."""
    counts: Mapping[State, int]
    failures: tuple[FailureGroup, ...]
    """What `falbatch retry` does again, by reason."""
    stuck: tuple[FailureGroup, ...]
    """What the same command goes on with, and did not bring to its end, by reason."""
    flagged: tuple[FlaggedGroup, ...]
    """Jobs that are done and marked, by their flags."""
    costs: tuple[EndpointCost, ...]
    """By endpoint, and of all of them together the last one where there are several ("" as its name)."""
    time: Times | None
    """From submit to end at fal."""
    inference: Times | None
    """At work, by fal's word."""
    left: int
    """Jobs of the manifest that are still to be submitted."""
    cost: CostProjection
    duration: DurationProjection
    page: str = ""
    """Where the contact sheet lies; "" where it could not be written."""
    next: str = ""
    """The command that does the rest."""
    limit: int | None = None
    """Nano-dollars that the whole batch may cost by that command; None without a limit."""

    @property
    def ended(self) -> int:
        """Jobs of which it is known what became of them."""
        return sum(count for state, count in self.counts.items() if state in ENDED)

    @property
    def done(self) -> int:
        """Jobs whose files are on disk."""
        return self.counts.get(State.DONE, 0)

    @property
    def exit_code(self) -> ExitCode:
        """0 when all of its jobs are done, whatever is left of the batch."""
        return ExitCode.OK if self.done == len(self.jobs) else ExitCode.INCOMPLETE

    def with_page(self, page: str) -> CanaryReport:
        """The same, with its contact sheet."""
        return replace(self, page=page)

    def with_next(self, command: str, limit: int | None) -> CanaryReport:
        """The same, with the command that does the rest, as far as `limit` allows."""
        return replace(self, next=command, limit=limit)

    def as_json(self) -> dict[str, Any]:
        """One JSON object with stable field names; money in US dollars, times in seconds."""
        return {
            "event": "canary",
            "jobs": len(self.jobs),
            "ended": self.ended,
            "done": self.done,
            "states": {state.value: self.counts.get(state, 0) for state in State},
            "success_rate": self.done / self.ended if self.ended else None,
            "failures": [group.as_json() for group in self.failures],
            "stuck": [asdict(group) for group in self.stuck],
            "flagged": [group.as_json() for group in self.flagged],
            "cost_per_job": self.costs[-1].as_json() if self.costs else None,
            "cost_by_endpoint": [cost.as_json() for cost in self.costs if cost.endpoint],
            "time_per_job": None if self.time is None else asdict(self.time),
            "inference": None if self.inference is None else asdict(self.inference),
            "left": self.left,
            "projected_cost": self.cost.as_json(),
            "projected_duration": asdict(self.duration),
            "page": self.page,
            "next": self.next,
            "limit": None if self.limit is None else self.limit / NANO,
        }


def reckon(jobs: Sequence[TriedJob], left: Mapping[Stratum, int], money: Money) -> CanaryReport:
    """What `jobs`, those of a canary, say of themselves and of the `left` ones of each stratum, which are still to be
    submitted; `money` is what the whole batch has cost."""
    seen = [job for job in jobs if job.state is State.DONE and job.span is not None and not job.is_torn]
    spans = [job.span for job in seen if job.span is not None]
    runs = Counter(job.run for job in seen)
    # Requests of two runs say nothing together of how many fal runs at once.
    run = max(runs, key=lambda one: (runs[one], one), default=0)
    of_run = [(job.stratum, job.span) for job in seen if job.span is not None and job.run == run]
    # A failure that fal did not bill is no example of what a job costs.
    told = [(job, job.cost) for job in jobs if job.is_billed and job.cost is not None]
    costs = [(job.stratum, cost) for job, cost in told if cost or job.state is State.DONE]
    return CanaryReport(
        jobs=tuple(jobs),
        counts=Counter(job.state for job in jobs),
        failures=_blamed([job for job in jobs if job.state in LOST]),
        stuck=_blamed([job for job in jobs if job.state in GOES_ON]),
        flagged=_flagged([job for job in jobs if job.is_marked]),
        costs=tuple(_costs(jobs)),
        time=Times.of([span.seconds for span in spans]),
        inference=Times.of([span.work_s for span in spans if span.work_s is not None]),
        left=sum(left.values()),
        cost=project_cost(costs, left, spent=money.spent, reserved=money.reserved),
        duration=project_duration(of_run, left),
    )


def _blamed(jobs: Sequence[TriedJob]) -> tuple[FailureGroup, ...]:
    """Those that something is said against, by reason; of equal numbers those first that came first."""
    blamed = [job for job in jobs if job.error_type]
    first = {job.error_type: job for job in reversed(blamed)}
    counts = Counter(job.error_type for job in blamed)
    return tuple(
        FailureGroup(word or "", count, first[word].error or "", first[word].name)
        for word, count in counts.most_common()
    )


def _flagged(jobs: Sequence[TriedJob]) -> tuple[FlaggedGroup, ...]:
    names = {flags: tuple(job.name for job in jobs if job.flags == flags) for flags in {job.flags for job in jobs}}
    return tuple(FlaggedGroup(flags, len(names[flags]), names[flags]) for flags in sorted(names))


def _costs(jobs: Sequence[TriedJob]) -> list[EndpointCost]:
    billed = [job for job in jobs if job.is_billed]
    endpoints = sorted({job.stratum.endpoint for job in billed})
    found = [_cost(one, [job for job in billed if job.stratum.endpoint == one]) for one in endpoints]
    return found if len(found) == 1 else [*found, _cost("", billed)]


def _cost(endpoint: str, jobs: Sequence[TriedJob]) -> EndpointCost:
    told = sorted(job.cost for job in jobs if job.cost is not None)
    if not told:
        return EndpointCost(endpoint, 0, len(jobs), None, None, None)
    return EndpointCost(endpoint, len(told), len(jobs) - len(told), told[(len(told) - 1) // 2], told[0], told[-1])
