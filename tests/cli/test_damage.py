"""A batch whose state file was damaged by hand: the same command ends it, nothing is paid for twice, and it is said."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from falbatch.errors import ExitCode
from falbatch.faultpoints import VARIABLE
from tests.cli.conftest import Shell
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Ran

    Damage = Callable[[Path], None]

JOBS: Final = 12
FIRST: Final = 4

MANIFEST: Final = f"""\
version: 1
name: small
endpoint: fal-ai/flux/schnell
matrix: {{seed: {{range: [0, {JOBS}]}}}}
input: {{prompt: "a kite", image_size: {{width: 64, height: 64}}, seed: "{{{{ seed }}}}", output_format: png}}
output: {{dir: out, name: "kite-{{{{ seed }}}}"}}
limits: {{in_flight: 4}}
"""

SOON: Final = ("--json", "--reconcile-wait", "1")


@dataclass(frozen=True)
class Lives:
    """One fal, and folders as runs left them: `clean` after the first four jobs, `killed` in the run after that."""

    folder: Path
    sandbox: SandboxProcess
    paid: Counter[str]
    """What fal had run by then, by input."""

    def copy(self, life: str, place: Path) -> Shell:
        """A folder of its own with such a past."""
        shutil.copytree(self.folder / life, place, dirs_exist_ok=True)
        return Shell(place, self.sandbox)


def paid_by_input(fal: SandboxProcess) -> Counter[str]:
    return Counter(json.dumps(one["input"], sort_keys=True) for one in fal.ledger()["executions"])


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    base = tmp_path_factory.mktemp("lives")
    with SandboxProcess("--seed", "5", "--speed", "0") as fal:
        shell = Shell(base / "work", fal)
        shell.write("small.yaml", MANIFEST)
        assert shell.falbatch("run", "small.yaml", "--limit", str(FIRST)).code == ExitCode.OK
        shutil.copytree(shell.folder, base / "clean")
        # At the first result no slot was given back yet, and no intent shares its commit: a submit that fal never heard
        # of would be made by the first of the tests, and found by the others.
        assert shell.falbatch("run", "small.yaml", **{VARIABLE: "after.ResultStored"}).code == -signal.SIGKILL
        shutil.copytree(shell.folder, base / "killed")
        paid = settled(fal)
        assert FIRST < len(paid) < JOBS, "killed in the middle"
        assert state_of(Shell(base / "killed", fal)).with_name("falbatch.db-wal").stat().st_size > 0
        yield Lives(base, fal, paid)


def settled(fal: SandboxProcess) -> Counter[str]:
    """What fal has run once nothing more arrives: what was on its way when the run died is there then."""
    paid, calm = paid_by_input(fal), 0
    while calm < 4:
        time.sleep(0.3)
        now = paid_by_input(fal)
        paid, calm = now, calm + 1 if now == paid else 0
    return paid


def state_of(shell: Shell) -> Path:
    return shell.folder / "out" / "falbatch.db"


def _garbled(state: Path) -> None:
    with state.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (state.stat().st_size - 4096))


def _cut(state: Path) -> None:
    os.truncate(state, 5000)
    state.with_name("falbatch.db-wal").unlink()


def _emptied(state: Path) -> None:
    os.truncate(state, 0)


def _not_sqlite(state: Path) -> None:
    state.write_text("name: portraits\n" * 400)


def _gone(state: Path) -> None:
    state.unlink()


def _all_gone_but_the_copy_and_the_journal(state: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        state.with_name(state.name + ending).unlink()


def _without_wal(state: Path) -> None:
    state.with_name("falbatch.db-wal").unlink()


UNREADABLE: Final[dict[Damage, str]] = {
    _garbled: "is damaged",
    _cut: "is damaged",
    _emptied: "empty",
    _not_sqlite: "is damaged",
}
GONE: Final[dict[Damage, str]] = {_gone: "gone", _all_gone_but_the_copy_and_the_journal: "gone", _without_wal: ""}


def finished(shell: Shell) -> Ran:
    """The same command again, to its end. What fal never heard of is unknown by right, and submitted when told to."""
    ran = shell.falbatch("run", "small.yaml", *SOON)
    states = ran.objects()[-1]["states"] if ran.out else {}
    assert (ran.code in {0, 3}, states.get("done", 0) + states.get("unknown", 0)) == (True, JOBS), ran.err
    if states["unknown"]:
        more = shell.falbatch("run", "small.yaml", *SOON, "--resubmit-unknown", "--yes")
        assert (more.code, more.objects()[-1]["states"]["done"]) == (ExitCode.OK, JOBS), more.err
    return ran


def assert_each_paid_once(shell: Shell, lives: Lives, before: Counter[str]) -> None:
    """Each input executed once, over all that is in this batch's past; each file once on disk."""
    paid = lives.paid + (paid_by_input(shell.sandbox) - before)
    assert (len(paid), set(paid.values())) == (JOBS, {1})
    out = shell.folder / "out"
    assert sorted(path.name for path in out.rglob("*.png")) == sorted(f"kite-{seed}.png" for seed in range(JOBS))
    assert [str(path) for path in out.rglob("*.part*")] == []


@pytest.mark.parametrize("damage", [*UNREADABLE, *GONE])
def test_whatever_happened_to_the_file_after_a_kill_the_same_command_ends_the_batch(
    lives: Lives, tmp_path: Path, damage: Damage
) -> None:
    shell, before = lives.copy("killed", tmp_path), paid_by_input(lives.sandbox)
    damage(state_of(shell))
    ran = finished(shell)
    assert_each_paid_once(shell, lives, before)
    assert {**UNREADABLE, **GONE}[damage] in ran.err
    if damage in UNREADABLE:
        (line,) = (line for line in ran.err.splitlines() if "is kept as" in line)
        assert "the copy of 20" in line
        assert (shell.folder / "out" / line.split("is kept as ")[1].split()[0]).is_file()


def test_an_earlier_state_file_in_the_place_of_the_latest_is_brought_up_to_date(lives: Lives, tmp_path: Path) -> None:
    shell, before = lives.copy("killed", tmp_path), paid_by_input(lives.sandbox)
    _all_gone_but_the_copy_and_the_journal(state_of(shell))
    shutil.copy(lives.folder / "clean" / "out" / "falbatch.db", state_of(shell))
    assert "lacked submits that its journal knows of" in finished(shell).err
    assert_each_paid_once(shell, lives, before)
    assert "falbatch.db" not in finished(shell).err, "said once"


@pytest.mark.parametrize("damage", [_garbled, _gone])
def test_after_a_clean_end_damage_costs_no_submit(lives: Lives, tmp_path: Path, damage: Damage) -> None:
    shell = lives.copy("clean", tmp_path)
    before = shell.submits()
    damage(state_of(shell))
    ran = shell.falbatch("run", "small.yaml", "--limit", str(FIRST), *SOON)
    assert (ran.code, ran.objects()[-1]["states"]["done"]) == (ExitCode.OK, FIRST)
    assert "the copy of 20" in ran.err
    assert shell.submits() == before


def test_a_first_run_that_was_killed_is_known_by_its_journal_alone(lives: Lives, tmp_path: Path) -> None:
    shell, before = Shell(tmp_path, lives.sandbox), paid_by_input(lives.sandbox)
    shell.write("small.yaml", MANIFEST.replace("a kite", "a boat"))
    assert shell.falbatch("run", "small.yaml", **{VARIABLE: "after.FilesStored#2"}).code == -signal.SIGKILL
    out = tmp_path / "out"
    assert list(out.glob("*.png")), "some files were there already: they are not written twice"
    assert not (out / "falbatch.db.copy").exists()
    _all_gone_but_the_copy_and_the_journal(state_of(shell))
    assert "made anew" in finished(shell).err
    paid = paid_by_input(lives.sandbox) - before
    assert (len(paid), set(paid.values())) == (JOBS, {1})
    assert len(list(out.rglob("*.png"))) == JOBS


@pytest.mark.parametrize("damage", [_garbled, _emptied, _gone])
def test_commands_that_only_look_at_a_damaged_file_say_so_with_advice_and_change_nothing(
    lives: Lives, tmp_path: Path, damage: Damage
) -> None:
    shell = lives.copy("killed", tmp_path)
    damage(state_of(shell))
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir() if not path.name.endswith("-shm")}
    commands = (("status", "small.yaml"), ("plan", "small.yaml"), ("export", "small.yaml"), ("run", "out"))
    with ThreadPoolExecutor() as threads:
        for ran in threads.map(lambda words: shell.falbatch(*words), commands):
            assert (ran.code, ran.out) == (ExitCode.STATE, "")
            assert "the state file is damaged" in ran.err
            assert "`falbatch run MANIFEST` puts it together again" in ran.err
            assert "Traceback" not in ran.err
    assert all(path.read_bytes() == body for path, body in before.items())


@pytest.mark.parametrize("name", ["falbatch.journal", "falbatch.db.copy"])
def test_without_copy_or_journal_a_damaged_file_is_refused_and_nothing_is_submitted(
    lives: Lives, tmp_path: Path, name: str
) -> None:
    shell = lives.copy("killed", tmp_path)
    _garbled(state_of(shell))
    (tmp_path / "out" / name).unlink()
    before = shell.submits()
    ran = shell.falbatch("run", "small.yaml", *SOON)
    assert ran.code == ExitCode.STATE
    told = json.loads(ran.err.splitlines()[-1])
    assert "not all that was submitted is known" in told["message"]
    assert "dashboard" in told["advice"]
    assert shell.submits() == before


def test_a_mending_that_is_killed_too_is_begun_again(lives: Lives, tmp_path: Path) -> None:
    shell, before = lives.copy("killed", tmp_path), paid_by_input(lives.sandbox)
    _garbled(state_of(shell))
    assert shell.falbatch("run", "small.yaml", **{VARIABLE: "mend.aside"}).code == -signal.SIGKILL
    finished(shell)
    assert_each_paid_once(shell, lives, before)
    assert len(list((tmp_path / "out").glob("falbatch.set-aside-*.db"))) == 1
