"""Files over plain transports, for comparison.

`python -m tests.bench.plain_downloads KIND ORIGIN FILES AT_ONCE FOLDER`

Each file is streamed to FOLDER and synced, AT_ONCE of them at a time; nothing is hashed, checked, resumed or recorded.
Prints `{"wall_s": …, "cpu_s": …}`, without what starting Python and importing the library took.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import os
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

Jobs = list[tuple[str, Path]]
"""URL and place of each file."""


def aiohttp_side(jobs: Jobs, at_once: int) -> Callable[[], None]:
    """aiohttp without anything around it."""
    import aiohttp

    async def work() -> None:
        async with aiohttp.ClientSession() as session:

            async def one(url: str, path: Path) -> None:
                async with session.get(url) as reply:
                    await _keep(reply.content.iter_any(), path)

            await _all(one, jobs, at_once)

    return lambda: asyncio.run(work())


def httpx_side(jobs: Jobs, at_once: int) -> Callable[[], None]:
    """httpx as it comes."""
    import httpx

    async def work() -> None:
        async with httpx.AsyncClient() as client:

            async def one(url: str, path: Path) -> None:
                async with client.stream("GET", url) as reply:
                    await _keep(reply.aiter_raw(), path)

            await _all(one, jobs, at_once)

    return lambda: asyncio.run(work())


def pycurl_side(jobs: Jobs, at_once: int) -> Callable[[], None]:
    """libcurl, a thread for each file at a time."""
    pycurl = importlib.import_module("pycurl")  # not everywhere, and without types

    def one(job: tuple[str, Path]) -> None:
        url, path = job
        curl = pycurl.Curl()
        with path.open("wb", buffering=0) as file:
            curl.setopt(pycurl.URL, url)
            curl.setopt(pycurl.WRITEDATA, file)
            curl.setopt(pycurl.NOSIGNAL, 1)
            curl.setopt(pycurl.BUFFERSIZE, 512 * 1024)
            curl.perform()
            os.fsync(file.fileno())
        curl.close()

    def work() -> None:
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(one, jobs))

    return work


def pyreqwest_side(jobs: Jobs, at_once: int) -> Callable[[], None]:
    """reqwest (Rust), through its own Python interface."""
    client_of = importlib.import_module("pyreqwest.client")  # not everywhere

    async def work() -> None:
        async with client_of.ClientBuilder().build() as client:

            async def one(url: str, path: Path) -> None:
                async with client.get(url).build_streamed() as reply:
                    reader = reply.body_reader

                    async def chunks() -> AsyncIterator[bytes]:
                        while (chunk := await reader.read_chunk()) is not None:
                            yield chunk

                    await _keep(chunks(), path)

            await _all(one, jobs, at_once)

    return lambda: asyncio.run(work())


KINDS: Final = {"aiohttp": aiohttp_side, "httpx": httpx_side, "pycurl": pycurl_side, "pyreqwest": pyreqwest_side}


def installed() -> list[str]:
    """The kinds whose library is here."""
    return [kind for kind in KINDS if importlib.util.find_spec(kind) is not None]


async def _all(one: Callable[[str, Path], Awaitable[None]], jobs: Jobs, at_once: int) -> None:
    limit = asyncio.Semaphore(at_once)

    async def limited(url: str, path: Path) -> None:
        async with limit:
            await one(url, path)

    await asyncio.gather(*(limited(url, path) for url, path in jobs))


async def _keep(chunks: AsyncIterator[bytes], path: Path) -> None:
    """Small plain writes cost less in the loop than in a thread; the sync waits for the disk."""
    with path.open("wb", buffering=0) as file:
        async for chunk in chunks:
            file.write(chunk)
        await asyncio.to_thread(os.fsync, file.fileno())


def main() -> None:
    """Do what the command line says."""
    _, kind, origin, files, at_once, folder = sys.argv
    jobs = [(f"{origin}/cdn/files/b/{number}.jpg", Path(folder) / f"{number}.jpg") for number in range(int(files))]
    work = KINDS[kind](jobs, int(at_once))
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    work()
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s}))


if __name__ == "__main__":
    main()
