"""What some bytes are, what they cannot be, and when they are not whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falbatch.core.media import HEAD_BYTES, Kind, contradiction, defect, extension_of, sniff

PNG = Kind(".png", "image/png")
JPEG = Kind(".jpg", "image/jpeg")
GIF = Kind(".gif", "image/gif")
WEBP = Kind(".webp", "image/webp")
WAV = Kind(".wav", "audio/wav")
MP4 = Kind(".mp4", "video/mp4")
OGG = Kind(".ogg", "audio/ogg")
HTML = Kind(".html", "text/html")
ZIP = Kind(".zip", "application/zip")


@pytest.mark.parametrize(
    ("head", "extension", "content_type"),
    [
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", ".jpg", "image/jpeg"),
        (b"\xff\xd8\xff\xe1\x00\x10Exif", ".jpg", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", ".png", "image/png"),
        (b"GIF87a", ".gif", "image/gif"),
        (b"GIF89a", ".gif", "image/gif"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", ".webp", "image/webp"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", ".wav", "audio/wav"),
        (b"RIFF\x10\x00\x00\x00AVI LIST", ".avi", "video/x-msvideo"),
        (b"\x00\x00\x00\x20ftypavif", ".avif", "image/avif"),
        (b"\x00\x00\x00\x20ftypheic", ".heic", "image/heic"),
        (b"\x00\x00\x00\x20ftypqt  ", ".mov", "video/quicktime"),
        (b"\x00\x00\x00\x20ftypM4A ", ".m4a", "audio/mp4"),
        (b"\x00\x00\x00\x20ftypisom", ".mp4", "video/mp4"),
        (b"\x00\x00\x00\x20ftypmp42", ".mp4", "video/mp4"),
        (b"II*\x00\x08\x00", ".tiff", "image/tiff"),
        (b"MM\x00*\x00\x00", ".tiff", "image/tiff"),
        (b"OggS\x00\x02", ".ogg", "audio/ogg"),
        (b"fLaC\x00\x00", ".flac", "audio/flac"),
        (b"ID3\x04\x00", ".mp3", "audio/mpeg"),
        (b"\xff\xfb\x90\x64", ".mp3", "audio/mpeg"),
        (b"\xff\xf3\x84\xc4", ".mp3", "audio/mpeg"),
        (b"\xff\xfd\x90\x04", ".mp3", "audio/mpeg"),
        (b"glTF\x02\x00\x00\x00", ".glb", "model/gltf-binary"),
        (b"PK\x03\x04\x14\x00", ".zip", "application/zip"),
        (b"\x1f\x8b\x08\x00", ".gz", "application/gzip"),
        (b"%PDF-1.7", ".pdf", "application/pdf"),
        (b'\x40\x01\x00\x00\x00\x00\x00\x00{"__metadata__"', ".safetensors", "application/octet-stream"),
        (b"\x1a\x45\xdf\xa3\x01\x00\x00\x00\x42\x82webm", ".webm", "video/webm"),
        (b"\x1a\x45\xdf\xa3\x01\x00\x00\x00\x42\x82matroska", ".mkv", "video/x-matroska"),
        (b"<!DOCTYPE html><html>", ".html", "text/html"),
        (b"\n  <HTML><body>", ".html", "text/html"),
        (b"<svg xmlns=", ".svg", "image/svg+xml"),
        (b"  <SVG ", ".svg", "image/svg+xml"),
    ],
)
def test_each_signature_is_known(head: bytes, extension: str, content_type: str) -> None:
    assert sniff(head) == Kind(extension, content_type)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff",
        b"\xff\xf1\x50\x80",  # AAC in ADTS: told by what was claimed
        b"\xff\xfeh\x00i\x00",  # UTF-16 text
        b"hello",
        b"The new WAVE of sound",
        b"All the WEBPages",
        b"BeforeAI AVI files",
        b'{"a":[1,{"b":2}]}',
        b'[1,2,3, {"b":2}]',
        b"RIFF\x10\x00\x00\x00ABCD",
        b"RIFF",
        b"solid cube",
        b"<?xml version",
        bytes(64),
    ],
)
def test_other_bytes_are_of_no_known_kind(head: bytes) -> None:
    assert sniff(head) is None


@given(st.binary(max_size=HEAD_BYTES))
def test_sniffing_never_fails(head: bytes) -> None:
    kind = sniff(head)
    assert kind is None or kind.extension.startswith(".")


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
def test_a_json_document_is_taken_for_nothing_else(text: str) -> None:
    assert sniff(('{"text":"' + text.replace('"', "") + '"}').encode()) is None


@pytest.mark.parametrize(
    ("kind", "content_type", "url", "extension"),
    [
        (PNG, "image/jpeg", "https://x/a.webp", ".png"),
        (None, "audio/aac", "https://x/a.bin", ".aac"),
        (None, "Image/PNG; charset=binary", "https://x/a", ".png"),
        (None, "audio/x-wav", "https://x/a", ".wav"),
        (None, "audio/wave", "https://x/a", ".wav"),
        (None, "image/jpg", "https://x/a", ".jpg"),
        (None, "image/tiff", "https://x/a", ".tiff"),
        (None, "application/json", "data:application/json,{}", ".json"),
        (None, None, "https://x/models/a.GLTF?token=b.exe#c.d", ".gltf"),
        (None, "application/octet-stream", "https://x/a.ply", ".ply"),
        (None, "application/octet-stream", "https://x/a", ".bin"),
        (None, "application/x-unheard-of", "https://x/a.ply", ".ply"),
        (None, None, "https://x/a", ".bin"),
        (None, None, "https://x/a.", ".bin"),
        (None, None, "https://x/a.b/c", ".bin"),
        (None, None, "https://x/a.p%2fng", ".bin"),
        (None, None, "https://x/a.ümlaut", ".bin"),
        (None, None, "https://x/a.averyverylongsuffix", ".bin"),
        (None, None, "data:,a.exe", ".bin"),
    ],
)
def test_an_extension_comes_from_the_bytes_then_the_claim_then_the_url(
    kind: Kind | None, content_type: str | None, url: str, extension: str
) -> None:
    assert extension_of(kind, content_type, url) == extension


@given(st.text(), st.none() | st.text())
def test_an_extension_is_always_short_and_harmless(url: str, content_type: str | None) -> None:
    extension = extension_of(None, content_type, url)
    assert extension[0] == "."
    assert extension[1:].isascii()
    assert extension[1:].isalnum()
    assert len(extension) <= 12


@pytest.mark.parametrize(
    ("kind", "claims", "problem"),
    [
        (PNG, ("image/png",), None),
        (PNG, ("image/jpeg", "image/webp"), None),  # the same family: whole, only its name was wrong
        (MP4, ("audio/mp4",), None),
        (OGG, ("video/ogg",), None),
        (HTML, (None, None), None),
        (HTML, ("text/html",), None),
        (HTML, ("application/octet-stream",), None),
        (None, (None,), None),
        (None, ("text/plain",), None),
        (None, ("image/bmp",), None),
        (None, ("image/svg+xml",), None),
        (None, ("audio/aac",), None),
        (None, ("video/x-unheard-of",), None),
        (HTML, ("image/png",), "it was announced as image/png and is text/html"),
        (HTML, (None, "video/mp4; codecs=x"), "it was announced as video/mp4 and is text/html"),
        (ZIP, ("IMAGE/PNG",), "it was announced as image/png and is application/zip"),
        (PNG, ("video/mp4",), "it was announced as video/mp4 and is image/png"),
        (MP4, ("image/gif",), "it was announced as image/gif and is video/mp4"),
        (WAV, ("image/png",), "it was announced as image/png and is audio/wav"),
        (
            None,
            ("image/png",),
            "it was announced as image/png, but its first bytes are not those of any known image",
        ),
        (
            None,
            ("application/octet-stream", "video/webm"),
            "it was announced as video/webm, but its first bytes are not those of any known video",
        ),
        (
            None,
            ("audio/wav",),
            "it was announced as audio/wav, but its first bytes are not those of any known audio",
        ),
    ],
)
def test_a_file_must_be_able_to_be_what_was_claimed(
    kind: Kind | None, claims: tuple[str | None, ...], problem: str | None
) -> None:
    assert contradiction(kind, claims) == problem


def riff(word: bytes, announced: int) -> bytes:
    return b"RIFF" + announced.to_bytes(4, "little") + word


@pytest.mark.parametrize(
    ("kind", "head", "tail", "size_bytes", "problem"),
    [
        (PNG, b"", b"\x00\x00\x00\x00IEND\xaeB`\x82", 100, None),
        (PNG, b"", b"IEND\xaeB`\x82padding", 100, None),
        (PNG, b"", b"IDAT...", 100, "the PNG ends before its end mark"),
        (JPEG, b"", b"...\xff\xd9", 100, None),
        (JPEG, b"", b"\xff\xd9\n", 100, None),
        (JPEG, b"", b"...\xff", 100, "the JPEG ends before its end mark"),
        (GIF, b"", b"...\x00\x3b", 100, None),
        (GIF, b"", b"\x3b" + b"\x00" * 16, 100, "the GIF ends before its end mark"),
        (WEBP, riff(b"WEBP", 92), b"", 100, None),
        (WEBP, riff(b"WEBP", 92), b"", 60, "the file speaks of 100 bytes and has 60"),
        (WAV, riff(b"WAVE", 0), b"", 60, None),
        (WAV, riff(b"WAVE", 0xFFFFFFFF), b"", 60, None),
        (WAV, riff(b"WAVE", 1000), b"", 60, "the file speaks of 1008 bytes and has 60"),
        (Kind(".avi", "video/x-msvideo"), riff(b"AVI ", 1000), b"", 999, "the file speaks of 1008 bytes and has 999"),
        (MP4, b"", b"", 3, None),
        (None, b"", b"", 0, None),
    ],
)
def test_a_file_that_was_cut_is_noticed(
    kind: Kind | None, head: bytes, tail: bytes, size_bytes: int, problem: str | None
) -> None:
    assert defect(kind, head, tail, size_bytes) == problem


@pytest.mark.parametrize(
    ("content_type", "family"), [("image/png", "image"), ("model/gltf-binary", "model"), ("text/html", "text")]
)
def test_a_kind_has_a_family(content_type: str, family: str) -> None:
    assert Kind(".x", content_type).family == family
