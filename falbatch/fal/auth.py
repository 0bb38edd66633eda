"""Where the key comes from, and the only thing that may be done with it: make one header (fal-protocol §1).

Messages name the source of a key and what is wrong with it, never a character of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from falbatch.errors import CredentialsError

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN_LEEWAY_S: Final = 300
"""A login token this near its end counts as ended, as in the official client (fal-protocol §1.2)."""

TOKEN_FILE: Final = "auth0_token"  # noqa: S105 - a file name
MAX_FILE_BYTES: Final = 64 * 1024
"""A key file is a line, a token file two; anything bigger is some other file."""

_SHOWN: Final = "***"
_HOW: Final = "set FAL_KEY to a key from https://fal.ai/dashboard/keys, give --key-file, or run `fal auth login`"


class Credentials:
    """A key or login token. Its only exit is `header()`; `repr` and `str` are masked."""

    __slots__ = ("_header", "_parts", "account", "source")

    def __init__(self, scheme: str, secret: str, *, source: str) -> None:
        self._header = f"{scheme} {secret}"
        # The id half of a key is not secret: it names the key in fal's dashboard.
        halves = [secret.partition(":")[2]] if scheme == "Key" else []
        self._parts = tuple(part for part in (secret, *halves) if part)
        self.source = source
        """Where it was found, for messages: `FAL_KEY`, a path."""
        name = secret.partition(":")[0] if scheme == "Key" else str(_claims(secret).get("sub") or "")
        digest = hashlib.sha256(f"{scheme} {name}".encode(errors="surrogatepass")).hexdigest()
        self.account = digest[:12] if name else ""
        """Tells keys apart, by what is not secret: a hash of the key's id, or a login's subject; "" without one."""

    def header(self) -> str:
        """The value of `Authorization`. Only for URLs that `Hosts.trusts`."""
        return self._header

    def redact(self, text: str) -> str:
        """`text` without the secret, for whatever a server may echo."""
        for part in self._parts:
            text = text.replace(part, _SHOWN)
        return text

    def __repr__(self) -> str:
        return f"Credentials({_SHOWN}, source={self.source!r})"


def find_credentials(env: Mapping[str, str], *, key_file: Path | None, home: Path) -> Credentials:
    """The first of: `key_file`, FAL_KEY, FAL_KEY_ID + FAL_KEY_SECRET, the login token (fal-protocol §1.2).

    `home` is the user's home folder; FAL_HOME_DIR replaces `home/.fal`. FAL_FORCE_AUTH_BY_USER=1 passes
    over the variables. A source that is there but malformed is an error, never skipped: another key might
    belong to another account. Raises CredentialsError. Reads at most one file.
    """
    if key_file is not None:
        return _key(_read(key_file), source=str(key_file))
    if env.get("FAL_FORCE_AUTH_BY_USER") != "1":
        if env.get("FAL_KEY"):
            return _key(env["FAL_KEY"], source="FAL_KEY")
        if env.get("FAL_KEY_ID") and env.get("FAL_KEY_SECRET"):
            joined = f"{env['FAL_KEY_ID']}:{env['FAL_KEY_SECRET']}"
            return _key(joined, source="FAL_KEY_ID and FAL_KEY_SECRET")
    folder = Path(env["FAL_HOME_DIR"]) if env.get("FAL_HOME_DIR") else home / ".fal"
    if folder.parts[:1] == ("~",):
        folder = home.joinpath(*folder.parts[1:])
    return _login_token(folder / TOKEN_FILE)


def _key(text: str, *, source: str) -> Credentials:
    """Credentials of the key in `text`, whose ends may carry the newline of a file."""
    key = text.strip()
    if problem := _what_is_wrong(key):
        raise CredentialsError(f"the key in {source} {problem}", advice=f"Correct {source}, or {_HOW}.")
    return Credentials("Key", key, source=source)


def _what_is_wrong(key: str) -> str:
    """What keeps `key` from being `key_id:key_secret`, in words without any part of it; "" when nothing."""
    if not key:
        return "is empty"
    if key[0] in "\"'" or key[-1] in "\"'":
        return "is wrapped in quotes; leave them out"
    if re.match(r"(?i)(key|bearer)\s", key):
        return "begins with the word of a header; give the key alone"
    if not key.isascii() or not key.isprintable() or " " in key:
        return "has whitespace, control or non-ASCII characters in it"
    key_id, colon, secret = key.partition(":")
    if not colon:
        return "has no colon; a fal key is key_id:key_secret"
    if not key_id or not secret or ":" in secret:
        return "is not of the form key_id:key_secret"
    return ""


def _read(path: Path) -> str:
    """The text of a small file; CredentialsError when it cannot be had."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CredentialsError(f"cannot read the key in {path}: {reason}", advice=_how()) from error
    except UnicodeDecodeError:
        # The cause would carry the file's bytes.
        raise CredentialsError(f"{path} is not a text file", advice=_how()) from None
    if len(data) > MAX_FILE_BYTES:
        raise CredentialsError(f"{path} is too big to be a key file", advice=_how())
    return text


def _how() -> str:
    return _HOW[0].upper() + _HOW[1:] + "."


def _login_token(path: Path) -> Credentials:
    """The access token (line 2) that `fal auth login` stored.

    It is not refreshed here: the client id that asks for needs is not documented, so an ended token is an
    error that says how to get a new one.
    """
    if not path.is_file():
        raise CredentialsError("no fal credentials found", advice=_how())
    lines = [line.strip() for line in _read(path).splitlines() if line.strip()]
    again = "Log in again with `fal auth login`, or set FAL_KEY."
    if len(lines) < 2:
        raise CredentialsError(f"the login in {path} has no access token", advice=again)
    token = lines[1]
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", token):
        raise CredentialsError(f"the access token in {path} is malformed", advice=again)
    expires_at = _expiry(token)
    if expires_at is None:
        raise CredentialsError(f"the access token in {path} cannot be read", advice=again)
    if expires_at - time.time() <= TOKEN_LEEWAY_S:
        raise CredentialsError(f"the login in {path} has ended, or ends within minutes", advice=again)
    return Credentials("Bearer", token, source=str(path))


def _expiry(token: str) -> float | None:
    """The `exp` claim (Unix seconds) of a JWT, unverified; None when there is none to read."""
    try:
        return float(_claims(token)["exp"])
    except (ValueError, KeyError, TypeError):
        return None


def _claims(token: str) -> dict[str, Any]:
    """What a JWT says, unverified; nothing when it cannot be read."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, IndexError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}
