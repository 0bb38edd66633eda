"""A fal that costs next to nothing, so that a benchmark measures the client: `python -m tests.bench.fal`.

Made from fal's protocol alone, under the sandbox's paths: `/queue` (fal-protocol §3), `/cdn/files`, and of `/api/v1`
prices and an empty request list (§11). It parses HTTP/1.1 by hand: requests with Content-Length or no body, one after
another on a connection that stays. Nothing is painted, checked or kept on disk; no call is refused but those without a
key, and nothing is cancelled. `GET /bench/stats?first=N`, `POST /bench/reset`, `POST /bench/settings` steer it.

Its first line on stdout is its address. It ends when its stdin does.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import parse_qs

import orjson

from tests.bench.fal_line import Line, Request
from tests.bench.pictures import jpeg, side_of

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD_END: Final = b"\r\n\r\n"
PING_S: Final = 15.0
"""Between two comments on a status stream (fal-protocol §3.3)."""
LATE_S: Final = 0.001
"""The loop's timers may be early by a little, and a phase told twice is told for nothing."""

_REASONS: Final = {200: b"OK", 202: b"Accepted", 400: b"Bad Request", 401: b"Unauthorized", 404: b"Not Found"}
_JSON_HEAD: Final = {
    code: b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\n" % (code, reason) for code, reason in _REASONS.items()
}
_FILE: Final = b"HTTP/1.1 200 OK\r\ncontent-type: image/jpeg\r\naccept-ranges: none\r\ncontent-length: %d\r\n\r\n"
_STREAM: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
_NOT_FOUND: Final = b'{"status":"NOT_FOUND"}'
_NO_KEY: Final = b'{"detail":"invalid key credentials"}'
_TOO_EARLY: Final = b'{"detail":"Request is still in progress"}'
_EMPTY_LIST: Final = b'{"items":[],"next_cursor":null,"has_more":false}'


def json_reply(code: int, body: bytes, more: bytes = b"") -> bytes:
    """A whole answer; `more` are header lines, each with its end."""
    return b"%s%scontent-length: %d\r\n\r\n%s" % (_JSON_HEAD[code], more, len(body), body)


class Fal:
    """What is asked of the benchmarks' fal, and what it answers."""

    def __init__(self) -> None:
        self.line = Line()
        self.origin = b""

    def answer(self, method: bytes, target: bytes, head: bytes, body: bytes) -> bytes | Request:
        """The whole answer, or the request whose status stream is wanted."""
        path, _, query = target.partition(b"?")
        if path.startswith(b"/queue/"):
            return self._queue(method, path[7:], head, body)
        if path.startswith(b"/cdn/files/"):
            return self._file()
        if path.startswith(b"/api/v1/"):
            return self._platform(path[8:], query)
        if path.startswith(b"/bench/"):
            return self._control(path[7:], query, body)
        self.line.counts.unknown += 1
        return json_reply(404, _NOT_FOUND)

    def _queue(self, method: bytes, path: bytes, head: bytes, body: bytes) -> bytes | Request:
        now, counts = time.monotonic(), self.line.counts
        counts.first_call = counts.first_call or now
        if b"\r\nauthorization: key " not in head:
            return json_reply(401, _NO_KEY)
        _, _, rest = path.partition(b"/requests/")
        if not rest:
            return self._submit(path, body, now)
        request = self.line.find(rest[:36].decode("ascii", "replace"))
        if request is None:
            return json_reply(404, _NOT_FOUND)
        match rest[36:].rstrip(b"/"):
            case b"/status":
                return self._status(request, now)
            case b"":
                return self._result(request, now)
            case b"/status/stream":
                counts.streams += 1
                return request
            case b"/cancel" if method == b"PUT":
                return json_reply(202, b'{"status":"CANCELLATION_REQUESTED"}')
        counts.unknown += 1
        return json_reply(404, _NOT_FOUND)

    def _submit(self, endpoint: bytes, body: bytes, now: float) -> bytes:
        app = b"/".join(endpoint.split(b"/", 2)[:2]).decode()
        request = self.line.submit(app, body, now)
        said = b'{"status":"IN_QUEUE","queue_position":%d,%s,"logs":null,"metrics":{}}'
        more = b"x-fal-request-id: %s\r\n" % request.id.encode()
        return json_reply(200, said % (self.line.ahead(request, now), self._urls(request)), more)

    def _status(self, request: Request, now: float) -> bytes:
        self.line.counts.status_calls += 1
        request.status_calls += 1
        return json_reply(200 if now >= request.ends else 202, self.progress(request, now))

    def progress(self, request: Request, now: float) -> bytes:
        """The status object; when it says COMPLETED, somebody has noticed."""
        urls = self._urls(request)
        if now >= request.ends:
            request.noticed = request.noticed or now
            said = b'{"status":"COMPLETED",%s,"logs":null,"metrics":{"inference_time":%.6f}}'
            return said % (urls, request.ends - request.starts)
        if now >= request.starts:
            return b'{"status":"IN_PROGRESS",%s,"logs":null,"metrics":{}}' % urls
        return b'{"status":"IN_QUEUE","queue_position":%d,%s}' % (self.line.ahead(request, now), urls)

    def _result(self, request: Request, now: float) -> bytes:
        counts = self.line.counts
        if now < request.ends:
            counts.early_results += 1
            return json_reply(400, _TOO_EARLY)
        request.noticed = request.noticed or now
        body = self._output(request)
        counts.results += 1
        counts.result_bytes += len(body)
        return json_reply(200, body, b"x-fal-request-id: %s\r\nx-fal-billable-units: 1\r\n" % request.id.encode())

    def _output(self, request: Request) -> bytes:
        given = orjson.loads(request.body) if request.body else {}
        size = self.line.settings.file_bytes
        picture = {
            "url": f"{self.origin.decode()}/cdn/files/b/{request.id}.jpg",
            "width": side_of(size),
            "height": side_of(size),
            "content_type": "image/jpeg",
            "file_name": f"{request.id}.jpg",
            "file_size": size,
        }
        output = {
            "images": [picture],
            "timings": {"inference": request.ends - request.starts},
            "seed": given.get("seed", request.position),
            "has_nsfw_concepts": [False],
            "prompt": given.get("prompt", ""),
        }
        return orjson.dumps(output)

    def _urls(self, request: Request) -> bytes:
        said = '"request_id":"{0}","response_url":"{1}","status_url":"{1}/status","cancel_url":"{1}/cancel"'
        return said.format(request.id, f"{self.origin.decode()}/queue/{request.app}/requests/{request.id}").encode()

    def _file(self) -> bytes:
        counts, body = self.line.counts, jpeg(self.line.settings.file_bytes)
        counts.files += 1
        counts.file_bytes += len(body)
        counts.first_file = counts.first_file or time.monotonic()
        return _FILE % len(body) + body

    def _platform(self, path: bytes, query: bytes) -> bytes:
        self.line.counts.platform_calls += 1
        if path == b"models/requests/by-endpoint":
            return json_reply(200, _EMPTY_LIST)
        if path == b"models/pricing":
            asked = ",".join(parse_qs(query.decode()).get("endpoint_id", [])).split(",")
            prices = [{"endpoint_id": one, "unit_price": 0.003, "unit": "image", "currency": "USD"} for one in asked]
            return json_reply(200, orjson.dumps({"prices": prices, "next_cursor": None, "has_more": False}))
        self.line.counts.unknown += 1
        return json_reply(404, b'{"error":{"type":"not_found","message":"not found"}}')

    def _control(self, path: bytes, query: bytes, body: bytes) -> bytes:
        if path == b"stats":
            first = int(parse_qs(query.decode()).get("first", ["0"])[0])
            usage = resource.getrusage(resource.RUSAGE_SELF)
            more = {"cpu_s": usage.ru_utime + usage.ru_stime}
            return json_reply(200, orjson.dumps(self.line.stats(first, time.monotonic()) | more))
        if path == b"settings":
            self.line.set(orjson.loads(body))
            jpeg(self.line.settings.file_bytes)  # painted before it is asked for
        else:
            self.line.reset()
        return json_reply(200, b"{}")


class Connection(asyncio.Protocol):
    """One connection: whole requests in, whole answers out."""

    def __init__(self, fal: Fal) -> None:
        self._fal = fal
        self._held = b""
        self._transport: asyncio.Transport | None = None
        self._stream: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stream is not None:
            self._stream.cancel()

    def data_received(self, data: bytes) -> None:
        held = self._held + data if self._held else data
        while (end := held.find(HEAD_END)) >= 0:
            line, _, rest = held[:end].partition(b"\r\n")
            head = b"\r\n" + rest.lower() + b"\r\n"
            whole = end + 4 + content_length(head)
            if len(held) < whole:
                break
            method, target, _ = line.split(b" ")
            self._send(self._fal.answer(method, target, head, held[end + 4 : whole]))
            held = held[whole:]
        self._held = held

    def _send(self, answer: bytes | Request) -> None:
        if self._transport is None:
            return
        if isinstance(answer, bytes):
            self._transport.write(answer)
        else:
            self._stream = asyncio.get_running_loop().create_task(self._tell(self._transport, answer))

    async def _tell(self, transport: asyncio.Transport, request: Request) -> None:
        """The status stream: an event for each phase, comments between them, the end after COMPLETED."""
        transport.write(_STREAM)
        while True:
            now = time.monotonic()
            transport.write(b"data: %s\n\n" % self._fal.progress(request, now))
            if now >= request.ends:
                break
            until = request.ends if now >= request.starts else request.starts
            while (left_s := until - time.monotonic()) > PING_S:
                await asyncio.sleep(PING_S)
                transport.write(b": ping\n\n")
            await asyncio.sleep(max(0.0, left_s) + LATE_S)
        transport.close()


def content_length(head: bytes) -> int:
    """Bytes of the body, from a head in lower case; 0 when it names none."""
    start = head.find(b"\r\ncontent-length:")
    return int(head[start + 17 : head.find(b"\r\n", start + 17)]) if start >= 0 else 0


async def serve() -> None:
    """Serve until stdin ends."""
    fal, loop = Fal(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(fal), "127.0.0.1", 0, backlog=4096)
    host, port = server.sockets[0].getsockname()
    fal.origin = f"http://{host}:{port}".encode()
    print(fal.origin.decode(), flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


def loop_factory() -> Callable[[], Any]:
    """uvloop's where it is installed: about twice as fast."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve())
