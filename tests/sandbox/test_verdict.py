"""What an input comes to: fal's complaints, units and cost."""

from __future__ import annotations

from typing import Any

import pytest

from falbatch.sandbox.endpoints import parse_endpoint, profile_of, service_s
from falbatch.sandbox.failures import FAILURES
from falbatch.sandbox.validation import image_problems
from falbatch.sandbox.verdict import decide


@pytest.mark.parametrize(
    ("payload", "loc", "type_", "ctx"),
    [
        ({}, ["prompt"], "missing", None),
        ({"prompt": 7}, ["prompt"], "string_type", None),
        ({"prompt": "x", "num_images": 5}, ["num_images"], "less_than_equal", {"le": 4}),
        ({"prompt": "x", "num_images": 0}, ["num_images"], "greater_than_equal", {"ge": 1}),
        ({"prompt": "x", "num_images": "many"}, ["num_images"], "int_parsing", None),
        ({"prompt": "x", "num_images": None}, ["num_images"], "int_type", None),
        ({"prompt": "x", "seed": 1.5}, ["seed"], "int_type", None),
        ({"prompt": "x", "seed": True}, ["seed"], "int_type", None),
        ({"prompt": "x", "sync_mode": "yes"}, ["sync_mode"], "bool_type", None),
        ({"prompt": "x", "output_format": "gif"}, ["output_format"], "one_of", {"expected": ["jpeg", "png", "webp"]}),
        ({"prompt": "x", "image_size": {"width": 0}}, ["image_size", "width"], "greater_than_equal", {"ge": 1}),
        ({"prompt": "x", "image_size": {"height": 14143}}, ["image_size", "height"], "less_than_equal", {"le": 14142}),
    ],
)
def test_each_problem_is_one_detail_of_fals_shape(
    payload: dict[str, Any], loc: list[str], type_: str, ctx: dict[str, Any] | None
) -> None:
    (item,) = image_problems(payload)
    assert (item["loc"], item["type"], item.get("ctx")) == (["body", *loc], type_, ctx)
    assert item["url"] == f"https://docs.fal.ai/errors/#{type_}"
    assert decide(profile_of("someone/unheard-of"), payload, None).cost == 0


def test_an_unknown_size_names_the_known_ones() -> None:
    (item,) = image_problems({"prompt": "x", "image_size": "portriat"})
    assert "portrait_4_3" in item["ctx"]["expected"]
    assert item["input"] == "portriat"


@pytest.mark.parametrize(
    "payload",
    [
        {"prompt": ""},
        {"prompt": "x", "num_images": "3", "seed": 2**80, "unknown": {"a": 1}},
        {"image_url": "https://example.org/a.png"},
        {"prompt": "x", "seed": None, "image_size": None},
    ],
)
def test_good_inputs_have_no_problems(payload: dict[str, Any]) -> None:
    assert image_problems(payload) == []


@pytest.mark.parametrize(
    ("endpoint", "payload", "units", "cost"),
    [
        ("fal-ai/flux/dev", {}, 1, 0.025),
        ("fal-ai/flux/dev", {"num_images": 4, "image_size": {"width": 2048, "height": 1024}}, 8, 0.2),
        ("fal-ai/flux/dev", {"image_size": {"width": 1025, "height": 1024}}, 2, 0.05),
        ("fal-ai/flux/schnell", {"image_size": "square"}, 1, 0.003),
        ("fal-ai/ideogram/v3", {"num_images": 2}, 2, 0.12),
        ("fal-ai/any-llm", {}, 1, 0.001),
        ("someone/unheard-of", {}, 1, 0.01),
        ("fal-ai/veo3.1", {"duration": "4s"}, 4, 1.6),
        ("fal-ai/veo3.1", {"duration": "4s", "generate_audio": "no"}, 2, 0.8),
        ("fal-ai/veo3.1", {"resolution": "4k"}, 12, 4.8),
        ("fal-ai/kling-video/v2.6/pro/text-to-video", {"duration": "10"}, 10, 1.4),
        ("fal-ai/kling-video/v2.5-turbo/pro/image-to-video", {"image_url": "u"}, 5, 0.35),
        ("fal-ai/kokoro/american-english", {"prompt": "x" * 250}, 0.25, 0.005),
        ("fal-ai/wizper", {"audio_url": "u"}, 1, 0.0005),
        ("fal-ai/flux-lora-fast-training", {"images_data_url": "u", "steps": 500}, 500, 1.0),
        ("fal-ai/flux-lora-fast-training", {"images_data_url": "u", "steps": None}, 1000, 2.0),
        ("fal-ai/kling-video/v1/standard/text-to-video", {}, 1, 0.35),
    ],
)
def test_success_costs_units_times_price(endpoint: str, payload: dict[str, Any], units: float, cost: float) -> None:
    verdict = decide(profile_of(endpoint), {"prompt": "x", **payload}, None)
    assert (verdict.status, verdict.units, verdict.cost) == (200, units, cost)


@pytest.mark.parametrize("name", sorted(FAILURES))
def test_server_errors_are_free_and_a_models_own_refusal_is_billed(name: str) -> None:
    verdict = decide(profile_of("fal-ai/flux/dev"), {"prompt": "x"}, name)
    assert verdict.status == FAILURES[name].status
    assert (verdict.cost > 0) is FAILURES[name].billed
    assert not (FAILURES[name].billed and verdict.status >= 500)


def test_a_refused_input_comes_before_a_planned_failure() -> None:
    verdict = decide(profile_of("fal-ai/flux/dev"), {}, "internal_error")
    assert (verdict.status, verdict.is_invalid) == (422, True)


@pytest.mark.parametrize(
    ("text", "full", "app"),
    [
        ("fal-ai/flux", "fal-ai/flux", "fal-ai/flux"),
        ("fal-ai/flux/dev/", "fal-ai/flux/dev", "fal-ai/flux"),
        ("comfy/a/b/c/d", "comfy/a/b/c/d", "comfy/a/b"),
        ("123-my-app/x", "123/my-app/x", "123/my-app"),
    ],
)
def test_endpoint_ids_are_taken_apart_as_both_clients_do(text: str, full: str, app: str) -> None:
    parsed = parse_endpoint(text)
    assert parsed is not None
    assert (parsed.full, parsed.app) == (full, app)


@pytest.mark.parametrize("text", ["", "flux", "workflows/me", "a//b", "a/b c", "../x"[:2]])
def test_what_is_no_endpoint_id_is_none(text: str) -> None:
    assert parse_endpoint(text) is None


def test_service_times_scatter_around_the_median_and_repeat() -> None:
    times = sorted(service_s(2.5, 0.25, 7, n) for n in range(1001))
    assert 2.3 < times[500] < 2.7
    assert 1.5 < times[50] < times[950] < 4.2
    assert service_s(2.5, 0.25, 7, 3) == service_s(2.5, 0.25, 7, 3)
    assert service_s(2.5, 0.0, 7, 3) == 2.5
