"""The queue's four calls against a small server of fal's shapes, and who gets the key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from falbatch.errors import HttpError, ReplyError, TransportError, WireError
from falbatch.fal.auth import Credentials
from falbatch.fal.exchange import Reply, StreamReply
from falbatch.fal.hosts import Hosts
from falbatch.fal.queue import CancelAnswer, QueueClient, RequestRef, SubmitOptions
from falbatch.fal.wire import Phase
from tests.fal.raw_server import KEY, RID, Peer, served

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from falbatch.fal.transport import Transport

pytestmark = pytest.mark.anyio

CREDENTIALS = Credentials("Key", KEY, source="FAL_KEY")
FLUX = "fal-ai/flux/dev"
REF = RequestRef(RID, FLUX)
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class FakeFal:
    """Answers with what the test put in, and keeps what came."""

    origin: str = ""
    answers: list[web.Response] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((request.method, request.path_qs, headers, await request.read()))
        return self.answers.pop(0)

    @property
    def base(self) -> str:
        return f"{self.origin}/queue"

    def accept(self, **changes: object) -> None:
        base = f"{self.base}/fal-ai/flux/requests/{RID}"
        page = {
            "status": "IN_QUEUE",
            "request_id": RID,
            "queue_position": 2,
            "status_url": f"{base}/status",
            "response_url": base,
            "cancel_url": f"{base}/cancel",
        }
        self.answers.append(web.json_response({**page, **changes}))


@pytest.fixture
async def fal() -> AsyncIterator[FakeFal]:
    fake = FakeFal()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", fake.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


@pytest.fixture
def queue(fal: FakeFal, transport: Transport) -> QueueClient:
    return QueueClient(transport, Hosts(fal.base), CREDENTIALS, user_agent="falbatch/test")


async def test_a_submit_posts_the_ready_bytes_with_every_header(fal: FakeFal, queue: QueueClient) -> None:
    fal.accept()
    options = SubmitOptions(priority="low", headers={"X-Custom": "a"})
    accepted = await queue.submit(FLUX, b'{"seed":7}', options)
    base = f"{fal.base}/fal-ai/flux/requests/{RID}"
    assert (accepted.request_id, accepted.queue_position) == (RID, 2)
    assert (accepted.status_url, accepted.response_url, accepted.cancel_url) == (
        f"{base}/status",
        base,
        f"{base}/cancel",
    )
    [(method, path, headers, body)] = fal.seen
    assert (method, path, body) == ("POST", "/queue/fal-ai/flux/dev", b'{"seed":7}')
    assert headers["authorization"] == f"Key {KEY}"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == "falbatch/test"
    assert headers["x-fal-queue-priority"] == "low"
    assert headers["x-custom"] == "a"


@pytest.mark.parametrize("url", [None, "https://evil.example/x", "http://127.0.0.1:1/queue/x", 7])
async def test_urls_that_are_missing_or_not_trusted_are_rebuilt(fal: FakeFal, queue: QueueClient, url: object) -> None:
    fal.accept(status_url=url, response_url=url, cancel_url=url)
    accepted = await queue.submit(FLUX, b"{}")
    base = f"{fal.base}/fal-ai/flux/requests/{RID}"
    assert accepted.status_url == f"{base}/status"
    assert accepted.response_url == base
    assert accepted.cancel_url == f"{base}/cancel"


async def test_any_2xx_accepts_a_submit(fal: FakeFal, queue: QueueClient) -> None:
    fal.answers.append(web.json_response({"request_id": RID}, status=202))
    assert (await queue.submit(FLUX, b"{}")).request_id == RID


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirected_submit_is_an_error_and_never_followed(
    fal: FakeFal, queue: QueueClient, status: int
) -> None:
    fal.answers.append(web.Response(status=status, headers={"Location": f"{fal.base}/elsewhere"}))
    with pytest.raises(HttpError) as caught:
        await queue.submit(FLUX, b"{}")
    assert caught.value.status == status
    assert len(fal.seen) == 1


async def test_a_broken_acceptance_carries_the_headers_id(fal: FakeFal, queue: QueueClient) -> None:
    for value, known in ((RID, RID), ("no-uuid", "")):
        fal.answers.append(web.Response(body=b"{", headers={"x-fal-request-id": value}))
        with pytest.raises(ReplyError) as caught:
            await queue.submit(FLUX, b"{}")
        assert caught.value.request_id == known


@pytest.mark.parametrize(
    ("status", "header", "raised"),
    [
        ("200 OK", f"x-fal-request-id: {RID}\r\n", ReplyError),
        ("200 OK", "", TransportError),
        ("200 OK", "x-fal-request-id: nonsense\r\n", TransportError),
        ("502 Bad Gateway", f"x-fal-request-id: {RID}\r\n", TransportError),
    ],
)
async def test_an_acceptance_cut_short_is_saved_by_its_header(
    transport: Transport, status: str, header: str, raised: type[Exception]
) -> None:
    async def truncates(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b'{"request_id"', status=status, headers=header, length=500)

    async with served(truncates) as server:
        queue = QueueClient(transport, Hosts(server.origin), CREDENTIALS)
        with pytest.raises(WireError) as caught:
            await queue.submit(FLUX, b"{}")
    assert isinstance(caught.value, raised)
    if isinstance(caught.value, ReplyError):
        assert caught.value.request_id == RID
    if isinstance(caught.value, TransportError):
        assert caught.value.sent


async def test_a_refused_key_is_an_http_error_that_never_shows_it(fal: FakeFal, queue: QueueClient) -> None:
    fal.answers.append(web.json_response({"detail": f"invalid key {KEY}"}, status=401))
    with pytest.raises(HttpError) as caught:
        await queue.submit(FLUX, b"{}")
    assert caught.value.status == 401
    assert caught.value.from_fal
    assert "ksecret" not in str(caught.value) + repr(caught.value)
    assert "ksecret" not in repr(queue) + repr(CREDENTIALS)


async def test_an_endpoint_that_is_none_is_refused_unsent(fal: FakeFal, queue: QueueClient) -> None:
    with pytest.raises(ValueError, match="endpoint id"):
        await queue.submit("https://evil.example/x/y", b"{}")
    assert fal.seen == []


async def test_status_is_asked_at_the_given_url_or_at_the_app_form(fal: FakeFal, queue: QueueClient) -> None:
    page: dict[str, object] = {"status": "IN_PROGRESS", "logs": None, "metrics": {}}
    given = f"{fal.base}/fal-ai/flux/requests/{RID}/status?x=1"
    for ref in (RequestRef(RID, FLUX, status_url=given), REF):
        fal.answers.append(web.json_response(page, status=202))
        assert (await queue.status(ref)).phase is Phase.IN_PROGRESS
    assert [path for _, path, _, _ in fal.seen] == [
        f"/queue/fal-ai/flux/requests/{RID}/status?x=1",
        f"/queue/fal-ai/flux/requests/{RID}/status",
    ]


async def test_a_submit_has_its_path_and_its_query(fal: FakeFal, queue: QueueClient) -> None:
    for _ in range(2):
        fal.accept()
    options = SubmitOptions(webhook_url="https://e.org/a", max_queue_length=5)
    await queue.submit("fal-ai/flux", b"{}", options, path="/dev/")
    await queue.submit(FLUX, b"{}", options, webhook_url="https://e.org/b")
    assert [path for _, path, _, _ in fal.seen] == [
        "/queue/fal-ai/flux/dev?fal_webhook=https%3A%2F%2Fe.org%2Fa&fal_max_queue_length=5",
        "/queue/fal-ai/flux/dev?fal_webhook=https%3A%2F%2Fe.org%2Fb&fal_max_queue_length=5",
    ]
    for path, webhook_url in (("../x", None), ("a?b", None), ("", "nowhere")):
        with pytest.raises(ValueError, match=r"segment|query|webhook_url"):
            await queue.submit(FLUX, b"{}", path=path, webhook_url=webhook_url)
    assert len(fal.seen) == 2


async def test_a_refused_submit_never_tells_its_webhook(fal: FakeFal, queue: QueueClient) -> None:
    fal.answers.append(web.Response(status=500))
    with pytest.raises(HttpError) as caught:
        await queue.submit(FLUX, b"{}", webhook_url="https://e.org/s3cr3t")
    assert "s3cr3t" not in str(caught.value)


async def test_logs_are_asked_for_when_wanted(fal: FakeFal, queue: QueueClient) -> None:
    page = {"status": "IN_PROGRESS", "logs": [{"message": "m"}], "metrics": {}}
    given = f"{fal.base}/fal-ai/flux/requests/{RID}/status?x=1"
    for ref in (RequestRef(RID, FLUX, status_url=given), REF):
        fal.answers.append(web.json_response(page, status=202))
        assert (await queue.status(ref, with_logs=True)).logs == ({"message": "m"},)
    assert [path.rpartition("/")[2] for _, path, _, _ in fal.seen] == ["status?x=1&logs=1", "status?logs=1"]


async def test_a_forged_url_in_a_record_never_gets_the_key(fal: FakeFal, queue: QueueClient) -> None:
    async def steals(peer: Peer) -> None:
        thief.requests.append(await peer.request())

    async with served(steals) as thief:
        forged = RequestRef(RID, FLUX, *(f"{thief.origin}/queue/x",) * 3)
        fal.answers.append(web.json_response({"status": "COMPLETED"}))
        fal.answers.append(web.json_response({"seed": 1}))
        fal.answers.append(web.json_response({"status": "OK"}))
        await queue.status(forged)
        await queue.result(forged)
        await queue.cancel(forged)
        assert thief.connections == 0
    assert [path.removeprefix(f"/queue/fal-ai/flux/requests/{RID}") for _, path, _, _ in fal.seen] == [
        "/status",
        "",
        "/cancel",
    ]


async def test_a_request_id_that_is_no_uuid_never_gets_into_a_url(fal: FakeFal, queue: QueueClient) -> None:
    with pytest.raises(ValueError, match="UUID"):
        await queue.status(RequestRef("../../../other", FLUX))
    assert fal.seen == []


async def test_a_result_comes_with_its_costs(fal: FakeFal, queue: QueueClient) -> None:
    fal.answers.append(
        web.Response(
            body=b'{"seed":18446744073709551617}',
            content_type="application/json",
            headers={"X-Fal-Billable-Units": "1", "X-Fal-Served-From": "r1"},
        )
    )
    result = await queue.result(REF)
    assert result.output == {"seed": 2**64 + 1}
    assert (result.billable_units, result.served_from) == (1.0, "r1")


async def test_a_failed_requests_result_is_an_http_error_of_fals(fal: FakeFal, queue: QueueClient) -> None:
    fal.answers.append(
        web.json_response(
            {"detail": [{"loc": ["body", "x"], "msg": "no", "type": "one_of"}]},
            status=422,
            headers={"x-fal-request-id": RID, "X-Fal-Retryable": "false"},
        )
    )
    with pytest.raises(HttpError) as caught:
        await queue.result(REF)
    error = caught.value
    assert (error.status, error.error_type, error.from_fal, error.retryable) == (422, "one_of", True, False)


async def test_reads_follow_a_redirect_that_stays_where_the_key_may_go(fal: FakeFal, queue: QueueClient) -> None:
    fal.answers.append(web.Response(status=307, headers={"Location": "/queue/moved?y=1"}))
    fal.answers.append(web.json_response({"seed": 1}))
    assert (await queue.result(REF)).output == {"seed": 1}
    assert [path for _, path, _, _ in fal.seen][1] == "/queue/moved?y=1"


async def test_reads_do_not_follow_elsewhere(fal: FakeFal, queue: QueueClient) -> None:
    async def steals(peer: Peer) -> None:
        thief.requests.append(await peer.request())

    async with served(steals) as thief:
        for location in (thief.origin + "/queue/x", "/outside", "https://evil.example", ""):
            fal.answers.append(web.Response(status=302, headers={"Location": location}))
            with pytest.raises(HttpError) as caught:
                await queue.result(REF)
            assert caught.value.status == 302
    assert thief.connections == 0


async def test_redirects_come_to_an_end(fal: FakeFal, queue: QueueClient) -> None:
    for n in range(10):
        fal.answers.append(web.Response(status=302, headers={"Location": f"/queue/{n}"}))
    with pytest.raises(HttpError):
        await queue.status(REF)
    assert len(fal.seen) == 4


async def test_a_cancel_is_a_put_without_body(fal: FakeFal, queue: QueueClient) -> None:
    fal.answers.append(web.json_response({"status": "CANCELLATION_REQUESTED"}, status=202))
    fal.answers.append(web.json_response({"status": "ALREADY_COMPLETED"}, status=400))
    fal.answers.append(web.json_response({"status": "NOT_FOUND"}, status=404))
    fal.answers.append(web.Response(status=502, body=b"<html>nginx"))
    assert await queue.cancel(REF) is CancelAnswer.ACCEPTED
    assert await queue.cancel(REF) is CancelAnswer.ALREADY_COMPLETED
    assert await queue.cancel(REF) is CancelAnswer.NOT_FOUND
    with pytest.raises(HttpError) as caught:
        await queue.cancel(REF)
    assert not caught.value.from_fal
    method, path, headers, body = fal.seen[0]
    assert (method, path, body) == ("PUT", f"/queue/fal-ai/flux/requests/{RID}/cancel", b"")
    assert headers.get("content-length", "0") == "0"


async def test_nothing_is_repeated_here(fal: FakeFal, queue: QueueClient) -> None:
    for status in (408, 429, 500, 502, 503, 504):
        fal.seen.clear()
        fal.answers = [web.Response(status=status)]
        with pytest.raises(HttpError):
            await queue.submit(FLUX, b"{}")
        fal.answers = [web.Response(status=status)]
        with pytest.raises(HttpError):
            await queue.status(REF)
        assert len(fal.seen) == 2


async def test_namespaces_and_legacy_ids_have_their_urls() -> None:
    urls: list[str] = []

    class Recorder:
        async def request(self, method: str, url: str, **more: object) -> Reply:
            urls.append(f"{method} {url}")
            return Reply(200, {}, f'{{"request_id":"{RID}","status":"COMPLETED"}}'.encode())

        def stream(self, url: str, **more: object) -> AbstractAsyncContextManager[StreamReply]:
            raise AssertionError

    queue = QueueClient(Recorder(), Hosts("https://queue.fal.run"), CREDENTIALS)
    for endpoint in ("workflows/me/mine/x", "110602490-lora"):
        await queue.submit(endpoint, b"{}")
        await queue.status(RequestRef(RID, endpoint))
    assert urls == [
        "POST https://queue.fal.run/workflows/me/mine/x",
        f"GET https://queue.fal.run/workflows/me/mine/requests/{RID}/status",
        "POST https://queue.fal.run/110602490/lora",
        f"GET https://queue.fal.run/110602490/lora/requests/{RID}/status",
    ]


async def test_many_calls_at_once_share_one_client(fal: FakeFal, queue: QueueClient) -> None:
    fal.answers = [web.json_response({"status": "IN_QUEUE", "queue_position": 0}) for _ in range(200)]
    pages = await asyncio.gather(*(queue.status(REF) for _ in range(200)))
    assert {page.phase for page in pages} == {Phase.IN_QUEUE}
