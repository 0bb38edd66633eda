"""Tokens of attempts: found again, and not to be made by others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.callback import SECRET_BYTES, CallbackPlace, CallbackUrls, attempt_of, attempt_token, parse_place

SECRETS = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)
NUMBERS = st.integers(min_value=1, max_value=2**31)


@given(SECRETS, NUMBERS, NUMBERS)
def test_a_token_names_its_attempt(secret: bytes, job_id: int, attempt: int) -> None:
    token = attempt_token(secret, job_id, attempt)
    assert attempt_of(secret, token) == (job_id, attempt)
    assert token == attempt_token(secret, job_id, attempt)
    assert token.replace("-", "").isalnum()


@given(SECRETS, SECRETS, NUMBERS, NUMBERS)
def test_another_batchs_token_means_nothing(secret: bytes, other: bytes, job_id: int, attempt: int) -> None:
    if secret != other:
        assert attempt_of(other, attempt_token(secret, job_id, attempt)) is None


@given(SECRETS, NUMBERS, NUMBERS, st.data())
def test_a_changed_token_means_nothing(secret: bytes, job_id: int, attempt: int, data: st.DataObject) -> None:
    token = attempt_token(secret, job_id, attempt)
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from("0123456789abcdef-z/"))
    changed = token[:place] + letter + token[place + 1 :]
    if changed != token:
        assert attempt_of(secret, changed) is None


@given(st.text(max_size=80))
def test_what_is_no_token_means_nothing(text: str) -> None:
    assert attempt_of(bytes(SECRET_BYTES), text) is None


def test_a_url_ends_in_the_token_and_is_not_shown() -> None:
    urls = CallbackUrls("https://a.example/fal", b"s" * SECRET_BYTES)
    before, _, token = urls.of(7, 2).rpartition("/")
    assert before == "https://a.example/fal"
    assert attempt_of(urls.secret, token) == (7, 2)
    assert "ssss" not in repr(urls)


@pytest.mark.parametrize(
    ("listen", "url", "place"),
    [
        ("127.0.0.1:8099", "https://A.example", ("127.0.0.1", 8099, "https://A.example", "", "a.example")),
        ("[::1]:80", "https://a.b:8443/x/y/", ("::1", 80, "https://a.b:8443/x/y", "/x/y", "a.b")),
        ("0.0.0.0:1", "http://localhost:1/", ("0.0.0.0", 1, "http://localhost:1", "", "localhost")),
        ("host:9", "http://[::1]:9/f", ("host", 9, "http://[::1]:9/f", "/f", "::1")),
    ],
)
def test_a_place_is_taken_apart(listen: str, url: str, place: tuple[str, int, str, str, str]) -> None:
    assert parse_place(listen, url) == CallbackPlace(*place)


@pytest.mark.parametrize(
    "listen", ["", "8099", ":8099", "host:", "host:0", "host:65536", "host:x", "host:٣", "host:-1"]
)
def test_what_is_no_place_to_listen_names_the_flag(listen: str) -> None:
    with pytest.raises(ValueError, match=r"--webhook-listen: .* is not HOST:PORT"):
        parse_place(listen, "https://a.b")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.b",
        "ftp://a.b",
        "https://",
        "https://a.b:0",
        "https://a.b:99999",
        "https://u:p@a.b",
        "https://a.b/x?y=1",
        "https://a.b/x#y",
        "https://a.b//x",
        "https://a.b/%41",
        "https://a.b/x y",
        "https://a.b/\n",
        "https://a.b/" + "x" * 2000,
    ],
)
def test_what_no_token_can_be_added_to_is_no_url_to_call(url: str) -> None:
    with pytest.raises(ValueError, match="--webhook-url is not a URL"):
        parse_place("h:1", url)


def test_plain_http_is_for_this_machine() -> None:
    with pytest.raises(ValueError, match="plain http"):
        parse_place("h:1", "http://a.b/x")


@pytest.mark.parametrize(
    ("host", "is_private"),
    [("a.example", False), ("8.8.8.8", False), ("10.0.0.7", True), ("127.0.0.1", True), ("[::1]", True), ("box", True)],
)
def test_what_the_internet_does_not_lead_to_is_known(host: str, is_private: bool) -> None:
    assert parse_place("h:1", f"https://{host}/x").is_private is is_private
