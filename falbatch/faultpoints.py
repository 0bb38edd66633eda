"""Places where a test may kill the program: right before and right after each thing that must survive a crash.

`FALBATCH_FAULT_POINT=submit.answered` in the environment makes the process kill itself (SIGKILL) when it comes to
that place; `submit.answered#3` the third time. Without the variable a place costs one comparison. `tests/faults` goes
through all of them; a test holds the list and the code together.
"""

from __future__ import annotations

import os
import signal
from typing import Final

STORE_WRITES: Final = (
    "SubmitStarted",
    "SubmitNotAccepted",
    "SubmitAccepted",
    "RequestFound",
    "RequestEnded",
    "ResultStored",
    "FileReady",
    "FilesStored",
    "FilesGone",
    "ResultFlagged",
    "ResultTaken",
    "ResultRefused",
    "Rerolled",
    "FileSkipped",
    "Stuck",
    "UploadStored",
    "InputFailed",
    "DurationsLearned",
)
"""The changes of `core/changes.py`: each has a point before and one after its commit (`before.X`, `after.X`)."""

POINTS: Final = (
    "plan.adopted",  # the manifest's jobs are in the state file, nothing is submitted yet
    "upload.answered",  # a file of an input is at fal, its URL is not on disk
    "submit.leaving",  # the intent is on disk, the POST is about to leave
    "submit.answered",  # fal's answer to a submit is here, nothing of it is on disk
    "result.answered",  # the result is here, nothing of it is on disk
    "download.begun",  # a part file exists, no byte of it was written
    "download.half",  # some bytes of the part file are written, not all
    "download.whole",  # the part file is whole, its record is not written
    "file.renaming",  # size and hash are on record, the part file still has its temporary name
    "file.renamed",  # the file has its name, the folder is not synced yet
    "reconcile.listed",  # fal's request list is here, nothing was adopted
    *(f"{when}.{name}" for name in STORE_WRITES for when in ("before", "after")),
    "journal.appending",  # a submit's intent or outcome is in the state file, not yet in the journal
    "copy.written",  # a copy of the state file is whole under its temporary name
    "copy.renamed",  # the copy has its name, the journal still holds what the copy holds
    "page.written",  # a contact sheet is whole under its temporary name
    "mend.built",  # a mended state file is whole beside the damaged one
    "mend.aside",  # the damaged one is set aside, nothing stands in its place
    "mend.placed",  # the mended one has its place
    "sandbox.accepting",  # (the emulator) a submit is about to be stored
    "sandbox.accepted",  # (the emulator) a submit is stored, its reply has not left
    "sandbox.file",  # (the emulator) a file is about to be served
    "sandbox.result",  # (the emulator) a result is about to be served
    "sandbox.answering",  # (the emulator) a direct call has ended and is stored, its answer has not left
)

VARIABLE: Final = "FALBATCH_FAULT_POINT"


class _Armed:
    """The point at which this process shall die, and how many times it may still pass there."""

    def __init__(self, text: str) -> None:
        self.name, _, times = text.partition("#")
        self.left = int(times) if times.isdecimal() else 1


_armed: Final = _Armed(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None

is_armed: Final = _armed is not None
"""For places that are passed often: the name of the point need not be put together when nothing is armed."""


def fault_point(name: str) -> None:
    """Die here if this is the armed point."""
    if _armed is None or _armed.name != name:
        return
    _armed.left -= 1
    if _armed.left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
