"""Starting and stopping: flags, scenario, port, and what is refused with advice."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from falbatch.errors import UsageError
from falbatch.sandbox.__main__ import main
from falbatch.sandbox.scenario import Scenario, load_scenario, parse_scenario
from falbatch.sandbox.serve import SandboxSettings, check, is_loopback, serve
from falbatch.sandbox.settings import behaviour
from tests.sandbox.conftest import Fal
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from pathlib import Path

KITE = {"prompt": "a red kite", "seed": 7}


def test_it_ends_with_its_stdin_and_with_a_signal() -> None:
    for end in ("stdin", "signal"):
        process = SandboxProcess()
        process.start()
        assert (process.close_stdin() if end == "stdin" else process.stop()) == 0


def test_a_hanging_call_does_not_keep_it_from_stopping() -> None:
    with SandboxProcess() as process:
        process.add_faults([{"on": "submit", "do": "hang"}])
        address = process.origin.removeprefix("http://").split(":")
        with socket.create_connection((address[0], int(address[1]))) as connection:
            head = b"POST /queue/a/b HTTP/1.1\r\nHost: x\r\nAuthorization: Key a:b\r\nContent-Length: 2\r\n\r\n{}"
            connection.sendall(head)
            while process.ledger()["count"] == 0:
                pass
            assert process.stop() == 0


def test_stdout_holds_the_origin_and_nothing_else() -> None:
    command = [sys.executable, "-m", "falbatch.sandbox", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.readline().decode()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=10)
    assert first.startswith("http://127.0.0.1:")
    assert (rest, errors, process.returncode) == (b"", b"", 0)


def test_only_the_given_key_is_accepted_with_a_key() -> None:
    with SandboxProcess("--key", "me:right", "--speed", "inf") as process:
        for secret, code in (("right", 200), ("wrong", 401)):
            fal = Fal(process.origin, {"Authorization": f"Key me:{secret}"})
            assert fal.post(KITE).status_code == code
            fal.close()


def test_a_scenario_sets_speed_durations_window_and_what_a_cancel_does(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(
        "concurrency: 1\nresult_window_s: 0.3\ncancel_running: stop\nmodel_errors_in_status: true\n"
        "durations: {'fal-ai/quick': 0.001, 'fal-ai/slow': [30, 0]}\n"
    )
    with SandboxProcess("--scenario", str(scenario)) as process:
        fal = Fal(process.origin)
        request = fal.submit({"prompt": 3}, "fal-ai/quick")
        assert fal.until(request, "COMPLETED")["error"] == "Invalid status code: 422"
        slow = fal.submit(KITE, "fal-ai/slow")
        assert fal.status(fal.submit(KITE, "fal-ai/quick"))["status"] == "IN_QUEUE"
        assert fal.cancel(slow).status_code == 202
        assert fal.result(slow).status_code == 499
        while fal.get(slow["response_url"]).status_code != 404:
            pass
        assert fal.get(slow["status_url"]).json() == {"status": "NOT_FOUND"}
        fal.close()


def test_a_locked_scenario_refuses_every_submit(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text("locked: true")
    with SandboxProcess("--scenario", str(scenario)) as process:
        fal = Fal(process.origin)
        assert fal.post(KITE).status_code == 403
        fal.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speeed: 3", "did you mean 'speed'"),
        ("speed: fast", "speed: expected a number"),
        ("concurrency: 0", "concurrency"),
        ("seed: 1.5", "seed: expected a whole number"),
        ("locked: 1", "locked: expected true or false"),
        ("durations: 3", "durations"),
        ("durations: {a: [1, 2, 3]}", "durations: a"),
        ("durations: {a: .inf}", "finite"),
        ("cancel_running: maybe", "finish or stop"),
        ("faults: {on: submit}", "expected a list"),
        ("faults: [{on: submit, do: hnag}]", "did you mean 'hang'"),
        ("- 1", "a scenario is a mapping"),
        ("a: [", "cannot read the scenario"),
    ],
)
def test_an_unusable_scenario_is_refused_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_scenario(path)
    assert str(path) in str(caught.value)
    assert caught.value.advice


def test_a_missing_or_empty_scenario(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load_scenario(tmp_path / "none.yaml")
    assert parse_scenario(None) == Scenario()


def test_flags_win_over_the_scenario_and_the_scenario_over_defaults() -> None:
    scenario = Scenario(concurrency=4, speed=10.0)
    merged = behaviour(SandboxSettings(concurrency=2), scenario, 1)
    assert (merged.concurrency, merged.time_scale) == (2, 0.1)
    assert behaviour(SandboxSettings(), Scenario(), 1).time_scale == 1.0
    assert behaviour(SandboxSettings(speed=0), scenario, 1).time_scale == 0.0
    assert behaviour(SandboxSettings(speed=float("inf")), scenario, 1).time_scale == 0.0


@pytest.mark.parametrize(
    "settings",
    [
        SandboxSettings(host="0.0.0.0"),
        SandboxSettings(host="example.org"),
        SandboxSettings(concurrency=0),
        SandboxSettings(speed=-1),
        SandboxSettings(speed=float("nan")),
        SandboxSettings(key="no-colon"),
        SandboxSettings(key=":x"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings: SandboxSettings) -> None:
    with pytest.raises(UsageError):
        check(settings)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("", False)],
)
def test_only_this_machine_is_served(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_port_in_use_is_refused_with_advice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError, match="cannot serve on") as caught:
        serve(SandboxSettings(port=taken.getsockname()[1]))
    assert "--port" in caught.value.advice


def test_a_recorded_port_that_is_taken_gives_another_one(tmp_path: Path) -> None:
    args = ("--data", str(tmp_path))
    with SandboxProcess(*args) as process:
        origin = process.origin
    with socket.create_server(("127.0.0.1", int(origin.rsplit(":", 1)[1]))), SandboxProcess(*args) as process:
        assert process.origin != origin


def test_missing_pillow_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UsageError) as caught:
        check(SandboxSettings())
    assert caught.value.advice == "pip install 'falbatch[sandbox]'"


def test_a_usage_error_is_exit_code_2_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--host", "0.0.0.0"]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: --host 0.0.0.0")
    assert "try: Use 127.0.0.1" in errors


def test_help_shows_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "exit codes:" in text
    assert "--stay-until-stdin-closes" in text


def test_flags_and_settings_load_nothing_heavy() -> None:
    heavy = {"aiohttp", "PIL", "yaml", "sqlite3"}
    code = f"import sys, falbatch.sandbox.flags, falbatch.sandbox.serve; print(sorted({heavy} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
