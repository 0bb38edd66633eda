"""Servers that mean ill, or no longer know what they do: a download costs bounded time and space and tells nothing."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from falbatch.adapters.fetch import Fetcher
from falbatch.adapters.limits import MEBIBYTE, FetchLimits
from falbatch.adapters.partfile import URL_MOST, Claims, meta_path, plain
from falbatch.core.classify import DownloadVerdict, download_verdict
from falbatch.errors import ReplyError, TransportError, WireError
from falbatch.fal.transport import Transport, TransportSettings
from tests.adapters.conftest import WAIT_S, Asked, Site, cut, redirect, resumable, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.adapters.conftest import Answer
    from tests.fal.raw_server import Peer

pytestmark = pytest.mark.anyio

TEXT = b"".join(b"line %d\n" % number for number in range(2_000))
ETAG = '"v1"'
QUICK = FetchLimits(slow_for_s=0.3, in_memory_most=0)
"""So that a test need not wait."""


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / ".a.0.part"


@pytest.fixture
def fetcher_with(opener: Transport) -> Callable[[FetchLimits], Fetcher]:
    return lambda limits: Fetcher(opener, allow_http=True, limits=limits)


@pytest.fixture
def fetcher(opener: Transport) -> Fetcher:
    return Fetcher(opener, allow_http=True)


def _claims(url: str, size_bytes: int | None = None) -> Claims:
    return Claims(url, None, size_bytes)


def _is_clean(part: Path) -> bool:
    return not part.exists() and not meta_path(part).exists()


def _dripping(body: bytes, *, every_s: float, count: int = 1, headers: str = "") -> Answer:
    """`count` bytes at a time."""

    async def answer(peer: Peer, asked: Asked) -> None:
        await peer.answer(b"", headers=headers, length=len(body))
        for start in range(0, len(body), count):
            await asyncio.sleep(every_s)
            await peer.send(body[start : start + count])

    return answer


def _endless(piece: bytes) -> Answer:
    """A body without a length and without an end."""

    async def answer(peer: Peer, asked: Asked) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: x\r\n\r\n")
        while True:
            await peer.send(b"%x\r\n%s\r\n" % (len(piece), piece))

    return answer


def _unannounced(body: bytes) -> Answer:
    """A body that ends with its connection."""

    async def answer(peer: Peer, asked: Asked) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
        raise ConnectionAbortedError

    return answer


async def test_a_server_that_drips_is_left_and_the_next_try_goes_on(
    site: Site, fetcher_with: Callable[[FetchLimits], Fetcher], part: Path
) -> None:
    drip = _dripping(TEXT, every_s=0.02, headers=f"ETag: {ETAG}\r\n")
    url = site.put("/a.txt", drip, resumable(TEXT, ETAG))
    fetcher = fetcher_with(QUICK)
    with pytest.raises(TransportError, match=r"/a\.txt: too slow, \d+ bytes/s over 0\.3 s") as caught:
        await fetcher.fetch(_claims(url), part)
    assert (caught.value.kind, caught.value.sent) == ("timeout", True)
    assert download_verdict(caught.value) is DownloadVerdict.AGAIN
    came = part.stat().st_size
    assert 0 < came < 1_000
    await fetcher.fetch(_claims(url), part)
    assert site.asked[-1].range == (f"bytes={came}-", ETAG)
    assert part.read_bytes() == TEXT


async def test_a_server_that_falls_silent_is_left(
    site: Site, fetcher_with: Callable[[FetchLimits], Fetcher], part: Path
) -> None:
    async def silent(peer: Peer, asked: Asked) -> None:
        await peer.answer(TEXT[:100], length=len(TEXT))
        await asyncio.sleep(WAIT_S)

    with pytest.raises(TransportError) as caught:
        await fetcher_with(QUICK).fetch(_claims(site.put("/a.txt", silent)), part)
    assert caught.value.kind == "timeout"
    assert part.stat().st_size == 100


async def test_a_file_whose_last_byte_has_come_is_taken_however_slow_it_was(
    site: Site, fetcher_with: Callable[[FetchLimits], Fetcher], part: Path
) -> None:
    url = site.put("/a.txt", _dripping(b"ab", every_s=0.2))
    assert (await fetcher_with(QUICK).fetch(_claims(url), part)).size_bytes == 2


async def test_the_whole_of_a_download_has_its_time_too(
    site: Site, fetcher_with: Callable[[FetchLimits], Fetcher], part: Path
) -> None:
    """Fast enough at every moment, and never done."""
    url = site.put("/a.txt", _dripping(TEXT * 1_000, every_s=0.02, count=500))
    with pytest.raises(TransportError) as caught:
        await fetcher_with(FetchLimits(total_s=0.5, in_memory_most=0)).fetch(_claims(url), part)
    assert caught.value.kind == "timeout"
    assert part.stat().st_size > 0


async def test_redirects_share_the_time_of_the_whole(
    site: Site, fetcher_with: Callable[[FetchLimits], Fetcher], part: Path
) -> None:
    async def slow(peer: Peer, asked: Asked) -> None:
        await asyncio.sleep(0.2)
        await redirect("/a.txt")(peer, asked)

    with pytest.raises(TransportError) as caught:
        await fetcher_with(FetchLimits(total_s=0.5, in_memory_most=0)).fetch(_claims(site.put("/a.txt", slow)), part)
    assert caught.value.kind == "timeout"
    assert len(site.asked) <= 3


_DOWNLOADING = """
import sys
from pathlib import Path
import anyio
from falbatch.adapters.fetch import Fetcher
from falbatch.adapters.partfile import Claims
from falbatch.adapters.limits import FetchLimits
from falbatch.fal.transport import Transport, TransportSettings

async def main(url, part):
    async with Transport(settings=TransportSettings(trust_env=False)) as transport:
        fetcher = Fetcher(transport, allow_http=True, limits=FetchLimits(slow_for_s=1.5, in_memory_most=0))
        print((await fetcher.fetch(Claims(url, None, None), Path(part))).size_bytes)

anyio.run(main, *sys.argv[1:])
"""


async def test_a_program_that_was_stopped_for_a_while_goes_on(site: Site, part: Path) -> None:
    """As by Ctrl-Z and `fg`, or a machine that was asleep: a gap longer than a stretch, then the usual speed."""
    is_awake = asyncio.Event()

    async def waits(peer: Peer, asked: Asked) -> None:
        await peer.answer(TEXT[:5_000], length=len(TEXT))
        await asyncio.wait_for(is_awake.wait(), WAIT_S)
        for start in range(5_000, len(TEXT), 2_000):
            await peer.send(TEXT[start : start + 2_000])
            await asyncio.sleep(0.02)

    url = site.put("/a.txt", waits)
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _DOWNLOADING, url, str(part)]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as child:
        try:
            with anyio.fail_after(WAIT_S):
                while not part.exists() or part.stat().st_size < 5_000:
                    await asyncio.sleep(0.01)
            child.send_signal(signal.SIGSTOP)
            await asyncio.sleep(2.0)
            is_awake.set()
            child.send_signal(signal.SIGCONT)
            out, err = await anyio.to_thread.run_sync(lambda: child.communicate(timeout=WAIT_S))
        finally:
            child.kill()
    assert (out, err) == (f"{len(TEXT)}\n", "")


async def test_a_body_without_an_end_does_not_fill_the_disk(
    site: Site, fetcher_with: Callable[[FetchLimits], Fetcher], part: Path
) -> None:
    url = site.put("/a", _endless(b"x" * 4_096))
    limits = FetchLimits(unannounced_bytes_most=100_000)
    with pytest.raises(TransportError, match="more than 100000 bytes") as caught:
        await fetcher_with(limits).fetch(_claims(url), part)
    assert caught.value.kind == "refused_size"
    assert download_verdict(caught.value) is DownloadVerdict.REFUSED
    assert _is_clean(part)


async def test_a_body_without_a_length_may_be_a_little_more_than_twice_what_the_result_says(
    site: Site, fetcher: Fetcher, part: Path
) -> None:
    url = site.put("/a", _endless(b"x" * 65_536), _unannounced(b"x" * (MEBIBYTE + 2_000)))
    with pytest.raises(TransportError, match=f"more than {MEBIBYTE + 2_000} bytes") as caught:
        await fetcher.fetch(_claims(url, 1_000), part)
    assert caught.value.kind == "refused_size"
    assert _is_clean(part)
    assert (await fetcher.fetch(_claims(url, 1_000), part)).size_bytes == MEBIBYTE + 2_000


async def test_an_announced_file_is_bounded_by_its_own_limit_alone(
    site: Site, fetcher_with: Callable[[FetchLimits], Fetcher], part: Path
) -> None:
    fetcher = fetcher_with(FetchLimits(bytes_most=len(TEXT), unannounced_bytes_most=10))
    assert (await fetcher.fetch(_claims(site.put("/a.txt", whole(TEXT)), 1), part)).size_bytes == len(TEXT)
    part.unlink()
    url = site.put("/b.txt", whole(TEXT + b"x"), _endless(TEXT))
    with pytest.raises(TransportError, match=f"{len(TEXT) + 1} bytes are too many") as caught:
        await fetcher.fetch(_claims(url), part)
    assert caught.value.kind == "refused_size"
    assert _is_clean(part)


async def test_a_rest_that_makes_the_file_too_large_is_refused(
    site: Site, fetcher: Fetcher, fetcher_with: Callable[[FetchLimits], Fetcher], part: Path
) -> None:
    url = site.put("/a.txt", cut(TEXT, 1_000, headers=f"ETag: {ETAG}\r\n"), resumable(TEXT, ETAG))
    with pytest.raises(TransportError):
        await fetcher.fetch(_claims(url), part)
    with pytest.raises(TransportError) as caught:
        await fetcher_with(FetchLimits(bytes_most=len(TEXT) - 1)).fetch(_claims(url), part)
    assert caught.value.kind == "refused_size"
    assert _is_clean(part)


@pytest.mark.parametrize(
    "length",
    ["-5", "+5", "abc", "5, 6", "0x10", "99999999999999999999999", "9999999999999999999", "5\r\nContent-Length: 6"],
)
async def test_a_length_that_is_none_is_an_error_and_no_crash(
    site: Site, fetcher: Fetcher, part: Path, length: str
) -> None:
    async def answer(peer: Peer, asked: Asked) -> None:
        await peer.send(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode() + TEXT)
        raise ConnectionAbortedError

    with pytest.raises(WireError):
        await fetcher.fetch(_claims(site.put("/a.txt", answer)), part)


async def test_a_rest_with_a_length_of_its_own_is_judged_by_its_range(site: Site, fetcher: Fetcher, part: Path) -> None:
    """Its Content-Length says less than the range it claims to be."""
    span = f"Content-Range: bytes 1000-{len(TEXT) - 1}/{len(TEXT)}\r\n"
    short = whole(TEXT[1_000:3_000], status="206 Partial Content", headers=span)
    url = site.put("/a.txt", cut(TEXT, 1_000, headers=f"ETag: {ETAG}\r\n"), short, resumable(TEXT, ETAG))
    with pytest.raises(TransportError):
        await fetcher.fetch(_claims(url), part)
    with pytest.raises(ReplyError, match=f"3000 bytes came, {len(TEXT)} were announced"):
        await fetcher.fetch(_claims(url), part)
    await fetcher.fetch(_claims(url), part)
    assert part.read_bytes() == TEXT


async def test_the_rest_of_another_file_is_never_put_after_ours(site: Site, fetcher: Fetcher, part: Path) -> None:
    """A server that does not heed If-Range: its ETag tells."""
    other = TEXT.upper()
    span = f'Content-Range: bytes 1000-{len(TEXT) - 1}/{len(TEXT)}\r\nETag: "v2"\r\n'
    wrong = whole(other[1_000:], status="206 Partial Content", headers=span)
    url = site.put("/a.txt", cut(TEXT, 1_000, headers=f"ETag: {ETAG}\r\n"), wrong, whole(other))
    with pytest.raises(TransportError):
        await fetcher.fetch(_claims(url), part)
    with pytest.raises(ReplyError, match="starts over"):
        await fetcher.fetch(_claims(url), part)
    assert _is_clean(part)
    await fetcher.fetch(_claims(url), part)
    assert site.asked[-1].range == (None, None)
    assert part.read_bytes() == other


@pytest.mark.parametrize("etag", ['"\xe9"', '"a b"', '"' + "x" * 600 + '"'])
async def test_an_etag_that_cannot_be_sent_back_is_not_kept(
    site: Site, fetcher: Fetcher, part: Path, etag: str
) -> None:
    async def begins(peer: Peer, asked: Asked) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(TEXT)}\r\nETag: {etag}\r\n\r\n"
        await peer.send(head.encode("latin-1") + TEXT[:1_000])
        raise ConnectionAbortedError

    url = site.put("/a.txt", begins, whole(TEXT))
    with pytest.raises(TransportError):
        await fetcher.fetch(_claims(url), part)
    await fetcher.fetch(_claims(url), part)
    assert site.asked[-1].range == (None, None)
    assert part.read_bytes() == TEXT


async def test_a_packed_file_is_kept_as_it_lies_and_says_so_by_its_extension(
    site: Site, fetcher: Fetcher, part: Path
) -> None:
    """We ask for no packing; who packs all the same sends another file than the one that was promised."""
    packed = gzip.compress(TEXT)
    headers = "Content-Encoding: gzip\r\nContent-Type: text/plain\r\n"
    url = site.put("/a.txt", whole(packed, headers=headers))
    fetched = await fetcher.fetch(_claims(url), part)
    assert site.asked[0].headers["accept-encoding"] == "identity"
    assert (fetched.extension, fetched.content_type) == (".gz", "application/gzip")
    assert fetched.sha256 == hashlib.sha256(packed).digest()
    with pytest.raises(ReplyError, match="announced as image/png and is application/gzip"):
        await fetcher.fetch(Claims(url, "image/png", None), part)
    assert _is_clean(part)


@pytest.mark.parametrize("targets", [["/a"], ["/b", "/a"], ["/b", "/c", "/a"]], ids=["itself", "two", "three"])
async def test_redirects_in_a_circle_end(site: Site, fetcher: Fetcher, part: Path, targets: list[str]) -> None:
    for path, target in zip(["/a", "/b", "/c"], targets, strict=False):
        site.put(path, redirect(target))
    with pytest.raises(TransportError, match="more than 5 redirects"):
        await fetcher.fetch(_claims(f"{site.origin}/a"), part)
    assert len(site.asked) == 6
    assert _is_clean(part)


def _names_lead_to(monkeypatch: pytest.MonkeyPatch, names: dict[str, str]) -> list[str]:
    """Let the system's resolver know these names only. Returns the names that are asked for, as they are."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *more: Any, **other: Any) -> list[Any]:
        asked.append(host)
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (names[host], port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "192.168.7.7", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1"]
)
async def test_a_name_that_leads_to_a_private_address_is_refused_be_it_by_a_redirect(
    site: Site, fetcher: Fetcher, part: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    asked = _names_lead_to(monkeypatch, {"files.example": address})
    inner = "http://files.example:8/x.png"
    for url in (inner, site.put("/a.png", redirect(inner))):
        with pytest.raises(TransportError) as caught:
            await fetcher.fetch(_claims(url), part)
        assert (caught.value.kind, caught.value.sent) == ("refused_address", False)
    assert asked == ["files.example", "files.example"]
    assert len(site.asked) == 1


@pytest.mark.parametrize("user", ["anna:sesame@", "anna@", ":sesame@", "@", "a%40b:sesame@", "sesame@x@"])
async def test_a_url_with_a_user_is_refused_and_the_password_never_said(
    site: Site, fetcher: Fetcher, part: Path, user: str
) -> None:
    inner = site.put("/b.png", whole(TEXT)).replace("//", f"//{user}")
    for url in (inner, site.put("/a.png", redirect(inner)), site.put("/c.png", redirect(inner.removeprefix("http:")))):
        site.asked.clear()
        with pytest.raises(TransportError, match="user or a password") as caught:
            await fetcher.fetch(_claims(url), part)
        assert download_verdict(caught.value) is DownloadVerdict.REFUSED
        assert "sesame" not in str(caught.value)
        assert "anna" not in str(caught.value)
        assert "/b.png" not in [asked.path for asked in site.asked]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://x/a.png?sig=sesame#sesame", "https://x/a.png"),
        ("https://x/a.png#sesame", "https://x/a.png"),
        ("https://anna:sesame@x/a@b.png", "https://x/a@b.png"),
        ("//anna:sesame@x/a", "//x/a"),
        ("https://sesame@sesame@x", "https://x"),
        ("https://x/\x1b]0;owned\x07\n\u202e", "https://x/\ufffd]0;owned\ufffd\ufffd\ufffd"),
        ("https://x/" + "a" * 70_000, "https://x/" + "a" * 190),
    ],
)
def test_a_url_is_said_without_what_is_secret_or_moves_the_cursor(url: str, said: str) -> None:
    assert plain(url) == said


async def test_what_the_user_keeps_for_other_programs_is_not_sent(
    site: Site, fetcher: Fetcher, part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login anna password sesame\ndefault login anna password sesame\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    site.put("/b.txt", whole(TEXT))
    await fetcher.fetch(_claims(site.put("/a.txt", redirect("/b.txt"))), part)
    assert [sorted(asked.headers) for asked in site.asked] == [["accept", "accept-encoding", "host"]] * 2


_hosts = st.one_of(
    st.text(max_size=12),
    st.lists(st.sampled_from([*"a.-_:[]@%\\\0é\u2488\u00ad\ud800", "xn--", "127.1", "::1", "::ffff:", "x" * 64])).map(
        "".join
    ),
)
_urls = st.builds(
    "{}{}{}".format,
    st.sampled_from(["https://", "http://", "HTTPS:", "https:\\\\", "//", ""]),
    _hosts,
    st.one_of(st.text(max_size=12), st.text(max_size=12).map("/{}".format)),
)


@given(_urls)
@example("https://xn--/")
@example("https://127.0.0.1:1/\ud800")
@example("https://a..b/")
@example("https://[::1")
@example("https://x/" + "a" * URL_MOST)
def test_no_url_is_a_bug_and_every_refusal_is_fit_for_a_terminal(url: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _names_lead_to(patch, {})

        async def fetch() -> None:
            settings = TransportSettings(public_only=True, trust_env=False)
            async with Transport(settings=settings) as transport:
                await Fetcher(transport, allow_http=True).fetch(_claims(url), Path("/nonexistent/part"))

        with pytest.raises(TransportError) as caught:
            anyio.run(fetch)
    assert caught.value.sent is False
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < URL_MOST + 200


_FETCHING = """
import sys
from pathlib import Path
import anyio
from falbatch.adapters.fetch import Fetcher
from falbatch.adapters.files import OutputFolder
from falbatch.adapters.limits import FetchLimits
from falbatch.fal.transport import Transport, TransportSettings

async def main(url, root, in_memory_most):
    async with Transport(settings=TransportSettings(trust_env=False)) as transport:
        limits = FetchLimits(in_memory_most=int(in_memory_most))
        files = OutputFolder(Path(root), Fetcher(transport, allow_http=True, limits=limits))
        await files.fetch(url, ".a.part", size_bytes=None, content_type=None)
        await files.publish(".a.part", "a.txt")

anyio.run(main, *sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("in_memory_most", "point", "left"),
    [
        (0, "download.begun", {".a.part": 0, ".a.part.etag": None}),
        (0, "download.half", {".a.part": 1_000, ".a.part.etag": None}),
        (0, "download.whole", {".a.part": len(TEXT), ".a.part.etag": None}),
        (0, "file.renaming", {".a.part": len(TEXT)}),
        (0, "file.renamed", {"a.txt": len(TEXT)}),
        (2_000_000, "download.whole", {".a.part": len(TEXT)}),
        (2_000_000, "file.renaming", {".a.part": len(TEXT)}),
    ],
)
async def test_the_program_can_be_killed_at_each_step(
    site: Site, tmp_path: Path, in_memory_most: int, point: str, left: dict[str, int | None]
) -> None:
    async def in_two(peer: Peer, asked: Asked) -> None:
        await peer.answer(TEXT[:1_000], headers=f"ETag: {ETAG}\r\n", length=len(TEXT))
        await asyncio.sleep(0.2)  # so that it is read by itself
        await peer.send(TEXT[1_000:])

    command = [sys.executable, "-c", _FETCHING, site.put("/a.txt", in_two), str(tmp_path), str(in_memory_most)]
    environment = {**os.environ, "FALBATCH_FAULT_POINT": point}
    done = await anyio.to_thread.run_sync(
        lambda: subprocess.run(command, env=environment, capture_output=True, timeout=WAIT_S, check=False)
    )
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, b"")
    found = {place.name: place.stat().st_size for place in tmp_path.iterdir()}
    assert found == {name: found[name] if size is None else size for name, size in left.items()}


def test_limits_can_be_set_one_by_one() -> None:
    assert replace(FetchLimits(), total_s=1.0).slow_for_s == 30.0
    assert FetchLimits().silent_s == 60.0
