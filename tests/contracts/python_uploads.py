"""Uploads and a request with fal's Python client as it is, against the sandbox that the environment names.

    python -m tests.contracts.python_uploads ORIGIN FOLDER

Only addresses that the client holds as constants are set from outside, and the sizes at which it uploads in parts.
Prints one JSON object: what was uploaded under which URL, and what came of the request.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import fal_client
from fal_client import client as module
from PIL import Image

PAYLOAD = {"prompt": "a red kite", "image_size": {"width": 64, "height": 64}, "seed": 7}
SECRET = fal_client.StorageSettings(
    expires_in="1h",
    initial_acl=fal_client.StorageACL(
        default="forbid", rules=[fal_client.StorageACLRule(user="friend", decision="allow")]
    ),
)


def sync_answers(folder: Path) -> dict[str, Any]:
    """All with the sync client."""
    client = fal_client.SyncClient()
    big = (folder / "big.bin").read_bytes()
    found: dict[str, Any] = {
        "bytes": client.upload(b"hello", "text/plain", "hello.txt"),
        "file": client.upload_file(folder / "small.txt"),
        "image": client.upload_image(Image.new("RGB", (8, 8), "red"), "png"),
        "parts": client.upload(big, "application/octet-stream", "big.bin"),
        "parts of a file": client.upload_file(folder / "big.bin"),
        "restricted": client.upload(b"secret", "text/plain", "secret.txt", lifecycle=SECRET),
        "target": client.upload(b"hello", "text/plain", "hello.txt", repository="fal"),
    }
    handle = client.submit("fal-ai/flux/dev", {**PAYLOAD, "image_url": found["image"]})
    found["result"] = handle.get()
    found["status"] = type(handle.status()).__name__
    return found


async def async_answers(folder: Path) -> dict[str, Any]:
    """All with the async client."""
    client = fal_client.AsyncClient()
    big = (folder / "big.bin").read_bytes()
    found: dict[str, Any] = {
        "bytes": await client.upload(b"hello", "text/plain", "hello.txt"),
        "file": await client.upload_file(folder / "small.txt"),
        "image": await client.upload_image(Image.new("RGB", (8, 8), "red"), "png"),
        "parts": await client.upload(big, "application/octet-stream", "big.bin"),
        "parts of a file": await client.upload_file(folder / "big.bin"),
        "restricted": await client.upload(b"secret", "text/plain", "secret.txt", lifecycle=SECRET),
        "target": await client.upload(b"hello", "text/plain", "hello.txt", repository="fal"),
    }
    handle = await client.submit("fal-ai/flux/dev", {**PAYLOAD, "image_url": found["image"]})
    found["result"] = await handle.get()
    found["status"] = type(await handle.status()).__name__
    return found


def main() -> None:
    """Run both."""
    origin, folder = sys.argv[1], Path(sys.argv[2])
    module.REST_URL, module.CDN_URL = f"{origin}/rest", f"{origin}/cdn"
    module.MULTIPART_THRESHOLD, module.MULTIPART_CHUNK_SIZE = 50_000, 20_000
    answers = {"sync": sync_answers(folder), "async": asyncio.run(async_answers(folder))}
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main()
