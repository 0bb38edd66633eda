"""Files in an input: `{file: path}` in a manifest, a marker in the state file, a URL or a data URI when it leaves.

    {file: photo.png}  ─render─▶  FileInput  ─hash─▶  {"falbatch:file": "<sha256>"}  ─upload─▶  "https://…"

The marker says what the file holds, not where it lies, so a job stays the same job when its file is moved or renamed.
It is canonical JSON like all of an input: it is found, and replaced, in the bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

import orjson

from falbatch.core.artifacts import decode_data_uri, is_file_url
from falbatch.core.faults import OMIT, Fault
from falbatch.core.problems import nearest, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from falbatch.core.artifacts import FileRef

FILE_KEY: Final = "falbatch:file"
"""Key of the marker: the SHA-256 of a file's content, in hex. No input of the user's own may have it."""

DATA_BYTES_MOST: Final = 4 * 1024 * 1024
"""Bytes of a file that travels inside its input: everything there is kept in fal's history, a third larger."""

MAX_DEPTH: Final = 64
"""How deep an input is walked."""

FILE_STANDS: Final = "https://file.invalid/"
"""Begins what stands for the URL of a file that is not uploaded yet."""

_DATA_STANDS: Final = "data:application/x-falbatch-file;base64,"

_KEYS: Final = frozenset({"file", "as", "content_type"})
CONTENT_TYPE: Final = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
_MARKER: Final = re.compile(
    rb'\{(?:"as":"(data)",)?(?:"content_type":"([\w.+/-]+)",)?"falbatch:file":"([0-9a-f]{64})"\}'
)
"""A marker in canonical JSON. No text holds these bytes: its quotes have a backslash before them."""
_HINT: Final = "paths are relative to the manifest's folder"


class Travel(StrEnum):
    """How a file gets into the body of a submit. The value is what a manifest says after `as:`."""

    URL = "url"
    """Uploaded once per content; the body has its URL."""
    DATA = "data"
    """As a data URI inside the body."""


@dataclass(frozen=True, slots=True)
class FileInput:
    """A file in a rendered input, before its content is known."""

    path: str
    """As written."""
    travel: Travel = Travel.URL
    content_type: str = ""
    """"" goes by the content, then by the name."""
    place: tuple[str | int, ...] = ()
    """Where it stands in the manifest, or in the input."""


@dataclass(frozen=True, slots=True)
class FileMark:
    """A file in a stored input."""

    sha256: bytes
    travel: Travel = Travel.URL
    content_type: str = ""

    def as_json(self) -> dict[str, str]:
        """The marker. The defaults are not written: saying them makes no other job."""
        made = {FILE_KEY: self.sha256.hex()}
        if self.travel is not Travel.URL:
            made["as"] = self.travel.value
        if self.content_type:
            made["content_type"] = self.content_type
        return made


class FileUnusable(Exception):
    """Raised for a local file that is not what it was when it was planned."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type
        """`file_missing`, `file_changed` or `file_too_large`."""


def is_file_input(value: object) -> bool:
    """True for a mapping of the form `{file: …, as: …, content_type: …}`, the last two optional."""
    return isinstance(value, Mapping) and "file" in value and _KEYS.issuperset(value)


def check_file_input(value: Mapping[str, Any]) -> Iterator[tuple[str, Fault]]:
    """What is wrong with a file input as it is written: the key, and what with it."""
    path, travel, content_type = value["file"], value.get("as", "url"), value.get("content_type")
    if not isinstance(path, str):
        yield "file", Fault(f"file must be a path, not {shown(path)}")
    elif not path.strip():
        yield "file", Fault("the path is empty")
    if not isinstance(travel, str) or travel not in list(Travel):
        yield "as", Fault(f"as must be url or data, not {shown(travel)}", nearest(str(travel), list(Travel)))
    if content_type is not None and not (isinstance(content_type, str) and CONTENT_TYPE.fullmatch(content_type)):
        yield "content_type", Fault(f"content_type must be like image/png, not {shown(content_type)}")


def rendered(path: Any, value: Mapping[str, Any], place: tuple[str | int, ...]) -> Any:
    """What a good file input `value` is for one item whose path came out as `path`: a FileInput, or `path` itself where
    that is a URL, a data URI or OMIT. Raises ValueError for anything that is no path."""
    if path is OMIT:
        return path
    if not isinstance(path, str):
        raise ValueError(f"file must be a path, not {shown(path)}")  # noqa: TRY004  (the data is wrong, not our call)
    if is_file_url(path):
        return path
    if not path.strip():
        raise ValueError("the path of the file is empty here")
    if "\0" in path or not _is_text(path):
        raise ValueError("the path of the file holds characters that no path has")
    return FileInput(path, Travel(value.get("as", "url")), value.get("content_type") or "", place)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def from_python(value: Any, place: tuple[str | int, ...] = ()) -> Any:
    """An input that lives in Python: paths and `{"file": …}` become FileInputs, all else stays. Raises ValueError."""
    if isinstance(value, PurePath):
        return rendered(str(value), {}, place)
    if len(place) > MAX_DEPTH:
        return value  # too deep for JSON as well, which is said there
    if isinstance(value, Mapping):
        if place and is_file_input(value):  # an input as a whole is no file
            plain = {**value, "file": str(value["file"]) if isinstance(value["file"], PurePath) else value["file"]}
            for _, fault in check_file_input(plain):
                raise ValueError(fault.what)
            return rendered(plain["file"], plain, place)
        return {key: from_python(entry, (*place, key)) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [from_python(entry, (*place, number)) for number, entry in enumerate(value)]
    return value


def files_in(value: Any, depth: int = 0) -> Iterator[FileInput]:
    """Every file in a rendered input. Raises ValueError where the input has the marker's key of its own."""
    if isinstance(value, FileInput):
        yield value
    elif isinstance(value, dict):
        if FILE_KEY in value:
            raise ValueError(f'an input may not have a key "{FILE_KEY}": falbatch marks files with it')
        if depth < MAX_DEPTH:
            for entry in value.values():
                if isinstance(entry, dict | list | FileInput):
                    yield from files_in(entry, depth + 1)
    elif isinstance(value, list) and depth < MAX_DEPTH:
        for entry in value:
            if isinstance(entry, dict | list | FileInput):
                yield from files_in(entry, depth + 1)


def marked(value: Any, sha256_of: Callable[[FileInput], bytes]) -> Any:
    """A rendered input with markers in place of its files."""
    if isinstance(value, FileInput):
        return FileMark(sha256_of(value), value.travel, value.content_type).as_json()
    if isinstance(value, dict):
        return {key: marked(entry, sha256_of) for key, entry in value.items()}
    if isinstance(value, list):
        return [marked(entry, sha256_of) for entry in value]
    return value


def marks_in(input_json: bytes) -> list[FileMark]:
    """The files of a stored input, each once."""
    if FILE_KEY.encode() not in input_json:
        return []
    return list(dict.fromkeys(_mark(match) for match in _MARKER.finditer(input_json)))


def _mark(match: re.Match[bytes]) -> FileMark:
    travel = Travel.DATA if match[1] else Travel.URL
    return FileMark(bytes.fromhex(match[3].decode()), travel, (match[2] or b"").decode())


def with_files(input_json: bytes, text_of: Callable[[FileMark], str]) -> bytes:
    """A stored input with `text_of` each file in place of its marker; canonical JSON again."""
    return _MARKER.sub(lambda match: orjson.dumps(text_of(_mark(match))), input_json)


def stand_in(mark: FileMark) -> str:
    """What stands for a file where nothing is uploaded or read: a URL or a data URI, the same for the same content."""
    begin = _DATA_STANDS if mark.travel is Travel.DATA else FILE_STANDS
    return begin + mark.sha256.hex()


def is_stand_in(value: object) -> bool:
    """Whether it stands for a file."""
    return isinstance(value, str) and value.startswith((FILE_STANDS, _DATA_STANDS))


def without_echoes(refs: Iterable[FileRef], marks: Iterable[FileMark]) -> list[FileRef]:
    """The files of a result without those that are a file of its input, sent inside it."""
    inside = {mark.sha256 for mark in marks if mark.travel is Travel.DATA}
    return [ref for ref in refs if not (inside and ref.url[:5].lower() == "data:" and _digest(ref.url) in inside)]


def _digest(uri: str) -> bytes:
    try:
        return hashlib.sha256(decode_data_uri(uri)[0]).digest()
    except ValueError:
        return b""


def hint_for(name: str, beside: Iterable[str]) -> str:
    """What to do about a file that is not there, when these are."""
    return nearest(name, beside) or _HINT


RECKONED_LIFE_S: Final = 6 * 86400.0
"""Seconds for which a URL is used where nobody said how long it lives: fal speaks of at least 7 days."""

MARGIN_S: Final = 3600.0
"""A URL is not used when it ends sooner than this (or than a tenth of its life): the job may wait in the queue."""


@dataclass(frozen=True, slots=True)
class UploadTerms:
    """Where and for how long files are uploaded; a URL serves only those who ask for the same."""

    place: str
    """Base URL of the storage."""
    expires_in: str | int | None = None
    """fal's word or seconds; None: by the account's setting."""

    @property
    def text(self) -> str:
        """All of it, as the state file keeps it."""
        return f"{self.place} {'' if self.expires_in is None else self.expires_in}".strip()

    def expires_at(self, now: float, said: float | None) -> float | None:
        """When what is uploaded `now` (Unix seconds) ends; `said` by fal, None where it did not."""
        if said is not None:
            return said
        return None if self.expires_in == "never" else now + RECKONED_LIFE_S


@dataclass(frozen=True, slots=True)
class Upload:
    """A content that fal has under a URL."""

    url: str
    uploaded_at: float
    """Unix seconds."""
    expires_at: float | None
    """Unix seconds; None: never."""

    def is_good(self, now: float) -> bool:
        """May a submit that leaves at `now` (Unix seconds) name it?"""
        if self.expires_at is None:
            return True
        margin_s = min(MARGIN_S, (self.expires_at - self.uploaded_at) / 10)
        return self.uploaded_at - MARGIN_S <= now < self.expires_at - margin_s
