"""`POST /run/…/stream`: what an endpoint makes, as server-sent events while it is being made (fal-protocol §5.2).

The end of a request is decided when it begins (`verdict`), so its output is known then, and the events before the
last are made of it: text that grows, previews that sharpen, the nodes of a workflow.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from falbatch.sandbox.answers import answer
from falbatch.sandbox.direct import answer_at_end, begin, pause_s
from falbatch.sandbox.ids import digest
from falbatch.sandbox.preview import preview_uri
from falbatch.sandbox.replies import Reply, Stream, dumps
from falbatch.sandbox.states import Status
from falbatch.sandbox.status_stream import PING, PING_S

if TYPE_CHECKING:
    from falbatch.sandbox.direct import Caller
    from falbatch.sandbox.requests import Request
    from falbatch.sandbox.world import World

_PREVIEWS: Final = 3
"""Events before the last one, of all that is no text."""

_WORDS: Final = 6
"""By so many the text of an event is longer than that of the one before."""

_NODE_APP: Final = "fal-ai/flux/dev"
"""What the one node of every workflow runs."""

_NODE: Final = "node-1"

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Timed:
    """An event, and the part of the run after which it comes."""

    at: float
    event: Event


async def stream(world: World, caller: Caller, raw: bytes) -> Reply | Stream:
    """Begin a request and tell of it as it goes on. One that fails is a plain HTTP error, as with every call."""
    request = begin(world, caller, raw)
    if isinstance(request, Reply):
        return request
    await world.settled()
    foreseen = await answer(world, as_ended(request), caller.call.origin)
    is_flow = caller.endpoint.full.startswith("workflows/")
    if foreseen.status != 200 and (not is_flow or request.verdict.is_invalid):
        return await answer_at_end(world, caller, request)
    body = json.loads(foreseen.body)
    feed = _Feed(world, caller, request, _flow(request, foreseen.status, body) if is_flow else await _partials(body))
    headers = {"Cache-Control": "no-store", **foreseen.headers}
    return Stream(feed.next_chunk, headers, ragged=True, closed=lambda: world.leave(request))


def as_ended(request: Request) -> Request:
    """The same request as it will be."""
    if request.status is Status.COMPLETED:
        return request
    return replace(request, status=Status.COMPLETED, ended_at=request.finishes_at)


def texts(output: Event) -> list[Timed]:
    """A text as it grows, word by word, every event marked as partial."""
    words = output["output"].split(" ")
    ends = range(_WORDS, len(words), _WORDS)
    rest = {name: None for name in ("usage",) if name in output}
    return [
        Timed(end / len(words), {**output, "output": " ".join(words[:end]), "partial": True, **rest}) for end in ends
    ]


async def _partials(output: Event) -> list[Timed]:
    """The events before the last one, which is the output itself."""
    if isinstance(output.get("output"), str) and "partial" in output:
        return texts(output)
    found = []
    for step in range(1, _PREVIEWS + 1):
        event: Event = {"progress": step / (_PREVIEWS + 1)}
        if isinstance(output.get("images"), list):
            event["images"] = await _previews(output["images"], step)
        found.append(Timed(event["progress"], event))
    return found


async def _previews(images: list[Event], step: int) -> list[Event]:
    """Small pictures that show more at each step, in the place of `images`."""
    found = []
    for number, image in enumerate(images):
        width, height = (max(8, (image.get(side) or 512) // 8) for side in ("width", "height"))
        uri = await asyncio.to_thread(preview_uri, width, height, step, urlsplit(image["url"]).path, number)
        found.append({"url": uri, "width": width, "height": height, "content_type": "image/jpeg"})
    return found


def _flow(request: Request, status: int, body: Event) -> list[Timed]:
    """The events of a workflow of one node before the last; a node that fails is the last (§5.2)."""
    node = {"node_id": _NODE}
    node_request = str(UUID(bytes=digest("node", request.id), version=4))
    begun = {"type": "submit", **node, "app_id": _NODE_APP, "request_id": node_request}
    if status == 200:
        return [Timed(0.0, begun), Timed(0.9, {"type": "completion", **node, "output": body})]
    return [Timed(0.0, begun)]


class _Feed:
    """What is still to be told of one request."""

    def __init__(self, world: World, caller: Caller, request: Request, partials: list[Timed]) -> None:
        self._world = world
        self._caller = caller
        self._request = request
        self._partials = deque(partials)
        self._is_over = False

    async def next_chunk(self) -> bytes | None:
        """Wait for the next event, at most until the next ping. None after the last, or once the caller has gone."""
        world, request = self._world, self._request
        silent_since = world.now()
        while not self._is_over:
            now = world.catch_up()
            due = self._due()
            if self._partials and (now >= due or request.status is Status.COMPLETED):
                return _event(self._partials.popleft().event)
            if request.status is Status.COMPLETED:
                self._is_over = True
                return _event(await self._last())
            if self._caller.call.has_left() or not world.knows(request):
                break
            if now - silent_since >= PING_S:
                return PING
            await asyncio.sleep(pause_s(due, now))
        return None

    def _due(self) -> float:
        """When the next event is due, Unix seconds."""
        begun, ends = self._request.started_at or 0.0, self._request.finishes_at or 0.0
        return begun + (ends - begun) * self._partials[0].at if self._partials else ends

    async def _last(self) -> Event:
        """The last event: the output, or how it failed."""
        await self._world.settled()
        reply = await answer(self._world, self._request, self._caller.call.origin)
        body: Event = json.loads(reply.body)
        if not self._caller.endpoint.full.startswith("workflows/"):
            return body
        if reply.status == 200:
            return {"type": "output", "output": body}
        message = f"The node failed with status {reply.status}"
        return {"type": "error", "node_id": _NODE, "message": message, "error": {"status": reply.status, "body": body}}


def _event(event: Event) -> bytes:
    return b"data: " + dumps(event) + b"\n\n"
