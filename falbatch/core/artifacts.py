"""Which files a result holds, wherever their URLs sit in it. No rule beats a walk (fal-protocol §7.1)."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from falbatch.core.model import JsonObject

MAX_ARTIFACTS: Final = 1000
"""Files taken from one result; a result with more is not an answer to one call."""

MAX_DEPTH: Final = 64
"""How deep a result is walked."""

_WEB_URL = re.compile(r"https?://[^\s/]\S*", re.IGNORECASE)
_DATA_URI = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+=\"-]+)*?)(;base64)?,", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FileRef:
    """One file that a result points at."""

    url: str
    """http(s) URL, or a data URI."""
    where: str
    """Path inside the result, `images[0]`."""
    content_type: str | None = None
    """What the result claims; may be missing or wrong."""
    size_bytes: int | None = None
    """`file_size` of the result, when it gives one."""
    is_object: bool = False
    """True for a file object, as fal's own files are; False for a bare string, which may be any link."""


def find_files(output: Any, given: JsonObject) -> list[FileRef]:
    """The files of a result, in the order in which they stand, each URL once.

    A file is an object with a `url` that is an absolute http(s) URL or a data URI, or a bare string that is one.
    What stands in the input `given` too is an echo and is left out.
    """
    echoes = set(_strings(given, 0))
    found: dict[str, FileRef] = {}
    for ref in _walk(output, "", 0):
        if ref.url not in echoes and ref.url not in found:
            found[ref.url] = ref
        if len(found) >= MAX_ARTIFACTS:
            break
    return list(found.values())


def _strings(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth < MAX_DEPTH and isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part, depth + 1)


def _walk(value: Any, where: str, depth: int) -> Iterator[FileRef]:
    if depth > MAX_DEPTH:
        return
    if isinstance(value, str):
        if is_file_url(value):
            yield FileRef(url=value, where=where)
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from _walk(part, f"{where}[{place}]", depth + 1)
    elif isinstance(value, dict):
        url = value.get("url")
        is_file = isinstance(url, str) and is_file_url(url)
        if is_file:
            yield _file_object(value, str(url), where)
        for name, part in value.items():
            if not (is_file and name == "url"):
                yield from _walk(part, f"{where}.{name}" if where else str(name), depth + 1)


def _file_object(value: JsonObject, url: str, where: str) -> FileRef:
    content_type = value.get("content_type")
    size = value.get("file_size")
    return FileRef(
        url=url,
        where=where or "result",
        is_object=True,
        content_type=content_type if isinstance(content_type, str) else None,
        size_bytes=size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None,
    )


def is_file_url(text: str) -> bool:
    """True for an absolute http(s) URL without white space, and for a data URI."""
    return bool(_WEB_URL.fullmatch(text) or _DATA_URI.match(text))


def decode_data_uri(uri: str) -> tuple[bytes, str | None]:
    """The bytes of a data URI and the content type it names (RFC 2397). Raises `ValueError` if it is broken."""
    match = _DATA_URI.match(uri)
    if match is None:
        raise ValueError("not a data URI")
    payload = uri[match.end() :]
    if match.group(3) is None:
        return unquote_to_bytes(payload), match.group(1)
    try:
        return base64.b64decode(payload, validate=True), match.group(1)
    except binascii.Error as error:
        raise ValueError(f"a data URI with broken base64: {error}") from None


def artifact_path(name: str, place: int, count: int, extension: str, *, apart: str = "") -> str:
    """Where file `place` (0-based) of a job with `count` files goes, relative to the output folder.

    One file has the job's name; several are numbered from 1. `apart` is put in where that path is taken.
    """
    number = f"-{place + 1}" if count > 1 else ""
    return f"{name}{number}{f'-{apart}' if apart else ''}{extension}"


APART: Final = "rejected"
"""In the names of files of a result that is not taken, with the number of the attempt that made them."""


def is_apart(name: str, path: str) -> bool:
    """Is `path`, of a job called `name`, that of a file whose result was not taken?"""
    return f"-{APART}-" in path[len(name) :]


def extension_of(name: str, path: str) -> str:
    """What `artifact_path` put at the end of `path`: from the first dot after the job's name on."""
    _, dot, extension = path[len(name) :].partition(".")
    return dot + extension


def part_path(name: str, place: int, apart: str) -> str:
    """The temporary name of file `place` of a job: in the folder of the final one, so that a rename is enough.

    `apart` is of the job's key: an edited job may have the name of one that is still coming home.
    """
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}.{last}.{apart}.{place}.part"
