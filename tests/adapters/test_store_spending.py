"""Money and lost submits as the state file knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from falbatch.adapters.store import spending
from falbatch.adapters.store.spending import SAMPLE, SUBMIT_MOST_S, sample_bills
from falbatch.adapters.store.store import Store
from falbatch.core.changes import (
    RequestEnded,
    RequestFound,
    ResultStored,
    SubmitAccepted,
    SubmitNotAccepted,
    SubmitStarted,
)
from falbatch.core.classify import Failure
from falbatch.core.money import NANO, Price, Purse
from falbatch.core.report import Money
from falbatch.core.state import Event, State
from tests.adapters.conftest import AT, finished, item, planned, recording, reopen

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

NO_ANSWER = Failure("transport_timeout", "no answer")
BROKEN = Failure("http_500", "broken", 500)
NAMED = "7c2e6a3e-0a36-4a0e-9b1d-1f2a3b4c5d6e"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "falbatch.db"


def started(job_id: int, reserved: int, *, attempt: int = 1, at: float = AT) -> SubmitStarted:
    return SubmitStarted(job_id, attempt, at, reserved)


def accepted(job_id: int, *, attempt: int = 1) -> SubmitAccepted:
    return SubmitAccepted(job_id, attempt, AT + 2, f"r-{job_id}-{attempt}", "s", "u", "c")


def lost(job_id: int, *, attempt: int = 1, named_id: str = "") -> SubmitNotAccepted:
    return SubmitNotAccepted(job_id, attempt, AT + 60, Event.NO_ANSWER, NO_ANSWER, named_id)


def refused(job_id: int, *, attempt: int = 1) -> SubmitNotAccepted:
    return SubmitNotAccepted(job_id, attempt, AT + 1, Event.REFUSED, BROKEN)


def result(job_id: int, cost: int | None, *, units: float | None = 2.0) -> ResultStored:
    return ResultStored(job_id, f"r-{job_id}-1", AT + 3, b"{}", "application/json", units, cost=cost)


def failed(job_id: int, cost: int | None, event: Event = Event.REQUEST_FAILED) -> RequestEnded:
    return RequestEnded(job_id, f"r-{job_id}-1", AT + 3, event, BROKEN, cost=cost)


async def test_the_purse_is_what_ended_what_is_at_fal_and_what_was_lost(state: Path) -> None:
    with planned(state, [item(seq) for seq in range(7)]) as store:
        assert store.purse(None) == Purse()
        async with recording(store):
            await store.record(started(1, 10), accepted(1), result(1, 8))
            await store.record(started(2, 20), accepted(2), failed(2, 5))
            await store.record(started(3, 30), accepted(3))
            await store.record(started(4, 40), lost(4))
            await store.record(started(5, 50), refused(5))
            await store.record(started(6, 60), accepted(6), failed(6, None))
        assert store.purse(999) == Purse(999, spent=13, at_fal=30, lost=40)
    with Store.open(state) as store:
        assert store.purse(999) == Purse(999, spent=13, at_fal=30, lost=40)


async def test_a_submit_of_a_killed_run_keeps_its_reservation(state: Path) -> None:
    with planned(state, [item(0)]) as store:
        async with recording(store):
            await store.record(started(1, 10))
    with Store.open(state) as store:
        assert store.purse(None) == Purse(lost=10)
        store.resume(at=AT + 500)
        assert store.purse(None) == Purse(lost=10)


async def test_a_lost_submit_stays_lost_when_its_job_is_submitted_again(state: Path) -> None:
    with planned(state, [item(0)]) as store:
        async with recording(store):
            await store.record(started(1, 10), lost(1))
            reopen(store, 1)
            await store.record(started(1, 11, attempt=2), accepted(1, attempt=2))
        assert store.purse(None) == Purse(at_fal=11, lost=10)


async def test_a_found_submit_is_at_fal_or_spent_when_nobody_follows_it(state: Path) -> None:
    with planned(state, [item(0), item(1)]) as store:
        async with recording(store):
            await store.record(started(1, 10), lost(1), RequestFound(1, 1, AT + 70, "f-1", AT, cost=10))
            await store.record(started(2, 20), lost(2))
            reopen(store, 2)
            await store.record(started(2, 21, attempt=2), accepted(2, attempt=2))
            await store.record(RequestFound(2, 1, AT + 70, "f-2", AT, event=None, cost=20))
        assert store.purse(None) == Purse(spent=20, at_fal=10 + 21)
        statuses = dict(store.connection.execute("SELECT request_id, status FROM requests"))
        assert statuses == {"f-1": "accepted", "r-2-2": "accepted", "f-2": "superseded"}
        assert store.job(2).request is not None
        assert [job.request.request_id for job in store.paid_jobs() if job.request] == ["f-1", "r-2-2"]


async def test_a_found_job_is_at_fal_as_if_it_had_been_answered(state: Path) -> None:
    with planned(state, [item(0)]) as store:
        async with recording(store):
            await store.record(started(1, 10), lost(1), RequestFound(1, 1, AT + 70, "f-1", AT + 5, cost=10))
            job = store.job(1)
            assert (job.state, job.reserved, job.attempts) == (State.SUBMITTED, 10, 1)
            assert job.request is not None
            assert (job.request.request_id, job.request.status_url, job.request.accepted_at) == ("f-1", "", AT + 5)
            assert store.lost_submits() == []
            await store.record(*finished(1, request_id="f-1"))
        assert store.status().counts == {State.DONE: 1}


async def test_money_is_counted_over_all_runs(state: Path) -> None:
    with planned(state, [item(seq) for seq in range(8)]) as store:
        async with recording(store):
            await store.record(started(1, 10), accepted(1), result(1, 8))
            await store.record(started(2, 10), accepted(2), result(2, 13))
            await store.record(started(3, 10), accepted(3), failed(3, 0))
            await store.record(started(4, 10), accepted(4), result(4, None))
            await store.record(started(5, 9), accepted(5))
            await store.record(started(6, 7), lost(6))
        status = store.status()
    assert status.money == Money(spent=21, reserved=16, mean=10, unpriced=1)
    assert status.projected == 21 + 16 + 2 * 10


async def test_lost_submits_are_those_without_an_answer(state: Path) -> None:
    with planned(state, [item(seq) for seq in range(5)]) as store:
        async with recording(store):
            await store.record(started(1, 10, at=AT + 2), lost(1, named_id=NAMED))
            await store.record(started(2, 20, at=AT + 1))  # under way now
            await store.record(started(3, 30), accepted(3))
            await store.record(started(4, 40), refused(4))
            (one,) = store.lost_submits()
            assert (one.job_id, one.attempt, one.endpoint) == (1, 1, "fal-ai/flux/dev")
            assert one.input_json == b'{"prompt":"prompt 0"}'
            assert (one.left_at, one.given_up_at, one.is_open) == (AT + 2, AT + 60, True)
            assert (one.reserved, one.named_id) == (10, NAMED)
    with Store.open(state) as store:
        store.resume(at=AT + 5000)
        killed, unanswered = store.lost_submits()
        assert (killed.job_id, killed.left_at, killed.given_up_at) == (2, AT + 1, AT + 1 + SUBMIT_MOST_S)
        assert (killed.is_open, killed.reserved, killed.named_id) == (True, 20, "")
        assert unanswered == one


async def test_a_lost_submit_of_a_job_that_was_submitted_again_is_open_no_more(state: Path) -> None:
    with planned(state, [item(0)]) as store:
        async with recording(store):
            await store.record(started(1, 10), lost(1))
            reopen(store, 1)
            assert [(submit.is_open, submit.is_unknown) for submit in store.lost_submits()] == [(True, False)]
            await store.record(started(1, 10, attempt=2, at=AT + 100))
            assert [(submit.attempt, submit.is_open) for submit in store.lost_submits()] == [(1, False)]
            await store.record(lost(1, attempt=2))
            assert [(submit.attempt, submit.is_open) for submit in store.lost_submits()] == [(1, True), (2, True)]
            await store.record(RequestFound(1, 2, AT + 200, "f", AT + 100, cost=10))
            assert [(submit.attempt, submit.is_open) for submit in store.lost_submits()] == [(1, False)]


async def test_lost_submits_are_found_without_going_through_all_attempts(state: Path) -> None:
    with planned(state, [item(0)]) as store:
        plan = store.connection.execute(
            "EXPLAIN QUERY PLAN SELECT a.job_id FROM attempts a WHERE (a.outcome IS NULL OR a.outcome = 'no_answer')"
        ).fetchall()
    assert "attempts_open" in str(plan)


async def test_unknown_jobs_are_noticed_those_of_a_killed_run_too(state: Path) -> None:
    with planned(state, [item(0), item(1)]) as store:
        assert not store.has_unknown()
        async with recording(store):
            await store.record(started(1, 10))
            assert store.has_unknown()
            await store.record(accepted(1))
            assert not store.has_unknown()
            await store.record(started(2, 10), lost(2))
            assert store.has_unknown()


async def test_known_requests_are_those_on_record(state: Path) -> None:
    with planned(state, [item(0), item(1)]) as store:
        async with recording(store):
            await store.record(started(1, 10), accepted(1))
            await store.record(started(2, 10), lost(2), RequestFound(2, 1, AT, "f-2", AT, cost=10))
        assert store.known_requests(["r-1-1", "f-2", "stranger"]) == {"r-1-1", "f-2"}
        assert store.known_requests([]) == set()


async def test_a_submit_is_under_way_by_its_endpoint_and_its_very_input(state: Path) -> None:
    with planned(state, [item(0, "a kite"), item(1, "a kite"), item(2, "a boat")]) as store:
        kite, boat = b'{"prompt":"a kite"}', b'{"prompt":"a boat"}'
        async with recording(store):
            await store.record(started(1, 10), lost(1))
            assert not store.is_under_way("fal-ai/flux/dev", kite)
            await store.record(started(2, 10))
            assert store.is_under_way("fal-ai/flux/dev", kite)
            assert not store.is_under_way("fal-ai/flux/dev", boat)
            assert not store.is_under_way("fal-ai/other", kite)
            await store.record(accepted(2))
            assert not store.is_under_way("fal-ai/flux/dev", kite)


async def test_prices_are_kept_and_replaced_by_newer_ones(state: Path) -> None:
    old, new = Price(25_000_000, "image", AT), Price(30_000_000, "image", AT + 100)
    other = Price(7, "", AT)
    with planned(state, [item(0)]) as store:
        store.take_prices({"a/b": old, "c/d": other}, {})
    with Store.open(state) as store:
        assert store.prices() == {"a/b": old, "c/d": other}
        store.take_prices({"a/b": new}, {})
        assert store.prices() == {"a/b": new, "c/d": other}


async def test_what_ended_before_its_price_was_known_is_reckoned_later(state: Path) -> None:
    with planned(state, [item(0), item(1), item(2), item(3, endpoint="a/b")]) as store:
        async with recording(store):
            await store.record(started(1, 0), accepted(1), result(1, None, units=1.5))
            await store.record(started(2, 0), accepted(2), result(2, None, units=None))
            await store.record(started(3, 0), accepted(3), result(3, 77))
            await store.record(started(4, 0), accepted(4), result(4, None, units=3.0))
        store.take_prices({}, {"fal-ai/flux/dev": Price(10)})
        costs = store.connection.execute("SELECT cost_nano FROM requests ORDER BY job_id").fetchall()
        assert costs == [(15,), (None,), (77,), (None,)]
        assert store.purse(None).spent == 92
        assert store.status().money.unpriced == 2


async def test_a_million_costs_add_up_exactly(state: Path) -> None:
    with planned(state, [item(0)]) as store:
        store.connection.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
            " INSERT INTO requests (request_id, job_id, attempt, status_url, response_url, cancel_url, status,"
            f" accepted_at, ended_at, cost_nano) SELECT i, 1, 1, '', '', '', 'completed', 0, 1, {100 * NANO + 1} FROM n"
        )
        assert store.purse(None).spent == 100_000 * (100 * NANO + 1)


async def test_what_left_before_a_price_was_known_is_reserved_when_it_is(state: Path) -> None:
    with planned(state, [item(0), item(1), item(2)]) as store:
        async with recording(store):
            await store.record(started(1, 0), accepted(1))
            await store.record(started(2, 0), lost(2))
            await store.record(started(3, 50), accepted(3))
        store.reserve_open(lambda _endpoint, _given: 20)
        assert store.purse(None) == Purse(at_fal=70, lost=20)


async def test_the_dearest_bills_are_remembered(state: Path) -> None:
    with planned(state, [item(0), item(1)]) as store:
        async with recording(store):
            for job_id, units in ((1, 3.0), (2, 9.0)):
                await store.record(started(job_id, 0), accepted(job_id))
                await store.record(
                    ResultStored(job_id, f"r-{job_id}-1", AT, body=b"{}", content_type="", billable_units=units)
                )
        endpoint = store.job(1).endpoint
        assert [units for _, units in store.bills(endpoint)] == [9.0, 3.0]
        assert store.bills("fal-ai/other") == []


async def test_a_sample_of_bills_is_of_all_kinds_and_not_of_the_dearest(state: Path) -> None:
    count = 3 * SAMPLE
    with planned(state, [item(seq) for seq in range(count)]) as store:
        endpoint = store.job(1).endpoint
        # Ids as fal's are: in no order of time or price.
        rows = ((f"{number * 7919 % count:08x}", number + 1, 1.0 + number // SAMPLE) for number in range(count))
        store.connection.executemany(
            "INSERT INTO requests (request_id, job_id, attempt, status_url, response_url, cancel_url, status,"
            " accepted_at, billable_units) VALUES (?, ?, 1, '', '', '', 'completed', 0, ?)",
            rows,
        )
        found = sample_bills(store.connection, [endpoint, "fal-ai/other"])
    assert found["fal-ai/other"] == []
    units = [billed for _, billed in found[endpoint]]
    assert len(units) == SAMPLE
    assert sum(units) / SAMPLE == pytest.approx(2.0, abs=0.1)
    assert found[endpoint][0][0].startswith(b'{"prompt":"prompt ')


async def test_an_endpoint_that_no_sample_holds_is_known_by_its_dearest_bills(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spending, "LOOKED_THROUGH", 0)
    with planned(state, [item(0)]) as store:
        async with recording(store):
            await store.record(started(1, 0), accepted(1), result(1, 1, units=4.0))
        endpoint = store.job(1).endpoint
        assert [units for _, units in sample_bills(store.connection, [endpoint])[endpoint]] == [4.0]
