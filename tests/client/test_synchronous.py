"""The client for threads: one loop for all of them, callbacks in the caller's thread, interrupts that tidy up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from falbatch.client import Completed, FalClientHTTPError, FalClientTimeoutError, Status, SyncClient
from falbatch.client.door import Call, Door, drawn
from tests.client.conftest import KEY, requests

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from tests.sandbox_process import SandboxProcess

FAST, SLOW = "fal-ai/flux/schnell", "fal-ai/kling-video/v2.6/pro/text-to-video"
ASKED = {"prompt": "a red kite"}


def loops() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "falbatch-client"]


def test_the_way_of_a_request(sync_client: SyncClient) -> None:
    handle = sync_client.submit("fal-ai/flux/dev", ASKED)
    assert handle == sync_client.get_handle("fal-ai/flux/dev", handle.request_id)
    heard = list(handle.iter_events(with_logs=True))
    assert isinstance(heard[-1], Completed)
    assert isinstance(list(handle.stream_status())[-1], Completed)
    assert handle.get() == sync_client.result("fal-ai/flux/dev", handle.request_id) == handle.result()
    assert sync_client.status("fal-ai/flux/dev", handle.request_id) == handle.status()
    with pytest.raises(FalClientHTTPError):
        sync_client.cancel("fal-ai/flux/dev", handle.request_id)


def test_direct_calls_and_uploads(sync_client: SyncClient, tmp_path: Path) -> None:
    assert sync_client.run(FAST, ASKED)["images"]
    assert list(sync_client.stream(FAST, ASKED))[-1]["images"]
    path = tmp_path / "a.txt"
    path.write_text("x")
    assert sync_client.upload_file(path).startswith("http")
    assert sync_client.upload(b"x", "text/plain").startswith("http")


def test_realtime_in_two_threads(sync_client: SyncClient) -> None:
    with sync_client.realtime("fal-ai/fast-lcm-diffusion") as connection, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(connection.recv)
        connection.send({"prompt": "a kite"})
        assert answer.result(20)["images"]
    with sync_client.ws_connect("fal-ai/fast-lcm-diffusion", path="realtime") as socket:
        socket.send('{"prompt": "a kite"}')
        assert socket.recv()


def test_callbacks_run_here_and_may_call_the_client(sync_client: SyncClient) -> None:
    where: list[threading.Thread] = []
    seen: list[Status] = []

    def on_enqueue(request_id: str) -> None:
        where.append(threading.current_thread())
        seen.append(sync_client.status(FAST, request_id))

    sync_client.subscribe(FAST, ASKED, on_enqueue=on_enqueue, on_queue_update=seen.append)
    assert where == [threading.current_thread()]
    assert isinstance(seen[-1], Completed)


def test_what_a_callback_raises_comes_out(sync_client: SyncClient) -> None:
    def on_enqueue(request_id: str) -> None:
        raise KeyError(request_id)

    with pytest.raises(KeyError):
        sync_client.subscribe(FAST, ASKED, on_enqueue=on_enqueue)


def test_many_threads_share_one_loop(sync_client: SyncClient, sandbox: SandboxProcess) -> None:
    before = len(loops())
    with ThreadPoolExecutor(16) as pool:
        outputs = list(pool.map(lambda n: sync_client.subscribe(FAST, {"prompt": str(n)}), range(32)))
    assert len(loops()) == max(before, 1)
    assert {output["prompt"] for output in outputs} == {str(n) for n in range(32)}
    assert sandbox.ledger()["count"] == 32


def test_an_iterator_left_early_is_ended_in_the_loop() -> None:
    door = Door("test-door")
    ended: list[str] = []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            for number in range(10):
                yield number
        finally:
            ended.append(threading.current_thread().name)

    for number in drawn(door, numbers):
        if number == 3:
            break
    assert ended == ["test-door"]
    assert list(drawn(door, numbers)) == list(range(10))
    door.close()


@pytest.mark.parametrize("where", ["in the loop", "under the lock"])
def test_an_iterator_is_ended_wherever_it_is_collected(where: str) -> None:
    door = Door("test-door")
    ended = threading.Event()

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            ended.set()

    left: Any = drawn(door, numbers)
    assert next(left) == 1

    async def collect() -> None:
        left.close()

    if where == "in the loop":
        door.call(collect)
    else:
        with door._lock:
            left.close()
    assert ended.wait(10)
    door.close()


def test_a_call_that_was_left_before_it_began_never_begins() -> None:
    door = Door("test-door")
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    call = Call[None](door)
    door.post(lambda _: call._stop())  # as an interrupt does
    with pytest.raises(RuntimeError, match="closed"):
        call.wait(work)
    door.close()
    assert done == []


def test_a_closed_client_begins_anew(sync_client: SyncClient) -> None:
    assert sync_client.run(FAST, ASKED)
    sync_client.close()
    assert loops() == []
    sync_client.close()
    assert sync_client.run(FAST, ASKED)


def test_closing_ends_calls_under_way(sync_client: SyncClient) -> None:
    events = sync_client.submit(SLOW, ASKED).iter_events(interval=60)
    next(events)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, events)
        sync_client.close()
        with pytest.raises(RuntimeError, match="closed"):
            waiting.result(10)


def test_a_client_that_nobody_holds_ends_its_loop(sandbox: SandboxProcess) -> None:
    client = SyncClient()
    client.run(FAST, ASKED)
    assert len(loops()) == 1
    del client
    assert loops() == []


def test_the_loop_itself_cannot_wait_for_itself() -> None:
    door = Door("test-door")

    async def work() -> None:
        door.call(work)

    with pytest.raises(RuntimeError, match="AsyncClient"):
        door.call(work)
    door.close()


def test_the_time_of_a_subscribe_ends_it_at_fal_too(sync_client: SyncClient, sandbox: SandboxProcess) -> None:
    with pytest.raises(FalClientTimeoutError) as caught:
        sync_client.subscribe(SLOW, ASKED, client_timeout=0.1)
    assert caught.value.request_id
    assert requests(sandbox)["cancel"] == {"202": 1}
    polls = requests(sandbox)["status"]
    time.sleep(0.3)
    assert requests(sandbox)["status"] == polls  # nobody goes on asking


SCRIPT = """
import falbatch.client as fal_client
{setup}
print("ready", flush=True)
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def run_script(setup: str, call: str, *, interrupt: bool = False, **more: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a program that uses the module's own functions."""
    environment = {**os.environ, **more}
    program = [sys.executable, "-W", "error", "-c", SCRIPT.format(setup=setup, call=call)]
    pipe = subprocess.PIPE
    with subprocess.Popen(program, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            if interrupt:
                time.sleep(0.3)
                process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    return process.returncode, first + out, errors


def test_ctrl_c_cancels_what_nobody_waits_for_any_more(sandbox: SandboxProcess) -> None:
    setup = f"fal_client.run({FAST!r}, {ASKED!r})"
    code, out, errors = run_script(setup, f"fal_client.subscribe({SLOW!r}, {ASKED!r})", interrupt=True)
    assert (code, out, errors) == (0, "ready\ninterrupted\n", "")
    assert requests(sandbox)["cancel"] == {"202": 1}


def test_ctrl_c_leaves_a_request_whose_id_was_told(sandbox: SandboxProcess) -> None:
    setup = f"fal_client.run({FAST!r}, {ASKED!r})"
    call = f"fal_client.subscribe({SLOW!r}, {ASKED!r}, on_enqueue=lambda _: None)"
    code, out, _ = run_script(setup, call, interrupt=True)
    assert (code, out) == (0, "ready\ninterrupted\n")
    assert "cancel" not in requests(sandbox)


def test_a_program_ends_by_itself_and_without_a_word(sandbox: SandboxProcess) -> None:
    setup = f"events = fal_client.stream({FAST!r}, {ASKED!r}); next(events)"
    code, out, errors = run_script(setup, f"print(len(fal_client.run({FAST!r}, {ASKED!r})['images']))")
    assert (code, out, errors) == (0, "ready\n1\n", "")


def test_a_forked_child_has_a_loop_of_its_own(sync_client: SyncClient) -> None:
    sync_client.run(FAST, ASKED)
    program: dict[str, Any] = {"setup": f"import os\nfal_client.run({FAST!r}, {ASKED!r})\nchild = os.fork()"}
    call = f"assert fal_client.run({FAST!r}, {ASKED!r})\n    assert not child or os.waitpid(child, 0)[1] == 0"
    environment = {**os.environ, "FAL_KEY": KEY}
    script = SCRIPT.format(setup=program["setup"], call=call)
    program_of = [sys.executable, "-c", script]
    done = subprocess.run(program_of, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
