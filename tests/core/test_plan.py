"""One action and one reason for each job, whatever is on record about it."""

from __future__ import annotations

import pytest

from falbatch.core.identity import canonical_json, job_key
from falbatch.core.model import Mode
from falbatch.core.plan import Action, Change, Decision, Plan, PlannedJob, Record, decide
from falbatch.core.pricing import Cost
from falbatch.core.state import State
from falbatch.errors import Problem

UNKNOWN = "unknown: its submit got no answer, so it may have run and been charged"

CASES = [
    (State.PLANNED, Action.SUBMIT, "not submitted yet"),
    (State.SUBMITTING, Action.SKIP, UNKNOWN),
    (State.UNKNOWN, Action.SKIP, UNKNOWN),
    (State.SUBMITTED, Action.WAIT, "at fal: request r-1"),
    (State.COMPLETED, Action.DOWNLOAD, "its result is stored, files are missing"),
    (State.DONE, Action.SKIP, "done"),
    (State.FAILED, Action.SKIP, "failed: bad_request"),
    (State.CANCELLED, Action.SKIP, "cancelled"),
]
ORPHANS = {
    State.SUBMITTED: (Action.WAIT, "no longer in the manifest, but at fal: request r-1"),
    State.COMPLETED: (Action.DOWNLOAD, "no longer in the manifest, but its result is stored"),
}


def record(state: State, *, orphaned: bool = False) -> Record:
    return Record(state, request_id="r-1", error_type="bad_request", orphaned=orphaned)


def test_a_job_without_a_record_is_new() -> None:
    assert decide(None) == Decision(Action.SUBMIT, "new")


@pytest.mark.parametrize(("state", "action", "reason"), CASES)
def test_each_state_has_one_action_and_its_reason(state: State, action: Action, reason: str) -> None:
    assert decide(record(state)) == Decision(action, reason)


def test_the_cases_cover_every_state() -> None:
    assert {state for state, _, _ in CASES} == set(State)


@pytest.mark.parametrize("state", list(State))
def test_an_orphan_is_brought_home_if_paid_and_never_submitted(state: State) -> None:
    action, reason = ORPHANS.get(state, (Action.SKIP, "no longer in the manifest"))
    assert decide(record(state, orphaned=True)) == Decision(action, reason)


def test_a_failure_without_a_type_is_still_said() -> None:
    assert decide(Record(State.FAILED)).reason == "failed: error"


def planned_job() -> PlannedJob:
    body = canonical_json({"prompt": "x", "seed": 2**70})
    return PlannedJob(
        seq=3,
        key=job_key("a/b", Mode.QUEUE, body, 1),
        name="n-3",
        endpoint="a/b",
        input_json=body,
        replica=1,
        origin="rows.csv:4",
        decision=Decision(Action.SUBMIT, "new"),
        change=Change.CHANGED,
    )


def test_a_planned_job_as_json_has_stable_fields_and_exact_seeds() -> None:
    job = planned_job()
    assert job.as_json() == {
        "event": "job",
        "seq": 3,
        "key": job.key.hex(),
        "name": "n-3",
        "endpoint": "a/b",
        "input": {"prompt": "x", "seed": 2**70},
        "replica": 1,
        "origin": "rows.csv:4",
        "action": "submit",
        "reason": "new",
        "change": "changed",
    }


def test_a_plan_as_json_counts_every_action_and_change() -> None:
    plan = Plan(
        name="portraits",
        total=5,
        output_dir="out",
        actions={Action.SUBMIT: 1, Action.WAIT: 1, Action.DOWNLOAD: 0, Action.SKIP: 3},
        changes={Change.ADDED: 1, Change.CHANGED: 0, Change.UNCHANGED: 4},
        reasons={"new": 1},
        orphans=2,
        first=(planned_job(),),
        changed=(),
        orphaned=(),
        resubmitted=4,
        at_risk=10**9,
        cost=Cost(spent=10**9),
        max_cost=10**9 // 2,
        warnings=(Problem("m.yaml", 3, 1, "odd", "do this"),),
    )
    assert plan.as_json() == {
        "event": "plan",
        "name": "portraits",
        "total": 5,
        "output_dir": "out",
        "actions": {"submit": 1, "wait": 1, "download": 0, "skip": 3},
        "changes": {"added": 1, "changed": 0, "unchanged": 4},
        "orphaned": 2,
        "resubmitted_unknown": 4,
        "rerolls_at_most": 0,
        "files": None,
        "cost": {
            "endpoints": [],
            "left": 0.0,
            "is_known": True,
            "spent": 1.0,
            "reserved": 0.0,
            "whole": 1.0,
            "trouble": "",
        },
        "limit": {"max_cost": 0.5, "jobs": None},
        "warnings": [{"file": "m.yaml", "line": 3, "column": 1, "what": "odd", "hint": "do this"}],
        "canary": None,
    }
