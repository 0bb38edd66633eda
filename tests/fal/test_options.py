"""Headers of a submit (fal-protocol §3.1, §6.5): their names, their values, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from falbatch.fal.lifecycle import StorageACL, StorageACLRule, lifetime_s
from falbatch.fal.options import SubmitOptions


def test_no_options_are_no_headers() -> None:
    assert SubmitOptions().render() == {}
    assert SubmitOptions(store_io=True, fallback=True, expires_in="never").render() == {}


def test_every_option_has_its_header() -> None:
    options = SubmitOptions(
        priority="low",
        start_timeout_s=600,
        hint="warm runner",
        tags={"team": "art", "run": "7 b"},
        expires_in="7d",
        store_io=False,
        fallback=False,
        headers={"X-Custom": "a"},
    )
    assert options.render() == {
        "x-fal-queue-priority": "low",
        "x-fal-request-timeout": "600",
        "x-fal-runner-hint": "warm runner",
        "x-fal-tags": "team=art,run=7 b",
        "x-fal-object-lifecycle-preference": '{"expiration_duration_seconds": 604800}',
        "x-fal-store-io": "0",
        "x-app-fal-disable-fallback": "true",
        "x-custom": "a",
    }
    assert options.render() is options.render()


def test_what_only_a_queue_understands_is_not_for_direct_calls() -> None:
    options = SubmitOptions(priority="low", hint="h", retry=False, webhook_url="https://e.org", headers={"X-A": "1"})
    assert options.render() == {
        "x-fal-queue-priority": "low",
        "x-fal-runner-hint": "h",
        "x-fal-no-retry": "1",
        "x-a": "1",
    }
    assert options.render_direct() == {"x-fal-runner-hint": "h", "x-a": "1"}


def test_fals_own_retries_can_be_counted() -> None:
    header = SubmitOptions(retry={"server_error": 2, "timeout": 0}).render()["x-fal-retry-config"]
    assert json.loads(header) == {"server_error": {"retries": 2}, "timeout": {"retries": 0}}
    assert SubmitOptions(retry=True).render() == {}
    assert SubmitOptions(retry={}).render() == {}


def test_readers_of_the_files_stand_beside_their_life() -> None:
    acl = {"default": "forbid", "rules": [{"user": "ann", "decision": "allow"}]}
    readers = StorageACL("forbid", [StorageACLRule("ann", "allow")])
    header = SubmitOptions(expires_in="1h", initial_acl=readers).render()["x-fal-object-lifecycle-preference"]
    assert json.loads(header) == {"expiration_duration_seconds": 3600, "initial_acl": acl}
    header = SubmitOptions(initial_acl=StorageACL("hide")).render()["x-fal-object-lifecycle-preference"]
    assert json.loads(header) == {"initial_acl": {"default": "hide"}}


def test_webhook_and_queue_length_are_a_query() -> None:
    options = SubmitOptions(webhook_url="https://e.org:8443/h?t=s3cr3t&x=1", max_queue_length=0)
    assert options.query() == "fal_webhook=https%3A%2F%2Fe.org%3A8443%2Fh%3Ft%3Ds3cr3t%26x%3D1&fal_max_queue_length=0"
    assert SubmitOptions().query() == ""
    assert "s3cr3t" not in repr(options)


def test_custom_headers_are_not_shown() -> None:
    assert "s3cr3t" not in repr(SubmitOptions(headers={"X-Token": "s3cr3t"}))


@pytest.mark.parametrize(("seconds", "text"), [(1.5, "1.5"), (2, "2"), (30.0, "30"), (1200, "1200")])
def test_start_timeouts_are_plain_numbers(seconds: float, text: str) -> None:
    assert SubmitOptions(start_timeout_s=seconds).render() == {"x-fal-request-timeout": text}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("never", None),
        ("immediate", 60),
        ("1h", 3600),
        ("1d", 86_400),
        ("7d", 604_800),
        ("30d", 2_592_000),
        ("1y", 31_536_000),
        ("90m", 5400),
        ("45s", 45),
        ("2w", 1_209_600),
        (1, 1),
        (3600.0, 3600),
    ],
)
def test_lifetimes_are_words_or_seconds(value: str | float, seconds: int | None) -> None:
    assert lifetime_s(value) == seconds
    header = SubmitOptions(expires_in=value).render().get("x-fal-object-lifecycle-preference")
    assert (json.loads(header) if header else None) == (seconds and {"expiration_duration_seconds": seconds})


@pytest.mark.parametrize("value", ["0s", "soon", "", "7 d", "-1d", 0, -5, True, float("inf"), float("nan"), 0.5])
def test_lifetimes_of_nothing_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="expires_in"):
        SubmitOptions(expires_in=value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"priority": "high"}, "priority"),
        ({"start_timeout_s": 1}, "start_timeout_s"),
        ({"start_timeout_s": float("nan")}, "start_timeout_s"),
        ({"hint": ""}, "hint"),
        ({"hint": "a\r\nEvil: 1"}, "hint"),
        ({"tags": {"Team": "x"}}, "Team"),
        ({"tags": {"fal.x": "x"}}, "fal's own"),
        ({"tags": {"a": "x,y"}}, "comma"),
        ({"tags": {"a": ""}}, "comma"),
        ({"tags": {"a": "é"}}, "ASCII"),
        ({"tags": {str(n): "x" for n in range(11)}}, "11 tags"),
        ({"tags": {str(n): "x" * 200 for n in range(10)}}, "bytes"),
        ({"headers": {"Authorization": "Key a:s3cr3t"}}, "falbatch's own"),
        ({"headers": {"content-type": "text/plain"}}, "falbatch's own"),
        ({"headers": {"X Y": "1"}}, "name of a header"),
        ({"headers": {"X-Y": "s3cr3t\n"}}, "X-Y"),
        ({"headers": {"X-Y": "s3cr3té"}}, "X-Y"),
        ({"headers": {"X-Y": "1", "x-y": "2"}}, "twice"),
        ({"headers": {"X-Fal-Store-IO": "1"}, "store_io": False}, "twice"),
        ({"retry": {"weather": 1}}, "weather"),
        ({"retry": {"timeout": 10}}, "timeout"),
        ({"retry": {"timeout": True}}, "timeout"),
        ({"webhook_url": "ftp://s3cr3t"}, "webhook_url"),
        ({"webhook_url": "https:///s3cr3t"}, "webhook_url"),
        ({"webhook_url": "s3cr3t"}, "webhook_url"),
        ({"webhook_url": "https://[s3cr3t"}, "webhook_url"),
        ({"webhook_url": "https://h/s3cr3t\n"}, "webhook_url"),
        ({"webhook_url": "https://h/s3cr3t é"}, "webhook_url"),
        ({"webhook_url": "https://h:99999/s3cr3t"}, "webhook_url"),
        ({"webhook_url": "https://h/" + "s3cr3t" * 500}, "webhook_url"),
        ({"max_queue_length": -1}, "max_queue_length"),
        ({"max_queue_length": True}, "max_queue_length"),
        ({"max_queue_length": 2.5}, "max_queue_length"),
    ],
)
def test_what_fal_would_drop_in_silence_is_refused_aloud(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        SubmitOptions(**options)
    assert "s3cr3t" not in str(caught.value)
