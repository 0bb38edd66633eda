"""https with a certificate authority of our own: trusted by ca.pem alone, kept over restarts, private keys private."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
import trustme
from cryptography import x509

from falbatch.errors import UsageError
from falbatch.sandbox import serve as serve_module
from falbatch.sandbox.settings import SandboxSettings
from falbatch.sandbox.tls import NAMES, server_context
from tests.sandbox.conftest import KEY
from tests.sandbox_process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PEMS = ("ca.pem", "ca-key.pem", "server.pem", "server-key.pem")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls") / "made"


@pytest.fixture(scope="module")
def secure(folder: Path) -> Iterator[SandboxProcess]:
    with SandboxProcess("--seed", "7", "--speed", "0", "--tls", str(folder)) as process:
        yield process
        process.stop()
        assert process.errors == ""


def trusting(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=folder / "ca.pem")


def client(folder: Path) -> httpx.Client:
    return httpx.Client(headers=KEY, verify=trusting(folder), trust_env=False)


def read_all(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in PEMS]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_url_is_https_and_the_protocol_works(secure: SandboxProcess, folder: Path) -> None:
    assert secure.origin.startswith("https://127.0.0.1:")
    with client(folder) as http:
        page = http.post(f"{secure.origin}/queue/fal-ai/flux/dev", json={"prompt": "x", "seed": 1}).json()
        assert page["status_url"].startswith(f"{secure.origin}/queue/")
        while http.get(page["status_url"]).status_code == 202:
            pass
        url = http.get(page["response_url"]).json()["images"][0]["url"]
        assert url.startswith(f"{secure.origin}/cdn/")
        assert http.get(url).status_code == 200
        token = http.post(f"{secure.origin}/rest/storage/auth/token?storage_type=fal-cdn-v3").json()
        assert token["base_url"] == f"{secure.origin}/cdn"


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_certificate_names_this_machine(
    secure: SandboxProcess, folder: Path, name: str, version: ssl.TLSVersion
) -> None:
    context = trusting(folder)
    context.minimum_version = context.maximum_version = version
    port = urlsplit(secure.origin).port
    with socket.create_connection(("127.0.0.1", port or 0)) as raw, context.wrap_socket(raw, server_hostname=name):
        pass


def test_older_tls_and_strangers_are_refused(secure: SandboxProcess, folder: Path) -> None:
    address = ("127.0.0.1", urlsplit(secure.origin).port or 0)
    with socket.create_connection(address) as raw, pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(raw, server_hostname="localhost")
    assert server_context(folder, "127.0.0.1").minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_reset_is_a_reset_under_tls_too(secure: SandboxProcess, folder: Path) -> None:
    with client(folder) as http:
        http.post(f"{secure.origin}/sandbox/faults", json={"on": "submit", "do": "drop_before", "times": 1})
        with pytest.raises(httpx.HTTPError):
            http.post(f"{secure.origin}/queue/fal-ai/flux/dev", json={"prompt": "x"})


def test_keys_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        server_context(tmp_path, "127.0.0.1")
    finally:
        os.umask(before)
    assert [mode_of(tmp_path / name) for name in PEMS] == [0o644, 0o600, 0o644, 0o600]
    (tmp_path / "ca-key.pem").chmod(0o644)
    server_context(tmp_path, "127.0.0.1")
    assert mode_of(tmp_path / "ca-key.pem") == 0o600


def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    server_context(tmp_path, "127.0.0.1")
    made = read_all(tmp_path)
    server_context(tmp_path, "localhost")
    assert read_all(tmp_path) == made


def test_the_certificate_has_the_usual_names_and_a_year(tmp_path: Path) -> None:
    server_context(tmp_path, "127.0.0.7")
    found = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    texts = {str(entry.value) for entry in names}
    assert texts == {*NAMES, "127.0.0.7"}
    assert timedelta(days=360) < found.not_valid_after_utc - datetime.now(UTC) < timedelta(days=398)


@pytest.mark.parametrize("trouble", ["old", "names", "stranger", "no key"])
def test_a_server_certificate_that_will_not_do_is_renewed_under_the_same_ca(tmp_path: Path, trouble: str) -> None:
    server_context(tmp_path, "127.0.0.1")
    ca_pem, ca_key, certificate, _ = read_all(tmp_path)
    ca = trustme.CA() if trouble == "stranger" else trustme.CA.from_pem(ca_pem, ca_key)
    soon = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=3)
    names = ("localhost",) if trouble == "names" else NAMES
    fitting = ca.issue_cert(*names, not_after=soon if trouble == "old" else None)
    (tmp_path / "server.pem").write_bytes(fitting.cert_chain_pems[0].bytes())
    (tmp_path / "server-key.pem").write_bytes(fitting.private_key_pem.bytes())
    if trouble == "no key":
        (tmp_path / "server-key.pem").unlink()
    server_context(tmp_path, "127.0.0.1")
    after = read_all(tmp_path)
    assert after[:2] == [ca_pem, ca_key]
    assert after[2] not in {certificate, fitting.cert_chain_pems[0].bytes()}
    assert mode_of(tmp_path / "server-key.pem") == 0o600


def test_starts_over_one_folder_at_once_come_to_one_ca(tmp_path: Path) -> None:
    code = f"import pathlib, falbatch.sandbox.tls as t; t.server_context(pathlib.Path({str(tmp_path)!r}), 'localhost')"
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    server_context(tmp_path, "localhost")
    issuer = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes())
    x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes()).verify_directly_issued_by(issuer)


@pytest.mark.parametrize("name", PEMS)
def test_damage_is_told_with_the_way_out(tmp_path: Path, name: str) -> None:
    server_context(tmp_path, "localhost")
    (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="cannot be used") as caught:
        server_context(tmp_path, "localhost")
    assert ".pem" in str(caught.value.advice)


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot keep certificates") as caught:
        server_context(tmp_path / "file" / "tls", "localhost")
    assert "--tls" in str(caught.value.advice)


def test_without_trustme_the_way_to_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        return None if name == "trustme" else object()

    monkeypatch.setattr("importlib.util.find_spec", find)
    with pytest.raises(UsageError, match="trustme") as caught:
        serve_module.check(SandboxSettings(tls=tmp_path))
    assert "falbatch[sandbox]" in str(caught.value.advice)


@pytest.mark.parametrize("program", [["falbatch.sandbox"], ["falbatch", "sandbox"]])
def test_both_commands_explain_it(program: list[str]) -> None:
    command = [sys.executable, "-m", *program, "--help"]
    assert "--tls DIR" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
