"""Flags and help texts. Imports nothing heavy: `falbatch --help` must answer at once."""

from __future__ import annotations

import argparse
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from falbatch.cli.window_options import add_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_CODES: Final = {
    0: "all done",
    1: "a bug in falbatch",
    2: "the manifest or the command line is wrong",
    3: "some jobs failed, are unknown or unfinished",
    4: "no key, a refused key or a locked account",
    5: "fal cannot be reached",
    6: "the state file is in use, damaged or another batch's",
    7: "a failure limit or the cost limit was reached",
    8: "the disk is full",
    130: "stopped by a signal",
}
"""In one place for `--help`, the README's table and their test."""

MANIFEST_HELP: Final = "the manifest, or the output folder or state file of a batch that has run"


class _Version(argparse.Action):
    """`--version`: looked up when it is asked for, since it takes longer than all the rest of `--help`."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Say it and leave."""
        from importlib.metadata import version

        print(f"falbatch {version('falbatch')}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """All commands with their flags."""
    parser = argparse.ArgumentParser(
        prog="falbatch",
        description="Run big batches against fal.ai's generative-media endpoints: resumable, never paying twice.",
        epilog=_epilog(tuple(EXIT_CODES), "falbatch run jobs/demo.yaml --sandbox", "falbatch status jobs/demo.yaml"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show program's version number and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (_run, _plan, _status, _retry, _reconcile, _cancel, _export):
        add(commands)
    add_windows(commands, _command, _positive)
    _sandbox(commands)
    return parser


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """`arguments` understood. What is wrong is told with the usage of the command it was said to; then SystemExit.

    argparse takes words that are no options together only: those of `call` and `price`, and the file of `init`, join
    here when they stand after an option.
    """
    options, left = build_parser().parse_known_args(arguments)
    if options.command == "init" and options.file is None and len(left) == 1 and not left[0].startswith("--"):
        options.file = Path(left[0])
    elif left and options.command in {"call", "price"} and not any(word.startswith("-") for word in left):
        options.fields += left
    elif left:
        options.parser.error(f"unrecognized arguments: {' '.join(left)}")
    if options.command == "price":  # an endpoint has no "=" in it
        words = [*options.endpoints, *options.fields]
        options.fields = [word for word in words if "=" in word]
        options.endpoints = [word for word in words if "=" not in word]
        if not options.endpoints:
            options.parser.error("an ENDPOINT is needed")
    return options


def _epilog(codes: tuple[int, ...], *examples: str) -> str:
    shown = "\n".join(f"  {code:>3}  {EXIT_CODES[code]}" for code in codes)
    return "examples:\n" + "\n".join(f"  {line}" for line in examples) + f"\n\nexit codes:\n{shown}"


def _command(
    commands: Any, name: str, what: str, codes: tuple[int, ...], *examples: str, **kwargs: Any
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=what[0].upper() + what[1:] + ".",
        epilog=_epilog(codes, *examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **kwargs,
    )
    parser.set_defaults(parser=parser)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help=MANIFEST_HELP)
    parser.add_argument("--output", metavar="DIR", type=Path, help="the output folder, in place of the manifest's")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout")


def _key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key-file", metavar="FILE", type=Path, help="read the fal key from FILE (otherwise FAL_KEY, then a login)"
    )


def _part(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--where", metavar="EXPR", help="only items for which EXPR holds, e.g. \"style == 'etching'\"")
    parser.add_argument("--limit", metavar="N", type=_positive, help="only the first N items")
    parser.add_argument("--sample", metavar="N", type=_positive, help="only N items, drawn the same way each time")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _run_flags(parser: argparse.ArgumentParser) -> None:
    _key(parser)
    parser.add_argument("--sandbox", action="store_true", help="against a local emulator of fal: no key, no cost")
    parser.add_argument("--yes", action="store_true", help="do not ask before submitting what costs money")
    _validation(parser)
    parser.add_argument(
        "--resubmit-unknown",
        action="store_true",
        help="submit jobs again whose submit got no answer and that fal does not list; each may be charged twice",
    )
    parser.add_argument(
        "--max-cost", metavar="USD", type=_dollars, help="submit nothing that would bring the batch above this cost"
    )
    parser.add_argument(
        "--ask-above",
        metavar="USD",
        type=_dollars,
        help="do not ask before a run that is expected to cost no more",
    )
    _wait(parser, "--reconcile-wait")
    parser.add_argument(
        "--webhook-listen", metavar="HOST:PORT", help="listen here for fal's webhooks instead of asking about each job"
    )
    parser.add_argument(
        "--webhook-url", metavar="URL", help="what fal calls to get there: the https URL of a tunnel or proxy"
    )
    parser.add_argument("--profile", action="store_true", help="show where the time went, stage by stage, at the end")


def _validation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-validate", action="store_true", help="do not check inputs against the endpoints' own schemas"
    )


def _wait(parser: argparse.ArgumentParser, flag: str) -> None:
    parser.add_argument(
        flag,
        dest="reconcile_s",
        metavar="SECONDS",
        type=_seconds,
        help="how long to look for submits without an answer in fal's request list (default: by how long jobs take)",
    )


def _dollars(text: str) -> Decimal:
    try:
        amount = Decimal(text.removeprefix("$"))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or not 0 <= amount <= 1_000_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount in US dollars, such as 12.50")
    return amount


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 86400")
    return seconds


def _run(commands: Any) -> None:
    parser = _command(
        commands,
        "run",
        "submit a manifest's jobs, wait for them and download the results; goes on where an earlier run stopped",
        tuple(EXIT_CODES),
        "falbatch run jobs/demo.yaml --sandbox",
        "falbatch run portraits.yaml --canary 20",
    )
    _common(parser)
    _part(parser)
    _run_flags(parser)
    parser.add_argument("--retry-failed", action="store_true", help="do failed and cancelled jobs again")
    parser.add_argument(
        "--canary",
        metavar="N",
        type=_positive,
        help="submit N jobs spread over all that is left, then stop and show what they say of the rest",
    )


def _plan(commands: Any) -> None:
    parser = _command(
        commands,
        "plan",
        "show what a run would do, job by job, without doing it",
        (0, 1, 2, 6),
        "falbatch plan jobs/demo.yaml",
        "falbatch plan jobs/demo.yaml --json",
    )
    _common(parser)
    _part(parser)
    _key(parser)
    parser.add_argument("--sandbox", action="store_true", help="ask a local emulator of fal instead of fal")
    parser.add_argument("--offline", action="store_true", help="ask nobody: go by what was heard before")
    _validation(parser)


def _status(commands: Any) -> None:
    parser = _command(
        commands,
        "status",
        "show how a batch stands, also while it runs",
        (0, 1, 2, 6),
        "falbatch status jobs/demo.yaml",
        "falbatch status outputs/demo --json",
    )
    _common(parser)


def _retry(commands: Any) -> None:
    parser = _command(
        commands,
        "retry",
        "do failed and cancelled jobs again (all, by error type, or by name), beside all that a run does: jobs that"
        " were never submitted are submitted too",
        tuple(EXIT_CODES),
        "falbatch retry portraits.yaml",
        "falbatch retry portraits.yaml --type runner_disconnected --name 'anna/*'",
    )
    _common(parser)
    _run_flags(parser)
    parser.add_argument("--type", metavar="TYPE", action="append", default=[], help="only failures of this error type")
    parser.add_argument(
        "--name", metavar="PATTERN", action="append", default=[], help="only jobs named like this (* ?)"
    )
    parser.add_argument(
        "--missing-files",
        action="store_true",
        help="instead: fetch lost files of finished jobs again, and judge again what was not taken, at no charge",
    )


def _reconcile(commands: Any) -> None:
    parser = _command(
        commands,
        "reconcile",
        "look for submits without an answer in fal's own request list, and bring home what is found",
        (0, 1, 2, 3, 4, 5, 6, 8, 130),
        "falbatch reconcile portraits.yaml",
        "falbatch reconcile outputs/portraits --wait 300",
    )
    _common(parser)
    _key(parser)
    _wait(parser, "--wait")


def _cancel(commands: Any) -> None:
    parser = _command(
        commands,
        "cancel",
        "cancel what is queued or running at fal; the next run reads what became of it",
        (0, 1, 2, 3, 4, 5, 6),
        "falbatch cancel portraits.yaml",
        "falbatch cancel portraits.yaml --name 'anna/*'",
    )
    _common(parser)
    _key(parser)
    parser.add_argument(
        "--name", metavar="PATTERN", action="append", default=[], help="only jobs named like this (* ?)"
    )


def _export(commands: Any) -> None:
    parser = _command(
        commands,
        "export",
        "write results joined with their inputs as JSONL or CSV",
        (0, 1, 2, 6),
        "falbatch export jobs/demo.yaml --to results.jsonl",
        "falbatch export jobs/demo.yaml --format csv --state done --state failed",
    )
    _common(parser)
    parser.add_argument("--format", choices=("jsonl", "csv"), help="default: by the ending of --to, else jsonl")
    parser.add_argument("--to", metavar="FILE", type=Path, help="write here instead of stdout")
    parser.add_argument(
        "--state", metavar="STATE", action="append", default=[], help="jobs in this state; default: done"
    )


def _sandbox(commands: Any) -> None:
    from falbatch.sandbox.flags import add_arguments

    parser = _command(
        commands,
        "sandbox",
        "serve the local emulator of fal; its address is the first line on stdout",
        (0, 1, 2),
        "falbatch sandbox --port 8787",
        "falbatch sandbox --port 0 --data sandbox-data --concurrency 4",
    )
    add_arguments(parser)
