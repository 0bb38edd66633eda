"""A deadline that passed while nobody could look: what has arrived meanwhile counts."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from falbatch.errors import TransportError
from falbatch.fal import patience
from falbatch.fal.patience import deadline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from falbatch.fal.transport import Reply, Transport

pytestmark = pytest.mark.anyio


@dataclass
class Server:
    origin: str
    asked: threading.Event = field(default_factory=threading.Event)
    """A whole request was read."""


@contextmanager
def server_in_a_thread(answers: list[tuple[float, bytes]]) -> Iterator[Server]:
    """Reads one request, then waits and writes as told: it goes on while the test's own loop stands still."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(10_000)
                server.asked.set()
                for wait_s, data in answers:
                    time.sleep(wait_s)
                    connection.sendall(data)
                done.wait(20)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            done.set()
            thread.join(20)


async def left(server: Server) -> None:
    """Wait until the request has arrived."""
    while not server.asked.is_set():
        await asyncio.sleep(0.005)


def post(transport: Transport, server: Server) -> asyncio.Task[Reply]:
    return asyncio.create_task(
        transport.request("POST", server.origin, headers={}, body=b"{}", timeout_s=0.5, max_bytes=1000)
    )


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


async def test_an_answer_that_came_while_the_loop_stood_still_is_read(transport: Transport) -> None:
    with server_in_a_thread([(0.2, HEAD + b"{}")]) as server:
        task = post(transport, server)
        await left(server)
        time.sleep(2)  # as SIGSTOP would, or a program that computes
        reply = await task
    assert (reply.status, reply.body) == (200, b"{}")


async def test_an_answer_of_which_the_rest_comes_after_the_pause_is_read(transport: Transport) -> None:
    with server_in_a_thread([(0.2, HEAD + b"{"), (2.2, b"}")]) as server:
        task = post(transport, server)
        await left(server)
        time.sleep(2)
        assert (await task).body == b"{}"


async def test_an_answer_read_in_the_turn_in_which_the_timer_fires_counts(transport: Transport) -> None:
    """Late by less than what counts as standing still."""
    with server_in_a_thread([(0.1, HEAD + b"{}")]) as server:
        task = post(transport, server)
        await left(server)
        time.sleep(0.8)
        assert (await task).body == b"{}"


async def test_a_download_that_was_answered_meanwhile_is_opened(transport: Transport) -> None:
    with server_in_a_thread([(0.2, HEAD + b"{}")]) as server:

        async def fetch() -> int:
            async with transport.stream(server.origin, headers={}, timeout_s=0.5) as reply:
                return reply.status

        task = asyncio.create_task(fetch())
        await left(server)
        time.sleep(2)
        assert await task == 200


async def test_a_silent_server_still_times_out_on_time(transport: Transport) -> None:
    with server_in_a_thread([]) as server:
        began = time.monotonic()
        with pytest.raises(TransportError) as caught:
            await post(transport, server)
        assert 0.4 < time.monotonic() - began < 4.0
    assert (caught.value.kind, caught.value.sent) == ("timeout", True)


async def test_a_silent_server_gets_patience_once(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.6)
    with server_in_a_thread([]) as server:
        task = post(transport, server)
        await left(server)
        time.sleep(1.8)
        began = time.monotonic()
        await asyncio.sleep(0.1)
        time.sleep(1.8)  # late again: not forgiven again
        with pytest.raises(TransportError) as caught:
            await task
        assert 1.8 < time.monotonic() - began < 5.0
    assert caught.value.kind == "timeout"


async def test_a_deadline_behaves_as_asyncios_own() -> None:
    async with deadline(5):
        await asyncio.sleep(0)
    for timeout_s in (0.05, 0, -1):
        with pytest.raises(TimeoutError):
            async with deadline(timeout_s):
                await asyncio.sleep(5)
    with pytest.raises(KeyError):
        async with deadline(5):
            raise KeyError
    with pytest.raises(TimeoutError):
        async with deadline(5), deadline(0.05):
            await asyncio.sleep(5)
    with pytest.raises(TimeoutError):
        async with deadline(0.05), deadline(5):
            await asyncio.sleep(5)
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_a_deadline_lets_a_cancellation_through() -> None:
    async def waits() -> None:
        async with deadline(5):
            await asyncio.sleep(5)

    task = asyncio.create_task(waits())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_deadline_that_was_kept_leaves_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.05)
    async with deadline(0.05):
        time.sleep(1.2)
        await asyncio.sleep(0)  # the timer fires, late
    await asyncio.sleep(0.1)
