"""What a request that has ended answers, whoever asks: the result call, a direct call, a stream, a webhook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from falbatch.sandbox.outputs import file_url, output, pictures
from falbatch.sandbox.pages import failure_reply, result_headers
from falbatch.sandbox.replies import Reply, json_reply

if TYPE_CHECKING:
    from falbatch.sandbox.requests import Request
    from falbatch.sandbox.world import World


async def answer(world: World, request: Request, origin: str) -> Reply:
    """The app's own answer to a COMPLETED request: status, headers and body, the same however often it is asked for.

    `origin` is the sandbox as the asker knows it: URLs of files begin with it.
    """
    if request.verdict.status != 200:
        return failure_reply(request)
    payload = request.payload
    made = pictures(request, payload)
    if payload.get("sync_mode"):
        urls = [await world.gallery.data_uri(picture) for picture in made]
    else:
        urls = [file_url(origin, request, picture) for picture in made]
    return json_reply(200, output(request, payload, made, urls), result_headers(request))
