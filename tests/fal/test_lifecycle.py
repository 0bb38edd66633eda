"""Life and readers of files, data URIs, content types."""

from __future__ import annotations

from typing import Any

import pytest

from falbatch.fal.data_uri import data_uri, guess_content_type
from falbatch.fal.lifecycle import StorageACL, StorageACLRule, StorageSettings, upload_headers


@pytest.mark.parametrize(
    ("word", "seconds"), [("immediate", 60), ("1h", 3600), ("1d", 86_400), ("1y", 31_536_000), (90, 90)]
)
def test_lives_are_seconds(word: Any, seconds: int) -> None:
    assert StorageSettings(word).as_json() == f'{{"expiration_duration_seconds": {seconds}}}'


@pytest.mark.parametrize(
    "settings", [None, StorageSettings(), StorageSettings("never"), StorageSettings("never", StorageACL())]
)
def test_nothing_said_is_no_header(settings: StorageSettings | None) -> None:
    assert upload_headers(settings) == {}


@pytest.mark.parametrize("wrong", [0, -1, True, False, "soon", "0h", float("nan"), float("inf"), ""])
def test_what_fal_would_read_as_for_ever_is_an_error(wrong: Any) -> None:
    with pytest.raises(ValueError, match="expires_in"):
        StorageSettings(wrong)


def test_readers_are_checked() -> None:
    wrong: Any = "deny"
    with pytest.raises(ValueError, match="hide, forbid or allow"):
        StorageACL(wrong)
    with pytest.raises(ValueError, match="hide, forbid or allow"):
        StorageACLRule("ann", wrong)
    with pytest.raises(ValueError, match="nickname"):
        StorageACLRule("", "hide")


def test_a_data_uri_holds_its_bytes() -> None:
    assert data_uri(b"\x00\xff", "image/png") == "data:image/png;base64,AP8="


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", "image/png"),
        ("A.JPG", "image/jpeg"),
        ("x.json.gz", "application/gzip"),
        ("x.tar.xz", "application/x-xz"),
        ("weights.safetensors", "application/octet-stream"),
        ("noname", "application/octet-stream"),
    ],
)
def test_names_tell_types(name: str, kind: str) -> None:
    assert guess_content_type(name) == kind
