"""Our client against the server side of fal's own SDK: an app written with it, served without fal's cloud.

Direct, stream and realtime calls only: the queue, keys and tokens stand in front of an app and are part of the cloud.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from filelock import FileLock

import falbatch.client as fal
from tests.contracts.judge import ROOT, bare_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

HOME: Final = ROOT / "build" / "fal-sdk"
"""The SDK's own environment: it needs older versions of tools that we use. Made once, kept."""
APP: Final = Path(__file__).parent / "sdk" / "reverser.py"
ENDPOINT: Final = "me/app"
START_S: Final = 60.0


def sdk_python() -> Path:
    """An interpreter with the SDK; installs it at the first use (half a minute)."""
    python = HOME / "bin" / "python"
    HOME.parent.mkdir(exist_ok=True)
    with FileLock(f"{HOME}.lock"):
        if not (HOME / "ready").exists():
            venv.create(HOME, with_pip=True, clear=True)
            # Not compiled: most of what comes with it is never imported here.
            subprocess.run(
                [python, "-m", "pip", "install", "--quiet", "--no-compile", "fal>=1.80"], check=True, timeout=110
            )
            (HOME / "ready").touch()
    return python


@pytest.fixture(scope="module")
def app() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(sdk_python()), str(APP), str(port)]
    process = subprocess.Popen(command, env=bare_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        origin = f"http://127.0.0.1:{port}"
        until = time.monotonic() + START_S
        while not is_up(f"{origin}/me/app/health"):
            assert process.poll() is None, "the app ended"
            assert time.monotonic() < until, "the app does not answer"
            time.sleep(0.1)
        yield origin
    finally:
        process.terminate()
        process.wait(20)


def is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.fixture
def client(app: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[fal.SyncClient]:
    for name in [name for name in os.environ if name.startswith("FAL")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FALBATCH_RUN_URL", app)
    with fal.SyncClient(key="me:secret") as made:
        yield made


def test_the_sdk_is_what_serves(app: str) -> None:
    version = subprocess.run(
        [sdk_python(), "-c", "import fal; print(fal.__version__)"], capture_output=True, text=True, check=True
    )
    assert version.stdout.strip()
    assert sys.version_info >= (3, 11)


def test_a_direct_call_gives_the_apps_output(client: fal.SyncClient) -> None:
    given = {"prompt": "grüße", "seed": 2**60, "steps": 2}
    assert client.run(ENDPOINT, given) == {"text": "eßürg", "seed": 2**60, "steps": 2}


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ({"prompt": "forbidden"}, 422, "this prompt is not allowed"),
        ({"steps": 99}, 422, "Field required"),
        ({"prompt": "busy"}, 503, "no capacity"),
        ({"prompt": "crash"}, 500, "Internal Server Error"),
    ],
)
def test_an_apps_refusal_is_told_as_it_is(
    client: fal.SyncClient, given: dict[str, Any], status: int, words: str
) -> None:
    with pytest.raises(fal.FalClientHTTPError, match=words) as caught:
        client.run(ENDPOINT, given)
    assert caught.value.status_code == status


def test_a_path_that_the_app_does_not_have(client: fal.SyncClient) -> None:
    with pytest.raises(fal.FalClientHTTPError, match="not found") as caught:
        client.run(ENDPOINT, {"prompt": "x"}, path="/elsewhere")
    assert caught.value.status_code == 404


def test_a_stream_comes_event_by_event(client: fal.SyncClient) -> None:
    events = list(client.stream(ENDPOINT, {"prompt": "grüße", "steps": 4}))
    assert [event.get("text") for event in events] == ["e", "eß", "eßü", "eßürg"]
    assert events[-1] == {"text": "eßürg", "seed": 7, "steps": 4}


def test_a_realtime_connection_answers_message_by_message(client: fal.SyncClient) -> None:
    with client.realtime(ENDPOINT, use_jwt=False) as connection:
        for prompt in ("one", "two"):
            connection.send({"prompt": prompt})
            assert connection.recv() == {"text": prompt[::-1], "seed": 7, "steps": 3}
