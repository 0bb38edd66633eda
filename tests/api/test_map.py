"""`falbatch.map`: the engine for inputs that live in Python."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import falbatch
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENDPOINT = "fal-ai/flux/schnell"
INPUTS = [{"prompt": f"kite {number}", "image_size": {"width": 64, "height": 64}} for number in range(6)]


@pytest.fixture
def fal(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxProcess]:
    """A fal without service times that the library is pointed at."""
    with SandboxProcess("--seed", "2", "--speed", "0") as sandbox:
        monkeypatch.setenv("FALBATCH_ORIGIN", sandbox.origin)
        monkeypatch.setenv("FAL_KEY", "map:secret")
        yield sandbox


def outcomes(folder: Path, inputs: list[dict[str, Any]] = INPUTS, **more: Any) -> list[falbatch.Outcome]:
    """All outcomes of one `map`, by index."""

    async def collect() -> list[falbatch.Outcome]:
        stream = falbatch.map(ENDPOINT, inputs, state=folder / "x.db", **more)
        return [outcome async for outcome in stream]

    return sorted(anyio.run(collect), key=lambda outcome: outcome.index)


def test_every_input_has_one_outcome_with_its_result_and_files(fal: SandboxProcess, tmp_path: Path) -> None:
    found = outcomes(tmp_path, output=tmp_path / "files")
    assert [outcome.input["prompt"] for outcome in found] == [given["prompt"] for given in INPUTS]
    assert all(outcome.is_ok and outcome.state is falbatch.State.DONE for outcome in found)
    assert all(len(outcome.files) == 1 and outcome.files[0].is_file() for outcome in found)
    assert found[0].output["prompt"] == "kite 0"


def test_the_same_inputs_again_cost_nothing(fal: SandboxProcess, tmp_path: Path) -> None:
    first = outcomes(tmp_path)
    again = outcomes(tmp_path)
    assert again == first
    assert fal.ledger()["count"] == len(INPUTS)


@pytest.mark.parametrize("mode", ["run", "stream", "realtime"])
def test_the_endpoint_may_be_called_in_any_mode(fal: SandboxProcess, tmp_path: Path, mode: str) -> None:
    found = outcomes(tmp_path, output=tmp_path / "files", mode=mode)
    assert all(outcome.is_ok and outcome.files[0].is_file() for outcome in found)
    assert outcomes(tmp_path, output=tmp_path / "files", mode=mode) == found
    assert fal.ledger()["count"] == len(INPUTS)
    assert "submit" not in fal.stats()["requests"]


def test_a_mode_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(falbatch.UsageError, match="one of queue, run, stream, realtime, not 'qeue'"):
        outcomes(tmp_path, mode="qeue")


def test_without_an_output_folder_only_results_are_kept(fal: SandboxProcess, tmp_path: Path) -> None:
    found = outcomes(tmp_path)
    assert all(outcome.is_ok and outcome.files == () for outcome in found)
    assert "file" not in fal.stats()["requests"]


def test_a_failed_input_is_an_outcome_and_no_exception(fal: SandboxProcess, tmp_path: Path) -> None:
    bad, good = outcomes(tmp_path, [{"image_size": "square"}, INPUTS[0]])
    assert good.is_ok
    assert (bad.is_ok, bad.state, bad.error_type) == (False, falbatch.State.FAILED, "missing")


def test_leaving_early_loses_nothing(fal: SandboxProcess, tmp_path: Path) -> None:
    async def one() -> None:
        async with contextlib.aclosing(falbatch.map(ENDPOINT, INPUTS, state=tmp_path / "x.db")) as stream:
            async for _ in stream:
                break

    anyio.run(one)
    assert len(outcomes(tmp_path)) == len(INPUTS)
    assert fal.ledger()["count"] == len(INPUTS)


@pytest.mark.parametrize("mode", ["queue", "run"])
def test_a_cancelled_caller_loses_no_answer(fal: SandboxProcess, tmp_path: Path, mode: str) -> None:
    fal.add_faults([{"on": "submit" if mode == "queue" else "run", "do": "delay:0.6"}])

    def states() -> set[str]:
        with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as connection:
            return {state for (state,) in connection.execute("SELECT DISTINCT state FROM jobs")}

    async def cancelled() -> None:
        async def work() -> None:
            async with contextlib.aclosing(
                falbatch.map(ENDPOINT, INPUTS, state=tmp_path / "x.db", mode=mode)
            ) as stream:
                async for _ in stream:
                    pass

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            while not (tmp_path / "x.db").exists() or "submitting" not in states():
                await anyio.sleep(0.02)
            group.cancel_scope.cancel()

    for _ in range(20):
        anyio.run(cancelled)
        if states() != {"planned"}:  # else it was cancelled between the intent and the first byte: nothing had left
            break
    assert states() - {"planned"} == {"submitted" if mode == "queue" else "completed"}
    fal.clear_faults()
    assert all(outcome.is_ok for outcome in outcomes(tmp_path, mode=mode))
    assert fal.ledger()["count"] == len(INPUTS)


def test_walking_away_without_closing_ends_too(fal: SandboxProcess, tmp_path: Path) -> None:
    async def one() -> None:
        async for _ in falbatch.map(ENDPOINT, INPUTS, state=tmp_path / "x.db"):
            break

    asyncio.run(one())
    assert len(outcomes(tmp_path)) == len(INPUTS)
    assert fal.ledger()["count"] == len(INPUTS)


def test_the_callers_own_exception_comes_out_as_it_is(fal: SandboxProcess, tmp_path: Path) -> None:
    async def fail() -> None:
        async with contextlib.aclosing(falbatch.map(ENDPOINT, INPUTS, state=tmp_path / "x.db")) as stream:
            async for _ in stream:
                raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        anyio.run(fail)


def test_a_locked_account_is_raised(fal: SandboxProcess, tmp_path: Path) -> None:
    fal.lock()
    with pytest.raises(falbatch.CredentialsError, match="403"):
        outcomes(tmp_path)
    fal.lock(locked=False)
    assert len(outcomes(tmp_path)) == len(INPUTS)


def test_an_endpoint_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(falbatch.UsageError, match="flux"):
        anyio.run(lambda: _first(falbatch.map("flux", INPUTS, state=tmp_path / "x.db")))


def test_an_answer_that_was_lost_is_found_and_yields_its_result(fal: SandboxProcess, tmp_path: Path) -> None:
    fal.add_faults([{"on": "submit", "do": "drop_after", "nth": 2}])
    found = outcomes(tmp_path)
    assert [outcome.is_ok for outcome in found] == [True] * 6
    assert fal.ledger()["count"] == 6


def test_an_input_without_an_answer_is_an_outcome_that_comes_last(fal: SandboxProcess, tmp_path: Path) -> None:
    fal.add_faults([{"on": "submit", "do": "drop_before", "nth": 2}])
    limits = falbatch.Limits(reconcile_s=0.5)

    async def collect() -> list[falbatch.Outcome]:
        stream = falbatch.map(ENDPOINT, INPUTS, state=tmp_path / "x.db", limits=limits)
        return [outcome async for outcome in stream]

    *others, last = anyio.run(collect)
    assert last.state is falbatch.State.UNKNOWN
    assert not last.is_ok
    assert [outcome.is_ok for outcome in others] == [True] * 5


def test_a_cost_limit_is_raised_and_holds(fal: SandboxProcess, tmp_path: Path) -> None:
    limits = falbatch.Limits(max_cost_nano=10_000_000)
    with pytest.raises(falbatch.LimitReached, match=r"limit of \$0\.01"):
        outcomes(tmp_path, limits=limits)
    assert fal.ledger()["total_cost"] == pytest.approx(0.009)
    higher = falbatch.Limits(max_cost_nano=20_000_000)
    assert [outcome.is_ok for outcome in outcomes(tmp_path, limits=higher)] == [True] * 6


async def _first(stream: Any) -> Any:
    return await anext(stream)
