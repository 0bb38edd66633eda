"""Which file names are safe, on this computer and on those the folder may be copied to.

A name is made of components between forward slashes; each slash makes a folder. What would leave the output
folder, or what cannot have been meant, is a problem; what file systems refuse is replaced by "_".
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NewType

from pathvalidate import sanitize_filename
from slugify import slugify

if TYPE_CHECKING:
    from collections.abc import Iterable

SafeName = NewType("SafeName", str)
"""A relative path without extension that stays inside the output folder on any file system."""

MAX_COMPONENT_BYTES: Final = 120
"""UTF-8 bytes of a component: file systems take 255, an extension, a number and `.part` are added."""
MAX_NAME_BYTES: Final = 400
"""UTF-8 bytes of a whole name: leaves room for the output folder within the 1024 of macOS."""
MAX_LABEL: Final = 48
"""Characters of a label: enough to tell jobs apart, short enough for a line of a listing."""

_WORDS: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,56}[A-Za-z0-9_])?"
_PLAIN: Final = re.compile(f"{_WORDS}(?:/{_WORDS}){{0,5}}")
"""Names that need no work: at most 6 components of 58 plain characters."""
_RESERVED: Final = re.compile(r"(?:^|/)(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:/|$)", re.IGNORECASE)
"""Device names of Windows (with an extension they come to `sanitize_filename`, for they hold a dot)."""
_DEVICE: Final = re.compile(r"^(con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?= *(?:\.|$))", re.IGNORECASE)
"""All device names: `sanitize_filename` does not know CONOUT$, nor that Windows drops the spaces in "con .txt"."""


@dataclass(frozen=True, slots=True)
class NameProblem:
    """Why a text is no name."""

    what: str
    hint: str = ""


def safe_name(text: str) -> SafeName | NameProblem:
    """`text` as a name: replaced where file systems demand it, cut where too long, refused where unsafe.

    The same text always gives the same name. A cut component ends in a hash of all of it, so that long names
    stay apart; replaced characters may make two names equal, which whoever collects names has to check.
    """
    if _PLAIN.fullmatch(text) and not _RESERVED.search(text):
        return SafeName(text)
    normal = unicodedata.normalize("NFC", text)
    problem = _refusal(normal)
    if problem:
        return problem
    name = "/".join(_component(component) for component in normal.split("/"))
    if len(name.encode()) > MAX_NAME_BYTES:
        return NameProblem(f"a name of more than {MAX_NAME_BYTES} bytes", "make fewer or shorter folders")
    return SafeName(name)


def _refusal(text: str) -> NameProblem | None:
    if not text.strip():
        return NameProblem("the name is empty")
    if "\\" in text:
        return NameProblem("a name may not hold a backslash", "folders are made with /")
    if text.startswith("/") or re.match(r"[A-Za-z]:(?:/|$)", text):
        return NameProblem("a name must be relative to the output folder", "remove the leading part")
    for component in text.split("/"):
        if not component.strip():
            return NameProblem("a part between slashes is empty", "give a default: {{ row.x or 'none' }}")
        if component.strip() in (".", ".."):
            return NameProblem(f'"{component}" is not a folder name', "names cannot leave the output folder")
    try:
        text.encode()
    except UnicodeEncodeError:
        return NameProblem("the name holds half of a surrogate pair, which is no character")
    return None


def _component(text: str) -> str:
    """One folder or file name. A leading "." would hide it and a leading "-" look like a flag: both get a "_"."""
    cleaned = "".join("_" if unicodedata.category(character)[0] in "CZ" and character != " " else character
                      for character in text)  # fmt: skip
    cleaned = cleaned.strip(" ").rstrip(". ")  # " CON" is a device name too, once it is stripped
    cleaned = str(sanitize_filename(cleaned, replacement_text="_", platform="universal", max_len=None))
    cleaned = _DEVICE.sub(r"\1_", cleaned.strip(" ").rstrip(". ") or "_")
    if cleaned[0] in ".-~":
        cleaned = "_" + cleaned
    if len(cleaned.encode()) <= MAX_COMPONENT_BYTES:
        return cleaned
    mark = "-" + hashlib.sha256(text.encode()).hexdigest()[:10]
    kept = cleaned.encode()[: MAX_COMPONENT_BYTES - len(mark)].decode(errors="ignore")
    return kept.rstrip(". ") + mark


def fold(name: str) -> str:
    """Equal for names that some file system takes for the same: ignores case and how accents are written."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def label_of(values: Iterable[Any]) -> str:
    """A short slug of `values` joined by "-", at most MAX_LABEL characters; "" without any."""
    parts = [part for value in values if (part := slug(str(value)[:200]))]
    return "-".join(parts)[:MAX_LABEL].rstrip("-")


@functools.lru_cache(maxsize=10_000)
def slug(text: str) -> str:
    """`text` in small ASCII letters, digits and single "-" between them: "Oil Painting" → "oil-painting"."""
    return str(slugify(text))
