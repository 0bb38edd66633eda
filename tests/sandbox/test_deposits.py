"""Names inside URLs, signed texts, lists of parts: the pure parts of storage."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.sandbox import passes
from falbatch.sandbox.deposits import MAX_NAME_CHARS, Part, mistake_in, name_in_url
from falbatch.sandbox.lifecycle import Acl, Decision, Lifecycle, parse_acl, parse_lifecycle, read_headers

SEED = 7


@pytest.mark.parametrize(
    ("given_name", "content_type", "expected"),
    [
        ("photo.png", "image/png", "photo.png"),
        ("my photo (1).png", "image/png", "my_photo_1_.png"),
        ("../../etc/passwd", "", "passwd"),
        ("C:\\Users\\me\\cat.jpg", "", "cat.jpg"),
        ("Größe.png", "image/png", "Gr_e.png"),
        ("…", "image/png", "file.png"),
        ("", "image/jpeg; q=1", "file.jpg"),
        ("", "", "file.bin"),
        (".hidden", "", "hidden"),
        ("a?b#c%2f&d", "", "a_b_c_2f_d"),
        ("x" * 300 + ".png", "", "x" * (MAX_NAME_CHARS - 4) + ".png"),
        ("x" * 300, "", "x" * MAX_NAME_CHARS),
    ],
)
def test_a_file_name_becomes_fit_for_a_url(given_name: str, content_type: str, expected: str) -> None:
    assert name_in_url(given_name, content_type) == expected


@given(st.text(), st.text())
def test_any_name_becomes_one_safe_segment(name: str, content_type: str) -> None:
    made = name_in_url(name, content_type)
    assert 0 < len(made) <= MAX_NAME_CHARS
    assert not set(made) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    assert made[0] != "."


def test_a_signed_text_is_good_for_its_kind_and_time() -> None:
    text = passes.issue(SEED, passes.Kind.CDN, 100.0, account="me")
    found = passes.check(SEED, passes.Kind.CDN, text, 99.9)
    assert found is not None
    assert found["account"] == "me"
    assert passes.check(SEED, passes.Kind.CDN, text, 100.0) is None
    assert passes.check(SEED, passes.Kind.READ, text, 0.0) is None
    assert passes.check(SEED + 1, passes.Kind.CDN, text, 0.0) is None
    assert passes.is_ours(SEED, passes.Kind.CDN, text)


@given(st.text() | st.builds(lambda a, b: f"{a}.{b}", st.text("abcAB_-="), st.text("abcAB_-=")))
def test_no_other_text_is_taken(text: str) -> None:
    assert passes.check(SEED, passes.Kind.CDN, text, 0.0) is None
    assert not passes.is_ours(SEED, passes.Kind.CDN, text)


def test_no_changed_text_is_taken() -> None:
    text = passes.issue(SEED, passes.Kind.CDN, 100.0, account="me")
    body, _, signature = text.partition(".")
    other = passes.issue(SEED, passes.Kind.CDN, 100.0, account="you").partition(".")[0]
    for changed in (f"{other}.{signature}", body, f".{signature}", f"{body}.", f"{signature}.{body}", ""):
        assert passes.check(SEED, passes.Kind.CDN, changed, 0.0) is None


PARTS = {number: Part(f"blob{number}", 1, f"{number}" * 64) for number in (1, 2, 3)}


def entry(number: int, etag: str | None = None) -> dict[str, Any]:
    return {"partNumber": number, "etag": PARTS[number].etag if etag is None else etag}


@pytest.mark.parametrize(
    ("listed", "mistake"),
    [
        ([entry(1), entry(2), entry(3)], ""),
        ([entry(1, "1" * 32), entry(2), entry(3)], ""),
        ([entry(2), entry(1), entry(3)], "order"),
        ([entry(1), entry(2)], "part 3 is missing"),
        ([entry(1), entry(3)], "part 2 is missing"),
        ([entry(1), entry(1), entry(2), entry(3)], "twice"),
        ([entry(1), entry(2, "other"), entry(3)], "etag of part 2"),
        ([entry(1), {"partNumber": 4, "etag": "x"}], "part 4 was not uploaded"),
        ([{"part_number": 1, "etag": "x"}], "partNumber"),
        ([], "list of parts"),
        ({"parts": []}, "list of parts"),
    ],
)
def test_a_list_of_parts_is_right_or_told_what_is_wrong(listed: object, mistake: str) -> None:
    found = mistake_in(listed, PARTS, in_order=True)
    assert (mistake in found) if mistake else (found == "")


def test_an_order_that_does_not_matter_does_not() -> None:
    assert mistake_in([entry(3), entry(1), entry(2)], PARTS, in_order=False) == ""


def test_lifecycles_read_back_as_they_are_written() -> None:
    acl = Acl(Decision.HIDE, (("friend", Decision.ALLOW),))
    for lifecycle in (Lifecycle(), Lifecycle(60.0), Lifecycle(None, acl), Lifecycle(0.5, Acl())):
        assert parse_lifecycle(lifecycle.page()) == lifecycle
    assert parse_acl(acl.page()) == acl
    assert parse_acl({"rules": []}) == Acl()


def test_either_header_counts_in_either_case() -> None:
    for name in ("X-Fal-Object-Lifecycle", "x-fal-object-lifecycle-preference"):
        assert read_headers({name: '{"expiration_duration_seconds": 5}'}) == Lifecycle(5.0)
    assert read_headers({}) == Lifecycle()


def test_what_a_call_says_goes_over_what_the_account_says() -> None:
    defaults = Lifecycle(60.0, Acl(Decision.FORBID))
    assert Lifecycle(None, Acl()).over(defaults) == Lifecycle(60.0, Acl())
    assert Lifecycle(5.0).over(defaults) == Lifecycle(5.0, Acl(Decision.FORBID))
