"""What a stored result holds: its files, and what is to be judged of it. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.artifacts import find_files
from falbatch.core.fileinputs import marks_in, without_echoes
from falbatch.core.flags import Result, may_be_black
from falbatch.core.identity import input_of
from falbatch.exactjson import parse_json

if TYPE_CHECKING:
    from collections.abc import Collection

    from falbatch.core.record import OpenJob, StoredResult

EVENTS: Final = ".events.jsonl"
"""Extension of the file with all events of a stream."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file to have: by its URL, or as bytes that are at hand."""

    place: int
    of: int = 1
    """Files that are numbered together; 1: it has the job's name alone."""
    url: str = ""
    body: bytes | None = None
    content_type: str | None = None
    size_bytes: int | None = None
    extension: str = ""
    """In place of what its bytes say; "" for that."""
    is_needed: bool = True
    """False: the job is done without it (a bare link beside real files, such as a licence or a web page)."""
    may_be_black: bool = False
    """True for a picture that means nothing by being black (a mask)."""


def read_result(job: OpenJob, stored: StoredResult, uploaded: Collection[str] = ()) -> Result:
    """A result with the files that it points at. `uploaded` are the URLs of the input's own files, which a result may
    name again."""
    given = input_of(job.input_json)
    output: Any = None
    is_json = _may_be_json(stored.content_type)
    if is_json:
        try:
            output = parse_json(stored.body)
        except ValueError:
            is_json = False
    if not is_json:
        return Result(given, is_json=False, is_blank=not stored.body.strip())
    refs = find_files(output, {"input": given, "uploaded": list(uploaded)})
    return Result(given, tuple(without_echoes(refs, marks_in(job.input_json))), output)


def wanted_files(result: Result, stored: StoredResult, *, sidecar: bool) -> list[Wanted]:
    """The files that a result stands for: those it points at; itself when it is no JSON, or points at none; the
    sidecar with the whole result when that is wanted; and the events that came before it."""
    wanted = _wanted_of_result(result, stored, sidecar=sidecar)
    if stored.events is not None:
        events = Wanted(len(wanted), body=stored.events, content_type="application/x-ndjson", extension=EVENTS)
        wanted.append(events)
    return wanted


def _wanted_of_result(result: Result, stored: StoredResult, *, sidecar: bool) -> list[Wanted]:
    if result.is_blank:
        return []
    if not result.is_json:
        return [Wanted(0, body=stored.body, content_type=stored.content_type)]
    refs = result.refs
    has_objects = any(ref.is_object for ref in refs)
    wanted = [
        Wanted(
            place,
            len(refs),
            url=ref.url,
            content_type=ref.content_type,
            size_bytes=ref.size_bytes,
            is_needed=ref.is_object or not has_objects,
            may_be_black=may_be_black(ref),
        )
        for place, ref in enumerate(refs)
    ]
    if sidecar or not wanted:
        wanted.append(Wanted(len(wanted), body=stored.body, content_type="application/json"))
    return wanted


def _may_be_json(content_type: str) -> bool:
    """By its type, or for want of one: the same words as `fal/wire` has for it."""
    bare = content_type.partition(";")[0].strip().lower()
    return not bare or bare == "application/json" or bare.endswith("+json")
