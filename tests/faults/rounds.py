"""One round of random kills: a batch, the same command again and again, killed at places and moments drawn from a seed.

    kill, kill, kill … ─▶ the same command to its end ─▶ judge ─▶ submit what is unknown, as confirmed ─▶ judge

The same seed draws the same batch, faults, places and moments; where in a run a moment falls is the machine's doing.
"""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from falbatch.faultpoints import POINTS, VARIABLE
from tests.faults.harness import (
    Client,
    assert_files_whole,
    assert_nothing_charged_twice,
    canonical,
    paid_by_input,
    pictures,
    wait_until,
)
from tests.sandbox_process import SandboxProcess

FAULTS: tuple[dict[str, Any], ...] = (
    {"on": "submit", "do": "status:429", "p": 0.08},
    {"on": "submit", "do": "drop_after", "p": 0.03},
    {"on": "submit", "do": "drop_before", "p": 0.02},
    {"on": "submit", "do": "status:502", "nginx": True, "accepted": True, "p": 0.02},
    {"on": "submit", "do": "truncate", "p": 0.02},
    {"on": "submit", "do": "fail:runner_disconnected", "p": 0.03},
    {"on": "status", "do": "status:503", "p": 0.02},
    {"on": "status", "do": "drop_before", "p": 0.02},
    {"on": "result", "do": "status:502", "nginx": True, "p": 0.05},
    {"on": "result", "do": "drop_after", "p": 0.03},
    {"on": "result", "do": "corrupt", "p": 0.02},
    {"on": "file", "do": "truncate", "p": 0.08, "once": "path"},
    {"on": "file", "do": "drop_after", "p": 0.05, "once": "path"},
    {"on": "platform", "do": "status:500", "p": 0.1},
)
"""What else goes wrong while the killing goes on; each round draws some of them."""

CLIENT_POINTS = tuple(point for point in POINTS if not point.startswith(("sandbox.", "mend.")))
SANDBOX_POINTS = tuple(point for point in POINTS if point.startswith("sandbox."))

MODES = ("queue", "queue", "run", "stream", "realtime")
"""How a round's jobs are called."""

KILLS_MOST = 25
"""In one round: later the batch is done, and there is little left to interrupt."""


@dataclass
class Tally:
    """What rounds came to, added up."""

    rounds: int = 0
    kills: int = 0
    at_points: int = 0
    """Kills at a named point; the others came at a random moment."""
    of_sandbox: int = 0
    jobs: int = 0
    executions: int = 0
    found: int = 0
    """Submits without an answer whose requests the client found by itself."""
    confirmed: int = 0
    """Jobs that stayed unknown, and were submitted again on demand."""
    by_point: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Add another tally to this one."""
        for name in ("rounds", "kills", "at_points", "of_sandbox", "jobs", "executions", "found", "confirmed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.by_point.update(other.by_point)


def play(seed: str, *, kills: int = KILLS_MOST, keep: Path | None = None) -> Tally:
    """Play the round that `seed` draws, with at most `kills` kills. Raises AssertionError where a promise is broken,
    and leaves the folder for a look. `keep` names the folder, and leaves it in any case."""
    folder = keep or Path(tempfile.mkdtemp(prefix="falbatch-round-"))
    tally = _Round(seed, folder, min(kills, KILLS_MOST)).play()
    if keep is None:
        shutil.rmtree(folder)
    return tally


def is_idle(fal: SandboxProcess) -> bool:
    """True when nothing is queued or running at fal."""
    return all(one["waiting"] + one["running"] == 0 for one in fal.stats()["accounts"].values())


class _Round:
    def __init__(self, seed: str, folder: Path, kills: int) -> None:
        self._chance = random.Random(seed)
        self._folder = folder
        self._kills = kills
        self._jobs = self._chance.randint(60, 180)
        self._repeat = self._chance.choice((1, 1, 2))
        self._mode = self._chance.choice(MODES)
        self._tally = Tally(rounds=1, jobs=self._jobs * self._repeat)

    def play(self) -> Tally:
        chance = self._chance
        (self._folder / "fal.yaml").write_text(f"durations: {{'*': [{chance.choice((0.1, 0.3, 0.6))}, 0.5]}}\n")
        flags = ("--seed", str(chance.randrange(1000)), "--concurrency", str(chance.choice((4, 10, 30))))
        data = ("--data", str(self._folder / "fal"), "--scenario", str(self._folder / "fal.yaml"))
        with SandboxProcess(*flags, *data) as fal:
            fal.add_faults(map(self._in_mode, chance.sample(FAULTS, chance.randint(3, 8))))
            client = Client.with_jobs(self._folder, fal, self._jobs, repeat=self._repeat, mode=self._mode)
            while self._tally.kills < self._kills and self._interrupt(client, fal):
                pass
            fal.clear_faults()
            self._finish(client, fal)
        return self._tally

    def _in_mode(self, fault: dict[str, Any]) -> dict[str, Any]:
        """What goes wrong with submits goes wrong with direct calls."""
        return fault | {"on": self._mode} if fault["on"] == "submit" and self._mode != "queue" else fault

    def _interrupt(self, client: Client, fal: SandboxProcess) -> bool:
        """One run that is killed, or fal under it, or both. False when the run ended by itself: all is done."""
        chance = self._chance
        kind = chance.choices(("moment", "point", "sandbox point", "sandbox moment"), (50, 30, 10, 10))[0]
        seconds = chance.uniform(0.35, 1.8)
        point = f"{chance.choice(CLIENT_POINTS)}#{chance.choice((1, 1, 2, 3, 8))}" if kind == "point" else ""
        if kind == "sandbox point":
            fal.stop()
            fal.environment[VARIABLE] = f"{chance.choice(SANDBOX_POINTS)}#{chance.choice((1, 2, 5))}"
            fal.start()
        # A run that meets its point dies there; without one it is killed at its moment, or much later all the same.
        death = client.killed(2 * seconds if point else seconds, point, "--reconcile-wait", "0")
        self._tally.kills += death != "not"
        if death == "at point":
            self._tally.at_points += 1
            self._tally.by_point[point.partition("#")[0]] += 1
        if kind == "sandbox moment":
            fal.kill()
            fal.start()
            self._tally.kills += 1
            self._tally.of_sandbox += 1
        elif kind == "sandbox point":
            reached = fal.environment.pop(VARIABLE).partition("#")[0]
            if fal.stop() == -signal.SIGKILL:
                self._tally.kills += 1
                self._tally.of_sandbox += 1
                self._tally.at_points += 1
                self._tally.by_point[reached] += 1
            fal.start()
        return death != "not"

    def _finish(self, client: Client, fal: SandboxProcess) -> None:
        """The same command, in peace: what fal has run comes home, and what is not known stays unknown, and is said."""
        total = self._jobs * self._repeat
        code, report = client.run("--reconcile-wait", "0", "--retry-failed")
        if report["unknown"]:
            # fal lists what has ended: with its queue empty there is nothing left that it could not tell.
            wait_until(lambda: is_idle(fal), seconds=60, what="fal has nothing left to do")
            code, report = client.finish("reconcile", "out", "--wait", "1", "--json")
        states = report["states"]
        ledger = fal.ledger()
        assert states["done"] + states["unknown"] == total, states
        assert code == (3 if states["unknown"] else 0)
        assert len(report["unknown"]) == states["unknown"]
        assert_nothing_charged_twice(client, ledger)
        assert_files_whole(client)
        self._assert_unknown_are_lost(client, ledger)
        confirmed = Counter(canonical(job["input_json"]) for job in report["unknown"])
        self._tally.found += client.query("SELECT count(*) FROM attempts WHERE outcome = 'found'")[0][0]
        if confirmed:
            code, report = client.run("--reconcile-wait", "0", "--resubmit-unknown", "--yes")
            ledger = fal.ledger()
        self._tally.confirmed += confirmed.total()
        self._tally.executions += ledger["count"]
        assert (code, report["states"]["done"]) == (0, total)
        assert_nothing_charged_twice(client, ledger, confirmed=confirmed)
        # Every job was paid for exactly once: what was confirmed had not run before.
        assert set(paid_by_input(ledger).values()) == {self._repeat}
        assert_files_whole(client)
        # A stream's events lie beside its picture, unless it came home from fal's list.
        assert total <= report["files"] <= (2 * total if self._mode == "stream" else total)
        assert pictures(client) == self._undisturbed(fal)

    def _assert_unknown_are_lost(self, client: Client, ledger: dict[str, Any]) -> None:
        """What fal ran was found: a job that stays unknown after fal's list was read did not run, or, where only its
        output would do, it failed."""
        known = {request_id for (request_id,) in client.query("SELECT request_id FROM requests")}
        unknown = {canonical(given) for (given,) in client.query("SELECT input FROM jobs WHERE state = 'unknown'")}
        unseen = [
            one
            for one in ledger["executions"]
            if one["request_id"] not in known and (self._mode == "queue" or one["status_code"] == 200)
        ]
        assert [one for one in unseen if canonical(one["input"]) in unknown] == []

    def _undisturbed(self, fal: SandboxProcess) -> dict[str, str]:
        """The pictures of the same batch, run once in peace, by a fal of its own."""
        folder = self._folder / "undisturbed"
        folder.mkdir()
        with SandboxProcess("--seed", "1", "--speed", "0") as peaceful:
            client = Client.with_jobs(folder, peaceful, self._jobs, repeat=self._repeat)
            code, _ = client.run()
        assert code == 0
        return pictures(client)
