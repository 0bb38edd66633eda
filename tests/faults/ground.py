"""Ground for runs that meet harm: a folder deep enough to climb out of, canaries around it, a listener that records.

Standard library, Pillow and the sandbox only; nothing here leaves this machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from PIL import Image

from tests import warm
from tests.faults.harness import Client, assert_nothing_charged_twice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from tests.sandbox_process import SandboxProcess

RUN_S = 50.0
"""The bound within which a run ends by itself, however loaded the machine is."""

DOCUMENTED = frozenset({0, 2, 3, 4, 5, 6, 7, 8, 130})
"""Exit codes that are no bug."""

KEY_ID = "hostile-id"
SECRET = "s3cr3t-of-the-hostile-tests"
KEY = f"{KEY_ID}:{SECRET}"

MANIFEST = """\
version: 1
name: traps
endpoint: "trap/{{ row.value }}"
rows: [TRAPS]
input: {prompt: "{{ row.value }}", image_size: {width: 64, height: 48}, output_format: png, seed: 1}
output: {dir: out, name: "{{ row.value }}"}
limits: {submits_per_s: 200, polls_per_s: 200}
retry: {first_s: 0.01, cap_s: 0.02}
"""

HASTY = """\
import sys
from falbatch.adapters import limits
limits.FetchLimits.__init__.__defaults__ = (8.0, 4 << 20, 1 << 20, 1 << 20, 1 << 20, 1024.0, 0.3)
from falbatch.fal import queue
queue.QueueClient.status.__kwdefaults__["timeout_s"] = 1.0
queue.QueueClient.result.__kwdefaults__["timeout_s"] = 1.0
queue.QueueClient.submit.__kwdefaults__["timeout_s"] = 1.0
queue.MAX_RESULT_BYTES = queue.MAX_ANSWER_BYTES = 1 << 20
from falbatch.__main__ import main
sys.exit(main())
"""
"""The program with bounds of seconds and a megabyte instead of minutes and gigabytes: nothing else is changed."""

SAFE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,60}\.(png|jpg|webp|json|txt|bin)")
PART_NAME = re.compile(r"\.[a-z0-9-]+\.[0-9a-f]{8}\.[0-9]+\.part(\.etag)?")
OF_THE_STATE = re.compile(r"falbatch\.(db(-wal|-shm|\.copy)?|lock|journal|reserve)")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """The JSON object that closes a run."""
        last: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        assert last["event"] == "report", f"no report at the end; stderr: {self.err}"
        return last


def http(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    """A whole reply, after which the connection ends."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n".encode() + body


class Recorder:
    """A listener of ours on another port of loopback: every byte that comes is kept, `answer` is what each gets."""

    def __init__(self, answer: Callable[[bytes], bytes] = lambda _: http(b"", status="404 Not Found")) -> None:
        self.answer = answer
        self._heard: list[bytearray] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)

    @property
    def origin(self) -> str:
        """`http://127.0.0.1:<port>`."""
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    @property
    def heard(self) -> bytes:
        """All that ever came, of all connections."""
        return b"".join(self._heard)

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            mine = bytearray()
            self._heard.append(mine)
            threading.Thread(target=self._listen, args=(peer, mine), daemon=True).start()

    def _listen(self, peer: socket.socket, mine: bytearray) -> None:
        with peer:
            peer.settimeout(RUN_S)
            try:
                while b"\r\n\r\n" not in mine:
                    chunk = peer.recv(65536)
                    if not chunk:
                        return
                    mine += chunk
                peer.sendall(self.answer(bytes(mine)))
                peer.shutdown(socket.SHUT_WR)
                while chunk := peer.recv(65536):
                    mine += chunk
            except OSError:
                return


@dataclass
class Ground:
    """A user's folder in the middle of other people's files, and fal (the sandbox) at its worst."""

    top: Path
    sandbox: SandboxProcess
    before: dict[str, str] = field(default_factory=dict)

    @classmethod
    def laid(cls, top: Path, sandbox: SandboxProcess) -> Ground:
        """The folders and the canaries, and a note of what is there."""
        ground = cls(top, sandbox)
        ground.work.mkdir(parents=True)
        for place in (top, ground.work.parent, ground.work):
            for name in ("canary.txt", "evil", "passwd", ".fal"):
                (place / name).write_text(f"{name} in {place}", encoding="utf-8")
        for name in ("home", "temporary"):
            (top / name).mkdir()
        return ground

    @property
    def work(self) -> Path:
        """Where the command is given; `../../../../` from its output folder is still ours."""
        return self.top / "a" / "b" / "c" / "work"

    @property
    def out(self) -> Path:
        """The output folder."""
        return self.work / "out"

    @property
    def client(self) -> Client:
        """For the judges of `harness`."""
        return Client(self.work, self.sandbox)

    def traps(self, *names: str, more: str = "") -> None:
        """A manifest with one job for each name, on an endpoint of its own; nothing else may change from now on."""
        text = MANIFEST.replace("TRAPS", ", ".join(names)) + more
        (self.work / "m.yaml").write_text(text, encoding="utf-8")
        self.before = self.around()

    def around(self) -> dict[str, str]:
        """Every file, folder and link outside the output folder and the user's cache, with what is in it."""
        ours = (self.out, self.top / "cache")
        return {
            str(place): hashlib.sha256(place.read_bytes()).hexdigest() if place.is_file() else "folder"
            for place in sorted(self.top.rglob("*"))
            if not any(place == one or one in place.parents for one in ours)
        }

    def environment(self, changes: Mapping[str, str] | None = None) -> dict[str, str]:
        """Nothing of fal's but the sandbox and the key; homes and temporary files inside the ground."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FAL")}
        ours = {
            "FALBATCH_ORIGIN": self.sandbox.origin,
            "FAL_KEY": KEY,
            "FALBATCH_CACHE": str(self.top / "cache"),
            "HOME": str(self.top / "home"),
            "TMPDIR": str(self.top / "temporary"),
        }
        return {**kept, **ours, **(changes or {})}

    def falbatch(self, *words: str, hasty: bool = False, **changes: str) -> Ended:
        """Give a command; fails when it does not end by itself."""
        env = self.environment(changes)
        if hasty:
            command = [sys.executable, "-c", HASTY, *words]
            done = subprocess.run(
                command, cwd=self.work, env=env, capture_output=True, text=True, timeout=RUN_S, check=False
            )
        else:
            done = warm.run(*words, cwd=self.work, env=env, timeout=RUN_S)
        return Ended(done.returncode, done.stdout, done.stderr)

    def run(self, *flags: str, hasty: bool = False, lies: bool = False) -> Ended:
        """`falbatch run m.yaml --json`, and all that must hold after any run."""
        ended = self.falbatch("run", "m.yaml", "--json", *flags, hasty=hasty)
        self.judge(ended, lies=lies)
        return ended

    def judge(self, ended: Ended, *, lies: bool = False) -> None:
        """No bug, nothing outside the folder, nothing unsafe inside, nothing paid twice, no job lost.

        `lies`: fal gave ids that are not those of the requests, so nobody can know which these are.
        """
        assert ended.code in DOCUMENTED, ended.err
        assert "Traceback" not in ended.err + ended.out
        assert SECRET not in ended.err + ended.out
        assert self.around() == self.before, "something outside the output folder was touched"
        assert_names_safe(self.out)
        assert_pictures_whole(self.out.glob("*.png"))
        inputs = [json.dumps(one["input"], sort_keys=True) for one in self.sandbox.ledger()["executions"]]
        assert len(inputs) == len(set(inputs)), "an input was executed twice"
        if not lies:
            assert_nothing_charged_twice(self.client, self.sandbox.ledger())
        states = ended.report["states"]
        if not states["completed"]:
            assert list(self.out.glob(".*")) == [], "a part file without a job that waits for it"
        assert states["submitting"] == 0
        assert sum(states.values()) == ended.report["total"] > 0
        for group in ended.report["failures"] + ended.report["stuck"]:
            assert group["error_type"]
            assert group["example"].isprintable(), "a message that moves the cursor, or none at all"

    def ends(self) -> dict[str, tuple[str, str]]:
        """Each job's state and error type (what it waits for, or failed by), by name."""
        rows = self.client.query("SELECT name, state, coalesce(error_type, '') FROM jobs")
        return {name: (state, error_type) for name, state, error_type in rows}


def assert_names_safe(out: Path) -> None:
    """Only plain files directly in the folder, under names that any system and any terminal takes."""
    strange = [
        str(place)
        for place in out.rglob("*")
        if place.is_symlink() or not any(form.fullmatch(place.name) for form in (SAFE_NAME, PART_NAME, OF_THE_STATE))
    ]
    assert strange == []


def assert_pictures_whole(places: Iterable[Path]) -> None:
    """Each decodes to its last pixel."""
    for place in places:
        with Image.open(place) as picture:
            picture.load()


def each(names: Iterable[str], rule: Callable[[str], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A rule for each name's own endpoint."""
    return [{"endpoint": f"trap/{name}", **rule(name)} for name in names]
