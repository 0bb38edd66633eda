"""fal's own Python client, unmodified, over https: what it uploads arrives, once and whole."""

from __future__ import annotations

import json
import random
import ssl
import subprocess
import sys
from io import BytesIO
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image

from tests.contracts.judge import ROOT, bare_environment, where
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAYS = ("sync", "async")
BIG = random.Random(5).randbytes(110_000)


class Proof:
    """What the client told, and the sandbox to ask about it."""

    def __init__(self, answers: dict[str, Any], http: httpx.Client, origin: str) -> None:
        self.answers = answers
        self.http = http
        self.origin = origin

    def get(self, way: str, name: str) -> httpx.Response:
        """The file that the client uploaded so."""
        return self.http.get(self.answers[way][name])

    def page(self, name: str) -> dict[str, Any]:
        """A control page."""
        found: dict[str, Any] = self.http.get(f"{self.origin}/sandbox/{name}").json()
        return found


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proof]:
    folder: Path = tmp_path_factory.mktemp("python-tls")
    (folder / "small.txt").write_bytes(b"small")
    (folder / "big.bin").write_bytes(BIG)
    ca = folder / "tls" / "ca.pem"
    with SandboxProcess("--speed", "50", "--tls", str(ca.parent)) as sandbox:
        # The certificate names both; by name is how people type it.
        origin = sandbox.origin.replace("127.0.0.1", "localhost")
        command = [sys.executable, "-m", "tests.contracts.python_uploads", origin, str(folder)]
        environment = {**bare_environment(), **where(origin, ca)}
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with httpx.Client(verify=ssl.create_default_context(cafile=ca), trust_env=False) as http:
            yield Proof(json.loads(done.stdout), http, origin)
        sandbox.stop()
        assert sandbox.errors == ""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "content", "content_type"),
    [
        ("bytes", b"hello", "text/plain"),
        ("file", b"small", "text/plain"),
        ("parts", BIG, "application/octet-stream"),
        ("parts of a file", BIG, "application/octet-stream"),
        ("target", b"hello", "text/plain"),
    ],
)
def test_an_upload_arrives_whole(proof: Proof, way: str, name: str, content: bytes, content_type: str) -> None:
    reply = proof.get(way, name)
    assert (reply.status_code, reply.headers["content-type"]) == (200, content_type)
    assert reply.content == content


@pytest.mark.parametrize("way", WAYS)
def test_a_picture_arrives(proof: Proof, way: str) -> None:
    reply = proof.get(way, "image")
    assert reply.headers["content-type"] == "image/png"
    assert Image.open(BytesIO(reply.content)).getpixel((4, 4)) == (255, 0, 0)


def test_each_was_uploaded_once_and_nothing_is_half_done(proof: Proof) -> None:
    page = proof.page("uploads")
    sent = {url for way in WAYS for url in proof.answers[way].values() if isinstance(url, str) and "/cdn/" in url}
    assert (page["count"], page["unfinished"], {file["url"] for file in page["files"]}) == (14, 0, sent)
    assert [file["parts"] for file in page["files"]] == [file["sent"] for file in page["files"]]
    assert sorted(file["parts"] for file in page["files"])[-4:] == [6, 6, 6, 6]


@pytest.mark.parametrize("way", WAYS)
def test_a_lifecycle_is_kept(proof: Proof, way: str) -> None:
    url = proof.answers[way]["restricted"]
    assert proof.http.get(url).status_code == 403
    found = next(file for file in proof.page("uploads")["files"] if file["url"] == url)
    assert 3590 < found["expires_at"] - found["uploaded_at"] <= 3600


@pytest.mark.parametrize("way", WAYS)
def test_a_request_runs_over_tls(proof: Proof, way: str) -> None:
    answers = proof.answers[way]
    assert (answers["status"], answers["result"]["seed"]) == ("Completed", 7)
    assert proof.http.get(answers["result"]["images"][0]["url"]).status_code == 200


def test_its_habit_of_sending_the_key_to_an_upload_target_is_seen(proof: Proof) -> None:
    assert proof.page("stats")["leaked_keys"] == len(WAYS)
