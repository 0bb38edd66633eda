"""A run is shown as a bar where somebody watches, and as plain lines where a log is kept."""

from __future__ import annotations

import io
import os
import pty
import re
import termios
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from falbatch.adapters import progress
from falbatch.adapters.progress import ProgressDisplay, words_of
from falbatch.core.events import (
    Counter,
    JobEnded,
    JobMoved,
    JobSubmitted,
    Notice,
    Polled,
    Reconciled,
    RunStopping,
    SubmitPaused,
)
from falbatch.core.model import JobKey
from falbatch.core.state import State

if TYPE_CHECKING:
    from falbatch.core.events import RunEvent


def _ended(state: State) -> JobEnded:
    return JobEnded(1, JobKey(b"\0" * 32), "anna", state)


EVENTS: list[RunEvent] = [
    JobSubmitted("anna", "r-1"),
    JobMoved("anna", "r-1", "", "IN_QUEUE"),
    JobMoved("bob", "r-2", "", "IN_QUEUE"),
    JobMoved("anna", "r-1", "IN_QUEUE", "IN_PROGRESS"),
    SubmitPaused(1.0, "429", refused=True),
    _ended(State.DONE),
    _ended(State.DONE),
    _ended(State.FAILED),
]


def _run(display: ProgressDisplay, counter: Counter, events: list[RunEvent]) -> None:
    with display:
        for event in events:
            counter(event)
            display(event)


def _lines(events: list[RunEvent], *, total: int = 10, done_before: int = 3) -> list[str]:
    """What is written where there is no terminal."""
    counter = Counter(total=total, done_before=done_before)
    stream = io.StringIO()
    _run(ProgressDisplay(counter, stream=stream), counter, events)
    return stream.getvalue().splitlines()


def test_without_a_terminal_the_end_is_one_plain_line() -> None:
    (line,) = _lines(EVENTS)
    assert re.fullmatch(r"5/10 done, [0-9.]+/s, about \d+ s left, at fal 2, failed 1, retries 1", line)


def test_without_a_terminal_lines_come_as_time_goes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    lines = _lines(EVENTS)
    assert len(lines) == len(EVENTS) + 1
    assert lines[0].startswith("3/10 done, 0.0/s, at fal 0")
    assert lines[5].startswith("4/10 done")
    assert "\r" not in "".join(lines)
    assert "\x1b" not in "".join(lines)


def test_downloads_are_told_while_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    lines = _lines([JobMoved("anna", "", "", "DOWNLOADING"), JobMoved("anna", "", "DOWNLOADING", "")])
    assert ["downloading 1" in line for line in lines] == [True, False, False]


def test_a_stop_is_said_at_once() -> None:
    said, end = _lines([RunStopping("SIGINT")])
    assert said == "stopping: SIGINT; nothing more is submitted"
    assert end.startswith("3/10 done")


def test_when_all_is_done_no_time_is_left() -> None:
    (line,) = _lines([_ended(State.DONE)], total=4)
    assert line.startswith("4/4 done")
    assert "left" not in line


def _at_a_terminal(events: list[RunEvent], *, total: int = 10, columns: int = 120) -> str:
    """What a terminal gets to show."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    shown = b""
    try:
        with os.fdopen(theirs, "w", encoding="utf-8") as stream:
            counter = Counter(total=total, done_before=3)
            _run(ProgressDisplay(counter, stream=stream), counter, events)
        with suppress(OSError):  # Linux says EIO at the end
            while some := os.read(ours, 4096):
                shown += some
    finally:
        os.close(ours)
    return shown.decode()


def test_at_a_terminal_a_bar_shows_the_counts() -> None:
    last = re.split(r"[\r\n]+", _at_a_terminal(EVENTS).strip())[-1]
    assert "50%" in last
    assert "5/10" in last
    assert "at fal 2, failed 1, retries 1" in last


def test_at_a_terminal_the_bar_begins_with_what_was_done_before() -> None:
    first = _at_a_terminal([]).strip("\r\n").split("\r")[0]
    assert "3/10" in first


def test_at_a_terminal_only_what_is_done_moves_the_bar() -> None:
    last = _at_a_terminal([_ended(State.FAILED), _ended(State.UNKNOWN)]).strip().split("\r")[-1]
    assert "3/10" in last
    assert "failed 1, unknown 1" in last


def test_at_a_terminal_a_note_has_a_line_of_its_own() -> None:
    shown = _at_a_terminal([RunStopping("SIGTERM")])
    assert re.search(r"(?:^|[\r\n])stopping: SIGTERM; nothing more is submitted\r?\n", shown)


def test_a_terminal_that_does_not_know_its_width_gets_plain_lines() -> None:
    """A bar of no columns would be an empty line."""
    assert _at_a_terminal(EVENTS, columns=0).startswith("5/10 done")


def test_a_terminal_may_be_treated_as_none() -> None:
    stream = io.StringIO()
    counter = Counter(total=1)
    _run(ProgressDisplay(counter, stream=stream, is_terminal=True), counter, [_ended(State.DONE)])
    assert "1/1" in stream.getvalue()
    assert "\r" in stream.getvalue()


def test_a_run_that_fails_still_ends_its_bar() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), ProgressDisplay(Counter(total=2), stream=stream, is_terminal=True):
        raise KeyboardInterrupt
    assert stream.getvalue().endswith("\n")


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Reconciled(2, 0, 0.0), "looked for submits without an answer: 2 found, 0 still unknown"),
        (
            Reconciled(0, 3, 61.0),
            "looked for submits without an answer: 0 found, 3 still unknown; looking on for up to 1 min 1 s",
        ),
        (
            Reconciled(0, 1, 0.0, "GET: answer 503"),
            "looked for submits without an answer: 0 found, 1 still unknown (GET: answer 503)",
        ),
        (Notice("the state file was mended"), "note: the state file was mended"),
        (Polled(), ""),
    ],
)
def test_what_is_said_in_a_line_of_its_own(event: RunEvent, words: str) -> None:
    assert words_of(event) == words
    assert (words in _lines([event])) == bool(words)


def test_a_terminal_that_goes_away_is_written_to_no_more() -> None:
    """Before the bar, or in the middle of it."""
    for is_gone_early in (True, False):
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 120))
        counter = Counter(total=10)
        stream = os.fdopen(theirs, "w", encoding="utf-8", buffering=1)
        if is_gone_early:
            os.close(ours)
        with ProgressDisplay(counter, stream=stream, is_terminal=True) as display:
            if not is_gone_early:
                os.close(ours)
            for event in EVENTS:
                counter(event)
                display(event)
            display(RunStopping("SIGHUP"))
        with suppress(OSError):
            stream.close()


@pytest.mark.parametrize("is_terminal", [True, False, None])
def test_without_a_stderr_nothing_is_shown_and_nothing_breaks(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool | None
) -> None:
    monkeypatch.setattr("sys.stderr", None)
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    counter = Counter(total=10)
    _run(ProgressDisplay(counter, is_terminal=is_terminal), counter, [*EVENTS, RunStopping("SIGTERM")])
