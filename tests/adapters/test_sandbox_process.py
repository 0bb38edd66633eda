"""The embedded sandbox is there as long as the run is, and not a moment longer."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from falbatch.adapters import sandbox_process
from falbatch.adapters.sandbox_process import sandbox
from falbatch.errors import ExitCode, OutputError, UsageError
from tests.adapters.conftest import wait_until

if TYPE_CHECKING:
    from pathlib import Path

_HOLDING = """
import sys
from pathlib import Path
from falbatch.adapters.sandbox_process import sandbox
with sandbox(Path(sys.argv[1])) as origin:
    print(origin, flush=True)
    sys.stdin.read()
"""


def _ledger(origin: str) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{origin}/sandbox/ledger", timeout=20) as reply:
        value: dict[str, Any] = json.load(reply)
    return value


def _answers(origin: str) -> bool:
    place = urlsplit(origin)
    try:
        socket.create_connection((place.hostname or "", place.port or 0), timeout=20).close()
    except ConnectionError:
        return False
    return True


def test_it_answers_over_its_folder_and_stops_with_the_context(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    with sandbox(data) as origin:
        assert origin.startswith("http://127.0.0.1:")
        assert _ledger(origin)["count"] == 0
        assert data.is_dir()
    assert not _answers(origin)
    assert (data / "sandbox.log").read_text() == ""


def test_flags_are_passed_on(tmp_path: Path) -> None:
    with sandbox(tmp_path, arguments=("--key", "me:secret")) as origin:
        request = urllib.request.Request(
            f"{origin}/queue/fal-ai/flux/dev", b"{}", {"Authorization": "Key you:x", "Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with pytest.raises(urllib.error.HTTPError) as caught:
            opener.open(request, timeout=20)
        caught.value.close()
        assert caught.value.code == 401


def test_it_stops_when_the_run_fails(tmp_path: Path) -> None:
    origin = ""

    def run() -> None:
        nonlocal origin
        with sandbox(tmp_path) as origin:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert origin
    assert not _answers(origin)


def test_a_ctrl_c_for_the_run_does_not_reach_it(tmp_path: Path) -> None:
    """A terminal sends SIGINT to the whole process group; the run still needs its fal to stop gently."""
    pipe = subprocess.PIPE
    program = f"import signal; signal.signal(signal.SIGINT, lambda *_: print('told', flush=True))\n{_HOLDING}"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=pipe, stdout=pipe, text=True, start_new_session=True
    ) as child:
        try:
            assert child.stdout is not None
            origin = child.stdout.readline().strip()
            os.killpg(child.pid, signal.SIGINT)
            assert child.stdout.readline() == "told\n"
            assert _ledger(origin)["count"] == 0
            child.communicate("", timeout=20)
            assert child.returncode == 0
        finally:
            child.kill()
    assert not _answers(origin)


def test_it_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _HOLDING, str(tmp_path)], stdin=pipe, stdout=pipe, text=True) as child:
        try:
            assert child.stdout is not None
            origin = child.stdout.readline().strip()
            assert _answers(origin)
        finally:
            child.kill()
    wait_until(lambda: not _answers(origin), "the sandbox ends after its parent")


def test_a_start_that_fails_says_why_and_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the sandbox did not start: .*--no-such-flag") as caught:
        sandbox(tmp_path, arguments=("--no-such-flag",)).__enter__()
    assert caught.value.exit_code is ExitCode.USAGE
    assert str(tmp_path / "sandbox.log") in caught.value.advice


def test_a_start_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_process, "START_S", 0.0)
    with pytest.raises(UsageError, match="the sandbox did not start"):
        sandbox(tmp_path).__enter__()


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(OutputError) as caught:
            sandbox(place).__enter__()
        assert str(place) in str(caught.value)


def test_the_ledger_is_kept_from_one_run_to_the_next(tmp_path: Path) -> None:
    body = json.dumps({"prompt": "a"}).encode()
    headers = {"Authorization": "Key me:secret", "Content-Type": "application/json"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with sandbox(tmp_path, arguments=("--speed", "0")) as origin:
        with opener.open(urllib.request.Request(f"{origin}/queue/fal-ai/flux/dev", body, headers), timeout=20) as reply:
            assert reply.status == 200
        wait_until(lambda: _ledger(origin)["count"] == 1, "the request runs")
    with sandbox(tmp_path) as origin:
        assert _ledger(origin)["count"] == 1
