"""Which jobs are tried first: as many as asked for, fairly from all strata, spread over each, and always the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.canary import LATER, Draws, Tried, choose, narrowed, shares, spread
from falbatch.core.plan import Action, Change, Plan

COUNTS = st.lists(st.integers(0, 60), min_size=1, max_size=12)
SEEDS = st.sampled_from(["portraits", "kites", "", "ü"])


@given(COUNTS, st.integers(0, 400), SEEDS)
def test_exactly_as_many_as_asked_for_or_all_there_are(sizes: list[int], count: int, seed: str) -> None:
    strata = [range(1000 * place, 1000 * place + size) for place, size in enumerate(sizes)]
    chosen = choose(strata, [0] * len(sizes), count, Draws(seed))
    assert len(chosen) == len(set(chosen)) == min(count, sum(sizes))
    assert set(chosen) <= {job for jobs in strata for job in jobs}


@given(COUNTS, st.integers(0, 400), SEEDS)
def test_shares_differ_by_one_at_most_where_there_are_enough_jobs(sizes: list[int], count: int, seed: str) -> None:
    given_ = shares(sizes, [0] * len(sizes), count, Draws(seed))
    enough = [share for share, size in zip(given_, sizes, strict=True) if share < size]
    assert not enough or max(given_) - min(enough) <= 1
    assert all(share <= size for share, size in zip(given_, sizes, strict=True))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=12), st.integers(0, 400))
def test_strata_of_which_more_were_tried_before_get_less(pairs: list[tuple[int, int]], count: int) -> None:
    sizes, taken = [size for size, _ in pairs], [had for _, had in pairs]
    given_ = shares(sizes, taken, count, Draws("x"))
    assert sum(given_) == min(count, sum(sizes))
    levels = [had + share for had, share in zip(taken, given_, strict=True)]
    for share, had, size in zip(given_, taken, sizes, strict=True):
        if share < size:
            assert all(level <= had + share + 1 for level, more in zip(levels, given_, strict=True) if more)


@given(COUNTS, st.integers(0, 400), SEEDS)
def test_the_same_batch_and_number_give_the_same_choice(sizes: list[int], count: int, seed: str) -> None:
    strata = [range(1000 * place, 1000 * place + size) for place, size in enumerate(sizes)]
    none = [0] * len(sizes)
    assert choose(strata, none, count, Draws(seed)) == choose(strata, none, count, Draws(seed))


@given(st.integers(1, 1_000_000), st.integers(1, 200), SEEDS)
def test_one_comes_from_each_equal_part(total: int, count: int, seed: str) -> None:
    places = spread(total, count, Draws(seed))
    count = min(total, count)
    assert len(places) == count
    for number, place in enumerate(places):
        assert number * total // count <= place < (number + 1) * total // count


@given(st.integers(2, 300), SEEDS)
def test_one_row_of_each_of_many_strata_are_rows_all_over_the_batch(strata: int, seed: str) -> None:
    """Each stratum has the same 100,000 rows: the rows chosen leave no great gap."""
    rows = range(100_000)
    chosen = sorted(choose([rows] * strata, [0] * strata, strata, Draws(seed)))
    gaps = [after - before for before, after in zip([0, *chosen], [*chosen, 100_000], strict=True)]
    assert max(gaps) <= 3 * 100_000 / strata


@given(st.integers(1, 30), SEEDS)
def test_of_more_strata_than_jobs_those_that_lie_apart_are_chosen(count: int, seed: str) -> None:
    given_ = shares([5] * 600, [0] * 600, count, Draws(seed))
    places = [place for place, share in enumerate(given_) if share]
    assert sum(given_) == len(places) == count
    assert all(number * 600 // count <= place < (number + 1) * 600 // count for number, place in enumerate(places))


def test_another_batch_has_another_choice() -> None:
    assert spread(1_000_000, 10, Draws("portraits")) != spread(1_000_000, 10, Draws("kites"))


def test_values_of_one_axis_do_not_fall_into_step_with_the_choice() -> None:
    """6 styles × 100 seeds and 6 jobs: every style, and not always the same seed."""
    places = spread(600, 6, Draws("portraits"))
    assert [place // 100 for place in places] == [0, 1, 2, 3, 4, 5]
    assert len({place % 100 for place in places}) == 6


WHOLE = Plan(
    name="x",
    total=100,
    output_dir="out",
    actions={Action.SUBMIT: 80, Action.WAIT: 5, Action.DOWNLOAD: 0, Action.SKIP: 15},
    changes=dict.fromkeys(Change, 0),
    reasons={"new": 30, "not submitted yet": 50, "done": 15, "at fal: request": 5},
    orphans=0,
    first=(),
    changed=(),
    orphaned=(),
)


@pytest.mark.parametrize(
    ("jobs", "tried", "submit", "about"),
    [
        (10, Tried(), 10, (10, 0, 0, 70)),
        (200, Tried(), 80, (80, 0, 0, 0)),
        (10, Tried(done=6, paid=1, ended=1, open=2), 2, (10, 6, 8, 78)),
        (10, Tried(done=9, ended=1), 0, (10, 9, 10, 80)),
        (5, Tried(done=9), 0, (9, 9, 9, 80)),
        (20, Tried(done=10), 10, (20, 10, 10, 70)),
    ],
)
def test_a_plan_is_narrowed_to_what_the_canary_still_lacks(
    jobs: int, tried: Tried, submit: int, about: tuple[int, ...]
) -> None:
    plan = narrowed(WHOLE, jobs, tried)
    assert plan.canary is not None
    assert (plan.canary.jobs, plan.canary.done, plan.canary.begun, plan.canary.later) == about
    assert plan.actions[Action.SUBMIT] == submit
    assert sum(plan.actions.values()) == sum(plan.reasons.values()) == plan.total
    assert plan.reasons.get(LATER, 0) == 80 - submit


def test_a_plan_of_nothing_left_has_nothing_for_later() -> None:
    none_left = replace(WHOLE, actions={**WHOLE.actions, Action.SUBMIT: 0, Action.SKIP: 95}, reasons={"done": 100})
    plan = narrowed(none_left, 10, Tried())
    assert plan.reasons == {"done": 100}
    assert plan.canary is not None
    assert plan.canary.later == 0
