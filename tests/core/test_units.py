"""How many units a job asks for: what its input says, completed by what its endpoint does by itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.money import Price
from falbatch.core.units import Size, Sure, size_of

COUNTED, MEASURED, ASSUMED, PROPORTIONAL = Sure.COUNTED, Sure.MEASURED, Sure.ASSUMED, Sure.PROPORTIONAL

FLUX: dict[str, Any] = {"prompt": None, "image_size": "landscape_4_3", "num_images": 1, "seed": None}
VIDEO: dict[str, Any] = {"prompt": None, "duration": "5", "resolution": "720p", "generate_audio": True}


@pytest.mark.parametrize(
    ("given_", "unit", "size"),
    [
        ({}, "image", Size(1.0, ASSUMED)),
        ({"prompt": "x"}, "video", Size(1.0, ASSUMED)),
        ({}, "request", Size(1.0, COUNTED)),
        ({"num_images": 4}, "images", Size(4.0, COUNTED)),
        ({"num_images": 4}, " Image ", Size(4.0, COUNTED)),
        ({"num_images": "4"}, "image", Size(4.0, COUNTED)),
        ({"num_images": 4.0}, "image", Size(4.0, COUNTED)),
        ({"num_videos": 2}, "video", Size(2.0, COUNTED)),
        ({"batch_size": 3}, "generation", Size(3.0, COUNTED)),
        ({"num_images": 4}, "request", Size(1.0, COUNTED)),
        ({"num_images": 4}, "calls", Size(1.0, COUNTED)),
        ({"num_images": 2, "num_outputs": 7}, "image", Size(2.0, COUNTED)),
        ({"image_size": "square_hd"}, "megapixel", Size(1.0, ASSUMED, "rounding")),
        ({"image_size": "square"}, "megapixels", Size(1.0, ASSUMED)),
        ({"image_size": "square", "num_images": 1}, "megapixels", Size(1.0, MEASURED)),
        ({"image_size": "portrait_4_3"}, "megapixel", Size(1.0, ASSUMED)),
        ({"image_size": "auto"}, "megapixel", Size(1.0, PROPORTIONAL)),
        ({"image_size": {"width": 2000, "height": 1500}, "num_images": 2}, "megapixel", Size(6.0, MEASURED)),
        ({"image_size": {"width": 2000, "height": 500}}, "megapixel", Size(1.0, ASSUMED)),
        ({"image_size": {"width": 1024, "height": 1025}}, "megapixel", Size(2.0, ASSUMED)),
        ({"image_size": {"width": 8000}}, "megapixel", Size(4.0, ASSUMED, "rounding")),
        ({"width": 1024, "height": 1024}, "megapixel", Size(1.0, ASSUMED, "rounding")),
        ({"width": 1000, "height": 1000}, "megapixel", Size(1.0, ASSUMED)),
        ({"duration": "8s"}, "second", Size(8.0, MEASURED)),
        ({"duration": "5"}, "second", Size(5.0, MEASURED)),
        ({"duration": 7.5, "num_videos": 2}, "seconds", Size(15.0, MEASURED)),
        ({"duration": 10}, "5 seconds", Size(2.0, MEASURED)),
        ({"duration": "auto"}, "second", Size(1.0, PROPORTIONAL)),
        ({}, "second", Size(1.0, PROPORTIONAL)),
        ({"duration": 0.2}, "second", Size(1.0, MEASURED)),
        ({"text": "x" * 1500}, "1000 characters", Size(1.5, MEASURED)),
        ({"prompt": "four", "voice": "af_heart"}, "1000 characters", Size(0.004, MEASURED)),
        ({"text": 4}, "1000 characters", Size(1.0, PROPORTIONAL)),
        ({"steps": 500}, "step", Size(500.0, MEASURED)),
        ({}, "step", Size(1.0, PROPORTIONAL)),
        ({"audio_url": "https://a/b"}, "minute", Size(1.0, PROPORTIONAL)),
        ({"duration": 4, "width": 2000, "height": 1000}, "compute unit", Size(8.0, PROPORTIONAL)),
        ({"batch_size": 64}, "compute second", Size(1.0, PROPORTIONAL)),
        ({"num_images": 4}, "", Size(4.0, PROPORTIONAL)),
    ],
)
def test_what_an_input_says_by_itself(given_: dict[str, Any], unit: str, size: Size) -> None:
    assert size_of(given_, unit) == size


@pytest.mark.parametrize(
    ("given_", "unit", "defaults", "size"),
    [
        ({}, "megapixel", FLUX, Size(1.0, MEASURED)),
        ({}, "megapixel", FLUX | {"image_size": {"width": 1536, "height": 1024}}, Size(2.0, MEASURED)),
        ({}, "megapixel", FLUX | {"num_images": 4}, Size(4.0, MEASURED)),
        ({"num_images": 2}, "megapixel", FLUX | {"num_images": 4}, Size(2.0, MEASURED)),
        ({"num_images": None}, "image", FLUX | {"num_images": 4}, Size(4.0, COUNTED)),
        ({"image_size": "square_hd"}, "megapixel", FLUX, Size(1.0, MEASURED, "rounding")),
        ({}, "megapixel", {"image_url": None}, Size(1.0, PROPORTIONAL)),
        ({}, "second", VIDEO, Size(5.0, MEASURED)),
        ({"duration": "10"}, "second", VIDEO, Size(10.0, MEASURED)),
        ({"generate_audio": True, "resolution": "720p"}, "second", VIDEO, Size(5.0, MEASURED)),
        ({"generate_audio": False}, "second", VIDEO, Size(5.0, ASSUMED, "generate_audio=False")),
        ({"resolution": "4k"}, "second", VIDEO, Size(5.0, ASSUMED, "resolution=4k")),
        ({"resolution": "4K"}, "image", {"resolution": "1K"}, Size(1.0, ASSUMED, "resolution=4K")),
        ({"duration": "10"}, "video", VIDEO, Size(2.0, ASSUMED, "duration")),
        ({"duration": 7.5, "num_videos": 2}, "video", VIDEO, Size(3.0, ASSUMED, "duration")),
        ({"duration": 4}, "request", VIDEO, Size(1.0, ASSUMED, "duration")),
        ({"duration": 10}, "request", None, Size(2.0, ASSUMED, "duration")),
        ({"duration": "auto"}, "video", VIDEO, Size(1.0, ASSUMED, "duration=auto")),
        ({"duration": "10", "resolution": "4k"}, "video", VIDEO, Size(2.0, ASSUMED, "resolution=4k duration")),
        ({"duration": "5"}, "video", VIDEO, Size(1.0, COUNTED)),
        ({"duration": "5s"}, "video", VIDEO, Size(1.0, COUNTED)),
        ({}, "step", {"steps": 1000}, Size(1000.0, MEASURED)),
        ({"prompt": "x"}, "image", {"num_images": None}, Size(1.0, COUNTED)),
        ({"width": 2048, "height": 2048}, "megapixel", FLUX, Size(4.0, MEASURED, "rounding")),
        ({"width": 2048}, "megapixel", FLUX | {"height": 2048}, Size(4.0, MEASURED, "rounding")),
        ({"image_size": "square"}, "megapixel", {"width": 2048, "height": 2048}, Size(1.0, MEASURED)),
        ({"num_outputs": 4}, "image", {"num_images": 1, "num_outputs": 1}, Size(4.0, COUNTED)),
        ({"prompt": "four"}, "character", {"text": "a default", "prompt": None}, Size(4.0, MEASURED)),
    ],
)
def test_what_an_input_leaves_open_is_the_schemas_default(
    given_: dict[str, Any], unit: str, defaults: dict[str, Any], size: Size
) -> None:
    assert size_of(given_, unit, defaults) == size


def test_without_a_schema_a_picture_is_taken_to_be_of_the_usual_size() -> None:
    assert size_of({}, "megapixel") == Size(1.0, ASSUMED)


@pytest.mark.parametrize(
    "odd",
    [None, True, False, "many", -3, 0, 1001, 10**400, 2.5, float("nan"), float("inf"), [], [4], {}, {"a": 1}],
    ids=repr,
)
def test_a_count_that_is_none_counts_one(odd: Any) -> None:
    assert size_of({"num_images": odd}, "image", {"num_images": 1}) == Size(1.0, COUNTED)


@pytest.mark.parametrize(
    "odd",
    [True, "", "s", "soon", -3, 0, 10**400, "1e400", "nan", float("nan"), float("inf"), [], {"width": {}}],
    ids=repr,
)
@pytest.mark.parametrize("field", ["image_size", "width", "height"])
def test_odd_sizes_tell_nothing(field: str, odd: Any) -> None:
    size = size_of({"width": 1000, "height": 1000} | {field: odd}, "megapixel", FLUX | {"image_size": None})
    assert size.units == 1.0


def test_a_variants_name_stays_short() -> None:
    size = size_of({"resolution": "9" * 10_000}, "image")
    assert len(size.variant) < 60


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["num_images", "batch_size", "image_size", "width", "height", "duration", "text", "steps", "resolution"]
)
INPUTS = st.dictionaries(FIELDS, VALUES)
UNITS = st.sampled_from(["image", "megapixel", "second", "", "compute second", "1000 characters", "step", "0 images"])


@given(INPUTS, st.none() | INPUTS, UNITS)
def test_whatever_an_input_holds_its_size_is_a_finite_number(
    values: dict[str, Any], defaults: dict[str, Any] | None, unit: str
) -> None:
    size = size_of(values, unit, defaults)
    assert 0.0 <= size.units < 1e22
    assert Price(1).of(size.units) >= (unit != "1000 characters")
