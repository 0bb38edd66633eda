"""A script that was written for fal's own Python client, moved over: only its import line has changed."""

import asyncio
import sys
from pathlib import Path

import falbatch.client as fal_client  # it was: import fal_client

STYLES = ["oil painting", "watercolor", "etching"]


def on_queue_update(update: fal_client.Status) -> None:
    """Tell about logs while a request runs."""
    if isinstance(update, fal_client.InProgress):
        for log in update.logs or []:
            print(log["message"], file=sys.stderr)


async def paint(style: str) -> str:
    """One picture of a style; its URL."""
    handler = await fal_client.submit_async(
        "fal-ai/flux/schnell", arguments={"prompt": f"{style} of a kite", "image_size": "square", "seed": 42}
    )
    async for event in handler.iter_events(with_logs=True):
        on_queue_update(event)
    result = await handler.get()
    return str(result["prompt"])


async def main() -> None:
    """A sketch in, three pictures out."""
    sketch = Path(__file__).with_name("kites.yaml")
    url = fal_client.upload_file(sketch)
    print("uploaded", url.startswith("http"))
    for prompt in await asyncio.gather(*[paint(style) for style in STYLES]):
        print("painted", prompt)
    output = fal_client.subscribe(
        "fal-ai/flux/dev",
        arguments={"prompt": "a kite", "num_images": 2, "image_size": "square"},
        with_logs=True,
        on_queue_update=on_queue_update,
    )
    print("then", len(output["images"]), "more")
    try:
        fal_client.subscribe("fal-ai/flux/dev", arguments={"prompt": "a kite", "num_images": 99})
    except fal_client.FalClientHTTPError as error:
        print("refused with", error.status_code)


asyncio.run(main())
