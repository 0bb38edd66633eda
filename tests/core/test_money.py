"""Money in whole nano-dollars: what a job may cost, what it did, and a purse that never promises more than it has."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.money import (
    COST_MOST,
    NANO,
    VARIANTS_MOST,
    Price,
    Purse,
    Tariff,
    cost_of,
    in_dollars,
    in_range,
    in_round,
    to_nano,
)
from falbatch.core.units import Size, Sure

AMOUNTS = st.integers(0, 10**15)


@pytest.mark.parametrize(
    ("dollars", "nano"),
    [
        (Decimal("0.025"), 25_000_000),
        (0.1, 100_000_000),
        (0.1 + 0.2, 300_000_001),
        (Decimal("1e-9"), 1),
        (Decimal("1e-10"), 1),
        (Decimal("0.0000000011"), 2),
        (Decimal("12.50"), 12_500_000_000),
        (0, 0),
        (10**9, 10**18),
    ],
)
def test_dollars_become_nano_dollars_rounded_up(dollars: Decimal | float, nano: int) -> None:
    assert to_nano(dollars) == nano


@given(st.decimals(0, 10**9, allow_nan=False, allow_infinity=False))
def test_an_amount_in_nano_dollars_is_never_less_and_by_less_than_one_more(dollars: Decimal) -> None:
    assert 0 <= Fraction(to_nano(dollars)) - Fraction(dollars) * NANO < 1


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "$0.00"),
        (NANO, "$1.00"),
        (12_500_000_000, "$12.50"),
        (3_000_000, "$0.003"),
        (25_000_000, "$0.025"),
        (1_234_567, "$0.001235"),
        (9_999_000_000, "$9.999"),
        (10_005_000_000, "$10.00"),
        (1_234_567_890_000_000, "$1,234,567.89"),
        (100_000_000_000, "$100.00"),
    ],
)
def test_an_amount_for_people_has_the_decimals_that_it_needs(nano: int, text: str) -> None:
    assert in_dollars(nano) == text


@given(st.integers(0, 10**18))
def test_an_amount_for_people_is_off_by_half_a_cent_or_half_a_millionth_at_most(nano: int) -> None:
    shown = Decimal(in_dollars(nano).removeprefix("$").replace(",", ""))
    most = Decimal("0.005") if nano >= 10 * NANO else Decimal("0.0000005")
    assert abs(shown - Decimal(nano) / NANO) <= most


def test_units_are_priced_exactly_and_rounded_up() -> None:
    assert Price(25_000_000).of(3) == 75_000_000
    assert Price(25_000_000).of(0.1) == 2_500_000
    assert Price(3).of(0.5) == 2
    assert Price(3).of(0) == 0


@pytest.mark.parametrize("units", [1e15, 1e30, 1e300])
def test_a_servers_absurd_number_stays_an_amount_that_adds_up_in_64_bits(units: float) -> None:
    assert Price(NANO).of(units * 1e6) == COST_MOST
    assert 50 * COST_MOST < 2**63


@given(st.integers(0, 10**10), st.integers(0, 10**4), st.integers(0, 10**4))
def test_whole_units_add_up_to_the_nano_dollar(nano: int, some: int, others: int) -> None:
    price = Price(nano)
    assert price.of(some) + price.of(others) == price.of(some + others) == nano * (some + others)


def test_a_tariff_learns_how_many_units_a_size_is_billed() -> None:
    size = Size(4.0, Sure.PROPORTIONAL)
    new = Tariff(Price(10))
    assert new.expected(size) == 40
    learned = new.after(size, 6.0)
    assert learned.expected(size) == 2 * 60, "one bill is no rule"
    learned = learned.after(size, 6.0)
    assert learned.expected(size) == 60
    assert learned.expected(Size(8.0, Sure.PROPORTIONAL)) == 120
    assert new.after(size, 4.0).expected(size) == 40, "just what was asked for"


def test_where_only_running_jobs_tells_what_they_cost_few_run_until_some_have() -> None:
    size = Size(1.0, Sure.PROPORTIONAL)
    tariff = Tariff(Price(10))
    allowed = []
    for _ in range(4):
        allowed.append(tariff.at_once(size))
        tariff = tariff.after(size, 1.0)
    assert allowed == [1, 2, 4, 6]
    assert Tariff(Price(10)).at_once(Size(1.0, Sure.COUNTED)) == float("inf")


def test_a_variant_is_learned_about_by_its_own_bills() -> None:
    plain, loud = Size(5.0, Sure.MEASURED), Size(5.0, Sure.ASSUMED, "generate_audio=True")
    tariff = Tariff(Price(10)).after(plain, 5.0).after(plain, 5.0)
    assert (tariff.expected(plain), tariff.at_once(plain)) == (50, 4)
    assert (tariff.expected(loud), tariff.at_once(loud)) == (50, 1)
    tariff = tariff.after(loud, 10.0)
    assert (tariff.expected(plain), tariff.expected(loud), tariff.at_once(loud)) == (50, 100, 2)


def test_what_was_never_billed_is_expected_to_be_as_dear_as_the_dearest_kind() -> None:
    tariff = Tariff(Price(10)).after(Size(1.0, Sure.PROPORTIONAL, "a"), 3.0).after(Size(1.0, Sure.PROPORTIONAL), 1.0)
    assert tariff.expected(Size(1.0, Sure.PROPORTIONAL, "b")) == 60


def test_where_bills_differ_a_little_more_than_the_dearest_is_expected() -> None:
    size = Size(1.0, Sure.PROPORTIONAL)
    tariff = Tariff(Price(NANO))
    amounts = []
    for units in (2.0, 4.0, 2.0, 4.0, 2.0, 4.0, 2.0, 4.0):
        tariff = tariff.after(size, units)
        amounts.append(tariff.expected(size) / NANO)
    assert amounts[0] == 4.0
    assert amounts[1] == pytest.approx(4.0 + 2 * 2**0.5 / 2**0.5)
    assert 4.0 < amounts[-1] < amounts[1], "the more are known, the less above them"


def test_variants_without_end_are_not_all_remembered() -> None:
    tariff = Tariff(Price(10))
    for number in range(10 * VARIANTS_MOST):
        tariff = tariff.after(Size(1.0, Sure.ASSUMED, f"resolution={number}"), 2.0)
    assert len(tariff.learned) == VARIANTS_MOST + 1
    late = Size(1.0, Sure.ASSUMED, "resolution=9999")
    assert tariff.expected(late) == 20
    assert tariff.at_once(late) == 2 * 9 * VARIANTS_MOST, "those beyond the cap are one variant, known by its bills"


def test_without_a_price_and_without_a_reservation_nothing_is_known() -> None:
    assert cost_of(None, 3.0, reserved=0, failed_status=None) is None
    assert cost_of(None, None, reserved=0, failed_status=500) is None


def test_a_tariff_expects_the_most_that_was_ever_billed() -> None:
    size = Size(2.0, Sure.PROPORTIONAL)
    tariff = Tariff(Price(10)).after(size, 4.0).after(size, 1.0)
    assert tariff.expected(size) >= 40
    assert tariff.after(size, 0.0) == tariff
    assert tariff.after(size, -1.0) == tariff
    assert Tariff(Price(10)).after(size, 0.0).known(size) is None


def test_what_an_input_says_is_expected_even_if_less_was_billed_before() -> None:
    size = Size(4.0, Sure.COUNTED)
    assert Tariff(Price(10)).after(size, 1.0).expected(size) == 40
    assert Tariff(Price(10)).after(size, 5.0).expected(size) == 50


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0.01, 1000)), min_size=1, max_size=20))
def test_no_job_like_one_before_costs_more_than_expected(billed: list[tuple[int, float]]) -> None:
    tariff = Tariff(Price(NANO))
    for units, bill in billed:
        tariff = tariff.after(Size(float(units), Sure.PROPORTIONAL), bill)
    for units, bill in billed:
        assert tariff.expected(Size(float(units), Sure.PROPORTIONAL)) * (1 + 1e-12) >= Price(NANO).of(bill)


@pytest.mark.parametrize(
    ("price", "units", "failed_status", "cost"),
    [
        (None, 3.0, None, 7),
        (None, None, 500, 0),
        (Price(10), 3.0, None, 30),
        (Price(10), 0.0, None, 0),
        (Price(10), 3.0, 422, 30),
        (Price(10), 2.0, 500, 20),
        (Price(10), None, None, 7),
        (Price(10), None, 422, 7),
        (Price(10), None, 499, 7),
        (Price(10), None, 500, 0),
        (Price(10), None, 504, 0),
    ],
)
def test_what_an_ended_request_cost(
    price: Price | None, units: float | None, failed_status: int | None, cost: int | None
) -> None:
    assert cost_of(price, units, reserved=7, failed_status=failed_status) == cost


def test_a_purse_without_a_limit_has_room_for_all() -> None:
    assert Purse(spent=10**30).has_room(10**30)


def test_a_purse_has_room_up_to_its_limit() -> None:
    purse = Purse(limit=100, spent=40, at_fal=30, lost=20)
    assert purse.committed == 90
    assert purse.has_room(10)
    assert not purse.has_room(11)
    assert not Purse(limit=0).has_room(1)
    assert Purse(limit=0).has_room(0)


@dataclass
class Paid:
    """One job's money: what is reserved for it, and where its request is."""

    reserved: int
    place: str = "at fal"


def step(data: st.DataObject, purse: Purse, paid: list[Paid], costs: list[int]) -> Purse:
    """Something happens to some job. Costs are never above what was reserved."""
    waiting = [one for one in paid if one.place in {"at fal", "lost"}]
    what = data.draw(st.sampled_from(["reserve", "move"] if waiting else ["reserve"]))
    if what == "reserve":
        amount = data.draw(AMOUNTS)
        if not purse.has_room(amount):
            return purse
        paid.append(Paid(amount))
        return purse.reserve(amount)
    one = data.draw(st.sampled_from(waiting))
    if one.place == "lost":
        one.place = "at fal"
        return purse.find(one.reserved)
    one.place = data.draw(st.sampled_from(["released", "lost", "settled"]))
    if one.place == "released":
        return purse.release(one.reserved)
    if one.place == "lost":
        return purse.lose(one.reserved)
    costs.append(data.draw(st.integers(0, one.reserved)))
    return purse.settle(one.reserved, costs[-1])


@given(st.data(), st.integers(0, 3 * 10**15), st.integers(0, 40))
def test_whatever_happens_in_any_order_the_limit_holds_and_every_sum_is_exact(
    data: st.DataObject, limit: int, steps: int
) -> None:
    purse = Purse(limit=limit)
    paid: list[Paid] = []
    costs: list[int] = []
    for _ in range(steps):
        purse = step(data, purse, paid, costs)
        assert purse.committed <= limit
        assert purse.at_fal == sum(one.reserved for one in paid if one.place == "at fal")
        assert purse.lost == sum(one.reserved for one in paid if one.place == "lost")
        assert purse.spent == sum(costs)
        assert min(purse.spent, purse.at_fal, purse.lost) >= 0
    for one in [one for one in paid if one.place == "lost"]:
        purse = purse.find(one.reserved)
        one.place = "at fal"
    for one in [one for one in paid if one.place == "at fal"]:
        purse = purse.settle(one.reserved, one.reserved)
    assert (purse.at_fal, purse.lost) == (0, 0)
    assert purse.spent <= limit


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "$0.00"),
        (668_851_000, "$0.67"),
        (5_231_149_000, "$5.23"),
        (12_345_678_901, "$12.35"),
        (99_999_999, "$0.10"),
        (66_885_100, "$0.0669"),
        (12_500_000, "$0.0125"),
        (3_000_000, "$0.003"),
        (1_234, "$0.000001"),
    ],
)
def test_estimates_are_told_in_cents_or_three_digits(nano: int, text: str) -> None:
    assert in_round(nano) == text


def test_what_is_at_most_is_rounded_up_and_what_is_at_least_down() -> None:
    assert (in_round(661_000_000, ROUND_CEILING), in_round(669_000_000, ROUND_FLOOR)) == ("$0.67", "$0.66")
    assert in_round(150_000_001, ROUND_CEILING) == "$0.15", "what arithmetic leaves behind is no cent"


def test_a_range_that_reads_as_one_amount_is_none() -> None:
    assert in_range(668_851_000, 5_231_149_000) == "$0.67 to $5.23"
    assert in_range(668_851_000, 668_951_000) == in_range(NANO, NANO) == ""
