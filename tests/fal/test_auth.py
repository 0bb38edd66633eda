"""Where the key is found, in which order, and that it is never shown."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING

import pytest

from falbatch.errors import CredentialsError
from falbatch.fal.auth import Credentials, find_credentials

if TYPE_CHECKING:
    from pathlib import Path

FROM_VARIABLE = {"FAL_KEY": "kid:from-variable"}
FROM_PAIR = {"FAL_KEY_ID": "kid", "FAL_KEY_SECRET": "from-pair"}
BY_USER = {"FAL_FORCE_AUTH_BY_USER": "1"}


def jwt(expires_in_s: float) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part({'exp': time.time() + expires_in_s})}.signature"


def log_in(home: Path, token: str, folder: str = ".fal") -> None:
    (home / folder).mkdir()
    (home / folder / "auth0_token").write_text(f"refresh\n{token}\n", encoding="utf-8")


def test_the_order_is_file_variable_pair_login(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("\ufeff kid:from-file\r\n", encoding="utf-8")
    token = jwt(3600)
    log_in(tmp_path, token)
    everything = {**FROM_VARIABLE, **FROM_PAIR}

    def found(env: dict[str, str], file: Path | None = None) -> str:
        return find_credentials(env, key_file=file, home=tmp_path).header()

    assert found(everything, key_file) == "Key kid:from-file"
    assert found({**everything, **BY_USER}, key_file) == "Key kid:from-file"
    assert found(everything) == "Key kid:from-variable"
    assert found(FROM_PAIR) == "Key kid:from-pair"
    assert found({"FAL_KEY": "", **FROM_PAIR}) == "Key kid:from-pair"
    assert found({"FAL_KEY_ID": "kid"}) == f"Bearer {token}"
    assert found({**everything, **BY_USER}) == f"Bearer {token}"


def test_the_folder_of_the_login_can_be_elsewhere(tmp_path: Path) -> None:
    log_in(tmp_path, jwt(3600), "elsewhere")
    for folder in (str(tmp_path / "elsewhere"), "~/elsewhere"):
        assert find_credentials({"FAL_HOME_DIR": folder}, key_file=None, home=tmp_path).header().startswith("Bearer ")


def test_nothing_found_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError) as caught:
        find_credentials({}, key_file=None, home=tmp_path)
    assert caught.value.exit_code == 4
    assert "FAL_KEY" in caught.value.advice


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("nocolon-s3cr3t", "no colon"),
        ("'kid:s3cr3t'", "quotes"),
        ('"kid:s3cr3t"', "quotes"),
        ("kid:s3cr3t\nkid:other", "whitespace"),
        ("kid: s3cr3t", "whitespace"),
        ("kid:s3cr3t\x00", "whitespace"),
        ("kid:s3cr3té", "non-ASCII"),
        ("Key kid:s3cr3t", "word of a header"),
        ("kid:", "key_id:key_secret"),
        (":s3cr3t", "key_id:key_secret"),
        ("a:b:s3cr3t", "key_id:key_secret"),
        ("  ", "empty"),
    ],
)
def test_a_malformed_key_is_named_by_its_source_and_not_shown(key: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match=says) as caught:
        find_credentials({"FAL_KEY": key, **FROM_PAIR}, key_file=None, home=tmp_path)
    assert "FAL_KEY" in str(caught.value)
    assert "s3cr3t" not in str(caught.value) + caught.value.advice + repr(caught.value)


def test_a_key_file_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="No such file"):
        find_credentials(FROM_VARIABLE, key_file=tmp_path / "none", home=tmp_path)
    for content, says in ((b"\xff\xfe\x00", "not a text file"), (b"a" * 100_000, "too big"), (b"", "empty")):
        (tmp_path / "key").write_bytes(content)
        with pytest.raises(CredentialsError, match=says):
            find_credentials(FROM_VARIABLE, key_file=tmp_path / "key", home=tmp_path)


@pytest.mark.parametrize(
    ("token", "says"),
    [
        pytest.param(jwt(299), "has ended", id="ends soon"),
        pytest.param(jwt(-5), "has ended", id="ended"),
        ("not-a-jwt", "cannot be read"),
        ("a.e30.c", "cannot be read"),
        ("a.!!!.c", "malformed"),
        ("", "no access token"),
    ],
)
def test_a_login_that_is_no_good_says_to_log_in_again(token: str, says: str, tmp_path: Path) -> None:
    log_in(tmp_path, token)
    with pytest.raises(CredentialsError, match=says) as caught:
        find_credentials({}, key_file=None, home=tmp_path)
    assert "fal auth login" in caught.value.advice


def test_credentials_are_masked_and_redact_what_a_server_echoes() -> None:
    credentials = Credentials("Key", "kid:s3cr3t", source="FAL_KEY")
    for shown in (repr(credentials), str(credentials), f"{credentials}"):
        assert "s3cr3t" not in shown
        assert "FAL_KEY" in shown
    assert credentials.redact("bad key kid:s3cr3t, half s3cr3t") == "bad key ***, half ***"
    assert "tok" not in Credentials("Bearer", "tok.en", source="x").redact("tok.en")


def test_keys_are_told_apart_by_what_is_not_secret() -> None:
    one, again, other = (
        Credentials("Key", key, source="").account for key in ("kid:s3cr3t", "kid:new-s3cr3t", "kit:s3cr3t")
    )
    assert one == again != other
    assert len(one) == 12
    assert Credentials("Bearer", "tok.en", source="").account == ""
