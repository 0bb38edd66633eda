"""What a batch will cost, and how sure that is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falbatch.core.money import NANO, Price, Purse, Tariff
from falbatch.core.pricing import Certainty, Cost, EndpointCost, Estimate, Quote

CENT = NANO // 100
IMAGE = Tariff(Price(CENT, "image", 1000.0), {"num_images": 1, "resolution": "1K"})
SECONDS = Tariff(Price(CENT, "second", 1000.0), {"duration": "5", "generate_audio": True})
COMPUTE = Tariff(Price(CENT, "compute second", 1000.0), {"audio_url": None})


def cost_of(tariff: Tariff | None, *inputs: dict[str, Any], estimate: Estimate | None = None) -> EndpointCost:
    estimates = {} if estimate is None else {"a/b": estimate}
    quote = Quote({} if tariff is None else {"a/b": tariff}, estimates=estimates)
    for one in inputs:
        quote.add("a/b", one)
    (line,) = quote.cost().endpoints
    return line


def billed(tariff: Tariff, given_: dict[str, Any], *units: float) -> Tariff:
    for one in units:
        tariff = tariff.after(tariff.size(given_), one)
    return tariff


def test_what_inputs_tell_is_exact() -> None:
    line = cost_of(IMAGE, {}, {"num_images": 4})
    assert line == EndpointCost(
        "a/b", 2, 5.0, "image", CENT, 1000.0, 5 * CENT, 5 * CENT, 5 * CENT, Certainty.EXACT, "", 4 * CENT
    )


def test_bills_that_are_what_inputs_tell_confirm_it() -> None:
    line = cost_of(billed(IMAGE, {}, 1.0, 1.0), {})
    assert (line.certainty, line.total) == (Certainty.EXACT, CENT)


def test_bills_that_are_not_what_inputs_tell_are_believed() -> None:
    line = cost_of(billed(SECONDS, {}, 10.0, 10.0), {"duration": "10"})
    assert (line.certainty, line.total, line.low, line.high) == (Certainty.LEARNED, 20 * CENT, 20 * CENT, 20 * CENT)
    assert line.words == "from the bills of 2 finished jobs, each 2 times what its input says"


def test_what_may_be_billed_otherwise_is_said_and_learned_by_its_own_bills() -> None:
    silent = {"generate_audio": False}
    line = cost_of(billed(SECONDS, {}, 5.0), {}, silent)
    assert (line.certainty, line.total, line.low) == (Certainty.ASSUMED, 10 * CENT, None)
    assert "generate_audio=False may be billed otherwise" in line.words
    line = cost_of(billed(SECONDS, silent, 2.5, 2.5), {}, silent)
    assert (line.certainty, line.total) == (Certainty.LEARNED, 15 * CENT // 2)


def test_what_no_input_tells_is_learned_with_its_spread() -> None:
    line = cost_of(billed(COMPUTE, {}, 2.0, 4.0, 3.0), *[{}] * 100)
    assert (line.certainty, line.total, line.units) == (Certainty.LEARNED, 300 * CENT, 300.0)
    assert line.low is not None
    assert line.high is not None
    # The mean of three may be off by 1/√3, each of a hundred by 1: together √(100 + 100²/3) units.
    assert line.high - 300 * CENT == 300 * CENT - line.low == pytest.approx(2 * 58.59 * CENT, rel=0.001)
    assert line.words == "from the bills of 3 finished jobs"


def test_one_bill_tells_no_spread() -> None:
    line = cost_of(billed(COMPUTE, {}, 2.0), {})
    assert (line.certainty, line.total, line.low, line.high) == (Certainty.LEARNED, 2 * CENT, None, None)


def test_without_bills_fals_average_call_serves() -> None:
    line = cost_of(COMPUTE, {}, {}, estimate=Estimate(7 * CENT, 2000.0))
    assert (line.certainty, line.total, line.units) == (Certainty.HISTORICAL, 14 * CENT, None)
    assert (line.unit_price, line.priced_at) == (CENT, 2000.0)


def test_without_a_price_fals_average_call_serves_as_well() -> None:
    line = cost_of(None, {}, {}, estimate=Estimate(7 * CENT, 2000.0))
    assert (line.certainty, line.total, line.unit_price) == (Certainty.HISTORICAL, 14 * CENT, None)


@pytest.mark.parametrize(("tariff", "words"), [(COMPUTE, "billed by the compute second"), (None, "no price is known")])
def test_what_nobody_tells_is_not_known(tariff: Tariff | None, words: str) -> None:
    line = cost_of(tariff, {})
    assert (line.certainty, line.total, line.low) == (Certainty.UNKNOWN, None, None)
    assert words in line.words


def test_a_price_without_a_unit_is_taken_for_one_of_each_thing_that_is_asked_for() -> None:
    line = cost_of(Tariff(Price(CENT)), {"num_images": 3})
    assert (line.certainty, line.total, line.priced_at) == (Certainty.ASSUMED, 3 * CENT, None)


def test_jobs_of_a_variant_that_was_never_billed_take_the_bills_of_the_others() -> None:
    line = cost_of(billed(COMPUTE, {}, 2.0, 2.0), {"quality": "high"})
    assert (line.certainty, line.total) == (Certainty.ASSUMED, 2 * CENT)


def test_a_part_costs_no_more_than_its_dearest_jobs() -> None:
    quote = Quote({"a/b": IMAGE, "a/c": SECONDS})
    for number in range(100):
        quote.add("a/b", {"num_images": 100 if number == 50 else 1})
    cost = quote.cost()
    assert (cost.part(1).most, cost.part(1).words) == (100 * CENT, "about $0.0199, at most $1.00")
    assert cost.part(3).most == 199 * CENT, "no more than all of them"
    quote.add("a/c", {"duration": "500"})
    assert quote.cost().part(2).most == 600 * CENT, "of the other endpoint there is but one"
    assert Cost().part(1).most is None


def test_a_part_of_equal_jobs_has_one_amount() -> None:
    quote = Quote({"a/b": IMAGE})
    for _ in range(10):
        quote.add("a/b", {})
    assert quote.cost().part(3).words == "$0.03"


def test_the_dearest_of_learned_jobs_is_what_is_reserved_for_it() -> None:
    tariff = billed(COMPUTE, {}, 2.0, 4.0, 3.0)
    line = cost_of(tariff, {}, {"num_images": 3})
    assert line.dearest == tariff.expected(tariff.size({"num_images": 3})) > 3 * 4 * CENT


@pytest.mark.parametrize(("limit", "jobs"), [(100, 18), (500, None), (50, 8), (0, 0), (20, 2)])
def test_how_far_a_limit_reaches(limit: int, jobs: int | None) -> None:
    quote = Quote({"a/b": IMAGE}, Purse(spent=4 * CENT, lost=6 * CENT))
    for _ in range(59):
        quote.add("a/b", {"num_images": 5})
    assert quote.cost().affords(limit * CENT, 59) == jobs
    quote.add("a/z", {})
    assert quote.cost().affords(limit * CENT, 60) is None, "nobody knows"


def test_variants_without_end_are_told_in_a_line() -> None:
    quote = Quote({"a/b": IMAGE})
    for number in range(5000):
        quote.add("a/b", {"resolution": f"{number}K"})
    (line,) = quote.cost().endpoints
    assert (line.jobs, line.total, line.certainty) == (5000, 5000 * CENT, Certainty.ASSUMED)
    assert line.words.startswith(
        "resolution=0K may be billed otherwise, as the first such job will show; resolution=2K"
    )
    assert line.words.endswith("; and 61 more")
    assert len(line.words) < 300, "its variants are 64, and all others as one"


def test_the_whole_is_what_is_spent_what_is_reserved_and_what_is_left() -> None:
    quote = Quote({"a/b": IMAGE, "a/c": SECONDS}, Purse(spent=10 * CENT, at_fal=2 * CENT, lost=3 * CENT))
    for endpoint in ("a/c", "a/b", "a/c"):
        quote.add(endpoint, {})
    cost = quote.cost()
    assert [(line.endpoint, line.jobs, line.total) for line in cost.endpoints] == [
        ("a/b", 1, CENT),
        ("a/c", 2, 10 * CENT),
    ]
    assert (cost.left, cost.spent, cost.reserved, cost.whole) == (11 * CENT, 10 * CENT, 5 * CENT, 26 * CENT)
    assert (cost.is_known, cost.is_exact, cost.words) == (True, True, "$0.11")


def test_a_part_that_is_not_known_leaves_the_whole_open() -> None:
    quote = Quote({"a/b": IMAGE})
    assert quote.cost() == Cost()
    assert quote.cost().words == "$0.00"
    quote.add("a/z", {})
    assert quote.cost().words == "a cost that is not known"
    quote.add("a/b", {})
    cost = quote.cost()
    assert (cost.left, cost.whole, cost.is_known, cost.words) == (CENT, None, False, "at least $0.01")


def test_its_json_has_dollars_under_stable_names() -> None:
    quote = Quote({"a/b": COMPUTE}, Purse(spent=CENT), {"a/b": Estimate(7 * CENT, 2000.0)}, trouble="no key")
    quote.add("a/b", {})
    assert quote.cost().as_json() == {
        "endpoints": [
            {
                "endpoint": "a/b",
                "jobs": 1,
                "units": None,
                "unit": "compute second",
                "unit_price": 0.01,
                "priced_at": 2000.0,
                "cost": 0.07,
                "low": None,
                "high": None,
                "dearest_job": 0.07,
                "certainty": "historical",
                "words": "by fal's average call, which may have been larger or smaller than these",
            }
        ],
        "left": 0.07,
        "is_known": True,
        "spent": 0.01,
        "reserved": 0.0,
        "whole": 0.08,
        "trouble": "no key",
    }


INPUTS = st.fixed_dictionaries(
    {}, optional={"num_images": st.integers(1, 9), "duration": st.sampled_from(["5", "8s", "auto"])}
)


@settings(max_examples=50)
@given(st.lists(INPUTS, min_size=1, max_size=30), st.sampled_from([IMAGE, SECONDS]))
def test_a_batch_is_expected_to_cost_what_is_reserved_for_its_jobs(
    inputs: list[dict[str, Any]], tariff: Tariff
) -> None:
    told = [one for one in inputs if one.get("duration") != "auto"] or [{}]
    line = cost_of(tariff, *told)
    assert line.total == sum(tariff.expected(tariff.size(one)) for one in told)
