"""An input held to a model's schema: lax where pydantic is lax, in fal's words where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from falbatch.sandbox.catalogue.checking import schema_problems
from falbatch.sandbox.catalogue.models import MODELS
from falbatch.sandbox.catalogue.reading import arguments, read_input
from falbatch.sandbox.endpoints import PROFILES, profile_of
from falbatch.sandbox.verdict import decide

if TYPE_CHECKING:
    from falbatch.sandbox.catalogue.model import Model
    from tests.sandbox.conftest import Fal

DEV = MODELS["fal-ai/flux/dev"]


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_model_has_a_row_of_its_own_and_an_example_that_it_takes(model: Model) -> None:
    assert profile_of(model.endpoint).pattern == model.endpoint
    assert schema_problems(model, model.example) == []
    for schema in (model.input, model.output, *model.shared.values()):
        assert schema["x-fal-order-properties"] == [*schema["properties"]]
        assert {*schema.get("required", ())} <= schema["properties"].keys()


def test_only_endpoints_with_schemas_have_rows_without_a_star() -> None:
    assert {profile.pattern for profile in PROFILES if "*" not in profile.pattern} == MODELS.keys()


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"num_images": "3"}, {"num_images": 3}),
        ({"num_images": 3.0}, {"num_images": 3}),
        ({"num_images": " 2.0 "}, {"num_images": 2}),
        ({"num_images": True}, {"num_images": 1}),
        ({"seed": str(2**80)}, {"seed": 2**80}),
        ({"guidance_scale": "3.5"}, {"guidance_scale": 3.5}),
        ({"guidance_scale": 3}, {"guidance_scale": 3}),
        ({"sync_mode": "yes"}, {"sync_mode": True}),
        ({"sync_mode": 0}, {"sync_mode": False}),
        ({"image_size": {"width": "640", "height": 480.0}}, {"image_size": {"width": 640, "height": 480}}),
        ({"image_size": "square"}, {"image_size": "square"}),
        ({"image_size": None, "seed": None}, {"image_size": None, "seed": None}),
        ({"unknown": {"a": 1}}, {}),
    ],
)
def test_values_are_read_as_pydantic_reads_them(given: dict[str, Any], read: dict[str, Any]) -> None:
    payload = {"prompt": "x", **given}
    assert read_input(DEV, payload) == {"prompt": "x", **read}
    assert schema_problems(DEV, payload) == []
    assert arguments(DEV, payload) | read == arguments(DEV, payload)


def test_what_is_not_given_has_its_default() -> None:
    assert arguments(DEV, {"prompt": "x", "num_images": "2"}) == {
        "prompt": "x",
        "image_size": "landscape_4_3",
        "num_inference_steps": 28,
        "guidance_scale": 3.5,
        "sync_mode": False,
        "num_images": 2,
        "enable_safety_checker": True,
        "output_format": "jpeg",
        "acceleration": "none",
    }


@pytest.mark.parametrize(
    ("endpoint", "given", "loc", "type_", "ctx"),
    [
        (DEV.endpoint, {"prompt": 7}, ["prompt"], "string_type", None),
        (DEV.endpoint, {"prompt": None}, ["prompt"], "string_type", None),
        (DEV.endpoint, {"num_images": "5"}, ["num_images"], "less_than_equal", {"le": 4}),
        (DEV.endpoint, {"num_images": 0}, ["num_images"], "greater_than_equal", {"ge": 1}),
        (DEV.endpoint, {"num_images": "many"}, ["num_images"], "int_parsing", None),
        (DEV.endpoint, {"num_images": "3.5"}, ["num_images"], "int_parsing", None),
        (DEV.endpoint, {"num_images": None}, ["num_images"], "int_type", None),
        (DEV.endpoint, {"seed": 1.5}, ["seed"], "int_from_float", None),
        (DEV.endpoint, {"seed": [1]}, ["seed"], "int_type", None),
        (DEV.endpoint, {"guidance_scale": "strong"}, ["guidance_scale"], "float_parsing", None),
        ("fal-ai/kokoro", {"speed": "nan"}, ["speed"], "float_parsing", None),
        ("fal-ai/kokoro", {"speed": "inf"}, ["speed"], "float_parsing", None),
        (DEV.endpoint, {"guidance_scale": {}}, ["guidance_scale"], "float_type", None),
        (DEV.endpoint, {"guidance_scale": 20.5}, ["guidance_scale"], "less_than_equal", {"le": 20}),
        (DEV.endpoint, {"sync_mode": "maybe"}, ["sync_mode"], "bool_parsing", None),
        (DEV.endpoint, {"sync_mode": 2}, ["sync_mode"], "bool_parsing", None),
        (DEV.endpoint, {"sync_mode": None}, ["sync_mode"], "bool_type", None),
        (DEV.endpoint, {"output_format": "webp"}, ["output_format"], "one_of", {"expected": ["jpeg", "png"]}),
        (DEV.endpoint, {"output_format": 1}, ["output_format"], "one_of", {"expected": ["jpeg", "png"]}),
        (DEV.endpoint, {"image_size": {"width": 0}}, ["image_size", "width"], "greater_than", {"gt": 0}),
        (DEV.endpoint, {"image_size": {"height": 14143}}, ["image_size", "height"], "less_than_equal", {"le": 14142}),
        (DEV.endpoint, {"image_size": {"height": "x"}}, ["image_size", "height"], "int_parsing", None),
        ("fal-ai/veo3.1", {"duration": "5s"}, ["duration"], "one_of", {"expected": ["4s", "6s", "8s"]}),
        ("fal-ai/veo3.1", {"duration": 8}, ["duration"], "one_of", {"expected": ["4s", "6s", "8s"]}),
        (
            "fal-ai/kling-video/v2.6/pro/text-to-video",
            {"prompt": "x" * 2501},
            ["prompt"],
            "sequence_too_long",
            {"max_length": 2500},
        ),
        ("fal-ai/whisper", {"audio_url": "u", "num_speakers": 0}, ["num_speakers"], "greater_than_equal", {"ge": 1}),
    ],
)
def test_each_problem_is_one_detail_of_fals_shape(
    endpoint: str, given: dict[str, Any], loc: list[str], type_: str, ctx: dict[str, Any] | None
) -> None:
    payload = {"prompt": "x", **given}
    (item,) = schema_problems(MODELS[endpoint], payload)
    echo: Any = payload
    for step in loc:
        echo = echo[step]
    assert (item["loc"], item["type"], item.get("ctx"), item["input"]) == (["body", *loc], type_, ctx, echo)
    assert item["url"] == f"https://docs.fal.ai/errors/#{type_}"
    assert item["msg"]
    assert decide(profile_of(endpoint), payload, None).cost == 0


@pytest.mark.parametrize("size", ["portriat", 5, [], True])
def test_an_unknown_size_names_the_known_ones(size: object) -> None:
    (item,) = schema_problems(DEV, {"prompt": "x", "image_size": size})
    assert (item["loc"], item["type"], item["input"]) == (["body", "image_size"], "one_of", size)
    assert "portrait_4_3" in item["ctx"]["expected"]
    assert None not in item["ctx"]["expected"]


def test_several_problems_come_in_the_order_of_the_form_and_each_once() -> None:
    payload = {"sync_mode": 7, "num_images": 9, "image_size": {"width": -1, "height": "x"}}
    items = schema_problems(MODELS["fal-ai/flux/dev/image-to-image"], payload)
    assert [item["loc"][1:] for item in items] == [["image_url"], ["prompt"], ["sync_mode"], ["num_images"]]
    assert [item["type"] for item in items[:2]] == ["missing", "missing"]
    assert items[0]["input"] == payload
    items = schema_problems(DEV, payload)
    assert [item["loc"][1:] for item in items] == [
        ["prompt"],
        ["image_size", "width"],
        ["image_size", "height"],
        ["sync_mode"],
        ["num_images"],
    ]


def test_a_refused_input_is_accepted_at_submit_and_costs_nothing(fal: Fal) -> None:
    request = fal.submit({"prompt": "x", "duration": 5}, "fal-ai/kling-video/v2.6/pro/text-to-video")
    reply = fal.result(request)
    assert (reply.status_code, reply.headers["x-fal-billable-units"]) == (422, "0")
    (item,) = reply.json()["detail"]
    assert (item["loc"], item["type"], item["input"]) == (["body", "duration"], "one_of", 5)


def test_lax_values_have_their_effect(fal: Fal) -> None:
    images = fal.run({"prompt": "x", "num_images": "2", "image_size": {"width": "64", "height": 48.0}})["images"]
    assert [(image["width"], image["height"]) for image in images] == [(64, 48)] * 2
    inline = fal.run({"prompt": "x", "sync_mode": "yes", "image_size": {"width": 8, "height": 8}})["images"]
    assert inline[0]["url"].startswith("data:image/jpeg;base64,")
    assert fal.run({"prompt": "x", "seed": "0012"})["seed"] == 12
