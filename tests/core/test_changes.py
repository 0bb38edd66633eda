"""Every change that moves a job carries an event of the table; those that move none carry none."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest

from falbatch.core import changes
from falbatch.core.classify import Failure
from falbatch.core.flags import Noticed
from falbatch.core.state import TRANSITIONS, Event, State, after

FAILURE = Failure("http_500", "oops", 500)

EXAMPLES: list[changes.Change] = [
    changes.SubmitStarted(1, 1, 0.0),
    changes.SubmitNotAccepted(1, 1, 0.0, Event.REFUSED, FAILURE),
    changes.SubmitAccepted(1, 1, 0.0, "r", "s", "u", "c"),
    changes.RequestFound(1, 1, 0.0, "r", 0.0),
    changes.RequestEnded(1, "r", 0.0, Event.REQUEST_FAILED, FAILURE),
    changes.ResultStored(1, "r", 0.0, b"{}", "application/json"),
    changes.FileReady(1, 0, "u", "a.png", 1, bytes(32), "image/png", 0.0),
    changes.FilesStored(1, 0.0),
    changes.FilesGone(1, 0.0, FAILURE),
    changes.ResultFlagged(1, "r", 0.0, Noticed(("nsfw",))),
    changes.ResultRefused(1, 0.0, FAILURE),
    changes.Rerolled(1, 0.0, 1),
    changes.ResultTaken(1, 0.0),
    changes.Stuck(1, 0.0, FAILURE),
    changes.FileSkipped(1, 0.0, FAILURE),
    changes.UploadStored(1, 0.0, bytes(32), "", "t", "u", 1, None),
    changes.InputFailed(1, 0.0, FAILURE),
    changes.DurationsLearned("fal-ai/x", b"", 0.0),
]

MOVE_NOTHING = (
    changes.FileReady
    | changes.FileSkipped
    | changes.ResultFlagged
    | changes.ResultTaken
    | changes.Stuck
    | changes.UploadStored
    | changes.DurationsLearned
)


def test_the_examples_are_all_the_changes_there_are() -> None:
    assert {type(change) for change in EXAMPLES} == set(get_args(changes.Change))


@pytest.mark.parametrize(
    ("change", "before", "then"),
    [
        (changes.SubmitStarted(1, 1, 0.0), State.PLANNED, State.SUBMITTING),
        (changes.SubmitAccepted(1, 1, 0.0, "r", "s", "u", "c"), State.SUBMITTING, State.SUBMITTED),
        (changes.RequestFound(1, 1, 0.0, "r", 0.0), State.UNKNOWN, State.SUBMITTED),
        (changes.ResultStored(1, "r", 0.0, b"{}", "application/json"), State.SUBMITTED, State.COMPLETED),
        (changes.FilesStored(1, 0.0), State.COMPLETED, State.DONE),
        (changes.FilesGone(1, 0.0, FAILURE), State.COMPLETED, State.FAILED),
    ],
)
def test_a_change_with_one_meaning_brings_its_own_event(
    change: changes.SubmitStarted
    | changes.SubmitAccepted
    | changes.RequestFound
    | changes.ResultStored
    | changes.FilesStored
    | changes.FilesGone,
    before: State,
    then: State,
) -> None:
    assert change.event is not None
    assert after(before, change.event) is then


@pytest.mark.parametrize("change", EXAMPLES, ids=lambda change: type(change).__name__)
def test_only_a_file_at_hand_and_a_stuck_job_move_nothing(change: changes.Change) -> None:
    event = getattr(change, "event", None)
    if isinstance(change, MOVE_NOTHING):
        assert event is None
    else:
        assert event in {event for _, event in TRANSITIONS}


@pytest.mark.parametrize("change", EXAMPLES, ids=lambda change: type(change).__name__)
def test_changes_are_frozen_and_name_their_job_and_time(change: changes.Change) -> None:
    assert change.at == 0.0
    # What an endpoint taught is of no job.
    assert isinstance(change, changes.DurationsLearned) or change.job_id == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        change.at = 2.0  # type: ignore[misc]  # that it is refused is the test
