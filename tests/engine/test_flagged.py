"""What becomes of jobs whose result came with HTTP 200 and is flagged, or lacks what was asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from falbatch.core import changes
from falbatch.core.flags import FlagPolicy
from falbatch.core.identity import canonical_json
from falbatch.core.model import Mode
from falbatch.core.money import Price, Purse
from falbatch.core.pacing import RETRY_FLOOR
from falbatch.core.seeds import seed_of
from falbatch.core.state import Event, State
from falbatch.engine.settings import Scope
from falbatch.errors import LimitReached
from tests.engine.fakes import ONE_IMAGE, FakeAnswer, FakeResult, http, planned
from tests.engine.runs import Run, at_fal, settings_with, with_result

if TYPE_CHECKING:
    from falbatch.core.record import OpenJob

pytestmark = pytest.mark.anyio

A = "https://cdn/a.png"
NSFW = canonical_json({"images": [{"url": A}], "has_nsfw_concepts": [True], "seed": 77})
ERROR = canonical_json({"images": [{"url": A}], "error": "out of memory"})
REROLL = settings_with(flagged=FlagPolicy.REROLL)


def bodies(run: Run) -> list[dict[str, Any]]:
    """What every submit sends; to be asked after the run."""
    sent: list[dict[str, Any]] = []
    accept = run.queue.on_submit.default

    def answer(body: bytes) -> Any:
        sent.append(json.loads(body))
        return accept(body)

    run.queue.on_submit.default = answer
    return sent


def results(run: Run, *bodies_of_results: bytes, then: bytes = ONE_IMAGE) -> None:
    run.queue.on_result.then(*map(FakeResult, bodies_of_results))
    run.queue.on_result.default = FakeResult(then)


def flagged(run: Run) -> list[changes.ResultFlagged]:
    return run.store.of_kind(changes.ResultFlagged)


def failed_by(run: Run) -> list[tuple[str, str]]:
    refused = run.store.of_kind(changes.ResultRefused)
    return [(change.failure.error_type, change.failure.message) for change in refused]


@pytest.mark.parametrize(
    ("policy", "state", "is_marked", "path"),
    [
        (FlagPolicy.KEEP, State.DONE, False, "n1.png"),
        (FlagPolicy.MARK, State.DONE, True, "n1.png"),
        (FlagPolicy.FAIL, State.FAILED, False, "n1-rejected-1.png"),
    ],
)
async def test_what_the_manifest_says_of_flags_is_done(
    policy: FlagPolicy, state: State, is_marked: bool, path: str
) -> None:
    run = Run(settings=settings_with(flagged=policy))
    results(run, NSFW)
    await run.run()
    assert run.store.state_of(1) is state
    (change,) = flagged(run)
    assert (change.noticed.flags, change.noticed.seed, change.is_marked) == (("nsfw",), 77, is_marked)
    assert change.request_id == "r0"
    assert run.files.disk == {path: A.encode()}, "it was paid for"
    assert len(run.queue.submits) == 1


async def test_a_black_picture_is_known_when_it_is_here() -> None:
    run = Run(settings=settings_with(flagged=FlagPolicy.FAIL))
    run.files.black.add(A.encode())
    results(run, canonical_json({"images": [{"url": A}]}))
    await run.run()
    assert failed_by(run) == [("flagged", "its result is flagged: black")]
    assert run.files.disk == {"n1-rejected-1.png": A.encode()}, "its name is left to a result that is taken"


async def test_a_black_mask_says_nothing() -> None:
    run = Run(settings=settings_with(flagged=FlagPolicy.FAIL))
    run.files.black.add(A.encode())
    results(run, canonical_json({"image": {"url": "https://cdn/b.png"}, "mask": {"url": A}}))
    await run.run()
    assert run.store.state_of(1) is State.DONE
    assert flagged(run) == []


async def test_a_reroll_sends_another_seed_that_is_on_record_first() -> None:
    run = Run(settings=REROLL)
    sent = bodies(run)
    results(run, NSFW, NSFW)
    await run.run()
    key = planned(1).key
    seeds = [1, seed_of(key, 1), seed_of(key, 2)]
    assert sent == [{"seed": seed} for seed in seeds]
    assert run.store.state_of(1) is State.DONE
    started = run.store.of_kind(changes.SubmitStarted)
    assert [(change.roll, change.seed) for change in started] == [(0, None), (1, seeds[1]), (2, seeds[2])]
    assert [change.sent_sha256 is None for change in started] == [True, False, False]
    assert [change.noticed.files for change in flagged(run)] == [("n1-rejected-1.png",), ("n1-rejected-2.png",)]
    assert sorted(run.files.disk) == ["n1-rejected-1.png", "n1-rejected-2.png", "n1.png"]
    assert run.counter.further_attempts == run.counter.rerolls == 2
    rolled, left = run.log.index("rerolled 1"), [place for place, word in enumerate(run.log) if "submit fal" in word]
    assert left[0] < rolled < left[1]
    assert len(run.store.files_of(1)) == 1


async def test_an_input_without_a_seed_is_sent_as_it_is() -> None:
    run = Run(others=(planned(1, input_json=canonical_json({"prompt": "a kite"})),), settings=REROLL)
    sent = bodies(run)
    results(run, NSFW)
    await run.run()
    assert sent == [{"prompt": "a kite"}] * 2
    assert [(change.roll, change.seed) for change in run.store.of_kind(changes.SubmitStarted)] == [(0, None), (1, None)]


@pytest.mark.parametrize("seed", [7.0, "7"])
async def test_no_seed_is_paid_for_twice_however_it_is_written(seed: object) -> None:
    job = planned(1, input_json=canonical_json({"seed": seed}))
    run = Run(others=(job,), settings=REROLL)
    sent = bodies(run)
    results(run, NSFW, NSFW)
    await run.run()
    assert sent == [{"seed": seed}, {"seed": seed_of(job.key, 1)}, {"seed": seed_of(job.key, 2)}]


async def test_a_seed_that_cannot_be_replaced_is_not_paid_for_again() -> None:
    run = Run(others=(planned(1, input_json=canonical_json({"seed": "seven"})),), settings=REROLL)
    results(run, then=NSFW)
    await run.run()
    assert len(run.queue.submits) == 1
    assert failed_by(run) == [("flagged", "its result is flagged: nsfw (its seed cannot be replaced)")]


@pytest.mark.parametrize("attempts", [1, 3])
async def test_no_more_attempts_than_allowed_then_it_fails_with_its_files(attempts: int) -> None:
    run = Run(settings=settings_with(flagged=FlagPolicy.REROLL, attempts=attempts))
    results(run, then=NSFW)
    await run.run()
    assert len(run.queue.submits) == attempts
    assert run.store.state_of(1) is State.FAILED
    assert failed_by(run) == [("flagged", "its result is flagged: nsfw (retry.attempts is used up)")]
    assert sorted(run.files.disk) == [f"n1-rejected-{number + 1}.png" for number in range(attempts)]


async def test_failures_and_rerolls_share_the_attempts() -> None:
    run = Run(settings=settings_with(flagged=FlagPolicy.REROLL, attempts=3))
    sent = bodies(run)
    broken = http(500, "internal_error")
    run.queue.on_result.then(FakeResult(NSFW), broken, broken)
    run.queue.on_result.default = FakeResult(NSFW)
    await run.run()
    seed = seed_of(planned(1).key, 1)
    assert [one["seed"] for one in sent] == [1, seed, seed], "a failure of fal's own gets the same seed again"
    assert run.store.state_of(1) is State.FAILED


@pytest.mark.parametrize("download_s", [0.01, 20.0])
async def test_rerolls_wait_for_room_and_go_before_new_jobs(download_s: float) -> None:
    """Their pictures come all at once, and the window is full of others by then."""
    run = Run(jobs=30, settings=settings_with(flagged=FlagPolicy.REROLL, in_flight=2, retry_ratio=1.0))
    run.files.latency_s = download_s
    results(run, *[NSFW] * 10)
    assert await run.run() is None
    assert (run.most_at_fal, len(run.queue.submits)) == (2, 40)
    assert set(run.store.states()) == {State.DONE}
    if download_s < 1:
        started = run.store.of_kind(changes.SubmitStarted)
        assert max(place for place, one in enumerate(started) if one.roll) < 39, "none had to wait for the end"


async def test_a_gate_that_closes_lets_waiting_rerolls_go() -> None:
    run = Run(jobs=30, settings=settings_with(flagged=FlagPolicy.REROLL, in_flight=1, max_failures=0))
    run.files.latency_s = 3.0
    run.queue.on_result.then(*[FakeResult(NSFW)] * 5, http(422, "invalid"))
    assert isinstance(await run.run(), LimitReached)
    rolled = [job for job in run.store.jobs.values() if job.roll]
    assert State.PLANNED in {job.state for job in rolled}, "it waits for the next run"


async def test_the_batchs_budget_bounds_rerolls() -> None:
    run = Run(jobs=RETRY_FLOOR + 5, settings=settings_with(flagged=FlagPolicy.REROLL, retry_ratio=1e-9))
    results(run, then=NSFW)
    await run.run()
    assert len(run.queue.submits) == 2 * RETRY_FLOOR + 6
    none = Run(jobs=5, settings=settings_with(flagged=FlagPolicy.REROLL, retry_ratio=0.0))
    results(none, then=NSFW)
    await none.run()
    assert len(none.queue.submits) == 5
    assert {"retry.budget is used up" in message for _, message in failed_by(run)} == {True}


async def test_the_money_limit_holds_and_the_reroll_waits_for_more_money() -> None:
    run = Run(
        settings=settings_with(flagged=FlagPolicy.REROLL, max_cost_nano=15),
        prices={"fal-ai/x": Price(10, "image")},
        purse=Purse(15),
    )
    results(run, then=NSFW)
    assert isinstance(await run.run(), LimitReached)
    assert len(run.queue.submits) == 1
    job = run.store.jobs[1]
    assert (job.state, job.roll) == (State.PLANNED, 1)


async def test_a_reroll_of_an_earlier_run_goes_on_with_its_seed() -> None:
    run = Run(others=(planned(1, attempts=1, failures=1, roll=1),), settings=REROLL)
    sent = bodies(run)
    await run.run()
    assert sent == [{"seed": seed_of(planned(1).key, 1)}]


async def test_a_run_that_submits_nothing_leaves_the_reroll_to_the_next() -> None:
    run = Run(paid=(at_fal(1),), settings=settings_with(flagged=FlagPolicy.REROLL, scope=Scope.PAID, retry_ratio=0.0))
    results(run, then=NSFW)
    await run.run()
    assert run.queue.submits == []
    job = run.store.jobs[1]
    assert (job.state, job.roll, job.failures) == (State.PLANNED, 1, 1)


async def test_a_job_outside_of_the_chosen_part_is_left_to_a_later_run_with_its_share_of_the_budget() -> None:
    run = Run(jobs=0, paid=(at_fal(1), with_result(2)), settings=replace(REROLL, retry_ratio=0.0))
    run.store.outside = {1, 2}
    run.store.stored[2] = run_result(NSFW)
    results(run, then=NSFW)
    assert await run.run() is None
    assert run.queue.submits == []
    assert [(job.state, job.roll) for job in run.store.jobs.values()] == [(State.PLANNED, 1)] * 2


async def test_files_that_are_fetched_again_roll_nothing() -> None:
    run = Run(paid=(with_result(1),), settings=settings_with(flagged=FlagPolicy.REROLL, scope=Scope.FILES))
    run.store.stored[1] = run_result(NSFW)
    await run.run()
    assert run.queue.submits == []
    assert run.store.state_of(1) is State.FAILED


def run_result(body: bytes) -> Any:
    from falbatch.core.record import StoredResult

    return StoredResult(body, "application/json")


async def test_a_job_that_left_the_manifest_is_not_rolled_again() -> None:
    run = Run(jobs=0, paid=(at_fal(1, seq=None),), settings=REROLL)
    results(run, then=NSFW)
    await run.run()
    assert run.queue.submits == []
    assert failed_by(run)[0][0] == "flagged"


@pytest.mark.parametrize(
    ("body", "error_type"),
    [
        (ERROR, "error_in_result"),
        (b"{}", "empty_result"),
        (b"null", "empty_result"),
        (canonical_json({"images": []}), "empty_result"),
    ],
)
@pytest.mark.parametrize("policy", list(FlagPolicy))
async def test_a_result_that_lacks_something_is_never_a_success(
    body: bytes, error_type: str, policy: FlagPolicy
) -> None:
    run = Run(settings=settings_with(flagged=policy))
    results(run, body)
    await run.run()
    assert run.store.state_of(1) is State.FAILED
    assert failed_by(run)[0][0] == error_type
    assert len(run.queue.submits) == 1, "what was paid for is not repeated by itself"
    assert all("-rejected-1" in path for path in run.files.disk)
    assert run.files.disk or error_type == "empty_result"


async def test_a_flag_is_rolled_again_also_where_something_lacks() -> None:
    both = canonical_json({"images": [], "has_nsfw_concepts": [True], "seed": 5})
    run = Run(settings=REROLL)
    results(run, both)
    await run.run()
    assert run.store.state_of(1) is State.DONE
    assert len(run.queue.submits) == 2


async def test_without_files_results_are_judged_by_what_they_say() -> None:
    run = Run(jobs=3, settings=settings_with(flagged=FlagPolicy.REROLL, with_files=False))
    results(run, ERROR, NSFW)
    await run.run()
    assert sorted(run.store.states()) == [State.COMPLETED, State.COMPLETED, State.FAILED]
    assert len(run.queue.submits) == 4
    assert run.files.fetches == []
    assert sorted(run.ended()) == [State.COMPLETED, State.COMPLETED, State.FAILED]


@pytest.mark.parametrize("mode", [Mode.RUN, Mode.STREAM, Mode.REALTIME])
async def test_direct_calls_are_judged_alike(mode: Mode) -> None:
    run = Run(others=(planned(1, mode=mode), planned(2, mode=mode)), jobs=0, settings=replace(REROLL, mode=mode))
    run.direct.on_call.default = lambda body: FakeAnswer(NSFW if json.loads(body)["seed"] == 1 else ONE_IMAGE)
    await run.run()
    assert run.store.states() == [State.DONE, State.DONE]
    assert sorted(json.loads(body)["seed"] for _, _, body in run.direct.calls) == sorted(
        [1, 2, seed_of(planned(1).key, 1)]
    )


async def test_paid_results_without_end_that_say_no_end_the_run() -> None:
    """Each of them had a result, which resets the count of requests that fail alike; these are counted apart."""
    run = Run(jobs=60, settings=settings_with(in_flight=1))
    results(run, then=ERROR)
    assert isinstance(await run.run(), LimitReached)
    assert len(run.queue.submits) <= 22


async def test_results_that_say_no_now_and_then_end_nothing() -> None:
    run = Run(jobs=60, settings=settings_with(in_flight=1))
    run.queue.on_result.then(*(FakeResult(ERROR if number % 3 else ONE_IMAGE) for number in range(60)))
    assert await run.run() is None
    assert run.store.states().count(State.FAILED) == 40


async def test_a_crash_before_the_verdict_is_judged_by_the_next_run() -> None:
    """Its file is on record and on disk already: it keeps its name, and what is known of it."""
    first = Run(settings=settings_with(flagged=FlagPolicy.FAIL))
    results(first, canonical_json({"images": [{"url": A}]}))
    first.files.black.add(A.encode())
    await first.run()
    job: OpenJob = replace(first.store.jobs[1], state=State.COMPLETED)
    again = Run(paid=(job,), settings=settings_with(flagged=FlagPolicy.FAIL))
    again.store.stored = first.store.stored
    again.store.files = first.store.files
    again.files.disk = first.files.disk
    await again.run()
    assert again.files.fetches == []
    assert again.store.state_of(1) is State.FAILED
    assert again.events_of(1) == [Event.RESULT_REFUSED]


async def test_files_that_came_beside_a_dead_link_are_kept() -> None:
    """Also where all had to be here before the first was named."""
    two = canonical_json({"images": [{"url": A}, {"url": "https://cdn/b.png"}]})
    run = Run(settings=REROLL)
    run.files.web["https://cdn/b.png"] = lambda: http(404)
    results(run, two)
    await run.run()
    assert run.store.state_of(1) is State.FAILED
    assert run.files.disk == {"n1-1.png": A.encode()}
    assert len(run.store.files_of(1)) == 1
