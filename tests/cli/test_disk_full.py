"""A disk without room, or that takes no writes: the run ends, keeps what it knows, and the same command goes on."""

from __future__ import annotations

import subprocess
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from falbatch.adapters.store.database import open_reader
from tests.cli.conftest import MANIFEST, SMALL_DISK

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Shell

JOBS = 16

BIG = MANIFEST.replace("[0, 4]", f"[0, {JOBS}]").replace("width: 64, height: 64", "width: 900, height: 900")
"""Pictures of a hundred kilobytes and more: a few of them fill what is left of the disk."""

TIGHT = (2700, 1600)
"""KiB left on the disk, of which the state file's reserve and what downloads leave free take two thousand: room for a
few pictures, and for none."""


def executed_twice(shell: Shell) -> list[str]:
    """Inputs that fal ran more than once."""
    counts = Counter(str(execution["input"]) for execution in shell.sandbox.ledger()["executions"])
    return [given for given, count in counts.items() if count > 1]


def executed_by_fal(shell: Shell) -> set[str]:
    """Ids of the requests that fal ran, and charged."""
    return {execution["request_id"] for execution in shell.sandbox.ledger()["executions"]}


def ids_on_record(place: Path) -> set[str]:
    """Request ids in the state file, each with a job that waits for it or has it."""
    with closing(open_reader(place / "falbatch.db")) as connection:
        return {name for (name,) in connection.execute("SELECT request_id FROM requests")}


@pytest.mark.parametrize("room", TIGHT)
def test_a_full_disk_pauses_the_run_with_all_that_it_knows(shell: Shell, small_disk: Path, room: int) -> None:
    shell.write("small.yaml", BIG)
    run = ("run", "small.yaml", "--output", str(small_disk), "--json")
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (SMALL_DISK - room * 1024))
    ran = shell.falbatch(*run)
    report = ran.objects()[-1]

    assert ran.code == 8, ran.err
    assert "no space left" in report["run"]["stopped_by"]
    assert "Free some space" in report["advice"]
    assert sum(report["states"].values()) == JOBS
    assert report["states"]["failed"] == report["states"]["cancelled"] == 0
    assert report["states"]["unknown"] == 0
    assert ids_on_record(small_disk) == executed_by_fal(shell)

    # Looking takes no room; running again finds none, and submits nothing that could not be recorded.
    status = shell.falbatch("status", str(small_disk), "--json")
    assert status.code == 0, status.err
    assert status.objects()[0]["states"] == report["states"]
    again = shell.falbatch(*run, "--reconcile-wait", "0")
    assert again.code == 8, again.err
    assert executed_twice(shell) == []

    ballast.unlink()
    at_last = shell.falbatch(*run)
    assert at_last.code == 0, at_last.err
    assert at_last.objects()[-1]["states"]["done"] == JOBS
    assert executed_twice(shell) == []
    assert shell.sandbox.ledger()["count"] == JOBS
    assert len(list(small_disk.glob("kite-*.jpg"))) == JOBS
    for place in small_disk.glob("kite-*.jpg"):
        with Image.open(place) as picture:
            picture.load()
    assert [place.name for place in small_disk.iterdir() if "part" in place.name or "probe" in place.name] == []


def test_an_export_that_finds_no_room_leaves_the_old_one(shell: Shell, small_disk: Path) -> None:
    shell.write("small.yaml", MANIFEST)
    assert shell.falbatch("run", "small.yaml").code == 0
    old = small_disk / "results.jsonl"
    old.write_bytes(b"old\n")
    (small_disk / "ballast").write_bytes(b"\0" * (SMALL_DISK - 4096))
    ran = shell.falbatch("export", "small.yaml", "--to", str(old))
    assert ran.code == 8
    assert "no space left" in ran.err
    assert old.read_bytes() == b"old\n"
    assert sorted(place.name for place in small_disk.iterdir()) == ["ballast", "results.jsonl"]


def test_a_folder_that_became_read_only_is_refused_and_goes_on_later(shell: Shell, small_disk: Path) -> None:
    shell.write("small.yaml", MANIFEST)
    run = ("run", "small.yaml", "--output", str(small_disk))
    assert shell.falbatch(*run, "--limit", "2").code == 0
    before = {place.name: place.read_bytes() for place in small_disk.iterdir() if place.suffix != ".lock"}
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    try:
        refused = shell.falbatch(*run)
        status = shell.falbatch("status", str(small_disk), "--json")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)

    assert refused.code == 2
    assert "cannot be written (Read-only file system)" in refused.err
    assert "permissions" in refused.err
    assert "Traceback" not in refused.err + status.err
    assert status.code in {0, 2}, "SQLite cannot read a WAL file's index without writing: said, not crashed"
    assert shell.sandbox.ledger()["count"] == 2
    assert {place.name: place.read_bytes() for place in small_disk.iterdir() if place.suffix != ".lock"} == before
    assert shell.falbatch(*run).code == 0
    assert shell.sandbox.ledger()["count"] == 4


def test_a_disk_without_room_for_the_reserve_is_refused_before_anything_is_paid(shell: Shell, small_disk: Path) -> None:
    shell.write("small.yaml", BIG)
    run = ("run", "small.yaml", "--output", str(small_disk))
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (SMALL_DISK - 700 * 1024))
    refused = shell.falbatch(*run)
    assert refused.code == 8
    assert "no space left" in refused.err
    assert shell.submits() == 0
    ballast.unlink()
    assert shell.falbatch(*run).code == 0
    assert shell.sandbox.ledger()["count"] == JOBS
