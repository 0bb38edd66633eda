"""Every public call of fal's Python client, made with the module that the command line names, against a sandbox.

    python -m tests.contracts.python_driver MODULE sync|async ORIGIN FOLDER

`MODULE` is `fal_client` or `falbatch.client`: the same script runs with either, which is what moving over means. Prints
one JSON object: scenario → what came of it, in a form that can be compared.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import importlib
import inspect
import json
import ssl
import sys
import urllib.request
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

IMAGE: Final = "fal-ai/flux/schnell"
SLOW: Final = "fal-ai/veo3.1"
"""Takes a minute at the sandbox's pace, seconds at the tests'."""
TEXT: Final = "fal-ai/any-llm"
LIVE: Final = "fal-ai/fast-lcm-diffusion"
KITE: Final = {"prompt": "a red kite", "image_size": {"width": 64, "height": 64}, "seed": 7}
PLEA: Final = {"prompt": "say “hello”, in three words", "model": "openai/gpt-4o-mini"}
BIG_BYTES: Final = 101 * 1024 * 1024
"""Just over the size from which the official client uploads in parts."""

SENT: Final = ("x-fal-runner-hint", "x-fal-queue-priority", "x-fal-request-timeout", "x-mine")
"""Headers of a submit that are compared."""


class Door:
    """The module under test, its sync or its async functions."""

    def __init__(self, fal: Any, origin: str, *, is_async: bool) -> None:
        self.fal = fal
        self.origin = origin
        self.is_async = is_async

    async def call(self, name: str, *args: Any, **more: Any) -> Any:
        """Call a function of the module."""
        return await self.of(getattr(self.fal, f"{name}_async" if self.is_async else name)(*args, **more))

    async def of(self, value: Any) -> Any:
        """What a call gave, awaited where it is to be."""
        return await value if inspect.isawaitable(value) else value

    async def all(self, events: Any) -> list[Any]:
        """All that an iterator gives."""
        if hasattr(events, "__aiter__"):
            return [event async for event in events]
        return list(events)

    async def within(self, context: Any, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """`work` done inside a context manager of either kind."""
        if isinstance(context, AbstractAsyncContextManager):
            async with context as inside:
                return await work(inside)
        assert isinstance(context, AbstractContextManager)
        with context as inside:
            return await work(inside)

    def events(self, name: str, *args: Any, **more: Any) -> Any:
        """An iterator or context manager, unopened."""
        return getattr(self.fal, f"{name}_async" if self.is_async else name)(*args, **more)

    async def plain(self, value: Any) -> Any:
        """`value` as JSON that says the same for every sandbox."""
        if isinstance(value, bytes):
            return {"sha256": hashlib.sha256(value).hexdigest(), "size": len(value)}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return {"is": type(value).__name__, **await self.plain(fields)}
        if isinstance(value, dict):
            return {str(key): await self.plain(part) for key, part in value.items() if key != "timings"}
        if isinstance(value, list | tuple):
            return [await self.plain(part) for part in value]
        return value.replace(self.origin, "ORIGIN") if isinstance(value, str) else value

    def sandbox(self, path: str) -> Any:
        """What the sandbox's control route says."""
        return json.loads(self.read(f"{self.origin}/sandbox/{path}")[0])

    def read(self, url: str) -> tuple[bytes, str]:
        """A file and its content type."""
        context = ssl.create_default_context() if url.startswith("https:") else None
        with urllib.request.urlopen(url, timeout=30, context=context) as reply:
            return reply.read(), reply.headers["Content-Type"]

    async def refusal(self, call: Callable[[], Any]) -> Any:
        """How a call failed, as the module's own error tells it."""
        try:
            value = await self.of(call())
        except self.fal.FalClientHTTPError as error:
            return {
                "message": await self.plain(error.message),
                "status": error.status_code,
                "type": error.error_type,
                "body": await self.plain(error.response.json()),
                "request_id": error.response_headers.get("x-fal-request-id", ""),
            }
        except self.fal.FalClientTimeoutError as error:
            return {"timeout": error.timeout, "request_id": error.request_id}
        return {"no refusal": await self.plain(value)}


async def calling(door: Door) -> dict[str, Any]:
    """Direct calls."""
    told = {"headers": {"X-Mine": "yes"}, "hint": "near", "start_timeout": 30}
    output = await door.call("run", IMAGE, arguments=KITE, **told)
    latest = door.sandbox("ledger")["executions"][-1]["request_id"]
    return {
        "run": output,
        "run sent": sent_with(door, latest),
        "run with a path": await door.call("run", "fal-ai/flux", KITE, path="/schnell", method="POST", timeout=20),
        "run refused": await door.refusal(lambda: door.call("run", IMAGE, {**KITE, "num_images": 99})),
        "run of nothing": await door.refusal(lambda: door.call("run", "fal-ai/does-not-exist", KITE)),
    }


def sent_with(door: Door, request_id: str) -> dict[str, Any]:
    """The headers and the query that the sandbox saw."""
    page = door.sandbox(f"requests/{request_id}")
    headers: dict[str, Any] = {name: page["headers"].get(name) for name in SENT}
    if headers["x-fal-request-timeout"]:  # seconds: 30 and 30.0 are the same
        headers["x-fal-request-timeout"] = float(headers["x-fal-request-timeout"])
    return {"headers": headers, "query": page["query"]}


async def queueing(door: Door) -> dict[str, Any]:
    """Submit, status, result, cancel, and handles."""
    more = {"hint": "near", "priority": "low", "headers": {"X-Mine": "yes"}, "start_timeout": 30}
    handle = await door.call("submit", IMAGE, arguments=KITE, webhook_url="https://example.org/hook?a=1&b=2", **more)
    kinds = [type(event).__name__ for event in await door.all(handle.iter_events(with_logs=True, interval=0.02))]
    ended = await door.of(handle.status(with_logs=True))
    refused = await door.call("submit", "fal-ai/flux/dev", {"prompt": 5})
    return {
        "submit": [handle.request_id, handle.response_url, handle.status_url, handle.cancel_url],
        "submit sent": sent_with(door, handle.request_id),
        "iter_events ends": kinds[-1],
        "iter_events kinds": sorted({*kinds} - {"Completed"} & {"Queued", "InProgress"}) != [] or len(kinds) == 1,
        "status": [type(ended).__name__, ended.error, ended.error_type, [log["message"] for log in ended.logs]],
        "status by id": await door.call("status", IMAGE, handle.request_id, with_logs=False),
        "get": await door.of(handle.get(interval=0.02)),
        "result": await door.call("result", IMAGE, handle.request_id),
        "result refused": await door.refusal(lambda: refused.get(interval=0.02)),
        "status of nobody": await door.refusal(
            lambda: door.call("status", IMAGE, "00000000-0000-4000-8000-000000000000")
        ),
    }


async def cancelling(door: Door) -> dict[str, Any]:
    """A queued request is dropped; a finished one cannot be."""
    running = [await door.call("submit", SLOW, {"prompt": f"waves {number}"}) for number in range(2)]
    queued = await door.call("submit", SLOW, {"prompt": "waves"})
    first = await door.of(queued.status())
    await door.of(queued.cancel())
    ended = await door.of(queued.status())
    got = await door.refusal(lambda: queued.get(interval=0.02))
    for handle in running:
        await door.call("cancel", SLOW, handle.request_id)
    return {
        "queued": [type(first).__name__, first.position],
        "cancelled": [type(ended).__name__, ended.error, ended.error_type],
        "result of a cancelled one": got,
    }


async def subscribing(door: Door) -> dict[str, Any]:
    """Submit, wait, result in one call, and what is told on the way."""
    ids: list[str] = []
    kinds: list[str] = []

    def update(status: Any) -> None:
        kinds.append(type(status).__name__)

    more = {"with_logs": True, "interval": 0.02, "priority": "normal", "start_timeout": 20, "client_timeout": 25}
    output = await door.call("subscribe", IMAGE, KITE, on_enqueue=ids.append, on_queue_update=update, **more)
    late = await door.refusal(lambda: door.call("subscribe", SLOW, {"prompt": "a long wait"}, client_timeout=1.5))
    status = await door.call("status", SLOW, late["request_id"]) if late.get("request_id") else None
    return {
        "subscribe": output,
        "on_enqueue": ids,
        "on_queue_update ends": kinds[-1],
        "client_timeout": late,
        "after client_timeout": type(status).__name__,
    }


async def streaming(door: Door) -> dict[str, Any]:
    """Server-sent events."""
    return {
        "stream": await door.all(door.events("stream", TEXT, PLEA)),
        "stream of images": await door.all(door.events("stream", IMAGE, arguments=KITE, path="/stream", timeout=20)),
    }


async def talking(door: Door) -> dict[str, Any]:
    """Realtime connections, with a token and with the key; and a raw one."""

    async def two(connection: Any) -> list[Any]:
        answers = []
        for seed in (1, 2):
            await door.of(connection.send({**KITE, "seed": seed}))
            answers.append(await door.of(connection.recv()))
        return answers

    async def wrong(connection: Any) -> Any:
        await door.of(connection.send({"prompt": 5}))
        try:
            return await door.plain(await door.of(connection.recv()))
        except Exception as error:  # noqa: BLE001  (RealtimeError is not among the official client's public names)
            return [type(error).__name__, getattr(error, "error", ""), getattr(error, "reason", "")]

    async def raw(connection: Any) -> Any:
        await door.of(connection.send(json.dumps({**KITE, "seed": 3})))
        answer = await door.of(connection.recv())
        return sorted(json.loads(answer)) if isinstance(answer, str) else type(answer).__name__

    return {
        "realtime": await door.within(door.events("realtime", LIVE), two),
        "realtime by key": await door.within(door.events("realtime", LIVE, use_jwt=False, max_buffering=2), two),
        "realtime refused": await door.within(door.events("realtime", LIVE, token_expiration=60), wrong),
        "ws_connect": await door.within(door.events("ws_connect", LIVE, path="/realtime"), raw),
    }


async def uploading(door: Door, folder: Path) -> dict[str, Any]:
    """Every kind of upload; judged by what comes down again."""
    fal = door.fal
    picture = folder / "naïve kite.png"
    image = Image.new("RGB", (32, 24), (200, 30, 30))
    image.save(picture)
    big = folder / "big.bin"
    with big.open("wb") as file:
        for part in range(BIG_BYTES // 4096):
            file.write(hashlib.sha256(part.to_bytes(4)).digest() * 128)
    acl = fal.StorageACL(default="forbid", rules=[fal.StorageACLRule(user="friend", decision="allow")])
    lifecycle = fal.StorageSettings(expires_in="1h", initial_acl=acl)
    made = {
        "upload of bytes": await door.call("upload", b"some bytes", "text/plain", "notes.txt"),
        "upload of text": await door.call("upload", "grüße", "text/plain", file_name="gruß.txt"),
        "upload of a file": await door.call("upload_file", picture),
        "upload of an image": await door.call("upload_image", image, format="png"),
        "upload by the other way": await door.call("upload", b"other", "text/plain", "o.txt", repository="fal"),
        "upload that ends": await door.call("upload", b"short", "text/plain", lifecycle=fal.StorageSettings("1d")),
        "upload in parts": await door.call("upload_file", big),
    }
    hidden = await door.call("upload", b"mine alone", "text/plain", "secret.txt", lifecycle=lifecycle)
    answers: dict[str, Any] = {}
    for name, url in made.items():
        body, content_type = door.read(url)
        answers[name] = [await door.plain(body), content_type, Path(url).suffix]
    try:
        answers["upload with an ACL"] = len(door.read(hidden)[0])
    except urllib.error.HTTPError as error:
        answers["upload with an ACL"] = error.code
    answers["encode"] = [
        fal.encode(b"\x00\xff", "image/png"),
        fal.encode_file(picture) == fal.encode(picture.read_bytes(), "image/png"),
        fal.encode_image(image, format="png").partition(",")[0],
    ]
    return answers


async def refused_keys(door: Door) -> dict[str, Any]:
    """A key that nobody has."""
    client = (door.fal.AsyncClient if door.is_async else door.fal.SyncClient)(key="nobody:wrong")
    refusal = await door.refusal(lambda: client.submit(IMAGE, KITE))
    return {"a wrong key": [refusal["status"], refusal["body"]]}


async def everything(door: Door, folder: Path) -> dict[str, Any]:
    """All scenarios, in an order that gives every client the same request ids."""
    answers: dict[str, Any] = {}
    for scenario in (calling, queueing, cancelling, subscribing, streaming, talking, refused_keys):
        answers |= await scenario(door)
    answers |= await uploading(door, folder)
    return {name: await door.plain(answer) for name, answer in answers.items()}


def main() -> None:
    name, way, origin, folder = sys.argv[1:]
    fal = importlib.import_module(name)
    if name == "fal_client":
        # The hosts that it cannot be told by the environment (the constants that its users patch, too).
        inside: Any = importlib.import_module("fal_client.client")
        inside.REST_URL, inside.CDN_URL = f"{origin}/rest", f"{origin}/cdn"
    door = Door(fal, origin, is_async=way == "async")
    answers = asyncio.run(everything(door, Path(folder)))
    json.dump(answers, sys.stdout, ensure_ascii=False, default=str)


if __name__ == "__main__":
    main()
