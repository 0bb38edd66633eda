"""What a request that has ended answers, whoever asks: the result call, a direct call, a stream, a webhook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from falbatch.sandbox.pages import failure_reply, result_headers
from falbatch.sandbox.replies import Reply, json_reply
from falbatch.sandbox.sources import work_of

if TYPE_CHECKING:
    from falbatch.sandbox.requests import Request
    from falbatch.sandbox.world import World


async def answer(world: World, request: Request, origin: str) -> Reply:
    """The app's own answer to a COMPLETED request: status, headers and body, the same however often it is asked for.

    `origin` is the sandbox as the asker knows it: URLs of files begin with it.
    """
    if request.verdict.status != 200:
        return failure_reply(request)
    work = work_of(world, request)
    urls = [await world.gallery.data_uri(medium) for medium in work.files] if work.is_inline else work.urls(origin)
    return json_reply(200, work.output(urls), result_headers(request))


def kept_output(world: World, request: Request, origin: str) -> dict[str, Any] | None:
    """The output as the request history has it: None of a failure, and with `sync_mode` (fal-protocol §7.1)."""
    if request.verdict.status != 200:
        return None
    work = work_of(world, request)
    return None if work.is_inline else work.output(work.urls(origin))
