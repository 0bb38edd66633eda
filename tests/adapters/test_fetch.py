"""A download is whole, of the kind it should be, from where it may come; or it is not there."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from falbatch.adapters.fetch import Fetcher
from falbatch.adapters.limits import FetchLimits
from falbatch.adapters.partfile import Claims, Fetched, meta_path
from falbatch.errors import HttpError, ReplyError, TransportError, WireError
from falbatch.fal.transport import Transport, TransportSettings
from tests.adapters.conftest import TO_DISK, Asked, Site, cut, redirect, resumable, whole
from tests.fal.raw_server import Peer, served

if TYPE_CHECKING:
    from pathlib import Path

    from tests.adapters.conftest import Answer

pytestmark = pytest.mark.anyio


def _picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(buffer, kind)
    return buffer.getvalue()


PNG, JPEG, GIF, WEBP = (_picture(kind) for kind in ("PNG", "JPEG", "GIF", "WEBP"))
TEXT = b"".join(b"line %d\n" % number for number in range(2_000))
ETAG = '"v1"'


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / ".a.0.part"


@pytest.fixture(params=["in memory", "to disk"])
def fetcher(opener: Transport, request: pytest.FixtureRequest) -> Fetcher:
    """For files that wait in memory until they are whole, and for files too large for that."""
    limits = FetchLimits() if request.param == "in memory" else TO_DISK
    return Fetcher(opener, allow_http=True, limits=limits)


def _claims(url: str, content_type: str | None = None, size_bytes: int | None = None) -> Claims:
    return Claims(url, content_type, size_bytes)


def _is_clean(part: Path) -> bool:
    """True when neither the part file nor what is noted beside it is there."""
    return not part.exists() and not meta_path(part).exists()


async def test_a_file_comes_whole_with_its_hash(site: Site, fetcher: Fetcher, part: Path) -> None:
    url = site.put("/a.png", whole(PNG, headers="Content-Type: image/png\r\nETag: x\r\n"))
    fetched = await fetcher.fetch(_claims(url, "image/png", len(PNG)), part)
    assert fetched == Fetched(len(PNG), hashlib.sha256(PNG).digest(), "image/png", ".png")
    assert part.read_bytes() == PNG
    assert not meta_path(part).exists()


async def test_a_large_file_is_checked_to_its_end(site: Site, fetcher: Fetcher, part: Path) -> None:
    body = PNG[:-12] + b"\0" * 3_000_000 + PNG[-12:]
    fetched = await fetcher.fetch(_claims(site.put("/a", whole(body))), part)
    assert (fetched.size_bytes, fetched.sha256) == (len(body), hashlib.sha256(body).digest())


@pytest.mark.parametrize(
    ("body", "path", "claimed", "served_as", "extension", "content_type"),
    [
        (PNG, "/a.jpg", "image/jpeg", "image/jpeg", ".png", "image/png"),
        (JPEG, "/a.exe", None, "application/octet-stream", ".jpg", "image/jpeg"),
        (TEXT, "/a.bin", "text/plain", "text/plain; charset=utf-8", ".txt", "text/plain; charset=utf-8"),
        (TEXT, "/a.ply?x=.exe", None, "application/octet-stream", ".ply", "application/octet-stream"),
        (TEXT, "/a", None, "", ".bin", "application/octet-stream"),
        (b"<html></html>", "/page", "text/html", "text/html", ".html", "text/html"),
    ],
)
async def test_the_extension_comes_from_the_bytes_and_only_then_from_what_was_said(
    site: Site,
    fetcher: Fetcher,
    part: Path,
    body: bytes,
    path: str,
    claimed: str | None,
    served_as: str,
    extension: str,
    content_type: str,
) -> None:
    headers = f"Content-Type: {served_as}\r\n" if served_as else ""
    site.put(path.partition("?")[0], whole(body, headers=headers))
    fetched = await fetcher.fetch(_claims(site.origin + path, claimed), part)
    assert (fetched.extension, fetched.content_type) == (extension, content_type)


@pytest.mark.parametrize("body", [PNG, JPEG, GIF, WEBP], ids=["png", "jpeg", "gif", "webp"])
async def test_a_picture_that_was_cut_and_announced_so_is_thrown_away(
    site: Site, fetcher: Fetcher, part: Path, body: bytes
) -> None:
    url = site.put("/a", whole(body[: len(body) // 2], headers=f"ETag: {ETAG}\r\n"))
    with pytest.raises(ReplyError, match=r"ends before its end mark|speaks of"):
        await fetcher.fetch(_claims(url), part)
    assert _is_clean(part)


async def test_a_length_that_is_too_short_is_found_by_what_the_result_says(
    site: Site, fetcher: Fetcher, part: Path
) -> None:
    url = site.put("/a.txt", whole(TEXT[:100], headers=f"ETag: {ETAG}\r\n"))
    with pytest.raises(ReplyError, match=f"100 bytes came, the result speaks of {len(TEXT)}"):
        await fetcher.fetch(_claims(url, size_bytes=len(TEXT)), part)
    assert _is_clean(part)


async def test_a_body_longer_than_its_length_is_never_a_whole_picture(site: Site, fetcher: Fetcher, part: Path) -> None:
    url = site.put("/a.png", whole(PNG, length=len(PNG) // 2))
    with pytest.raises(WireError):
        await fetcher.fetch(_claims(url), part)


async def test_a_body_that_ends_before_its_length_is_an_error(site: Site, fetcher: Fetcher, part: Path) -> None:
    url = site.put("/a.txt", cut(TEXT, 1_000))
    with pytest.raises(TransportError) as caught:
        await fetcher.fetch(_claims(url), part)
    assert caught.value.kind == "reset"


async def test_a_chunked_body_is_taken_whole_or_not_at_all(site: Site, fetcher: Fetcher, part: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"

    async def good(peer: Peer, asked: Asked) -> None:
        await peer.send(head + b"0\r\n\r\n")

    async def broken(peer: Peer, asked: Asked) -> None:
        await peer.send(head)
        raise ConnectionAbortedError

    url = site.put("/a.txt", broken, good)
    with pytest.raises(TransportError):
        await fetcher.fetch(_claims(url), part)
    assert (await fetcher.fetch(_claims(url), part)).size_bytes == 5
    assert part.read_bytes() == b"hello"


async def test_a_result_may_speak_of_less_than_comes(site: Site, fetcher: Fetcher, part: Path) -> None:
    fetched = await fetcher.fetch(_claims(site.put("/a.txt", whole(TEXT)), size_bytes=5), part)
    assert fetched.size_bytes == len(TEXT)


@pytest.mark.parametrize(
    ("body", "claimed", "served_as"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "image/png", "text/html"),
        (b"<html>", None, "image/jpeg"),
        (b'{"error": "not found"}', "image/png", "application/json"),
        (b"", "image/png", "image/png"),
        (b"", None, "text/plain"),
        (gzip.compress(PNG), "image/png", "image/png"),
    ],
    ids=["page", "page served as picture", "json", "empty", "empty text", "packed"],
)
async def test_what_is_not_what_was_promised_is_thrown_away(
    site: Site, fetcher: Fetcher, part: Path, body: bytes, claimed: str | None, served_as: str
) -> None:
    headers = f"Content-Type: {served_as}\r\nETag: {ETAG}\r\n"
    with pytest.raises(ReplyError, match=r"announced as image|is empty"):
        await fetcher.fetch(_claims(site.put("/a.png", whole(body, headers=headers)), claimed), part)
    assert _is_clean(part)


async def _interrupted(site: Site, fetcher: Fetcher, part: Path, *then: Answer, etag: str = ETAG) -> str:
    """A URL of which the first thousand bytes came, before `then`."""
    url = site.put("/a.txt", cut(TEXT, 1_000, headers=f"ETag: {etag}\r\n" if etag else ""), *then)
    with pytest.raises(TransportError):
        await fetcher.fetch(_claims(url), part)
    assert not part.exists() or part.stat().st_size == 1_000
    return url


async def test_a_download_goes_on_where_it_was_cut(site: Site, fetcher: Fetcher, part: Path) -> None:
    url = await _interrupted(site, fetcher, part, resumable(TEXT, ETAG))
    fetched = await fetcher.fetch(_claims(url), part)
    assert [asked.range for asked in site.asked] == [(None, None), ("bytes=1000-", ETAG)]
    assert fetched.sha256 == hashlib.sha256(TEXT).digest()
    assert part.read_bytes() == TEXT
    assert not meta_path(part).exists()


async def test_a_download_may_be_cut_more_than_once(site: Site, fetcher: Fetcher, part: Path) -> None:
    async def again(peer: Peer, asked: Asked) -> None:
        span = f"Content-Range: bytes 1000-{len(TEXT) - 1}/{len(TEXT)}\r\n"
        await peer.answer(TEXT[1000:1500], status="206 Partial Content", headers=span, length=len(TEXT) - 1000)
        raise ConnectionAbortedError

    url = await _interrupted(site, fetcher, part, again, resumable(TEXT, ETAG))
    with pytest.raises(TransportError):
        await fetcher.fetch(_claims(url), part)
    await fetcher.fetch(_claims(url), part)
    assert site.asked[-1].range == ("bytes=1500-", ETAG)
    assert part.read_bytes() == TEXT


async def test_a_file_that_has_changed_starts_over(site: Site, fetcher: Fetcher, part: Path) -> None:
    other = TEXT[:1_500].upper()
    url = await _interrupted(site, fetcher, part, resumable(other, '"v2"'))
    await fetcher.fetch(_claims(url), part)
    assert site.asked[-1].range == ("bytes=1000-", ETAG)
    assert part.read_bytes() == other


async def test_the_etag_of_the_new_file_counts_after_it_has_changed(site: Site, fetcher: Fetcher, part: Path) -> None:
    other = TEXT.upper()
    headers = 'ETag: "v2"\r\n'
    url = await _interrupted(site, fetcher, part, cut(other, 300, headers=headers), resumable(other, '"v2"'))
    with pytest.raises(TransportError):
        await fetcher.fetch(_claims(url), part)
    await fetcher.fetch(_claims(url), part)
    assert site.asked[-1].range == ("bytes=300-", '"v2"')
    assert part.read_bytes() == other


@pytest.mark.parametrize(
    "span",
    [
        "",
        f"bytes 0-{len(TEXT) - 1}/{len(TEXT)}",
        f"bytes 999-{len(TEXT) - 1}/{len(TEXT)}",
        f"bytes 1000-1999/{len(TEXT)}",
        "bytes 1000-",
        "nonsense",
    ],
)
async def test_a_part_that_is_not_the_rest_starts_over(site: Site, fetcher: Fetcher, part: Path, span: str) -> None:
    headers = f"Content-Range: {span}\r\n" if span else ""
    wrong = whole(TEXT[1000:2000], status="206 Partial Content", headers=headers)
    url = await _interrupted(site, fetcher, part, wrong, resumable(TEXT, ETAG))
    with pytest.raises(ReplyError, match="starts over"):
        await fetcher.fetch(_claims(url), part)
    assert _is_clean(part)
    await fetcher.fetch(_claims(url), part)
    assert site.asked[-1].range == (None, None)
    assert part.read_bytes() == TEXT


async def test_a_rest_without_a_known_total_is_taken(site: Site, fetcher: Fetcher, part: Path) -> None:
    span = f"Content-Range: bytes 1000-{len(TEXT) - 1}/*\r\n"
    url = await _interrupted(site, fetcher, part, whole(TEXT[1000:], status="206 Partial Content", headers=span))
    await fetcher.fetch(_claims(url), part)
    assert part.read_bytes() == TEXT


async def test_a_range_that_the_server_cannot_give_starts_over(site: Site, fetcher: Fetcher, part: Path) -> None:
    refused = whole(b"", status="416 Range Not Satisfiable")
    url = await _interrupted(site, fetcher, part, refused, resumable(TEXT, ETAG))
    with pytest.raises(ReplyError, match="starts over"):
        await fetcher.fetch(_claims(url), part)
    assert _is_clean(part)
    await fetcher.fetch(_claims(url), part)
    assert site.asked[-1].range == (None, None)


async def test_a_part_that_nobody_asked_for_is_refused(site: Site, fetcher: Fetcher, part: Path) -> None:
    span = f"Content-Range: bytes 0-99/{len(TEXT)}\r\n"
    url = site.put("/a.txt", whole(TEXT[:100], status="206 Partial Content", headers=span))
    with pytest.raises(ReplyError):
        await fetcher.fetch(_claims(url), part)


@pytest.mark.parametrize("etag", ["", 'W/"v1"'])
async def test_without_a_strong_etag_nothing_is_gone_on_with(
    site: Site, fetcher: Fetcher, part: Path, etag: str
) -> None:
    url = await _interrupted(site, fetcher, part, whole(TEXT), etag=etag)
    await fetcher.fetch(_claims(url), part)
    assert site.asked[-1].range == (None, None)
    assert part.read_bytes() == TEXT


async def test_the_part_of_one_url_is_never_the_beginning_of_another(site: Site, fetcher: Fetcher, part: Path) -> None:
    await _interrupted(site, fetcher, part)
    await fetcher.fetch(_claims(site.put("/b.txt", resumable(TEXT.upper(), ETAG))), part)
    assert site.asked[-1].range == (None, None)
    assert part.read_bytes() == TEXT.upper()


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"etag": "x"}', b"\xff\xfe"])
async def test_a_spoiled_note_beside_the_part_starts_over(
    site: Site, fetcher: Fetcher, part: Path, note: bytes
) -> None:
    url = await _interrupted(site, fetcher, part, resumable(TEXT, ETAG))
    meta_path(part).write_bytes(note)
    await fetcher.fetch(_claims(url), part)
    assert site.asked[-1].range == (None, None)
    assert part.read_bytes() == TEXT


async def test_an_answer_that_is_no_file_leaves_the_part_for_later(site: Site, fetcher: Fetcher, part: Path) -> None:
    down = whole(b"down", status="503 Service Unavailable")
    url = await _interrupted(site, fetcher, part, down, resumable(TEXT, ETAG))
    with pytest.raises(HttpError):
        await fetcher.fetch(_claims(url), part)
    await fetcher.fetch(_claims(url), part)
    assert site.asked[-1].range == ("bytes=1000-", ETAG)
    assert part.read_bytes() == TEXT


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed(site: Site, fetcher: Fetcher, part: Path, status: int) -> None:
    site.put("/files/b.png", whole(PNG))
    url = site.put("/files/a.png", redirect("b.png", status=f"{status} Moved"))
    assert (await fetcher.fetch(_claims(url), part)).size_bytes == len(PNG)
    assert [asked.path for asked in site.asked] == ["/files/a.png", "/files/b.png"]


async def test_behind_a_redirect_a_download_goes_on_too(site: Site, fetcher: Fetcher, part: Path) -> None:
    site.put("/b.txt", cut(TEXT, 700, headers=f"ETag: {ETAG}\r\n"), resumable(TEXT, ETAG))
    url = site.put("/a.txt", redirect(f"{site.origin}/b.txt"))
    with pytest.raises(TransportError):
        await fetcher.fetch(_claims(url), part)
    await fetcher.fetch(_claims(url), part)
    assert [asked.range for asked in site.asked[2:]] == [(None, None), ("bytes=700-", ETAG)]
    assert part.read_bytes() == TEXT


async def test_five_redirects_are_followed_and_no_more(site: Site, fetcher: Fetcher, part: Path) -> None:
    for number in range(6):
        site.put(f"/{number}", redirect(f"/{number + 1}"))
    site.put("/6", whole(PNG))
    await fetcher.fetch(_claims(f"{site.origin}/1"), part)
    site.asked.clear()
    with pytest.raises(TransportError, match="more than 5 redirects"):
        await fetcher.fetch(_claims(f"{site.origin}/0"), part)
    assert [asked.path for asked in site.asked] == [f"/{number}" for number in range(6)]


async def test_a_redirect_to_nowhere_is_an_answer_that_is_no_file(site: Site, fetcher: Fetcher, part: Path) -> None:
    with pytest.raises(HttpError) as caught:
        await fetcher.fetch(_claims(site.put("/a", whole(b"", status="302 Found"))), part)
    assert caught.value.status == 302


INNER = [
    "http://10.0.0.1/x",
    "https://192.168.1.1/x",
    "http://169.254.169.254/latest/meta-data/",
    "http://0.0.0.0/x",
    "http://[fd00::1]/x",
    "http://[::ffff:10.0.0.1]/x",
]


@pytest.mark.parametrize("target", INNER)
async def test_a_private_address_is_never_asked_be_it_by_a_redirect(
    site: Site, fetcher: Fetcher, part: Path, target: str
) -> None:
    for url in (target, site.put("/a.png", redirect(target))):
        with pytest.raises(TransportError) as caught:
            await fetcher.fetch(_claims(url), part)
        assert (caught.value.kind, caught.value.sent) == ("refused_address", False)
    assert _is_clean(part)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_this_machine_is_asked_only_when_fal_is_on_it(site: Site, part: Path, host: str) -> None:
    url = site.put("/a.png", whole(PNG)).replace("127.0.0.1", host)
    async with Transport(settings=TransportSettings(public_only=True, trust_env=False)) as public:
        with pytest.raises(TransportError) as caught:
            await Fetcher(public, allow_http=True).fetch(_claims(url), part)
    assert caught.value.kind == "refused_address"
    assert site.asked == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,x", "javascript:1"])
async def test_only_the_web_is_asked(site: Site, fetcher: Fetcher, part: Path, target: str) -> None:
    for url in (target, site.put("/a", redirect(target))):
        with pytest.raises(TransportError) as caught:
            await fetcher.fetch(_claims(url), part)
        assert caught.value.kind == "refused_url"
    assert _is_clean(part)


async def test_plain_http_is_refused_before_anything_is_sent(site: Site, opener: Transport, part: Path) -> None:
    with pytest.raises(TransportError, match="only https is fetched") as caught:
        await Fetcher(opener, allow_http=False).fetch(_claims(site.put("/a.png", whole(PNG))), part)
    assert caught.value.sent is False
    assert site.asked == []


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 with its key, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    out = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([openssl, "req", "-x509", *key, *subject, *out], check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())
    return both


async def test_https_is_fetched_and_a_redirect_from_it_to_http_is_refused(
    site: Site, part: Path, certificate: Path
) -> None:
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))
    safe = Site()
    safe.put("/b.png", whole(PNG))
    safe.put("/a.png", redirect(site.put("/a.png", whole(PNG))))

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await safe.serve(Peer(reader, writer, 0))
        writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=server_side)
    origin = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    settings = TransportSettings(public_only=True, allow_loopback=True, trust_env=False, ssl_context=trusting)
    async with listener, Transport(settings=settings) as transport:
        fetcher = Fetcher(transport, allow_http=False)
        assert (await fetcher.fetch(_claims(f"{origin}/b.png"), part)).size_bytes == len(PNG)
        part.unlink()
        with pytest.raises(TransportError, match="only https is fetched"):
            await fetcher.fetch(_claims(f"{origin}/a.png"), part)
    assert [asked.path for asked in safe.asked] == ["/b.png", "/a.png"]
    assert site.asked == []
    assert _is_clean(part)


async def test_nothing_secret_is_sent_and_no_cookie_is_kept(
    site: Site, fetcher: Fetcher, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAL_KEY", "id:secret")
    setting = "Set-Cookie: session=1; Path=/\r\nLocation: /b.png\r\n"
    url = site.put("/a.png", whole(b"", status="302 Found", headers=setting))
    site.put("/b.png", whole(PNG, headers="Set-Cookie: session=2; Path=/\r\n"))
    await fetcher.fetch(_claims(url), part)
    await fetcher.fetch(_claims(url), part)
    assert len(site.asked) == 4
    for asked in site.asked:
        assert set(asked.headers) <= {"host", "accept", "accept-encoding", "connection", "user-agent"}
        assert asked.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [401, 403, 404, 410, 429, 500, 503])
async def test_a_link_that_gives_no_file_says_its_status(site: Site, fetcher: Fetcher, part: Path, status: int) -> None:
    url = site.put("/a.png", whole(b"<html>no</html>", status=f"{status} No"))
    with pytest.raises(HttpError) as caught:
        await fetcher.fetch(_claims(url + "?signature=sesame"), part)
    assert caught.value.status == status
    assert f"/a.png: HTTP {status}" in str(caught.value)
    assert "sesame" not in str(caught.value)
    assert _is_clean(part)


async def test_a_signature_in_a_url_travels_as_it_is_and_is_never_said(
    site: Site, fetcher: Fetcher, part: Path
) -> None:
    url = site.put("/a%20b.png", whole(PNG), cut(PNG, 10), whole(b"")) + "?sig=a%2Cb%2Fc+d&x=%41"
    await fetcher.fetch(_claims(url), part)
    assert site.asked[0].path == "/a%20b.png?sig=a%2Cb%2Fc+d&x=%41"
    for _ in range(2):
        with pytest.raises(WireError) as caught:
            await fetcher.fetch(_claims(url), part)
        assert "sig=" not in str(caught.value)


async def test_a_server_that_is_not_there_is_a_wire_error(fetcher: Fetcher, part: Path) -> None:
    async with served(lambda _: _nothing()) as server:
        gone = server.origin
    with pytest.raises(TransportError) as caught:
        await fetcher.fetch(_claims(f"{gone}/a"), part)
    assert caught.value.kind == "connect"


async def _nothing() -> None:
    """A server that has nothing to say."""
