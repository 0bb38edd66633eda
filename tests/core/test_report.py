"""The exit code that follows from how a batch stands, and the JSON that scripts read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from falbatch.core.money import NANO
from falbatch.core.report import (
    ADVICE,
    ADVICE_DEFAULT,
    BatchStatus,
    FailureGroup,
    FlaggedGroup,
    Money,
    Report,
    RunTally,
    UnknownJob,
    exit_code_of,
    status_json,
)
from falbatch.core.state import State
from falbatch.errors import ExitCode


def status(**counts: int) -> BatchStatus:
    return BatchStatus(
        name="portraits",
        counts={State(state): count for state, count in counts.items()},
        orphaned=2,
        files=7,
        bytes=4096,
        executions=9,
        billable_units=1.5,
        failures=(FailureGroup("content_policy_violation", 2, "no", "a-1"), FailureGroup("http_500", 1, "oops", "a-2")),
        unknown=(UnknownJob("a-3", '{"prompt":"x"}', 1_700_000_000.5),),
        flagged=(FlaggedGroup(("nsfw",), 3, ("a-5", "a-6")),),
        stuck=(FailureGroup("transport_timeout", 1, "slow", "a-4"),),
        money=Money(spent=NANO * 3 // 4, reserved=NANO // 2, mean=NANO // 4, unpriced=3),
    )


@pytest.mark.parametrize(
    ("state", "whole", "part"),
    [
        (State.PLANNED, ExitCode.INCOMPLETE, ExitCode.OK),
        (State.SUBMITTING, ExitCode.INCOMPLETE, ExitCode.INCOMPLETE),
        (State.SUBMITTED, ExitCode.INCOMPLETE, ExitCode.INCOMPLETE),
        (State.COMPLETED, ExitCode.INCOMPLETE, ExitCode.INCOMPLETE),
        (State.DONE, ExitCode.OK, ExitCode.OK),
        (State.FAILED, ExitCode.INCOMPLETE, ExitCode.INCOMPLETE),
        (State.CANCELLED, ExitCode.INCOMPLETE, ExitCode.INCOMPLETE),
        (State.UNKNOWN, ExitCode.INCOMPLETE, ExitCode.INCOMPLETE),
    ],
)
def test_one_job_in_a_state_decides_the_exit_code(state: State, whole: ExitCode, part: ExitCode) -> None:
    counts = {"done": 5, state.value: 1}
    batch = replace(status(**counts), stuck=())
    assert exit_code_of(batch) is whole
    assert exit_code_of(batch, whole_run=False) is part


def test_a_job_that_could_not_be_brought_on_its_way_is_missed_in_a_part_too() -> None:
    stuck = (FailureGroup("not_uploaded", 1, "its file did not get through", "a-4"),)
    assert exit_code_of(replace(status(done=5, planned=1), stuck=stuck), whole_run=False) is ExitCode.INCOMPLETE


def test_an_empty_batch_is_in_order() -> None:
    assert exit_code_of(replace(status(), stuck=())) is ExitCode.OK


def test_counts_add_up() -> None:
    batch = status(done=3, failed=2, unknown=1)
    assert batch.total == 6
    assert batch.count(State.FAILED, State.UNKNOWN, State.PLANNED) == 3


def test_advice_is_by_error_type() -> None:
    assert FailureGroup("http_404", 1, "m", "j").advice == ADVICE["http_404"]
    assert FailureGroup("never_heard_of", 1, "m", "j").advice == ADVICE_DEFAULT


STATUS_JSON = {
    "name": "portraits",
    "mode": "queue",
    "total": 3,
    "states": {
        "planned": 0,
        "submitting": 0,
        "submitted": 0,
        "completed": 0,
        "done": 2,
        "failed": 1,
        "cancelled": 0,
        "unknown": 0,
    },
    "orphaned": 2,
    "files": 7,
    "bytes": 4096,
    "executions": 9,
    "billable_units": 1.5,
    "spent": 0.75,
    "reserved": 0.5,
    "projected": 1.25,
    "unpriced_requests": 3,
    "failures": [
        {
            "error_type": "content_policy_violation",
            "count": 2,
            "example": "no",
            "job": "a-1",
            "advice": ADVICE["content_policy_violation"],
        },
        {"error_type": "http_500", "count": 1, "example": "oops", "job": "a-2", "advice": ADVICE_DEFAULT},
    ],
    "stuck": [{"error_type": "transport_timeout", "count": 1, "example": "slow", "job": "a-4"}],
    "unknown": [{"name": "a-3", "input_json": '{"prompt":"x"}', "submitted_at": 1_700_000_000.5}],
    "flagged": [{"flags": ["nsfw"], "count": 3, "jobs": ["a-5", "a-6"]}],
}


def test_a_status_as_json_names_every_state() -> None:
    assert status_json(status(done=2, failed=1)) == STATUS_JSON


@pytest.mark.parametrize(
    ("money", "planned", "projected"),
    [
        (Money(), 0, 0),
        (Money(), 3, None),
        (Money(spent=30, reserved=5, mean=10), 0, 35),
        (Money(spent=30, reserved=5, mean=10), 4, 75),
        (Money(spent=30), 0, 30),
        (Money(reserved=7), 2, None),
    ],
)
def test_a_batch_is_projected_at_the_mean_of_its_jobs(money: Money, planned: int, projected: int | None) -> None:
    counts = {State.PLANNED: planned, State.FAILED: 9, State.UNKNOWN: 9}
    batch = BatchStatus("b", counts, orphaned=0, files=0, bytes=0, executions=0, billable_units=0.0, money=money)
    assert batch.projected == projected
    assert status_json(batch)["projected"] == (None if projected is None else projected / NANO)


def test_a_report_as_json_has_stable_fields() -> None:
    tally = RunTally(submitted=3, finished=2, failed=1, further_attempts=1, refusals=4, status_calls=9, seconds=1.5)
    report = Report(status(done=2, failed=1), tally, "out", ExitCode.INCOMPLETE, advice="look")
    assert report.as_json() == {
        "event": "report",
        "exit_code": 3,
        "output_dir": "out",
        "advice": "look",
        "run": {
            "submitted": 3,
            "finished": 2,
            "failed": 1,
            "further_attempts": 1,
            "rerolls": 0,
            "refusals": 4,
            "status_calls": 9,
            "found": 0,
            "uploads": 0,
            "uploaded_bytes": 0,
            "reconcile_trouble": "",
            "found_by_callback": 0,
            "callbacks": 0,
            "callbacks_repeated": 0,
            "callbacks_refused": 0,
            "seconds": 1.5,
            "stopped_by": "",
        },
        **STATUS_JSON,
    }
