"""Quantiles to within 1 % of what was seen, a memory that fades, and bytes that are believed only when whole."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.sketch import LEAST, MOST, Profile, Sketch

values = st.floats(min_value=LEAST, max_value=MOST)
shares = st.floats(min_value=0, max_value=1)


def sketch_of(*seen: float, memory: float | None = None) -> Sketch:
    sketch = Sketch(memory)
    for value in seen:
        sketch.add(value)
    return sketch


@given(st.lists(values, min_size=1, max_size=200), shares)
def test_a_quantile_is_within_a_hundredth_of_the_exact_one(seen: list[float], share: float) -> None:
    exact = sorted(seen)
    # Between two places, either value is right; rounding may choose the neighbour.
    place = share * (len(seen) - 1)
    low, high = exact[max(0, math.floor(place - 1e-9))], exact[min(len(seen) - 1, math.ceil(place + 1e-9))]
    found = sketch_of(*seen).quantile(share)
    assert found is not None
    assert low * 0.989 <= found <= high * 1.011


@given(st.lists(values, max_size=60), st.sampled_from([None, 2.0, 16.0, 256.0]))
def test_bytes_bring_back_the_same_quantiles(seen: list[float], memory: float | None) -> None:
    sketch = sketch_of(*seen, memory=memory)
    again = Sketch.from_bytes(sketch.to_bytes())
    assert again.count == len(seen)
    assert again.weight == pytest.approx(sketch.weight)
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        assert again.quantile(share) == sketch.quantile(share)
    assert again.to_bytes() == sketch.to_bytes()


@given(st.binary(max_size=80))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="sketch"):
        Sketch.from_bytes(data)


@given(st.data())
def test_a_byte_that_was_changed_or_lost_is_noticed(data: st.DataObject) -> None:
    whole = sketch_of(1.0, 2.0, 3.0, 500.0).to_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[at] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(flipped), whole[:at], whole + whole[:1]):
        with pytest.raises(ValueError, match="sketch"):
            Sketch.from_bytes(damaged)


def test_nothing_seen_has_no_quantiles() -> None:
    assert Sketch().quantile(0.5) is None
    assert Sketch.from_bytes(Sketch().to_bytes()).quantile(0.5) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="cannot be counted"):
        Sketch().add(value)


def test_what_is_out_of_range_counts_at_its_border() -> None:
    sketch = sketch_of(-1.0, 0.0, 1e300)
    assert sketch.quantile(0.0) == pytest.approx(LEAST, rel=0.02)
    assert sketch.quantile(1.0) == pytest.approx(MOST, rel=0.02)


def test_a_memory_follows_a_drift_and_none_keeps_all() -> None:
    seen = [*[10.0] * 1000, *[2.0] * 500]
    assert sketch_of(*seen, memory=100).quantile(0.9) == pytest.approx(2.0, rel=0.011)
    assert sketch_of(*seen).quantile(0.5) == pytest.approx(10.0, rel=0.011)
    assert sketch_of(*seen, memory=100).weight == pytest.approx(100, rel=0.01)


def test_what_has_faded_is_forgotten_and_the_size_is_bounded() -> None:
    fading = sketch_of(*(1.001**number for number in range(20_000)), memory=50)
    assert len(fading.to_bytes()) < 1000
    # 20,000 orders of magnitude fit into no float: as wide as it may be.
    wide = sketch_of(*(LEAST * 1.01**number for number in range(3500)))
    assert len(wide.to_bytes()) < 18_000


def test_weights_are_scaled_before_they_overflow() -> None:
    sketch = Sketch(1.5)
    for number in range(5000):
        sketch.add(1.0 + number % 3)
    assert math.isfinite(sketch.weight)
    assert sketch.quantile(1.0) is not None


def test_a_faded_sketch_says_the_same_and_gives_way_sooner() -> None:
    old = sketch_of(*[10.0] * 1000, memory=256)
    faded = old.faded(8)
    assert faded.quantile(0.5) == old.quantile(0.5)
    assert faded.weight == pytest.approx(8)
    for _ in range(12):
        faded.add(2.0)
    assert faded.quantile(0.5) == pytest.approx(2.0, rel=0.011)
    assert old.faded(1e6).weight == pytest.approx(old.weight)


@given(st.lists(st.floats(0.01, 1000), min_size=1, max_size=60), shares)
def test_a_profile_goes_from_ages_to_shares_and_back(seen: list[float], share: float) -> None:
    profile = Profile(sketch_of(*seen))
    age = profile.age(share)
    assert min(seen) * 0.98 <= age <= max(seen) * 1.02
    assert profile.ended(age * 0.5) <= profile.ended(age) <= profile.ended(age * 2)
    assert (profile.ended(0.0), profile.ended(2000.0)) == (0.0, 1.0)
    if profile.age(0.0) < age < profile.age(1.0):
        assert profile.ended(age) == pytest.approx(share, abs=1e-6)
