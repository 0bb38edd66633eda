"""An app written with fal's own SDK, served on this machine without fal's cloud: what a real app's server side says.

    python reverser.py PORT      serves http://127.0.0.1:PORT/me/app, /me/app/stream and /me/app/realtime

Run by an interpreter that has the SDK (package `fal`), which needs older tools than ours. The SDK builds an ASGI app
from the class; uvicorn, which the SDK itself runs in fal's cloud, serves it. Only what stands in front of an app there
is missing: the queue, keys, request ids, tokens, billing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator  # noqa: TC003  (fastapi reads the annotations)
from typing import Any

import fal
import uvicorn
from fal.exceptions import AppException, FieldException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

PREFIX = "/me/app"


class Input(BaseModel):
    prompt: str
    steps: int = Field(default=3, ge=1, le=8)
    seed: int | None = None


class Output(BaseModel):
    text: str
    seed: int
    steps: int


def made(given: Input) -> Output:
    return Output(text=given.prompt[::-1], seed=7 if given.seed is None else given.seed, steps=given.steps)


class Reverser(fal.App):
    @fal.endpoint("/")
    def run_it(self, given: Input) -> Output:
        if given.prompt == "forbidden":
            raise FieldException("prompt", "this prompt is not allowed", type="content_policy_violation")
        if given.prompt == "busy":
            raise AppException("no capacity", status_code=503)
        if given.prompt == "crash":
            raise RuntimeError("a bug of the app's own")
        return made(given)

    @fal.endpoint("/stream")
    def stream_it(self, given: Input) -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            for step in range(1, given.steps):
                partial = {"partial": True, "text": given.prompt[::-1][:step]}
                yield f"data: {json.dumps(partial, ensure_ascii=False)}\n\n"
            yield f"data: {made(given).model_dump_json()}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @fal.realtime("/realtime")
    def talk(self, given: Input) -> Output:
        return made(given)


def main(port: int) -> None:
    inner = Reverser(_allow_init=True)._build_app()

    async def under_its_id(scope: dict[str, Any], receive: Any, send: Any) -> None:
        # In the cloud a gateway takes the endpoint id off the path.
        if scope["type"] != "lifespan" and scope["path"].startswith(PREFIX):
            path = scope["path"].removeprefix(PREFIX) or "/"
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await inner(scope, receive, send)

    uvicorn.run(under_its_id, host="127.0.0.1", port=port, lifespan="on", log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]))
