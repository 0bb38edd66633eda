"""Which listed request answers which lost submit: never one twice, never another's, and as many as can be."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.reconcile import (
    FIRST_LOOK_S,
    PATIENCE_LEAST_S,
    PATIENCE_UNKNOWN_S,
    PAUSE_MOST_S,
    SKEW_S,
    Listed,
    LostSubmit,
    match,
    next_look_s,
    patience_s,
)

NOON = 1_800_000_000.0
KITE, BOAT = b'{"prompt":"a kite"}', b'{"prompt":"a boat"}'


def lost(number: int = 1, **more: Any) -> LostSubmit:
    """The submit of job `number`, lost at noon within a minute."""
    given_: dict[str, Any] = {"attempt": 1, "left_at": NOON, "given_up_at": NOON + 60, "is_open": True, **more}
    return LostSubmit(number, endpoint="a/b", input_json=given_.pop("input_json", KITE), **given_)


def listed(request_id: str = "r", *, sent_at: float | None = NOON + 1, input_json: bytes | None = KITE) -> Listed:
    return Listed(request_id, input_json, sent_at)


def pairs(matched: dict[LostSubmit, Listed]) -> dict[int, str]:
    """Job → request."""
    return {submit.job_id: request.request_id for submit, request in matched.items()}


def test_a_lost_submit_is_known_again_by_its_input_and_its_time() -> None:
    assert match([lost()], [listed()], set()) == {lost(): listed()}


@pytest.mark.parametrize(
    "request_",
    [
        listed(input_json=BOAT),
        listed(input_json=None),
        listed(sent_at=None),
        listed(sent_at=NOON - SKEW_S - 1),
        listed(sent_at=NOON + 60 + SKEW_S + 1),
    ],
    ids=["another input", "no payload", "no time", "too early", "too late"],
)
def test_what_cannot_be_the_request_is_not_taken_for_it(request_: Listed) -> None:
    assert match([lost()], [request_], set()) == {}


@pytest.mark.parametrize("sent_at", [NOON - SKEW_S, NOON, NOON + 60 + SKEW_S])
def test_clocks_may_differ(sent_at: float) -> None:
    assert pairs(match([lost()], [listed(sent_at=sent_at)], set())) == {1: "r"}


def test_a_request_of_another_attempt_is_left_alone() -> None:
    assert match([lost()], [listed("r")], {"r"}) == {}
    assert pairs(match([lost()], [listed("r"), listed("q")], {"r"})) == {1: "q"}


def test_a_request_that_is_listed_twice_answers_one_submit() -> None:
    assert len(match([lost(1), lost(2)], [listed("r"), listed("r")], set())) == 1


def test_of_three_alike_two_are_found_when_two_are_listed() -> None:
    found = match([lost(1), lost(2), lost(3)], [listed("r"), listed("q", sent_at=NOON + 5)], set())
    assert sorted(pairs(found).values()) == ["q", "r"]


def test_of_alike_submits_the_one_whose_time_ends_first_is_answered_first() -> None:
    early, late = lost(1, left_at=NOON - 5000, given_up_at=NOON - 4000), lost(2)
    found = match([late, early], [listed("first", sent_at=NOON - 4500), listed("second")], set())
    assert pairs(found) == {1: "first", 2: "second"}


def test_no_choice_leaves_a_submit_unanswered_that_could_be() -> None:
    """The first request fits both, the second only the longer one."""
    short, long = lost(1), lost(2, given_up_at=NOON + 5000)
    found = match([long, short], [listed("r"), listed("late", sent_at=NOON + 4000)], set())
    assert pairs(found) == {1: "r", 2: "late"}


def test_a_job_that_still_waits_comes_before_one_that_was_submitted_again() -> None:
    superseded = lost(1, is_open=False, given_up_at=NOON + 1)
    assert pairs(match([superseded, lost(2)], [listed()], set())) == {2: "r"}
    assert pairs(match([superseded, lost(2)], [listed(), listed("q")], set())) == {1: "r", 2: "q"}


SECONDS = st.sampled_from([0.0, 30.0, 60.0, 700.0, 1300.0, 2000.0])
INPUTS = st.sampled_from([KITE, BOAT])


@st.composite
def losses(draw: st.DrawFn, most: int = 5) -> list[LostSubmit]:
    submits = []
    for number in range(draw(st.integers(0, most))):
        left_at = NOON + draw(SECONDS)
        submits.append(
            lost(
                number,
                attempt=draw(st.integers(1, 3)),
                input_json=draw(INPUTS),
                left_at=left_at,
                given_up_at=left_at + draw(SECONDS),
                is_open=draw(st.booleans()),
            )
        )
    return submits


TIMES = st.one_of(st.none(), st.floats(-1500, 4500).map(lambda s: NOON + s))
REQUESTS = st.lists(
    st.builds(Listed, st.sampled_from("abcdef"), st.one_of(st.none(), INPUTS), TIMES),
    max_size=5,
    unique_by=lambda one: one.request_id,
)
KNOWN = st.sets(st.sampled_from("abcdef"), max_size=2)


def fits(submit: LostSubmit, request: Listed, known: set[str]) -> bool:
    return (
        request.request_id not in known
        and request.input_json == submit.input_json
        and request.sent_at is not None
        and submit.left_at - SKEW_S <= request.sent_at <= submit.given_up_at + SKEW_S
    )


def most_answers(submits: list[LostSubmit], requests: list[Listed], known: set[str]) -> int:
    """By trying everything."""
    if not submits:
        return 0
    first, rest = submits[0], submits[1:]
    best = most_answers(rest, requests, known)
    for place, request in enumerate(requests):
        if fits(first, request, known):
            best = max(best, 1 + most_answers(rest, requests[:place] + requests[place + 1 :], known))
    return best


@given(losses(), REQUESTS, KNOWN)
def test_each_answer_fits_and_none_is_given_twice(
    submits: list[LostSubmit], requests: list[Listed], known: set[str]
) -> None:
    found = match(submits, requests, known)
    assert all(fits(submit, request, known) for submit, request in found.items())
    assert len({request.request_id for request in found.values()}) == len(found)
    assert set(found) <= set(submits)


@given(losses(), REQUESTS, KNOWN)
def test_as_many_are_answered_as_can_be_the_open_ones_first(
    submits: list[LostSubmit], requests: list[Listed], known: set[str]
) -> None:
    found = match(submits, requests, known)
    open_ones = [one for one in submits if one.is_open]
    taken = {request.request_id for submit, request in found.items() if submit.is_open}
    left = [one for one in requests if one.request_id not in taken]
    closed_ones = [one for one in submits if not one.is_open]
    assert sum(submit.is_open for submit in found) == most_answers(open_ones, requests, known)
    assert sum(not submit.is_open for submit in found) == most_answers(closed_ones, left, known)


@given(losses(), REQUESTS, KNOWN, st.randoms(use_true_random=False))
def test_the_order_of_lost_and_listed_does_not_matter(
    submits: list[LostSubmit], requests: list[Listed], known: set[str], chance: Any
) -> None:
    found = match(submits, requests, known)
    assert match(chance.sample(submits, len(submits)), chance.sample(requests, len(requests)), known) == found


@given(st.integers(0, 40), st.integers(0, 40))
def test_of_many_alike_as_many_are_found_as_are_listed(submits: int, requests: int) -> None:
    one = lost()
    found = match(
        [replace(one, job_id=number) for number in range(submits)],
        [listed(f"r{number}") for number in range(requests)],
        set(),
    )
    assert len(found) == min(submits, requests)


@pytest.mark.parametrize(
    ("usual_s", "patience"),
    [(None, PATIENCE_UNKNOWN_S), (0.1, PATIENCE_LEAST_S), (30.0, 120.0), (10_000.0, 15_000.0)],
)
def test_patience_goes_by_how_long_such_jobs_take(usual_s: float | None, patience: float) -> None:
    assert patience_s(usual_s) == patience


def looks(patience: float) -> list[float]:
    """When each look falls, in seconds after the submit was lost, until the one that ends the patience."""
    times, pause_s = [min(FIRST_LOOK_S, patience)], FIRST_LOOK_S
    while times[-1] < patience:
        wait_s, pause_s = next_look_s(pause_s, patience - times[-1])
        times.append(patience if wait_s == patience - times[-1] else times[-1] + wait_s)
    return times


def test_pauses_between_looks_grow_to_a_minute() -> None:
    pauses = [later - earlier for earlier, later in pairwise(looks(600.0))]
    assert pauses[:4] == pytest.approx([2.0, 3.4, 5.78, 9.826])
    assert max(pauses) == pytest.approx(PAUSE_MOST_S)
    assert pauses[:-1] == pytest.approx(sorted(pauses[:-1]))


@given(st.floats(0, 86_400))
def test_the_last_look_falls_on_the_end_of_the_patience_and_their_number_is_bounded(patience: float) -> None:
    times = looks(patience)
    assert times[-1] == patience
    assert times == sorted(times)
    assert len(times) <= 10 + patience / PAUSE_MOST_S


def test_with_no_patience_left_the_next_look_is_now() -> None:
    assert next_look_s(2.0, 0.0)[0] == 0.0
    assert next_look_s(2.0, -5.0)[0] == 0.0
