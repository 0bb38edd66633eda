"""What kind of file some bytes are, from the bytes themselves, and whether that can be what was promised.

A table of the kinds that fal's models return. The sniffing libraries looked at either call a JPEG `.jfif` and a
ZIP `.docx`, or know no GLB and no safetensors; this table is shorter than their corrections would be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HEAD_BYTES: Final = 512
"""How many first bytes are enough for every row of the table."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file."""

    extension: str
    """With its dot."""
    content_type: str

    @property
    def family(self) -> str:
        """`image`, `video`, `audio`, `text`, `application` …"""
        return self.content_type.partition("/")[0]


_FIXED: Final[tuple[tuple[int, bytes, Kind], ...]] = (
    (0, b"\xff\xd8\xff", Kind(".jpg", "image/jpeg")),
    (0, b"\x89PNG\r\n\x1a\n", Kind(".png", "image/png")),
    (0, b"GIF8", Kind(".gif", "image/gif")),
    (4, b"ftypavif", Kind(".avif", "image/avif")),
    (4, b"ftypheic", Kind(".heic", "image/heic")),
    (4, b"ftypqt", Kind(".mov", "video/quicktime")),
    (4, b"ftypM4A", Kind(".m4a", "audio/mp4")),
    (4, b"ftyp", Kind(".mp4", "video/mp4")),
    (0, b"II*\x00", Kind(".tiff", "image/tiff")),
    (0, b"MM\x00*", Kind(".tiff", "image/tiff")),
    (0, b"OggS", Kind(".ogg", "audio/ogg")),
    (0, b"fLaC", Kind(".flac", "audio/flac")),
    (0, b"ID3", Kind(".mp3", "audio/mpeg")),
    (0, b"glTF", Kind(".glb", "model/gltf-binary")),
    (0, b"PK\x03\x04", Kind(".zip", "application/zip")),
    (0, b"\x1f\x8b", Kind(".gz", "application/gzip")),
    (0, b"%PDF-", Kind(".pdf", "application/pdf")),
)

_RIFF: Final[tuple[tuple[int, bytes, Kind], ...]] = (
    (8, b"WEBP", Kind(".webp", "image/webp")),
    (8, b"WAVE", Kind(".wav", "audio/wav")),
    (8, b"AVI ", Kind(".avi", "video/x-msvideo")),
)
"""Kinds inside a RIFF container: the words alone may stand in any text."""

_MATROSKA: Final = b"\x1a\x45\xdf\xa3"
_HTML: Final = (b"<!doctype html", b"<html")

_BY_CONTENT_TYPE: Final = {
    **{kind.content_type: kind.extension for _, _, kind in reversed(_FIXED + _RIFF)},
    "image/jpg": ".jpg",
    "image/svg+xml": ".svg",
    "image/bmp": ".bmp",
    "audio/x-wav": ".wav",
    "audio/wave": ".wav",
    "audio/mp3": ".mp3",
    "audio/aac": ".aac",
    "video/webm": ".webm",
    "video/x-matroska": ".mkv",
    "text/plain": ".txt",
    "text/html": ".html",
    "text/csv": ".csv",
    "text/vtt": ".vtt",
    "application/json": ".json",
    "application/x-ndjson": ".jsonl",
    "application/x-tar": ".tar",
    "application/octet-stream": ".bin",
}


def sniff(head: bytes) -> Kind | None:
    """The kind that the first bytes of a file show, None when they show none that is known."""
    for offset, mark, kind in _FIXED + (_RIFF if head.startswith(b"RIFF") else ()):
        if head.startswith(mark, offset):
            return kind
    if head.startswith(_MATROSKA):
        return Kind(".webm", "video/webm") if b"webm" in head[:64] else Kind(".mkv", "video/x-matroska")
    if head.startswith(b'{"', 8) and head[5:8] == bytes(3):
        # Its first 8 bytes are the length of a JSON header; text may hold {" at any place, but no zeros before it.
        return Kind(".safetensors", "application/octet-stream")
    if len(head) >= 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06 in {2, 4}:
        # The frame mark of MPEG layers II and III; with layer I in it, UTF-16 text would pass for sound.
        return Kind(".mp3", "audio/mpeg")
    start = head.lstrip()[:16].lower()
    if start.startswith(_HTML):
        return Kind(".html", "text/html")
    if start.startswith(b"<svg"):
        return Kind(".svg", "image/svg+xml")
    return None


def extension_of(kind: Kind | None, content_type: str | None, url: str) -> str:
    """The extension to store a file under: from its bytes, else from what was claimed, else from its URL."""
    if kind is not None:
        return kind.extension
    claimed = _BY_CONTENT_TYPE.get(_bare(content_type))
    if claimed is not None and claimed != ".bin":
        return claimed
    suffix = _suffix_of(url)
    return suffix or claimed or ".bin"


def _suffix_of(url: str) -> str | None:
    """A short alphanumeric suffix of the URL's path, or None: nothing else of a URL may enter a file name."""
    if url[:5].lower() == "data:":
        return None
    name = url.partition("?")[0].partition("#")[0].rpartition("/")[2]
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    return f".{suffix}" if suffix.isascii() and suffix.isalnum() and len(suffix) <= 11 else None


_SNIFFED: Final = frozenset(kind.extension for _, _, kind in _FIXED + _RIFF) | {".webm", ".mkv"}


def contradiction(kind: Kind | None, claims: tuple[str | None, ...]) -> str | None:
    """Why a file cannot be what the result and the server claimed, or None.

    A claim of a medium that the table knows must show the marks of one; which of its family does not matter (a
    PNG that was called a JPEG is whole, and its extension comes from the bytes). Other claims are not judged,
    but no picture, video or sound is a web page.
    """
    for claim in claims:
        bare = _bare(claim)
        family = bare.partition("/")[0]
        if family not in {"image", "video", "audio"}:
            continue
        if kind is None and _BY_CONTENT_TYPE.get(bare) in _SNIFFED:
            return f"it was announced as {bare}, but its first bytes are not those of any known {family}"
        if kind is not None and not _is_kin(kind, family):
            return f"it was announced as {bare} and is {kind.content_type}"
    return None


def _is_kin(kind: Kind, family: str) -> bool:
    """MP4 and Ogg hold sound as well as pictures; a video may be announced where only sound came, and back."""
    return kind.family == family or {kind.family, family} == {"audio", "video"}


def _bare(content_type: str | None) -> str:
    """A content type without parameters, in lower case; "" for None."""
    return (content_type or "").partition(";")[0].strip().lower()


TAIL_BYTES: Final = 4096
"""How many last bytes `defect` looks at: end marks may be followed by a little padding or metadata."""


def defect(kind: Kind | None, head: bytes, tail: bytes, size_bytes: int) -> str | None:
    """Why a file of `kind` is not whole, as far as its format tells, or None.

    Catches what no length can: a body that was cut and announced with its shorter length.
    """
    extension = kind.extension if kind else ""
    if extension == ".png" and b"IEND\xaeB`\x82" not in tail:
        return "the PNG ends before its end mark"
    if extension == ".jpg" and b"\xff\xd9" not in tail:
        return "the JPEG ends before its end mark"
    if extension == ".gif" and b"\x3b" not in tail[-16:]:
        return "the GIF ends before its end mark"
    if extension in {".webp", ".wav", ".avi"}:
        announced = int.from_bytes(head[4:8], "little")
        # Streamed WAVs announce 0 or the largest number: they say nothing about their length.
        if announced not in {0, 0xFFFFFFFF} and size_bytes < announced:
            return f"the file speaks of {announced + 8} bytes and has {size_bytes}"
    return None
