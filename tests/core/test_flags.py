"""What a result is worth that came with HTTP 200: flags, lacks, and what is neither."""

from __future__ import annotations

from typing import Any

import pytest

from falbatch.core.artifacts import find_files
from falbatch.core.classify import Failure
from falbatch.core.flags import (
    FlagPolicy,
    Noticed,
    Result,
    Treatment,
    failure_for,
    is_nsfw,
    lack,
    may_be_black,
    noticed,
    treatment,
)

URL = "https://v3.fal.media/files/b/"
IMAGE = {"url": f"{URL}a.png", "width": 64, "height": 48}
OTHER = {"url": f"{URL}b.png"}
LACKING = Failure("too_few_files", "1 of 2 files came (num_images: 2)", 200)
SEEN = Noticed(("nsfw",))


def result(output: Any, **given: Any) -> Result:
    return Result(given, tuple(find_files(output, {"input": given})), output)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"has_nsfw_concepts": [True]}, True),
        ({"has_nsfw_concepts": [False, True, False]}, True),
        ({"has_nsfw_concepts": True}, True),
        ({"images": [{**IMAGE, "has_nsfw_concepts": True}]}, True),
        ({"node-1": {"output": {"has_nsfw_concepts": [[True]]}}}, True),
        ({"has_nsfw_concepts": {"0": False, "1": True}}, True),
        ({"nsfw_content_detected": [True]}, True),
        ({"has_nsfw_concepts": [False, False]}, False),
        ({"has_nsfw_concepts": []}, False),
        ({"has_nsfw_concepts": None}, False),
        ({"has_nsfw_concepts": "true"}, False),
        ({"has_nsfw_concepts": [1]}, False),
        ({"nsfw_probability": 0.99}, False),
        ({"enable_safety_checker": True, "safe": True}, False),
        (None, False),
        ("has_nsfw_concepts", False),
    ],
)
def test_only_a_plain_true_of_the_safety_checker_is_a_flag(output: Any, expected: bool) -> None:
    assert is_nsfw(output) is expected


def test_a_result_that_is_nested_without_end_is_looked_at_without_harm() -> None:
    deep: Any = {"has_nsfw_concepts": True}
    for _ in range(5_000):
        deep = [deep]
    assert not is_nsfw(deep)
    assert noticed(result({"seed": 1, "has_nsfw_concepts": deep}), has_black=False) is None


def test_what_is_noticed_is_sorted_and_names_the_seed_that_made_it() -> None:
    big = 12345678901234567890
    assert noticed(result({"has_nsfw_concepts": [True], "seed": big}), has_black=True) == Noticed(
        ("black", "nsfw"), big
    )
    assert noticed(result({"seed": "7"}), has_black=True) == Noticed(("black",))
    assert noticed(result({"seed": 7, "images": [IMAGE]}), has_black=False) is None


Case = tuple[Any, dict[str, Any]]

EMPTY: list[Case] = [
    (None, {}),
    ({}, {}),
    ([], {}),
    ("", {}),
    ({"images": []}, {"num_images": 2}),
    (
        {"images": [], "seed": 5, "prompt": "a kite", "timings": {"inference": 1.0}, "has_nsfw_concepts": []},
        {"prompt": "a kite"},
    ),
    ({"images": [], "has_nsfw_concepts": [False]}, {}),
    ({"output": {"images": [None], "videos": {}}}, {}),
    ({"request_id": "r1", "metrics": {"inference_time": 2.0}, "partial": True}, {}),
    ({"image": None, "seed": 5}, {}),
    ({"images": [None]}, {}),
    ({"output": None, "error": None, "partial": False}, {}),
]
ERRORS: list[Case] = [
    ({"output": "", "error": "the model gave up"}, {}),
    ({"error": {"message": "no"}}, {}),
    ({"error": {"code": 3}}, {}),
    ({"error": ["a"]}, {}),
    ({"error": True}, {}),
    ({"images": [IMAGE], "error": "half of it"}, {}),
]
FEWER: list[Case] = [
    ({"images": [IMAGE]}, {"num_images": 2}),
    ({"images": [IMAGE]}, {"num_images": "2"}),
    ({"images": [IMAGE, None]}, {"num_images": 2}),
    ({"images": [IMAGE], "mask": OTHER}, {"num_images": 2}),
    ({"image": IMAGE}, {"num_images": 2}),
    ({"videos": [IMAGE]}, {"num_videos": 3}),
    ({"images": [IMAGE]}, {"batch_size": 2}),
    ({"images": [IMAGE]}, {"num_outputs": 4}),
]
FINE: list[Case] = [
    ({"images": [IMAGE, OTHER]}, {"num_images": 2}),
    ({"images": [IMAGE, OTHER]}, {"num_images": 1}),
    ({"images": [IMAGE, dict(IMAGE)]}, {"num_images": 2}),  # fal gave one file twice: as many entries as asked for
    ({"image": IMAGE, "error": None}, {}),
    ({"image": IMAGE, "error": ""}, {}),
    ({"image": IMAGE, "error": "None"}, {}),
    ({"image": IMAGE, "error": 0.013}, {}),  # a measure
    ({"image": IMAGE, "error": {}}, {}),
    ({"image": IMAGE, "node": {"error": "of a part that was done again"}}, {}),
    ({"output": "", "error": None, "partial": False}, {}),  # nothing to say
    ({"text": "", "chunks": []}, {}),  # silence
    ({"text": "hello"}, {"num_images": 2}),
    ({"output": "42", "partial": True}, {}),
    ({"diffusers_lora_file": IMAGE, "config_file": OTHER}, {"batch_size": 4}),  # how a training goes about it
    ({"audio": IMAGE}, {"num_samples": 50}),
    ({"images": [IMAGE]}, {"num_images": True}),
    ({"count": 0}, {}),
    ({"prompt": "a kite over the sea, 35 mm"}, {"prompt": "a kite"}),  # it writes prompts
    ({"prompt": "a kite"}, {}),
    ({"objects": [], "boxes": []}, {}),  # nothing was found
    ({"transcript": []}, {}),
    ({"results": {"bboxes": [], "labels": []}}, {}),
    ({"output": {"faces": []}}, {}),
    ({"usage": {"tokens": 3}}, {}),
    ({"has_nsfw_concepts": [False]}, {}),  # a checker's own answer
    ({"is_safe": False}, {}),
    ([IMAGE], {}),
    (0, {}),
    ("https://v3.fal.media/files/b/c.png", {}),
]


@pytest.mark.parametrize(
    ("output", "given", "expected"),
    [
        *((*case, "empty_result") for case in EMPTY),
        *((*case, "error_in_result") for case in ERRORS),
        *((*case, "too_few_files") for case in FEWER),
        *((*case, None) for case in FINE),
    ],
)
def test_what_lacks_is_told_and_nothing_else(output: Any, given: dict[str, Any], expected: str | None) -> None:
    found = lack(result(output, **given))
    assert (found.error_type if found else None) == expected


def test_a_lack_says_what_came_and_what_the_result_says() -> None:
    few = lack(result({"images": [IMAGE]}, num_images=4))
    assert few is not None
    assert (few.message, few.http_status) == ("1 of 4 files came (num_images: 4)", 200)
    said = lack(result({"error": {"message": "no GPU"}}))
    assert said is not None
    assert said.message.endswith("no GPU")


def test_a_file_as_the_answer_is_a_whole_result_and_a_body_without_a_byte_is_none() -> None:
    assert lack(Result({"num_images": 4}, is_json=False)) is None
    empty = lack(Result({}, is_json=False, is_blank=True))
    assert empty is not None
    assert empty.error_type == "empty_result"


def test_a_mask_has_a_right_to_be_black() -> None:
    refs = find_files({"images": [IMAGE], "mask": OTHER, "depth_map": {"url": f"{URL}c.png"}}, {})
    assert [may_be_black(ref) for ref in refs] == [False, True, True]


@pytest.mark.parametrize(
    ("seen", "lacking", "policy", "expected"),
    [
        (None, None, FlagPolicy.REROLL, Treatment.TAKE),
        (SEEN, None, FlagPolicy.KEEP, Treatment.TAKE),
        (SEEN, None, FlagPolicy.MARK, Treatment.MARK),
        (SEEN, None, FlagPolicy.FAIL, Treatment.FAIL),
        (SEEN, None, FlagPolicy.REROLL, Treatment.REROLL),
        (None, LACKING, FlagPolicy.KEEP, Treatment.FAIL),
        (None, LACKING, FlagPolicy.REROLL, Treatment.FAIL),
        (SEEN, LACKING, FlagPolicy.MARK, Treatment.FAIL),
        (SEEN, LACKING, FlagPolicy.REROLL, Treatment.REROLL),
    ],
)
def test_what_follows(seen: Noticed | None, lacking: Failure | None, policy: FlagPolicy, expected: Treatment) -> None:
    assert treatment(seen, lacking, policy) is expected


def test_a_lack_is_the_reason_before_a_flag() -> None:
    assert failure_for(SEEN, LACKING) is LACKING
    assert failure_for(SEEN, None, why="retry.attempts is used up") == Failure(
        "flagged", "its result is flagged: nsfw (retry.attempts is used up)", 200
    )
