"""The two sides of the benchmark, each a process of its own.

`python -m tests.bench.workers SIDE ORIGIN JOBS IN_FLIGHT DIR`

Both submit the same inputs, wait for each result and write each picture to disk. falbatch also keeps its state durable.
Prints one JSON object: wall seconds, CPU seconds, peak memory in MiB.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

ENDPOINT = "fal-ai/flux/schnell"


def given(number: int) -> dict[str, object]:
    """Input number `number`: a small picture, so that painting costs the sandbox little."""
    return {"prompt": f"bench {number}", "seed": number, "image_size": {"width": 64, "height": 64}}


def falbatch_side(origin: str, jobs: int, in_flight: int, folder: Path) -> None:
    """The batch through falbatch, as the command line does it."""
    import os

    import falbatch

    os.environ.update({"FALBATCH_ORIGIN": origin, "FAL_KEY": "bench:ours"})
    manifest = folder / "bench.yaml"
    manifest.write_text(
        f"""\
version: 1
endpoint: {ENDPOINT}
rows: {{range: [0, {jobs}]}}
input: {{prompt: "bench {{{{ row.value }}}}", seed: "{{{{ row.value }}}}", image_size: {{width: 64, height: 64}}}}
output: {{dir: out, name: "{{{{ row.value }}}}"}}
limits: {{in_flight: {in_flight}, submits_per_s: 1000, polls_per_s: 1000}}
""",
        encoding="utf-8",
    )
    report = falbatch.run(manifest)
    if report.exit_code != 0:
        raise SystemExit(f"falbatch did not finish: {report}")


def official_side(origin: str, jobs: int, in_flight: int, folder: Path) -> None:
    """The batch through fal's official client in the usual way: a semaphore around `subscribe_async` and a download.

    Only its URL constants are changed, to reach plain http on loopback.
    """
    import asyncio

    import fal_client.client as official
    import httpx

    official.QUEUE_URL_FORMAT = f"{origin}/queue/"
    official.RUN_URL_FORMAT = f"{origin}/run/"

    async def main() -> None:
        client = official.AsyncClient(key="bench:theirs")
        limit = asyncio.Semaphore(in_flight)
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=in_flight)) as http:

            async def one(number: int) -> None:
                async with limit:
                    result = await client.subscribe(ENDPOINT, arguments=given(number))
                    reply = await http.get(result["images"][0]["url"])
                    reply.raise_for_status()
                    (folder / f"{number}.jpg").write_bytes(reply.content)

            await asyncio.gather(*(one(number) for number in range(jobs)))

    asyncio.run(main())


def measure(side: str, origin: str, jobs: int, in_flight: int, folder: Path) -> dict[str, float]:
    """Run one side and account for it."""
    work = {"falbatch": falbatch_side, "official": official_side}[side]
    began_s = time.perf_counter()
    work(origin, jobs, in_flight, folder)
    wall_s = time.perf_counter() - began_s
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024}


if __name__ == "__main__":
    _, side, origin, jobs, in_flight, folder = sys.argv
    print(json.dumps(measure(side, origin, int(jobs), int(in_flight), Path(folder))))
