"""Every way a submit can end, on real sockets, and what the engine may do next: nothing here is ever paid twice.

nothing was sent ──▶ UNREACHED, again later        fal said no ──▶ REFUSED, REJECTED, ACCOUNT
fal gave an id   ──▶ ACCEPTED                      all else    ──▶ UNKNOWN, never sent again by itself
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from falbatch.core.classify import SubmitVerdict, submit_verdict
from falbatch.errors import ReplyError, WireError
from falbatch.fal.auth import Credentials
from falbatch.fal.hosts import Hosts
from falbatch.fal.queue import QueueClient
from falbatch.fal.transport import Transport, TransportSettings
from tests.fal import conditions as c
from tests.fal.conditions import Condition, Scene, acting, answers, message, over_tls, redirects
from tests.fal.raw_server import KEY, RID

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("carrier")]

ACCEPTED = "ACCEPTED"
UNREACHED, REFUSED, REJECTED, ACCOUNT, UNKNOWN = (
    SubmitVerdict.UNREACHED,
    SubmitVerdict.REFUSED,
    SubmitVerdict.REJECTED,
    SubmitVerdict.ACCOUNT,
    SubmitVerdict.UNKNOWN,
)

FAL_ID = f"x-fal-request-id: {RID}\n"
STRANGER = "5e9d1c07-0000-4000-8000-000000000000"
NGINX = b"<html><head><title>%s</title></head><center>nginx</center></html>"
SHORT_S = 0.3
"""For cases that must time out."""
BIG = 8_000_000
"""Bytes of a body that no socket buffer holds: the client is still writing when the server acts."""


async def nothing(scene: Scene) -> None:
    """What happens by default before the last submit."""


async def a_while(scene: Scene) -> None:
    await asyncio.sleep(0.1)


async def connections_are_reset(scene: Scene) -> None:
    """With no turn of the client's loop in between: it cannot know."""
    for peer in scene.peers:
        peer.reset_hard()


async def connections_are_closed(scene: Scene) -> None:
    for peer in scene.peers:
        peer.reset()


async def connections_are_closed_a_while_ago(scene: Scene) -> None:
    await connections_are_closed(scene)
    await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Case:
    name: str
    condition: Condition
    verdict: SubmitVerdict | str
    posts: int = 1
    """POSTs that the server read, those of `before` included."""
    timeout_s: float = 5.0
    body: bytes = field(default=b'{"prompt":"a red kite"}', repr=False)
    before: int = 0
    """Submits on the same connection that went well."""
    between: Callable[[Scene], Awaitable[None]] = nothing

    @property
    def needs_openssl(self) -> bool:
        return self.name.startswith("TLS:")


def replies(name: str, data: bytes, verdict: SubmitVerdict | str, **more: bool) -> Case:
    return Case(name, acting(answers(data, **more)), verdict)


def statuses() -> list[Case]:
    """Each status bare, with fal's request id, and as a gateway's page."""
    verdicts = {
        "400 Bad Request": REJECTED,
        "401 Unauthorized": ACCOUNT,
        "402 Payment Required": ACCOUNT,
        "403 Forbidden": ACCOUNT,
        "404 Not Found": REJECTED,
        "405 Method Not Allowed": REJECTED,
        "408 Request Timeout": UNKNOWN,
        "409 Conflict": REJECTED,
        "413 Content Too Large": REJECTED,
        "422 Unprocessable Entity": REJECTED,
        "429 Too Many Requests": REFUSED,
        "499 Client Closed Request": UNKNOWN,
        "500 Internal Server Error": UNKNOWN,
        "502 Bad Gateway": UNKNOWN,
        "503 Service Unavailable": UNKNOWN,
        "504 Gateway Timeout": UNKNOWN,
        "520 Web Server Returned an Unknown Error": UNKNOWN,
    }
    detail = b'{"detail":"no"}'
    cases = []
    for status, verdict in verdicts.items():
        cases += [
            replies(f"{status}, bare", message(status, detail), verdict),
            replies(f"{status}, fal's id", message(status, detail, FAL_ID), verdict),
            replies(f"{status}, nginx", message(status, NGINX % status.encode(), "Server: nginx\n"), verdict),
        ]
    later = "Retry-After: 7\n"
    return [
        *cases,
        replies("429, Retry-After", message("429 Too Many Requests", detail, later), REFUSED),
        replies("503, Retry-After", message("503 Service Unavailable", detail, later), UNKNOWN),
        replies("429, then closed", message("429 Too Many Requests", detail), REFUSED, then_closes=True),
    ]


def cut(status: str, headers: str = "", verdict: SubmitVerdict | str = UNKNOWN) -> Case:
    data = message(status, b'{"request_id":"', headers, length=500)
    return replies(f"{status} cut short, {headers.strip() or 'bare'}", data, verdict, then_closes=True)


OVERSIZE = b" " * (17 * 1024 * 1024)
CHUNKED = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{FAL_ID.strip()}\r\n\r\n".encode()
PLAIN_10 = f'HTTP/1.0 200 OK\r\n\r\n{{"request_id":"{RID}"}}'.encode()

UNSENT = [
    Case("refused", c.nobody_listens, UNREACHED, posts=0),
    Case("unknown name", c.no_such_name, UNREACHED, posts=0),
    Case("connect hangs", c.nobody_accepts, UNREACHED, posts=0, timeout_s=SHORT_S),
    Case("TLS expected, plain text came", over_tls(acting(c.is_no_tls_server)), UNREACHED, posts=0),
    Case("TLS expected, closed", over_tls(acting(c.resets_at_once)), UNREACHED, posts=0),
    Case("TLS expected, silence", over_tls(acting(c.never_reads)), UNREACHED, posts=0, timeout_s=SHORT_S),
    Case("TLS: stranger's certificate", acting(answers(c.accepted()), certificate="stranger"), UNREACHED, posts=0),
    Case("TLS: another host's certificate", acting(answers(c.accepted()), certificate="other"), UNREACHED, posts=0),
]
BROKEN = [
    Case("reset before the head is read", acting(c.resets_at_once), UNKNOWN, posts=0),
    Case("reset within the body", acting(c.resets_after_the_head), UNKNOWN, body=bytes(BIG)),
    Case("closed within the body", acting(c.closes_after_the_head), UNKNOWN, body=bytes(BIG)),
    Case("reset after the body", acting(c.resets_after_the_body), UNKNOWN),
    Case("closed without an answer", acting(c.closes_without_an_answer), UNKNOWN),
    Case("never read", acting(c.never_reads), UNKNOWN, posts=0, timeout_s=SHORT_S),
    Case("never read, big", acting(c.never_reads), UNKNOWN, posts=0, timeout_s=SHORT_S, body=bytes(BIG)),
    Case("read, no answer", acting(c.sends_and_hangs(b"")), UNKNOWN, timeout_s=SHORT_S),
    Case("half a head", acting(c.sends_and_hangs(b"HTTP/1.1 200 OK\r\nx-fal")), UNKNOWN, timeout_s=SHORT_S),
    Case("no body", acting(c.sends_and_hangs(message("200 OK", length=9))), UNKNOWN, timeout_s=SHORT_S),
    Case(
        "no body, id", acting(c.sends_and_hangs(message("200 OK", b"", FAL_ID, length=9))), ACCEPTED, timeout_s=SHORT_S
    ),
    Case("TLS: reset after the body", acting(c.resets_after_the_body, certificate="good"), UNKNOWN),
    # TLS 1.3: the server refuses our missing certificate after our side of the handshake, and the request, are out.
    Case("TLS: asks for ours", acting(answers(b""), certificate="good", asks_for_one=True), UNKNOWN, posts=0),
]
SAID = [
    replies("accepted", c.accepted(), ACCEPTED),
    replies("accepted, 202", c.accepted().replace(b"200 OK", b"202 Accepted"), ACCEPTED),
    replies("accepted, then closed", c.accepted(), ACCEPTED, then_closes=True),
    replies("accepted after 100", b"HTTP/1.1 100 Continue\r\n\r\n" + c.accepted(), ACCEPTED),
    replies("accepted after 103", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + c.accepted(), ACCEPTED),
    replies("accepted in HTTP/1.0", PLAIN_10, ACCEPTED, then_closes=True),
    replies("cut in HTTP/1.0", PLAIN_10[:-9], UNKNOWN, then_closes=True),
    replies("100 and the end", b"HTTP/1.1 100 Continue\r\n\r\n", UNKNOWN, then_closes=True),
    Case("TLS: accepted", acting(answers(c.accepted()), certificate="good"), ACCEPTED),
    cut("200 OK"),
    cut("200 OK", FAL_ID, ACCEPTED),
    cut("200 OK", "x-fal-request-id: none\n"),
    cut("502 Bad Gateway", FAL_ID),
    cut("429 Too Many Requests", FAL_ID),
    replies("chunks cut", CHUNKED + b'5\r\n{"req', ACCEPTED, then_closes=True),
    # The library throws a head away that comes in one piece with garbage: its id is lost with it.
    replies("chunks garbled", CHUNKED + b"zz\r\n{}\r\n", UNKNOWN),
    replies("no JSON", message("200 OK", b"<html>"), UNKNOWN),
    replies("no JSON, id", message("200 OK", b"<html>", FAL_ID), ACCEPTED),
    replies("empty", message("200 OK"), UNKNOWN),
    replies("204", b"HTTP/1.1 204 No Content\r\n\r\n", UNKNOWN),
    replies("no id", message("200 OK", b'{"status":"IN_QUEUE"}'), UNKNOWN),
    replies("an id that is none", c.accepted(request_id="../../x"), UNKNOWN),
    replies("no gzip, id", message("200 OK", b"no gzip", f"Content-Encoding: gzip\n{FAL_ID}"), ACCEPTED),
    replies("oversize", message("200 OK", OVERSIZE), UNKNOWN),
    replies("oversize, id", message("200 OK", OVERSIZE, FAL_ID), ACCEPTED),
    replies("oversize 422, id", message("422 Unprocessable Entity", OVERSIZE, FAL_ID), REJECTED),
    replies("oversize 503, id", message("503 Service Unavailable", OVERSIZE, FAL_ID), UNKNOWN),
    replies("garbage", b"220 smtp ready\r\n", UNKNOWN),
    replies("a TLS alert", bytes([21, 3, 3, 0, 2, 2, 40]), UNKNOWN, then_closes=True),
    replies("a header of 40 KB", c.accepted(f"x-long: {'x' * 40_000}\n"), UNKNOWN),
    replies("a thousand headers", c.accepted("x-many: y\n" * 1000), UNKNOWN),
    replies("a length that is none", c.accepted().replace(b"Length: ", b"Length: -"), UNKNOWN),
    replies("101", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", UNKNOWN),
    replies("304", b"HTTP/1.1 304 Not Modified\r\n\r\n", UNKNOWN),
]
REDIRECTED = [
    Case("301", redirects("301 Moved Permanently"), REJECTED),
    Case("302", redirects("302 Found"), REJECTED),
    # "See other" is what a server says that has done what it was asked (RFC 9110 §15.4.4).
    Case("303", redirects("303 See Other"), UNKNOWN),
    Case("307", redirects("307 Temporary Redirect"), REJECTED),
    Case("308", redirects("308 Permanent Redirect"), REJECTED),
]


def stray(name: str, data: bytes) -> Case:
    """What came unasked on an idle connection is nobody's answer: the next submit opens a new one."""
    return Case(name, acting(c.answers_and_babbles(c.accepted(), data)), ACCEPTED, posts=2, before=1, between=a_while)


STALE = [
    Case("kept", acting(answers(c.accepted())), ACCEPTED, posts=2, before=1),
    Case("reset unseen", acting(answers(c.accepted())), UNKNOWN, before=1, between=connections_are_reset),
    Case("closed unseen", acting(answers(c.accepted())), UNKNOWN, before=1, between=connections_are_closed),
    Case(
        "closed and seen",
        *(acting(answers(c.accepted())), ACCEPTED, 2),
        before=1,
        between=connections_are_closed_a_while_ago,
    ),
    stray("408 unasked", message("408 Request Timeout", b"", "Connection: close\n")),
    stray("429 unasked", message("429 Too Many Requests")),
    stray("a stranger's acceptance unasked", c.accepted(request_id=STRANGER)),
    stray("noise unasked", b"\0"),
    Case("two answers in one piece", acting(answers(c.accepted() * 2)), ACCEPTED, posts=2, before=1),
]
CASES = [*UNSENT, *BROKEN, *SAID, *REDIRECTED, *STALE, *statuses()]


async def outcome_of(queue: QueueClient, case: Case) -> SubmitVerdict | str:
    """As the engine sees it (`engine/submit.py`): an id is an acceptance, wherever it stood."""
    try:
        answer = await queue.submit("fal-ai/flux/dev", case.body, timeout_s=case.timeout_s)
        request_id = answer.request_id
    except WireError as error:
        if not isinstance(error, ReplyError) or not error.request_id:
            return submit_verdict(error)
        request_id = error.request_id
    assert request_id == RID
    return ACCEPTED


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


def trusting(folder: Path) -> ssl.SSLContext:
    """The client's context: it trusts the one `good` certificate."""
    c.context(folder, "good")
    return ssl.create_default_context(cafile=str(folder / "good.pem"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_each_end_of_a_submit_has_its_verdict_and_is_sent_once(case: Case, folder: Path) -> None:
    if case.needs_openssl and c.OPENSSL is None:
        pytest.skip("no openssl here to make certificates with")
    scene = Scene(folder)
    context = trusting(folder) if case.needs_openssl else None
    settings = TransportSettings(trust_env=False, ssl_context=context)
    async with case.condition(scene) as origin, Transport(settings=settings) as transport:
        queue = QueueClient(transport, Hosts(origin), Credentials("Key", KEY, source="FAL_KEY"))
        for _ in range(case.before):
            assert await outcome_of(queue, case) == ACCEPTED
        await case.between(scene)
        verdict = await outcome_of(queue, case)
        await asyncio.sleep(0.02)  # whoever sends again would do it now
        assert (verdict, len(scene.posts)) == (case.verdict, case.posts)
        assert scene.elsewhere == []


def test_the_cases_have_names_of_their_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
