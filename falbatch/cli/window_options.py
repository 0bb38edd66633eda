"""Flags of the small direct windows on fal: `init`, `call`, `upload`, `models`, `schema`, `price`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    Make = Callable[..., argparse.ArgumentParser]


def add_windows(commands: Any, command: Make, positive: Callable[[str], int]) -> None:
    """Add all six; `command` makes a parser with examples and exit codes, `positive` reads a whole number from 1."""
    _init(commands, command)
    _call(commands, command)
    _upload(commands, command)
    _models(commands, command, positive)
    _schema(commands, command)
    _price(commands, command)


def _place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sandbox", action="store_true", help="ask a local emulator of fal: no key, no cost")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout")


def _validation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-validate", action="store_true", help="do not check the input against the endpoint's own schema"
    )


def _key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key-file", metavar="FILE", type=Path, help="read the fal key from FILE (otherwise FAL_KEY, then a login)"
    )


def _init(commands: Any, command: Make) -> None:
    parser = command(
        commands,
        "init",
        "write a first manifest for an endpoint, with every field of its schema; it runs as it is",
        (0, 1, 2, 5, 8),
        "falbatch init fal-ai/flux/dev --sandbox",
        "falbatch init fal-ai/flux/dev batches/portraits.yaml",
    )
    parser.add_argument("endpoint", metavar="ENDPOINT", help="an endpoint id, such as fal-ai/flux/dev")
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        type=Path,
        help="where to write it (default: by the endpoint, flux-dev.yaml); - for stdout. The manifest's JSON Schema,"
        " falbatch.schema.json, is put beside it for editors",
    )
    parser.add_argument("--force", action="store_true", help="replace the file if it is there")
    parser.add_argument("--stdout", action="store_true", help="write no file, print the manifest")
    _place(parser)


def _call(commands: Any, command: Make) -> None:
    parser = command(
        commands,
        "call",
        "call an endpoint once, without a manifest; each call is billed",
        (0, 1, 2, 3, 4, 5, 8, 130),
        'falbatch call fal-ai/flux/schnell prompt="a red kite" seed=7 --output pictures --sandbox',
        'falbatch call fal-ai/any-llm model=openai/gpt-4o-mini prompt="why is the sky blue?" --stream',
    )
    parser.add_argument("endpoint", metavar="ENDPOINT", help="an endpoint id, such as fal-ai/flux/dev")
    parser.add_argument(
        "fields",
        metavar="NAME=VALUE",
        nargs="*",
        help="fields of the input. A value that is JSON is taken as such (7, true, null, [1,2]), else it is text"
        " (NAME='\"7\"' is the text 7); a.b=1 sets a field of a field; NAME=@FILE uploads a file and gives its URL",
    )
    parser.add_argument(
        "--input", metavar="FILE", type=Path, help="the input as a JSON or YAML file; fields come over it"
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--run", action="store_true", help="call directly and wait on the connection, not through the queue"
    )
    way.add_argument("--stream", action="store_true", help="print each event as it comes; the last one is the result")
    way.add_argument("--realtime", action="store_true", help="send one message over a WebSocket, print the answer")
    way.add_argument("--result", metavar="ID", help="submit nothing: wait for the request ID and print its result")
    parser.add_argument("--logs", action="store_true", help="show what the model writes while it works, on stderr")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        help="give up after this, and cancel the request if this command made it; of a stream, bounds each silence",
    )
    parser.add_argument("--output", metavar="DIR", type=Path, help="download the result's files into this folder")
    _key(parser)
    _validation(parser)
    _place(parser)


def _upload(commands: Any, command: Make) -> None:
    parser = command(
        commands,
        "upload",
        "upload files to fal and print their URLs, one a line",
        (0, 1, 2, 4, 5, 130),
        "falbatch upload README.md --sandbox",
        "falbatch upload photos/*.jpg --expires-in 1d",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="a file; large ones go in parts")
    parser.add_argument(
        "--expires-in", metavar="LIFE", help="how long fal keeps them: 1h, 1d, 7d, 30d, 1y, never, or seconds"
    )
    _key(parser)
    _place(parser)


def _models(commands: Any, command: Make, positive: Callable[[str], int]) -> None:
    parser = command(
        commands,
        "models",
        "search fal's models",
        (0, 1, 2, 4, 5),
        "falbatch models flux --sandbox",
        "falbatch models --category text-to-video --limit 20",
    )
    parser.add_argument("query", metavar="WORDS", nargs="*", help="words to look for; all models without")
    parser.add_argument("--category", default="", help="only of this kind, such as text-to-image")
    parser.add_argument("--status", choices=("active", "deprecated"), default="", help="only of this status")
    parser.add_argument("--limit", metavar="N", type=positive, default=50, help="at most N (default: 50)")
    _key(parser)
    _place(parser)


def _schema(commands: Any, command: Make) -> None:
    parser = command(
        commands,
        "schema",
        "show what an endpoint takes and gives; or print the JSON Schema of manifests",
        (0, 1, 2, 5),
        "falbatch schema fal-ai/flux/dev --sandbox",
        "falbatch schema --manifest > falbatch.schema.json",
    )
    parser.add_argument("endpoint", metavar="ENDPOINT", nargs="?", help="an endpoint id, such as fal-ai/flux/dev")
    parser.add_argument(
        "--manifest", action="store_true", help="instead: the JSON Schema of manifests, for editors and other tools"
    )
    _place(parser)


def _price(commands: Any, command: Make) -> None:
    parser = command(
        commands,
        "price",
        "show what endpoints cost, or what one call would; submits nothing",
        (0, 1, 2, 4, 5),
        "falbatch price fal-ai/flux/dev fal-ai/veo3.1 --sandbox",
        "falbatch price fal-ai/flux/dev num_images=4 image_size=square_hd --sandbox",
    )
    parser.add_argument("endpoints", metavar="ENDPOINT", nargs="+", help="an endpoint id, such as fal-ai/flux/dev")
    parser.add_argument(
        "fields", metavar="NAME=VALUE", nargs="*", help="fields of an input, as for `call`: what would that call cost?"
    )
    _key(parser)
    _validation(parser)
    _place(parser)
