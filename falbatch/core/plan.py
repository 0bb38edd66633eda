"""What a run will do about each job, and why: one action and one reason per job. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.identity import input_of
from falbatch.core.money import NANO
from falbatch.core.state import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falbatch.core.model import JobKey
    from falbatch.core.pricing import Cost, Part
    from falbatch.errors import Problem


class Action(StrEnum):
    """What this run will do about a job."""

    SUBMIT = "submit"
    WAIT = "wait"
    DOWNLOAD = "download"
    SKIP = "skip"


class Change(StrEnum):
    """How a job of the manifest stands to what the state file knew before."""

    ADDED = "added"
    CHANGED = "changed"
    """A new job under a name that an old job had."""
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Record:
    """What the state file says of one job, as far as the decision needs it."""

    state: State
    request_id: str | None = None
    error_type: str | None = None
    orphaned: bool = False
    """True when the manifest no longer makes this job."""
    done_again: bool = False
    """True when the user asked for it to be submitted again."""
    files_again: bool = False
    """True when the user asked for its files to be fetched again."""


@dataclass(frozen=True, slots=True)
class Again:
    """What the user asked to be done again, by row numbers of the state file."""

    submit: frozenset[int] = frozenset()
    files: frozenset[int] = frozenset()
    aside: frozenset[int] = frozenset()
    """Those of `files` of which an earlier result is taken, that was set aside for another attempt."""
    unknown: int = 0
    """How many of `submit` have no answer yet: each may run, and be charged, a second time."""
    has_rerolls: bool = False
    """True where flagged jobs of `submit` go on with their next seed; False: with the input as the manifest has it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One action and its reason, in words for the user."""

    action: Action
    reason: str


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """One job of the plan, with what will be done about it and why."""

    seq: int
    key: JobKey
    name: str
    endpoint: str
    input_json: bytes
    replica: int
    origin: str
    decision: Decision
    change: Change

    def as_json(self) -> dict[str, Any]:
        """The job as one JSON object with stable field names."""
        return {
            "event": "job",
            "seq": self.seq,
            "key": self.key.hex(),
            "name": self.name,
            "endpoint": self.endpoint,
            "input": input_of(self.input_json),
            "replica": self.replica,
            "origin": self.origin,
            "action": self.decision.action.value,
            "reason": self.decision.reason,
            "change": self.change.value,
        }


@dataclass(frozen=True, slots=True)
class ToSubmit:
    """A job that a run would submit."""

    seq: int
    endpoint: str
    input_json: bytes
    origin: str
    replica: int
    """0 for the first of those that are alike."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A job on record that the manifest no longer makes."""

    name: str
    state: State
    decision: Decision


@dataclass(frozen=True, slots=True)
class PlannedFiles:
    """The files that a plan's submits need, each content once."""

    upload: int
    upload_bytes: int
    there: int
    """Files that are at fal already."""


@dataclass(frozen=True, slots=True)
class CanaryPlan:
    """What a run with --canary is about, of all that its plan counts."""

    jobs: int
    """Jobs that the canary tries, those that it has tried already included."""
    done: int
    """Those that are done."""
    begun: int
    """Those that were submitted, whatever became of them."""
    later: int
    """Jobs that are left for a run without --canary."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do, before anything is submitted."""

    name: str
    total: int
    output_dir: str
    actions: Mapping[Action, int]
    """Jobs of the manifest by action; every action is there."""
    changes: Mapping[Change, int]
    """Jobs of the manifest against the state; every kind is there."""
    reasons: Mapping[str, int]
    """Jobs of the manifest by reason, the request ids left out."""
    orphans: int
    first: tuple[PlannedJob, ...]
    """The first jobs, in the manifest's order."""
    changed: tuple[PlannedJob, ...]
    """The first of the changed jobs."""
    orphaned: tuple[Orphan, ...]
    """The first of the orphans."""
    resubmitted: int = 0
    """Jobs that are submitted again although they may have run: each may be charged a second time."""
    at_risk: int = 0
    """What those second charges may come to, in nano-dollars; 0 where no price is known."""
    rerolls: int = 0
    """Jobs that come home, and are run again at their price should their results be flagged."""
    files: PlannedFiles | None = None
    """None when the submits need none, and in a canary, whose jobs are chosen when it begins."""
    cost: Cost | None = None
    """What the jobs to be submitted will cost, in a canary all that are left; None where nobody was to find out."""
    max_cost: int | None = None
    """The limit on what the batch may cost over all its runs, in nano-dollars; None without one."""
    warnings: tuple[Problem, ...] = ()
    """What is worth knowing about the jobs that would be submitted, and stops nothing."""
    canary: CanaryPlan | None = None
    """None in a run over all that is left."""

    @property
    def canary_cost(self) -> Part | None:
        """What a canary will cost, of all that `cost` counts; None in other runs, and where nobody was to find out."""
        if self.canary is None or self.cost is None:
            return None
        return self.cost.part(self.actions[Action.SUBMIT])

    def without_submits(self) -> Plan:
        """The plan of a run that submits nothing: what would be submitted stays as it is."""
        submits = self.actions[Action.SUBMIT]
        actions = {**self.actions, Action.SUBMIT: 0, Action.SKIP: self.actions[Action.SKIP] + submits}
        return replace(self, actions=actions, resubmitted=0, files=None, cost=None)

    def costs_at_most(self, amount: int, *, times: int = 1) -> bool:
        """Is it known to cost no more than `amount` nano-dollars, as far as can be said? `times`: how often each job
        may be run. What re-rolls of jobs that come home cost is in no estimate."""
        if self.cost is None or self.rerolls:
            return False
        part = self.canary_cost
        most = self.cost.most if part is None else part.most
        return most is not None and most * times <= amount

    @property
    def affords(self) -> int | None:
        """After about how many submits `max_cost` will stop it; None where it is enough, or nobody can tell."""
        if self.max_cost is None or self.cost is None:
            return None
        return self.cost.affords(self.max_cost, self.actions[Action.SUBMIT])

    @property
    def price(self) -> str:
        """What is submitted now will cost, in words: `about $12.30`; "" where nobody was to find out."""
        if self.cost is None:
            return ""
        part = self.canary_cost
        return self.cost.words if part is None else part.words

    def as_json(self) -> dict[str, Any]:
        """The plan's summary as one JSON object with stable field names."""
        return {
            "event": "plan",
            "name": self.name,
            "total": self.total,
            "output_dir": self.output_dir,
            "actions": {action.value: count for action, count in self.actions.items()},
            "changes": {change.value: count for change, count in self.changes.items()},
            "orphaned": self.orphans,
            "resubmitted_unknown": self.resubmitted,
            "rerolls_at_most": self.rerolls,
            "files": None if self.files is None else asdict(self.files),
            "cost": None if self.cost is None else self.cost.as_json(),
            "limit": None if self.max_cost is None else {"max_cost": self.max_cost / NANO, "jobs": self.affords},
            "warnings": [asdict(warning) for warning in self.warnings],
            "canary": None if self.canary is None else {**asdict(self.canary), "cost": self._canary_dollars},
        }

    @property
    def _canary_dollars(self) -> float | None:
        part = self.canary_cost
        return None if part is None or part.most is None else part.most / NANO


_UNKNOWN: Final = (Action.SKIP, "unknown: its submit got no answer, so it may have run and been charged")

_BY_STATE: Final[Mapping[State, tuple[Action, str]]] = {
    State.PLANNED: (Action.SUBMIT, "not submitted yet"),
    State.SUBMITTING: _UNKNOWN,
    State.UNKNOWN: _UNKNOWN,
    State.SUBMITTED: (Action.WAIT, "at fal: request {request_id}"),
    State.COMPLETED: (Action.DOWNLOAD, "its result is stored, files are missing"),
    State.DONE: (Action.SKIP, "done"),
    State.FAILED: (Action.SKIP, "failed: {error_type}"),
    State.CANCELLED: (Action.SKIP, "cancelled"),
}


def decide(record: Record | None) -> Decision:
    """The action for one job, from what is on record about it (None: nothing)."""
    if record is None:
        return Decision(Action.SUBMIT, "new")
    if record.orphaned:
        return _decide_orphan(record)
    if record.done_again:
        return Decision(Action.SUBMIT, f"to be done again, was {record.state}")
    if record.files_again:
        return Decision(Action.DOWNLOAD, f"its files are to be fetched again, was {record.state}")
    action, reason = _BY_STATE[record.state]
    return Decision(action, reason.format(request_id=record.request_id, error_type=record.error_type or "error"))


def _decide_orphan(record: Record) -> Decision:
    """A job that left the manifest: what is paid is still brought home, nothing new is submitted."""
    if record.state is State.SUBMITTED:
        return Decision(Action.WAIT, f"no longer in the manifest, but at fal: request {record.request_id}")
    if record.state is State.COMPLETED:
        return Decision(Action.DOWNLOAD, "no longer in the manifest, but its result is stored")
    return Decision(Action.SKIP, "no longer in the manifest")
