"""`python -m falbatch.sandbox`: the sandbox as a program of its own."""

from __future__ import annotations

import argparse
import sys

from falbatch.errors import FalbatchError
from falbatch.sandbox.flags import DESCRIPTION, EXAMPLES, add_arguments, settings_from
from falbatch.sandbox.serve import serve


def main(argv: list[str] | None = None) -> int:
    """Parse flags, serve, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m falbatch.sandbox",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    try:
        serve(settings_from(parser.parse_args(argv)))
    except FalbatchError as error:
        sys.stderr.write(f"error: {error}\n" + (f"  try: {error.advice}\n" if error.advice else ""))
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
