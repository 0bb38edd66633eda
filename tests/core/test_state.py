"""The table of a job's life: what is in it happens, what is not raises, and no order of events leaves it."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.state import TRANSITIONS, Event, IllegalTransition, State, after

LEGAL = [
    ("planned", "submit_started", "submitting"),
    ("planned", "input_failed", "failed"),
    ("submitting", "refused", "planned"),
    ("submitting", "rejected", "failed"),
    ("submitting", "no_answer", "unknown"),
    ("submitting", "accepted", "submitted"),
    ("submitted", "attempt_failed", "planned"),
    ("submitted", "request_failed", "failed"),
    ("submitted", "request_cancelled", "cancelled"),
    ("submitted", "result_stored", "completed"),
    ("completed", "files_stored", "done"),
    ("completed", "files_gone", "failed"),
    ("completed", "result_refused", "failed"),
    ("completed", "rerolled", "planned"),
    ("failed", "reopened", "planned"),
    ("failed", "files_wanted", "completed"),
    ("cancelled", "reopened", "planned"),
    ("unknown", "found", "submitted"),
    ("planned", "found", "submitted"),
    ("planned", "no_answer", "unknown"),
    ("unknown", "reopened", "planned"),
    ("done", "files_wanted", "completed"),
    ("planned", "files_wanted", "completed"),
    ("cancelled", "files_wanted", "completed"),
]
"""Written down a second time on purpose: a slip in the table must not go unnoticed."""


@pytest.mark.parametrize(("before", "event", "then"), LEGAL)
def test_each_legal_event_leads_to_the_state_in_the_table(before: str, event: str, then: str) -> None:
    assert after(State(before), Event(event)) is State(then)


def test_the_table_holds_nothing_but_the_legal_transitions() -> None:
    legal = {(State(before), Event(event)): State(then) for before, event, then in LEGAL}
    assert legal == TRANSITIONS


@pytest.mark.parametrize(("state", "event"), sorted(set(product(State, Event)) - set(TRANSITIONS)))
def test_every_other_event_raises_and_names_both(state: State, event: Event) -> None:
    with pytest.raises(IllegalTransition, match=f"{state}.*{event}"):
        after(state, event)


LOST_BEFORE = frozenset({Event.FOUND, Event.NO_ANSWER})
"""Of a planned job these tell of an earlier submit, which only the record of its attempts knows."""


def follows(state: State, event: Event) -> State:
    """`after` for a job of which no submit was lost before."""
    if state is State.PLANNED and event in LOST_BEFORE:
        raise IllegalTransition
    return after(state, event)


@given(st.lists(st.sampled_from(list(Event)), max_size=60))
def test_any_order_of_events_keeps_a_job_in_the_table(events: list[Event]) -> None:
    """Refused events change nothing, so a job that was never accepted can have no result and no files."""
    state = State.PLANNED
    seen: list[Event] = []
    for event in events:
        try:
            state = follows(state, event)
        except IllegalTransition:
            continue
        seen.append(event)
    assert state in State
    accepted = seen.count(Event.ACCEPTED) + seen.count(Event.FOUND)
    assert accepted <= seen.count(Event.SUBMIT_STARTED)
    assert seen.count(Event.RESULT_STORED) <= accepted
    if state is State.DONE and Event.FILES_WANTED not in seen:  # which jobs lack files is for who asks to know
        assert Event.RESULT_STORED in seen


@given(st.data())
def test_every_state_can_be_reached_and_none_but_by_the_users_word_is_left_once_ended(data: st.DataObject) -> None:
    state = State.PLANNED
    for _ in range(data.draw(st.integers(0, 30))):
        state, event = data.draw(
            st.sampled_from([(then, event) for (before, event), then in TRANSITIONS.items() if before is state])
        )
        if event in {Event.REOPENED, Event.FILES_WANTED}:
            continue
        assert state is not State.PLANNED or event in {Event.REFUSED, Event.ATTEMPT_FAILED, Event.REROLLED}


def test_every_state_is_reachable_from_planned() -> None:
    reached = {State.PLANNED}
    for _ in State:
        reached |= {then for (before, _event), then in TRANSITIONS.items() if before in reached}
    assert reached == set(State)


def test_each_event_leads_to_one_state_only() -> None:
    """The store relies on it: it moves many jobs with one statement per event."""
    targets = {event: {then for (_, other), then in TRANSITIONS.items() if other is event} for event in Event}
    assert all(len(then) == 1 for then in targets.values())


def ways_out(state: State) -> set[Event]:
    return {event for (before, event) in TRANSITIONS if before is state}


@pytest.mark.parametrize("state", [State.DONE, State.FAILED, State.CANCELLED])
def test_an_ended_job_is_left_by_the_users_word_only(state: State) -> None:
    assert ways_out(state) <= {Event.REOPENED, Event.FILES_WANTED}


def test_an_unknown_job_is_left_when_it_is_found_or_by_the_users_word() -> None:
    assert ways_out(State.UNKNOWN) == {Event.FOUND, Event.REOPENED}


def ways(state: State, target: State, without: frozenset[Event]) -> list[list[Event]]:
    """All ways from `state` to `target` that pass no state twice and need no event of `without`."""

    def go(here: State, seen: frozenset[State]) -> list[list[Event]]:
        if here is target and seen:
            return [[]]
        return [
            [event, *rest]
            for (before, event), then in TRANSITIONS.items()
            if before is here and event not in without and then not in seen
            for rest in go(then, seen | {then})
        ]

    return go(state, frozenset())


USERS_WORD = frozenset({Event.REOPENED, Event.FILES_WANTED})


def test_a_submit_that_left_becomes_planned_again_by_a_refusal_only() -> None:
    """By itself, a job whose fate is open is never submitted a second time."""
    ended = {Event.ATTEMPT_FAILED, Event.REROLLED}
    assert ways(State.SUBMITTING, State.PLANNED, USERS_WORD | ended) == [[Event.REFUSED]]
    assert ways(State.UNKNOWN, State.PLANNED, USERS_WORD | ended) == []


@given(st.lists(st.sampled_from(list(Event)), max_size=80))
def test_between_two_submits_of_a_job_the_first_was_refused_or_ended_or_the_user_said_so(events: list[Event]) -> None:
    state = State.PLANNED
    since: list[Event] = [Event.REFUSED]
    for event in events:
        try:
            state = follows(state, event)
        except IllegalTransition:
            continue
        if event is Event.SUBMIT_STARTED:
            assert since[-1] in {Event.REFUSED, Event.ATTEMPT_FAILED, Event.REROLLED, Event.REOPENED}
            since = []
        since.append(event)
        if state is State.UNKNOWN:
            assert since[-2:] == [Event.SUBMIT_STARTED, Event.NO_ANSWER]
