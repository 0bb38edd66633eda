"""falbatch, and the sandbox, as processes that begin at once: forks of a Python that has loaded them already.

The tests start a thousand, and each would spend most of its time on imports. A fork is as real as any process: its own
id, pipes, signals and exit code. What is about the start itself (imports, a variable that Python or OpenSSL reads then,
closed descriptors, a terminal) takes `subprocess`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import io
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

ROOT: Final = Path(__file__).parents[1]
LOADED: Final = {
    "falbatch": (
        "anyio._backends._asyncio",
        "falbatch.api.planning",
        "falbatch.cli.commands",
        "falbatch.cli.looking",
        "falbatch.cli.starting",
        "falbatch.cli.windows",
        "falbatch.core.manifest",
    ),
    "falbatch.sandbox": (
        "falbatch.sandbox.painting",
        "falbatch.sandbox.recording",
        "falbatch.sandbox.server",
        "falbatch.sandbox.store",
        "falbatch.sandbox.webhook_keys",
        "falbatch.sandbox.world",
    ),
}
"""Program → what it imports while it works. Loaded before its first start."""
MESSAGE_BYTES: Final = 1 << 20
"""What a start may say: words and environment."""
BEGINS_S: Final = 60.0
"""Longest time for the first start, which loads everything."""


class Fork:
    """`python -m MODULE WORDS…`, started over descriptors that the caller keeps; like `subprocess.Popen`.

    `standard` are its stdin, stdout and stderr. `MODULE` is a key of `LOADED`.
    """

    def __init__(
        self, module: str, words: Iterable[str], *, cwd: Path, env: Mapping[str, str], standard: tuple[int, int, int]
    ) -> None:
        self._news, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # one word at a time
        with theirs:
            request = {"module": module, "words": [*words], "cwd": str(cwd), "env": dict(env)}
            socket.send_fds(_starter(), [json.dumps(request).encode()], [*standard, theirs.fileno()])
        self._news.settimeout(BEGINS_S)
        self.pid = int(self._line())
        self.returncode: int | None = None
        """As of `subprocess`: -9 after a SIGKILL."""

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and give the exit code. Raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            self._news.settimeout(timeout)
            try:
                self.returncode = int(self._line())
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired("falbatch", timeout or 0.0) from None
            self._news.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it is gone."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it went just now
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def _line(self) -> bytes:
        """The next word about it: its process id, then its exit code."""
        word = self._news.recv(16)
        if not word:
            raise RuntimeError("the Python that starts programs has ended")
        return word


class Program(Fork):
    """`falbatch WORDS…`, started with pipes for what it says, read as text. Use as a context manager."""

    def __init__(self, *words: str, cwd: Path, env: Mapping[str, str], stdin: str = "") -> None:
        out, err, given = os.pipe(), os.pipe(), _file_of(stdin)
        self._ends = {out[0]: bytearray(), err[0]: bytearray()}
        try:
            super().__init__("falbatch", words, cwd=cwd, env=env, standard=(given, out[1], err[1]))
        finally:
            for descriptor in (given, out[1], err[1]):
                os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self.poll() is None:
            self.kill()
        self.wait()
        for descriptor in self._ends:
            os.close(descriptor)
        self._ends.clear()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All of stdout and of stderr, once it has ended. Raises `subprocess.TimeoutExpired`; may be called again."""
        end_s = None if timeout is None else time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            for descriptor in self._ends:
                selector.register(descriptor, selectors.EVENT_READ)
            while selector.get_map():
                left_s = None if end_s is None else max(0.0, end_s - time.monotonic())
                if not (ready := selector.select(left_s)):
                    raise subprocess.TimeoutExpired("falbatch", timeout or 0.0)
                for key, _ in ready:
                    if chunk := os.read(key.fd, 65536):
                        self._ends[key.fd] += chunk
                    else:
                        selector.unregister(key.fd)
        self.wait(None if end_s is None else max(0.0, end_s - time.monotonic()))
        out, err = (bytes(heard).decode() for heard in self._ends.values())
        return out, err


def run(
    *words: str, cwd: Path, env: Mapping[str, str], stdin: str = "", timeout: float
) -> subprocess.CompletedProcess[str]:
    """`falbatch WORDS…` to its end, as `subprocess.run` with captured text. Raises `subprocess.TimeoutExpired`."""
    with Program(*words, cwd=cwd, env=env, stdin=stdin) as program:
        out, err = program.communicate(timeout)
        return subprocess.CompletedProcess(["falbatch", *words], program.wait(), out, err)


def _file_of(text: str) -> int:
    """A descriptor from which a program reads `text`, then the end."""
    if not text:
        return os.open(os.devnull, os.O_RDONLY)
    reading, writing = os.pipe()
    try:
        os.write(writing, text.encode())  # an answer or two: never more than a pipe holds
    finally:
        os.close(writing)
    return reading


@functools.cache
def _starter() -> socket.socket:
    """The line to a Python that has loaded everything, one for each process of pytest's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for side in (ours, theirs):
        side.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
    command = [sys.executable, "-m", "tests.warm", str(theirs.fileno())]
    env = {name: value for name, value in os.environ.items() if not name.startswith("FAL")}
    process = subprocess.Popen(command, cwd=ROOT, env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# From here on: in the process that starts programs.


def serve(line: socket.socket) -> None:
    """Start what is asked for on `line`, until it closes; tell each asker the process id, then the exit code."""
    watched: dict[int, tuple[int, socket.socket]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is line:
                    message, descriptors, _, _ = socket.recv_fds(line, MESSAGE_BYTES, 4)
                    if not message:
                        return
                    request = json.loads(message)
                    _load(request["module"])
                    alive, pid, asker = _start(request, descriptors)
                    watched[alive] = pid, asker
                    selector.register(alive, selectors.EVENT_READ)
                else:
                    selector.unregister(key.fd)
                    pid, asker = watched.pop(key.fd)
                    _tell_end(pid, asker)
                    os.close(key.fd)


@functools.cache
def _load(module: str) -> None:
    for name in LOADED[module]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is loaded stays shared with the forks


def _tell_end(pid: int, asker: socket.socket) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with asker, contextlib.suppress(OSError):  # nobody may want to know any more
        asker.send(str(code).encode())


def _start(request: dict[str, Any], descriptors: list[int]) -> tuple[int, int, socket.socket]:
    """Fork. Gives a descriptor that closes when the program ends, its process id, and whom to tell."""
    *standard, told = descriptors
    alive, held = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(request, standard, held)
    for descriptor in (held, *standard):
        os.close(descriptor)
    asker = socket.socket(fileno=told)
    asker.send(str(pid).encode())
    return alive, pid, asker


def _become(request: dict[str, Any], standard: list[int], held: int) -> NoReturn:
    """Be `python -m` what is asked for, and end as it does."""
    code = 1
    try:
        gc.unfreeze()
        for number, descriptor in enumerate(standard):
            os.dup2(descriptor, number)
        # `held` stays open until the end, and not in the programs that this one starts.
        os.dup2(held, 3, inheritable=False)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        _open_streams()
        code = _main(request["module"], request["words"])
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 1
    except BaseException:  # noqa: BLE001  (as Python shows it)
        traceback.print_exc()
    finally:
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _open_streams() -> None:
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  (for as long as the process is)
    out, err = io.FileIO(1, "w", closefd=False), io.FileIO(2, "w", closefd=False)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(out), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(io.BufferedWriter(err), "utf-8", "backslashreplace", line_buffering=True)


def _main(module: str, words: list[str]) -> int:
    import falbatch.faultpoints

    if os.environ.get(falbatch.faultpoints.VARIABLE):
        # It looks for its variable once, when it is loaded, and others have its answer under its name.
        importlib.reload(falbatch.faultpoints)
        for one in [*sys.modules.values()]:
            if "is_armed" in vars(one):
                vars(one)["is_armed"] = falbatch.faultpoints.is_armed
    sys.argv = [module, *words]
    code = importlib.import_module(f"{module}.__main__").main()
    return int(code)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as asked:
        serve(asked)
