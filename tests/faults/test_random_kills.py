"""Kills at random moments and places. As many as you like: `python -m tests.faults --kills 10000`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tests.faults.__main__ as command_line
from tests.faults.rounds import Tally, play

ROOT = Path(__file__).parents[2]

KILLS = 5
"""In each of two tests, which share the processors. The gate has ten minutes; hundreds are for the command."""


@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", range(2))
def test_batches_survive_kills_at_random_moments(part: int) -> None:
    tally = Tally()
    while tally.kills < KILLS:
        tally.add(play(f"20261121:{part}:{tally.rounds}", kills=KILLS - tally.kills))
    assert tally.executions >= tally.jobs


def test_the_command_of_the_readme_kills_and_says_what_it_found() -> None:
    command = [sys.executable, "-m", "tests.faults", "--kills", "1", "--seed", "5", "--workers", "1"]
    assert "python -m tests.faults --kills" in (ROOT / "README.md").read_text(encoding="utf-8")
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.startswith("seed 5\n")
    assert "every promise held" in ran.stdout


def test_a_broken_promise_is_named_with_the_command_that_plays_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_seed: str, *, kills: int) -> Tally:
        raise AssertionError("paid twice")

    monkeypatch.setattr(command_line, "play", broken)
    monkeypatch.setattr(sys, "argv", ["tests.faults", "--kills", "1", "--seed", "7", "--workers", "1"])
    assert command_line.main() == 1
    assert "--replay 7:1" in capsys.readouterr().out
