"""Ends that fal calls a success: black pictures, too few, an error beside the 200, nothing at all; all are billed."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from falbatch.sandbox.faults import ODDITIES, FaultBook, Where
from falbatch.sandbox.ids import fingerprint
from falbatch.sandbox.rules import FaultError, parse_rule
from tests.sandbox.conftest import Fal
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from pathlib import Path

INPUT = {"prompt": "a kite", "image_size": {"width": 64, "height": 48}, "num_images": 2, "seed": 5}


def is_black(fal: Fal, url: str) -> bool:
    with Image.open(io.BytesIO(fal.file(url).content)) as picture:
        assert picture.size == (64, 48)
        return max(picture.convert("L").tobytes()) == 0


@pytest.mark.parametrize("endpoint", ["fal-ai/flux/schnell", "nobody/knows-this"])
@pytest.mark.parametrize("do", sorted(ODDITIES))
def test_each_oddity_shows_and_is_billed(sandbox: SandboxProcess, fal: Fal, do: str, endpoint: str) -> None:
    sandbox.add_faults([{"on": "submit", "do": do, "times": 1}])
    request = fal.submit(INPUT, endpoint)
    reply = fal.result(request)
    assert (reply.status_code, reply.headers["x-fal-billable-units"]) == (200, "2")
    output = reply.json()
    match do:
        case "empty":
            assert output == {}
        case "error_in_result":
            assert output["error"]
            assert len(output["images"]) == 2
        case "fewer":
            assert len(output["images"]) == 1
            assert not is_black(fal, output["images"][0]["url"])
        case _:
            assert output["has_nsfw_concepts"] == [do == "nsfw"] * 2
            assert all(is_black(fal, image["url"]) for image in output["images"])
    (execution,) = sandbox.ledger()["executions"]
    assert (execution["status_code"], execution["billable_units"]) == (200, 2.0)
    assert execution["cost"] > 0
    plain = fal.run(INPUT, endpoint)
    assert len(plain["images"]) == 2
    assert "error" not in plain
    assert plain["has_nsfw_concepts"] == [False, False]


@pytest.mark.parametrize("kind", ["run", "stream"])
def test_a_direct_call_ends_oddly_too(sandbox: SandboxProcess, fal: Fal, kind: str) -> None:
    sandbox.add_faults([{"on": kind, "do": "empty"}])
    path = "/stream" if kind == "stream" else ""
    reply = fal.http.post(f"{sandbox.origin}/run/fal-ai/flux/schnell{path}", json=INPUT)
    assert reply.status_code == 200
    assert reply.text.strip().endswith("{}")


def test_an_oddity_is_remembered_by_a_sandbox_that_was_killed(tmp_path: Path) -> None:
    flags = ("--seed", "7", "--speed", "0", "--data", str(tmp_path / "fal"))
    with SandboxProcess(*flags) as process:
        process.add_faults([{"on": "submit", "do": "nsfw", "times": 1}])
        fal = Fal(process.origin)
        first = fal.submit(INPUT)
        before = fal.result(first).json()
        fal.close()
        process.stop()
        process.start()
        fal = Fal(process.origin)
        again = fal.result(first).json()
        assert again["has_nsfw_concepts"] == before["has_nsfw_concepts"] == [True, True]
        assert is_black(fal, again["images"][0]["url"])
        fal.close()


def book(*rules: dict[str, Any]) -> FaultBook:
    made = FaultBook(7)
    made.add(parse_rule({"on": "submit", **rule}, number) for number, rule in enumerate(rules))
    return made


def ending(made: FaultBook, seed: object = None, text: str = "") -> str | None:
    return made.ending_for("fal-ai/flux", "/q", fingerprint(f"{seed}{text}".encode()), seed)


def test_a_rule_may_be_about_some_seeds() -> None:
    made = book({"do": "nsfw", "seeds": [1, 2**70]}, {"do": "fail:internal_error", "seeds": [3], "times": 1})
    assert [ending(made, seed) for seed in (0, 1, 2**70, None, "1", True, 3, 3)] == [
        None,
        "nsfw",
        "nsfw",
        None,
        None,
        None,
        "internal_error",
        None,
    ]


def test_by_input_the_same_input_fares_the_same_each_time() -> None:
    made = book({"do": "black", "p": 0.5, "by": "input"})
    fates = {seed: ending(made, seed) for seed in range(200)}
    assert {seed: ending(made, seed) for seed in range(200)} == fates
    assert 60 < sum(fate == "black" for fate in fates.values()) < 140
    by_call = book({"do": "black", "p": 0.5})
    assert {ending(by_call, 1) for _ in range(50)} == {None, "black"}


def test_rules_about_ends_do_not_meet_the_call_itself() -> None:
    from falbatch.sandbox.faults import Target

    made = book({"do": "empty"})
    assert made.meet(Target(Where.SUBMIT, "fal-ai/flux", "/q")) is None


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"do": "nsfw:1"}, "takes nothing after a colon"),
        ({"do": "nsfw", "on": "file"}, "makes no sense on file"),
        ({"do": "nsfw", "seeds": []}, "seeds: expected whole numbers"),
        ({"do": "nsfw", "seeds": [True]}, "seeds: expected whole numbers"),
        ({"do": "status:429", "seeds": [1]}, "seeds belongs to"),
        ({"do": "nsfw", "by": "luck"}, "by: expected call or input"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(FaultError, match=words):
        parse_rule({"on": "submit", **rule}, 0)
