"""The benchmarks' fal (`tests/bench/fal.py`) as a process of its own, on the server's core."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any, Self

from tests.bench.children import SERVER_CORE, ChildFailed, on_core

if TYPE_CHECKING:
    from types import TracebackType

    from tests.bench.fal_line import Settings

STOP_S = 10.0


class FalProcess:
    """Started on entering the context, gone on leaving it; it also ends when this process does."""

    def __init__(self) -> None:
        self.origin = ""
        """`http://127.0.0.1:<port>`, once started."""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with on_core(SERVER_CORE):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.fal"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        if self._process.stdout is not None:
            self.origin = self._process.stdout.readline().decode().strip()
        if not self.origin:
            self.__exit__(None, None, None)
            raise ChildFailed("the benchmarks' fal did not start; its words are above")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def set(self, settings: Settings) -> None:
        """Other settings, and everything forgotten."""
        given = {name: getattr(settings, name) for name in settings.__slots__}
        self._json("settings", given)

    def reset(self) -> None:
        """Requests and counts forgotten."""
        self._json("reset", {})

    def stats(self, first: int = 0) -> dict[str, Any]:
        """Counts, and medians over all requests and over the first `first`."""
        return self._json(f"stats?first={first}")

    def _json(self, name: str, body: object = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(f"{self.origin}/bench/{name}", data), timeout=60) as reply:
            value: dict[str, Any] = json.load(reply)
        return value
