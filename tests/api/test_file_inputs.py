"""`{file: path}` in a manifest: uploaded once per content, known by content, checked on the way, said when wrong."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from PIL import Image

from falbatch.adapters import localfiles
from falbatch.adapters.localfiles import TICK_NS, Content, Stamp, content_of, look
from falbatch.adapters.store import stage
from falbatch.adapters.store import uploads as stored
from falbatch.api import uploading
from falbatch.api.offline import check_endpoint
from falbatch.api.options import RunOptions
from falbatch.api.planning import Selection, make_plan
from falbatch.api.running import arun
from falbatch.api.workspace import open_manifest
from falbatch.fal.storage import MIB, UploadLimits
from tests.cli.conftest import Shell
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFEST = """\
version: 1
name: edits
endpoint: generic/edit
rows: {glob: "photos/*.png"}
matrix: {style: [STYLES]}
input:
  prompt: "{{ style }}"
  image_url: {file: "{{ row.path }}"}
  image_size: {width: 16, height: 16}
output: {dir: out, name: "{{ row.stem }}-{{ style }}"}
limits: {submits_per_s: 1000, polls_per_s: 1000, in_flight: 100}
"""


def picture(number: int) -> bytes:
    """A PNG unlike those of other numbers."""
    stream = BytesIO()
    Image.new("RGB", (4, 4), (number % 256, number // 256, 3)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def fal() -> Iterator[SandboxProcess]:
    """One fal for all of them, without service times."""
    with SandboxProcess("--seed", "5", "--speed", "0") as sandbox:
        yield sandbox


@pytest.fixture
def shell(tmp_path: Path, fal: SandboxProcess) -> Shell:
    """An empty folder, and a fal that has seen nothing."""
    fal.reset()
    return Shell(tmp_path, fal)


def lay(shell: Shell, photos: int, *styles: str, more: str = "") -> None:
    """A folder of pictures and a manifest over it. The pictures have rested for a while."""
    for number in range(photos):
        shell.write(f"photos/p{number:03}.png", picture(number))
    rest()
    shell.write("m.yaml", MANIFEST.replace("STYLES", ", ".join(styles)) + more)


def rest() -> None:
    """Until what was written is old enough to be known again without being read."""
    time.sleep(1.2 * TICK_NS / 1e9)


def run(shell: Shell, *, limit: int | None = None, reconcile_s: float | None = None) -> dict[str, Any]:
    """A run's report, as `falbatch run --json` prints it."""
    options = RunOptions(selection=Selection(limit=limit), reconcile_s=reconcile_s)
    with at_home(shell):
        return anyio.run(lambda: arun("m.yaml", options)).as_json()


def plan(shell: Shell) -> dict[str, Any]:
    """A plan, as `falbatch plan --json` prints it at its end."""
    with at_home(shell):
        return make_plan(open_manifest(Path("m.yaml")), Selection(), check_endpoint).as_json()


@contextmanager
def at_home(shell: Shell) -> Iterator[None]:
    """In the user's folder, with the user's settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shell.folder)
        for name, value in shell.environment().items():
            patch.setenv(name, value)
        yield


def uploads(sandbox: SandboxProcess) -> list[dict[str, Any]]:
    files: list[dict[str, Any]] = sandbox.uploads()["files"]
    return files


def query(shell: Shell, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(shell.folder / "out" / "falbatch.db")) as connection:
        return connection.execute(sql).fetchall()


def test_each_image_is_uploaded_once_for_all_prompts_and_the_second_run_uploads_none(shell: Shell) -> None:
    lay(shell, 40, "oil", "ink", "chalk", "lino", "pastel")
    planned = plan(shell)
    size = sum(len(picture(number)) for number in range(40))
    assert planned["files"] == {"upload": 40, "upload_bytes": size, "there": 0}
    report = run(shell)
    assert (report["exit_code"], report["states"]["done"]) == (0, 200)
    assert (report["run"]["uploads"], report["run"]["uploaded_bytes"]) == (40, size)
    there = uploads(shell.sandbox)
    assert sorted(one["sha256"] for one in there) == sorted(hashlib.sha256(picture(n)).hexdigest() for n in range(40))
    sent = [one["input"]["image_url"] for one in shell.sandbox.ledger()["executions"]]
    assert sorted(sent) == sorted(5 * [one["url"] for one in there])
    again = run(shell)
    assert (again["exit_code"], again["run"]["submitted"], again["run"]["uploads"]) == (0, 0, 0)
    # One picture is edited, one renamed and one copied: only the edited one is another job.
    shell.write("photos/p007.png", picture(7007))
    planned = plan(shell)
    assert (planned["actions"]["submit"], planned["files"]["upload"], planned["changes"]["changed"]) == (5, 1, 5)
    report = run(shell)
    assert (report["exit_code"], report["run"]["submitted"], report["run"]["uploads"]) == (0, 5, 1)
    assert len(uploads(shell.sandbox)) == 41
    assert len(shell.sandbox.ledger()["executions"]) == 205


def test_a_file_counts_by_its_content(shell: Shell) -> None:
    lay(shell, 3, "oil")
    run(shell)
    (shell.folder / "photos" / "p000.png").rename(shell.folder / "photos" / "renamed.png")
    (shell.folder / "photos" / "p001.png").touch()
    report = run(shell)
    assert (report["run"]["submitted"], report["states"]["done"]) == (0, 3)
    # The same content twice is the same job twice, as two equal rows are.
    shell.write("photos/twin.png", picture(1))
    report = run(shell)
    assert (report["run"]["submitted"], report["run"]["uploads"]) == (1, 0)


def test_what_was_read_once_is_not_read_again(shell: Shell) -> None:
    lay(shell, 3, "oil")
    run(shell)
    before = query(shell, "SELECT path, hashed_ns FROM local_files")
    shell.write("photos/p002.png", picture(99))
    run(shell)
    after = query(shell, "SELECT path, hashed_ns FROM local_files")
    assert [path for path, _ in set(after) - set(before)] == [str(shell.folder.resolve() / "photos" / "p002.png")]


def test_everything_that_is_wrong_with_files_is_said_at_once(shell: Shell) -> None:
    lay(shell, 2, "oil", "ink")
    shell.write("empty.png", "")
    rows = "photo\nphotos/p000.png\nphotos/p00.png\nphotos\nempty.png\nhttps://x.test/y.png\n"
    shell.write("rows.csv", rows + "".join(f"none{number}.png\n" for number in range(200)))
    text = MANIFEST.replace("STYLES", "oil, ink").replace('{glob: "photos/*.png"}', "rows.csv")
    shell.write("m.yaml", text.replace("row.path", "row.photo").replace("row.stem", "index"))
    for command in ("plan", "run"):
        ran = shell.falbatch(command, "m.yaml")
        assert ran.code == 2
        missing = '"photos/p00.png": there is no such file (rows.csv:3, style=oil)'
        assert f"m.yaml:8:21: input.image_url.file: {missing}" in ran.err
        assert 'did you mean "p00' in ran.err
        assert '"photos": it is a folder' in ran.err
        assert '"empty.png": the file is empty' in ran.err
        assert "[2 items]" in ran.err
        assert "more problems" in ran.err
        assert "x.test" not in ran.err, "a URL is passed on as it is"
        assert len(ran.err.splitlines()) < 110
    assert shell.submits() == 0
    assert uploads(shell.sandbox) == []


def test_a_manifest_may_not_mark_files_itself(shell: Shell) -> None:
    shell.write("rows.jsonl", json.dumps({"x": {"falbatch:file": "0" * 64}}) + "\n")
    text = MANIFEST.replace("STYLES", "oil").replace('{glob: "photos/*.png"}', "rows.jsonl")
    shell.write("m.yaml", text.replace('{file: "{{ row.path }}"}', '"{{ row.x }}"').replace("row.stem", "index"))
    ran = shell.falbatch("plan", "m.yaml")
    assert ran.code == 2
    assert 'may not have a key "falbatch:file"' in ran.err


def test_a_file_that_changes_after_the_plan_is_noticed_and_costs_nothing(shell: Shell) -> None:
    lay(shell, 2, "oil")
    run(shell, limit=1)
    place = shell.folder / "photos" / "p001.png"
    report = _run_with_stale_note(shell, place)
    assert report["exit_code"] == 3
    (group,) = report["failures"]
    assert (group["error_type"], group["count"]) == ("file_changed", 1)
    assert "p001.png: the file is not what it was when the run was planned" in group["example"]
    assert "run again" in group["advice"]
    assert len(shell.sandbox.ledger()["executions"]) == 1
    # The next plan takes it as it is.
    place.touch()
    report = run(shell)
    assert (report["exit_code"], report["run"]["submitted"], report["run"]["uploads"]) == (0, 1, 1)


def _run_with_stale_note(shell: Shell, place: Path) -> dict[str, Any]:
    """Run with a note of `place` that was true a moment ago: the next content has its size and time."""
    found = content_of(str(place.resolve()))
    assert isinstance(found, Content)
    body = bytearray(place.read_bytes())
    body[-1] ^= 1
    place.write_bytes(body)
    rest()
    stamp = look(str(place.resolve()))
    assert isinstance(stamp, Stamp)
    found = replace(found, stamp=stamp, hashed_ns=time.time_ns())
    state = shell.folder / "out" / "falbatch.db"
    with closing(sqlite3.connect(state, isolation_level=None)) as connection:
        stage.fill(connection, [])
        stored.stage_files(connection, [(str(place.resolve()), "photos/p001.png", found)])
        stored.adopt_files(connection, whole=False)
    return run(shell)


def test_a_file_inside_the_input_travels_with_it(shell: Shell) -> None:
    lay(shell, 2, "oil")
    text = (shell.folder / "m.yaml").read_text().replace('row.path }}"}', 'row.path }}", as: data}')
    shell.write("m.yaml", text)
    report = run(shell)
    assert (report["states"]["done"], report["run"]["uploads"]) == (2, 0)
    sent = {one["input"]["image_url"][:22] for one in shell.sandbox.ledger()["executions"]}
    assert sent == {"data:image/png;base64,"}
    shell.write("photos/large.png", bytes(5_000_000))
    ran = shell.falbatch("plan", "m.yaml")
    assert ran.code == 2
    assert "5.0 MB are too much for `as: data` (at most 4.2 MB); leave it out" in ran.err


def test_export_names_the_files_as_the_rows_do(shell: Shell) -> None:
    lay(shell, 1, "oil")
    run(shell)
    (record,) = shell.falbatch("export", "m.yaml").objects()
    assert record["input"]["image_url"] == "photos/p000.png"
    planned = shell.falbatch("plan", "m.yaml", "--json").objects()[0]
    assert planned["input"]["image_url"] == "photos/p000.png"


def test_a_life_is_asked_for_and_what_is_about_to_end_is_uploaded_again(shell: Shell) -> None:
    lay(shell, 1, "oil", more="uploads: {expires_in: 1h}\n")
    run(shell)
    (first,) = uploads(shell.sandbox)
    assert 3500 < first["expires_at"] - first["uploaded_at"] < 3700
    shell.write("m.yaml", (shell.folder / "m.yaml").read_text().replace("[oil]", "[oil, ink]"))
    assert plan(shell)["files"] == {"upload": 0, "upload_bytes": 0, "there": 1}
    assert run(shell)["run"]["uploads"] == 0, "an hour is enough"
    with closing(sqlite3.connect(shell.folder / "out" / "falbatch.db")) as connection:
        connection.execute("UPDATE uploads SET uploaded_at = uploaded_at - 3500, expires_at = expires_at - 3500")
        connection.commit()
    shell.write("m.yaml", (shell.folder / "m.yaml").read_text().replace("[oil, ink]", "[oil, ink, lino]"))
    report = run(shell)
    assert (report["run"]["submitted"], report["run"]["uploads"]) == (1, 1)
    assert len(uploads(shell.sandbox)) == 2


def test_another_fal_has_none_of_it(shell: Shell) -> None:
    lay(shell, 1, "oil")
    run(shell)
    shell.write("m.yaml", (shell.folder / "m.yaml").read_text().replace("[oil]", "[oil, ink]"))
    with SandboxProcess("--seed", "5", "--speed", "0") as other:
        assert run(Shell(shell.folder, other))["run"]["uploads"] == 1
        assert len(uploads(other)) == 1
        (execution,) = other.ledger()["executions"]
        assert execution["input"]["image_url"].startswith(other.origin)


def test_a_storage_in_trouble_is_asked_again(shell: Shell) -> None:
    lay(shell, 4, "oil", more="retry: {first_s: 0.01, cap_s: 0.02}\n")
    shell.sandbox.add_faults([{"on": "upload", "do": "status:503", "p": 0.4}])
    report = run(shell)
    shell.sandbox.clear_faults()
    assert report["states"]["done"] == 4


def test_a_storage_that_is_down_ends_the_run_and_fails_nothing(shell: Shell) -> None:
    lay(shell, 6, "oil", more="retry: {first_s: 0.01, cap_s: 0.02}\n")
    shell.sandbox.add_faults([{"on": "upload", "do": "status:503"}])
    report = run(shell)
    shell.sandbox.clear_faults()
    assert report["exit_code"] == 5
    assert "files of inputs cannot be uploaded" in report["run"]["stopped_by"]
    assert [group["error_type"] for group in report["stuck"]] == ["not_uploaded"]
    assert shell.submits() == 0
    assert run(shell)["states"]["done"] == 6


@pytest.mark.parametrize("status", [400, 413])
def test_a_file_that_fal_does_not_take_fails_its_jobs(shell: Shell, status: int) -> None:
    lay(shell, 3, "oil")
    shell.sandbox.add_faults([{"on": "upload", "do": f"status:{status}", "nth": 3, "times": 1}])
    report = run(shell)
    shell.sandbox.clear_faults()
    assert (report["states"]["done"], report["states"]["failed"]) == (2, 1)
    assert report["failures"][0]["error_type"] == "upload_failed"
    retried = shell.falbatch("retry", "m.yaml", "--json").objects()[-1]
    assert (retried["states"]["done"], retried["run"]["uploads"]) == (3, 1)


def test_a_lost_submit_with_files_is_found_in_fals_list(shell: Shell) -> None:
    lay(shell, 3, "oil")
    shell.sandbox.add_faults([{"on": "submit", "do": "drop_after", "nth": 2}])
    report = run(shell, reconcile_s=2.0)
    shell.sandbox.clear_faults()
    assert (report["exit_code"], report["states"]["done"], report["run"]["found"]) == (0, 3, 1)
    assert len(shell.sandbox.ledger()["executions"]) == 3


def test_a_large_file_goes_in_parts_that_are_sent_again_where_they_broke(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "LIMITS", UploadLimits(whole_bytes=2 * MIB, part_bytes=5 * MIB))
    body = os.urandom(25_000_000)
    shell.write("photos/film.png", body)
    shell.write("m.yaml", MANIFEST.replace("STYLES", "oil") + "retry: {first_s: 0.01, cap_s: 0.02}\n")
    shell.sandbox.add_faults([{"on": "upload", "do": "drop_before", "nth": 4, "times": 1}])
    report = run(shell)
    assert (report["states"]["done"], report["run"]["uploaded_bytes"]) == (1, len(body))
    (there,) = uploads(shell.sandbox)
    assert (there["sha256"], there["parts"]) == (hashlib.sha256(body).hexdigest(), 5)


def test_a_large_file_that_changes_while_it_is_sent_is_noticed(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploading, "MEMORY_BYTES", 10)
    lay(shell, 1, "oil")
    place = shell.folder / "photos" / "p000.png"
    check = localfiles.check

    def check_then_touch(path: str, sha256: bytes) -> Any:
        checked = check(path, sha256)
        place.write_bytes(picture(1000))
        return checked

    monkeypatch.setattr(localfiles, "check", check_then_touch)
    report = run(shell)
    assert [group["error_type"] for group in report["failures"]] == ["file_changed"]
    assert shell.submits() == 0


def test_map_takes_paths(shell: Shell) -> None:
    import falbatch

    lay(shell, 2, "oil")
    small = {"width": 16, "height": 16}
    inputs: list[dict[str, Any]] = [
        {"prompt": "a", "image_url": shell.folder / "photos" / "p000.png", "image_size": small},
        {"prompt": "b", "image_url": {"file": "photos/p000.png"}, "image_size": small},
        {"prompt": "c", "images": [{"url": Path("photos/p001.png")}], "image_size": small},
    ]

    async def outcomes(given: Any) -> list[falbatch.Outcome]:
        return [one async for one in falbatch.map("generic/edit", given, state="x.db")]

    with at_home(shell):
        found = sorted(anyio.run(outcomes, inputs), key=lambda one: one.index)
        assert [one.is_ok for one in found] == [True, True, True]
        assert len(uploads(shell.sandbox)) == 2
        with pytest.raises(falbatch.UsageError) as caught:
            anyio.run(outcomes, [{"image_url": Path("nowhere.png")}, {"x": [Path("photos")]}])
        assert 'inputs[0].image_url: "nowhere.png": there is no such file' in str(caught.value)
        assert 'inputs[1].x[0]: "photos": it is a folder' in str(caught.value)
        with pytest.raises(falbatch.UsageError, match="bytes cannot be sent") as caught:
            anyio.run(outcomes, [{"image_url": b"PNG"}])
        assert "Path('a.png')" in caught.value.advice
