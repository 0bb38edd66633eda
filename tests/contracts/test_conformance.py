"""fal's own clients and ours, the same calls against the same sandbox over TLS: answers agree field by field."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.contracts.judge import differences, js_answers, python_answers
from tests.contracts.python_driver import BIG_BYTES

if TYPE_CHECKING:
    from pathlib import Path

WAYS: Final = ("sync", "async")

SAME_FOR_JS: Final = {
    "run": "run",
    "submit sent": "submit sent",
    "result": "result",
    "subscribe": "subscribe",
    "cancelled": "cancelled",
    "queued": "queued",
    "a wrong key": "a wrong key",
}
"""Scenarios of the JavaScript driver and the ones of the Python driver that must give the same."""

VARYING: Final = frozenset({"timings", "request_id", "url"})
"""Fields that tell one request from another: the drivers make different numbers of requests."""


@pytest.mark.parametrize("way", WAYS)
def test_our_client_answers_as_fals_own_python_client_does(way: str, tmp_path: Path) -> None:
    official = python_answers("fal_client", way, tmp_path / "official")
    ours = python_answers("falbatch.client", way, tmp_path / "ours")
    check_official(official)
    assert differences(official, ours) == []


def check_official(answers: dict[str, Any]) -> None:
    """What fal's client must have got from the sandbox, whatever ours got."""
    assert answers["run"]["seed"] == 7
    assert answers["run"]["images"][0]["width"] == 64
    assert answers["run"].keys() == answers["subscribe"].keys() == answers["result"].keys()
    assert answers["run sent"]["headers"] == {
        "x-fal-runner-hint": "near",
        "x-fal-queue-priority": None,
        "x-fal-request-timeout": 30.0,
        "x-mine": "yes",
    }
    assert answers["submit sent"]["headers"]["x-fal-queue-priority"] == "low"
    assert answers["submit sent"]["query"] == {"fal_webhook": "https://example.org/hook?a=1&b=2"}
    for name in ("run refused", "result refused"):
        assert answers[name]["status"] == 422
        assert answers[name]["body"]["detail"][0]["loc"][0] == "body"
    assert answers["run of nothing"]["status"] == 404
    assert answers["status of nobody"]["status"] == 404
    assert answers["iter_events ends"] == "Completed"
    assert answers["status"][:3] == ["Completed", None, None]
    assert answers["status"][3]
    assert answers["queued"] == ["Queued", 0]
    assert answers["cancelled"][0] == "Completed"
    assert answers["cancelled"][2] == "client_cancelled"
    assert answers["result of a cancelled one"]["status"] == 499
    assert answers["on_queue_update ends"] == "Completed"
    assert len(answers["on_enqueue"]) == 1
    assert answers["client_timeout"]["timeout"] == 1.5
    assert answers["client_timeout"]["request_id"]
    assert len(answers["stream"]) > 1
    assert answers["stream"][-1]["partial"] is False
    assert len(answers["realtime"]) == len(answers["realtime by key"]) == 2
    assert answers["realtime"][0]["images"][0]["content"]["size"] > 100
    assert answers["upload in parts"][0]["size"] == BIG_BYTES
    assert answers["upload of bytes"][0]["sha256"] == hashlib.sha256(b"some bytes").hexdigest()
    assert answers["upload of text"][0]["size"] == len("grüße".encode())
    assert answers["upload with an ACL"] == 403
    assert answers["a wrong key"][0] == 401


def test_fals_own_javascript_client_finds_what_it_needs(tmp_path: Path) -> None:
    theirs = js_answers(tmp_path / "js")
    ours = python_answers("falbatch.client", "async", tmp_path / "ours")
    check_js(theirs)
    for scenario, name in SAME_FOR_JS.items():
        if scenario in {"cancelled", "queued"}:
            assert theirs[scenario][1:] == ours[name][1:]
            continue
        assert differences(without(theirs[scenario]), without(ours[name])) == [], scenario
    assert differences(without(theirs["stream done"]), without(ours["stream of images"][-1])) == []
    assert differences(without(theirs["realtime"]), without(ours["realtime"])) == []


def check_js(answers: dict[str, Any]) -> None:
    """What must be true of the JavaScript client's answers by themselves."""
    for name, answer in answers.items():
        assert answer is not False, name
    assert answers["run refused"]["status"] == 422
    assert answers["run refused"]["fields"] == ["body.num_images"]
    assert answers["result refused"]["status"] == 422
    assert answers["run of nothing"]["status"] == 404
    assert answers["status of nobody"]["status"] == 404
    assert answers["subscribeToStatus"][0] == "COMPLETED"
    assert answers["streamStatus ends"] == "COMPLETED"
    assert answers["onQueueUpdate ends"] == "COMPLETED"
    assert answers["result of a cancelled one"]["status"] == 499
    assert answers["realtime errors"] == []
    assert [event["partial"] for event in answers["stream"]] == [True] * (len(answers["stream"]) - 1) + [False]
    assert [len(answer["images"]) for answer in answers["realtime"]] == [1, 1]
    assert answers["upload"][1] == len(b"some bytes")
    assert answers["upload of a file"][1] == len("grüße".encode())
    assert answers["stream done"]["seed"] == 7


def without(answer: Any) -> Any:
    """An answer without the fields that vary."""
    if isinstance(answer, dict):
        return {name: without(value) for name, value in answer.items() if name not in VARYING}
    return [without(value) for value in answer] if isinstance(answer, list) else answer
