"""What storage keeps: files, uploads on their way, and parts, as values and as documents. No effects."""

from __future__ import annotations

import mimetypes
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from falbatch.sandbox.lifecycle import Acl, Lifecycle, parse_acl, parse_lifecycle

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_NAME_CHARS: Final = 100
"""Of a file name inside a URL."""

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(slots=True)
class Spool:
    """The bytes of one call, in a file that is nobody's yet."""

    blob: str
    """Name of the file in the storage's folder."""
    size: int
    sha256: str
    is_taken: bool = False
    """True once a document names the file."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One uploaded file, whole."""

    path: str
    """Behind the host prefix: `files/b/0a1b2c3d/x7Qk_photo.png`."""
    owner: str
    """The account that uploaded it."""
    content_type: str
    blob: str
    """Name of the file in the storage's folder."""
    size: int
    sha256: str
    uploaded_at: float
    """Unix seconds, of the call that made it whole."""
    parts: int
    """It came in so many parts; 1 for at once."""
    sent: int
    """So many calls brought bytes of it: more than `parts` when something was sent twice."""
    expires_at: float | None
    """Unix seconds; None for never."""
    acl: Acl

    @property
    def etag(self) -> str:
        """A strong validator."""
        return etag_of(self.sha256)

    def page(self) -> dict[str, Any]:
        """As a document."""
        return {
            "path": self.path,
            "owner": self.owner,
            "content_type": self.content_type,
            "blob": self.blob,
            "size": self.size,
            "sha256": self.sha256,
            "uploaded_at": self.uploaded_at,
            "parts": self.parts,
            "sent": self.sent,
            "expires_at": self.expires_at,
            "acl": self.acl.page(),
        }


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an upload; when it is sent again, the last one counts."""

    blob: str
    size: int
    sha256: str

    @property
    def etag(self) -> str:
        """With its quotes, as it must come back."""
        return etag_of(self.sha256)

    def page(self) -> dict[str, Any]:
        """As a document."""
        return {"blob": self.blob, "size": self.size, "sha256": self.sha256}


@dataclass(slots=True)
class Upload:
    """A place to send bytes to until a file is whole; kept afterwards, for calls that are repeated."""

    id: str
    path: str
    """Of the file that comes of it."""
    owner: str
    content_type: str
    lifecycle: Lifecycle
    in_parts: bool
    sent: int = 0
    """Calls that brought bytes."""
    etags: list[str] = field(default_factory=list)
    """Of the parts that it was completed with; empty before that."""
    parts: dict[int, Part] = field(default_factory=dict)
    """By number, from 1; empty again once it is complete. Each is a document of its own."""
    is_closing: bool = False
    """True while its parts are being joined."""

    def page(self) -> dict[str, Any]:
        """As a document, without the parts."""
        return {
            "path": self.path,
            "owner": self.owner,
            "content_type": self.content_type,
            "lifecycle": self.lifecycle.page(),
            "in_parts": self.in_parts,
            "sent": self.sent,
            "etags": self.etags,
        }


def file_from(page: Mapping[str, Any]) -> StoredFile:
    """A file as its `page` says."""
    return StoredFile(**{**page, "acl": parse_acl(page["acl"])})


def upload_from(id_: str, page: Mapping[str, Any]) -> Upload:
    """An upload as its `page` says."""
    return Upload(id_, **{**page, "lifecycle": parse_lifecycle(page["lifecycle"])})


def etag_of(sha256: str) -> str:
    """An ETag for bytes of that hash, with its quotes."""
    return f'"{sha256[:32]}"'


def name_in_url(file_name: str, content_type: str) -> str:
    """`file_name` as it may stand in a URL: no folders, no odd characters; a name by content type for an empty one."""
    last = file_name.replace("\\", "/").rpartition("/")[2]
    name = _UNSAFE.sub("_", last).strip("._-")
    if not name:
        kind = content_type.partition(";")[0].strip().lower()
        return f"file{mimetypes.guess_extension(kind) or '.bin'}"
    stem, dot, ending = name.rpartition(".")
    if len(name) > MAX_NAME_CHARS and dot and len(ending) < 10:
        return f"{stem[: MAX_NAME_CHARS - len(ending) - 1]}.{ending}"
    return name[:MAX_NAME_CHARS]


def mistake_in(listed: object, parts: Mapping[int, Part], *, in_order: bool) -> str:
    """What is wrong with the list of parts that shall complete an upload; "" for nothing.

    It names every part that was sent, numbers without a gap from 1, each with its ETag, quotes or not. `in_order`
    asks for ascending numbers as well.
    """
    if not isinstance(listed, list) or not listed:
        return "expected a list of parts that is not empty"
    numbers: list[int] = []
    for entry in listed:
        number = entry.get("partNumber") if isinstance(entry, dict) else None
        if isinstance(number, bool) or not isinstance(number, int) or not isinstance(entry.get("etag"), str):
            return "expected partNumber and etag of each part"
        if number not in parts:
            return f"part {number} was not uploaded"
        if entry["etag"].strip('"') != parts[number].etag.strip('"'):
            return f"the etag of part {number} is not the one that its upload answered"
        numbers.append(number)
    if in_order and numbers != sorted(numbers):
        return "the parts are not in ascending order"
    if len(set(numbers)) < len(numbers):
        return "a part is named twice"
    missing = sorted((set(range(1, max(numbers) + 1)) | parts.keys()) - set(numbers))
    return f"part {missing[0]} is missing" if missing else ""
