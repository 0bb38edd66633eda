"""A sandbox in a process of its own, for tests of anything that talks to fal."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from tests.warm import Fork

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

# A machine under load needs seconds for it.
START_S = 20.0
STOP_S = 10.0


class SandboxProcess:
    """`python -m falbatch.sandbox --port 0 …`: started on entering the context, gone on leaving it.

    `args` are more flags. It also ends when this process does, since it watches its stdin.
    """

    def __init__(self, *args: str, port: int = 0) -> None:
        self.environment: dict[str, str] = {}
        """Variables beside those of this process, from the next start on."""
        flags = ["--port", str(port), "--stay-until-stdin-closes", *args]
        self._flags = flags
        self._process: Fork | None = None
        self._stdin: IO[bytes] | None = None
        self._stdout: IO[bytes] | None = None
        self._log: IO[bytes] | None = None
        self.errors = ""
        """What the last process wrote to stderr, once it is gone: nothing, if all went well."""
        self.origin = ""
        """`http://127.0.0.1:<port>`, once started."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._running.pid

    def start(self) -> None:
        """Start it and wait until it answers. Raises RuntimeError with its stderr when it does not."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _end; a pipe could fill up
        environment = {**os.environ, **self.environment}
        given, keeping = os.pipe()
        saying, said = os.pipe()
        self._stdin, self._stdout = os.fdopen(keeping, "wb"), os.fdopen(saying, "rb")
        try:
            standard = (given, said, self._log.fileno())
            self._process = Fork("falbatch.sandbox", self._flags, cwd=Path.cwd(), env=environment, standard=standard)
        finally:
            os.close(given)
            os.close(said)
        self.origin = self._first_line()
        if not self.origin:
            self.kill()
            raise RuntimeError(f"the sandbox did not start: {self.errors}")

    def kill(self) -> None:
        """SIGKILL: no chance to save anything."""
        self._running.kill()
        self._end()

    def has_ended(self) -> bool:
        """True when the process is gone, by itself or by somebody's hand."""
        return self._running.poll() is not None

    def stop(self) -> int:
        """SIGTERM, and SIGKILL if that does not help. Returns the exit code; does nothing when it is gone."""
        if self._process is None:
            return 0
        self._process.terminate()
        return self._end()

    def close_stdin(self) -> int:
        """Close its stdin, as the death of this process would; returns the exit code."""
        if self._stdin is not None:
            self._stdin.close()
        return self._end()

    def ledger(self) -> dict[str, Any]:
        """`GET /sandbox/ledger`."""
        return self._json("GET", "ledger")

    def stats(self) -> dict[str, Any]:
        """`GET /sandbox/stats`."""
        return self._json("GET", "stats")

    def uploads(self) -> dict[str, Any]:
        """`GET /sandbox/uploads`: what was uploaded and is still there."""
        return self._json("GET", "uploads")

    def request(self, request_id: str) -> dict[str, Any]:
        """What was sent with a request: headers without the key, input, endpoint, query."""
        return self._json("GET", f"requests/{request_id}")

    def faults(self) -> list[dict[str, Any]]:
        """The fault rules in force, with their counters."""
        rules: list[dict[str, Any]] = self._json("GET", "faults")["faults"]
        return rules

    def add_faults(self, rules: Iterable[Mapping[str, Any]]) -> None:
        """Put fault rules in force."""
        self._json("POST", "faults", {"faults": [dict(rule) for rule in rules]})

    def clear_faults(self) -> None:
        """Forget all fault rules."""
        self._json("DELETE", "faults")

    def lock(self, *, locked: bool = True, key_id: str | None = None) -> None:
        """Lock or unlock an account, or all of them."""
        self._json("POST", "account", {"locked": locked} | ({"key_id": key_id} if key_id else {}))

    def reset(self) -> None:
        """Forget requests, ledger, posted faults and locks."""
        self._json("POST", "reset", {})

    @property
    def _running(self) -> Fork:
        if self._process is None:
            raise RuntimeError("the sandbox is not running")
        return self._process

    def _json(self, method: str, name: str, body: object = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.origin}/sandbox/{name}", data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as reply:
            value: dict[str, Any] = json.load(reply)
        return value

    def _first_line(self) -> str:
        """The first line of its stdout, or "" if it ends or takes too long."""
        stdout = self._stdout
        if stdout is None:
            return ""
        end, line = time.monotonic() + START_S, b""
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n") and selector.select(max(0.0, end - time.monotonic())):
                chunk = os.read(stdout.fileno(), 4096)
                if not chunk:
                    return ""
                line += chunk
        return line.decode().strip() if line.endswith(b"\n") else ""

    def _end(self) -> int:
        process, self._process = self._running, None
        try:
            code = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        for pipe in (self._stdin, self._stdout):
            if pipe is not None:
                pipe.close()
        if self._log is not None:
            self._log.seek(0)
            self.errors = self._log.read().decode(errors="replace")
            self._log.close()
        return code
