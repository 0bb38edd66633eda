"""What fal's calls do to a run: they end waits and settle lost submits, and are never needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from falbatch.core import changes
from falbatch.core.callback import CallbackUrls, attempt_of
from falbatch.core.events import FoundByCallback, Notice
from falbatch.core.schedule import GRACE_S, NET_LEAST_S, NET_PAUSE_S, NET_UNKNOWN_S
from falbatch.core.state import State
from tests.engine.fakes import FakeAccepted, http, refused, unanswered, unknown
from tests.engine.runs import Run, at_fal, lost_before, replica, settings_with

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio

URLS = CallbackUrls("https://hooks.example.org/fal", bytes(32))
AGES = 1e9
"""A service time beyond every test: only a call tells of an end."""

Call = tuple[float, int, int, str, str | None]
"""When (seconds), job, attempt, request id, error."""


def called_run(**more: Any) -> Run:
    run = Run(**{"callbacks": URLS, **more})
    run.queue.service_s = AGES
    return run


async def with_calls(run: Run, *calls: Call) -> None:
    """The whole run, with fal's calls at their times; what comes when it is over comes to nobody."""

    async def call() -> None:
        for at_s, job_id, attempt, request_id, error in sorted(calls):
            await anyio.sleep(at_s - anyio.current_time())
            run.execution.called_back(job_id, attempt, request_id, error)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await run.run()
        group.cancel_scope.cancel()


def slow(answer: object, seconds: float) -> Callable[[bytes], Awaitable[object]]:
    """An answer to a submit after a while."""

    async def later() -> object:
        await anyio.sleep(seconds)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return lambda _body: later()


def notices(run: Run) -> list[str]:
    return [event.text for event in run.heard if isinstance(event, Notice)]


def asked_about(run: Run) -> list[str]:
    return [request_id for _, request_id in run.queue.polls]


async def test_each_submit_tells_fal_where_to_call_about_it() -> None:
    run = called_run(jobs=2)
    run.queue.on_submit.then(refused())
    await with_calls(run, (20.0, 1, 2, "r1", None), (20.0, 1, 2, "r0", None), (20.0, 2, 1, "r0", None))
    tokens = [url.removeprefix("https://hooks.example.org/fal/") for url in run.queue.callbacks if url is not None]
    assert sorted(attempt_of(URLS.secret, token) or () for token in tokens) == [(1, 1), (1, 2), (2, 1)]


async def test_a_run_without_a_listener_tells_fal_nothing() -> None:
    run = Run()
    await run.run()
    assert run.queue.callbacks == [None]


async def test_a_call_ends_the_wait_and_only_the_first_request_is_ever_asked_about() -> None:
    run = called_run(jobs=3)
    await with_calls(run, *((5.0 + number, number, 1, f"r{number - 1}", None) for number in (1, 2, 3)))
    assert run.store.states() == [State.DONE] * 3
    assert set(asked_about(run)) == {"r0"}
    assert all(at_s < 6.0 for at_s, _ in run.queue.polls), "nobody is asked about once a call has come"
    assert [round(at_s) for at_s, _ in run.queue.results] == [6, 7, 8]


async def test_a_call_that_is_faster_than_the_answer_to_the_submit_is_remembered() -> None:
    run = called_run()
    run.queue.on_submit.then(slow(FakeAccepted("early"), 10.0))
    await with_calls(run, (5.0, 1, 1, "early", None))
    assert run.store.states() == [State.DONE]
    assert run.queue.polls == []


async def test_a_lost_submit_is_adopted_when_fal_calls_about_it() -> None:
    run = called_run()
    run.queue.on_submit.then(unanswered())
    await with_calls(run, (8.0, 1, 1, "lost", None))
    assert run.store.states() == [State.DONE]
    assert run.heard.count(FoundByCallback(1)) == 1
    assert run.counter.found_by_callback == 1
    assert run.counter.failed == 0, "it is not unknown any more"
    assert run.queue.polls == []
    assert len(run.queue.submits) == 1


async def test_a_call_about_a_submit_under_way_settles_it_when_it_ends_without_an_answer() -> None:
    run = called_run()
    run.queue.on_submit.then(slow(unanswered(), 10.0))
    await with_calls(run, (5.0, 1, 1, "lost", None))
    assert run.store.states() == [State.DONE]
    assert run.store.requests == {"lost": 1}
    assert len(run.queue.submits) == 1


async def test_a_lost_submit_is_waited_for_also_where_fal_lists_nothing() -> None:
    run = called_run()
    run.queue.on_submit.then(unanswered())
    run.requests.on_page.default = http(403)
    await with_calls(run, (45.0, 1, 1, "lost", None))
    assert run.store.states() == [State.DONE]
    assert len(run.requests.asked) == 1, "what is refused is not asked for again"
    assert run.counter.trouble


async def test_but_not_for_ever() -> None:
    run = called_run(settings=settings_with(reconcile_s=40.0))
    run.queue.on_submit.then(unanswered())
    run.requests.on_page.default = http(403)
    await with_calls(run, (500.0, 1, 1, "lost", None))
    assert run.store.states() == [State.UNKNOWN]
    assert 40 <= anyio.current_time() <= 60


async def test_a_submit_of_an_earlier_run_is_adopted_too() -> None:
    run = called_run(jobs=0, others=(unknown(1), unknown(2)), settings=settings_with(reconcile_s=60.0))
    await with_calls(run, (5.0, 2, 1, "lost", None))
    assert run.store.states() == [State.UNKNOWN, State.DONE]


async def test_of_a_job_that_was_submitted_again_the_first_request_is_recorded_with_its_cost() -> None:
    again = replica(1, state=State.DONE, attempts=2, request=None)
    run = called_run(jobs=0, others=(again, unknown(2)), attempts={(1, 1): lost_before(90)})
    await with_calls(run, (1.0, 1, 1, "old", None), (2.0, 2, 1, "two", None))
    first = run.store.of_kind(changes.RequestFound)[0]
    assert (first.event, first.request_id, first.cost) == (None, "old", 10)
    assert [request_id for _, request_id in run.queue.results] == ["two"]


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ((5.0, 1, 1, "foreign", None), "names another request than the one on record"),
        ((5.0, 1, 7, "r0", None), "no such submit is on record"),
        ((5.0, 9, 1, "r0", None), "no such submit is on record"),
    ],
)
async def test_what_is_about_no_request_of_ours_is_dropped_and_told(call: Call, why: str) -> None:
    run = called_run()
    await with_calls(run, call, (9.0, 1, 1, "r0", None))
    assert run.store.states() == [State.DONE]
    assert [why in text for text in notices(run)] == [True]
    assert run.queue.results[0][0] >= 9.0


async def test_a_call_about_a_request_of_another_job_adopts_nothing() -> None:
    run = called_run(jobs=2, settings=settings_with(reconcile_s=20.0))
    run.queue.on_submit.then(unanswered())
    await with_calls(run, (8.0, 1, 1, "r0", None), (9.0, 2, 1, "r0", None))
    assert run.store.states() == [State.UNKNOWN, State.DONE]
    assert "another submit's" in notices(run)[0]


async def test_a_call_about_a_submit_that_fal_refused_is_dropped() -> None:
    run = called_run()
    run.queue.on_submit.then(refused())
    await with_calls(run, (0.9, 1, 1, "odd", None), (20.0, 1, 2, "r0", None))
    assert run.store.requests == {"r0": 1}
    assert "dropped: fal has refused that submit" in notices(run)[0]


async def test_an_early_call_that_names_another_request_than_the_answer_is_dropped() -> None:
    run = called_run()
    run.queue.on_submit.then(slow(FakeAccepted("ours"), 10.0))
    await with_calls(run, (5.0, 1, 1, "foreign", None), (20.0, 1, 1, "ours", None))
    assert run.store.requests == {"ours": 1}
    assert "another request" in notices(run)[0]


async def test_many_strange_calls_are_not_told_one_by_one() -> None:
    run = called_run()
    await with_calls(run, *((5.0, 1, 1, f"x{number}", None) for number in range(50)), (9.0, 1, 1, "r0", None))
    assert len(notices(run)) == 20
    assert "no more of these are told" in notices(run)[-1]


async def test_a_failure_is_believed_only_from_fals_own_answer() -> None:
    run = called_run(jobs=2)
    run.queue.on_result.then(http(422, "content_policy_violation"))
    await with_calls(
        run, (5.0, 1, 1, "r0", "Invalid status code: 422"), (6.0, 2, 1, "r1", "a lie: the result is there")
    )
    assert run.store.states() == [State.FAILED, State.DONE]


async def test_a_failure_that_the_call_named_too_is_looked_at_once() -> None:
    run = called_run(settings=settings_with(attempts=1))
    run.queue.on_result.default = http(500, "internal_server_error")
    await with_calls(run, (5.0, 1, 1, "r0", "Invalid status code: 500"))
    assert run.store.states() == [State.FAILED]
    assert len(run.queue.results) == 1


@pytest.mark.parametrize("error", [None, "Invalid status code: 400"])
async def test_not_yet_after_a_call_goes_back_to_asking(error: str | None) -> None:
    run = called_run()
    run.queue.service_s = 12.0
    run.queue.on_result.then(http(400))
    await with_calls(run, (5.0, 1, 1, "r0", error))
    assert run.store.states() == [State.DONE]
    assert len(run.queue.results) == 2
    assert run.queue.results[1][0] >= 12.0


async def test_a_lost_call_costs_time_and_nothing_else() -> None:
    """The second job's webhook never comes: found by the safety net, with one question."""
    run = called_run(jobs=2)
    run.queue.service_s = 30.0
    await with_calls(run, (2.0, 1, 1, "r0", None))
    assert run.store.states() == [State.DONE] * 2
    assert [at_s for at_s, request_id in run.queue.polls if request_id == "r1"] == [pytest.approx(NET_UNKNOWN_S, abs=1)]
    assert notices(run) == [], "one lost call is no reason to distrust the others"


async def test_the_safety_net_asks_seldom() -> None:
    run = called_run(jobs=2)
    await with_calls(run, (2.0, 1, 1, "r0", None), (1000.0, 2, 1, "r1", None))
    asked_s = [at_s for at_s, request_id in run.queue.polls if request_id == "r1"]
    assert asked_s == [pytest.approx(NET_UNKNOWN_S + NET_PAUSE_S * number, abs=2) for number in range(4)]


async def test_where_no_call_ever_comes_a_run_notices_after_the_first_job() -> None:
    run = called_run(jobs=40)
    run.queue.service_s = 3.0
    await run.run()
    assert run.store.states() == [State.DONE] * 40
    assert ["no webhook about them came here" in text for text in notices(run)] == [True]
    assert anyio.current_time() < 3.0 + GRACE_S + 5.0, "minutes of the safety net were not waited for"


async def test_calls_that_come_after_all_are_trusted_again() -> None:
    run = called_run(jobs=3, settings=settings_with(in_flight=1))
    run.queue.service_s = 3.0
    late = 3.2 + GRACE_S + 1.0
    run.queue.on_result.then(slow(http(503), 6.0))
    await with_calls(run, (late, 1, 1, "r0", None))
    assert run.store.states() == [State.DONE] * 3
    assert ["no webhook" in text for text in notices(run)] == [True, False]
    assert "webhooks arrive" in notices(run)[1]
    assert len([one for one in asked_about(run) if one == "r1"]) == 1


async def test_a_scout_that_learns_nothing_has_a_successor() -> None:
    """The first request vanishes at fal; the next one is asked about in its place, and tells that no calls come."""
    run = called_run(jobs=3, settings=settings_with(attempts=1))
    run.queue.service_s = 20.0
    gone = iter([http(404)] * 4)
    run.queue.on_result.then(http(404), http(404), http(404))

    def status(request: Any) -> Any:
        if request.request_id == "r0":
            return next(gone, http(404))
        return run.queue._progress(request)

    run.queue.on_status.default = status
    await run.run()
    assert sorted(run.store.states()) == [State.DONE, State.DONE, State.FAILED]
    assert anyio.current_time() < 60.0


async def test_a_call_about_a_request_of_an_earlier_run_ends_its_wait() -> None:
    run = called_run(jobs=0, paid=(at_fal(1),))
    run.queue.accepted_at["old1"] = 0.0
    await with_calls(run, (5.0, 1, 1, "old1", None))
    assert run.store.states() == [State.DONE]
    assert run.queue.results[0][0] == pytest.approx(5.0, abs=0.1)


async def test_calls_that_come_twice_or_late_do_nothing() -> None:
    run = called_run(jobs=2)
    twice = [(5.0, 1, 1, "r0", None), (5.005, 1, 1, "r0", None), (8.0, 1, 1, "r0", "late")]
    await with_calls(run, *twice, (9.0, 2, 1, "r1", None))
    assert run.store.states() == [State.DONE] * 2
    assert len(run.queue.results) == 2


async def test_durations_are_learned_from_calls() -> None:
    run = called_run(jobs=10, settings=settings_with(in_flight=1))
    ends = [(10.0 * (number + 1), number + 1, 1, f"r{number}", None) for number in range(9)]
    await with_calls(run, *ends, (200.0, 10, 1, "r9", None))
    net_s = [at_s for at_s, request_id in run.queue.polls if request_id == "r9"]
    assert net_s == [pytest.approx(90.0 + NET_LEAST_S, abs=1)], "not after the two minutes of an unknown endpoint"
    assert run.execution._polls.usual_s("fal-ai/x") == pytest.approx(10.0, abs=1.0)
