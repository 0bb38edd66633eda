"""The key is nowhere but in the one header: not in a file, not in a word, whatever happened to the batch."""

from __future__ import annotations

import base64
import codecs
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import cycle
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.faults.ground import Ended
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Started = subprocess.Popen[str]

KEY_ID = "known-id-0001"
# With characters that every encoding has to do something about.
SECRET = 'tHe/sEcret+half"of\\the=key~9x'
KEY = f"{KEY_ID}:{SECRET}"

SECONDS = 50.0

NOWHERE = "http://127.0.0.1:9"
"""Where no fal listens."""

MANIFEST = """\
version: 1
name: secrets
endpoint: "trap/{{ row.value }}"
rows: {range: [0, 12]}
input: {prompt: "a kite", image_size: {width: 64, height: 64}, seed: "{{ row.value }}"}
output: {dir: out, name: "n{{ row.value }}", sidecar: true}
limits: {submits_per_s: 200, polls_per_s: 200}
retry: {first_s: 0.01, cap_s: 0.02}
"""

ECHO = f"denied: Authorization: Key {KEY} (secret {SECRET})"
"""What a careless server, or a curious one, says to a request."""


def disguises(key: str = KEY) -> dict[str, bytes]:
    """Every form in which the secret may lie about, by what it is."""
    secret = key.partition(":")[2]
    forms: dict[str, bytes] = {}
    for what, text in (("secret", secret), ("key", key), ("header", f"Key {key}")):
        raw = text.encode()
        forms[what] = raw
        forms[f"{what}, URL-encoded"] = quote(text, safe="").encode()
        forms[f"{what}, URL-encoded but for slashes"] = quote(text).encode()
        forms[f"{what}, in JSON"] = json.dumps(text)[1:-1].encode()
        forms[f"{what}, in JSON twice"] = json.dumps(json.dumps(text)[1:-1])[1:-1].encode()
        forms[f"{what}, in JSON with slashes escaped"] = json.dumps(text)[1:-1].replace("/", "\\/").encode()
        forms[f"{what}, as Python shows it"] = repr(text)[1:-1].encode()
        forms[f"{what}, in UTF-16"] = text.encode("utf-16-le")
        forms[f"{what}, in hexadecimal"] = raw.hex().encode()
        forms[f"{what}, backwards"] = raw[::-1]
        forms[f"{what}, in rot13"] = codecs.encode(text, "rot13").encode()
        for shift in range(3):
            # Wherever it stands in a longer text, the middle of its base64 is one of three.
            whole = base64.b64encode(b"\0" * shift + raw)
            middle = whole[4 * bool(shift) : len(whole) // 4 * 4 - 4]
            forms[f"{what}, in base64 at {shift}"] = middle
            forms[f"{what}, in URL-safe base64 at {shift}"] = middle.translate(bytes.maketrans(b"+/", b"-_"))
    # The first half alone is still half a key.
    forms["half of the secret"] = secret[: len(secret) // 2].encode()
    forms["other half of the secret"] = secret[len(secret) // 2 :].encode()
    return forms


def found(folder: Path, ended: list[Ended]) -> list[str]:
    """Where any form of the secret is: in which file's bytes or name, or in what a command said."""
    places = {str(place): place.read_bytes() for place in folder.rglob("*") if place.is_file()}
    places |= {f"the name {place}": os.fsencode(place) for place in folder.rglob("*")}
    for number, one in enumerate(ended):
        places |= {f"stdout of command {number}": one.out.encode(), f"stderr of command {number}": one.err.encode()}
    return [
        f"{what} in {place}" for what, form in disguises().items() for place, text in places.items() if form in text
    ]


Source = tuple[dict[str, str], tuple[str, ...]]
"""Where a command finds the key: variables, and flags."""


class User:
    """Somebody with a folder and a key, whose every command is kept to be searched. Commands find the key in each of
    `sources` in turn."""

    def __init__(self, folder: Path, origin: str, *sources: Source) -> None:
        self.folder = folder
        self.origin = origin
        self.sources = cycle(sources)
        self.ended: list[Ended] = []

    def start(self, *words: str, keyed: bool = True, program: tuple[str, ...] = ("-m", "falbatch")) -> Started:
        """`keyed` for the commands that need the key."""
        variables, flags = next(self.sources) if keyed else ({}, ())
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FAL")}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, *program, *words, *flags],
            cwd=self.folder,
            env={**kept, "FALBATCH_ORIGIN": self.origin, "HOME": str(self.folder), **variables},
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )

    def end(self, process: Started) -> int:
        """Wait for a command and keep what it said; returns its exit code."""
        with process:
            out, err = process.communicate(timeout=SECONDS)
        self.ended.append(Ended(process.returncode, out, err))
        return process.returncode

    def give(self, *words: str, keyed: bool = True, program: tuple[str, ...] = ("-m", "falbatch")) -> int:
        """Give a command to its end."""
        return self.end(self.start(*words, keyed=keyed, program=program))


IN_FAL_KEY: Source = ({"FAL_KEY": KEY}, ())


@pytest.fixture
def fal(tmp_path: Path) -> Iterator[SandboxProcess]:
    """A sandbox that keeps what it knows, the echoes that it is told to make included, outside the searched folder."""
    with SandboxProcess("--seed", "5", "--speed", "0", "--data", str(tmp_path / "fal")) as sandbox:
        yield sandbox


def test_the_key_is_nowhere_after_a_batch_that_met_everything(tmp_path: Path, fal: SandboxProcess) -> None:
    key_file = tmp_path / "key.txt"
    key_file.write_text(KEY + "\n", encoding="utf-8")
    halves = {"FAL_KEY_ID": KEY_ID, "FAL_KEY_SECRET": SECRET}
    folder = tmp_path / "user"
    folder.mkdir()
    user = User(folder, fal.origin, IN_FAL_KEY, (halves, ()), ({}, ("--key-file", str(key_file))))
    (folder / "m.yaml").write_text(MANIFEST, encoding="utf-8")
    run = ("run", "m.yaml", "--reconcile-wait", "0.2")

    # Refused: the key, then the account.
    fal.add_faults([{"on": "submit", "do": "status:401", "body": {"detail": ECHO}}])
    assert user.give(*run, "--json") == 4
    fal.clear_faults()
    fal.lock()
    assert user.give(*run) == 4
    fal.lock(locked=False)

    # Echoes in every place where a server has words: 5xx and 422, JSON, plain text and a page; a download that breaks.
    page = f"<html><title>{ECHO}</title>{ECHO}</html>"
    fal.add_faults(
        [
            {"on": "submit", "do": "status:500", "endpoint": "trap/0", "body": {"detail": ECHO}},
            {"on": "submit", "do": "status:502", "endpoint": "trap/1", "nginx": True, "body": page},
            {
                "on": "submit",
                "do": "status:422",
                "endpoint": "trap/2",
                "body": {"detail": [{"msg": ECHO, "input": KEY}]},
            },
            {"on": "submit", "do": "status:400", "endpoint": "trap/3", "body": ECHO},
            {"on": "status", "do": "status:405", "endpoint": "trap/4", "body": {"error": {"message": ECHO}}},
            {"on": "result", "do": "status:422", "endpoint": "trap/5", "body": {"detail": {"msg": ECHO, "type": KEY}}},
            {"on": "result", "do": "status:418", "endpoint": "trap/6", "body": {"message": "x" * 480 + ECHO}},
            {"on": "file", "do": "status:403", "endpoint": "trap/7", "body": ECHO},
            {"on": "file", "do": "truncate", "endpoint": "trap/8"},
            {"on": "platform", "do": "status:403", "body": {"error": {"message": ECHO}}},
        ]
    )
    assert user.give(*run, "--json") == 3
    # Killed in the middle: intents, requests and part files are left as they are.
    fal.add_faults([{"on": "status", "do": "delay:5", "endpoint": "trap/5"}])  # which retry submits again
    ends: list[int] = []
    for words in (("retry", "m.yaml", "--resubmit-unknown"), ("run", "m.yaml", "--resubmit-unknown")):
        process = user.start(*words)
        with suppress(subprocess.TimeoutExpired):
            process.wait(1.2)
        process.send_signal(signal.SIGKILL)
        ends.append(user.end(process))
    assert -signal.SIGKILL in ends, "both were over before they could be killed"
    assert found(folder, user.ended) == [], "also while it lies there killed"

    user.give("reconcile", "m.yaml", "--wait", "0.2")
    fal.add_faults([{"on": "cancel", "do": "status:500", "body": {"detail": ECHO}}])
    user.give("cancel", "m.yaml", "--json")
    for command in ("status", "plan"):
        assert user.give(command, "m.yaml", *(["--json"] if command == "status" else []), keyed=False) == 0
    for form in ("jsonl", "csv"):
        assert user.give("export", "m.yaml", "--format", form, "--state", "failed", "--state", "done", keyed=False) == 0
    # A state file that is damaged and set aside, its copy in its place.
    (folder / "out" / "falbatch.db").write_bytes(b"not a database " * 300)
    fal.clear_faults()
    user.give(*run, "--retry-failed")
    assert list((folder / "out").glob("*set-aside*")) != []

    assert {one.code for one in user.ended} <= {0, 3, 4, -signal.SIGKILL}
    said = "".join(one.out + one.err for one in user.ended)
    assert "denied: Authorization: Key ***" in said, "the echo was shown, without what it echoed"
    assert found(folder, user.ended) == []


def test_the_sandbox_keeps_no_key(tmp_path: Path, fal: SandboxProcess) -> None:
    """Its queue, its ledger and its log, also after it was killed."""
    folder = tmp_path / "user"
    folder.mkdir()
    user = User(folder, fal.origin, IN_FAL_KEY)
    (folder / "m.yaml").write_text(MANIFEST, encoding="utf-8")
    fal.add_faults([{"on": "submit", "do": "drop_after", "endpoint": "trap/0"}])
    assert user.give("run", "m.yaml", "--reconcile-wait", "2") == 0
    user.ended.append(Ended(0, json.dumps(fal.ledger()) + json.dumps(fal.stats()), ""))
    fal.kill()
    user.ended.append(Ended(0, "", fal.errors))
    assert b"a kite" in b"".join(place.read_bytes() for place in (tmp_path / "fal").rglob("*") if place.is_file()), (
        "it keeps all else"
    )
    assert found(tmp_path, user.ended) == []


TROUBLE = {
    "a key with a space": KEY + " x",
    "a whole header": f"Key {KEY}",
    "a key without its id": SECRET,
    "a key with a newline in it": f"{KEY}\nmore",
}


@pytest.mark.parametrize("case", TROUBLE)
def test_a_key_that_cannot_be_used_is_not_shown(tmp_path: Path, case: str) -> None:
    user = User(tmp_path, NOWHERE, ({"FAL_KEY": TROUBLE[case]}, ()))
    (tmp_path / "m.yaml").write_text(MANIFEST, encoding="utf-8")
    assert user.give("run", "m.yaml") == 4
    assert "FAL_KEY" in user.ended[0].err
    assert found(tmp_path, user.ended) == []


BROKEN = """\
import sys
from falbatch.fal import transport
def broken(headers):
    raise KeyError("nobody foresaw this")
transport._unpacked = broken
from falbatch.__main__ import main
sys.exit(main())
"""
"""A bug of ours in the depths of the transport, where the header is at hand."""


def test_the_traceback_of_a_bug_shows_no_key(tmp_path: Path) -> None:
    user = User(tmp_path, NOWHERE, IN_FAL_KEY)
    (tmp_path / "m.yaml").write_text(MANIFEST, encoding="utf-8")
    assert user.give("run", "m.yaml", program=("-c", BROKEN)) == 1
    assert "nobody foresaw this" in user.ended[0].err
    assert found(tmp_path, user.ended) == []


@pytest.mark.parametrize("what", disguises())
def test_the_search_finds_a_planted_secret(tmp_path: Path, what: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "falbatch.db").write_bytes(b"\0\xff before " + disguises()[what] + b" after \0")
    assert [place for place in found(tmp_path, []) if place.startswith(f"{what} in ")] != []
    assert found(tmp_path / "nowhere", [Ended(0, "", f"error: {KEY}")]) != []


def test_base64_is_found_wherever_the_secret_stands_in_it(tmp_path: Path) -> None:
    for before in ("", "x", "xy", "xyz"):
        (tmp_path / "config").write_bytes(base64.b64encode(f"{before}{SECRET} and more".encode()))
        assert found(tmp_path, []) != [], f"after {len(before)} bytes"
