"""https for this machine: a certificate authority of our own in a folder, and a server certificate that it signs.

    ca.pem          what clients are told to trust (SSL_CERT_FILE); for everybody to read
    ca-key.pem      its key, for nobody else
    server.pem      names this machine; renewed when little of its life is left
    server-key.pem  its key, for nobody else

Whoever has the CA's key can pose as any site to whatever trusts ca.pem, so the keys never leave the folder.
"""

from __future__ import annotations

import fcntl
import os
import ssl
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from falbatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cryptography.x509 import Certificate
    from trustme import CA

NAMES: Final = ("localhost", "127.0.0.1", "::1")
"""What the server certificate always names."""

LIFE: Final = timedelta(days=365)
"""Of a server certificate; some clients refuse more than 398 days."""

MARGIN: Final = timedelta(days=30)
"""A certificate with less than that to live is renewed at start."""

PUBLIC: Final = 0o644
PRIVATE: Final = 0o600


def server_context(folder: Path, host: str) -> ssl.SSLContext:
    """TLS from 1.2 on, as this machine's names and `host`, with what `folder` keeps; what it lacks is made.

    Raises UsageError when the folder cannot be used, or what it holds.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            _provide(folder, tuple(dict.fromkeys((*NAMES, host))), datetime.now(UTC))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(folder / "server.pem", folder / "server-key.pem")
    except ssl.SSLError as error:
        raise _damaged(folder, error) from error
    except OSError as error:
        raise UsageError(
            f"cannot keep certificates in {folder}: {error}", advice="Give --tls a folder that you may write to."
        ) from error
    return context


def _provide(folder: Path, names: tuple[str, ...], now: datetime) -> None:
    """See to it that all four files are there and will hold for a while."""
    from cryptography.x509 import load_pem_x509_certificate

    ca = _authority(folder, now)
    certificate, key = folder / "server.pem", folder / "server-key.pem"
    if certificate.exists() and key.exists():
        try:
            kept = load_pem_x509_certificate(certificate.read_bytes())
        except ValueError as error:
            raise _damaged(folder, error) from error
        issuer = load_pem_x509_certificate(ca.cert_pem.bytes())
        if _is_fresh(kept, now) and _names_of(kept) >= set(names) and _is_signed(kept, issuer):
            key.chmod(PRIVATE)
            return
    fresh = ca.issue_cert(
        *names,
        not_before=(now - timedelta(days=1)).replace(tzinfo=None),
        not_after=(now + LIFE).replace(tzinfo=None),
        organization_name="falbatch sandbox",
    )
    # The key first: a certificate without its key would be taken for whole.
    certificate.unlink(missing_ok=True)
    _write(key, fresh.private_key_pem.bytes(), PRIVATE)
    _write(certificate, b"".join(pem.bytes() for pem in fresh.cert_chain_pems), PUBLIC)


def _authority(folder: Path, now: datetime) -> CA:
    """The folder's CA; a new one where there is none, or its life is nearly over."""
    from cryptography.x509 import load_pem_x509_certificate
    from trustme import CA

    certificate, key = folder / "ca.pem", folder / "ca-key.pem"
    if certificate.exists() and key.exists():
        try:
            if _is_fresh(load_pem_x509_certificate(certificate.read_bytes()), now):
                key.chmod(PRIVATE)
                return CA.from_pem(certificate.read_bytes(), key.read_bytes())
        except (ValueError, TypeError) as error:
            raise _damaged(folder, error) from error
    ca = CA(organization_name="falbatch sandbox", organization_unit_name="certificate authority of this folder")
    certificate.unlink(missing_ok=True)
    _write(key, ca.private_key_pem.bytes(), PRIVATE)
    _write(certificate, ca.cert_pem.bytes(), PUBLIC)
    return ca


def _is_fresh(certificate: Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now and now + MARGIN < certificate.not_valid_after_utc


def _is_signed(certificate: Certificate, issuer: Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _names_of(certificate: Certificate) -> set[str]:
    from cryptography.x509 import DNSName, ExtensionNotFound, IPAddress, SubjectAlternativeName

    try:
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    except ExtensionNotFound:
        return set()
    return {*names.get_values_for_type(DNSName), *map(str, names.get_values_for_type(IPAddress))}


def _write(path: Path, content: bytes, mode: int) -> None:
    """A whole file or none, never readable by others than `mode` says."""
    partial = path.with_name(path.name + ".part")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # whatever the umask says
        file.write(content)
    partial.replace(path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder: two sandboxes may start over it at once, and must come to the same CA."""
    with (folder / "tls.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _damaged(folder: Path, error: Exception) -> UsageError:
    return UsageError(
        f"a certificate or key in {folder} cannot be used: {error}",
        advice="Remove its .pem files, which makes new ones at the next start, or give --tls another folder.",
    )
