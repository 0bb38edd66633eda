"""What a result that came with HTTP 200 is worth: which flags it has, and whether it is what was asked for. Pure.

A flag (`nsfw`, `black`) is about what the result shows; `output.flagged` says what follows. A lack (fewer files than
asked for, an `error` beside the 200, nothing at all) is no success (fal-protocol §12, §13 traps 14 and 15), unless
`output.lacking` says so.
False alarms cost as much as missed ones, so each rule says what it leaves alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from falbatch.core.classify import Failure
from falbatch.core.counts import asked_of
from falbatch.core.seeds import named_seed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from falbatch.core.artifacts import FileRef


class Flag(StrEnum):
    """What was noticed about a result."""

    NSFW = "nsfw"
    """fal's safety checker says so, of one of its files at least."""
    BLACK = "black"
    """One of its pictures is all black, or as good as."""


class FlagPolicy(StrEnum):
    """What follows from a flag. The value is what a manifest says after `output.flagged`."""

    KEEP = "keep"
    """Nothing: the job is done. Only an export and a canary's page tell."""
    MARK = "mark"
    """The job is done, and counted and listed apart."""
    FAIL = "fail"
    """The job ends failed; its files stay on disk."""
    REROLL = "reroll"
    """Another attempt with another seed, within `retry`; without any left it ends failed."""


class LackPolicy(StrEnum):
    """What follows when a result lacks something. The value is what a manifest says after `output.lacking`."""

    FAIL = "fail"
    """The job ends failed; what files there are stay on disk."""
    KEEP = "keep"
    """Nothing: the result is taken as it is."""


FLAGGED: Final = "flagged"
TOO_FEW: Final = "too_few_files"
ERROR_INSIDE: Final = "error_in_result"
EMPTY: Final = "empty_result"

LACKS: Final = frozenset({TOO_FEW, ERROR_INSIDE, EMPTY})

JUDGED: Final = LACKS | {FLAGGED}
"""Error types of jobs whose request succeeded and whose result did not: it is paid for, and on record."""


@dataclass(frozen=True, slots=True)
class Result:
    """A result, read."""

    given: Mapping[str, Any]
    """The job's input."""
    refs: tuple[FileRef, ...] = ()
    """The files that it points at, echoes of the input left out."""
    output: Any = None
    is_json: bool = True
    """False for a body that is a file itself, `output` is None then."""
    is_blank: bool = False
    """True for a body without a byte."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """What is kept of a flagged result, also when another takes its place."""

    flags: tuple[str, ...]
    """Sorted."""
    seed: int | None = None
    """The seed that the result names: what made it, where the input had none."""
    files: tuple[str, ...] = ()
    """Its files, relative to the output folder, where they are kept beside those of a later attempt."""


# ── flags ──

_NSFW_KEYS: Final = frozenset({"has_nsfw_concepts", "has_nsfw_concept", "has_nsfw_content", "nsfw_content_detected"})
"""As fal's image models, and models that others brought, call it: a bool, or one for each file."""

MAX_DEPTH: Final = 64
"""How deep a result is looked into: a workflow's holds those of its nodes."""


def is_nsfw(output: Any) -> bool:
    """True when the safety checker marked anything, wherever that stands. Only a plain true counts: classifiers answer
    probabilities, and of those nobody knows from which on they matter."""
    return any(_is_any_true(value, 0) for value in _values_of(output, _NSFW_KEYS, 0))


def _values_of(value: Any, keys: frozenset[str], depth: int) -> Iterator[Any]:
    if depth > MAX_DEPTH:
        return
    if isinstance(value, dict):
        for name, part in value.items():
            if name in keys:
                yield part
            elif isinstance(part, dict | list):
                yield from _values_of(part, keys, depth + 1)
    elif isinstance(value, list):
        for part in value:
            if isinstance(part, dict | list):
                yield from _values_of(part, keys, depth + 1)


def _is_any_true(value: Any, depth: int) -> bool:
    if isinstance(value, dict | list) and depth < MAX_DEPTH:
        return any(_is_any_true(part, depth + 1) for part in (value.values() if isinstance(value, dict) else value))
    return value is True


_MAPS: Final = ("mask", "matte", "alpha", "depth", "control")
"""Pictures of these names may well be all black: nothing was found, nothing is near."""


def may_be_black(ref: FileRef) -> bool:
    """True for a picture that has a right to be black, by its place in the result."""
    return any(word in ref.where.lower() for word in _MAPS)


def noticed(result: Result, *, has_black: bool, files: Iterable[str] = ()) -> Noticed | None:
    """What is kept of a flagged result; None for one without flags."""
    flags = {Flag.BLACK.value} if has_black else set()
    if is_nsfw(result.output):
        flags.add(Flag.NSFW.value)
    if not flags:
        return None
    return Noticed(tuple(sorted(flags)), named_seed(result.output), tuple(files))


# ── lacks ──

_NO_ERROR: Final = frozenset({"", "none", "null", "false"})
"""Texts that say that there was none."""

_ASIDE: Final = frozenset({"seed", "timings", "metrics", "partial", "error", "request_id"})
"""Members that tell of a result and are none."""

_ECHOED: Final = frozenset({"prompt", "negative_prompt"})
"""Members that say nothing where they are the input's own. Otherwise one may be the answer: of what writes prompts."""

_OUTPUTS: Final = frozenset(
    f"{name}{end}" for name in ("image", "video", "audio", "sample", "output", "file") for end in ("", "s")
)
"""Members that hold what a model makes. Empty they are nothing; any other list or object that is empty is an answer:
there was nothing to be found."""

_LISTS: Final[Mapping[str, tuple[str, ...]]] = {
    "num_images": ("images",),
    "num_videos": ("videos",),
    "num_outputs": ("outputs", "output", "images", "videos"),
    "num_samples": ("samples", "images", "videos"),
    "batch_size": ("images", "videos"),
}
"""Where the outputs stand of which a field of the input says how many are wanted."""

_PLAIN_COUNTS: Final = frozenset({"num_images", "num_videos"})
"""Fields that count files and nothing else. A training has a `batch_size`, too, and gives one file."""


def lack(result: Result) -> Failure | None:
    """Why a result is not what was asked for; None when it is, as far as anybody can tell."""
    if result.is_blank or (result.is_json and _is_empty(result)):
        return Failure(EMPTY, "fal answered 200 with nothing in it", 200)
    said = _error_in(result.output)
    if said:
        return Failure(ERROR_INSIDE, f"fal answered 200, and the result says: {said[:500]}", 200)
    return _too_few(result)


def _is_empty(result: Result) -> bool:
    """No file, and no member that says anything. An empty text is an answer: a model may have nothing to say, and
    silence has no words in it."""
    output = result.output
    if result.refs or _error_in(output):
        return False
    if not isinstance(output, dict):
        return output == "" or _is_void(output, 0)
    # What a checker says of pictures that should be there is none of them; where none should be, it is the answer.
    aside = _ASIDE | _NSFW_KEYS if _OUTPUTS & output.keys() else _ASIDE
    echoes = {name for name in _ECHOED & output.keys() if output[name] == result.given.get(name)}
    return not any(_says(name, value, 0) for name, value in output.items() if name not in aside | echoes)


def _says(name: str, value: Any, depth: int) -> bool:
    """Is there anything in a member of this name?"""
    if not isinstance(value, dict | list) or depth >= MAX_DEPTH:
        return value is not None
    if not value:
        return name not in _OUTPUTS
    if isinstance(value, dict):
        return any(_says(inner, part, depth + 1) for inner, part in value.items())
    return any(_says(name, part, depth + 1) for part in value)


def _is_void(value: Any, depth: int) -> bool:
    if isinstance(value, dict | list) and depth < MAX_DEPTH:
        return all(_is_void(part, depth + 1) for part in (value.values() if isinstance(value, dict) else value))
    return value is None


def _error_in(output: Any) -> str:
    """What a top-level `error` says, "" for nothing. A number is some measure, not a message."""
    error = output.get("error") if isinstance(output, dict) else None
    if isinstance(error, str):
        return "" if error.strip().lower() in _NO_ERROR else error.strip()
    if isinstance(error, dict):
        message = error.get("message") or error.get("detail")
        return message if isinstance(message, str) else ("" if _is_void(error, 0) else str(error))
    if isinstance(error, list):
        return "" if _is_void(error, 0) else str(error)
    return "true" if error is True else ""


def _too_few(result: Result) -> Failure | None:
    asked = asked_of(result.given)
    if asked is None or not result.is_json or not isinstance(result.output, dict):
        return None
    field, count = asked
    lists = [value for name in _LISTS[field] if isinstance(value := result.output.get(name), list)]
    if lists:
        came = sum(entry is not None for entry in lists[0])
    elif field in _PLAIN_COUNTS and result.refs:
        came = len(result.refs)
    else:
        return None
    if came >= count:
        return None
    return Failure(TOO_FEW, f"{came} of {count} files came ({field}: {count})", 200)


# ── what follows ──


class Treatment(StrEnum):
    """What becomes of a job whose result is here."""

    TAKE = "take"
    MARK = "mark"
    FAIL = "fail"
    REROLL = "reroll"
    """If another attempt is granted; else FAIL."""


def treatment(seen: Noticed | None, lacking: Failure | None, policy: FlagPolicy) -> Treatment:
    """What follows from what was noticed. A re-roll comes before a lack: the next result may have neither."""
    if seen is not None and policy is FlagPolicy.REROLL:
        return Treatment.REROLL
    if lacking is not None or (seen is not None and policy is FlagPolicy.FAIL):
        return Treatment.FAIL
    return Treatment.MARK if seen is not None and policy is FlagPolicy.MARK else Treatment.TAKE


def failure_for(seen: Noticed | None, lacking: Failure | None, *, why: str = "") -> Failure:
    """The reason of a job that ends failed though fal answered 200; `why` says why there is no further attempt."""
    if lacking is not None:
        return lacking
    flags = ", ".join(seen.flags) if seen else ""
    return Failure(FLAGGED, f"its result is flagged: {flags}{f' ({why})' if why else ''}", 200)
