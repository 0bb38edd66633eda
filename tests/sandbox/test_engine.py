"""The queue without a clock or a socket: time is a number, and everything happens when it is due."""

from __future__ import annotations

from itertools import product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.sandbox.engine import REQUEUE_PAUSE_S, Cancelled, Engine
from falbatch.sandbox.line import Line
from falbatch.sandbox.requests import Request, Via, parse_payload, start_timeout_s
from falbatch.sandbox.states import TRANSITIONS, Event, Status, next_status
from falbatch.sandbox.verdict import Verdict


def a_request(number: int = 0, *, low: bool = False, deadline: float | None = None, account: str = "me") -> Request:
    return Request(
        id=str(UUID(int=number)),
        ordinal=number,
        account=account,
        endpoint="fal-ai/flux/dev",
        query={},
        headers={},
        raw=b"{}",
        submitted_at=0.0,
        low=low,
        deadline=deadline,
        verdict=Verdict(),
    )


def an_engine(concurrency: int = 1, service_s: float = 10.0, *, stops: bool = False) -> Engine:
    return Engine(concurrency, 1.0, lambda _: service_s, lambda _: None, stops_running=stops)


@pytest.mark.parametrize(("status", "event"), list(product(Status, Event)))
def test_only_listed_transitions_happen(status: Status, event: Event) -> None:
    if (status, event) in TRANSITIONS:
        assert status is not Status.COMPLETED
        assert next_status(status, event) is TRANSITIONS[status, event]
    else:
        with pytest.raises(ValueError, match="cannot"):
            next_status(status, event)


def test_the_next_one_starts_at_the_moment_the_last_one_ended_however_late_one_looks() -> None:
    engine, requests = an_engine(), [a_request(n) for n in range(3)]
    for request in requests:
        engine.submit(request, 100.0)
    engine.advance(1000.0)
    assert [(r.started_at, r.ended_at) for r in requests] == [(100, 110), (110, 120), (120, 130)]


def test_no_service_time_completes_at_once_past_any_cap() -> None:
    engine, requests = an_engine(service_s=0.0), [a_request(n) for n in range(1000)]
    for request in requests:
        engine.submit(request, 5.0)
    assert {(r.status, r.started_at, r.ended_at) for r in requests} == {(Status.COMPLETED, 5.0, 5.0)}


def test_low_priority_starts_only_when_no_normal_one_waits() -> None:
    engine = an_engine()
    first, low, normal = a_request(0), a_request(1, low=True), a_request(2)
    for request in (first, low, normal):
        engine.submit(request, 0.0)
    assert (engine.position(normal), engine.position(low)) == (0, 1)
    engine.advance(15.0)
    assert (normal.status, low.status) == (Status.IN_PROGRESS, Status.IN_QUEUE)


def test_a_deadline_ends_only_what_has_not_started() -> None:
    engine = an_engine()
    running, waiting = a_request(0, deadline=5.0), a_request(1, deadline=5.0)
    engine.submit(running, 0.0)
    engine.submit(waiting, 0.0)
    engine.advance(6.0)
    assert running.status is Status.IN_PROGRESS
    assert (waiting.status, waiting.ended_at, waiting.verdict.status) == (Status.COMPLETED, 5.0, 504)
    assert waiting.started_at is None
    assert engine.waiting_on("fal-ai/flux/dev") == 0


def test_a_requeued_attempt_waits_then_runs_in_full_before_the_others() -> None:
    engine, lost, other = an_engine(), a_request(0), a_request(1)
    engine.submit(lost, 0.0)
    engine.requeue(lost, 4.0)
    engine.submit(other, 4.1)
    assert (lost.status, lost.started_at, other.status) == (Status.IN_QUEUE, None, Status.IN_PROGRESS)
    engine.advance(4.0 + REQUEUE_PAUSE_S)
    engine.submit(a_request(2), 5.0)
    assert engine.position(lost) == 0
    engine.advance(10.5)
    assert lost.status is Status.IN_QUEUE  # the alarm of its first attempt means nothing any more
    engine.advance(100.0)
    assert (lost.started_at, lost.ended_at, lost.attempt) == (14.1, 24.1, 2)


@pytest.mark.parametrize("stops", [True, False])
def test_cancelling_a_running_request_stops_it_only_where_apps_do(stops: bool) -> None:
    engine, request = an_engine(stops=stops), a_request()
    engine.submit(request, 0.0)
    assert engine.cancel(request, 3.0) is Cancelled.ASKED
    engine.advance(20.0)
    expected = (3.0, 499) if stops else (10.0, 200)
    assert (request.ended_at, request.verdict.status) == expected
    assert engine.cancel(request, 21.0) is Cancelled.TOO_LATE
    assert engine.accounts["me"].running == 0


def test_a_restored_engine_goes_on_where_the_old_one_was() -> None:
    old, requests = an_engine(concurrency=2), [a_request(n) for n in range(4)]
    for request in requests:
        old.submit(request, 0.0)
    new = an_engine(concurrency=2)
    new.restore(requests, 4.0)
    assert new.accounts["me"].running == 2
    new.advance(50.0)
    assert [(r.started_at, r.ended_at) for r in requests] == [(0, 10), (0, 10), (10, 20), (10, 20)]


def test_a_deadline_that_passed_while_nothing_ran_comes_before_the_free_room() -> None:
    old, requests = an_engine(), [a_request(0), a_request(1, deadline=5.0)]
    for request in requests:
        old.submit(request, 0.0)
    new = an_engine(concurrency=2)
    new.restore(requests, 6.0)
    assert (requests[1].status, requests[1].verdict.status) == (Status.COMPLETED, 504)


def test_accounts_do_not_share_their_cap() -> None:
    engine = an_engine()
    mine, yours = a_request(0), a_request(1, account="you")
    engine.submit(mine, 0.0)
    engine.submit(yours, 0.0)
    assert (mine.status, yours.status) == (Status.IN_PROGRESS, Status.IN_PROGRESS)


@given(st.lists(st.sampled_from(["append", "front", "pop", "remove"]), max_size=60), st.randoms())
def test_a_line_agrees_with_a_plain_list_whatever_happens(steps: list[str], random: object) -> None:
    line, model = Line(), list[Request]()
    for number, step in enumerate(steps):
        if step == "append":
            model.append(a_request(number))
            line.append(model[-1])
        elif step == "front":
            model.insert(0, a_request(number))
            line.push_front(model[0])
        elif model and step == "pop":
            assert line.pop() is model.pop(0)
        elif model:
            line.remove(model.pop(number % len(model)))
        assert len(line) == len(model)
        assert [line.ahead_of(request) for request in model] == list(range(len(model)))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"x-fal-request-timeout": "30"}, 30.0),
        ({"x-fal-request-timeout": "30", "x-fal-request-start-timeout": "5"}, 5.0),
        ({"x-fal-request-timeout": "0.1"}, None),
        ({"x-fal-request-timeout": "soon"}, None),
        ({"x-fal-request-timeout": "inf"}, None),
        ({"x-fal-request-timeout": "nan"}, None),
    ],
)
def test_the_newer_timeout_header_wins_and_nonsense_is_ignored(headers: dict[str, str], expected: float | None) -> None:
    assert start_timeout_s(headers) == expected


def test_payload_integers_stay_exact() -> None:
    assert parse_payload(b'{"seed": 123456789012345678901234567890}') == {"seed": 123456789012345678901234567890}


def a_direct_call(number: int) -> Request:
    request = a_request(number)
    request.via = Via.RUN
    return request


def test_a_direct_call_starts_at_once_or_has_no_room_and_the_queue_waits_behind_it() -> None:
    engine = an_engine(concurrency=2)
    assert engine.has_room("me")
    direct, queued = a_direct_call(0), [a_request(1), a_request(2)]
    engine.begin(direct, 0.0)
    for request in queued:
        engine.submit(request, 1.0)
    assert [r.status for r in (direct, *queued)] == [Status.IN_PROGRESS, Status.IN_PROGRESS, Status.IN_QUEUE]
    assert not engine.has_room("me")
    assert engine.has_room("you")
    assert engine.waiting_on("fal-ai/flux/dev") == 1
    engine.advance(10.0)
    assert (direct.ended_at, queued[1].started_at, engine.waiting_on("fal-ai/flux/dev")) == (10.0, 10.0, 0)


@pytest.mark.parametrize(("stops", "status", "code"), [(True, Status.COMPLETED, 499), (False, Status.IN_PROGRESS, 200)])
def test_a_direct_call_whose_caller_leaves_stops_where_apps_do(stops: bool, status: Status, code: int) -> None:
    engine, direct, waiting = an_engine(stops=stops), a_direct_call(0), a_request(1)
    engine.begin(direct, 0.0)
    engine.submit(waiting, 0.0)
    engine.leave(direct, 3.0)
    assert (direct.status, direct.verdict.status) == (status, code)
    assert waiting.started_at == (3.0 if stops else None)
    engine.advance(100.0)
    engine.leave(direct, 101.0)
    assert (waiting.status, engine.accounts["me"].running) == (Status.COMPLETED, 0)
