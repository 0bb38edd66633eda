"""The same from a program that has an event loop, following the events of the run."""

import asyncio
from pathlib import Path

import falbatch
from falbatch.core.events import JobEnded, RunEvent


def listen(event: RunEvent) -> None:
    """Called for everything that happens; must be quick."""
    if isinstance(event, JobEnded):
        print(f"{event.name}: {event.state}")


async def main() -> None:
    """One run."""
    manifest = Path(__file__).with_name("kites.yaml")
    report = await falbatch.arun(manifest, falbatch.RunOptions(sandbox=True), listen=listen)
    print(f"exit code {int(report.exit_code)}")


asyncio.run(main())
