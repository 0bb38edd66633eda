"""The window's size against a model of fal: it finds the cap, follows it, keeps fal busy and shares it out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from falbatch.core.plateau import AHEAD_LEAST, SLOW_START_SIZE
from tests.core.fal_model import Endpoint, FalModel

if TYPE_CHECKING:
    from collections.abc import Callable

UNLIMITED = 10**9


def always(cap: int) -> Callable[[float], int]:
    return lambda _now_s: cap


def played(endpoints: dict[str, Endpoint], cap: Callable[[float], int], **more: float | bool) -> tuple[FalModel, float]:
    """A whole run, and its throughput as a share of an unlimited window's: by when most of the jobs had ended."""
    run = FalModel(endpoints, cap, **more)  # type: ignore[arg-type]  # the test's own words
    run.run()
    unlimited = FalModel(endpoints, cap, size=UNLIMITED, **more)  # type: ignore[arg-type]  # as above
    unlimited.run()
    most = int(0.85 * sum(one.jobs for one in endpoints.values()))
    return run, time_of(unlimited, most) / time_of(run, most)


def time_of(run: FalModel, jobs: int) -> float:
    """When so many jobs had ended at fal."""
    return sorted(end_s for ends_s in run.ends_s.values() for end_s in ends_s)[jobs]


def sizes(run: FalModel, from_s: float, to_s: float) -> list[float]:
    return [one.size for one in run.between(from_s, to_s)]


@pytest.mark.parametrize(("spread", "is_warm"), [(0.1, True), (0.5, False)], ids=["steady-warm", "spread-cold"])
@pytest.mark.parametrize("work_s", [0.5, 5.0, 60.0])
@pytest.mark.parametrize(("cap", "jobs"), [(2, 120), (10, 300), (40, 1000)])
def test_fal_is_busy_and_the_window_stays_a_little_above_its_cap(
    cap: int, jobs: int, work_s: float, spread: float, is_warm: bool
) -> None:
    run, throughput = played({"a": Endpoint(jobs, work_s, spread)}, always(cap), is_warm=is_warm)
    assert throughput >= (0.97 if work_s >= 5 else 0.95)  # the ramp takes two seconds of the shortest run's fifteen
    end_s = time_of(run, int(0.85 * jobs))
    settled = sizes(run, end_s / 2, end_s)
    assert min(settled) >= cap
    assert max(settled) <= 2.2 * cap + AHEAD_LEAST + 2


def test_a_contract_for_a_thousand_is_found() -> None:
    run, throughput = played({"a": Endpoint(4000, 60.0, 0.3)}, always(1000), is_warm=True)
    assert throughput >= 0.97
    assert max(one.at_fal for one in run.between(0, 15)) > 1000
    assert all(1000 <= size <= 2300 for size in sizes(run, 60, time_of(run, 3000)))


def test_a_new_account_never_sees_more_than_a_slow_start_and_a_margin() -> None:
    run, _ = played({"a": Endpoint(60, 60.0, 0.3)}, always(2))
    assert max(one.at_fal for one in run.seen) <= SLOW_START_SIZE + 6


@pytest.mark.parametrize("work_s", [5.0, 60.0])
def test_a_cap_that_is_raised_is_followed(work_s: float) -> None:
    at_s = 10 * work_s
    run, throughput = played({"a": Endpoint(1500, work_s, 0.3)}, lambda now_s: 10 if now_s < at_s else 80)
    assert throughput >= 0.97
    assert max(sizes(run, 0, at_s)) <= 2.2 * 10 + AHEAD_LEAST + 2
    assert min(sizes(run, at_s + 3 * work_s, time_of(run, 1275))) >= 80
    assert max(sizes(run, at_s, time_of(run, 1275))) <= 2.2 * 80 + AHEAD_LEAST


@pytest.mark.parametrize("work_s", [5.0, 60.0])
def test_a_cap_that_is_lowered_is_followed(work_s: float) -> None:
    at_s = 5 * work_s
    run, throughput = played({"a": Endpoint(650, work_s, 0.3)}, lambda now_s: 80 if now_s < at_s else 10)
    # A job that the ramp lost at 80 at a time is made up for at 10 at a time.
    assert throughput >= (0.97 if work_s >= 60 else 0.94)
    end_s = time_of(run, 600)
    assert max(sizes(run, end_s - work_s, end_s)) <= 2.2 * 10 + AHEAD_LEAST + 5


@pytest.mark.parametrize("work_s", [0.5, 5.0])
def test_runners_that_start_slowly_are_not_taken_for_a_cap(work_s: float) -> None:
    jobs = int(1200 * 5 / (work_s + 4.5))
    run, _ = played({"a": Endpoint(jobs, work_s, 0.3, ready_at_s=60.0)}, always(40))
    assert max(one.at_fal for one in run.between(0, 59)) <= SLOW_START_SIZE
    # The questions about what waited for a minute come a third of their age apart: then it goes as from the start.
    first_s = run.between(60, 1e9)[0].at_s
    assert min(sizes(run, first_s + 15 * work_s, run.now_s - 4 * work_s)) >= 40


@pytest.mark.parametrize("is_warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("work_s", [0.5, 5.0])
def test_where_fal_tells_no_inference_time_early_looks_tell(work_s: float, is_warm: bool) -> None:
    run, throughput = played({"a": Endpoint(1200, work_s, 0.3)}, always(40), tells_inference=False, is_warm=is_warm)
    assert throughput >= (0.97 if work_s >= 5 else 0.93)  # again the ramp: two seconds of fifteen
    end_s = time_of(run, 1000)
    assert min(sizes(run, end_s / 2, end_s)) >= 40
    assert max(sizes(run, end_s / 2, end_s)) <= 2.4 * 40 + AHEAD_LEAST


@pytest.mark.parametrize("is_warm", [False, True], ids=["cold", "warm"])
def test_work_beyond_the_inference_time_is_not_taken_for_waiting(is_warm: bool) -> None:
    run, throughput = played({"a": Endpoint(1000, 0.5, 0.3)}, always(40), overhead_s=2.0, is_warm=is_warm)
    assert throughput >= 0.97
    assert max(sizes(run, 20, 50)) <= 2.2 * 40 + AHEAD_LEAST + 2


@pytest.mark.parametrize("asked_every", [10**9, 20], ids=["one-asked", "some-asked"])
@pytest.mark.parametrize("spread", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("work_s", [2.0, 20.0])
def test_fals_calls_tell_enough(work_s: float, spread: float, asked_every: int) -> None:
    """They come at the end and tell no inference time; hardly anything is asked about."""
    more: dict[str, float | bool] = {"calls": True, "asked_every": asked_every}
    free, _ = played({"a": Endpoint(3000, work_s, spread)}, always(UNLIMITED), **more)
    assert max(one.size for one in free.seen) >= 600
    assert free.now_s <= 25 * work_s * (1 + 2 * spread) + 10
    capped, throughput = played({"a": Endpoint(3000, work_s, spread)}, always(40), **more)
    assert throughput >= 0.93
    end_s = time_of(capped, 2500)
    # Only the shortest usual stay is known, and that the less exactly the more they differ.
    assert min(sizes(capped, end_s / 2, end_s)) >= (40 if spread < 0.5 else 32)
    assert max(sizes(capped, end_s / 2, end_s)) <= 2.7 * 40 + AHEAD_LEAST


THREE = {"slow": Endpoint(200, 60.0, 0.3), "middle": Endpoint(600, 5.0, 0.3), "fast": Endpoint(2000, 0.5, 0.3)}


@pytest.mark.parametrize("names", [("slow", "fast"), ("middle", "fast"), ("slow", "middle", "fast")])
def test_endpoints_of_different_speed_share_the_window(names: tuple[str, ...]) -> None:
    run = FalModel({name: THREE[name] for name in names}, always(40))
    run.run(until_s=80.0)
    assert all(run.left.values()), "all of them still have work"
    shares = [one.slots for one in run.between(5, 80)]
    for name in names:
        mean = sum(slots[name] / sum(slots.values()) for slots in shares) / len(shares)
        assert mean == pytest.approx(1 / len(names), abs=0.12)
    found = sizes(run, 5, 80)
    assert sorted(found)[len(found) // 20] >= 40
    assert max(found) <= 3.5 * 40, "for a while before anything of the slow one has ended"
    assert run.busy_s >= 0.93 * 40 * 80, "and fal is hardly ever idle"


def test_an_endpoint_without_runners_keeps_nobody_from_coming() -> None:
    endpoints = {"starting": Endpoint(400, 5.0, 0.3, ready_at_s=1e6), "ready": Endpoint(1000, 5.0, 0.3)}
    run = FalModel(endpoints, always(40))
    run.run(until_s=100.0)
    assert max(one.slots["starting"] for one in run.seen) == SLOW_START_SIZE
    assert len(run.ends_s["ready"]) >= 0.93 * 40 * 100 / 5.0
    assert max(sizes(run, 5, 100)) <= 2.2 * 40 + AHEAD_LEAST + SLOW_START_SIZE


def test_an_endpoint_with_a_cap_of_its_own_keeps_nobody_from_coming() -> None:
    endpoints = {"hot": Endpoint(400, 5.0, 0.3, own_cap=5), "cool": Endpoint(1000, 5.0, 0.3)}
    run = FalModel(endpoints, always(40))
    run.run(until_s=100.0)
    assert len(run.ends_s["cool"]) >= 0.9 * 35 * 100 / 5.0
    assert max(sizes(run, 5, 100)) <= 4 * 40, "its own line is held besides"


def test_one_seed_is_one_run() -> None:
    first, again = (FalModel({"a": Endpoint(100, 1.0, 0.5)}, always(10)) for _ in range(2))
    first.run()
    again.run()
    assert first.seen == again.seen
