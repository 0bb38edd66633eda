"""The engine for inputs that live in Python: results as they come, all kept in a state file.

Run it twice: the second time everything is known already, and nothing is submitted.
"""

import asyncio
from pathlib import Path

import falbatch

OUTPUT = Path("outputs/map")


async def main() -> None:
    """Ask for three pictures."""
    inputs = [{"prompt": f"a {color} kite", "image_size": "square"} for color in ("red", "green", "blue")]
    async for outcome in falbatch.map(
        "fal-ai/flux/schnell", inputs, state=OUTPUT / "kites.db", output=OUTPUT, sandbox=True
    ):
        print(outcome.index, outcome.input["prompt"], outcome.state, [file.name for file in outcome.files])


asyncio.run(main())
