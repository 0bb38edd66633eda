"""The sandbox killed at its named places: what it answered is kept, what it kept may be unanswered."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from falbatch.faultpoints import VARIABLE
from tests.sandbox.conftest import Fal
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KITE = {"prompt": "a red kite", "image_size": {"width": 64, "height": 64}}
QUICK = "fal-ai/flux/schnell"


def die_at(
    point: str, folder: Path, monkeypatch: pytest.MonkeyPatch, deadly_call: Callable[[Fal], object]
) -> tuple[SandboxProcess, Fal]:
    """A sandbox that was killed at `point` by `deadly_call`, to be started again; it keeps its port."""
    process = SandboxProcess("--data", str(folder), "--speed", "0")
    monkeypatch.setenv(VARIABLE, point)
    process.start()
    fal = Fal(process.origin)
    with pytest.raises(httpx.TransportError):
        deadly_call(fal)
    assert process.stop() == -signal.SIGKILL
    monkeypatch.delenv(VARIABLE)
    return process, fal


@pytest.mark.parametrize(("point", "kept"), [("sandbox.accepting", 0), ("sandbox.accepted", 1)])
def test_a_submit_cut_off_is_known_only_once_it_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, kept: int
) -> None:
    process, fal = die_at(point, tmp_path, monkeypatch, lambda fal: fal.post(KITE, QUICK))
    with process:
        assert process.ledger()["count"] == kept
        fal.run(KITE, QUICK)
        assert process.ledger()["count"] == kept + 1
    fal.close()


def test_the_point_counts_and_what_was_answered_before_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered: list[dict[str, Any]] = []

    def three_submits(fal: Fal) -> None:
        while len(answered) < 10:
            answered.append(fal.submit({**KITE, "seed": len(answered)}, QUICK))

    process, fal = die_at("sandbox.accepting#3", tmp_path, monkeypatch, three_submits)
    with process:
        kept = [entry["request_id"] for entry in process.ledger()["executions"]]
        assert kept == [request["request_id"] for request in answered]
        assert len(kept) == 2
    fal.close()


@pytest.mark.parametrize("point", ["sandbox.result", "sandbox.file"])
def test_a_result_or_file_cut_off_can_be_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    found: list[dict[str, Any]] = []

    def fetch(fal: Fal) -> None:
        found.append(fal.submit(KITE, QUICK))
        fal.file(fal.result(found[0]).json()["images"][0]["url"]).raise_for_status()

    process, fal = die_at(point, tmp_path, monkeypatch, fetch)
    with process:
        images = fal.result(found[0]).json()["images"]
        assert fal.file(images[0]["url"]).status_code == 200
        assert process.ledger()["count"] == 1
    fal.close()


def test_a_failed_result_passes_the_place_of_a_successful_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "sandbox.result")
    with SandboxProcess("--data", str(tmp_path), "--speed", "0") as process:
        fal = Fal(process.origin)
        assert fal.result(fal.submit({"prompt": ["not text"]}, QUICK)).status_code == 422
        fal.close()


def test_a_direct_call_cut_off_is_in_the_ledger_and_its_answer_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(fal: Fal) -> None:
        fal.http.post(f"{fal.origin}/run/{QUICK}", json=KITE)

    process, fal = die_at("sandbox.answering", tmp_path, monkeypatch, call)
    with process:
        ledger = process.ledger()
        assert [entry["status_code"] for entry in ledger["executions"]] == [200]
        request_id = ledger["executions"][0]["request_id"]
        assert fal.get(f"{fal.origin}/queue/fal-ai/flux/requests/{request_id}").status_code == 404
    fal.close()
