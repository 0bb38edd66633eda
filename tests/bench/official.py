"""The peer: the same jobs through fal's official client, in the usual way.

`python -m tests.bench.official ORIGIN JOBS IN_FLIGHT FOLDER` submits the inputs that `manifests.py` writes, at most
IN_FLIGHT at a time (a semaphore around `subscribe`), and writes each picture to FOLDER. It keeps no state, hashes and
checks nothing. Only the client's URL constants are changed, to reach plain http on loopback.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

import fal_client.client as official
import httpx

from tests.bench.manifests import ENDPOINT

TIMEOUT_S: Final = 300.0
"""httpx gives up connecting after 5 s, and is that busy itself with hundreds in flight."""


async def work(origin: str, jobs: int, in_flight: int, folder: Path) -> None:
    """Do `jobs` jobs."""
    official.QUEUE_URL_FORMAT = f"{origin}/queue/"
    official.RUN_URL_FORMAT = f"{origin}/run/"
    client = official.AsyncClient(key="bench:theirs")
    limit = asyncio.Semaphore(in_flight)
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=in_flight), timeout=TIMEOUT_S) as http:

        async def one(number: int) -> None:
            async with limit:
                result = await client.subscribe(ENDPOINT, arguments={"prompt": f"bench {number}", "seed": number})
                reply = await http.get(result["images"][0]["url"])
                reply.raise_for_status()
                (folder / f"{number}.jpg").write_bytes(reply.content)

        await asyncio.gather(*(one(number) for number in range(jobs)))


if __name__ == "__main__":
    _, origin, jobs, in_flight, folder = sys.argv
    asyncio.run(work(origin, int(jobs), int(in_flight), Path(folder)))
