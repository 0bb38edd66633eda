"""The counter hears everything that a run says and comes to the right numbers, in whatever order they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.classify import Failure
from falbatch.core.events import (
    CallbacksCounted,
    Counter,
    FoundByCallback,
    JobEnded,
    JobMoved,
    JobSubmitted,
    JobTriedAgain,
    Notice,
    Polled,
    Reconciled,
    ResultCame,
    RunStopping,
    SubmitPaused,
)
from falbatch.core.model import JobKey
from falbatch.core.report import RunTally
from falbatch.core.state import State

if TYPE_CHECKING:
    from falbatch.core.events import RunEvent

KEY = JobKey(bytes(32))
FAILURE = Failure("http_500", "oops", 500)


def ended(state: State, job_id: int = 1) -> JobEnded:
    return JobEnded(job_id, KEY, "a", state)


def heard(*events: RunEvent) -> Counter:
    counter = Counter()
    for event in events:
        counter(event)
    return counter


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (JobSubmitted("a", "r"), Counter(submitted=1)),
        (Polled(), Counter(status_calls=1)),
        (SubmitPaused(1.0, "429", refused=True), Counter(refusals=1)),
        (SubmitPaused(1.0, "no route", refused=False), Counter()),
        (JobTriedAgain("a", FAILURE), Counter(further_attempts=1)),
        (JobMoved("a", "r", "", "IN_QUEUE"), Counter(at_fal=1)),
        (JobMoved("a", "r", "", "IN_PROGRESS"), Counter(at_fal=1)),
        (JobMoved("a", "", "", "DOWNLOADING"), Counter(downloading=1)),
        (JobMoved("a", "r", "", "A_NEW_WORD"), Counter(at_fal=1)),
        (ended(State.DONE), Counter(ended={State.DONE: 1})),
        (ended(State.FAILED), Counter(ended={State.FAILED: 1})),
        (ended(State.CANCELLED), Counter(ended={State.CANCELLED: 1})),
        (ended(State.UNKNOWN), Counter(ended={State.UNKNOWN: 1})),
        (ended(State.SUBMITTED), Counter(stuck=1)),
        (ended(State.COMPLETED), Counter(stuck=1)),
        (ResultCame("a", "r"), Counter()),
        (RunStopping("SIGINT"), Counter()),
        (Reconciled(0, 2, 30.0, "answer 503"), Counter(ended={State.UNKNOWN: 0}, trouble="answer 503")),
        (Reconciled(2, 0, 0.0), Counter(ended={State.UNKNOWN: 0}, found=2)),
        (Notice("the disk is slow"), Counter()),
        (JobMoved("a", "r", "", "AWAITED"), Counter(at_fal=1)),
        (FoundByCallback(1), Counter(ended={State.UNKNOWN: 0}, found_by_callback=1)),
        (CallbacksCounted(5, 2, 1), Counter(callbacks=5, callbacks_repeated=2, callbacks_refused=1)),
    ],
)
def test_each_event_is_counted_where_it_belongs(event: RunEvent, expected: Counter) -> None:
    assert heard(event) == expected


def test_a_job_that_moves_is_counted_in_one_phase_at_a_time() -> None:
    counter = heard(
        JobMoved("a", "r", "", "IN_QUEUE"),
        JobMoved("b", "s", "", "IN_QUEUE"),
        JobMoved("a", "r", "IN_QUEUE", "IN_PROGRESS"),
    )
    assert counter.at_fal == 2
    counter(JobMoved("a", "r", "IN_PROGRESS", "IN_QUEUE"))  # fal requeued it
    assert counter.at_fal == 2
    counter(JobMoved("b", "s", "IN_QUEUE", ""))
    assert counter.at_fal == 1


PHASES = ["", "IN_QUEUE", "IN_PROGRESS", "DOWNLOADING", "A_NEW_WORD"]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(PHASES)), max_size=60))
def test_any_order_of_moves_leaves_each_job_counted_once(moves: list[tuple[int, str]]) -> None:
    counter = Counter()
    phases = dict.fromkeys(range(4), "")
    for job, phase in moves:
        counter(JobMoved(str(job), "r", phases[job], phase))
        phases[job] = phase
    now = list(phases.values())
    assert counter.at_fal == sum(phase not in {"", "DOWNLOADING"} for phase in now)
    assert counter.downloading == now.count("DOWNLOADING")


def test_done_includes_earlier_runs_and_failed_all_that_ended_without_files() -> None:
    counter = Counter(total=9, done_before=3)
    for state in [State.DONE, State.DONE, State.FAILED, State.CANCELLED, State.UNKNOWN, State.SUBMITTED]:
        counter(ended(state))
    assert (counter.done, counter.failed, counter.stuck) == (5, 3, 1)


def test_a_job_that_was_found_is_unknown_no_more() -> None:
    counter = heard(ended(State.UNKNOWN, 1), ended(State.UNKNOWN, 2))
    counter(Reconciled(1, 1, 30.0, "answer 503", frozenset({1})))
    assert (counter.failed, counter.found, counter.trouble) == (1, 1, "answer 503")
    counter(Reconciled(1, 0, 0.0, jobs=frozenset({2})))
    counter(ended(State.DONE))
    assert (counter.failed, counter.found, counter.trouble, counter.done) == (0, 2, "", 1)


def test_a_job_of_an_earlier_run_that_was_found_hides_none_of_this_run() -> None:
    counter = heard(ended(State.UNKNOWN, 1), Reconciled(1, 1, 30.0, jobs=frozenset({7})))
    assert (counter.failed, counter.found) == (1, 1)


def test_the_tally_is_what_this_run_did() -> None:
    counter = Counter(done_before=100)
    events: list[RunEvent] = [
        JobSubmitted("a", "r"),
        Polled(),
        Polled(),
        SubmitPaused(1.0, "429", refused=True),
        JobTriedAgain("a", FAILURE),
        ended(State.DONE),
        ended(State.FAILED),
    ]
    for event in events:
        counter(event)
    assert counter.tally(seconds=1.23456, stopped_by="SIGINT") == RunTally(
        submitted=1,
        finished=1,
        failed=1,
        further_attempts=1,
        refusals=1,
        status_calls=2,
        seconds=1.235,
        stopped_by="SIGINT",
    )
